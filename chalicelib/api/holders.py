"""Whether the holder of a token is still there: a token outlives what it was given for, and opens nothing then."""

from typing import TYPE_CHECKING

from chalicelib.api.errors import Forbidden, TokenRefused
from chalicelib.domain.entities import Identity
from chalicelib.security.tokens import DEFAULT_EXECUTOR, Principal

if TYPE_CHECKING:
    from chalicelib.services import Services


def identity_of(principal: Principal, services: "Services") -> Identity | None:
    """The identity whose rights a token brings; None for executions, sensors and workers, which have their own or none.

    Raises TokenRefused when the identity is gone, or what the token came of: its execution is over, its integration
    token revoked, expired or deleted. Raises Forbidden when the identity is frozen. All of it is cached and a second or
    two behind at most (docs/decisions/017-tokens.md).
    """
    match principal.token_type:
        case "access":
            identity = _signed_in(principal, services)
            _check_integration_token(principal, services)
            return identity
        case "execution":
            _check_execution(principal, services)
        case "sensor":
            _check_identity(principal, principal.issued_by, services)
    return None


def refuse_frozen(identity: Identity) -> None:
    """Raise Forbidden if ``identity`` is frozen."""
    if identity.frozen:
        raise Forbidden("Identity is frozen")


def _signed_in(principal: Principal, services: "Services") -> Identity:
    # The snapshot may be a second behind a registration.
    identity = services.snapshots.of(principal.tenant).identity(principal.login) or services.store.tenant(
        principal.tenant
    ).registry.identities.get(principal.login)
    if identity is None or identity.id != principal.identity_id:  # gone, or the login was given to somebody else
        raise TokenRefused("invalid")
    refuse_frozen(identity)
    return identity


def _check_integration_token(principal: Principal, services: "Services") -> None:
    id_ = principal.integration_token
    if id_ is None:
        return
    tokens = services.store.tenant(principal.tenant).registry.integration_tokens
    token = services.snapshots.of(principal.tenant).integration_token(id_) or tokens.by_id(id_, own=True)
    if token is None or not token.active(services.clock()):
        raise TokenRefused("invalid")


def _check_execution(principal: Principal, services: "Services") -> None:
    id_ = principal.execution_id
    if id_ is None or not services.liveness.is_live(principal.tenant, id_):
        raise TokenRefused("expired")
    if principal.identity_id != DEFAULT_EXECUTOR:
        _check_identity(principal, principal.identity_id, services)


def _check_identity(principal: Principal, id_: int | None, services: "Services") -> None:
    """For a token that somebody is answerable for: they are there, and not frozen."""
    if id_ is None:
        return
    identities = services.store.tenant(principal.tenant).registry.identities
    identity = services.snapshots.of(principal.tenant).identity_by_id(id_) or identities.by_id(id_, own=True)
    if identity is None:
        raise TokenRefused("invalid")
    refuse_frozen(identity)
