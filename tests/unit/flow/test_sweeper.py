"""Nothing stays where it is for ever."""

import pytest
from unit.flow.world import World

from chalicelib.domain.entities import Execution
from chalicelib.flow import conductor, executor, sweeper
from chalicelib.flow.intake import request_execution
from chalicelib.flow.sweeper import sweep
from chalicelib.protocol import RunFinished
from chalicelib.services import Services


def sweep_for(world: World, minutes: int) -> None:
    for _ in range(minutes):
        world.clock.advance(minutes=1)
        sweep(world.services, world.services.store.due(world.clock()).executions, world.clock())


def test_a_request_whose_message_was_lost_is_made_again(world: World) -> None:
    request_execution(world.services, world.tenant, world.action, parameters={})
    sweep(world.services, world.services.store.due(world.clock()).executions, world.clock())
    sent = len(world.requests)
    sweep_for(world, 17)
    assert len(world.requests) == sent + 1
    sweep_for(world, 17)
    assert len(world.requests) == sent + 2


def test_a_silent_run_is_dispatched_again_and_then_abandoned(world: World) -> None:
    execution = request_execution(world.services, world.tenant, world.action, parameters={}, timeout=60)
    executor.handle(world.services, [world.requests[-1]])
    sweep(world.services, world.services.store.due(world.clock()).executions, world.clock())
    sweep_for(world, 17)
    assert world.activity.get_execution(execution.id).status == "requested"
    executor.handle(world.services, [world.requests[-1]])
    sweep_for(world, 20)
    assert world.activity.get_execution(execution.id).status == "abandoned"


def test_a_long_run_within_its_lease_is_left_alone(world: World) -> None:
    execution = request_execution(world.services, world.tenant, world.action, parameters={}, timeout=3600)
    executor.handle(world.services, [world.requests[-1]])
    sweep(world.services, world.services.store.due(world.clock()).executions, world.clock())
    sweep_for(world, 55)
    assert world.activity.get_execution(execution.id).status == "running"
    assert world.activity.get_execution(execution.id).attempt == 1
    sweep_for(world, 10)
    assert world.activity.get_execution(execution.id).status == "requested"


def test_what_has_ended_is_not_looked_at(world: World) -> None:
    request_execution(world.services, world.tenant, world.action, parameters={})
    executor.handle(world.services, [world.requests[-1]])
    run = world.runner.runs[-1]
    sweep(world.services, world.services.store.due(world.clock()).executions, world.clock())
    finished = RunFinished(tenant=run.tenant, execution=run.execution, attempt=1, token=run.token, status="completed")
    conductor.finish(world.services, finished)
    sent = len(world.requests)
    sweep_for(world, 20)
    assert len(world.requests) == sent


def test_one_that_cannot_be_looked_at_holds_up_no_other(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(3):
        request_execution(world.services, world.tenant, world.action, parameters={})
    broken = world.requests[1].id
    world.queues.requested.clear()

    request_again = conductor.request_again

    def fails_for_one(services: Services, tenant: str, execution: Execution, *, delay: int = 0) -> None:
        if execution.id == broken:
            raise RuntimeError("poison")
        request_again(services, tenant, execution, delay=delay)

    monkeypatch.setattr(sweeper, "request_again", fails_for_one)
    sweep_for(world, 17)
    assert len({request.id for request in world.requests}) == 2


def test_an_outage_leaves_no_bucket_unread(world: World) -> None:
    request_execution(world.services, world.tenant, world.action, parameters={})
    sweep(world.services, world.services.store.due(world.clock()).executions, world.clock())
    sent = len(world.requests)
    world.clock.advance(hours=1)
    sweep(world.services, world.services.store.due(world.clock()).executions, world.clock())
    assert len(world.requests) == sent + 1
