"""Permission sets that come to an end."""

from collections.abc import Collection, Iterator
from datetime import datetime

import msgspec

from chalicelib.domain.entities import PermissionAssignment
from chalicelib.store.registry import Delete, Put, Registry


def taken_away(registry: Registry, refs: Collection[str], now: datetime) -> Iterator[Put | Delete]:
    """The changes by which everybody in the tenant loses these permission sets: a set that somebody makes under the
    same ref one day is another one."""
    if not refs:
        return

    def kept(assignments: list[PermissionAssignment]) -> list[PermissionAssignment]:
        return [each for each in assignments if each.permission_set_ref not in refs]

    for identity in registry.identities.list():
        if kept(identity.assignments) != identity.assignments:
            yield Put(msgspec.structs.replace(identity, assignments=kept(identity.assignments), updated=now))
    for role in registry.roles.list():
        remaining = kept(role.permission_sets)
        if not remaining:
            yield Delete("role", role.ref)
        elif remaining != role.permission_sets:
            yield Put(msgspec.structs.replace(role, permission_sets=remaining, updated=now))
