"""Bringing results home, whatever order and number they come in."""

import json
from typing import Any

import msgspec
import pytest
from unit.flow.world import World

from chalicelib.flow import conductor, executor
from chalicelib.flow.cancel import NotCancellableError, cancel
from chalicelib.flow.intake import request_execution
from chalicelib.protocol import Run, RunFinished


def running(world: World) -> Run:
    request_execution(world.services, world.tenant, world.action, parameters={})
    executor.handle(world.services, [world.requests[-1]])
    return world.runner.runs[-1]


def finished(run: Run, **fields: Any) -> str:
    fields = {"status": "completed", "result": {"succeeded": True}, "attempt": run.attempt, "token": run.token} | fields
    return msgspec.json.encode(RunFinished(tenant=run.tenant, execution=run.execution, **fields)).decode()


def failure(run: Run, response: Any = None, condition: str = "RetriesExhausted") -> Any:
    """Lambda's record of a failed asynchronous invocation."""
    return {
        "version": "1.0",
        "requestContext": {"condition": condition, "approximateInvokeCount": 1},
        "requestPayload": json.loads(msgspec.json.encode(run)),
        "responsePayload": response or {"errorMessage": "Worker process died"},
    }


def test_a_result_ends_its_execution_once(world: World) -> None:
    run = running(world)
    assert conductor.handle(world.services, [finished(run), finished(run, result={"second": True})]) == []
    execution = world.activity.get_execution(run.execution)
    assert (execution.status, execution.result) == ("completed", {"succeeded": True})


@pytest.mark.parametrize("forged", [{"token": "guess"}, {"attempt": 2}])
def test_a_result_of_another_attempt_is_dropped(world: World, forged: dict[str, Any]) -> None:
    run = running(world)
    assert conductor.handle(world.services, [finished(run, **forged)]) == []
    assert world.activity.get_execution(run.execution).status == "running"


def test_a_lost_runner_is_replaced_once_and_then_given_up(world: World) -> None:
    first = running(world)
    conductor.take_back(world.services, failure(first))
    assert world.activity.get_execution(first.execution).status == "requested"
    executor.handle(world.services, [world.requests[-1]])
    second = world.runner.runs[-1]
    assert second.attempt == 2
    assert conductor.handle(world.services, [finished(first)]) == [], "the first attempt has no say any more"
    assert world.activity.get_execution(first.execution).status == "running"
    conductor.take_back(world.services, failure(second))
    execution = world.activity.get_execution(first.execution)
    assert execution.status == "abandoned"
    assert "lost" in execution.result["error"]


def test_a_failure_record_that_comes_twice_starts_one_more_run(world: World) -> None:
    run = running(world)
    sent = len(world.requests)
    for _ in range(2):
        conductor.take_back(world.services, failure(run))
    assert len(world.requests) == sent + 1


def test_a_throttled_run_waits_a_second_and_loses_no_attempt(world: World) -> None:
    run = running(world)
    refused = {"response": {"errorType": "TooManyRequestsException", "errorMessage": "Rate Exceeded"}}
    waited_too_long = {"condition": "EventAgeExceeded"}
    for why in (refused, waited_too_long, refused):
        conductor.take_back(world.services, failure(run, **why))
        message, delay = world.queues.requested[-1]
        assert delay == conductor.THROTTLED_DELAY
        executor.handle(world.services, [message])
        run = world.runner.runs[-1]
        assert run.attempt == 1
    conductor.handle(world.services, [finished(run)])
    assert world.activity.get_execution(run.execution).status == "completed"


def test_what_is_neither_comes_again_and_holds_up_nothing(world: World) -> None:
    run = running(world)
    assert conductor.handle(world.services, ["{}", finished(run)]) == [0]
    assert world.activity.get_execution(run.execution).status == "completed"


def test_cancelling_while_it_waits_takes_effect_at_once(world: World) -> None:
    execution = request_execution(world.services, world.tenant, world.action, parameters={})
    cancelled = cancel(world.services, world.tenant, execution.id)
    assert cancelled is not None
    assert (cancelled.status, "before" in cancelled.result["error"]) == ("cancelled", True)
    executor.handle(world.services, [world.requests[-1]])
    assert world.runner.runs == []
    with pytest.raises(NotCancellableError, match="cancelled already"):
        cancel(world.services, world.tenant, execution.id)


def test_cancelling_while_it_runs_ends_as_cancelled(world: World) -> None:
    run = running(world)
    for _ in range(2):
        stopping = cancel(world.services, world.tenant, run.execution)
        assert stopping is not None
        assert stopping.status == "canceling"
    conductor.handle(world.services, [finished(run)])
    assert world.activity.get_execution(run.execution).status == "cancelled"


def test_cancelling_what_is_not_there(world: World) -> None:
    assert cancel(world.services, world.tenant, 17) is None
