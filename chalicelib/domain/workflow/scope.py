"""What the expressions of a workflow can read (``workflow-language.md`` §5, README 4), and how its conditions decide
(§6). Results are loaded only for the tasks that an expression names."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

import msgspec

from chalicelib.domain import templates
from chalicelib.domain.entities import ExecutionStatus, Json
from chalicelib.domain.expressions import ExpressionError, Functions, compile_expression
from chalicelib.domain.templates import Rendered
from chalicelib.domain.values import KEYSTORE_REFERENCES, Keystore, truthy
from chalicelib.domain.workflow.state import Origin, State

_WORD: Final = re.compile(r"[A-Za-z0-9_.-]+")
# `task[...]` with something else than a literal name inside: it may be any task.
_ANY_TASK: Final = re.compile(r"\btasks?\s*\[\s*(?!['\"])")
_DOTS: Final = 12  # parts of a dotted name that are looked into
_NO_TEXT: Final = ("false", "0", "no", "")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the task ended that an expression speaks of; ``result`` is its view (:func:`result_view`).

    ``takes_timeouts``: it has a transition of its own for ``timed_out()``, so that ``failed()`` is not meant to hold
    for one (README 9).
    """

    status: ExecutionStatus | None = None
    timed_out: bool = False
    takes_timeouts: bool = False
    result: Json = None

    @property
    def succeeded(self) -> bool:
        return self.status == "completed"

    @property
    def failed(self) -> bool:
        return self.status not in (None, "completed") and not (self.timed_out and self.takes_timeouts)


@dataclass(frozen=True, slots=True)
class Scope:
    """Everything that an expression of one run may read at one moment. ``result_of`` gives the view of a task's result;
    ``read_key`` opens a key for a condition that looks into it."""

    origin: Origin
    state: State
    outcome: Outcome
    config: Json
    result_of: Callable[[str], Json]
    read_key: Callable[[str], Json]
    extra: Mapping[str, Json] = field(default_factory=dict)

    @property
    def functions(self) -> Functions:
        outcome = self.outcome
        return {
            "result": lambda: outcome.result,
            "succeeded": lambda: outcome.succeeded,
            "failed": lambda: outcome.failed,
            "timed_out": lambda: outcome.timed_out,
        }

    def render(self, value: Json) -> Json:
        """``value`` with its templates evaluated; a secret in it is an :class:`ExpressionError`, as what comes of it
        is stored."""
        return self._rendered(value, KEYSTORE_REFERENCES)

    def render_with_secrets(self, value: Json) -> Rendered:
        """The same for what is given to an action, which may be given secrets."""
        return templates.render_with_secrets(value, self._names(value), missing="error", functions=self.functions)

    def holds(self, condition: str) -> bool:
        """Whether ``condition`` is true: as an expression, or by the text that a template gives (§6)."""
        try:
            expression = compile_expression(condition)
        except ExpressionError:
            text = self._rendered(condition, Keystore(self.read_key))
            return truthy(text) and not (isinstance(text, str) and text.strip().lower() in _NO_TEXT)
        names = self._names(condition) | {"keystore": Keystore(self.read_key)}
        return truthy(expression.evaluate(names, self.functions))

    def _rendered(self, value: Json, keystore: Keystore) -> Json:
        names = self._names(value) | {"keystore": keystore}
        return templates.render(value, names, missing="error", functions=self.functions)

    def _names(self, value: Json) -> dict[str, Any]:
        variables = self.state.variables
        tasks = {name: self.result_of(name) for name in _tasks_in(value, self.state.tasks)}
        return {
            **variables,
            "parameters": templates.hide_secrets(self.origin.parameters or {}, self.origin.secrets or {}),
            "workflow": variables,
            "vars": variables,
            "variables": variables,
            "task": tasks,
            "tasks": tasks,
            "config": self.config,
            "pack": {"ref": self.origin.pack_ref, "config": self.config},
            "system": {
                "workflow_start": msgspec.to_builtins(self.origin.started_at),
                "workflow_execution": self.origin.execution,
            },
            **self.extra,
        }


def result_view(result: Json, printed: str | None = None) -> Json:
    """What ``result()`` and ``task.NAME`` give for an execution's result (§4.12): its fields, with those of its parsed
    output on top, be it ``data`` or JSON on standard output."""
    if not isinstance(result, dict):
        return {} if result is None else {"data": result}
    data = result.get("data")
    if data is None and isinstance(said := result.get("stdout", printed), str):
        data = _as_json(said)
    return {**result, **data} if isinstance(data, dict) else result


def _as_json(text: str) -> Json:
    if text[:200].lstrip()[:1] != "{":
        return None
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return None


def _tasks_in(value: Json, names: Iterable[str]) -> list[str]:
    """Those of the task ``names`` that a value with templates, or an expression, may speak of."""
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    words, any_task = _words_of(text)
    if words is None:
        return []
    return list(names) if any_task else [name for name in names if name in words]


@lru_cache(maxsize=2000)
def _words_of(text: str) -> tuple[frozenset[str] | None, bool]:
    if "task" not in text:
        return None, False
    words: set[str] = set()
    for word in _WORD.findall(text):
        # A task may have dots in its name, and is followed by the fields of its result.
        parts = word.split(".")[:_DOTS]
        words.update(
            ".".join(parts[start:stop]) for start in range(len(parts)) for stop in range(start + 1, len(parts) + 1)
        )
    return frozenset(words), _ANY_TASK.search(text.replace('\\"', "'")) is not None
