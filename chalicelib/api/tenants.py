"""Tenants, for the platform's administrators: those of the deployment's default tenant who hold a grant on ``tenants``,
as ``core.platform_admin`` gives it (README 1). In any other tenant such a grant counts for nothing.
"""

from datetime import datetime
from typing import Annotated, Final, Literal

import msgspec

from chalicelib.api.auth import DisplayName, NewLogin, NewPassword, TenantSlug
from chalicelib.api.errors import Conflict, NotFound
from chalicelib.api.routing import ROUTES, Call, grant
from chalicelib.api.views import Body, Data, Page, PageQuery, Success, View
from chalicelib.domain.entities import SYSTEM_TENANT, Tenant
from chalicelib.domain.executions import WAITING
from chalicelib.domain.quotas import Quotas, quotas_of
from chalicelib.flow import tenants
from chalicelib.flow.pace import REQUESTS, STARTS, minute_of
from chalicelib.flow.tenants import ReservedTenantError

Quota = Annotated[int, msgspec.Meta(ge=0, le=10**15)]
Label = Annotated[str, msgspec.Meta(max_length=255)]
Status = Literal["active", "suspended", "deleting"]

_LOOKED_AT: Final = 500  # open executions, the oldest, among which those that run are counted


class Administrator(Body, kw_only=True, frozen=True):
    login: NewLogin
    password: NewPassword
    display_name: DisplayName | None = None


class QuotaSettings(Body, kw_only=True, frozen=True):
    """What is null or left out stays as it is."""

    executions_per_minute: Quota | None = None
    running_at_once: Quota | None = None
    waiting: Quota | None = None
    keys: Quota | None = None
    packs: Quota | None = None
    rules: Quota | None = None
    storage: Quota | None = None


class CreateTenantRequest(Body, kw_only=True, frozen=True):
    slug: TenantSlug
    administrator: Administrator
    label: Label | None = None
    self_registration: bool = False
    quotas: QuotaSettings = QuotaSettings()


class UpdateTenantRequest(Body, kw_only=True, frozen=True):
    label: Label | None = None
    self_registration: bool | None = None
    quotas: QuotaSettings = QuotaSettings()


class TenantSummary(View, kw_only=True, frozen=True):
    id: int
    slug: str
    label: str
    status: Status
    self_registration: bool
    created: datetime
    updated: datetime


class TenantResponse(TenantSummary, kw_only=True, frozen=True):
    quotas: Quotas


class Use(View, kw_only=True, frozen=True):
    """What is taken now of each quota. ``executions_per_minute`` is of the minute that runs, as far as it is told
    (docs/decisions/021-quotas.md)."""

    executions_per_minute: int
    running_at_once: int
    waiting: int
    keys: int
    packs: int
    rules: int
    storage: int


class TenantDetail(TenantResponse, kw_only=True, frozen=True):
    use: Use


@ROUTES.get(
    "/api/v1/tenants",
    needs=grant("tenants", "read"),
    query=PageQuery,
    returns=Page[TenantSummary],
    tag="tenants",
)
def list_tenants(call: Call) -> Page[TenantSummary]:
    """All tenants of the deployment, by slug."""
    rows = call.services.store.tenant(SYSTEM_TENANT).registry.tenants.list()
    return Page.slice_of(rows, call.query.paging, lambda row: TenantSummary.of(row, **_said_of(row)))


@ROUTES.post(
    "/api/v1/tenants",
    needs=grant("tenants", "create"),
    body=CreateTenantRequest,
    returns=Data[TenantResponse],
    status=201,
    tag="tenants",
    errors=(409,),
)
def create_tenant(call: Call) -> Data[TenantResponse]:
    """Make a tenant with its first administrator, who signs in with ``tenant`` and may do everything in it."""
    body: CreateTenantRequest = call.body
    tenant = tenants.create(
        call.services,
        body.slug,
        login=body.administrator.login,
        password=body.administrator.password,
        display_name=body.administrator.display_name,
        label=body.label or "",
        quotas=_set(body.quotas),
        self_registration=body.self_registration,
    )
    return Data(_view(tenant), "Tenant created successfully")


@ROUTES.get(
    "/api/v1/tenants/{slug}",
    needs=grant("tenants", "read"),
    returns=Data[TenantDetail],
    tag="tenants",
    errors=(404,),
)
def get_tenant(call: Call, slug: str) -> Data[TenantDetail]:
    """A tenant with its quotas and what is taken of them."""
    tenant = _found(call, slug)
    return Data(TenantDetail.of(tenant, **_said_of(tenant), quotas=quotas_of(tenant.quotas), use=_use(call, slug)))


@ROUTES.put(
    "/api/v1/tenants/{slug}",
    needs=grant("tenants", "update"),
    body=UpdateTenantRequest,
    returns=Data[TenantResponse],
    tag="tenants",
    errors=(404, 409),
)
def update_tenant(call: Call, slug: str) -> Data[TenantResponse]:
    """Change a tenant's label and quotas, and whether anybody may register in it."""
    body: UpdateTenantRequest = call.body
    tenant = _living(call, slug)
    changed = tenants.change(
        call.services,
        tenant,
        label=tenant.label if body.label is None else body.label,
        self_registration=tenant.self_registration if body.self_registration is None else body.self_registration,
        quotas={**tenant.quotas, **_set(body.quotas)},
    )
    return Data(_view(changed), "Tenant updated successfully")


@ROUTES.post(
    "/api/v1/tenants/{slug}/suspend",
    needs=grant("tenants", "update"),
    returns=Data[TenantResponse],
    tag="tenants",
    errors=(404, 409),
)
def suspend_tenant(call: Call, slug: str) -> Data[TenantResponse]:
    """Stop a tenant: nobody signs in or gets in, nothing is started any more. What runs comes to its end."""
    return Data(_view(_closed(call, slug, suspended=True)), "Tenant suspended")


@ROUTES.post(
    "/api/v1/tenants/{slug}/resume",
    needs=grant("tenants", "update"),
    returns=Data[TenantResponse],
    tag="tenants",
    errors=(404, 409),
)
def resume_tenant(call: Call, slug: str) -> Data[TenantResponse]:
    """Let a suspended tenant go on as before; what waited is started."""
    changed = tenants.resume(call.services, _living(call, slug))
    return Data(_view(changed), "Tenant resumed")


@ROUTES.delete(
    "/api/v1/tenants/{slug}",
    needs=grant("tenants", "delete"),
    returns=Success,
    status=202,
    tag="tenants",
    errors=(404, 409),
)
def delete_tenant(call: Call, slug: str) -> Success:
    """Delete a tenant with everything in it. It is closed at once; its data are gone within minutes, and its record
    last."""
    if not _found(call, slug).deleting:
        _closed(call, slug, deleting=True)
    return Success(f"Tenant '{slug}' is being deleted")


def _found(call: Call, slug: str) -> Tenant:
    tenant = call.services.store.tenant(SYSTEM_TENANT).registry.tenants.get(slug)
    if tenant is None:
        raise NotFound.of("Tenant", slug)
    return tenant


def _living(call: Call, slug: str) -> Tenant:
    tenant = _found(call, slug)
    if tenant.deleting:
        raise Conflict(f"Tenant '{slug}' is being deleted")
    return tenant


def _closed(call: Call, slug: str, **changes: bool) -> Tenant:
    try:
        return tenants.close(call.services, _living(call, slug), **changes)
    except ReservedTenantError as error:
        raise Conflict(str(error)) from None


def _set(quotas: QuotaSettings) -> dict[str, int]:
    return {name: value for name, value in msgspec.structs.asdict(quotas).items() if value is not None}


def _said_of(tenant: Tenant) -> dict[str, str]:
    status: Status = "deleting" if tenant.deleting else "suspended" if tenant.suspended else "active"
    return {"slug": tenant.ref, "status": status}


def _view(tenant: Tenant) -> TenantResponse:
    return TenantResponse.of(tenant, **_said_of(tenant), quotas=quotas_of(tenant.quotas))


def _use(call: Call, slug: str) -> Use:
    opened = call.services.store.tenant(slug)
    minute = minute_of(call.now)
    first = opened.activity.open_ids(0, _LOOKED_AT)
    begun = [each for each in opened.activity.read(first) if each.status not in WAITING]
    return Use(
        executions_per_minute=max(opened.usage.sum(what, minute) for what in (REQUESTS, STARTS)),
        running_at_once=len(begun),
        waiting=max(0, opened.activity.count_open() - len(begun)),
        keys=opened.registry.keys.count(),
        packs=opened.registry.packs.count(),
        rules=opened.registry.rules.count(),
        storage=sum(opened.blobs.sizes("").values()),
    )
