"""What installing a pack changes: its files' components against what the registry holds (contract: semantics §2.9).

Pure: the registry's state, the time and new ids are given, the outcome is what to write. Matching is by ref. A
component keeps its id, and what operators set on it rather than its author: webhook keys and security, and ``enabled``
where the file does not say it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, TypeAlias

import msgspec

from chalicelib.domain import dependencies, parameters
from chalicelib.domain.components import Component, ComponentType
from chalicelib.domain.entities import (
    Action,
    Json,
    Pack,
    PermissionSet,
    Rule,
    Runtime,
    Sensor,
    Trigger,
    WorkflowDefinition,
)
from chalicelib.domain.flaws import Flaw
from chalicelib.domain.packs import PackSource
from chalicelib.domain.runtimes import WITHOUT_FILE
from chalicelib.domain.workflow.parsing import check_actions, parse

Owned: TypeAlias = PermissionSet | Runtime | Trigger | WorkflowDefinition | Action | Rule | Sensor
Name: TypeAlias = tuple[ComponentType, str]  # a kind and a ref

OWNED: Final[tuple[ComponentType, ...]] = (PermissionSet, Runtime, Trigger, WorkflowDefinition, Action, Rule, Sensor)


@dataclass(frozen=True, slots=True)
class Present:
    """What the registry holds. ``owned``: all that the pack owns and whatever else has the ref of one of its
    components. ``rules``: the tenant's. ``find`` looks among the tenant's and the system's things."""

    owned: Mapping[Name, Owned]
    rules: Sequence[Rule]
    find: Callable[[ComponentType, str], Owned | None]


@dataclass(slots=True)
class Outcome:
    """``written`` holds what differs from what is there, ``installed`` all that the pack has now."""

    written: list[Owned] = field(default_factory=list)
    deleted: list[Owned] = field(default_factory=list)
    installed: list[Owned] = field(default_factory=list)
    warnings: list[Flaw] = field(default_factory=list)


def plan(
    source: PackSource,
    pack: Pack,
    present: Present,
    *,
    new_id: Callable[[], int],
    owner: int | None,
    now: datetime,
) -> Outcome:
    """What to change so that the registry holds ``source`` as ``pack``. ``owner`` becomes the owner of new rules."""
    builder = _Builder(source, pack, present, new_id, owner, now)
    outcome = builder.build()
    kept = {*source.broken, *builder.unfit}
    kept |= {(WorkflowDefinition, ref) for kind, ref in kept if kind is Action}  # they come and go together
    kept |= {(type(entity), entity.ref) for entity in outcome.installed}
    outcome.deleted = [
        entity
        for name, entity in present.owned.items()
        if name not in kept and entity.pack_ref == pack.ref and not getattr(entity, "is_adhoc", False)
    ]
    outcome.written = [entity for entity in outcome.installed if _differs(entity, present.owned)]
    ids: dict[Name, int | None] = {(type(entity), entity.ref): None for entity in outcome.deleted}
    ids.update({(type(entity), entity.ref): entity.id for entity in outcome.installed})
    outcome.written += relinked([rule for rule in present.rules if (Rule, rule.ref) not in ids], ids, now)
    return outcome


def relinked(rules: Iterable[Rule], ids: Mapping[Name, int | None], now: datetime) -> list[Rule]:
    """Those of ``rules`` whose action or trigger has another id now, with it. The refs they name never change."""
    changed = []
    for rule in rules:
        action = ids.get((Action, rule.action_ref), rule.action)
        trigger = ids.get((Trigger, rule.trigger_ref), rule.trigger)
        if (action, trigger) != (rule.action, rule.trigger):
            changed.append(msgspec.structs.replace(rule, action=action, trigger=trigger, updated=now))
    return changed


def _differs(entity: Owned, owned: Mapping[Name, Owned]) -> bool:
    before = owned.get((type(entity), entity.ref))
    return before is None or msgspec.structs.replace(entity, updated=before.updated) != before


class _UnfitError(Exception):
    """The component cannot be in this registry; ``path`` leads to why in its file."""

    def __init__(self, reason: str, path: str) -> None:
        super().__init__(reason)
        self.path = path


class _Builder:
    def __init__(
        self,
        source: PackSource,
        pack: Pack,
        present: Present,
        new_id: Callable[[], int],
        owner: int | None,
        now: datetime,
    ) -> None:
        self._source = source
        self._pack = pack
        self._present = present
        self._new_id = new_id
        self._owner = owner
        self._now = now
        self._built: dict[Name, Owned] = {}
        self._warnings: list[Flaw] = []
        self.unfit: set[Name] = set()

    def build(self) -> Outcome:
        for component in self._source.components:
            try:
                self._built[component.type, component.ref] = self._entity(component)
            except _UnfitError as error:
                self.unfit.add((component.type, component.ref))
                self._warnings.append(component.flaw(str(error), error.path))
        self._link_sensors()
        self._look_for_tasks_actions()
        return Outcome(installed=list(self._built.values()), warnings=self._warnings)

    def _entity(self, component: Component) -> Owned:
        before = self._present.owned.get((component.type, component.ref))
        fields = {
            **component.fields,
            "id": before.id if before else self._new_id(),
            "ref": component.ref,
            "created": before.created if before else self._now,
            "updated": self._now,
            "revision": before.revision if before else 0,
            "pack_ref": self._pack.ref,
        }
        if component.type is not PermissionSet:
            fields["pack"] = self._pack.id
        if component.type is Trigger:
            fields = _set_by_operators(before) | fields
        elif component.type is Rule:
            owner = before.owner_identity if isinstance(before, Rule) else self._owner
            fields = _switch(before) | fields | self._rule_links(component) | {"owner_identity": owner}
        elif component.type is Sensor:
            fields = _switch(before) | fields | self._runtime(component)
        elif component.type is Action:
            workflow = self._built.get((WorkflowDefinition, component.ref))
            fields |= self._runtime(component) if workflow is None else {"workflow_def": workflow.id}
        return component.type(**fields)

    def _find(self, kind: ComponentType, ref: str) -> Owned | None:
        return self._built.get((kind, ref)) or self._present.find(kind, ref)

    def _runtime(self, component: Component) -> dict[str, Json]:
        ref = component.fields["runtime_ref"]
        runtime = self._find(Runtime, ref)
        if runtime is None:
            raise _UnfitError(f"runtime '{ref}' does not exist", "$.runner_type")
        content = None if ref in WITHOUT_FILE else self._pack.content
        links: dict[str, Json] = {"runtime": runtime.id, "content": content}
        if component.type in (Action, Sensor):
            needs = dependencies.RUNTIMES.get(ref)
            links["manifest"] = self._pack.manifests.get(needs) if needs else None
        return links

    def _rule_links(self, component: Component) -> dict[str, Json]:
        links: dict[str, Json] = {}
        for kind, key, params in ((Action, "action", "action_params"), (Trigger, "trigger", "trigger_params")):
            ref = component.fields[f"{key}_ref"]
            found = self._find(kind, ref)
            if isinstance(found, Action | Trigger):
                violations = parameters.validate_templated(found.param_schema, component.fields[params])
                if violations:
                    raise _UnfitError(f"Invalid parameters for {ref}: {'; '.join(violations)}", f"$.{params}")
            else:
                self._warnings.append(component.flaw(f"{key} '{ref}' does not exist yet", f"$.{key}_ref"))
            links[key] = found.id if found else None
        return links

    def _look_for_tasks_actions(self) -> None:
        """A workflow may name an action that does not exist yet, and fails clearly if it is run (README 16)."""
        for component in self._source.components:
            if component.type is not WorkflowDefinition:
                continue
            parsed = parse(component.fields["definition"])
            absent = check_actions(parsed, lambda ref: self._find(Action, ref) is not None)
            self._warnings += [component.flaw(each.message, each.path) for each in absent]

    def _link_sensors(self) -> None:
        """Set on each of the pack's triggers which sensor feeds it (semantics §2.9)."""
        feeds = {
            ref: sensor for sensor in self._built.values() if isinstance(sensor, Sensor) for ref in sensor.trigger_refs
        }
        for name, trigger in self._built.items():
            if isinstance(trigger, Trigger) and trigger.ref in feeds:
                sensor = feeds[trigger.ref]
                self._built[name] = msgspec.structs.replace(trigger, sensor=sensor.id, sensor_ref=sensor.ref)


def _switch(before: Owned | None) -> dict[str, Json]:
    return {"enabled": before.enabled} if isinstance(before, Trigger | Rule | Sensor) else {}


def _set_by_operators(before: Owned | None) -> dict[str, Json]:
    if not isinstance(before, Trigger):
        return {}
    return {
        **_switch(before),
        "webhook_enabled": before.webhook_enabled,
        "webhook_key": before.webhook_key,
        "webhook_config": before.webhook_config,
    }
