"""What an identity may do, worked out from the permission sets that it, or a token of its, holds."""

from collections.abc import Iterable

from chalicelib.domain.entities import Grant, Identity, Key
from chalicelib.domain.permissions import Access, Context
from chalicelib.store.snapshot import Snapshot


def grants_of(snapshot: Snapshot, permission_set_refs: Iterable[str]) -> list[Grant]:
    """The grants of these permission sets; a ref that names none gives none."""
    sets = snapshot.memo("grants by set", lambda: {each.ref: each.grants for each in snapshot.permission_sets()})
    return [grant for ref in permission_set_refs for grant in sets.get(ref, ())]


def permission_sets_of(snapshot: Snapshot, identity: Identity) -> list[str]:
    """The refs of the permission sets that ``identity`` has: its own, then those of its roles."""
    refs = [assignment.permission_set_ref for assignment in identity.assignments]
    for assigned in identity.roles:
        role = snapshot.role(assigned.role)
        refs += [each.permission_set_ref for each in role.permission_sets] if role is not None else ()
    return list(dict.fromkeys(refs))


def access_of_identity(snapshot: Snapshot, identity: Identity | None) -> Access:
    """What ``identity`` may do by itself; nobody, or somebody frozen, may do nothing."""
    if identity is None or identity.frozen:
        return Access([])
    grants = grants_of(snapshot, permission_sets_of(snapshot, identity))
    return Access(grants, identity.id, identity.attributes)


def key_context(key: Key) -> Context:
    """What the constraints of a grant are held against for a key."""
    owner = key.owner_pack_ref or key.owner_action_ref or key.owner_sensor_ref
    return Context(
        pack_ref=owner.partition(".")[0] if owner else None,
        ref=key.ref,
        id=key.id,
        owner_identity=key.owner_identity,
        owner_type=key.owner_type,
        owner_ref=owner or key.owner,
        encrypted=key.encrypted,
    )
