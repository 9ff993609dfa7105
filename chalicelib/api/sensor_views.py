"""Bodies, queries and answers of the sensor routes (contract: http-api part 2, trigger.rs; 1.3 for tokens)."""

from datetime import datetime
from typing import Annotated

from msgspec import UNSET, Meta

from chalicelib.api.views import Body, Entrypoint, Json, Label, Limit, Omittable, PageQuery, Patch, Query, Ref, View
from chalicelib.domain.entities import RetentionPolicy
from chalicelib.domain.sensors import PollInterval, Status

Schema = dict[str, Json]
Lifetime = Annotated[int, Meta(ge=3600, le=259_200)]  # seconds (http-api 1.3)


class CreateSensorRequest(Body, kw_only=True, frozen=True):
    """``entrypoint`` is the code itself, as of an action made by API. ``poll_interval`` (seconds) is ours."""

    ref: Ref
    pack_ref: Ref
    label: Label
    entrypoint: Entrypoint
    runtime_ref: Ref
    trigger_ref: Ref
    description: str | None = None
    param_schema: Schema | None = None
    config: dict[str, Json] | None = None
    poll_interval: PollInterval | None = None
    worker_selector: dict[str, str] | None = None
    worker_tolerations: list[dict[str, Json]] | None = None
    worker_affinity: dict[str, Json] | None = None
    enabled: bool = True
    artifact_retention_policy: RetentionPolicy | None = None
    artifact_retention_limit: Limit | None = None
    log_retention_policy: RetentionPolicy | None = None
    log_retention_limit: Limit | None = None


class UpdateSensorRequest(Body, kw_only=True, frozen=True):
    """What is absent or null stays as it is. ``config`` and ``poll_interval`` are ours."""

    label: Label | None = None
    description: str | None = None
    entrypoint: Entrypoint | None = None
    param_schema: Patch[Schema] = None
    config: dict[str, Json] | None = None
    poll_interval: PollInterval | None = None
    enabled: bool | None = None
    worker_selector: dict[str, str] | None = None
    worker_tolerations: list[dict[str, Json]] | None = None
    worker_affinity: dict[str, Json] | None = None
    artifact_retention_policy: Patch[RetentionPolicy] = None
    artifact_retention_limit: Patch[Limit] = None
    log_retention_policy: Patch[RetentionPolicy] = None
    log_retention_limit: Patch[Limit] = None


class SensorSummary(View, kw_only=True, frozen=True):
    """A sensor in a list."""

    id: int
    ref: str
    pack_ref: str | None
    label: str
    description: str | None
    enabled: bool
    artifact_retention_policy: Omittable[RetentionPolicy] = UNSET
    artifact_retention_limit: Omittable[int] = UNSET
    log_retention_policy: Omittable[RetentionPolicy] = UNSET
    log_retention_limit: Omittable[int] = UNSET
    created: datetime
    updated: datetime


class SensorResponse(View, kw_only=True, frozen=True):
    """A sensor in full. ``trigger_refs``, ``config`` and ``poll_interval`` are ours."""

    id: int
    ref: str
    pack: int | None
    pack_ref: str | None
    label: str
    description: str | None
    entrypoint: str
    runtime: int
    runtime_ref: str
    enabled: bool
    trigger_refs: list[str]
    param_schema: Json
    config: Json
    poll_interval: float | None
    worker_selector: dict[str, str]
    worker_tolerations: list[Json]
    worker_affinity: Json
    artifact_retention_policy: Omittable[RetentionPolicy] = UNSET
    artifact_retention_limit: Omittable[int] = UNSET
    log_retention_policy: Omittable[RetentionPolicy] = UNSET
    log_retention_limit: Omittable[int] = UNSET
    created: datetime
    updated: datetime


class SensorQuery(PageQuery, kw_only=True, frozen=True):
    """``q``: text to find in ref, label or description."""

    q: str | None = None


class SensorStatusResponse(View, kw_only=True, frozen=True):
    """How a sensor is doing, with the names of the contract's sensor process (semantics part 3) where it has one.

    ``reason`` says why nothing polls it. ``failures`` counts all of them, ``consecutive_failures`` those since the last
    success. ``events`` were taken in, ``events_refused`` broke a schema, or named what the sensor may not.
    """

    sensor: int
    sensor_ref: str
    status: Status
    reason: Omittable[str] = UNSET
    poll_interval: float
    active_rule_count: int
    polls: int
    events: int
    events_refused: int
    failures: int
    consecutive_failures: int
    last_poll_at: datetime | None
    last_success_at: datetime | None
    last_duration_ms: int | None
    last_exit_code: int | None
    last_error: str | None
    last_stopped_at: datetime | None
    next_poll_at: datetime | None


class SensorLog(View, kw_only=True, frozen=True):
    stream: str
    artifact_ref: str
    artifact_id: int | None


class SensorLogsResponse(View, kw_only=True, frozen=True):
    sensor_ref: str
    logs: list[SensorLog]


class SensorLogQuery(Query, kw_only=True, frozen=True):
    """``tail``: only the last so many lines."""

    tail: Limit | None = None


class CreateSensorTokenRequest(Body, kw_only=True, frozen=True):
    """``ttl_seconds``: 3600 to 259200, a day without it."""

    sensor_ref: Ref
    trigger_types: Annotated[list[Ref], Meta(min_length=1, max_length=100)]
    ttl_seconds: Lifetime | None = None


class InternalSensorTokenRequest(Body, kw_only=True, frozen=True):
    """A sensor may leave out both names: its new token is then for what its present one is for."""

    sensor_ref: Ref | None = None
    trigger_types: Annotated[list[Ref], Meta(min_length=1, max_length=100)] | None = None
    ttl_seconds: Lifetime | None = None


class SensorTokenResponse(View, kw_only=True, frozen=True):
    """``permission_set_refs`` is required by the published client; a sensor's token carries none."""

    identity_id: int
    sensor_ref: str
    token: str
    expires_at: datetime
    trigger_types: list[str]
    permission_set_refs: list[str]
