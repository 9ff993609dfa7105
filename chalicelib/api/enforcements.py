"""Routes of enforcements (contract: http-api 1.4, Enforcements)."""

from chalicelib.api.errors import NotFound
from chalicelib.api.event_views import DetailQuery, EnforcementQuery, EnforcementResponse, EnforcementSummary
from chalicelib.api.routing import ROUTES, Call, grant
from chalicelib.api.row_access import row_filter
from chalicelib.api.secret_values import parameters_of
from chalicelib.api.views import Data, Page
from chalicelib.domain.entities import Enforcement
from chalicelib.store import listing


@ROUTES.get(
    "/api/v1/enforcements",
    needs=grant("enforcements", "read"),
    returns=Page[EnforcementSummary],
    query=EnforcementQuery,
    tag="enforcements",
)
def list_enforcements(call: Call) -> Page[EnforcementSummary]:
    """Enforcements, newest first."""
    query: EnforcementQuery = call.query
    wanted = listing.EnforcementFilter(
        rule=query.rule,
        event=query.event,
        status=query.status,
        trigger_ref=query.trigger_ref,
        rule_ref=query.rule_ref,
        **row_filter(call, "enforcements"),
    )
    paging = query.paging
    found = call.activity.enforcements(wanted, listing.Page(paging.number, paging.size, query.include_total))
    items = [EnforcementSummary.of(enforcement) for enforcement in found.items]
    return Page.part(items, paging, total=found.total, has_next=found.has_next)


@ROUTES.get(
    "/api/v1/enforcements/{enforcement_id}",
    needs=grant("enforcements", "read"),
    returns=Data[EnforcementResponse],
    query=DetailQuery,
    tag="enforcements",
    errors=(404,),
)
def get_enforcement(call: Call, enforcement_id: int) -> Data[EnforcementResponse]:
    """One enforcement, with the parameters that its execution got."""
    enforcement = readable_enforcement(call, enforcement_id)
    execution = call.activity.get_execution(enforcement.id) if enforcement.status == "processed" else None
    config = enforcement.config
    if execution is not None and execution.enforcement == enforcement.id:
        config = parameters_of(call, execution, reveal=call.query.include_secret_values)
    return Data(EnforcementResponse.of(enforcement, config=config))


def readable_enforcement(call: Call, enforcement_id: int) -> Enforcement:
    """The enforcement, if the caller may read it; NotFound or Forbidden otherwise."""
    enforcement = call.activity.get_enforcement(enforcement_id)
    if enforcement is None:
        raise NotFound.of("Enforcement", enforcement_id)
    call.require("enforcements", "read", call.context_of(enforcement))
    return enforcement
