"""Routes of inquiries (contract: http-api 1.4, Inquiries; semantics §2.8).

Grants decide over inquiries (README 3). Beyond them, whoever is asked by name or by role may read and answer: to be
asked is permission enough.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, get_args

from chalicelib.api.errors import BadRequest, Conflict, Forbidden, NotFound, Unavailable, Unprocessable
from chalicelib.api.holders import identity_of
from chalicelib.api.idempotency import key_of
from chalicelib.api.inquiry_views import (
    CreateInquiryRequest,
    InquiryPageQuery,
    InquiryQuery,
    InquiryRespondRequest,
    InquiryResponse,
    InquirySummary,
    UpdateInquiryRequest,
)
from chalicelib.api.routing import ROUTES, Call, grant
from chalicelib.api.views import Data, Page, Pagination, Success
from chalicelib.domain.entities import Inquiry, InquiryStatus
from chalicelib.domain.inquiries import (
    AnsweredError,
    NotPendingError,
    NotYoursError,
    Person,
    Question,
    QuestionError,
    ResponseError,
    given_with,
    is_asked,
)
from chalicelib.domain.permissions import Context
from chalicelib.flow import inquiries
from chalicelib.security.access import permission_sets_of
from chalicelib.store.activity import BusyError
from chalicelib.store.inquiries import InquiryFilter

_STATUSES: Final[tuple[str, ...]] = get_args(InquiryStatus)
_NOBODY: Final = -1  # an identity that none is: only a grant without constraints on the row reaches its rows


@ROUTES.get(
    "/api/v1/inquiries",
    needs=grant("inquiries", "read", unless="one is asked"),
    returns=Page[InquirySummary],
    query=InquiryQuery,
    tag="inquiries",
)
def list_inquiries(call: Call) -> Page[InquirySummary]:
    """Inquiries, newest first. Everybody may list those that are assigned to them (``assigned_to``: the own id); all
    others need inquiries:read."""
    query: InquiryQuery = call.query
    if not _is_own(call, query.assigned_to):
        _require(call, "read")
    return _page(call, query, status=query.status, execution=query.execution, assigned_to=query.assigned_to)


@ROUTES.get(
    "/api/v1/inquiries/status/{status}",
    needs=grant("inquiries", "read"),
    returns=Page[InquirySummary],
    query=InquiryPageQuery,
    tag="inquiries",
    errors=(400,),
)
def list_inquiries_by_status(call: Call, status: str) -> Page[InquirySummary]:
    """Inquiries of one status, newest first."""
    if status not in _STATUSES:
        raise BadRequest(f"Invalid inquiry status '{status}': expected one of {', '.join(_STATUSES)}")
    return _page(call, call.query, status=status)


@ROUTES.get(
    "/api/v1/executions/{execution_id}/inquiries",
    needs=grant("inquiries", "read"),
    returns=Page[InquirySummary],
    query=InquiryPageQuery,
    tag="inquiries",
    errors=(404,),
)
def list_inquiries_by_execution(call: Call, execution_id: int) -> Page[InquirySummary]:
    """What an execution asks: one inquiry, or none."""
    if call.activity.execution_status(execution_id) is None:
        raise NotFound.of("Execution", execution_id)
    return _page(call, call.query, execution=execution_id)


@ROUTES.post(
    "/api/v1/inquiries",
    needs=grant("inquiries", "create"),
    returns=Data[InquiryResponse],
    body=CreateInquiryRequest,
    status=201,
    tag="inquiries",
    errors=(404, 409),
)
def create_inquiry(call: Call) -> Data[InquiryResponse]:
    """Ask people about an execution, which does not wait for them (``core.ask`` does). 409 when it has an inquiry."""
    body: CreateInquiryRequest = call.body
    execution = call.activity.get_execution(body.execution)
    if execution is None:
        raise NotFound.of("Execution", body.execution)
    _require(call, "create", call.context_of(execution))
    names = ("prompt", "response_schema", "assigned_to", "assigned_role", "required", "exclude_asker")
    question = Question(
        **{name: getattr(body, name) for name in names},
        escalation=body.escalation or [],
        default_response=body.default_response,
        timeout_seconds=body.timeout_seconds,
    )
    try:
        inquiry = inquiries.create(
            call.services,
            call.tenant,
            execution,
            question,
            asker=call.principal.identity_id,
            timeout_at=_utc(body.timeout_at),
        )
    except QuestionError as error:
        raise Unprocessable(str(error)) from None
    except inquiries.ExistsError as error:
        raise Conflict(str(error)) from None
    return Data(InquiryResponse.of(inquiry), "Inquiry created successfully")


@ROUTES.get(
    "/api/v1/inquiries/{inquiry_id}",
    needs=grant("inquiries", "read", unless="one is asked"),
    returns=Data[InquiryResponse],
    tag="inquiries",
    errors=(404,),
)
def get_inquiry(call: Call, inquiry_id: int) -> Data[InquiryResponse]:
    """One inquiry with what was answered, for inquiries:read and for whoever is asked."""
    inquiry = _found(call, inquiry_id)
    person = _person(call, inquiry)
    if not (call.principal.token_type == "access" and is_asked(inquiry, person)):  # noqa: S105
        _require(call, "read", _context(call, inquiry))
    return Data(InquiryResponse.of(inquiry))


@ROUTES.put(
    "/api/v1/inquiries/{inquiry_id}",
    needs=grant("inquiries", "update"),
    returns=Data[InquiryResponse],
    body=UpdateInquiryRequest,
    tag="inquiries",
    errors=(400, 404, 503),
)
def update_inquiry(call: Call, inquiry_id: int) -> Data[InquiryResponse]:
    """Ask somebody else, or settle a pending inquiry in the place of those who are asked; 400 for a settled one."""
    body: UpdateInquiryRequest = call.body
    _require(call, "update", _context(call, _found(call, inquiry_id)))
    inquiry = _settling(
        lambda: inquiries.change(
            call.services,
            call.tenant,
            inquiry_id,
            status=body.status,
            response=body.response,
            assigned_to=body.assigned_to,
        )
    )
    return Data(InquiryResponse.of(_there(inquiry, inquiry_id)), "Inquiry updated successfully")


@ROUTES.delete(
    "/api/v1/inquiries/{inquiry_id}",
    needs=grant("inquiries", "delete"),
    returns=Success,
    tag="inquiries",
    errors=(404, 409),
)
def delete_inquiry(call: Call, inquiry_id: int) -> Success:
    """Forget an inquiry. An execution that waits for its answer is cancelled."""
    inquiry = _found(call, inquiry_id)
    _require(call, "delete", _context(call, inquiry))
    if not inquiries.delete(call.services, call.tenant, inquiry):
        raise Conflict(f"Inquiry '{inquiry_id}' has just been changed by somebody else")
    return Success(f"Inquiry {inquiry_id} deleted successfully")


@ROUTES.post(
    "/api/v1/inquiries/{inquiry_id}/respond",
    needs=grant("inquiries", "respond", unless="one is asked"),
    returns=Data[InquiryResponse],
    body=InquiryRespondRequest,
    tag="inquiries",
    errors=(400, 404, 409, 503),
)
def respond_to_inquiry(call: Call, inquiry_id: int) -> Data[InquiryResponse]:
    """Answer an inquiry. Of two answers in the same instant the first counts, the other is 400; what breaks the schema
    is 422 and leaves it pending. The same ``Idempotency-Key`` again gives the first answer."""
    body: InquiryRespondRequest = call.body
    key = key_of(call)
    inquiry = _found(call, inquiry_id)
    if not given_with(inquiry, key):
        if inquiry.status != "pending":
            raise BadRequest(str(NotPendingError(inquiry)))
        _refuse_programs(call, inquiry)
    person = _person(call, inquiry)
    answered = _settling(
        lambda: inquiries.respond(call.services, call.tenant, inquiry_id, person, body.response, key=key)
    )
    return Data(InquiryResponse.of(_there(answered, inquiry_id)), "Response submitted successfully")


def _utc(moment: datetime | None) -> datetime | None:
    """The moment as all others are. Raises Unprocessable where that is before the year 1 or after 9999."""
    try:
        return None if moment is None else moment.astimezone(UTC)
    except OverflowError:
        raise Unprocessable("timeout_at is out of range", details={"path": "timeout_at"}) from None


def _refuse_programs(call: Call, inquiry: Inquiry) -> None:
    """Raise Forbidden for a token that nobody in particular holds, for an execution of the run that asks, and for one
    whose rights do not reach: being asked as a person gives nothing to the programs that one runs."""
    principal = call.principal
    if principal.token_type == "access":  # noqa: S105
        return
    if principal.token_type != "execution" or principal.execution_id is None:  # noqa: S105
        raise Forbidden("Only an identity can answer an inquiry")
    if inquiries.same_run(call.services, call.tenant, principal.execution_id, inquiry):
        raise Forbidden("An execution may not answer an inquiry of its own run (privilege loop)")
    _require(call, "respond", _context(call, inquiry))


def _person(call: Call, inquiry: Inquiry) -> Person:
    """The caller as one who may be asked. An execution has the permission sets of its token and no roles."""
    principal, identity = call.principal, identity_of(call.principal, call.services)
    roles = principal.permission_set_refs or []
    if identity is not None:
        roles = [*permission_sets_of(call.snapshot, identity), *(each.role for each in identity.roles)]
    return Person(
        identity=principal.identity_id,
        login=principal.login,
        roles=frozenset(roles),
        may_respond=call.allows("inquiries", "respond", _context(call, inquiry)),
    )


def _settling(work: Callable[[], Inquiry | None]) -> Inquiry | None:
    """The answer of ``work``, whose refusals become the wire's."""
    try:
        return work()
    except NotPendingError as error:
        raise BadRequest(str(error)) from None
    except NotYoursError as error:
        raise Forbidden(str(error)) from None
    except AnsweredError as error:
        raise Conflict(str(error)) from None
    except ResponseError as error:
        raise Unprocessable(str(error), details={"path": "response", "violations": error.violations}) from None
    except QuestionError as error:
        raise Unprocessable(str(error)) from None
    except BusyError as error:
        raise Unavailable(str(error)) from None


def _found(call: Call, inquiry_id: int) -> Inquiry:
    return _there(call.services.store.tenant(call.tenant).inquiries.get(inquiry_id), inquiry_id)


def _there(inquiry: Inquiry | None, inquiry_id: int) -> Inquiry:
    if inquiry is None:
        raise NotFound.of("Inquiry", inquiry_id)
    return inquiry


def _require(call: Call, action: str, context: Context | None = None) -> None:
    call.require("inquiries", action, context)


def _context(call: Call, inquiry: Inquiry) -> Context:
    """What the constraints of a grant are held against: the action that asks, and who started it."""
    own = call.principal.execution_id
    return Context(
        pack_ref=inquiry.action_ref.partition(".")[0],
        ref=inquiry.action_ref,
        id=inquiry.id,
        owner_identity=inquiry.asker,
        execution_relation=None if own is None else "self" if own == inquiry.execution else "other",
    )


def _is_own(call: Call, assigned_to: int | None) -> bool:
    """Whether somebody asks for what is assigned to them: as a person, not by a program."""
    return assigned_to == call.principal.identity_id and call.principal.token_type == "access"  # noqa: S105


def _page(call: Call, query: InquiryPageQuery, **wanted: Any) -> Page[InquirySummary]:
    offset, limit = query.window
    everybodys = Context(owner_identity=_NOBODY)
    if not _is_own(call, wanted.get("assigned_to")) and not call.allows("inquiries", "read", everybodys):
        wanted["allowed"] = lambda inquiry: call.allows("inquiries", "read", _context(call, inquiry))
    store = call.services.store.tenant(call.tenant).inquiries
    found, total = store.find(InquiryFilter(**wanted), offset=offset, limit=limit)
    pagination = Pagination(
        page=offset // limit + 1,
        page_size=limit,
        total_items=total,
        total_pages=-(-total // limit),
        has_previous=offset > 0,
        has_next=offset + limit < total,
    )
    return Page([InquirySummary.of(inquiry) for inquiry in found], pagination)
