"""The expressions and templates of a definition, checked before anything runs: do they compile, and can what they name
be there at all (``workflow-language.md`` §5-6)."""

import re
from collections.abc import Collection, Iterator
from typing import Final, Literal, NamedTuple

from chalicelib.domain.entities import Json
from chalicelib.domain.expressions import Expression, ExpressionError, compile_expression
from chalicelib.domain.functions import FUNCTIONS
from chalicelib.domain.templates import compile_template, is_template
from chalicelib.domain.workflow.findings import Findings

ROOTS: Final = frozenset(
    {"parameters", "workflow", "vars", "variables", "task", "tasks", "config", "pack", "keystore", "system"}
)
ITEM_ROOTS: Final = frozenset({"item", "index", "batch"})  # inside a with_items
WORKFLOW_FUNCTIONS: Final = frozenset({"result", "succeeded", "failed", "timed_out"})

_TASK: Final = re.compile(r"(?<![\w.'\"])tasks?\.(\w[\w-]*)")


class Source(NamedTuple):
    """A condition, or a value with templates in it. ``of_item``: it is evaluated for each item of a ``with_items``."""

    path: str
    value: Json
    kind: Literal["condition", "template"] = "template"
    of_item: bool = False


def check(sources: Collection[Source], variables: Collection[str], tasks: Collection[str], findings: Findings) -> None:
    """Tell what is wrong with ``sources``, where ``variables`` are what the workflow sets at any time."""
    known = ROOTS | set(variables)
    for source in sources:
        names = known | ITEM_ROOTS if source.of_item else known
        if source.kind == "condition":
            _check_condition(source, names, findings)
            _check_tasks(source.path, source.value, tasks, findings)
        else:
            for path, text in _strings_in(source.path, source.value):
                if is_template(text):
                    if _check_template(path, text, names, findings):
                        for part in text.split("{{")[1:]:
                            _check_tasks(path, part.partition("}}")[0], tasks, findings)
                elif "<%" in text and "%>" in text:
                    findings.warning(path, "stays as it is: expressions are written {{ }} here, not <% %>")


def expression_of(text: str) -> Expression | None:
    """The expression that a condition is; None if it is a text with templates, or wrong."""
    try:
        return compile_expression(text)
    except ExpressionError:
        return None


def _check_condition(source: Source, known: Collection[str], findings: Findings) -> None:
    try:
        expression = compile_expression(source.value)
    except ExpressionError as error:
        if not is_template(source.value):
            findings.problem(source.path, f"{error}; write an expression, without <% %>, such as: result().code == 200")
            return
        if _check_template(source.path, source.value, known, findings):
            findings.warning(
                source.path,
                "is a text with values in it, which holds unless it comes to 'false', '0', 'no' or nothing; "
                "for a comparison put all of it into one {{ }}",
            )
        return
    _check_names(source.path, expression.names, expression.called, known, findings)


def _check_template(path: str, text: str, known: Collection[str], findings: Findings) -> bool:
    try:
        template = compile_template(text)
    except ExpressionError as error:
        findings.problem(path, str(error))
        return False
    _check_names(path, template.names, template.called, known, findings)
    return True


def _check_names(
    path: str, names: Collection[str], called: Collection[str], known: Collection[str], findings: Findings
) -> None:
    for name in sorted(set(names) - set(known)):
        if name in ITEM_ROOTS:
            findings.problem(path, f"'{name}' is known only where a task with with_items is started for an item")
        else:
            findings.problem(
                path,
                f"there is no '{name}' to read{findings.hint(name, known)}"
                f" (a parameter is parameters.{name}, a task's result task.{name})",
            )
    for name in sorted(set(called) - WORKFLOW_FUNCTIONS):
        findings.problem(path, f"there is no function '{name}'{findings.hint(name, {*WORKFLOW_FUNCTIONS, *FUNCTIONS})}")


def _check_tasks(path: str, expression: str, tasks: Collection[str], findings: Findings) -> None:
    """A task that is not there has no result; but whether this is looked at depends on the run, so it is a warning."""
    for name in _TASK.findall(expression):
        if name not in tasks and name.partition("-")[0] not in tasks:
            findings.warning(path, f"there is no task '{name}' whose result could be read{findings.hint(name, tasks)}")


def _strings_in(path: str, value: Json) -> Iterator[tuple[str, str]]:
    waiting = [(path, value)]
    while waiting:
        where, item = waiting.pop()
        if isinstance(item, dict):
            waiting.extend((f"{where}.{name}", each) for name, each in reversed(item.items()))
        elif isinstance(item, list):
            waiting.extend((f"{where}[{index}]", each) for index, each in reversed(list(enumerate(item))))
        elif isinstance(item, str):
            yield where, item
