"""Concurrency policies on the executor, the conductor and the tables."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import msgspec
import pytest
from unit.flow.world import World

from chalicelib import clients
from chalicelib.domain.entities import Action, Concurrency, Execution
from chalicelib.flow import admission, cancel, conductor, executor, lanes
from chalicelib.flow.intake import request_execution
from chalicelib.protocol import ExecutionRequested, PolicyChanged, RunFinished
from chalicelib.store.registry import Delete, Put

pytestmark = pytest.mark.slow


class Policed:
    """An action of which ``limit`` may run at a time, and those who ask for it."""

    def __init__(self, world: World, limit: int = 1, **policy: Any) -> None:
        self.world = world
        self.action: Action = world.put_action("p.policed", concurrency=Concurrency(threshold=limit, **policy))

    def request(self, **parameters: Any) -> Execution:
        execution = request_execution(self.world.services, self.world.tenant, self.action, parameters=parameters)
        self.deliver()
        return execution

    def deliver(self) -> None:
        """Hand what is requested to the executor, until nothing is."""
        while self.world.queues.requested:
            messages = [message for message, _ in self.world.queues.requested]
            self.world.queues.requested.clear()
            assert executor.handle(self.world.services, messages) == []

    def running(self) -> list[int]:
        """Those whose runs have been started, in this order, without those that have reported."""
        return [run.execution for run in self.world.runner.runs]

    def finish(self, id_: int) -> None:
        (run,) = [run for run in self.world.runner.runs if run.execution == id_]
        self.world.runner.runs.remove(run)
        report = RunFinished(
            tenant=run.tenant, execution=run.execution, attempt=run.attempt, token=run.token, status="completed"
        )
        assert conductor.handle(self.world.services, [msgspec.json.encode(report).decode()]) == []
        self.deliver()

    def status(self, execution: Execution) -> str:
        stored = self.world.activity.get_execution(execution.id)
        assert stored is not None
        return stored.status

    def change(self, concurrency: Concurrency | None) -> None:
        before = self.world.store.registry.actions.get("p.policed")
        assert before is not None
        after = msgspec.structs.replace(before, concurrency=concurrency)
        self.world.store.registry.commit(Put(after))
        self.tell(before, after)

    def tell(self, before: Action, after: Action | None) -> None:
        admission.changed(self.world.services, self.world.tenant, before, after)
        messages: list[PolicyChanged] = self.world.queues.policies
        assert executor.handle(self.world.services, messages) == []
        messages.clear()
        self.deliver()


def test_one_at_a_time_in_order(world: World) -> None:
    policed = Policed(world)
    first, second, third = (policed.request() for _ in range(3))
    assert policed.running() == [first.id]
    assert policed.status(second) == policed.status(third) == "requested"
    policed.finish(first.id)
    assert policed.running() == [second.id]
    policed.finish(second.id)
    policed.finish(third.id)
    assert [policed.status(each) for each in (first, second, third)] == ["completed"] * 3
    assert world.store.lanes.of_action("p.policed") == []


def test_one_at_a_time_for_each_value(world: World) -> None:
    policed = Policed(world, parameters=["env"])
    first, second, third = (policed.request(env=env, more=more) for env, more in (("a", 1), ("b", 1), ("a", 2)))
    assert policed.running() == [first.id, second.id]
    policed.finish(second.id)
    assert policed.running() == [first.id]
    policed.finish(first.id)
    assert policed.running() == [third.id]


def test_what_is_too_much_is_cancelled_and_says_why(world: World) -> None:
    policed = Policed(world, limit=2, method="cancel")
    first, _, third = (policed.request() for _ in range(3))
    assert policed.status(third) == "cancelled"
    stored = world.activity.get_execution(third.id)
    assert stored is not None
    assert "runs 2 time(s) at once already" in stored.result["error"]
    policed.finish(first.id)
    assert policed.status(policed.request()) == "running"


def test_cancelling_who_waits_lets_the_next_one_wait_in_their_place(world: World) -> None:
    policed = Policed(world)
    first, second, third = (policed.request() for _ in range(3))
    assert cancel.cancel(world.services, world.tenant, second.id) is not None
    policed.deliver()
    assert policed.status(second) == "cancelled"
    assert policed.running() == [first.id]
    policed.finish(first.id)
    assert policed.running() == [third.id]


def test_a_repeated_message_starts_nothing_twice(world: World) -> None:
    policed = Policed(world)
    first, second = policed.request(), policed.request()
    for id_ in (first.id, second.id, second.id):
        message = ExecutionRequested(tenant=world.tenant, id=id_, action_ref="p.policed")
        world.queues.requested.append((message, 0))
    policed.deliver()
    assert policed.running() == [first.id]
    policed.finish(first.id)
    assert policed.running() == [second.id]


def test_a_lost_run_keeps_its_slot_until_it_is_given_up(world: World) -> None:
    policed = Policed(world)
    first, second = policed.request(), policed.request()
    conductor.lost(world.services, world.tenant, first.id, 1)
    policed.deliver()
    assert policed.running() == [first.id, first.id]
    conductor.lost(world.services, world.tenant, first.id, 2)
    policed.deliver()
    assert policed.status(first) == "abandoned"
    assert policed.running() == [first.id, first.id, second.id]


def test_a_slot_whose_end_nobody_told_is_free_after_its_lease(world: World) -> None:
    policed = Policed(world)
    first, second = policed.request(), policed.request()
    world.activity.transition(first.id, from_=["running"], to="failed", now=world.clock())  # and the process dies
    world.queues.requested.append((ExecutionRequested(tenant=world.tenant, id=second.id, action_ref="p.policed"), 0))
    policed.deliver()
    assert policed.running() == [first.id]
    world.clock.advance(minutes=3)
    world.queues.requested.append((ExecutionRequested(tenant=world.tenant, id=second.id, action_ref="p.policed"), 0))
    policed.deliver()
    assert policed.running() == [first.id, second.id]


def test_a_run_that_outlives_its_lease_keeps_its_slot(world: World) -> None:
    policed = Policed(world)
    first, second = policed.request(), policed.request()
    world.clock.advance(minutes=3)
    world.queues.requested.append((ExecutionRequested(tenant=world.tenant, id=second.id, action_ref="p.policed"), 0))
    policed.deliver()
    assert policed.running() == [first.id]


@pytest.mark.parametrize(
    ("policy", "started"),
    [
        (None, 3),
        (Concurrency(threshold=3), 2),
        (Concurrency(threshold=1, parameters=["env"]), 3),
        (Concurrency(threshold=1), 0),
    ],
)
def test_another_policy_drains_the_queue(world: World, policy: Concurrency | None, started: int) -> None:
    policed = Policed(world)
    first, *waiting = (policed.request(env=number) for number in range(4))
    policed.change(policy)
    assert policed.running() == [first.id, *(each.id for each in waiting[:started])]


def test_a_policy_that_cancels_now_cancels_those_who_wait(world: World) -> None:
    policed = Policed(world)
    _, second = policed.request(), policed.request()
    policed.change(Concurrency(threshold=1, method="cancel"))
    assert policed.status(second) == "cancelled"


def test_without_their_action_those_who_wait_fail(world: World) -> None:
    policed = Policed(world)
    _, second = policed.request(), policed.request()
    world.store.registry.commit(Delete("action", "p.policed"))
    policed.tell(policed.action, None)
    assert policed.status(second) == "failed"


def test_more_wait_than_one_look_takes_in(world: World) -> None:
    policed = Policed(world, limit=3)
    executions = [policed.request() for _ in range(12)]
    while running := policed.running():
        assert len(running) <= 3
        policed.finish(running[0])
    assert {policed.status(each) for each in executions} == {"completed"}


@pytest.fixture
def calls(world: World) -> Iterator[list[str]]:
    """The calls of AWS that are made, by name, but for looks at the registry's version."""
    made: list[str] = []

    def note(model: Any, **_: Any) -> None:
        made.append(model.name)

    world.services.snapshots.of(world.tenant)
    clients.on_event("before-call.*.*", note)
    yield made
    clients.off_event("before-call.*.*", note)


def test_what_a_policy_costs(world: World, calls: list[str]) -> None:
    """Nothing without one; with one, what decision 026 says."""
    policed = Policed(world)
    plain = world.put_action("p.plain")
    requests = []
    for action in (plain, policed.action, policed.action):
        execution = request_execution(world.services, world.tenant, action, parameters={})
        requests.append(ExecutionRequested(tenant=world.tenant, id=execution.id, action_ref=action.ref))

    def taken(work: Callable[[], Any]) -> int:
        calls.clear()
        work()
        return len(calls)

    costs = [
        taken(partial(admission.admit, world.services, request, action))
        for request, action in zip(requests, (plain, policed.action, policed.action), strict=True)
    ]
    assert costs == [0, 6, 7]
    first = world.activity.get_execution(requests[1].id)
    unpoliced = world.activity.get_execution(requests[0].id)
    assert first is not None
    assert unpoliced is not None
    assert taken(lambda: lanes.left(world.services, world.tenant, unpoliced)) == 0
    world.activity.transition(requests[2].id, from_=["requested"], to="cancelled", now=world.clock())
    waiting = world.activity.get_execution(requests[2].id)
    assert waiting is not None
    lanes.left(world.services, world.tenant, waiting)
    assert taken(lambda: lanes.left(world.services, world.tenant, first)) == 4
