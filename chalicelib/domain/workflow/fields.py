"""The keys of one task that stand for themselves: its fields and its transitions (``workflow-language.md`` §3)."""

import re
from typing import Any, Final

from chalicelib.domain import refs
from chalicelib.domain.entities import Json
from chalicelib.domain.templates import is_template
from chalicelib.domain.workflow.definition import Retry, Transition
from chalicelib.domain.workflow.drafts import FAILED, SUCCEEDED, TIMED_OUT
from chalicelib.domain.workflow.findings import Findings, shown
from chalicelib.domain.workflow.sources import ROOTS, Source, expression_of

MAX_SECONDS: Final = 366 * 86_400  # of a timeout or delay
MAX_LOOPS: Final = 100_000  # the highest max_iterations
MAX_AT_A_TIME: Final = 10_000  # items of a with_items
MAX_RETRIES: Final = 100
MAX_CONDITION: Final = 20_000  # characters

OUTCOMES: Final = {"on_success": SUCCEEDED, "on_failure": FAILED, "on_timeout": TIMED_OUT, "on_complete": None}
OF_TRANSITIONS: Final = ("when", "publish", "do", "__chart_meta__", "label", "color", "edge_waypoints")
OF_RETRIES: Final = ("count", "delay", "backoff", "max_delay", "jitter", "on_error", "when")

_USUAL_JITTER: Final = 0.5  # what `jitter: true` takes off at most
_NAMED_ITEM: Final = re.compile(r"[\w, ]{1,100} in [{<]")
_VARIABLE: Final = re.compile(r"[A-Za-z_][\w-]{0,254}")


class Fields:
    """Reads them for all tasks of a definition, and collects what can be checked only when all of it is known."""

    def __init__(self, findings: Findings) -> None:
        self.findings = findings
        self.sources: list[Source] = []
        self.variables: set[str] = set()
        self.links: list[tuple[str, str]] = []  # paths, and the names of tasks that stand there

    def action(self, raw: dict[str, Json], path: str) -> dict[str, Any]:
        """The fields of a task that runs an action."""
        fields: dict[str, Any] = {"action": self._action_ref(raw.get("action"), f"{path}.action")}
        raw = self._with(raw, path)
        per_item = raw.get("with_items") is not None
        key = "parameters" if raw.get("input") is None and raw.get("parameters") is not None else "input"
        fields["input"] = self._input(raw.get(key), f"{path}.{key}", per_item=per_item)
        if per_item:
            fields["with_items"] = self._with_items(raw["with_items"], f"{path}.with_items")
        for name, most in (("concurrency", MAX_AT_A_TIME), ("batch_size", MAX_AT_A_TIME), ("timeout", MAX_SECONDS)):
            if raw.get(name) is not None:
                fields[name] = self.findings.whole(raw[name], f"{path}.{name}", 1, most)
        if raw.get("retry") is not None:
            fields["retry"] = self._retry(raw["retry"], f"{path}.retry", per_item=per_item)
        if raw.get("delay") is not None:
            fields["delay"] = self._delay(raw["delay"], f"{path}.delay")
        key = "permission_set_ref" if "permission_set_refs" not in raw else "permission_set_refs"
        if raw.get(key) is not None:
            fields["permission_set_refs"] = self._permission_sets(raw[key], f"{path}.{key}", per_item=per_item)
        for name in ("worker_selector", "worker_tolerations", "worker_affinity"):
            if raw.get(name) is not None:
                fields[name] = self.template(raw[name], f"{path}.{name}", of_item=per_item)
        return {name: value for name, value in fields.items() if value is not None}

    def common(self, raw: dict[str, Json], path: str) -> dict[str, Any]:
        """The fields that a block can have as well."""
        fields: dict[str, Any] = {}
        if raw.get("when") is not None:
            fields["when"] = self.condition(raw["when"], f"{path}.when")
        if raw.get("join") is not None:
            fields["join"] = raw["join"] if raw["join"] == "all" else self._join(raw["join"], f"{path}.join")
        if raw.get("max_iterations") is not None:
            fields["max_iterations"] = self.findings.whole(
                raw["max_iterations"], f"{path}.max_iterations", 1, MAX_LOOPS
            )
        return {name: value for name, value in fields.items() if value is not None}

    def transitions(self, raw: dict[str, Json], path: str) -> list[Transition]:
        """``next``, or the older keys that stand for it; those are ignored beside it (§3)."""
        older = [key for key in ("publish", "decision", *OUTCOMES) if _says_older(raw, key)]
        if raw.get("next") is None:
            return [each for key in older for each in self._older(key, raw[key], f"{path}.{key}")]
        for key in older:
            self.findings.warning(f"{path}.{key}", "is ignored, because the task has 'next'; say it there")
        return self._next(raw["next"], f"{path}.next")

    def names(self, value: Json, path: str) -> list[str]:
        """Names of tasks, to be looked for when all are known."""
        found = self.findings.names(value, path)
        self.links.extend((path, name) for name in found)
        return found

    def condition(self, value: Json, path: str, *, of_item: bool = False) -> str | None:
        """A condition, as it is written; ``true`` and ``false`` need no quotes."""
        if isinstance(value, bool):
            return "true" if value else "false"
        text = self.findings.text(value, path, MAX_CONDITION)
        if text is not None:
            self.sources.append(Source(path, text, "condition", of_item))
        return text

    def template(self, value: Json, path: str, *, of_item: bool = False) -> Json:
        """A value with templates in it."""
        self.sources.append(Source(path, value, of_item=of_item))
        return value

    def variable(self, name: Json, path: str) -> str | None:
        """The name of a variable that the workflow sets."""
        text = self.findings.text(name, path)
        if text is None:
            return None
        if text in ROOTS:
            self.findings.warning(path, f"'{text}' alone means something else; read the variable as vars.{text}")
        self.variables.add(text)
        return text

    # What runs

    def _action_ref(self, value: Json, path: str) -> str | None:
        if value is None:
            self.findings.problem(path, "is missing: name the action to run, as pack.name; core.noop does nothing")
            return None
        try:
            return refs.component_ref(value if isinstance(value, str) else "")
        except refs.RefError:
            self.findings.problem(
                path, f"must be an action's ref, lower-case pack.name with exactly one dot, not {shown(value)}"
            )
            return None

    def _input(self, value: Json, path: str, *, per_item: bool) -> Json:
        if value is not None and not isinstance(value, dict) and not (isinstance(value, str) and is_template(value)):
            self.findings.problem(path, f"must be a map of parameters to values, not {shown(value)}")
            return None
        return self.template(value, path, of_item=per_item)

    def _with(self, raw: dict[str, Json], path: str) -> dict[str, Json]:
        """StackStorm's ``with: {items, concurrency}`` in our words."""
        given = raw.get("with")
        if given is None:
            return raw
        said = given if isinstance(given, dict) else {"items": given}
        items = said.get("items")
        if items is None or (isinstance(items, str) and _NAMED_ITEM.match(items)):
            self.findings.problem(f"{path}.with", "say items: '{{ … }}' (or with_items), and read each as {{ item }}")
            return raw
        return {"with_items": items, "concurrency": said.get("concurrency"), **raw}

    def _with_items(self, value: Json, path: str) -> Json:
        if isinstance(value, list):
            return self.template(value, path)
        if not isinstance(value, str) or not value.strip():
            self.findings.problem(
                path, f"must be a list, or a template that gives one: '{{{{ parameters.hosts }}}}', not {shown(value)}"
            )
            return None
        if not is_template(value):
            self.findings.warning(path, f"is one item, the text itself; for its value write '{{{{ {value[:60]} }}}}'")
        return self.template(value, path)

    def _retry(self, value: Json, path: str, *, per_item: bool) -> Retry | None:
        given = {"count": value} if isinstance(value, int | str) else value
        if not isinstance(given, dict):
            self.findings.problem(path, f"must be a map with count, delay and backoff, not {shown(value)}")
            return None
        self.findings.misspelled(given, path, OF_RETRIES)
        count = self.findings.whole(given.get("count"), f"{path}.count", 1, MAX_RETRIES)
        fields: dict[str, Any] = {}
        for name in ("delay", "max_delay"):
            if given.get(name) is not None:
                fields[name] = self.findings.number(given[name], f"{path}.{name}", MAX_SECONDS)
        if given.get("backoff") is not None:
            choices = ("constant", "linear", "exponential")
            fields["backoff"] = self.findings.one_of(given["backoff"], f"{path}.backoff", choices)
        jitter = given.get("jitter")
        if isinstance(jitter, bool):
            fields["jitter"] = _USUAL_JITTER if jitter else 0
        elif jitter is not None:
            fields["jitter"] = self.findings.number(jitter, f"{path}.jitter", 1)
        key = "when" if given.get("on_error") is None else "on_error"  # `when` is StackStorm's word for it
        if given.get(key) is not None:
            fields["on_error"] = self.condition(given[key], f"{path}.{key}", of_item=per_item)
        known = {name: each for name, each in fields.items() if each is not None}
        return None if count is None else Retry(count=count, **known)

    def _delay(self, value: Json, path: str) -> float | str | None:
        if isinstance(value, str) and is_template(value):
            self.template(value, path)
            return value
        return self.findings.number(value, path, MAX_SECONDS)

    def _permission_sets(self, value: Json, path: str, *, per_item: bool) -> Json:
        listed = [value] if isinstance(value, str) else value
        if not isinstance(listed, list) or not all(isinstance(each, str) for each in listed):
            self.findings.problem(path, f"must be a list of refs of permission sets, not {shown(value)}")
            return None
        return self.template(value, path, of_item=per_item)

    def _join(self, value: Json, path: str) -> int | None:
        if isinstance(value, str) and not value.strip().isdecimal():
            self.findings.problem(path, f"must be 'all', or how many tasks to wait for, not {shown(value)}")
            return None
        return self.findings.whole(value, path, 1, 1_000)

    # What follows

    def _next(self, value: Json, path: str) -> list[Transition]:
        if isinstance(value, str):
            return [Transition(do=self.names(value, path))]
        found = []
        for index, each in enumerate(value if isinstance(value, list) else [value]):
            at = f"{path}[{index}]" if isinstance(value, list) else path
            if isinstance(each, str):
                found.append(Transition(do=self.names(each, at)))
            elif isinstance(each, dict):
                found.append(self._transition(each, at))
            else:
                self.findings.problem(at, f"must be a transition (a map with when, publish and do), not {shown(each)}")
        return found

    def _transition(self, raw: dict[str, Json], path: str) -> Transition:
        self.findings.misspelled(raw, path, OF_TRANSITIONS)
        return Transition(
            when=None if raw.get("when") in (None, "") else self.condition(raw["when"], f"{path}.when"),
            publish=self._publish(raw.get("publish"), f"{path}.publish"),
            do=[] if raw.get("do") in (None, "") else self.names(raw["do"], f"{path}.do"),
        )

    def _publish(self, value: Json, path: str) -> list[tuple[str, Json]]:
        if value is None:
            return []
        listed = value if isinstance(value, list) else [value]
        found: list[tuple[str, Json]] = []
        for index, each in enumerate(listed):
            at = f"{path}[{index}]" if isinstance(value, list) else path
            if isinstance(each, dict):
                found.extend((name, self.template(item, f"{at}.{name}")) for name, item in each.items())
            elif isinstance(each, str) and _VARIABLE.fullmatch(each.strip()):
                found.append((each.strip(), "{{ result() }}"))
            else:
                self.findings.problem(at, f"must be variables with their values, - name: value, not {shown(each)}")
        for name, _ in found:
            self.variable(name, path)
        return found

    def _older(self, key: str, value: Json, path: str) -> list[Transition]:
        match key:
            case "publish":
                return [Transition(when=SUCCEEDED, publish=self._publish(value, path))]
            case "decision":
                return self._decision(value, path)
        return [Transition(when=OUTCOMES[key], do=self.names(value, path))]

    def _decision(self, value: Json, path: str) -> list[Transition]:
        if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
            self.findings.problem(path, f"must be a list of maps with when and next, not {shown(value)}")
            return []
        found: list[Transition] = []
        others: list[tuple[str, Json]] = []
        conditions: list[str] = []
        for index, each in enumerate(value):
            at = f"{path}[{index}]"
            when = None if each.get("when") in (None, "") else self.condition(each["when"], f"{at}.when")
            if isinstance(default := each.get("default"), str):
                others.append((f"{at}.default", default))
            elif when is None:
                others.append((f"{at}.next", each.get("next")))
            if when is None:
                continue
            found.append(Transition(when=when, do=self.names(each.get("next"), f"{at}.next")))
            expression = expression_of(when)
            conditions.append("false" if expression is None else expression.source)
        # The default is for a success of which none of the conditions hold.
        otherwise = " and ".join([SUCCEEDED, *(f"not ({each})" for each in conditions)])
        return found + [Transition(when=otherwise, do=self.names(names, at)) for at, names in others]


def holds_tasks(value: Json) -> bool:
    """Whether ``value``, of an ``on_failure`` or its like, is tasks to run, not their names: names have no dot."""
    match value:
        case dict():
            return True
        case str():
            return "." in value
        case list():
            return any(isinstance(each, dict | list) or (isinstance(each, str) and "." in each) for each in value)
    return False


def _says_older(raw: dict[str, Json], key: str) -> bool:
    value = raw.get(key)
    return value not in (None, "", []) and not (key in OUTCOMES and holds_tasks(value))
