"""Packs come and go: installing, re-installing and deleting one, with everything that belongs to it.

All that can be wrong with a pack is found before anything is written; what is written goes in one transaction (for up
to 99 rows). The archive is stored first, under its hash: nothing refers to it until the rows do.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from chalicelib.domain import archives, dependencies, installation, packs
from chalicelib.domain.archives import ArchiveError
from chalicelib.domain.components import Component, ComponentType
from chalicelib.domain.documents import Document
from chalicelib.domain.entities import (
    SYSTEM_TENANT,
    Action,
    Definition,
    Key,
    Pack,
    PermissionSet,
    Rule,
    Runtime,
    Sensor,
    Trigger,
    Visibility,
    WorkflowDefinition,
)
from chalicelib.domain.flaws import Flaw
from chalicelib.domain.installation import OWNED, Owned, Present
from chalicelib.domain.packs import PackSource
from chalicelib.domain.permissions import DEFAULT_SETS, Access
from chalicelib.domain.workflow.parsing import actions_of, parse, permission_sets_of
from chalicelib.flow import admission, configuration, environments, garbage, quotas, sensors, timers
from chalicelib.flow.permission_sets import lent_by_rules, taken_away
from chalicelib.services import Services
from chalicelib.store.registry import KINDS, Delete, Put, Registry, Repository

CORE: Final = "core"
PSEUDO_SETS: Final = frozenset({"standard"})  # http-api.md §1.3: what an action has of its own anyway


class PackExistsError(Exception):
    """There is a pack of that ref, and the caller did not say to replace it."""


class StandardPackError(Exception):
    """The ref is that of a standard pack, which no tenant may change."""


class HiddenPackError(Exception):
    """The ref is that of a private pack of somebody else."""


class StrictError(Exception):
    """The pack has flaws and the caller wanted none (README 16)."""

    def __init__(self, warnings: list[Flaw]) -> None:
        super().__init__(f"the pack has {len(warnings)} flaw(s), and nothing of it was installed")
        self.warnings = warnings


class DelegationError(Exception):
    """The pack would hand on permissions that whoever installs it does not have (semantics §2.10), or use what is in
    a private pack of somebody else (README 2)."""


@dataclass(frozen=True, slots=True)
class Installed:
    """``counts`` says how many of each kind the pack has now: ``{"actions": 2, "triggers": 0, ...}``."""

    pack: Pack
    warnings: list[Flaw]
    counts: Mapping[str, int]


def archive_name(content: str) -> str:
    """Where the archive of that hash is, among the blobs of the pack's tenant."""
    return f"packs/{content}.tar.gz"


def read_directory(directory: Path) -> dict[str, bytes]:
    """The files of a pack in a folder, held to the same rules as an archive's. Raises ArchiveError."""
    limits = archives.Limits()
    files: dict[str, bytes] = {}
    room = limits.unpacked
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory).as_posix()
        if path.is_symlink():
            raise ArchiveError(f"{name!r} is a link, and links are not taken")
        if not path.is_file():
            continue
        room -= path.stat().st_size
        if room < 0:
            raise ArchiveError(f"the folder holds more than {limits.unpacked} bytes")
        files[name] = path.read_bytes()
    return archives.unpack(archives.pack(files), limits)


def install(
    services: Services,
    tenant: str,
    content: bytes | Mapping[str, bytes],
    *,
    visibility: Visibility = "tenant",
    force: bool = False,
    strict: bool = False,
    installed_by: int | None = None,
    access: Access | None = None,
) -> Installed:
    """Install the pack in ``content``, a tar.gz or its files by name, or with ``force`` bring an existing one up to it.

    What the pack owned and no longer has is deleted; what operators set stays (``domain.installation``), the pack's
    ``config`` and visibility too. ``installed_by`` is who asks, and ``access`` what they may do; without it the
    platform itself asks. Installing the very same again writes nothing.

    Raises ArchiveError, PackError, PackExistsError, StandardPackError, HiddenPackError, StrictError, DelegationError,
    and the store's Conflict when somebody else changes the pack at the same time.
    """
    files = archives.unpack(content) if isinstance(content, bytes) else dict(content)
    source = read(files)
    opened = services.store.tenant(tenant)
    registry = opened.registry
    existing = _replaceable(registry, source.ref, access, force=force)
    archive = archives.pack(files)
    pack = _pack(services, tenant, source, existing, archives.digest(archive), visibility, installed_by)
    there = present(registry, source)
    outcome = installation.plan(
        source,
        pack,
        there,
        new_id=services.new_id,
        owner=installed_by,
        now=services.clock(),
    )
    warnings = [*source.warnings, *outcome.warnings]
    if strict and warnings:
        raise StrictError(warnings)
    if access is not None:
        _check_sets(registry, outcome.installed, access)
        _check_rules(registry, outcome.written, access)
        check_delegation(registry, outcome.installed, access)
    if existing is None or existing.content != pack.content:
        quotas.admit_bytes(services, tenant, len(archive))
        opened.blobs.put(archive_name(archives.digest(archive)), archive, "application/gzip")
    changed = [] if existing and msgspec.structs.replace(pack, updated=existing.updated) == existing else [pack]
    changes: list[Put | Delete] = [
        *_puts([*changed, *outcome.written]),
        *_deletions(registry, outcome.deleted),
        *taken_away(registry, _sets_among(outcome.deleted), services.clock()),
    ]
    if changes:
        timers.commit(services, tenant, *changes)
    environments.ensure(services, tenant, pack)
    if existing is not None and existing.content != pack.content:
        garbage.leave(services, tenant, [existing])
    if changes:
        _wake(services, tenant, outcome.installed)
        _tell_of_policies(services, tenant, there.owned.values(), outcome.installed)
    counted = Counter(type(entity) for entity in outcome.installed)
    return Installed(pack, warnings, {f"{KINDS[kind]}s": counted[kind] for kind in OWNED})


def delete(services: Services, tenant: str, pack: Pack) -> None:
    """Delete ``pack`` and all that belongs to it. Rules of other packs keep the refs they name, without ids.

    Its archives stay in the bucket for a day: runs that have begun still fetch them.
    """
    registry = services.store.tenant(tenant).registry
    owned = [entity for kind in OWNED for entity in _repository(registry, kind).list() if entity.pack_ref == pack.ref]
    gone: dict[installation.Name, int | None] = {(type(entity), entity.ref): None for entity in owned}
    others = [rule for rule in registry.rules.list() if rule.pack_ref != pack.ref]
    timers.commit(
        services,
        tenant,
        Delete("pack", pack.ref),
        *_keys_of(registry, "pack", pack.ref),
        *_puts(installation.relinked(others, gone, services.clock())),
        *_deletions(registry, owned),
        *taken_away(registry, _sets_among(owned), services.clock()),
    )
    _tell_of_policies(services, tenant, owned, ())
    garbage.leave(services, tenant, [pack, *(each for each in owned if isinstance(each, (Action, Sensor)))])


def read(files: Mapping[str, bytes]) -> PackSource:
    """The pack in ``files``, with what is the platform's own to say. Raises PackError."""
    source = packs.read(files)
    source = replace(source, fields=source.fields | {"manifests": dependencies.manifests(files)})
    if source.ref != CORE:
        return source
    return replace(source, components=[*_default_sets(), *source.components])


def _default_sets() -> Iterator[Component]:
    """The core pack's permission sets, which are no files: the grants are written down once, where they are checked."""
    for ref, grants in DEFAULT_SETS.items():
        label = ref.partition(".")[2].capitalize()
        fields = {"label": label, "grants": list(grants)}
        yield Component(PermissionSet, ref, fields, "permission_sets", Document(None, None))


def _replaceable(registry: Registry, ref: str, access: Access | None, *, force: bool) -> Pack | None:
    """The pack that an installation replaces, if there is one and it may."""
    found = registry.packs.find(ref)
    if found is None:
        return None
    if found.is_standard and registry.tenant != SYSTEM_TENANT:
        raise StandardPackError(f"'{ref}' is a standard pack and cannot be changed")
    if not force:
        raise PackExistsError(f"Pack '{ref}' already exists")
    if access is not None and found.visibility == "private" and not access.sees_pack(found, "install"):
        raise HiddenPackError(ref)
    return found


def _pack(
    services: Services,
    tenant: str,
    source: PackSource,
    existing: Pack | None,
    content: str,
    visibility: Visibility,
    installed_by: int | None,
) -> Pack:
    now = services.clock()
    fields = {**source.fields, "ref": source.ref, "content": content, "updated": now}
    if existing is None:
        pack = Pack(**fields, id=services.new_id(), created=now, visibility=visibility, installed_by=installed_by)
    else:
        kept = ("id", "created", "revision", "config", "secrets", "visibility", "installed_by")
        pack = Pack(**{**fields, **{name: getattr(existing, name) for name in kept}})
    return configuration.sealed(services.cipher, tenant, pack)


def present(registry: Registry, source: PackSource) -> Present:
    """What the registry holds that an installation of ``source`` has to do with."""
    named = {(component.type, component.ref) for component in source.components}
    everything = {kind: _repository(registry, kind).list() for kind in OWNED}
    owned = {
        (kind, entity.ref): entity
        for kind, entities in everything.items()
        for entity in entities
        if entity.pack_ref == source.ref or (kind, entity.ref) in named
    }
    return Present(owned, everything[Rule], lambda kind, ref: _repository(registry, kind).find(ref))


def _sets_among(entities: Iterable[Definition]) -> set[str]:
    return {entity.ref for entity in entities if isinstance(entity, PermissionSet)}


def _check_sets(registry: Registry, installed: Iterable[Owned], access: Access) -> None:
    """A pack brings no grants that its installer does not have: neither in a set that people have already, nor in a new
    one, whose ref may stand in a rule that waits for it (docs/decisions/018-delegation.md)."""
    for entity in installed:
        if isinstance(entity, PermissionSet):
            before = registry.permission_sets.get(entity.ref)
            if not access.covers_change(before.grants if before else [], entity.grants):
                raise DelegationError(f"permission set '{entity.ref}' holds permissions that you do not have")


def _check_rules(registry: Registry, written: Iterable[Definition], access: Access) -> None:
    """Nobody changes what runs with permissions that they do not have."""
    actions = {entity.ref for entity in written if isinstance(entity, Action)}
    if actions and not access.covers(lent_by_rules(registry, actions)):
        raise DelegationError("a rule runs actions of this pack with permissions that you do not have")


def check_delegation(registry: Registry, installed: Iterable[Owned], access: Access) -> None:
    """Raises DelegationError for what would hand on more than ``access`` holds."""
    own = {entity.ref: entity for entity in installed if isinstance(entity, PermissionSet)}
    private = {
        pack.ref for pack in registry.packs.list() if pack.visibility == "private" and not access.sees_pack(pack)
    }
    for entity in installed:
        for ref in _handed_on(entity):
            found = own.get(ref) or registry.permission_sets.find(ref)
            if found is not None and not access.covers(found.grants):
                raise DelegationError(
                    f"{entity.ref} would run with '{ref}', which holds permissions that you do not have"
                )
        for ref in _used(entity):
            if ref.partition(".")[0] in private:
                raise DelegationError(f"{entity.ref} uses '{ref}', which does not exist for you")


def _handed_on(entity: Owned) -> set[str]:
    """The permission sets that executions of ``entity`` get."""
    if isinstance(entity, Action):
        return set(entity.default_execution_permission_set_refs) - PSEUDO_SETS
    if isinstance(entity, Rule):
        return set(entity.permission_set_refs or ()) - PSEUDO_SETS
    if isinstance(entity, WorkflowDefinition) and (definition := parse(entity.definition).definition) is not None:
        return set(permission_sets_of(definition)) - PSEUDO_SETS
    return set()


def _used(entity: Owned) -> Iterator[str]:
    """The actions and triggers that ``entity`` makes use of."""
    if isinstance(entity, Rule):
        yield from (entity.action_ref, entity.trigger_ref)
    elif isinstance(entity, WorkflowDefinition) and (definition := parse(entity.definition).definition) is not None:
        yield from actions_of(definition)


def _wake(services: Services, tenant: str, installed: Iterable[Owned]) -> None:
    """Let the sensors look that have come or changed, and those that rules have come for."""
    sensors.arm(services, tenant, [each for each in installed if isinstance(each, Sensor)], anew=True)
    sensors.arm_for_triggers(
        services, tenant, {each.trigger_ref for each in installed if isinstance(each, Rule) and each.enabled}
    )


def _tell_of_policies(services: Services, tenant: str, before: Iterable[Owned], after: Iterable[Owned]) -> None:
    """Let those be looked at who wait for a slot of an action whose concurrency policy has changed, or is gone."""
    now = {each.ref: each for each in after if isinstance(each, Action)}
    for each in before:
        if isinstance(each, Action):
            admission.changed(services, tenant, each, now.get(each.ref))


def _puts(entities: Iterable[Definition]) -> Iterator[Put]:
    return (Put(entity, new=entity.revision == 0) for entity in entities)


def _deletions(registry: Registry, entities: Iterable[Owned]) -> Iterator[Delete]:
    """Deletes of components, and of the keys that an action or a sensor takes along."""
    for entity in entities:
        yield Delete(KINDS[type(entity)], entity.ref)
        if isinstance(entity, Action):
            yield from _keys_of(registry, "action", entity.ref)
        elif isinstance(entity, Sensor):
            yield from _keys_of(registry, "sensor", entity.ref)


def _keys_of(registry: Registry, owner_type: Literal["pack", "action", "sensor"], owner: str) -> list[Delete]:
    return [Delete(KINDS[Key], key.ref) for key in registry.keys_of(owner_type, owner)]


def _repository(registry: Registry, kind: ComponentType) -> Repository[Any]:
    repositories: dict[ComponentType, Repository[Any]] = {
        PermissionSet: registry.permission_sets,
        Runtime: registry.runtimes,
        Trigger: registry.triggers,
        WorkflowDefinition: registry.workflows,
        Action: registry.actions,
        Rule: registry.rules,
        Sensor: registry.sensors,
    }
    return repositories[kind]
