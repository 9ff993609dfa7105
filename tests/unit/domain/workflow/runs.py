"""A workflow run without a platform: executions are answers that a test gives."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import msgspec

from chalicelib.domain.entities import Action, Execution, ExecutionStatus, Json
from chalicelib.domain.values import MissingError
from chalicelib.domain.workflow import conductor
from chalicelib.domain.workflow.definition import Definition
from chalicelib.domain.workflow.graph import Graph
from chalicelib.domain.workflow.scope import result_view
from chalicelib.domain.workflow.state import Origin, State
from chalicelib.domain.workflow.steps import End, Ended, Event, Note, Step, Stop, World

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
RUN = 1

Answer = Callable[[Execution], tuple[ExecutionStatus, Json]]


def definition_of(*tasks: Mapping[str, Any], **fields: Any) -> Definition:
    """A definition in the conductor's own terms: tasks as dictionaries, ``action`` ``p.act`` unless they say else."""
    return msgspec.convert(
        {"tasks": [{"action": "p.act", **task} for task in tasks], **fields}, Definition, strict=True
    )


class Run:
    """One run, advanced by hand or to its end. ``open`` are the executions that it waits for."""

    def __init__(self, definition: Definition, **parameters: Json) -> None:
        self.graph = Graph(definition)
        self.now = BEGAN
        self.ids = count(100)
        self.actions: dict[str, Action] = {}
        self.started: list[Execution] = []
        self.not_before: dict[int, datetime | None] = {}
        self.results: dict[int, Json] = {}
        self.open: dict[int, Execution] = {}
        self.stopped: list[Stop] = []
        self.end: End | None = None
        self.notes: list[Note] = []
        self.kept: list[list[Json]] = []
        self.keys: dict[str, Json] = {}
        self.origin = Origin(
            execution=RUN,
            action_ref="p.flow",
            pack_ref="p",
            definition="d",
            started_at=BEGAN,
            parameters=parameters,
        )
        self.state = State()

    def begin(self) -> "Run":
        return self._took(conductor.begin(self.graph, self.world))

    def again(self, before: State, *tasks: str, reset: bool = False) -> "Run":
        return self._took(conductor.begin_again(self.graph, before, tasks, self.world, reset=reset))

    def advance(self, *events: Event) -> "Run":
        return self._took(conductor.advance(self.graph, self.state, events, self.world))

    @property
    def over(self) -> End:
        """How the run ended; it must have."""
        assert self.end is not None
        return self.end

    def answer(
        self, id_: int, status: ExecutionStatus = "completed", *, timed_out: bool = False, **data: Json
    ) -> "Run":
        """The execution ends with ``data`` as its parsed output."""
        self.results[id_] = {"succeeded": status == "completed", "data": data}
        self.open.pop(id_, None)
        return self.advance(Ended(child=id_, status=status, timed_out=timed_out))

    def play(self, answer: Answer | None = None, steps: int = 5000) -> "Run":
        """Answer what is open, in the order in which it was started, until nothing is."""
        for _ in range(steps):
            if not self.open:
                return self
            execution = next(iter(self.open.values()))
            status, result = answer(execution) if answer else ("completed", {"succeeded": True})
            self.results[execution.id] = result
            del self.open[execution.id]
            self.advance(Ended(child=execution.id, status=status))
        raise AssertionError("the run does not end")

    def _took(self, step: Step) -> "Run":
        self.state = step.state
        self.notes += step.notes
        for start in step.starts:
            self.started.append(start.execution)
            self.not_before[start.execution.id] = start.not_before
            if start.execution.status == "requested":
                self.open[start.execution.id] = start.execution
            else:
                self.results[start.execution.id] = start.execution.result
        if step.stop:
            self.stopped.append(step.stop)
        self.end = step.end or self.end
        return self.advance() if step.more else self

    @property
    def world(self) -> World:
        return World(
            now=self.now,
            origin=self.origin,
            config={},
            new_id=lambda: next(self.ids),
            action=self._action,
            result=lambda id_: result_view(self.results.get(id_)),
            read_key=self._key,
            may_hand_out=lambda refs: "core.admin" not in refs,
            keep=self._keep,
            kept=lambda name: self.kept[int(name)],
        )

    def _action(self, ref: str) -> Action | None:
        if ref in self.actions:
            return self.actions[ref]
        if ref.startswith("gone."):
            return None
        return action_of(ref)

    def _key(self, ref: str) -> Json:
        if ref not in self.keys:
            raise MissingError(f"unknown key: {ref}")
        return self.keys[ref]

    def _keep(self, values: list[Json]) -> str:
        self.kept.append(values)
        return str(len(self.kept) - 1)

    # What tests look at

    @property
    def order(self) -> list[str]:
        """The names of the tasks of all executions, in the order in which they were started."""
        return [task_of(each) for each in self.started]

    def id_of(self, name: str) -> int:
        """The open execution of a task."""
        [found] = [id_ for id_, each in self.open.items() if task_of(each) == name]
        return found

    def later(self, **delta: float) -> "Run":
        self.now += timedelta(**delta)
        return self


def task_of(execution: Execution) -> str:
    name: str = execution.workflow_task["task_name"]
    return name


def action_of(ref: str, **fields: Any) -> Action:
    said = {"label": ref, "entrypoint": "true", "pack": 1, "pack_ref": "p"} | fields
    return Action(id=7, ref=ref, created=BEGAN, updated=BEGAN, **said)
