"""Nobody hands out more than they have (semantics §2.10): neither by a permission set, nor by a role, nor by getting
hold of somebody's account who has more."""

from collections.abc import Iterable

from chalicelib.api.errors import Forbidden
from chalicelib.api.routing import Call
from chalicelib.domain.entities import Grant, Identity
from chalicelib.security.access import grants_of, permission_sets_of


def require_grants(call: Call, grants: Iterable[Grant], what: str) -> None:
    """Raise Forbidden unless the caller has every one of ``grants``; ``what`` begins the message."""
    if not call.access.covers(grants):
        raise Forbidden(f"{what} holds permissions that you do not have")


def require_change(call: Call, before: Iterable[Grant], after: Iterable[Grant], what: str) -> None:
    """Raise Forbidden if ``after`` gives anything that neither ``before`` gave nor the caller has."""
    if not call.access.covers_change(before, after):
        raise Forbidden(f"{what} would hold permissions that you do not have")


def require_account(call: Call, identity: Identity) -> None:
    """Raise Forbidden unless the caller has all that ``identity`` has: who changes its password, its attributes or its
    tokens may become it."""
    require_grants(call, grants_of(call.snapshot, permission_sets_of(call.snapshot, identity)), "This identity")
