"""Results that come by S3."""

import msgspec
import pytest
from unit.flow.world import World

from chalicelib.flow import conductor, executor
from chalicelib.flow.intake import request_execution
from chalicelib.protocol import Run, RunFinished, StoredResult


def report(run: Run, **fields: object) -> str:
    given = {"tenant": run.tenant, "execution": run.execution, "attempt": run.attempt, "token": run.token}
    return msgspec.json.encode(RunFinished(**given | {"status": "completed", "stored": True} | fields)).decode()


def started(world: World) -> Run:
    request_execution(world.services, world.tenant, world.action, parameters={})
    executor.handle(world.services, [world.requests[-1]])
    return world.runner.runs[-1]


def test_it_is_fetched_from_where_the_runner_may_put_it(world: World) -> None:
    run = started(world)
    assert run.logs is not None
    name = run.logs.fields["key"].replace("${filename}", "result").removeprefix(f"{world.tenant}/")
    result = {"succeeded": True, "data": "x" * 2_000_000}
    world.store.blobs.put(name, msgspec.json.encode(StoredResult(result=result, printed="said")))

    for _ in range(2):  # delivered twice
        conductor.handle(world.services, [report(run)])

    execution = world.activity.get_execution(run.execution)
    assert execution is not None
    assert (execution.status, execution.result, execution.printed) == ("completed", result, "said")


@pytest.mark.parametrize(("token", "status"), [(None, "failed"), ("stolen", "running")])
def test_one_that_is_not_there_is_a_clear_failure(world: World, token: str | None, status: str) -> None:
    run = started(world)

    conductor.handle(world.services, [report(run, **{"token": token} if token else {})])

    execution = world.activity.get_execution(run.execution)
    assert execution is not None
    assert execution.status == status
    assert status != "failed" or "lost on its way" in execution.result["error"]
