"""How an execution begins, and which of its states lead where (contract: semantics §2.1, §2.7; README 6, 9)."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

import msgspec

from chalicelib.domain import parameters
from chalicelib.domain.entities import Action, Execution, ExecutionStatus, Json

DEFAULT_TIMEOUT: Final = 300  # seconds (semantics §2.6)

WAITING: Final[tuple[ExecutionStatus, ...]] = ("requested", "scheduling", "scheduled")
RUNNING: Final[tuple[ExecutionStatus, ...]] = ("running",)
CANCELING: Final[tuple[ExecutionStatus, ...]] = ("canceling",)
OPEN: Final[tuple[ExecutionStatus, ...]] = (*WAITING, *RUNNING, *CANCELING)
TERMINAL: Final[tuple[ExecutionStatus, ...]] = ("completed", "failed", "cancelled", "timeout", "abandoned")

# A runner that has said nothing this long after its action's timeout is gone: SIGTERM's grace of 5 s, a cold start, and
# the way of the result through its queue.
LEASE_GRACE: Final = timedelta(seconds=60)

MAX_ATTEMPTS: Final = 2  # `on_worker_lost: retry`, once (design §3)
LOST: Final[Mapping[str, Json]] = {"succeeded": False, "error": "The runner was lost and did not report a result"}


def lost_again(attempt: int) -> bool:
    """Whether a lost attempt was the last one."""
    return attempt >= MAX_ATTEMPTS


def lease_until(now: datetime, timeout: int | None) -> datetime:
    """The moment by which an attempt dispatched ``now`` must have reported."""
    return now + timedelta(seconds=timeout or DEFAULT_TIMEOUT) + LEASE_GRACE


def begins_at(execution: Execution) -> datetime | None:
    """The moment before which a task's execution does not begin, if it is to wait: a retry, or one with a delay."""
    task = execution.workflow_task
    begins = task.get("next_retry_at") if isinstance(task, dict) else None
    return None if begins is None else msgspec.convert(begins, datetime)


def task_metadata(execution: Execution) -> Json:
    """``WorkflowTaskMetadata`` (semantics part 3): what its run wrote down as the task began, and what became of it
    since. None for an execution that is no task's."""
    task = execution.workflow_task
    if not isinstance(task, dict) or "workflow_execution" not in task:
        return None
    ended = execution.updated if execution.status in TERMINAL else None
    took = None if ended is None or execution.started_at is None else ended - execution.started_at
    return {
        "triggered_by": None,
        "task_index": None,
        "task_batch": None,
        "next_retry_at": None,
        "timeout_seconds": None,
        "timed_out": execution.timed_out or execution.status == "timeout",
        "duration_ms": None if took is None else took // timedelta(milliseconds=1),
        "started_at": execution.started_at and msgspec.to_builtins(execution.started_at),
        "completed_at": ended and msgspec.to_builtins(ended),
        **task,
    }


def begin(
    *,
    id_: int,
    action: Action,
    given: Json,
    now: datetime,
    secrets: Mapping[str, list[Json]] | None = None,
    **origin: Json,
) -> Execution:
    """A new execution of ``action``: ``requested``, or ``failed`` from the start when ``given`` breaks its schema.

    ``secrets`` maps JSON pointers into the parameters to what belongs there at the run (see ``Execution.secrets``).
    ``origin`` holds the remaining fields of :class:`Execution`: who asked, for which rule, within which workflow.
    A failed start names every violation in ``result.error`` (contract README 6).
    """
    resolved = parameters.resolve(action.param_schema, given, secret_pointers=(secrets or {}).keys())
    execution = Execution(
        id=id_,
        created=now,
        updated=now,
        action=action.id,
        action_ref=action.ref,
        status="requested",
        config=resolved.parameters or None,
        secrets=dict(secrets) if secrets else None,
        timeout=origin.pop("timeout", None) or action.timeout,
        permission_set_refs=_first_given(origin.pop("permission_set_refs", None), action),
        artifact_retention_policy=origin.pop("artifact_retention_policy", None) or action.artifact_retention_policy,
        artifact_retention_limit=origin.pop("artifact_retention_limit", None) or action.artifact_retention_limit,
        **origin,
    )
    if resolved.violations:
        error = "Invalid parameters: " + "; ".join(resolved.violations)
        return msgspec.structs.replace(execution, status="failed", result={"succeeded": False, "error": error})
    return execution


def _first_given(permission_set_refs: list[str] | None, action: Action) -> list[str]:
    if permission_set_refs is None:
        return action.default_execution_permission_set_refs
    return permission_set_refs
