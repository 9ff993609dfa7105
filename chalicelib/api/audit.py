"""Routes of the audit log (contract: http-api 1.4, Audit). There is none that changes or deletes a record."""

from datetime import datetime
from typing import Annotated, Final
from uuid import UUID

import msgspec

from chalicelib.api.errors import BadRequest, NotFound
from chalicelib.api.routing import ROUTES, Call, grant
from chalicelib.api.views import Data, Json, Limit, Page, Paging, Query, Raw, View
from chalicelib.domain.audit import AuditCategory, AuditOutcome, Wanted
from chalicelib.domain.ids import MAX_ID
from chalicelib.domain.permissions import Context
from chalicelib.store.audit import Audit, Logins

LINES: Final = "application/x-ndjson"
CURSOR: Final = "X-Audit-Cursor"
_LARGEST_EXPORT: Final = 4_000_000  # bytes; Lambda answers with at most 6 MB

Moment = Annotated[datetime, msgspec.Meta(tz=True)]

_encode = msgspec.json.Encoder().encode


class AuditEventResponse(View, kw_only=True, frozen=True):
    """``details`` has what changed (``changes``), which secrets were shown (``secrets_read``), why something was
    refused."""

    id: int
    created: datetime
    category: AuditCategory
    event_type: str
    outcome: AuditOutcome
    actor_identity: int | None
    actor_login: str | None
    actor_token_type: str | None
    actor_ip: str | None
    actor_user_agent: str | None
    request_id: str | None
    resource_type: str | None
    resource_id: int | None
    resource_ref: str | None
    http_method: str | None
    http_path: str | None
    http_status: int | None
    duration_ms: int | None
    details: Json
    correlation_chain: Json


class AuditEventSummary(View, kw_only=True, frozen=True):
    id: int
    created: datetime
    category: AuditCategory
    event_type: str
    outcome: AuditOutcome
    actor_identity: int | None
    actor_login: str | None
    resource_type: str | None
    resource_ref: str | None
    http_method: str | None
    http_path: str | None
    http_status: int | None
    request_id: str | None


class AuditEventQuery(Query, kw_only=True, frozen=True):
    """``http_path`` may end in ``*``; ``created_after`` is included, ``created_before`` is not."""

    category: AuditCategory | None = None
    event_type: str | None = None
    outcome: AuditOutcome | None = None
    actor_identity: int | None = None
    actor_login: str | None = None
    resource_type: str | None = None
    resource_id: int | None = None
    resource_ref: str | None = None
    request_id: UUID | None = None
    http_status: int | None = None
    http_method: str | None = None
    http_path: str | None = None
    created_after: Moment | None = None
    created_before: Moment | None = None
    include_total: bool = False
    page: Limit = 1
    per_page: Limit = 50

    @property
    def paging(self) -> Paging:
        return Paging(self.page, min(self.per_page, 500))

    @property
    def wanted(self) -> Wanted:
        given = {name: getattr(self, name) for name in Wanted.__struct_fields__}
        return Wanted(**given | {"request_id": None if self.request_id is None else str(self.request_id)})


class ExportQuery(Query, kw_only=True, frozen=True):
    """``since`` is included, ``until`` is not. ``cursor`` is what the header ``X-Audit-Cursor`` of the answer before
    said."""

    since: Moment | None = None
    until: Moment | None = None
    cursor: Annotated[int, msgspec.Meta(ge=0, le=MAX_ID)] | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=5000)] = 1000


@ROUTES.get(
    "/api/v1/audit-events",
    needs=grant("audit_log", "read"),
    returns=Page[AuditEventSummary],
    query=AuditEventQuery,
    tag="audit",
)
def list_audit_events(call: Call) -> Page[AuditEventSummary]:
    """What was done in the tenant, newest first. ``include_total`` reads all that match: give it a range of times."""
    query: AuditEventQuery = call.query
    audit, paging, wanted = _audit(call), query.paging, query.wanted
    found, has_next = audit.find(wanted, _logins(call), offset=paging.offset, limit=paging.size)
    total = audit.count(wanted, _logins(call)) if query.include_total else None
    return Page.part([AuditEventSummary.of(each) for each in found], paging, total=total, has_next=has_next)


@ROUTES.get(
    "/api/v1/audit-events/export",
    needs=grant("audit_log", "read"),
    returns=None,
    query=ExportQuery,
    tag="audit",
    media_type=LINES,
)
def export_audit_events(call: Call) -> Raw:
    """Records as JSON lines, oldest first. While there are more, the header ``X-Audit-Cursor`` says what to ask with as
    ``cursor`` next."""
    query: ExportQuery = call.query
    wanted = Wanted(created_after=query.since, created_before=query.until)
    after = -1 if query.cursor is None else query.cursor
    lines: list[bytes] = []
    headers, size, last = {"Content-Type": LINES}, 0, after
    for event in _audit(call).since(wanted, _logins(call), after=after):
        # Records of one id stay together: the cursor stands behind all of them.
        if event.id != last and (len(lines) >= query.limit or size > _LARGEST_EXPORT):
            headers[CURSOR] = str(last)
            break
        lines.append(_encode(AuditEventResponse.of(event)) + b"\n")
        size, last = size + len(lines[-1]), event.id
    return Raw(b"".join(lines), headers=headers)


@ROUTES.get(
    "/api/v1/audit-events/by-request/{request_id}",
    needs=grant("audit_log", "read"),
    returns=Data[list[AuditEventResponse]],
    tag="audit",
)
def list_audit_events_of_request(call: Call, request_id: str) -> Data[list[AuditEventResponse]]:
    """What one request (``X-Request-Id`` of its answer) left behind."""
    try:
        wanted = str(UUID(request_id))
    except ValueError as error:
        raise BadRequest("Path parameter 'request_id' must be a UUID", {"path": "request_id"}) from error
    return Data([AuditEventResponse.of(event) for event in _audit(call).of_request(wanted)])


@ROUTES.get(
    "/api/v1/audit-events/{id}",
    needs=grant("audit_log", "read"),
    returns=Data[AuditEventResponse],
    tag="audit",
    errors=(404,),
)
def get_audit_event(call: Call, id: int) -> Data[AuditEventResponse]:  # noqa: A002
    """One record."""
    event = _audit(call).get(id, _logins(call))
    if event is None:
        raise NotFound.of("Audit event", id)
    return Data(AuditEventResponse.of(event))


def _audit(call: Call) -> Audit:
    """The caller's tenant's records: all or none, for a grant's constraints are about things and not about records."""
    call.require("audit_log", "read", Context())
    return call.services.store.tenant(call.tenant).audit


def _logins(call: Call) -> Logins:
    def login(identity_id: int) -> str | None:
        identity = call.snapshot.identity_by_id(identity_id)
        return None if identity is None else identity.login

    return login
