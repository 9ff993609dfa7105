"""Bodies, queries and answers of the execution routes (contract: http-api part 2, execution.rs)."""

from datetime import datetime
from typing import Any, Literal, Self

from msgspec import UNSET

from chalicelib.api.views import Body, Json, Limit, Omittable, PageQuery, Query, Ref, ShortPageQuery, View
from chalicelib.domain.entities import ExecutionStatus, RetentionPolicy
from chalicelib.domain.executions import task_metadata

StatusInput = Literal[ExecutionStatus, "succeeded"]  # README 12: another name of `completed` wherever a status goes in


class CreateExecutionRequest(Body, kw_only=True, frozen=True):
    """``timeout`` (seconds; also ``timeout_seconds``) is README 9, ``secrets`` (refs of keys to inject by name) 11."""

    action_ref: Ref
    parameters: dict[str, Json] | None = None
    env_vars: dict[str, Json] | None = None
    permission_set_refs: list[str] | None = None
    artifact_retention_policy: RetentionPolicy | None = None
    artifact_retention_limit: Limit | None = None
    worker_selector: dict[str, Json] | None = None
    worker_tolerations: list[dict[str, Json]] | None = None
    worker_affinity: dict[str, Json] | None = None
    timeout: Limit | None = None
    timeout_seconds: Limit | None = None
    secrets: list[str] | None = None


class WorkflowRun(View, kw_only=True, frozen=True):
    """How far a workflow has come (semantics part 3, ``WorkflowExecution``)."""

    workflow_def: int | None
    current_tasks: list[str]
    completed_tasks: list[str]
    failed_tasks: list[str]
    skipped_tasks: list[str]
    variables: Json
    paused: bool


class ExecutionSummary(View, kw_only=True, frozen=True):
    id: int
    action_ref: str
    status: ExecutionStatus
    parent: int | None
    enforcement: int | None
    rule_ref: str | None
    trigger_ref: str | None
    started_at: Omittable[datetime] = UNSET
    workflow_task: Omittable[Json] = UNSET
    waiting_for: Omittable[str] = UNSET
    original_execution: Omittable[int] = UNSET
    created: datetime
    updated: datetime

    @classmethod
    def of(cls, entity: Any, **computed: Any) -> Self:
        return super().of(entity, workflow_task=task_metadata(entity), **computed)


class ExecutionResponse(View, kw_only=True, frozen=True):
    """``worker`` is always null: runners come and go with their runs and have no identity of their own."""

    id: int
    action: int | None
    action_ref: str
    config: Json
    parent: int | None
    enforcement: int | None
    executor: int | None
    permission_set_refs: Omittable[list[str]] = UNSET
    artifact_retention_policy: Omittable[RetentionPolicy] = UNSET
    artifact_retention_limit: Omittable[int] = UNSET
    worker_selector: Omittable[Json] = UNSET
    worker_tolerations: Omittable[Json] = UNSET
    worker_affinity: Omittable[Json] = UNSET
    worker: int | None = None
    status: ExecutionStatus
    result: Json
    original_execution: Omittable[int] = UNSET
    started_at: Omittable[datetime] = UNSET
    workflow_task: Omittable[Json] = UNSET
    waiting_for: Omittable[str] = UNSET
    timeout_seconds: Omittable[int] = UNSET
    workflow: Omittable[WorkflowRun] = UNSET
    created: datetime
    updated: datetime

    @classmethod
    def of(cls, entity: Any, **computed: Any) -> Self:
        said = {"worker": None, "timeout_seconds": entity.timeout, "workflow": None} | computed
        return super().of(entity, workflow_task=task_metadata(entity), **said)


class ExecutionQuery(ShortPageQuery, kw_only=True, frozen=True):
    """``pack_name``: a pack ref. ``result_contains``: text in the result's JSON, in any case."""

    status: StatusInput | None = None
    action_ref: str | None = None
    pack_name: str | None = None
    rule_ref: str | None = None
    trigger_ref: str | None = None
    executor: int | None = None
    result_contains: str | None = None
    enforcement: int | None = None
    parent: int | None = None
    top_level_only: bool = False
    include_total: bool = False


class ExecutionDetailQuery(Query, kw_only=True, frozen=True):
    """``include_secret_values`` needs keys:decrypt."""

    include_secret_values: bool = False


class ExecutionStats(View, kw_only=True, frozen=True):
    """``pending`` counts requested, scheduling and scheduled; ``running`` counts canceling as well."""

    total: int
    completed: int
    failed: int
    running: int
    pending: int
    cancelled: int
    timeout: int
    abandoned: int


class StatusPageQuery(PageQuery, kw_only=True, frozen=True):
    """Pages of the executions of one status or enforcement."""
