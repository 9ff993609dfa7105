"""Bodies, queries and answers of the action routes (contract: http-api part 2, action.rs)."""

from datetime import datetime
from typing import Any, Literal, Self

from msgspec import UNSET

from chalicelib.api.views import (
    Body,
    Entrypoint,
    Json,
    Label,
    Limit,
    Omittable,
    PageQuery,
    Patch,
    Ref,
    View,
)
from chalicelib.domain.entities import Concurrency, OutputFormat, ParameterDelivery, ParameterFormat, RetentionPolicy
from chalicelib.protocol import Container

Schema = dict[str, Json]


class CreateActionRequest(Body, kw_only=True, frozen=True):
    """``timeout_seconds``, ``timeout``, the formats and ``container`` are ours (README 9): without them an action made
    by API could not say what a pack's action.yaml says. With ``workflow_definition`` the action is a workflow, and its
    ``entrypoint`` and runtime do not count."""

    ref: Ref
    pack_ref: Ref
    label: Label
    entrypoint: Entrypoint | None = None
    workflow_definition: Json = None
    description: str | None = None
    runtime: int | None = None
    runtime_ref: str | None = None
    runtime_version_constraint: str | None = None
    required_worker_runtimes: dict[str, str] | None = None
    worker_selector: dict[str, str] | None = None
    worker_tolerations: list[dict[str, Json]] | None = None
    worker_affinity: dict[str, Json] | None = None
    param_schema: Schema | None = None
    out_schema: Schema | None = None
    accesses_mcp: bool | None = None
    default_execution_permission_set_refs: list[str] | None = None
    artifact_retention_policy: RetentionPolicy | None = None
    artifact_retention_limit: Limit | None = None
    log_retention_policy: RetentionPolicy | None = None
    log_retention_limit: Limit | None = None
    timeout: Limit | None = None
    timeout_seconds: Limit | None = None
    secrets: list[Ref] | None = None
    parameter_delivery: ParameterDelivery | None = None
    parameter_format: ParameterFormat | None = None
    output_format: OutputFormat | None = None
    container: Container | None = None
    concurrency: Concurrency | None = None


class UpdateActionRequest(Body, kw_only=True, frozen=True):
    """What is absent or null stays as it is. ``workflow_definition`` makes the action a workflow, or another one."""

    label: Label | None = None
    description: str | None = None
    entrypoint: Entrypoint | None = None
    workflow_definition: Json = None
    runtime: int | None = None
    runtime_ref: str | None = None
    runtime_version_constraint: Patch[str] = None
    required_worker_runtimes: dict[str, str] | None = None
    worker_selector: dict[str, str] | None = None
    worker_tolerations: list[dict[str, Json]] | None = None
    worker_affinity: dict[str, Json] | None = None
    param_schema: Schema | None = None
    out_schema: Schema | None = None
    accesses_mcp: bool | None = None
    default_execution_permission_set_refs: list[str] | None = None
    artifact_retention_policy: Patch[RetentionPolicy] = None
    artifact_retention_limit: Patch[Limit] = None
    log_retention_policy: Patch[RetentionPolicy] = None
    log_retention_limit: Patch[Limit] = None
    timeout: Limit | None = None
    timeout_seconds: Limit | None = None
    secrets: list[Ref] | None = None
    parameter_delivery: ParameterDelivery | None = None
    parameter_format: ParameterFormat | None = None
    output_format: OutputFormat | None = None
    container: Container | None = None
    concurrency: Patch[Concurrency] = None


class _ActionView(View, kw_only=True, frozen=True):
    """What summary and detail have in common. ``enabled`` and ``reference_visibility`` are required by the published
    client, which is newer than the contract; here every action is enabled and any pack may refer to it."""

    id: int
    ref: str
    pack_ref: str
    label: str
    description: str | None
    entrypoint: str
    runtime: int | None
    runtime_ref: Omittable[str] = UNSET
    runtime_version_constraint: Omittable[str] = UNSET
    required_worker_runtimes: Omittable[dict[str, str]] = UNSET
    worker_selector: Omittable[dict[str, str]] = UNSET
    worker_tolerations: Omittable[list[Json]] = UNSET
    worker_affinity: Omittable[dict[str, Json]] = UNSET
    workflow_def: Omittable[int] = UNSET
    enabled: bool = True
    reference_visibility: Literal["public"] = "public"
    accesses_mcp: bool
    default_execution_permission_set_refs: Omittable[list[str]] = UNSET
    artifact_retention_policy: Omittable[RetentionPolicy] = UNSET
    artifact_retention_limit: Omittable[int] = UNSET
    log_retention_policy: Omittable[RetentionPolicy] = UNSET
    log_retention_limit: Omittable[int] = UNSET
    timeout_seconds: Omittable[int] = UNSET
    secrets: Omittable[list[str]] = UNSET
    container: Omittable[Container] = UNSET
    concurrency: Omittable[Concurrency] = UNSET
    created: datetime
    updated: datetime

    @classmethod
    def of(cls, entity: Any, **computed: Any) -> Self:
        return super().of(
            entity, enabled=True, reference_visibility="public", timeout_seconds=entity.timeout, **computed
        )


class ActionSummary(_ActionView, kw_only=True, frozen=True):
    """An action in a list."""


class ActionResponse(_ActionView, kw_only=True, frozen=True):
    """An action in full."""

    pack: int
    param_schema: Json
    out_schema: Json
    is_adhoc: bool
    warnings: Omittable[list[str]] = UNSET  # of a write: what was taken nevertheless (README 16)

    @classmethod
    def of(cls, entity: Any, **computed: Any) -> Self:
        return super().of(entity, **({"warnings": None} | computed))


class ActionSearchHit(View, kw_only=True, frozen=True):
    ref: str
    pack_ref: str
    label: str
    description: Omittable[str] = UNSET
    runtime_ref: Omittable[str] = UNSET
    is_workflow: bool
    accesses_mcp: bool
    reference_visibility: Literal["public"] = "public"

    @classmethod
    def of(cls, entity: Any, **computed: Any) -> Self:
        return super().of(
            entity, is_workflow=entity.workflow_def is not None, reference_visibility="public", **computed
        )


class ActionQuery(PageQuery, kw_only=True, frozen=True):
    executable_with_current_access: bool = False
    q: str | None = None


class ActionSearchQuery(PageQuery, kw_only=True, frozen=True):
    """``packs`` is a comma-separated list of pack refs."""

    q: str | None = None
    packs: str | None = None
