"""Bodies, queries and answers of the event and enforcement routes (contract: http-api part 2, event.rs)."""

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from msgspec import UNSET, Meta

from chalicelib.api.views import Body, Json, Omittable, PerPageQuery, Query, Ref, View
from chalicelib.domain.entities import EnforcementStatus


class CreateEventRequest(Body, kw_only=True, frozen=True):
    """``trigger_type`` is an older name of ``trigger_ref``; one of them is required. ``trigger_instance_id``
    ``rule_{id}`` binds the event to that rule (semantics §2.1)."""

    trigger_ref: Ref | None = None
    trigger_type: Ref | None = None
    payload: Json = None
    config: Json = None
    trigger_instance_id: Annotated[str, Meta(max_length=255)] | None = None


class EventSummary(View, kw_only=True, frozen=True):
    id: int
    trigger: int | None
    trigger_ref: str
    source: int | None
    source_ref: str | None
    rule: int | None
    rule_ref: str | None
    has_payload: bool
    created: datetime

    @classmethod
    def of(cls, entity: Any, **computed: Any) -> Self:
        return super().of(entity, has_payload=entity.payload is not None, **computed)


class EventResponse(View, kw_only=True, frozen=True):
    id: int
    trigger: int | None
    trigger_ref: str
    config: Json
    payload: Json
    source: int | None
    source_ref: str | None
    rule: int | None
    rule_ref: str | None
    created: datetime


class EventQuery(PerPageQuery, kw_only=True, frozen=True):
    trigger: int | None = None
    trigger_ref: str | None = None
    rule_ref: str | None = None
    source: int | None = None
    include_total: bool = False


class EnforcementSummary(View, kw_only=True, frozen=True):
    """``error`` is ours (README 5): why a rule that met an event did not start its action."""

    id: int
    rule: int | None
    rule_ref: str
    trigger_ref: str
    event: int | None
    status: EnforcementStatus
    condition: Literal["all"] = "all"
    created: datetime
    error: Omittable[str] = UNSET

    @classmethod
    def of(cls, entity: Any, **computed: Any) -> Self:
        return super().of(entity, condition="all", **computed)


class EnforcementResponse(View, kw_only=True, frozen=True):
    """``error``: see :class:`EnforcementSummary`."""

    id: int
    rule: int | None
    rule_ref: str
    trigger_ref: str
    config: Json
    event: int | None
    status: EnforcementStatus
    payload: Json
    condition: Literal["all"] = "all"
    conditions: Json
    created: datetime
    resolved_at: datetime | None
    error: Omittable[str] = UNSET

    @classmethod
    def of(cls, entity: Any, **computed: Any) -> Self:
        return super().of(entity, condition="all", **computed)


class EnforcementQuery(PerPageQuery, kw_only=True, frozen=True):
    rule: int | None = None
    event: int | None = None
    status: EnforcementStatus | None = None
    trigger_ref: str | None = None
    rule_ref: str | None = None
    include_total: bool = False


class DetailQuery(Query, kw_only=True, frozen=True):
    """``include_secret_values`` needs keys:decrypt."""

    include_secret_values: bool = False
