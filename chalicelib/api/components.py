"""What the routes of actions, triggers and rules share: the pack that a component goes into, the permission sets that
it may carry, and the lists it appears in."""

from collections.abc import Collection, Sequence
from typing import Final, Protocol, TypeVar

from chalicelib.api.errors import Forbidden, NotFound, Unprocessable
from chalicelib.api.routing import Call
from chalicelib.domain import refs
from chalicelib.domain.entities import Pack

OWN_KEYS: Final = "standard"  # semantics §1.3: the pseudo set of what an action has of its own anyway


class Named(Protocol):
    """What lists search in."""

    @property
    def ref(self) -> str: ...
    @property
    def label(self) -> str: ...
    @property
    def description(self) -> str | None: ...


N = TypeVar("N", bound=Named)


def pack_for_new(call: Call, ref: str, pack_ref: str) -> Pack:
    """The pack that a new component ``ref`` goes into.

    Raises RefError for a malformed ref or one that is not the pack's, NotFound for a pack that does not exist for the
    caller, Forbidden for a standard one: no tenant may write it (README 1).
    """
    refs.component_ref(ref, pack_ref)
    pack = visible_pack(call, pack_ref)
    if pack.is_standard:
        raise Forbidden(f"Pack '{pack_ref}' is a standard pack and cannot be changed")
    return pack


def visible_pack(call: Call, pack_ref: str) -> Pack:
    """The pack, or NotFound when it is somebody's private pack or none at all."""
    pack = call.registry.packs.find(pack_ref)
    if pack is None or is_hidden(call, pack):
        raise NotFound.of("Pack", pack_ref)
    return pack


def is_hidden(call: Call, pack: Pack | None) -> bool:
    """Whether ``pack`` is private and not for this caller (README 2)."""
    return pack is not None and pack.visibility == "private" and not call.access.sees_pack(pack)


def require_delegable(call: Call, permission_set_refs: Collection[str] | None) -> None:
    """Nobody hands on what they may not do themselves (semantics §2.10): Forbidden for a set that holds more than the
    caller's access, Unprocessable for one that does not exist."""
    for ref in permission_set_refs or ():
        if ref == OWN_KEYS:
            continue
        permission_set = call.registry.permission_sets.find(ref)
        if permission_set is None:
            raise Unprocessable(f"Permission set '{ref}' does not exist", details={"path": "permission_set_refs"})
        if not call.access.covers(permission_set.grants):
            raise Forbidden(f"Permission set '{ref}' holds permissions that you do not have")


def containing(rows: Sequence[N], text: str | None) -> list[N]:
    """Those of ``rows`` with ``text`` in ref, label or description, in any case; None is in all of them."""
    wanted = (text or "").casefold()
    return [row for row in rows if wanted in f"{row.ref}\n{row.label}\n{row.description or ''}".casefold()]
