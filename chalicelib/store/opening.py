"""The door to the store. Whoever wants a repository says for which tenant; there is no other way to get one."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache, partial
from typing import Final, TypeVar

import msgspec
from pynamodb.exceptions import PutError

from chalicelib.domain.entities import SYSTEM_TENANT, Definition
from chalicelib.store import rows
from chalicelib.store.activity import Activity
from chalicelib.store.blobs import Blobs
from chalicelib.store.idempotency import Hits, Idempotency
from chalicelib.store.listing import Cursors
from chalicelib.store.models import SEPARATOR, NoteRow, Tables, open_tables, partition
from chalicelib.store.registry import KINDS, Registry, decode, webhook_partition

D = TypeVar("D", bound=Definition)

_SWEEP: Final = "#sweep"
_OPEN_TENANTS: Final = 200  # kept per process


@dataclass(frozen=True, slots=True)
class TenantStore:
    """Everything that one tenant has stored."""

    tenant: str
    registry: Registry
    activity: Activity
    blobs: Blobs
    idempotency: Idempotency
    hits: Hits


class SweepCursor:
    """The minute that the sweeper looked at last."""

    def __init__(self, tables: Tables) -> None:
        self._rows = tables.notes

    def get(self) -> datetime | None:
        row = self._row()
        try:
            row.refresh(consistent_read=True)
        except self._rows.DoesNotExist:
            return None
        return datetime.fromtimestamp(row.number or 0, UTC)

    def set(self, minute: datetime) -> None:
        row = self._row()
        row.number = int(minute.timestamp())
        row.save()

    def _row(self) -> NoteRow:
        return self._rows(_SWEEP, 0)


class Store:
    """The tables and the bucket of one deployment."""

    def __init__(self, registry_table: str, activity_table: str, bucket: str) -> None:
        self._tables = open_tables(registry_table, activity_table)
        self._bucket = bucket
        self._cursors = Cursors()
        self._listeners: list[Callable[[str], None]] = []
        self._opened = lru_cache(maxsize=_OPEN_TENANTS)(self._open)

    def tenant(self, tenant: str) -> TenantStore:
        """What ``tenant`` has stored. Raises ValueError for a name that could not be a tenant's slug."""
        if not tenant or SEPARATOR in tenant or "/" in tenant:
            raise ValueError(f"not a tenant: {tenant!r}")
        return self._opened(tenant)

    def _open(self, tenant: str) -> TenantStore:
        blobs = Blobs(self._bucket, tenant)
        idempotency = Idempotency(self._tables, tenant)
        return TenantStore(
            tenant=tenant,
            registry=Registry(self._tables, partial(Blobs, self._bucket), tenant, self._committed),
            activity=Activity(self._tables, blobs, tenant, idempotency, self._cursors),
            blobs=blobs,
            idempotency=idempotency,
            hits=Hits(self._tables, tenant),
        )

    def on_commit(self, listener: Callable[[str], None]) -> None:
        """Have ``listener`` told the tenant whenever this process has changed its registry."""
        self._listeners.append(listener)

    def _committed(self, tenant: str) -> None:
        for listener in self._listeners:
            listener(tenant)

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

    def webhook_target(self, key: str) -> tuple[str, str] | None:
        """Tenant and trigger ref that a webhook key was given out for."""
        try:
            row = self._tables.registry.get(webhook_partition(key), "key", consistent_read=True)
        except self._tables.registry.DoesNotExist:
            return None
        return msgspec.json.decode(row.body or "", type=tuple[str, str])

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

    # For the sweeper

    def due(self, minute: datetime) -> Iterator[tuple[str, int]]:
        """Tenant and id of every execution that is to be looked at in ``minute``."""
        for bucket in rows.due_buckets(minute):
            for row in self._tables.executions.by_due.query(bucket):
                yield row.pk.partition(SEPARATOR)[0], row.id

    def sweep_cursor(self) -> SweepCursor:
        """How far the sweeper has come."""
        return SweepCursor(self._tables)
