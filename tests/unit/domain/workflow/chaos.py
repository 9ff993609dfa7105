"""A platform that does to a workflow run whatever queues, processes and people do: messages come twice, late, in any
order or not at all, processes end between commit and send, two of them take the same step, people pause and cancel.

It commits and sends as ``chalicelib.flow.workflows`` does, with dictionaries for tables, and checks after every commit
what must always hold.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from random import Random

import msgspec
from unit.domain.workflow.runs import Run, task_of

from chalicelib.domain.entities import Execution, ExecutionStatus, Json
from chalicelib.domain.executions import OPEN
from chalicelib.domain.workflow import conductor
from chalicelib.domain.workflow.conductor import outstanding
from chalicelib.domain.workflow.definition import Definition
from chalicelib.domain.workflow.state import State
from chalicelib.domain.workflow.steps import Cancelled, End, Ended, Event, Expired, Paused, Resumed, Step, Stop

Outcome = tuple[ExecutionStatus, bool]  # how an execution ends, and whether for the time it took
Plan = Callable[[str, int, int], Outcome]  # by task, item and attempt

CHAOTIC_STEPS = 400
CALM_STEPS = 4_000


@dataclass(frozen=True)
class Message:
    """``request``: run the execution. ``ended``: it is over. None: look at the run, as the sweeper does."""

    kind: str
    id_: int


@dataclass
class Row:
    """An execution in the store."""

    execution: Execution
    status: ExecutionStatus
    not_before: datetime | None
    began: int = 0
    timed_out: bool = False


class Platform:
    """One run on it. ``meddling``: people pause, resume and cancel, and a deadline passes. ``after``: another run, of
    which what failed is run again."""

    def __init__(
        self,
        definition: Definition,
        plan: Plan,
        random: Random,
        *,
        meddling: bool = False,
        after: "Platform | None" = None,
    ) -> None:
        self.run = Run(definition)
        self.after = after
        if after is not None:
            self.run.ids, self.run.results, self.run.kept = after.run.ids, after.run.results, after.run.kept
        self.definition = definition
        self.plan = plan
        self.random = random
        self.meddling = meddling
        self.stored: bytes = b""
        self.version = 0
        self.rows: dict[int, Row] = {}
        self.messages: list[Message] = []
        self.end: End | None = None
        self.calm = False
        self.attempts: set[tuple[str, int, int, int]] = set()  # task, iteration, item, attempt
        self.begun: list[tuple[str, int]] = []  # task, iteration
        self.through: set[str] = set()  # tasks that have ended well, or were handled

    # The life of a run

    def play(self) -> "Platform":
        """Let things happen until the run is over, the last of them without mischief."""
        while not self.stored:
            self._first_step()
        for _ in range(CHAOTIC_STEPS):
            if self.state.over:
                break
            self._something()
        self.calm = True
        for _ in range(CALM_STEPS):
            if self.state.over:
                break
            self._advance([Resumed()] if self.state.paused else [])
            self._next()
        assert self.state.over, "the run does not end"
        self._check_that_it_is_over()
        return self

    @property
    def state(self) -> State:
        return msgspec.json.decode(self.stored, type=State)

    def _something(self) -> None:
        if self.meddling and self.random.random() < 0.05:
            events: list[Event] = [Paused(), Resumed(), Resumed(), Cancelled(), Expired()]
            self._advance([self.random.choice(events)])
        elif self.random.random() < 0.1:
            self.run.later(seconds=self.random.choice([0.5, 5, 500]))
        elif self.random.random() < 0.15:
            self._sweep()
        else:
            self._next()

    def _next(self) -> None:
        """Deliver some message, or let some execution end."""
        running = [id_ for id_, row in self.rows.items() if row.status in ("running", "canceling")]
        if running and (not self.messages or self.random.random() < 0.5):
            self._finish(self.random.choice(running))
        elif self.messages:
            self._deliver(self.random.randrange(len(self.messages)))
        else:
            self.run.later(seconds=60)
            self._sweep()

    def _deliver(self, position: int) -> None:
        message = self.messages[position]
        again = self._mischief(0.2)
        if not again:
            self.messages.pop(position)
        if self._mischief(0.1):
            return  # lost
        row = self.rows[message.id_]
        if message.kind == "ended":
            if self._advance([self._ending_of(message.id_)]) is None:
                self.messages.append(message)  # its receiver died, so it comes again
        elif row.status == "requested":
            if row.not_before is not None and row.not_before > self.run.now:
                self.messages.append(message)
                self.run.later(seconds=1)
            else:
                row.status = "running"
                row.began += 1

    def _finish(self, id_: int) -> None:
        row = self.rows[id_]
        row.status, row.timed_out = self.plan(task_of(row.execution), *_part_of(row.execution))
        self.run.results[id_] = {"succeeded": row.status == "completed"}
        self._send(Message("ended", id_))

    def _ending_of(self, id_: int) -> Ended:
        row = self.rows[id_]
        return Ended(child=id_, status=row.status, timed_out=row.timed_out)

    def _sweep(self) -> None:
        over = [self._ending_of(id_) for id_ in outstanding(self.state) if self.rows[id_].status not in OPEN]
        self._advance(over)

    def _mischief(self, likely: float) -> bool:
        return not self.calm and self.random.random() < likely

    def _send(self, message: Message) -> None:
        if not self._mischief(0.1):
            self.messages += [message] * (2 if self._mischief(0.1) else 1)

    # A step: conduct, commit, send

    def _first_step(self) -> None:
        if self.after is None:
            step = conductor.begin(self.run.graph, self.run.world)
        else:
            before = self.after.state
            step = conductor.begin_again(
                self.run.graph, before, before.named("failed"), self.run.world, reset=self.random.random() < 0.5
            )
        if not self._mischief(0.1) and self._commit(0, step):
            self._carry_out(step)

    def _advance(self, events: list[Event]) -> Step | None:
        """None where the process that took the step ended before it was done."""
        while True:
            version, before = self.version, self.state
            step = conductor.advance(self.run.graph, before, events, self.run.world)
            assert before == self.state, "a step must not change the state that it was given"
            if not step.changed:
                self._send_again()
                return step
            if self._mischief(0.1):
                return None
            if self._mischief(0.1):
                self._sweep()  # somebody else was quicker
            if self._commit(version, step):
                break
        if self._mischief(0.15):
            return None
        self._carry_out(step)
        return step

    def _commit(self, version: int, step: Step) -> bool:
        if version != self.version:
            return False
        if self.stored:
            assert not self.state.over, "a run that is over does not change"
        self.version += 1
        self.stored = msgspec.json.encode(step.state)
        assert self.state == step.state, "the state comes back from the store as it went in"
        for start in step.starts:
            assert start.execution.id not in self.rows
            self.rows[start.execution.id] = Row(start.execution, start.execution.status, start.not_before)
        if step.end is not None:
            assert self.end is None
            self.end = step.end
        self._check(step)
        return True

    def _carry_out(self, step: Step) -> None:
        for start in step.starts:
            self._send(Message("request", start.execution.id))
        if step.stop is not None:
            self._stop(step.stop)
        if step.more:
            self._advance([])

    def _stop(self, stop: Stop) -> None:
        for id_ in stop.executions:
            row = self.rows[id_]
            if row.status == "requested" or (stop.running and row.status == "running"):
                row.status = "cancelled"
                self._send(Message("ended", id_))

    def _send_again(self) -> None:
        state = self.state
        if not state.over:
            for id_ in outstanding(state):
                if self.rows[id_].status == "requested" and Message("request", id_) not in self.messages:
                    self._send(Message("request", id_))

    # What always holds

    def _check(self, step: Step) -> None:
        state = step.state
        for start in step.starts:
            name = task_of(start.execution)
            iteration = state.tasks[name].iteration
            key = (name, iteration, *_part_of(start.execution))
            assert key not in self.attempts, f"{key} is dispatched twice"
            self.attempts.add(key)
            if (name, iteration) not in self.begun:
                self.begun.append((name, iteration))
                self._check_join(name, state)
        self.through.update(state.named("completed", "skipped"))
        waited_for = outstanding(state)
        assert waited_for.keys() <= self.rows.keys(), "the run waits for what nobody has stored"
        if state.over:
            assert step.end is not None
            assert not step.starts or step.end.status != "completed"
            return
        assert waited_for or state.ready or state.paused, f"nothing will ever go on here: {state}"
        if not (state.paused or state.canceling or step.more):
            assert not state.ready, "what is ready begins at once"
        for id_, child in waited_for.items():
            assert self.rows[id_].not_before == child.not_before
        for name, task in state.tasks.items():
            assert sum(each == name for each, _ in self.begun) <= self._limit(name)
            assert (task.status == "running") == bool(task.children) or task.items is not None or state.canceling

    def _check_join(self, name: str, state: State) -> None:
        """A task with a join begins when so many others are through, unless a loop leads back to it."""
        task, graph = state.tasks[name], self.run.graph
        wanted = graph.task(name).join
        by = task.triggered_by
        if wanted is None or by is None or graph.is_back(by, name):
            return
        gathered = graph.gathered(name)
        ended = self.through | set(state.named("completed", "skipped"))
        ended |= {each for each, known in state.tasks.items() if known.runs > 1}
        if self.after is not None and self.version == 1:
            # It may have been asked for, and then has only others to wait for that were as well.
            asked_for = [each for each in self.after.state.named("failed") if not graph.same_loop(each, name)]
            assert wanted != "all" or gathered & graph.reachable_from(asked_for) <= ended
        else:
            assert len(gathered & ended) >= (len(gathered) if wanted == "all" else min(wanted, len(gathered))), name

    def _limit(self, name: str) -> int:
        return self.run.graph.task(name).max_iterations or self.definition.max_iterations

    def _check_that_it_is_over(self) -> None:
        """Whatever still comes changes nothing, and nothing of the run is left behind."""
        assert self.end is not None
        state = self.state
        events: list[Event] = [self._ending_of(id_) for id_ in self.rows]
        for event in [*events, Paused(), Resumed(), Cancelled(), Expired()]:
            step = conductor.advance(self.run.graph, state, [event], self.run.world)
            assert (step.state, step.starts, step.stop, step.end, step.changed) == (state, [], None, None, False)
        assert not outstanding(state)
        assert not state.ready
        assert not state.named("running")
        if self.end.status == "completed":
            assert not state.named("failed", "cancelled", "pending")
            assert all(row.status not in OPEN for row in self.rows.values()), "a task is lost"
            for name, task in state.tasks.items():
                assert task.called is None or self.run.graph.task(name).join is not None, f"{name} was never begun"
        elif self.end.status == "failed" and not self.meddling:
            assert state.named("failed")
            assert all(row.status not in OPEN for row in self.rows.values()), "a task is lost"


def _part_of(execution: Execution) -> tuple[int, int]:
    """The item, or batch, and the attempt that an execution is."""
    task: dict[str, Json] = execution.workflow_task
    return task.get("task_index", task.get("task_batch", 0)) or 0, task["retry_count"]
