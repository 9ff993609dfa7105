"""The mark that tells a run to stop."""

import pytest
from unit.flow.world import World

from chalicelib.flow import conductor, executor
from chalicelib.flow.cancel import cancel
from chalicelib.flow.intake import request_execution
from chalicelib.protocol import Run


def run(world: World, timeout: int | None = None) -> Run:
    request_execution(world.services, world.tenant, world.action, parameters={}, timeout=timeout)
    executor.handle(world.services, [world.requests[-1]])
    return world.runner.runs[-1]


def marked(world: World, run: Run) -> bool:
    return world.store.blobs.exists(f"stops/{run.execution}")


def test_cancelling_leaves_the_mark_that_the_runner_looks_for(world: World) -> None:
    started = run(world)
    assert started.stop_url is not None
    assert f"stops/{started.execution}?" in started.stop_url
    assert not marked(world, started)

    cancel(world.services, world.tenant, started.execution)

    assert marked(world, started)


def test_who_asks_again_makes_up_for_a_mark_that_was_not_made(world: World) -> None:
    started = run(world)
    cancel(world.services, world.tenant, started.execution)
    world.store.blobs.delete(f"stops/{started.execution}")

    cancel(world.services, world.tenant, started.execution)

    assert marked(world, started)


def test_a_run_that_cannot_last_has_no_mark(world: World) -> None:
    started = run(world, timeout=3)
    assert started.stop_url is None

    cancel(world.services, world.tenant, started.execution)

    assert not marked(world, started)


@pytest.mark.parametrize("attempt", [1, 2])
def test_the_mark_of_a_runner_that_was_lost_is_forgotten(world: World, attempt: int) -> None:
    started = run(world)
    if attempt == 2:
        conductor.lost(world.services, world.tenant, started.execution, 1)
        executor.handle(world.services, [world.requests[-1]])
    cancel(world.services, world.tenant, started.execution)

    conductor.lost(world.services, world.tenant, started.execution, attempt)

    assert not marked(world, started)
    assert world.activity.get_execution(started.execution).status == "cancelled"
