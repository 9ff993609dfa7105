"""What requests leave behind in the audit log (docs/decisions/027-audit.md).

The frame calls :func:`record` for every request, when its answer is ready: a new route is audited by being in the
table. Who, what and how it ended come from the route, the token, the answer and the journal of the definitions that
were read and written; a handler has a part in it only where it shows a secret (:meth:`Call.reveals`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import msgspec

from chalicelib.api.errors import ApiError
from chalicelib.api.views import Raw
from chalicelib.domain.audit import AuditCategory, AuditEvent, AuditOutcome, masked, shortened, singular, told
from chalicelib.domain.entities import Definition, Json
from chalicelib.log import logger
from chalicelib.store.journal import Journal

if TYPE_CHECKING:
    from chalicelib.api.routing import Call, Request, Route
    from chalicelib.security.tokens import Principal
    from chalicelib.services import Services

SAFE: Final = ("GET", "HEAD", "OPTIONS")
CALLBACK: Final = "/auth/callback"  # where browsers are sent after signing in elsewhere: a GET
_CATEGORIES: Final[dict[str, AuditCategory]] = {
    "auth": "auth",
    "keys": "secret",
    "permissions": "rbac",
    "packs": "pack",
    "tenants": "admin",
}
_VERBS: Final = {"POST": "create", "PUT": "update", "PATCH": "update", "DELETE": "delete"}
_LOCK_SECONDS: Final = 60  # between two records that one account's door is shut
_LOCKS: Final = 1_000

_shut: dict[tuple[str, str, str], float] = {}


@dataclass(slots=True)
class Trail:
    """What is known of a request by its end. ``arguments`` are the path's; without ``principal`` nobody signed in."""

    journal: Journal
    route: "Route | None" = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    principal: "Principal | None" = None
    call: "Call | None" = None
    answer: Any = None
    error: ApiError | None = None


def record(services: "Services", request: "Request", trail: Trail, status: int, duration_ms: float) -> None:
    """Write the request's record, if it leaves one. Never raises: the change is made, and what cannot be stored goes to
    the log as an error."""
    try:
        tenant, event = _event(services, request, trail, status, duration_ms) or ("", None)
        if event is None or _standing(services, tenant) == "gone":
            return
    except Exception:
        logger.exception("audit record lost", extra={"request_id": request.request_id, "status": status})
        return
    days = services.settings.audit_days
    expires = None if days is None else event.created + timedelta(days=days)
    try:
        services.store.tenant(tenant).audit.append(event, expires=expires)
    except Exception:
        logger.exception("audit record lost", extra={"tenant": tenant, "audit": msgspec.to_builtins(event)})


def _standing(services: "Services", tenant: str) -> str:
    return services.tenants.standing(tenant, default=services.settings.default_tenant)


def _event(
    services: "Services", request: "Request", trail: Trail, status: int, duration_ms: float
) -> tuple[str, AuditEvent] | None:
    """The record and the tenant that it is of; None for a request that leaves none."""
    route = trail.route
    if route is None or not _leaves_one(request, trail, status):
        return None
    tenant, actor = _actor(services, trail)
    if status == 429 and not _newly_shut(services, trail, tenant, request.client_ip):
        return None
    resource_type, resource_id, resource_ref = _resource(route, trail)
    denied = status == 403 or (status == 401 and trail.principal is not None)
    revealed = [] if trail.call is None else trail.call.revealed
    category: AuditCategory = _CATEGORIES.get(route.tag, "api")
    event_type = "auth." + route.name if category == "auth" else f"{resource_type}.{_verb(route)}"
    if denied and trail.principal is not None:
        category, event_type = "rbac", "rbac.denied"
    elif status == 429:
        event_type = "auth.locked"
    elif request.method in SAFE and revealed:
        category, event_type = "secret", "secret.read"
    outcome: AuditOutcome = "denied" if denied or status in (403, 429) else "success" if status < 400 else "failure"
    return tenant, AuditEvent(
        id=services.new_id(),
        created=services.clock(),
        category=category,
        event_type=event_type,
        outcome=outcome,
        **actor,
        actor_ip=request.client_ip or None,
        actor_user_agent=_agent(request),
        request_id=request.request_id or None,
        resource_type=resource_type,
        resource_id=resource_id,
        resource_ref=resource_ref,
        http_method=request.method,
        # Whoever calls a public route may put anything into the path.
        http_path=request.path[:1024] if trail.principal is not None else route.path,
        http_status=status,
        duration_ms=round(duration_ms),
        details=_details(trail, revealed) or None,
    )


def _leaves_one(request: "Request", trail: Trail, status: int) -> bool:
    """Signing in and out, whatever comes of it; what a known caller is denied; changes, and attempts at them, by a
    known caller; secrets shown."""
    route, principal = trail.route, trail.principal
    if route is None:
        return False
    if principal is None:
        known = trail.call is not None and trail.call.account is not None
        signing_in = route.tag == "auth" and (route.method not in SAFE or route.path == CALLBACK or known)
        return signing_in and status not in (400, 413, 415, 422, 431, 501)
    if status in (401, 403):
        return True
    if status == 429:
        return route.tag == "auth"
    if request.method not in SAFE:
        return True
    return trail.call is not None and bool(trail.call.revealed)


def _actor(services: "Services", trail: Trail) -> tuple[str, dict[str, Any]]:
    """Whose token it is; on a public route, the account that the handler looked at."""
    principal = trail.principal or (None if trail.call is None else trail.call.account)
    if principal is not None:
        return principal.tenant, {
            "actor_identity": principal.identity_id,
            "actor_login": principal.login,
            "actor_token_type": principal.token_type,
        }
    if trail.journal.account is not None:
        tenant, identity = trail.journal.account
        return tenant, {"actor_identity": identity.id, "actor_login": identity.login}
    asked = None if trail.call is None else getattr(trail.call.body, "tenant", None)
    return asked or services.settings.default_tenant, {}


def _newly_shut(services: "Services", trail: Trail, tenant: str, client_ip: str) -> bool:
    """Whether it is the first refusal of its kind in a while: whoever is turned away must not cost a write each."""
    body = None if trail.call is None else trail.call.body
    login = getattr(body, "login", None) or (trail.principal.login if trail.principal else "")
    now, key = services.clock().timestamp(), (tenant, str(login), client_ip)
    if now - _shut.get(key, 0.0) < _LOCK_SECONDS:
        return False
    if len(_shut) >= _LOCKS:
        _shut.clear()
    _shut[key] = now
    return True


def _verb(route: "Route") -> str:
    """What the route does: the last word of its path after a thing's name, else what its method means."""
    parts = route.path.split("/")[3:]
    last = parts[-1]
    if route.method == "POST" and len(parts) > 1 and not last.startswith("{") and not _is_collection(last):
        return last.replace("-", "_")
    return "read" if route.method in SAFE else _VERBS[route.method]


def _is_collection(part: str) -> bool:
    return part.endswith("s") and part not in ("permissions", "webhooks")


def _resource(route: "Route", trail: Trail) -> tuple[str | None, int | None, str | None]:
    """Kind, id and ref of the thing: the last one that the path names, or the one that came to be."""
    parts = [part for part in route.path.split("/") if part][2 if route.path.startswith("/api/") else 0 :]
    nouns = [at for at, part in enumerate(parts) if part.startswith("{")]
    kind = singular(parts[nouns[-1] - 1] if nouns and nouns[-1] else parts[0])
    if route.status == 201 and parts and _is_collection(parts[-1]):
        return _made(singular(parts[-1]), trail)
    if not nouns:
        return (None, None, None) if route.tag == "auth" else _made(kind, trail)
    value = trail.arguments.get(parts[nouns[-1]][1:-1])
    number, ref = (value, None) if isinstance(value, int) else (None, str(value))
    for (_, of_kind, _), thing in trail.journal.read.items():
        if of_kind == kind and (thing.id == number or thing.ref == ref):
            return kind, thing.id, _ref(of_kind, thing)
    return kind, number, ref


def _made(kind: str, trail: Trail) -> tuple[str, int | None, str | None]:
    """The thing that the request made: what was stored, else what the answer shows."""
    for _, change in trail.journal.changes:
        if change.kind == kind and change.after is not None:
            return kind, change.after.id, _ref(kind, change.after)
    shown = trail.answer.value if isinstance(trail.answer, Raw) else getattr(trail.answer, "data", trail.answer)
    fields = shown.get("data", shown) if isinstance(shown, dict) else {}
    number = fields.get("id") if fields else getattr(shown, "id", None)
    ref = fields.get("ref") if fields else getattr(shown, "ref", None)
    return kind, number if isinstance(number, int) else None, ref if isinstance(ref, str) else None


def _ref(kind: str, thing: Definition) -> str | None:
    return None if kind == "integration_token" else thing.ref  # it opens the token's row


def _details(trail: Trail, revealed: list[dict[str, Json]]) -> dict[str, Json]:
    details: dict[str, Json] = {}
    if changes := told(change for _, change in trail.journal.changes):
        details["changes"] = changes
    if revealed:
        details["secrets_read"] = revealed[:100]
    if trail.error is not None:
        details["code"] = trail.error.code
        if trail.error.status == 403:
            details["reason"] = shortened(trail.error.message)
    if trail.principal is not None and (execution := trail.principal.execution_id) is not None:
        details["by_execution"] = execution
    return details


def _agent(request: "Request") -> str | None:
    agent = request.headers.get("user-agent")
    return None if agent is None else str(masked(agent))[:255]
