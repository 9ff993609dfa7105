"""What users write, read into the one graph that the conductor runs (``workflow-language.md`` §2-3, README 9 and 16).

Three ways of writing come to the same: transitions (``next``, and the older keys that stand for it), dependencies
(``depends_on``), and blocks (``if``, ``parallel``, ``tasks``, and tasks inside ``on_failure`` and its like). What each
of them means is said in ``docs/workflows.md``.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import msgspec

from chalicelib.domain.entities import Json
from chalicelib.domain.templates import is_template
from chalicelib.domain.workflow import sources
from chalicelib.domain.workflow.definition import MAX_ITERATIONS, Definition, Task, Transition
from chalicelib.domain.workflow.drafts import (
    FAILED,
    SUCCEEDED,
    TIMED_OUT,
    Block,
    Draft,
    Exit,
    Exits,
    Member,
    as_graph,
    close,
    connect,
    in_sequence,
)
from chalicelib.domain.workflow.fields import MAX_LOOPS, MAX_SECONDS, OUTCOMES, Fields, holds_tasks
from chalicelib.domain.workflow.findings import Findings, Problem, shown
from chalicelib.domain.workflow.graph import Graph

MAX_BYTES: Final = 1 << 20  # of a definition as JSON; workflow-language.md §1
MAX_TASKS: Final = 1_000  # those that blocks are made of among them
MAX_TRANSITIONS: Final = 20_000  # from one task to one task
MAX_NESTING: Final = 12  # of blocks

_RESERVED: Final = frozenset({"parameters", "vars", "task", "system", "kv", "pack", "item", "batch", "index"})
_NAME: Final = re.compile(r"\w[\w -]{0,254}")
_TYPES: Final = ("action", "workflow", "parallel", "if")
_OF_BLOCKS: Final = ("if", "condition", "then", "else", "parallel", "branches", "tasks")
_OF_TASKS: Final = (
    "name", "type", "next", "join", "when", "depends_on", "publish", "decision", *OUTCOMES,
    "action", "input", "parameters", "with_items", "with", "concurrency", "batch_size", "retry", "timeout", "delay",
    "max_iterations", "permission_set_refs", "permission_set_ref", "worker_selector", "worker_tolerations",
    "worker_affinity", *_OF_BLOCKS,
)  # fmt: skip
_NOT_OF_BLOCKS: Final = ("with_items", "with", "concurrency", "batch_size", "retry", "timeout", "delay")
_OF_DEFINITIONS: Final = (
    "ref", "label", "description", "tags", "parameters", "output", "version", "vars", "tasks", "output_map",
    "cancellation_policy", "timeout", "max_iterations",
)  # fmt: skip

_Entry = tuple[str, str | None, Json]  # path, name if a map gives it, what is there


@dataclass(frozen=True, slots=True)
class Parsed:
    """``definition`` is there if there are no problems; ``paths`` lead to its tasks, by their names."""

    definition: Definition | None
    problems: list[Problem]
    warnings: list[Problem]
    paths: Mapping[str, str]


def parse(definition: Json) -> Parsed:
    """What ``definition`` says, or everything that is wrong with it. Whether its actions exist is not looked at."""
    try:
        size = len(msgspec.json.encode(definition))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        return _refused(f"a definition must be JSON: {error}")
    if size > MAX_BYTES:
        return _refused(f"a definition may have at most {MAX_BYTES} bytes, not {size}")
    findings = Findings()
    reader = _Reader(findings)
    read = reader.definition(definition)
    return Parsed(None if findings.problems else read, findings.problems, findings.warnings, reader.paths)


def _refused(reason: str) -> Parsed:
    return Parsed(None, [Problem("$", reason)], [], {})


def actions_of(definition: Definition) -> list[str]:
    """The refs of the actions that a workflow needs, each once."""
    return list(dict.fromkeys(task.action for task in definition.tasks if task.action is not None))


def check_actions(parsed: Parsed, exists: Callable[[str], bool]) -> list[Problem]:
    """What to warn of: actions that are not there, so far (README 16). Each is told where it is named first."""
    first: dict[str, str] = {}
    for task in [] if parsed.definition is None else parsed.definition.tasks:
        if task.action is not None:
            first.setdefault(task.action, task.name)
    return [
        Problem(
            f"{parsed.paths[name]}.action",
            f"action '{ref}' does not exist yet; until it does, a run that comes to it fails there",
        )
        for ref, name in first.items()
        if not exists(ref)
    ]


def permission_sets_of(definition: Definition) -> list[str]:
    """The permission sets that tasks name; those that a template gives are known only in a run."""
    found: dict[str, None] = {}
    for task in definition.tasks:
        given = task.permission_set_refs
        listed = given if isinstance(given, list) else [given]
        found.update(dict.fromkeys(ref for ref in listed if isinstance(ref, str) and ref and not is_template(ref)))
    return list(found)


class _Reader:
    """Reads one definition. ``_drafts`` are its tasks so far, in the order in which they are written."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._fields = Fields(findings)
        self._drafts: list[Draft] = []
        self._places: dict[str, str] = {}  # where each name that users gave stands
        self._exits: dict[str, Exits] = {}  # what depends_on a name waits for
        self._waits: list[tuple[Draft, str, str]] = []  # drafts, paths, and the tasks that they depend on
        self._jumps: list[tuple[Draft, str]] = []  # where branches go on that name a task, and its name
        self._ends: set[str] = set()  # the tasks that blocks end with
        self._circular: set[str] = set()  # tasks that wait for each other
        self._depth = 0

    @property
    def paths(self) -> dict[str, str]:
        return {draft.name: draft.path for draft in self._drafts}

    def definition(self, raw: Json) -> Definition | None:
        if isinstance(raw, list):
            raw = {"tasks": raw}
        if not isinstance(raw, dict):
            self._findings.problem("$", f"must be a map with a list of tasks, not {shown(raw)}")
            return None
        self._findings.misspelled(raw, "$", _OF_DEFINITIONS)
        own = {"vars": self._vars(raw.get("vars")), "output_map": self._output(raw), **self._limits(raw)}
        self._tasks(raw.get("tasks"))
        if len(self._drafts) > MAX_TASKS:
            # Not all have been read, so there is no use in looking further.
            self._findings.problem("$.tasks", f"are more than {MAX_TASKS} tasks; move some to a workflow of their own")
            return None
        self._settle_waits()
        self._settle_jumps()
        self._check_links()
        sources.check(self._fields.sources, self._fields.variables, self._exits, self._findings)
        # Of two with one name only the first goes into the graph, which has to be looked at nevertheless.
        drafts = {draft.name: draft for draft in reversed(self._drafts)}
        tasks = [draft.task() for draft in self._drafts if drafts[draft.name] is draft]
        read = Definition(tasks=tasks, **{name: value for name, value in own.items() if value is not None})
        if tasks:
            self._check_graph(read, drafts)
        return read

    # The definition's own keys

    def _vars(self, raw: Json) -> dict[str, Json]:
        given = {} if raw is None else self._findings.object(raw, "$.vars")
        for name in given:
            self._fields.variable(name, f"$.vars.{name}")
        self._fields.template(given, "$.vars")
        return given

    def _output(self, raw: dict[str, Json]) -> dict[str, Json] | None:
        key = "output_map"
        if raw.get(key) is None and isinstance(raw.get("output"), list):
            key = "output"  # as StackStorm calls it; as a map it is a schema
        if raw.get(key) is None:
            return None
        given = self._findings.object(raw[key], f"$.{key}")
        self._fields.template(given, f"$.{key}")
        return given

    def _limits(self, raw: dict[str, Json]) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        if raw.get("timeout") is not None:
            fields["timeout"] = self._findings.whole(raw["timeout"], "$.timeout", 1, MAX_SECONDS)
        if raw.get("max_iterations") is not None:
            limit = self._findings.whole(raw["max_iterations"], "$.max_iterations", 1, MAX_LOOPS)
            fields["max_iterations"] = limit or MAX_ITERATIONS
        if raw.get("cancellation_policy") is not None:
            policies = ("allow_finish", "cancel_running")
            path = "$.cancellation_policy"
            fields["cancellation_policy"] = self._findings.one_of(raw["cancellation_policy"], path, policies)
        return fields

    # Lists of tasks

    def _tasks(self, raw: Json) -> None:
        entries = self._entries(raw, "$.tasks")
        if raw in (None, [], {}):
            self._findings.problem("$.tasks", "is missing: a workflow needs at least one task")
        members = self._members(entries, None)
        if any(_is_block(entry) for _, _, entry in entries) and not any(member.linked for member in members):
            # Whoever writes blocks, and no transition anywhere, writes down steps.
            self._in_sequence(members)

    def _entries(self, raw: Json, path: str) -> list[_Entry]:
        """The entries of a list of tasks, or of a map of names to tasks; a lone task is a list of one."""
        match raw:
            case None:
                return []
            case list():
                return [(f"{path}[{index}]", None, entry) for index, entry in enumerate(raw)]
            case dict() if not _is_task(raw):
                return [(f"{path}.{name}", name, entry) for name, entry in raw.items()]
            case dict() | str():
                return [(path, None, raw)]
        self._findings.problem(path, f"must be a list of tasks, not {shown(raw)}")
        return []

    def _members(self, entries: Sequence[_Entry], prefix: str | None) -> list[Member]:
        found = (self._member(entry, number, prefix) for number, entry in enumerate(entries, 1))
        return [member for member in found if member is not None]

    def _block(self, raw: Json, path: str, prefix: str, *, ordered: bool) -> Block:
        """Tasks inside another one: one after the other if ``ordered``, unless they say otherwise."""
        entries = self._entries(raw, path)
        members: list[Member] = []
        if entries and self._depth == MAX_NESTING:
            self._findings.problem(path, f"blocks may be nested {MAX_NESTING} deep; make a workflow of its own of this")
        else:
            self._depth += 1
            members = self._members(entries, prefix)
            self._depth -= 1
        if not members:
            return Block([], [])
        if ordered and not any(member.linked for member in members):
            return self._in_sequence(members)
        return as_graph(members)

    def _in_sequence(self, members: Sequence[Member]) -> Block:
        for one, following in pairwise(members):
            if not one.exits:
                self._findings.problem(
                    following.path,
                    f"nothing leads here: '{one.name}', which is listed before it, only goes on to other tasks;"
                    " say with next or depends_on when it is to begin",
                )
        return in_sequence(members)

    def _member(self, entry: _Entry, number: int, prefix: str | None) -> Member | None:
        """One entry: a task, a block, the name of a task that stands elsewhere, or just an action."""
        path, given, raw = entry
        if len(self._drafts) > MAX_TASKS:
            return None
        if prefix is not None and isinstance(raw, str):
            if "." not in raw:
                (target,) = self._fields.names([raw], path) or [""]
                after = Draft(f"{prefix}.{number}", path)
                self._jumps.append((after, target))
                return Member(path, path, target, [Exit(after)], linked=True)
            raw = {"action": raw}
        if prefix is not None and isinstance(raw, list):
            raw = {"tasks": raw}
        if not isinstance(raw, dict):
            self._findings.problem(path, f"must be a task (a map with name and action), not {shown(raw)}")
            return None
        kind = self._kind(raw, path)
        name = self._name(raw, path, given, required=prefix is None and kind == "action")
        self._findings.misspelled(raw, path, _OF_TASKS)
        draft = Draft(name or f"{prefix or kind}.{number}", path)
        self._drafts.append(draft)
        return self._action(raw, draft) if kind == "action" else self._around(raw, draft, kind)

    def _kind(self, raw: dict[str, Json], path: str) -> str:
        given = raw.get("type")
        if given is not None and given not in _TYPES:
            self._findings.problem(f"{path}.type", f"must be {', '.join(_TYPES)}, not {shown(given)}")
        if given == "if" or "then" in raw or ("if" in raw and raw.get("action") is None):
            kind = "if"
        elif given == "parallel" or "parallel" in raw:
            kind = "parallel"
        elif "tasks" in raw and raw.get("action") is None:
            kind = "tasks"
        else:
            return "action"
        if raw.get("action") is not None:
            self._findings.problem(f"{path}.action", "a task runs an action or holds other tasks; make two tasks of it")
        for key in _NOT_OF_BLOCKS:
            if raw.get(key) is not None:
                self._findings.problem(
                    f"{path}.{key}",
                    "works on actions only; put it on the tasks inside, or make this a workflow of its own",
                )
        return kind

    def _name(self, raw: dict[str, Json], path: str, given: str | None, *, required: bool) -> str | None:
        name, at = (raw.get("name"), f"{path}.name") if given is None else (given, path)
        if name is None:
            if required:
                self._findings.problem(at, "is missing: each task needs a name, by which others lead to it")
            return None
        if not isinstance(name, str) or not _NAME.fullmatch(name) or name != name.strip():
            allowed = "1 to 255 letters, digits, '_' and '-', with spaces between them"
            self._findings.problem(at, f"must be {allowed}, not {shown(name)}")
            return None
        if name in _RESERVED:
            self._findings.problem(at, f"'{name}' means something else in expressions; choose another name")
        elif name in self._places:
            self._findings.problem(at, f"the name '{name}' is taken by {self._places[name]}; choose another one")
        self._places.setdefault(name, path)
        return name

    # One task

    def _action(self, raw: dict[str, Json], draft: Draft) -> Member:
        if "if" in raw and raw.get("when") is None:
            raw = {**raw, "when": raw["if"]}  # on an action it is a condition like any other
        jumps = len(self._jumps)
        draft.fields |= self._fields.action(raw, draft.path) | self._fields.common(raw, draft.path)
        draft.written = self._fields.transitions(raw, draft.path)
        success = [Exit(draft, SUCCEEDED)]
        self._exits.setdefault(draft.name, success)
        exits = self._outcomes(raw, draft, draft.lead, success)
        return self._finished(raw, draft, draft.written, exits, linked=len(self._jumps) > jumps)

    def _finished(
        self, raw: dict[str, Json], draft: Draft, written: Sequence[Transition], exits: Exits, *, linked: bool = False
    ) -> Member:
        waits: list[str] = []
        if raw.get("depends_on") not in (None, "", []):
            path = f"{draft.path}.depends_on"
            waits = self._fields.names(raw["depends_on"], path)
            self._waits.extend((draft, path, name) for name in waits)
            draft.fields.setdefault("join", "all")
            draft.fields["gathers"] = True
        targets = [name for transition in written for name in transition.do]
        linked = linked or bool(targets or waits) or raw.get("join") is not None
        return Member(draft.name, draft.path, draft.name, exits, targets, waits, linked)

    def _outcomes(self, raw: dict[str, Json], draft: Draft, follow: Callable[..., None], success: Exits) -> Exits:
        """The tasks inside ``on_failure`` and its like; what comes after them comes after the whole."""
        found: dict[str, Exits] = {}
        for key, when in OUTCOMES.items():
            if not holds_tasks(raw.get(key)):
                continue
            block = self._block(raw[key], f"{draft.path}.{key}", f"{draft.name}.{key}", ordered=True)
            follow(when, *block.starts)
            found[key] = self._met(block, f"{draft.name}.{key}.end", draft.path)
        if "on_complete" in found:
            return found["on_complete"]
        return [*found.get("on_success", success), *found.get("on_failure", []), *found.get("on_timeout", [])]

    def _met(self, block: Block, name: str, path: str) -> Exits:
        """The ways out of a block; where it has several ends, these meet first."""
        if len(block.tails) < 2:
            return [each for tail in block.tails for each in tail]
        return self._closed(block.tails, name, path)

    def _closed(self, tails: Sequence[Exits], name: str, path: str) -> Exits:
        made = close(tails, name, path)
        self._drafts.extend(made)
        self._ends.update(draft.name for draft in made)
        return [Exit(made[-1])]

    # One block

    def _around(self, raw: dict[str, Json], start: Draft, kind: str) -> Member:
        """The tasks of a block between its start and its end."""
        first, jumps = len(self._drafts), len(self._jumps)
        if kind == "if" and raw.get("type") == "if" and "if" not in raw and "condition" not in raw:
            raw = {**{name: each for name, each in raw.items() if name != "when"}, "if": raw.get("when")}
        start.fields |= self._fields.common({**raw, "when": None}, start.path)
        if raw.get("when") is None:
            tails = self._inside(raw, start, kind)
        else:
            # Skipped, it would still lead on to its branches; so it stands in an `if` of its own.
            inner = {name: raw[name] for name in ("type", *_OF_BLOCKS) if name in raw}
            tails = self._if(raw["when"], (inner, start.path), (None, ""), start, f"{start.path}.when")
        inside = _Inside(self._drafts[first:])
        written = self._fields.transitions(raw, start.path)
        success = self._closed(tails, f"{start.name}.end", start.path) if tails else []
        self._exits.setdefault(start.name, success)

        def follow(when: str | None, *targets: str) -> None:
            follow_with(Transition(when=when, do=list(targets)))

        def follow_with(transition: Transition) -> None:
            outcome = _outcome_of(transition.when)
            if outcome in (None, FAILED, TIMED_OUT):
                inside.catch(transition, outcome or FAILED)
            if outcome in (None, SUCCEEDED) and success:
                success[0].draft.written.append(transition)

        for transition in written:
            follow_with(transition)
        exits = self._outcomes(raw, start, follow, success)
        return self._finished(raw, start, written, exits, linked=len(self._jumps) > jumps)

    def _inside(self, raw: dict[str, Json], start: Draft, kind: str) -> list[Exits]:
        path = start.path
        if kind == "if":
            given = raw.get("if", raw.get("condition"))
            at = f"{path}.if" if "if" in raw else f"{path}.condition"
            if isinstance(given, dict):
                raw, path, at = given, at, f"{at}.condition"
                given = given.get("condition")
            if raw.get("then") is None and raw.get("else") is None:
                self._findings.problem(f"{path}.then", "is missing: say what to do if the condition holds")
            then, otherwise = ((raw.get(key), f"{path}.{key}") for key in ("then", "else"))
            return self._if(given, then, otherwise, start, at)
        key = next((key for key in ("parallel", "branches", "tasks") if raw.get(key) not in (None, True)), kind)
        given, at = raw.get(key), f"{path}.{key}"
        if isinstance(given, dict) and (inner := next((key for key in ("branches", "tasks") if key in given), None)):
            given, at = given[inner], f"{at}.{inner}"
        block = self._block(given, at, start.name, ordered=kind == "tasks")
        if not block.starts:
            self._findings.problem(at, "is empty: list the tasks to run")
        start.lead(None, *block.starts)
        return block.tails

    def _if(
        self, given: Json, then: tuple[Json, str], otherwise: tuple[Json, str], start: Draft, path: str
    ) -> list[Exits]:
        text = None if given in (None, "") else self._fields.condition(given, path)
        if text is None:
            self._findings.problem(path, "is missing: say which condition has to hold")
        expression = sources.expression_of(text or "")
        if expression is None and text is not None and is_template(text):
            self._findings.problem(path, "must be one expression: put all of it into one {{ }}")
        if expression is not None and expression.called & {"succeeded", "failed", "timed_out"}:
            self._findings.warning(
                path, "speaks of the block itself, which succeeds; for how a task ended, use its next or on_failure"
            )
        condition = "true" if expression is None else expression.source
        # As its own condition it is evaluated first, so that what goes wrong fails the task and takes no branch.
        start.fields["when"] = f"({condition}) or true"
        exits: Exits = []
        for key, when, (tasks, at) in (("then", condition, then), ("else", f"not ({condition})", otherwise)):
            block = self._block(tasks, at, f"{start.name}.{key}", ordered=True)
            start.lead(when, *block.starts)
            exits += self._met(block, f"{start.name}.{key}.end", start.path) if block.starts else [Exit(start, when)]
        return [exits] if exits else []

    # The whole

    def _settle_waits(self) -> None:
        """Let what a task depends on lead to it."""
        needed: dict[str, list[str]] = {}
        for draft, path, name in self._waits:
            exits = self._exits.get(name)
            if exits is None:
                continue  # told of with the links
            if draft.path.startswith((f"{self._places[name]}.", f"{self._places[name]}[")):
                self._findings.problem(path, f"'{name}' is the block that this task is in, and waits for it")
            elif not exits:
                self._findings.problem(path, f"'{name}' never ends: it only goes on to other tasks; depend on those")
            else:
                connect(exits, draft.name)
                needed.setdefault(draft.name, []).append(name)
        self._check_circles(needed)

    def _settle_jumps(self) -> None:
        """A branch that names a task goes on after it, if the task is the branch's alone; then there is nothing else
        that it could have run for."""
        graph = Graph(Definition(tasks=[draft.task() for draft in self._drafts] if self._jumps else []))
        for after, target in self._jumps:
            leading = graph.inbound(target) if target in self._exits else frozenset()
            if len(leading) == 1 and not leading & graph.reachable_from([target]):
                connect(self._exits[target], after.name)
                self._drafts.append(after)
        while idle := self._idle_ends():
            self._drafts = [draft for draft in self._drafts if draft.name not in idle]
            for draft in idle.values():
                if any(each.publish or set(each.do) - self._ends for each in draft.transitions):
                    self._findings.problem(
                        draft.path,
                        "nothing can follow this: it only goes on to tasks that others lead to as well;"
                        " say in their next what follows",
                    )

    def _idle_ends(self) -> dict[str, Draft]:
        """The ends of blocks that no run comes to: each of its branches goes somewhere else."""
        led_to = {name for draft in self._drafts for transition in draft.transitions for name in transition.do}
        ends = {draft.name: draft for draft in self._drafts if draft.name in self._ends}
        return {name: draft for name, draft in ends.items() if name not in led_to}

    def _check_circles(self, needed: dict[str, list[str]]) -> None:
        tasks = [Task(name=name, next=[Transition(do=needed.get(name, []))]) for name in self._exits]
        graph = Graph(Definition(tasks=tasks))
        for draft, path, name in self._waits:
            if name in self._exits and graph.same_loop(draft.name, name) and draft.name not in self._circular:
                circle = [each for each in self._exits if graph.same_loop(each, name)]
                self._circular.update(circle)
                self._findings.problem(path, f"these wait for each other, and none can begin: {', '.join(circle)}")

    def _check_links(self) -> None:
        for path, name in self._fields.links:
            if name not in self._places:
                self._findings.problem(path, f"there is no task '{name}'{self._findings.hint(name, self._places)}")

    def _check_graph(self, definition: Definition, drafts: dict[str, Draft]) -> None:
        graph = Graph(definition)
        if sum(len(graph.successors(task.name)) for task in definition.tasks) > MAX_TRANSITIONS:
            self._findings.problem("$.tasks", f"lead to each other more than {MAX_TRANSITIONS} times")
        for name in graph.entries:
            if graph.inbound(name) and name not in {definition.tasks[0].name, *self._circular}:
                loop = ", ".join(task.name for task in definition.tasks if graph.same_loop(name, task.name))
                self._findings.problem(
                    drafts[name].path,
                    f"'{name}' cannot be reached: nothing leads to it but its own loop ({loop});"
                    " name it in another task's next, or list it first",
                )
        for task in definition.tasks:
            inbound, path = len(graph.inbound(task.name)), f"{drafts[task.name].path}.join"
            if isinstance(task.join, int) and task.join > inbound:
                self._findings.problem(
                    path, f"waits for {task.join} tasks, but {inbound} lead here; 'all' is all of them"
                )
            elif task.join is not None and not task.gathers and not inbound:
                self._findings.warning(path, "has no effect, because nothing leads here")


class _Inside:
    """The tasks of a block, as far as its own transitions on failure are theirs: those that have none themselves."""

    def __init__(self, drafts: Sequence[Draft]) -> None:
        running = [draft for draft in drafts if draft.runs]
        failing = [draft for draft in running if not draft.handles(FAILED)]
        self._without = {FAILED: failing, TIMED_OUT: [draft for draft in failing if not draft.handles(TIMED_OUT)]}

    def catch(self, transition: Transition, outcome: str) -> None:
        """Let ``transition`` be taken where one of the tasks ends with ``outcome``."""
        when = transition.when or outcome
        for draft in self._without[outcome]:
            draft.written.append(msgspec.structs.replace(transition, when=when))


def _outcome_of(when: str | None) -> str | None:
    """Which end of a block a condition speaks of; None for every end."""
    if when is None:
        return None
    return next((outcome for outcome in (SUCCEEDED, TIMED_OUT, FAILED) if outcome in when), SUCCEEDED)


def _is_block(raw: Json) -> bool:
    return isinstance(raw, dict) and raw.get("action") is None and (raw.get("type") == "parallel" or _structure(raw))


def _structure(raw: dict[str, Json]) -> bool:
    return any(key in raw and not _has_action(raw[key]) for key in ("if", "then", "parallel", "tasks"))


def _is_task(raw: dict[str, Json]) -> bool:
    """Whether a map is one task, and not a map of names to tasks."""
    return any(isinstance(raw.get(key), str) for key in ("action", "type", "name")) or _structure(raw)


def _has_action(raw: Json) -> bool:
    return isinstance(raw, dict) and "action" in raw
