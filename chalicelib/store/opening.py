"""The door to the store. Whoever wants a repository says for which tenant; there is no other way to get one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache, partial
from typing import Final, TypeVar

import msgspec
from pynamodb.exceptions import PutError

from chalicelib.domain.entities import SYSTEM_TENANT, Definition
from chalicelib.domain.quotas import Quotas
from chalicelib.domain.refs import tenant_slug
from chalicelib.store import rows
from chalicelib.store.activity import Activity
from chalicelib.store.artifacts import Artifacts
from chalicelib.store.audit import Audit
from chalicelib.store.blobs import Blobs, forget_stored
from chalicelib.store.garbage import Garbage, garbage_name
from chalicelib.store.gates import Gates
from chalicelib.store.gates import gated as gated_tenants
from chalicelib.store.idempotency import Hits, Idempotency
from chalicelib.store.inquiries import Inquiries
from chalicelib.store.lanes import Lanes
from chalicelib.store.listing import Cursors
from chalicelib.store.models import SEPARATOR, open_tables, partition
from chalicelib.store.polls import Polls, Refusals
from chalicelib.store.polls import due as polls_due
from chalicelib.store.registry import KINDS, Registry, decode, token_partition, webhook_partition
from chalicelib.store.removal import Removal
from chalicelib.store.timers import StoredTimer, Timers, stored_timer
from chalicelib.store.token_notes import TokenNotes
from chalicelib.store.usage import Usage
from chalicelib.store.workflows import Workflows

D = TypeVar("D", bound=Definition)

_OPEN_TENANTS: Final = 200  # kept per process


@dataclass(frozen=True, slots=True)
class TenantStore:
    """Everything that one tenant has stored."""

    tenant: str
    registry: Registry
    activity: Activity
    blobs: Blobs
    artifacts: Artifacts
    garbage: Garbage
    idempotency: Idempotency
    hits: Hits
    timers: Timers
    polls: Polls
    workflows: Workflows
    refusals: Refusals
    inquiries: Inquiries
    token_notes: TokenNotes
    removal: Removal
    usage: Usage
    gates: Gates
    lanes: Lanes
    audit: Audit


@dataclass(frozen=True, slots=True)
class Due:
    """What somebody must look at, each with its tenant: ids of executions, timers as the index knows them, and names of
    what may be garbage, with the time since when they are due."""

    executions: list[tuple[str, int]]
    timers: list[tuple[str, StoredTimer]]
    garbage: list[tuple[str, str, datetime]]


class Store:
    """The tables and the bucket of one deployment."""

    def __init__(self, registry_table: str, activity_table: str, bucket: str) -> None:
        self._tables = open_tables(registry_table, activity_table)
        self._bucket = bucket
        self._cursors = Cursors()
        self._listeners: list[Callable[[str], None]] = []
        self._quotas: Callable[[str], Quotas] = lambda _: Quotas()
        self._renewals: list[Callable[[], None]] = [forget_stored]
        self._opened = lru_cache(maxsize=_OPEN_TENANTS)(self._open)

    def tenant(self, tenant: str) -> TenantStore:
        """What ``tenant`` has stored. Raises ValueError for a name that could not be a tenant's slug."""
        return self._opened(tenant)

    def _open(self, tenant: str) -> TenantStore:
        tenant_slug(tenant)
        blobs = Blobs(self._bucket, tenant)
        idempotency = Idempotency(self._tables, tenant)
        activity = Activity(self._tables, blobs, tenant, idempotency, self._cursors)
        return TenantStore(
            tenant=tenant,
            registry=Registry(self._tables, partial(Blobs, self._bucket), tenant, self._committed, self._quotas_of),
            activity=activity,
            blobs=blobs,
            artifacts=Artifacts(self._tables, tenant),
            garbage=Garbage(self._tables, tenant),
            idempotency=idempotency,
            hits=Hits(self._tables, tenant),
            timers=Timers(self._tables, tenant, activity),
            polls=Polls(self._tables, tenant),
            workflows=Workflows(self._tables, blobs, tenant),
            refusals=Refusals(self._tables, tenant),
            inquiries=Inquiries(self._tables, blobs, tenant),
            token_notes=TokenNotes(self._tables, tenant),
            removal=Removal(self._tables, blobs, tenant),
            usage=Usage(self._tables, tenant),
            gates=Gates(self._tables, tenant),
            lanes=Lanes(self._tables, tenant),
            audit=Audit(self._tables, tenant),
        )

    def on_commit(self, listener: Callable[[str], None]) -> None:
        """Have ``listener`` told the tenant whenever this process has changed its registry."""
        self._listeners.append(listener)

    def _committed(self, tenant: str) -> None:
        for listener in self._listeners:
            listener(tenant)

    def limit(self, quotas: Callable[[str], Quotas]) -> None:
        """Hold what tenants define against ``quotas`` from now on, instead of the defaults."""
        self._quotas = quotas

    def _quotas_of(self, tenant: str) -> Quotas:
        return self._quotas(tenant)

    def on_renewal(self, listener: Callable[[], None]) -> None:
        """Have ``listener`` told when tenants may have come or gone: what it remembers by a tenant's slug may be of an
        earlier tenant."""
        self._renewals.append(listener)

    def renew(self) -> None:
        """The system's registry has changed, and with it perhaps the tenants."""
        for listener in self._renewals:
            listener()

    def begin(self, tenant: str, version: int) -> None:
        """Let the registry of a new tenant count its versions from ``version`` on, which no earlier tenant of the slug
        has come to: caches elsewhere may still hold that one's."""
        model = self._tables.registry
        row = model(partition(tenant, "registry"), "version")
        row.update(actions=[model.version.set(model.version | version)])

    # For snapshots

    def versions(self, tenant: str, *, consistent: bool) -> tuple[int, int]:
        """The registry versions of ``tenant`` and of the system, in one call."""
        wanted = {partition(each, "registry"): each for each in (tenant, SYSTEM_TENANT)}
        found = self._tables.registry.batch_get([(pk, "version") for pk in wanted], consistent_read=consistent)
        versions = {wanted[row.pk]: row.version or 0 for row in found}
        return versions.get(tenant, 0), versions.get(SYSTEM_TENANT, 0)

    def definitions(self, type_: type[D], ref: str, tenants: Sequence[str]) -> dict[str, D]:
        """The things of one kind and ref that these tenants have, in one consistent call."""
        wanted = {partition(tenant, KINDS[type_]): tenant for tenant in tenants}
        found = self._tables.registry.batch_get([(pk, ref) for pk in wanted], consistent_read=True)
        return {wanted[row.pk]: decode(type_, row, Blobs(self._bucket, wanted[row.pk])) for row in found}

    def definitions_named(self, type_: type[D], tenant: str, refs: Sequence[str]) -> dict[str, D]:
        """The things of one kind that a tenant has under these refs, a hundred in one consistent call."""
        pk, blobs = partition(tenant, KINDS[type_]), Blobs(self._bucket, tenant)
        found = self._tables.registry.batch_get([(pk, ref) for ref in refs], consistent_read=True)
        return {row.sk: decode(type_, row, blobs) for row in found}

    def webhook_target(self, key: str) -> tuple[str, str] | None:
        """Tenant and trigger ref that a webhook key was given out for."""
        try:
            row = self._tables.registry.get(webhook_partition(key), "key", consistent_read=True)
        except self._tables.registry.DoesNotExist:
            return None
        return msgspec.json.decode(row.body or "", type=tuple[str, str])

    def integration_token_tenant(self, token_hash: str) -> str | None:
        """The tenant that an integration token was made in."""
        try:
            row = self._tables.registry.get(token_partition(token_hash), "key", consistent_read=True)
        except self._tables.registry.DoesNotExist:
            return None
        return row.body

    # For encryption

    def data_key(self, tenant: str, wrapped: str | None = None) -> str | None:
        """The wrapped data key of ``tenant``. With ``wrapped``, this becomes it unless there is one already; the one
        that stands is returned."""
        rows_ = self._tables.registry
        row = rows_(partition(tenant, "datakey"), "current")
        if wrapped is not None:
            row.body = wrapped
            try:
                row.save(condition=rows_.pk.does_not_exist())
            except PutError as error:
                if error.cause_response_code != "ConditionalCheckFailedException":
                    raise
        try:
            row.refresh(consistent_read=True)
        except rows_.DoesNotExist:
            return None
        return row.body

    # For the tick

    def due(self, now: datetime, limit: int = 20_000) -> Due:
        """What was to be looked at by ``now``, the earliest first, at most about ``limit`` rows. As many calls as there
        are shards, however long the platform was down."""
        found = Due([], [], [])
        index = self._tables.timers.by_due
        for shard in range(rows.DUE_SHARDS):
            until = self._tables.timers.due_at <= rows.micros(now)
            for row in index.query(rows.due_shard(shard), until, limit=limit // rows.DUE_SHARDS):
                tenant = row.pk.partition(SEPARATOR)[0]
                if (name := garbage_name(row.pk)) is not None:
                    found.garbage.append((tenant, name, rows.moment(row.due_at or 0)))
                elif row.timer is None:
                    found.executions.append((tenant, row.id))
                else:
                    found.timers.append((tenant, stored_timer(row)))
        return found

    def polls_due(self, now: datetime) -> list[tuple[str, int]]:
        """Tenant and id of every sensor that was to be looked at by ``now``. One call."""
        return list(polls_due(self._tables, now))

    def gated(self) -> list[str]:
        """The tenants that have a gate (``store.gates``). One call."""
        return list(gated_tenants(self._tables))
