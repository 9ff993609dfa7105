"""What people define: packs, actions, rules and so on, of one tenant.

Every change of a tenant's registry bumps its version in the same transaction, which is what lets caches
(:mod:`chalicelib.store.snapshot`) live for as long as the version stands.
"""

import builtins
import math
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final, Generic, TypeVar

import msgspec
from pynamodb.exceptions import TransactWriteError
from pynamodb.expressions.condition import Condition
from pynamodb.transactions import TransactWrite

from chalicelib.domain.entities import (
    SYSTEM_TENANT,
    Action,
    Definition,
    Environment,
    Identity,
    IntegrationToken,
    Key,
    OwnerType,
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
from chalicelib.domain.quotas import COUNTED, QuotaExceededError, Quotas
from chalicelib.store import journal
from chalicelib.store.blobs import Blobs
from chalicelib.store.models import RegistryRow, Tables, partition
from chalicelib.store.timers import Arm, Disarm, arming, timer_row

D = TypeVar("D", bound=Definition)
T = TypeVar("T")

KINDS: Final[dict[type[Definition], str]] = {
    Tenant: "tenant",
    Pack: "pack",
    Action: "action",
    Trigger: "trigger",
    Sensor: "sensor",
    Rule: "rule",
    Runtime: "runtime",
    Key: "key",
    Identity: "identity",
    PermissionSet: "permission_set",
    Role: "role",
    IntegrationToken: "integration_token",
    Environment: "environment",
    WorkflowDefinition: "workflow",
}
_DECODERS: Final = {type_: msgspec.json.Decoder(type_) for type_ in KINDS}

_ATOMIC: Final = 99  # DynamoDB: 100 items in a transaction, one of them the version
_ATOMIC_BYTES: Final = 3_500_000  # DynamoDB: 4 MB in a transaction
# DynamoDB: 400 KB an item together with its copy in a local index. Bodies beyond this are blobs.
_BODY_BYTES: Final = 150_000
_COUNT_SECONDS: Final = 60.0  # that a count of definitions is good for
_RETRY_SECONDS: Final = 3600  # somebody has to delete something, or be given more
_TRIES: Final = 10  # a busy tenant's writers meet at its version row


class Conflict(Exception):  # noqa: N818  # the name by which the API answers: 409
    """The thing exists already, or somebody else changed it since it was read."""

    def __init__(self, what: str, *, exists: bool) -> None:
        super().__init__(f"{what} exists already" if exists else f"{what} was changed by somebody else")
        self.what = what
        self.exists = exists


def persistently(change: Callable[[], T]) -> T:
    """What ``change`` makes, which reads what it writes: begun again where somebody else wrote in between. Raises
    :class:`Conflict` when that does not end."""
    for _ in range(_TRIES - 1):
        try:
            return change()
        except Conflict:
            time.sleep(random.uniform(0.005, 0.05))  # noqa: S311  # jitter, not a secret
    return change()


@dataclass(frozen=True, slots=True)
class Put:
    """Write ``entity``: with ``new`` it must not exist, else its id and revision must be the stored ones.

    What is stored has the next revision, from 1 on: to change a thing further, read it again.
    """

    entity: Definition
    new: bool = False


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove the thing of this kind (a value of ``KINDS``) and ref; nothing happens when it is not there."""

    kind: str
    ref: str


class Repository(Generic[D]):
    """The things of one kind, of one tenant, with the system's where the method says so. All reads are consistent."""

    def __init__(self, tables: Tables, blobs: Callable[[str], Blobs], tenant: str, type_: type[D]) -> None:
        self._rows = tables.registry
        self._blobs = blobs
        self._tenant = tenant
        self._type = type_
        self._kind = KINDS[type_]

    def get(self, ref: str) -> D | None:
        """The tenant's own thing of that ref."""
        return self._get(self._tenant, ref)

    def find(self, ref: str) -> D | None:
        """The tenant's own, or else the system's."""
        found = self._get(self._tenant, ref)
        if found is None and self._tenant != SYSTEM_TENANT:
            return self._get(SYSTEM_TENANT, ref)
        return found

    def list(self) -> "builtins.list[D]":
        """The tenant's own, by ref."""
        return self._list(self._tenant)

    def visible(self) -> "builtins.list[D]":
        """The tenant's own and the system's, by ref; of two with one ref the tenant's own."""
        if self._tenant == SYSTEM_TENANT:
            return self._list(SYSTEM_TENANT)
        merged = {each.ref: each for each in self._list(SYSTEM_TENANT)}
        merged.update({each.ref: each for each in self._list(self._tenant)})
        return [merged[ref] for ref in sorted(merged)]

    def by_id(self, id_: int, *, own: bool = False) -> D | None:
        """The tenant's own of that id, or else (unless ``own``) the system's."""
        for tenant in dict.fromkeys((self._tenant, self._tenant if own else SYSTEM_TENANT)):
            keys = self._rows.by_id.query(
                partition(tenant, self._kind), range_key_condition=self._rows.id == id_, consistent_read=True
            )
            for key in keys:
                return self._get(tenant, key.sk)
        return None

    def group(self, name: str) -> "builtins.list[D]":
        """The tenant's own of one group (see :func:`group_of`), by ref."""
        rows = self._rows.by_group.query(
            partition(self._tenant, self._kind),
            range_key_condition=self._rows.group == name,
            consistent_read=True,
        )
        return sorted((self._decode(self._tenant, row) for row in rows), key=lambda each: each.ref)

    def count(self) -> int:
        """How many the tenant has of its own. A call for some ten thousand of them."""
        return self._rows.by_id.count(partition(self._tenant, self._kind), consistent_read=True)

    def _get(self, tenant: str, ref: str) -> D | None:
        try:
            row = self._rows.get(partition(tenant, self._kind), ref, consistent_read=True)
        except self._rows.DoesNotExist:
            return None
        return self._decode(tenant, row)

    def _list(self, tenant: str) -> "builtins.list[D]":
        rows = self._rows.query(partition(tenant, self._kind), consistent_read=True)
        return [self._decode(tenant, row) for row in rows]

    def _decode(self, tenant: str, row: RegistryRow) -> D:
        thing = decode(self._type, row, self._blobs(tenant))
        if (kept := journal.current()) is not None:
            kept.was_read(tenant, self._kind, thing)
        return thing


class Registry:
    """All repositories of one tenant, and the only way to change what is in them."""

    def __init__(
        self,
        tables: Tables,
        blobs: Callable[[str], Blobs],
        tenant: str,
        committed: Callable[[str], None],
        quotas: Callable[[str], Quotas] = lambda _: Quotas(),
    ) -> None:
        self.tenant = tenant
        self._quotas = quotas
        self._counts: dict[str, tuple[int, float]] = {}
        self._tables = tables
        self._blobs = blobs(tenant)
        self._committed = committed

        def repository(type_: type[D]) -> Repository[D]:
            return Repository(tables, blobs, tenant, type_)

        self.packs = repository(Pack)
        self.actions = repository(Action)
        self.triggers = repository(Trigger)
        self.sensors = repository(Sensor)
        self.rules = repository(Rule)
        self.runtimes = repository(Runtime)
        self.keys = repository(Key)
        self.identities = repository(Identity)
        self.permission_sets = repository(PermissionSet)
        self.roles = repository(Role)
        self.integration_tokens = repository(IntegrationToken)
        self.tenants = repository(Tenant)
        self.environments = repository(Environment)
        self.workflows = repository(WorkflowDefinition)

    def rules_by_trigger(self, trigger_ref: str) -> list[Rule]:
        """The tenant's rules on a trigger, enabled or not, by ref; costs nothing for rules on others."""
        return self.rules.group(trigger_ref)

    def keys_of(self, owner_type: OwnerType, owner: str | int | None) -> list[Key]:
        """The keys of one owner: a pack's, action's or sensor's ref, an identity's id, None for the system."""
        return self.keys.group(_owner_group(owner_type, owner))

    def commit(self, *changes: Put | Delete | Arm | Disarm) -> None:
        """Make the changes: all or none for up to 99 rows, in order and batch by batch beyond (a trigger with a webhook
        key is two rows). What arms or disarms a timer follows its rule's change, and goes with it. Raises
        :class:`Conflict`, and ``QuotaExceededError`` before anything is changed."""
        self._count(changes)
        try:
            for batch in _batches(self._operations(changes)):
                self._write(batch)
        finally:
            self._committed(self.tenant)
        if (kept := journal.current()) is not None:
            for change in changes:
                if isinstance(change, Put):
                    kept.was_put(self.tenant, KINDS[type(change.entity)], change.entity, new=change.new)
                elif isinstance(change, Delete):
                    kept.was_deleted(self.tenant, change.kind, change.ref)

    def _count(self, changes: Sequence[Put | Delete | Arm | Disarm]) -> None:
        """Hold what is new against the tenant's quotas. Counting costs with what there is, so a count is good for a
        minute, and is made again before anything is refused."""
        if self.tenant == SYSTEM_TENANT:
            return
        new = Counter(KINDS[type(each.entity)] for each in changes if isinstance(each, Put) and each.new)
        for kind, name in COUNTED.items():
            if not new[kind]:
                continue
            limit: int = getattr(self._quotas(self.tenant), name)
            known, at = self._counts.get(kind, (0, -math.inf))
            if known + new[kind] > limit or time.monotonic() - at > _COUNT_SECONDS:
                repository: Repository[Any] = getattr(self, name)
                known, at = repository.count(), time.monotonic()
            if known + new[kind] > limit:
                raise QuotaExceededError(f"The tenant may have {limit} {name}", _RETRY_SECONDS)
            self._counts[kind] = (known + new[kind], at)

    def _operations(self, changes: Iterable[Put | Delete | Arm | Disarm]) -> Iterator[list["_Operation"]]:
        """The rows of each change; a rule's with those of its timer, which follows it."""
        together: list[_Operation] = []
        for change in changes:
            if isinstance(change, Arm | Disarm):
                row, actions = arming(self._tables, self.tenant, change)
                together.append(_Operation(f"timer {change.rule_ref}", row, actions=actions))
                continue
            if together:
                yield together
            together = list(self._put(change) if isinstance(change, Put) else self._deleted(change))
        if together:
            yield together

    def _put(self, change: Put) -> Iterator["_Operation"]:
        yield self._saved(change)
        if isinstance(change.entity, Trigger):
            yield from self._pointers(change.entity.ref, change.entity.webhook_key, new=change.new)
        elif isinstance(change.entity, IntegrationToken) and change.new:
            yield _Operation("integration token", self._token_pointer(change.entity.ref, body=self.tenant))

    def _deleted(self, change: Delete) -> Iterator["_Operation"]:
        yield _Operation(f"{change.kind} {change.ref}", self._row(change.kind, change.ref), deleted=True)
        if change.kind == "trigger":
            yield from self._pointers(change.ref, None, new=False)
        elif change.kind == "integration_token":
            yield _Operation("integration token", self._token_pointer(change.ref), deleted=True)
        elif change.kind == "rule":
            timer = timer_row(self._tables, self.tenant, change.ref)
            yield _Operation(f"timer {change.ref}", timer, deleted=True)

    def _saved(self, change: Put) -> "_Operation":
        entity = change.entity
        kind = KINDS[type(entity)]
        stored = msgspec.structs.replace(entity, revision=1 if change.new else entity.revision + 1)
        body = msgspec.json.encode(stored)
        if len(body) > _BODY_BYTES:
            body = b"@" + self._blobs.put_value(body, "definitions").encode()
        row = self._row(
            kind, entity.ref, id=entity.id, revision=stored.revision, group=group_of(entity), body=body.decode()
        )
        return _Operation(f"{kind} {entity.ref}", row, new=change.new, revision=entity.revision)

    def _pointers(self, trigger_ref: str, key: str | None, *, new: bool) -> Iterator["_Operation"]:
        """What leads from webhook keys to the trigger, brought in line with its new ``key``."""
        before = None if new else self.triggers.get(trigger_ref)
        old = before.webhook_key if before is not None else None
        if old is not None and old != key:
            yield _Operation("webhook key", self._tables.registry(webhook_partition(old), "key"), deleted=True)
        if key is not None and old != key:
            pointer = self._tables.registry(
                webhook_partition(key), "key", body=msgspec.json.encode([self.tenant, trigger_ref]).decode()
            )
            yield _Operation("webhook key", pointer)

    def _token_pointer(self, token_hash: str, **attributes: Any) -> RegistryRow:
        return self._tables.registry(token_partition(token_hash), "key", **attributes)

    def _row(self, kind: str, ref: str, **attributes: Any) -> RegistryRow:
        return self._tables.registry(partition(self.tenant, kind), ref, **attributes)

    def _write(self, batch: Sequence["_Operation"]) -> None:
        deletes = [each for each in batch if each.deleted]
        puts = [each for each in batch if not each.deleted and each.actions is None]
        updates = [each for each in batch if each.actions is not None]
        for left in reversed(range(_TRIES)):
            try:
                with TransactWrite(connection=self._tables.connection) as transaction:
                    for operation in deletes:
                        transaction.delete(operation.row)
                    for operation in puts:
                        transaction.save(operation.row, condition=self._condition(operation))
                    for operation in updates:
                        transaction.update(operation.row, actions=operation.actions or [])
                    transaction.update(self._row("registry", "version"), actions=[self._tables.registry.version.add(1)])
            except TransactWriteError as error:
                codes = [reason.code if reason else None for reason in error.cancellation_reasons]
                for code, operation in zip(codes, [*deletes, *puts], strict=False):
                    if code == "ConditionalCheckFailed":
                        raise Conflict(operation.what, exists=operation.new) from None
                if left == 0 or "TransactionConflict" not in codes:
                    raise
                time.sleep(random.uniform(0.005, 0.1))  # noqa: S311  # jitter, not a secret
            else:
                return

    def _condition(self, operation: "_Operation") -> Condition | None:
        rows = self._tables.registry
        if operation.new:
            return rows.pk.does_not_exist()
        if operation.revision is not None:
            # The id too: it may have been deleted and made anew, with revisions from the start.
            unchanged: Condition = (rows.revision == operation.revision) & (rows.id == operation.row.id)
            return unchanged
        return None


@dataclass(frozen=True, slots=True)
class _Operation:
    """One row of a transaction: ``new`` or a ``revision`` is its condition. With ``actions`` it is an update."""

    what: str
    row: Any
    deleted: bool = False
    new: bool = False
    revision: int | None = None
    actions: list[Any] | None = None


def decode(type_: type[D], row: RegistryRow, blobs: Blobs) -> D:
    """The definition that a row holds."""
    body = row.body or ""
    text = blobs.get(body[1:]) if body.startswith("@") else body.encode()
    decoded: D = _DECODERS[type_].decode(text)  # type: ignore[assignment]  # the table pairs them
    return decoded


def group_of(entity: Definition) -> str | None:
    """What a definition is looked up by besides its ref: a rule's trigger, a key's owner, a token's identity, who an
    identity is elsewhere."""
    if isinstance(entity, Rule):
        return entity.trigger_ref
    if isinstance(entity, IntegrationToken):
        return str(entity.identity)
    if isinstance(entity, Identity):
        return entity.external.key if entity.external else None
    if isinstance(entity, Tenant):
        return "deleting" if entity.deleting else None
    if isinstance(entity, Key):
        owners = {
            "system": None,
            "identity": entity.owner_identity,
            "pack": entity.owner_pack_ref,
            "action": entity.owner_action_ref,
            "sensor": entity.owner_sensor_ref,
        }
        return _owner_group(entity.owner_type, owners[entity.owner_type])
    return None


def token_partition(token_hash: str) -> str:
    """Where the pointer of an integration token stands, which leads to its tenant."""
    return f"#token#{token_hash}"


def _owner_group(owner_type: OwnerType, owner: str | int | None) -> str:
    return f"{owner_type}#{'' if owner is None else owner}"


def webhook_partition(key: str) -> str:
    """Where a webhook key's pointer stands. Only the key's hash is a key of the table: it opens the door."""
    return f"#webhook#{sha256(key.encode()).hexdigest()}"


def _batches(groups: Iterable[list[_Operation]]) -> Iterator[list[_Operation]]:
    batch: list[_Operation] = []
    room = _ATOMIC_BYTES
    for group in groups:
        # A body has its copy in the index.
        size = sum(len(getattr(each.row, "body", None) or "") * 2 + 500 for each in group)
        if batch and (len(batch) + len(group) > _ATOMIC or size > room):
            yield batch
            batch, room = [], _ATOMIC_BYTES
        batch += group
        room -= size
    if batch:
        yield batch
