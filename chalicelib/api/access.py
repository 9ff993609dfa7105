"""Who a caller is and which rows they may see: tokens and grants meet routes and rows (``semantics.md`` §2.10,
README 2 and 3). The rules themselves are ``domain.permissions``'s; this module finds what they apply to.
"""

from typing import TYPE_CHECKING, Any, Literal

from chalicelib.api import cookies
from chalicelib.api.errors import Forbidden, TokenRefused
from chalicelib.api.holders import identity_of
from chalicelib.domain.entities import (
    Action,
    Enforcement,
    Event,
    Execution,
    Grant,
    Identity,
    Key,
    Pack,
    PermissionSet,
    Rule,
    Runtime,
    Sensor,
    Trigger,
    WorkflowDefinition,
)
from chalicelib.domain.permissions import Access, Context
from chalicelib.security.access import grants_of, key_context, permission_sets_of
from chalicelib.security.tokens import Principal, TokenError
from chalicelib.store.directory import Standing

if TYPE_CHECKING:
    from chalicelib.api.routing import Request
    from chalicelib.services import Services

SUSPENDED = "Tenant is suspended"
STANDARD = "standard"  # the pseudo-set that an execution token may name
Relation = Literal["self", "descendant", "other"]
COMPONENTS = (Action, Trigger, Sensor, Rule, Runtime, WorkflowDefinition, PermissionSet)


def standing_of(tenant: str, services: "Services") -> Standing:
    """Whether the tenant is there for its users."""
    return services.tenants.standing(tenant, default=services.settings.default_tenant)


def principal_of(request: "Request", services: "Services") -> Principal:
    """The holder of the request's bearer token or, without an ``Authorization`` header, of its session cookie.

    Raises TokenRefused, or Forbidden where a page that is not ours uses the cookie.
    """
    try:
        return services.tokens.verify(_token_of(request, services))
    except TokenError as error:
        raise TokenRefused(error.reason) from error


def _token_of(request: "Request", services: "Services") -> str | None:
    header = request.headers.get("authorization")
    if header is not None:
        scheme, _, bearer = header.partition(" ")
        return bearer.strip() if scheme.lower() == "bearer" else None
    token = cookies.read(request, cookies.ACCESS)
    if token is not None and request.method not in cookies.SAFE_METHODS:
        cookies.refuse_foreign_page(request, services.settings)
    return token


def access_of(principal: Principal, services: "Services") -> Access:
    """What the principal may do now: its identity's permission sets, or those its token names.

    Raises TokenRefused when the tenant is gone, or what the token came of; Forbidden for a tenant that is suspended and
    an identity that is frozen.
    """
    match standing_of(principal.tenant, services):
        case "gone":
            raise TokenRefused("invalid")
        case "suspended":
            raise Forbidden(SUSPENDED)
    identity = identity_of(principal, services)
    snapshot = services.snapshots.of(principal.tenant)
    refs = principal.permission_set_refs
    if refs is None:
        refs = [] if identity is None else permission_sets_of(snapshot, identity)
    grants = grants_of(snapshot, refs)
    if STANDARD in refs:
        grants += _own_things(principal)
    if principal.tenant != services.settings.default_tenant:
        # Whoever may make permission sets in a tenant of their own is not the platform's administrator.
        grants = [grant for grant in grants if grant.resource != "tenants"]
    return Access(grants, principal.identity_id, identity.attributes if identity else {})


def _own_things(principal: Principal) -> list[Grant]:
    """What the pseudo-set ``standard`` gives: its action's and pack's keys and artifacts (http-api 1.3)."""
    metadata = principal.metadata
    constraints = {
        "owner_types": ["pack", "action"],
        "owner_refs": [
            *metadata.get("standard_access_action_refs", ()),
            *metadata.get("standard_access_pack_refs", ()),
        ],
    }
    return [
        Grant(resource="keys", actions=["read", "decrypt"], constraints=constraints),
        Grant(resource="artifacts", actions=["read", "create", "update", "delete"], constraints=constraints),
    ]


def pack_ref_of(row: Any) -> str | None:
    """The pack that ``row`` belongs to or, for what happens, whose component it happened to."""
    if isinstance(row, Pack):
        return row.ref
    if isinstance(row, COMPONENTS):
        return row.pack_ref
    if isinstance(row, Key):
        return key_context(row).pack_ref
    if isinstance(row, Enforcement):
        return _pack_of(row.rule_ref)
    if isinstance(row, Execution):
        return _pack_of(row.action_ref)
    if isinstance(row, Event):
        return _pack_of(row.trigger_ref)
    return None


def context_of(row: Any, principal: Principal) -> Context:
    """What the constraints of a grant are held against for ``row``."""
    if isinstance(row, Pack):
        return Context(pack_ref=row.ref, ref=row.ref, id=row.id, owner_identity=row.installed_by)
    if isinstance(row, Key):
        return key_context(row)
    if isinstance(row, Execution):
        return Context(
            pack_ref=pack_ref_of(row),
            ref=row.action_ref,
            id=row.id,
            owner_identity=row.executor,
            execution_relation=_relation(row, principal),
        )
    if isinstance(row, Identity):
        return Context(ref=row.ref, id=row.id, owner_identity=row.id)
    if isinstance(row, Rule):
        return Context(pack_ref=row.pack_ref, ref=row.ref, id=row.id, owner_identity=row.owner_identity)
    ref = getattr(row, "ref", None) or getattr(row, "rule_ref", None) or getattr(row, "trigger_ref", None)
    return Context(pack_ref=pack_ref_of(row), ref=ref, id=row.id)


def _relation(row: Execution, principal: Principal) -> Relation | None:
    """How an execution stands to the one whose token is presented; None without such a token."""
    own = principal.execution_id
    if own is None:
        return None
    if row.id == own:
        return "self"
    return "descendant" if own in (row.parent, row.root) else "other"


def _pack_of(ref: str | None) -> str | None:
    return ref.partition(".")[0] if ref else None
