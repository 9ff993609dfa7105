"""Bodies, queries and answers of the inquiry routes (contract: http-api part 2, inquiry.rs)."""

from datetime import datetime
from typing import Annotated, Any, Self

import msgspec
from msgspec import UNSET

from chalicelib.api.views import Body, Id, Json, Label, Limit, Omittable, Query, View
from chalicelib.domain.entities import Inquiry, InquiryStatus
from chalicelib.domain.inquiries import MAX_PROMPT, MAX_STEPS, Required, RoleName, Seconds, Step, assignee, shown

MAX_LIMIT = 500  # http-api 1.2
MAX_OFFSET = 1 << 53  # more than there are ids

Moment = Annotated[datetime, msgspec.Meta(tz=True)]
Offset = Annotated[int, msgspec.Meta(ge=0)]


class CreateInquiryRequest(Body, kw_only=True, frozen=True):
    """What goes beyond the contract is as in the parameters of ``core.ask``; ``timeout_at`` goes before
    ``timeout_seconds``."""

    execution: Id
    prompt: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_PROMPT)]
    response_schema: dict[str, Json] | None = None
    assigned_to: Id | Label | None = None
    timeout_at: Moment | None = None
    timeout_seconds: Seconds | None = None
    assigned_role: RoleName | None = None
    required: Required = 1
    exclude_asker: bool = False
    escalation: Annotated[list[Step], msgspec.Meta(max_length=MAX_STEPS)] | None = None
    default_response: Json = None


class UpdateInquiryRequest(Body, kw_only=True, frozen=True):
    """What is absent or null stays as it is."""

    status: InquiryStatus | None = None
    response: Json = None
    assigned_to: Id | None = None


class InquiryRespondRequest(Body, kw_only=True, frozen=True):
    response: Json


class ResponseView(View, kw_only=True, frozen=True):
    """What one person answered."""

    identity: int
    login: str
    response: Json
    at: datetime


class EscalationView(View, kw_only=True, frozen=True):
    """``after`` seconds without an answer, somebody else may answer as well."""

    after: float
    assigned_to: Omittable[int] = UNSET
    assigned_role: Omittable[str] = UNSET


class InquiryResponse(View, kw_only=True, frozen=True):
    """``assigned_to`` is who is asked now: the last step of the escalation that was taken (``escalated`` of them) may
    name somebody else than was asked first. ``responses`` is what has been answered so far, for ``required`` people."""

    id: int
    execution: int
    prompt: str
    response_schema: Json
    assigned_to: int | None
    status: InquiryStatus
    response: Json
    timeout_at: datetime | None
    responded_at: datetime | None
    created: datetime
    updated: datetime
    assigned_role: Omittable[str] = UNSET
    required: Omittable[int] = UNSET
    excluded: Omittable[list[int]] = UNSET
    responses: Omittable[list[ResponseView]] = UNSET
    escalation: Omittable[list[EscalationView]] = UNSET
    escalated: Omittable[int] = UNSET
    default_response: Omittable[Json] = UNSET
    by_default: Omittable[bool] = UNSET

    @classmethod
    def of(cls, entity: Inquiry, **computed: Any) -> Self:
        return super().of(
            entity,
            assigned_to=assignee(entity),
            required=entity.required if entity.required > 1 else None,
            responses=[ResponseView(**shown(each)) for each in entity.responses],
            escalation=[EscalationView.of(step) for step in entity.escalation],
            escalated=entity.escalated if entity.escalation else None,
            by_default=True if entity.by_default else None,
            **computed,
        )


class InquirySummary(View, kw_only=True, frozen=True):
    id: int
    execution: int
    prompt: str
    assigned_to: int | None
    status: InquiryStatus
    has_response: bool
    timeout_at: datetime | None
    created: datetime

    @classmethod
    def of(cls, entity: Inquiry, **computed: Any) -> Self:
        has_response = entity.response is not None
        return super().of(entity, assigned_to=assignee(entity), has_response=has_response, **computed)


class InquiryPageQuery(Query, kw_only=True, frozen=True):
    """``limit`` after the first ``offset``; or ``page`` and ``page_size``, as the published client asks for."""

    offset: Offset | None = None
    limit: Limit | None = None
    page: Limit = 1
    page_size: Limit = 50

    @property
    def window(self) -> tuple[int, int]:
        """Offset and limit."""
        limit = min(self.limit or self.page_size, MAX_LIMIT)
        offset = (self.page - 1) * limit if self.offset is None else self.offset
        return min(offset, MAX_OFFSET), limit


class InquiryQuery(InquiryPageQuery, kw_only=True, frozen=True):
    """``assigned_to``: who is asked now."""

    status: InquiryStatus | None = None
    execution: int | None = None
    assigned_to: int | None = None
