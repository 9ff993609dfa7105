"""The registry as the hot paths see it: cached per process, and good for as long as the tenant's version stands.

A snapshot costs one read of two version rows (the tenant's and the system's) per second, and none when the message at
hand says which version its sender saw a moment ago. Things are read when first asked for.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

from chalicelib.domain.entities import (
    SYSTEM_TENANT,
    Action,
    Definition,
    Environment,
    Identity,
    IntegrationToken,
    Key,
    Pack,
    PermissionSet,
    Role,
    Rule,
    Runtime,
    Sensor,
    Tenant,
    Trigger,
    WorkflowDefinition,
)

if TYPE_CHECKING:
    from chalicelib.store.opening import Store
    from chalicelib.store.registry import Registry

D = TypeVar("D", bound=Definition)
T = TypeVar("T")

TTL: Final = 1.0  # seconds that a look at the versions is good for (design §2.6)
_TENANTS: Final = 200  # snapshots kept per process
_WEBHOOKS: Final = 10_000  # keys kept per process


class _Layer:
    """What has been read of one tenant's registry at one version. None: looked for, not there."""

    def __init__(self, tenant: str, version: int) -> None:
        self.tenant = tenant
        self.version = version
        self.things: dict[tuple[type[Definition], str], Definition | None] = {}
        self.lists: dict[tuple[str, str], list[Any]] = {}


class Snapshot:
    """One tenant's view: its own registry, and the system's behind it. ``version`` is the sum of both versions."""

    def __init__(self, store: "Store", own: _Layer, system: _Layer) -> None:
        self._store = store
        self._own = own
        self._system = system
        self._memos: dict[str, Any] = {}

    @property
    def tenant(self) -> str:
        return self._own.tenant

    @property
    def version(self) -> int:
        if self._own is self._system:
            return self._own.version
        return self._own.version + self._system.version

    @property
    def record(self) -> Tenant | None:
        """What the deployment knows of the tenant itself. Its changes count as the system's."""
        return self._look(Tenant, self.tenant, [self._system])

    def action(self, ref: str) -> Action | None:
        return self._find(Action, ref)

    def workflow(self, ref: str) -> WorkflowDefinition | None:
        return self._find(WorkflowDefinition, ref)

    def trigger(self, ref: str) -> Trigger | None:
        return self._find(Trigger, ref)

    def sensor(self, ref: str) -> Sensor | None:
        return self._find(Sensor, ref)

    def sensors(self) -> list[Sensor]:
        """The tenant's own and the system's, by ref."""
        return self.memo("sensors", lambda: list(self._registry.sensors.visible()))

    def pack(self, ref: str) -> Pack | None:
        return self._find(Pack, ref)

    def runtime(self, ref: str) -> Runtime | None:
        return self._find(Runtime, ref)

    def environment(self, ref: str, *, standard: bool) -> Environment | None:
        """One of the standard packs' environments, or of the tenant's own packs': neither stands in for the other."""
        return self._look(Environment, ref, [self._system if standard else self._own])

    def identity(self, login: str) -> Identity | None:
        """The tenant's own only: nobody signs in to another tenant's."""
        return self._get(Identity, login)

    def identity_by_id(self, id_: int) -> Identity | None:
        """The tenant's own only."""
        return self.memo(f"identity {id_}", lambda: self._registry.identities.by_id(id_, own=True))

    def role(self, name: str) -> Role | None:
        """The tenant's own only."""
        return self._get(Role, name)

    def integration_token(self, id_: int) -> IntegrationToken | None:
        """The tenant's own only."""
        return self.memo(f"token {id_}", lambda: self._registry.integration_tokens.by_id(id_, own=True))

    def key(self, ref: str) -> Key | None:
        """The tenant's own only."""
        return self._get(Key, ref)

    def permission_sets(self) -> list[PermissionSet]:
        """The tenant's own and the system's, by ref."""
        return self.memo("permission sets", lambda: list(self._registry.permission_sets.visible()))

    def rules_for(self, trigger_ref: str) -> list[Rule]:
        """The tenant's enabled rules on a trigger, by ref."""
        return self._own_list(
            "rules", trigger_ref, lambda: [r for r in self._registry.rules_by_trigger(trigger_ref) if r.enabled]
        )

    def rules_named(self, refs: Sequence[str]) -> dict[str, Rule]:
        """Those of the tenant's rules that there are, by ref; a hundred unread ones in one call."""
        things = self._own.things
        unread = [ref for ref in dict.fromkeys(refs) if (Rule, ref) not in things]
        if unread:
            found = self._store.definitions_named(Rule, self.tenant, unread)
            for ref in unread:
                things[Rule, ref] = found.get(ref)
        rules = {ref: things[Rule, ref] for ref in refs}
        return {ref: rule for ref, rule in rules.items() if isinstance(rule, Rule)}

    def keys_of_action(self, action_ref: str, pack_ref: str) -> list[Key]:
        """The tenant's keys that belong to a pack and to one of its actions, in this order (README 11)."""
        return self._own_list(
            "keys",
            action_ref,
            lambda: [*self._registry.keys_of("pack", pack_ref), *self._registry.keys_of("action", action_ref)],
        )

    def keys_of_sensor(self, sensor_ref: str, pack_ref: str) -> list[Key]:
        """The tenant's keys that belong to a pack and to one of its sensors, in this order."""
        return self._own_list(
            "sensor keys",
            sensor_ref,
            lambda: [*self._registry.keys_of("pack", pack_ref), *self._registry.keys_of("sensor", sensor_ref)],
        )

    def memo(self, name: str, builder: Callable[[], T]) -> T:
        """What ``builder`` makes, kept for as long as this snapshot lives."""
        if name not in self._memos:
            self._memos[name] = builder()
        made: T = self._memos[name]
        return made

    @property
    def _registry(self) -> "Registry":
        return self._store.tenant(self.tenant).registry

    def _own_list(self, name: str, key: str, load: Callable[[], list[T]]) -> list[T]:
        lists = self._own.lists
        if (name, key) not in lists:
            lists[name, key] = load()
        found: list[T] = lists[name, key]
        return found

    def _get(self, type_: type[D], ref: str) -> D | None:
        return self._look(type_, ref, [self._own])

    def _find(self, type_: type[D], ref: str) -> D | None:
        return self._look(type_, ref, [self._own] if self._own is self._system else [self._own, self._system])

    def _look(self, type_: type[D], ref: str, layers: list[_Layer]) -> D | None:
        unread = [layer for layer in layers if (type_, ref) not in layer.things]
        if unread:
            found = self._store.definitions(type_, ref, [layer.tenant for layer in unread])
            for layer in unread:
                layer.things[type_, ref] = found.get(layer.tenant)
        for layer in layers:
            thing = layer.things[type_, ref]
            if isinstance(thing, type_):
                return thing
        return None


class Snapshots:
    """The snapshots of a process. ``clock`` counts seconds and never goes back (``time.monotonic``)."""

    def __init__(self, store: "Store", clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._kept: OrderedDict[str, tuple[Snapshot, float]] = OrderedDict()
        self._system = _Layer(SYSTEM_TENANT, -1)
        self._stale: set[str] = set()
        self._webhooks: OrderedDict[str, tuple[tuple[str, str] | None, float]] = OrderedDict()
        store.on_commit(self._written)

    def of(self, tenant: str, at_least: int = 0, age: float | None = None) -> Snapshot:
        """The tenant's snapshot, at most a second behind, and not older than version ``at_least``.

        ``age`` says how many seconds ago the sender of a message saw version ``at_least``. If this process has the
        same version, the sender's look counts as its own and no read is needed.
        """
        now = self._clock()
        kept = self._kept.get(tenant)
        if kept is not None and tenant not in self._stale:
            snapshot, looked = kept
            if snapshot.version >= at_least and now - looked < TTL:
                return snapshot
            if age is not None and 0 < at_least == snapshot.version and age < TTL:
                self._kept[tenant] = (snapshot, max(looked, now - max(age, 0.0)))
                return snapshot
        return self._look(tenant, now, at_least)

    def webhook(self, key: str) -> tuple[str, str] | None:
        """Tenant and trigger ref that a webhook key leads to; None for a key that is unknown or no longer valid."""
        now = self._clock()
        known = self._webhooks.get(key)
        if known is not None:
            target, looked = known
            if target is None and now - looked < TTL:
                return None
            if target is not None and self._leads(key, target):
                return target
        pointed = self._store.webhook_target(key)
        target = pointed if pointed is not None and self._leads(key, pointed) else None
        self._webhooks[key] = (target, now)
        self._webhooks.move_to_end(key)
        if len(self._webhooks) > _WEBHOOKS:
            self._webhooks.popitem(last=False)
        return target

    def _leads(self, key: str, target: tuple[str, str]) -> bool:
        trigger = self.of(target[0]).trigger(target[1])
        return trigger is not None and trigger.webhook_key == key

    def _look(self, tenant: str, now: float, at_least: int) -> Snapshot:
        kept = self._kept.get(tenant)
        # Usually half the price will do. After a write of our own, or when a message knows more than we do, it must be
        # the newest.
        consistent = tenant in self._stale or (at_least > 0 and (kept is None or kept[0].version < at_least))
        own_version, system_version = self._store.versions(tenant, consistent=consistent)
        if not consistent and kept is not None and own_version + system_version < kept[0].version:
            own_version, system_version = self._store.versions(tenant, consistent=True)  # a replica that lags behind
        if self._system.version != system_version:
            self._system = _Layer(SYSTEM_TENANT, system_version)
            self._store.renew()
        if tenant == SYSTEM_TENANT:
            own = self._system
        elif kept is not None and kept[0]._own.version == own_version:
            own = kept[0]._own
        else:
            own = _Layer(tenant, own_version)
        if kept is not None and tenant not in self._stale and kept[0]._own is own and kept[0]._system is self._system:
            snapshot = kept[0]
        else:
            snapshot = Snapshot(self._store, own, self._system)
        self._stale.discard(tenant)
        self._kept[tenant] = (snapshot, now)
        self._kept.move_to_end(tenant)
        if len(self._kept) > _TENANTS:
            self._kept.popitem(last=False)
        return snapshot

    def _written(self, tenant: str) -> None:
        """Something was committed by this very process: it must see its own writes."""
        self._webhooks.clear()
        if tenant == SYSTEM_TENANT:
            self._system = _Layer(SYSTEM_TENANT, -1)
            self._stale.update(self._kept)
            self._stale.add(SYSTEM_TENANT)
        else:
            self._stale.add(tenant)
