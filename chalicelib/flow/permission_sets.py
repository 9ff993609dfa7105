"""Permission sets: what they lend to actions, and what becomes of them when they end."""

from collections.abc import Collection, Iterator
from datetime import datetime

import msgspec

from chalicelib.domain.entities import Grant, PermissionAssignment
from chalicelib.domain.workflow.parsing import actions_of, parse, permission_sets_of
from chalicelib.store.registry import Put, Registry


def lent_by_rules(registry: Registry, action_refs: Collection[str]) -> list[Grant]:
    """What rules, and the workflows that they start, let these actions run with beyond the actions' own permission
    sets: whoever says what such an action does may do all of it."""
    refs = {
        ref
        for rule in registry.rules.list()
        if rule.action_ref in action_refs
        for ref in rule.permission_set_refs or ()
    }
    for workflow in registry.workflows.list():
        definition = parse(workflow.definition).definition
        if definition is not None and any(ref in action_refs for ref in actions_of(definition)):
            refs.update(permission_sets_of(definition))
    found = map(registry.permission_sets.find, sorted(refs))
    return [grant for permission_set in found if permission_set is not None for grant in permission_set.grants]


def taken_away(registry: Registry, refs: Collection[str], now: datetime) -> Iterator[Put]:
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
        if kept(role.permission_sets) != role.permission_sets:
            yield Put(msgspec.structs.replace(role, permission_sets=kept(role.permission_sets), updated=now))
