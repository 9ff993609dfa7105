"""Who may start now, and who waits: shares, paces, suspensions, and what is lost on the way."""

from dataclasses import replace
from typing import Any

import msgspec
import pytest
from unit.flow.world import World

from chalicelib import clients
from chalicelib.domain.entities import SYSTEM_TENANT, Tenant
from chalicelib.domain.executions import TERMINAL
from chalicelib.flow import cancel, conductor, executor, gates, tenants
from chalicelib.flow.bootstrap import ensure_tenant
from chalicelib.flow.intake import request_execution
from chalicelib.protocol import ExecutionRequested, Run, RunFinished
from chalicelib.store.gates import FREE_STARTS
from chalicelib.store.listing import EnforcementFilter, Page


class GateWorld:
    """A tenant with quotas, whose queue and runner are played by the test."""

    def __init__(self, world: World, **quotas: int) -> None:
        self.world = world
        ensure_tenant(world.services, world.tenant)
        self.change(quotas=quotas)
        self.taken = 0  # of the executor's messages

    @property
    def record(self) -> Tenant:
        found: Tenant | None = self.world.services.store.tenant(SYSTEM_TENANT).registry.tenants.get(self.world.tenant)
        assert found is not None
        return found

    def change(self, **changes: Any) -> None:
        tenants.change(self.world.services, self.record, **changes)

    def request(self, count: int, **fields: Any) -> list[int]:
        world = self.world
        action = fields.pop("action", world.action)
        ids = []
        for _ in range(count):
            world.clock.advance(milliseconds=1)
            ids.append(request_execution(world.services, world.tenant, action, parameters={}, **fields).id)
        return ids

    def messages(self) -> list[ExecutionRequested]:
        """Those that the executor has not had yet."""
        fresh = self.world.requests[self.taken :]
        self.taken += len(fresh)
        return fresh

    def work(self) -> None:
        """Let the executor work on all that is in its queue."""
        while fresh := self.messages():
            assert executor.handle(self.world.services, fresh) == []

    @property
    def running(self) -> list[Run]:
        def runs(run: Run) -> bool:
            execution = self.world.activity.get_execution(run.execution)
            return execution.status == "running" and execution.attempt == run.attempt

        return [run for run in self.world.runner.runs if runs(run)]

    def finish(self, *runs: Run) -> None:
        for run in runs:
            report = RunFinished(
                tenant=run.tenant,
                execution=run.execution,
                attempt=run.attempt,
                token=run.token,
                status="completed",
                result={"succeeded": True},
            )
            assert conductor.handle(self.world.services, [msgspec.json.encode(report).decode()]) == []
        self.work()

    def status(self, id_: int) -> str:
        status: str = self.world.activity.get_execution(id_).status
        return status

    @property
    def gate(self) -> Any:
        return self.world.store.gates.get()


def test_who_asks_for_little_is_not_looked_at(world: World) -> None:
    tenant = GateWorld(world)
    made: list[str] = []
    ids = tenant.request(1)
    tenant.work()
    ids += tenant.request(FREE_STARTS - 1)
    clients.on_event("before-call.dynamodb.Query", count := lambda model, **_: made.append(model.name))
    try:
        tenant.work()
    finally:
        clients.off_event("before-call.dynamodb.Query", count)
    assert {tenant.status(id_) for id_ in ids} == {"running"}
    assert made == []
    assert tenant.gate is None


def test_what_is_too_much_at_once_waits_and_goes_on_in_order(world: World) -> None:
    tenant = GateWorld(world, running_at_once=2)
    ids = tenant.request(7)
    tenant.work()
    assert [run.execution for run in tenant.running] == ids[:2]
    waiting = world.activity.get_execution(ids[4])
    assert waiting.status == "requested"
    assert gates.reason_to_wait(world.services, world.tenant, waiting) == gates.TOO_MANY
    done = 0
    while tenant.running:
        assert len(tenant.running) <= 2
        tenant.finish(tenant.running[0])
        done += 1
    assert done == 7
    assert [run.execution for run in world.runner.runs] == ids
    assert tenant.gate is None, "nobody waits any more"
    tenant.request(1)
    world.clock.advance(seconds=2)
    tenant.work()
    assert len(tenant.running) == 1


def test_what_needs_no_runner_keeps_no_seat(world: World) -> None:
    tenant = GateWorld(world, running_at_once=1)
    nothing = world.put_action("p.nothing", runtime_ref="core.native")
    first = tenant.request(2)
    natives = tenant.request(3, action=nothing)
    last = tenant.request(1)
    tenant.work()
    assert [run.execution for run in tenant.running] == first[:1]
    tenant.finish(*tenant.running)
    tenant.finish(*tenant.running)
    assert {tenant.status(id_) for id_ in natives} == {"completed"}
    assert [run.execution for run in tenant.running] == last


def test_what_is_cancelled_while_it_waits_keeps_no_seat(world: World) -> None:
    tenant = GateWorld(world, running_at_once=1)
    ids = tenant.request(3)
    tenant.work()
    cancel.cancel(world.services, world.tenant, ids[1])
    tenant.finish(*tenant.running)
    assert [run.execution for run in tenant.running] == [ids[2]]


def test_another_tenants_flood_is_nobody_elses(world: World) -> None:
    loud, quiet = GateWorld(world, running_at_once=1), GateWorld(_another(world))
    loud.request(10)
    (id_,) = quiet.request(1)
    loud.work()
    quiet.work()
    assert quiet.status(id_) == "running"


def _another(world: World) -> World:
    other = World(world.services)
    other.services = replace(other.services, clock=world.clock)
    other.clock = world.clock
    return other


def test_what_starts_too_fast_waits_for_the_next_minute(world: World) -> None:
    tenant = GateWorld(world, executions_per_minute=3)
    _to_the_minute(world)
    ids = tenant.request(5)
    tenant.work()
    assert [tenant.status(id_) for id_ in ids] == ["running"] * 3 + ["requested"] * 2
    waiting = world.activity.get_execution(ids[4])
    assert gates.reason_to_wait(world.services, world.tenant, waiting) == gates.TOO_FAST
    tenant.finish(*tenant.running)
    assert tenant.status(ids[3]) == "requested", "the minute is not over"
    world.clock.advance(seconds=61)
    gates.settle(world.services)
    tenant.work()
    assert {tenant.status(id_) for id_ in ids[3:]} == {"running"}


def _to_the_minute(world: World) -> None:
    world.clock.advance(seconds=60 - world.clock.now.second, microseconds=-world.clock.now.microsecond)


def test_a_suspended_tenant_starts_nothing_and_catches_up(world: World) -> None:
    tenant = GateWorld(world, running_at_once=2)
    running = tenant.request(1)
    tenant.work()
    tenant.change(suspended=True)
    ids = tenant.request(4)
    tenant.work()
    assert {tenant.status(id_) for id_ in ids} == {"requested"}
    tenant.finish(*tenant.running)
    assert tenant.status(running[0]) == "completed", "what runs comes to its end"
    tenants.resume(world.services, tenant.record)
    tenant.work()
    while tenant.running:
        tenant.finish(*tenant.running)
    assert {tenant.status(id_) for id_ in ids} == {"completed"}


def test_what_runs_of_a_suspended_tenant_may_go_on(world: World) -> None:
    tenant = GateWorld(world)
    (parent,) = tenant.request(1)
    tenant.work()
    tenant.change(suspended=True)
    (child,) = tenant.request(1, parent=parent)
    tenant.work()
    assert tenant.status(child) == "running"


def test_events_of_a_suspended_tenant_are_written_down(world: World) -> None:
    tenant = GateWorld(world)
    world.put_rule("p.rule")
    tenant.change(suspended=True)
    assert world.happen(message := world.accepted({"a": 1})) == []
    assert world.activity.get_event(message.id) is not None
    assert world.requests == []
    tenant.change(suspended=False)
    assert world.happen(world.accepted({"a": 2})) == []
    assert len(world.requests) == 1


def test_messages_of_an_earlier_tenant_are_dropped(world: World) -> None:
    world.put_rule("p.rule")
    early = world.accepted({"a": 1})
    world.clock.advance(seconds=1)
    other = _another(world)
    other.put_rule("p.rule")
    born = GateWorld(other).record.id
    mine = msgspec.structs.replace(early, tenant=other.tenant)
    assert mine.id < born
    assert world.happen(mine) == []
    assert other.activity.get_event(early.id) is None
    gone = msgspec.structs.replace(early, tenant="nobody")
    assert world.happen(gone) == []
    assert world.services.store.tenant("nobody").activity.get_event(early.id) is None


@pytest.mark.parametrize("lost", ["message", "seat"])
def test_the_tick_puts_right_what_is_lost(world: World, lost: str) -> None:
    tenant = GateWorld(world, running_at_once=1)
    ids = tenant.request(3)
    tenant.work()
    if lost == "message":
        tenant.finish(*tenant.running)
        assert tenant.status(ids[1]) == "running"
        world.activity.transition(ids[1], from_=("running",), to="requested", now=world.clock())
    else:
        world.store.gates.give_back(-5)
        tenant.finish(*tenant.running)
        assert tenant.status(ids[1]) == "requested"
    world.clock.advance(minutes=1)
    gates.settle(world.services)
    tenant.work()
    assert tenant.status(ids[1]) == "running"
    tenant.finish(*tenant.running)
    tenant.finish(*tenant.running)
    assert {tenant.status(id_) for id_ in ids} <= set(TERMINAL)


def test_rules_stop_where_too_much_waits(world: World) -> None:
    tenant = GateWorld(world, running_at_once=1, waiting=3)
    world.put_rule("p.rule")
    tenant.request(6)
    tenant.work()
    gates.settle(world.services)
    assert tenant.gate.waiting == 5
    world.clock.advance(seconds=40)
    world.happen(world.accepted({"a": 1}))
    (row,) = world.activity.enforcements(EnforcementFilter(), Page()).items
    assert (row.status, row.error) == ("disabled", "quota: the tenant has as many executions waiting as it may")
