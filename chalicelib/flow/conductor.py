"""The conductor: brings home what the execution plane reports, and what became of the runs that never will.

A runner's own report (:class:`RunFinished`, or :class:`EnvironmentBuilt`) comes on the results queue. Lambda's record
of an invocation that failed (its on-failure destination) holds what was lost, secrets included: it comes by no queue.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

import msgspec

from chalicelib.domain.entities import Execution
from chalicelib.domain.executions import CANCELING, LOST, RUNNING, lost_again
from chalicelib.flow import artifacts, endings, environments, inquiries, results, sensors, stopping
from chalicelib.flow.rules import request_for
from chalicelib.flow.tasks import TENANT_GROUP, forget, result_of
from chalicelib.flow.tokens import token_hash
from chalicelib.log import logger
from chalicelib.protocol import Build, EnvironmentBuilt, Poll, Run, RunFinished, SensorPolled, TaskStopped
from chalicelib.services import Services

THROTTLED_DELAY: Final = 1  # seconds before a run that Lambda had no room for is tried again

_THROTTLES: Final = ("TooManyRequestsException", "ThrottlingException", "TooManyRequests")
_NEVER_BEGAN: Final = "EventAgeExceeded"  # Lambda found no room for it in MaximumEventAgeInSeconds


class _Failure(msgspec.Struct, kw_only=True, frozen=True):
    """The part we read of Lambda's asynchronous invocation record (AWS: "Capturing records of invocations")."""

    requestPayload: Run | Build | Poll  # noqa: N815  # AWS's spelling
    requestContext: Mapping[str, Any] = {}  # noqa: N815
    responsePayload: Any = None  # noqa: N815

    @property
    def throttled(self) -> bool:
        """Whether there was no room for it, so that it never began."""
        response = self.responsePayload if isinstance(self.responsePayload, dict) else {}
        refusal = response.get("errorType") or response.get("__type")
        return self.requestContext.get("condition") == _NEVER_BEGAN or refusal in _THROTTLES


_decode_report = msgspec.json.Decoder(RunFinished | EnvironmentBuilt | SensorPolled | TaskStopped).decode


def handle(services: Services, bodies: Sequence[str]) -> list[int]:
    """Take in a batch from the results queue. Returns the positions of the messages to deliver again."""
    return endings.work_off(services, bodies, lambda body: _take_in(services, body))


def _take_in(services: Services, body: str) -> tuple[str, Execution] | None:
    """What a report says is done; the execution that ended by it, and its tenant, are returned."""
    report = _decode_report(body)
    if isinstance(report, EnvironmentBuilt):
        environments.take_in(services, report)
    elif isinstance(report, SensorPolled):
        sensors.take_in(services, report)
    elif isinstance(report, TaskStopped):
        _stopped(services, report)
    elif (over := finish(services, report)) is not None:
        return report.tenant, over
    return None


def take_back(services: Services, record: Any) -> None:
    """Take in Lambda's record of work that failed or never began. What raises is told again by Lambda, and is in the
    end the sweeper's affair."""
    failure = msgspec.convert(record, _Failure)
    work = failure.requestPayload
    if isinstance(work, Poll):
        sensors.take_back(services, work, throttled=failure.throttled)
        return
    if isinstance(work, Build):
        if failure.throttled:
            environments.postpone(services, work, delay=THROTTLED_DELAY)
        else:
            environments.lost(services, work)
    elif failure.throttled:
        postpone(services, work)
    else:
        lost(services, work.tenant, work.execution, work.attempt)


def _stopped(services: Services, task: TaskStopped) -> None:
    """A task that has stopped has uploaded its result, or could not start, or was lost with what it ran on."""
    tenant = task.group.removeprefix(TENANT_GROUP)
    blobs = services.store.tenant(tenant).blobs
    execution, attempt = map(int, task.started_by.split("/"))
    content = result_of(blobs, execution, attempt)
    over: Execution | None = None
    if content is not None:
        over = finish(services, msgspec.json.decode(content, type=RunFinished))
    elif task.stop_code == "TaskFailedToStart":
        result = {"succeeded": False, "error": f"the container could not be started: {task.reason}"}
        transition = services.store.tenant(tenant).activity.transition
        end = partial(transition, execution, attempt=attempt, result=result, now=services.clock())
        over = end(from_=RUNNING, to="failed") or end(from_=CANCELING, to="cancelled")
    else:
        lost(services, tenant, execution, attempt)
    if over is not None:
        endings.ended(services, tenant, [over])
    forget(blobs, execution, attempt)


def finish(services: Services, finished: RunFinished) -> Execution | None:
    """Move the execution to its end, and return it: those who wait for it are still to be told. A result that is not
    its current attempt's is dropped (design §3)."""
    if finished.artifacts:
        artifacts.take_in(services, finished)
    finished = results.whole(services, finished)
    report = partial(
        services.store.tenant(finished.tenant).activity.finish,
        finished.execution,
        attempt=finished.attempt,
        token_hash=token_hash(finished.token),
        result=finished.result,
        printed=finished.printed,
        timed_out=finished.timed_out,
        now=services.clock(),
    )
    ended = report(status=finished.status, from_=RUNNING)
    if ended is not None:
        inquiries.raised_by(services, finished.tenant, ended)
        return ended
    if (ended := report(status="cancelled", from_=CANCELING)) is not None:
        stopping.forget(services, finished.tenant, finished.execution)
        return ended
    inquiries.raised_again(services, finished)
    logger.warning("result dropped", execution=finished.execution, attempt=finished.attempt, tenant=finished.tenant)
    return endings.told_again(services, finished.tenant, finished.execution)


def postpone(services: Services, run: Run) -> None:
    """Put a run that never began back into the queue. No attempt is used up: none was made."""
    activity = services.store.tenant(run.tenant).activity
    waiting = activity.transition(
        run.execution, from_=RUNNING, to="requested", attempt=run.attempt, now=services.clock(), undo_attempt=True
    )
    if waiting is not None:
        request_again(services, run.tenant, waiting, delay=THROTTLED_DELAY)


def lost(services: Services, tenant: str, id_: int, attempt: int) -> None:
    """A runner died or went silent: dispatch the next attempt, or give up after the last one (design §3)."""
    activity = services.store.tenant(tenant).activity
    now = services.clock()
    if not lost_again(attempt):
        waiting = activity.transition(id_, from_=RUNNING, to="requested", attempt=attempt, now=now)
        if waiting is not None:
            request_again(services, tenant, waiting)
            return
    end = partial(activity.transition, id_, attempt=attempt, result=LOST, now=now)
    ended = end(from_=RUNNING, to="abandoned")
    if ended is None and (ended := end(from_=CANCELING, to="cancelled")) is not None:
        stopping.forget(services, tenant, id_)
    if ended is not None:
        endings.ended(services, tenant, [ended])


def request_again(services: Services, tenant: str, execution: Execution, *, delay: int = 0) -> None:
    """Put a waiting execution back into the executor's queue, after ``delay`` seconds."""
    version = services.snapshots.of(tenant).version
    services.queues.executions_requested([request_for(tenant, execution, version)], delay=delay)
