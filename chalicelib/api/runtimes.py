"""Runtimes: what can run an action (http-api 1.4). They come from packs; the API reads them."""

from datetime import datetime

from chalicelib.api.components import visible_pack
from chalicelib.api.routing import ROUTES, Call, readable
from chalicelib.api.views import Data, Json, Page, PageQuery, View


class RuntimeResponse(View, kw_only=True, frozen=True):
    id: int
    ref: str
    pack: int | None
    pack_ref: str | None
    description: str | None
    name: str
    distributions: Json
    installation: Json
    execution_config: Json
    created: datetime
    updated: datetime


class RuntimeSummary(View, kw_only=True, frozen=True):
    id: int
    ref: str
    pack_ref: str | None
    description: str | None
    name: str
    created: datetime
    updated: datetime


@ROUTES.get(
    "/api/v1/runtimes", needs=readable("runtimes"), query=PageQuery, returns=Page[RuntimeSummary], tag="runtimes"
)
def list_runtimes(call: Call) -> Page[RuntimeSummary]:
    """Runtimes that the caller may read, by ref."""
    rows = call.readable("runtimes", call.registry.runtimes.visible())
    return Page.slice_of(rows, call.query.paging, RuntimeSummary.of)


@ROUTES.get(
    "/api/v1/runtimes/{ref}", needs=readable("runtimes"), returns=Data[RuntimeResponse], tag="runtimes", errors=(404,)
)
def get_runtime(call: Call, ref: str) -> Data[RuntimeResponse]:
    """One runtime."""
    runtime = call.to_read("runtimes", "Runtime", ref, call.registry.runtimes.find(ref))
    return Data(RuntimeResponse.of(runtime))


@ROUTES.get(
    "/api/v1/packs/{pack_ref}/runtimes",
    needs=readable("runtimes"),
    query=PageQuery,
    returns=Page[RuntimeSummary],
    tag="runtimes",
    errors=(404,),
)
def list_runtimes_of_pack(call: Call, pack_ref: str) -> Page[RuntimeSummary]:
    """The runtimes of one pack."""
    pack = visible_pack(call, pack_ref)
    rows = [row for row in call.registry.runtimes.visible() if row.pack_ref == pack.ref]
    return Page.slice_of(call.readable("runtimes", rows), call.query.paging, RuntimeSummary.of)
