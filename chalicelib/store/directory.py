"""The deployment's tenants: who there is, in what state, and which of two that had one slug.

The system tenant keeps the records, so that all processes learn of a change as they learn of any other of the system's,
within a second. ``default`` and ``system`` are always there, record or not.
"""

from typing import TYPE_CHECKING, Final, Literal

from chalicelib.domain.entities import SYSTEM_TENANT, Tenant
from chalicelib.domain.quotas import Quotas, quotas_of

if TYPE_CHECKING:
    from chalicelib.store.opening import Store
    from chalicelib.store.snapshot import Snapshots

Standing = Literal["active", "suspended", "gone"]

_DEFAULTS: Final = Quotas()


class Directory:
    """What this process knows of tenants."""

    def __init__(self, store: "Store", snapshots: "Snapshots") -> None:
        self._store = store
        self._snapshots = snapshots

    def record(self, tenant: str) -> Tenant | None:
        """The tenant's record, at most a second old; one that was made a moment ago is found at once."""
        if tenant == SYSTEM_TENANT:
            return None
        return self._snapshots.of(tenant).record or self._store.tenant(SYSTEM_TENANT).registry.tenants.get(tenant)

    def standing(self, tenant: str, *, default: str) -> Standing:
        """What ``tenant`` may do now: ``gone`` is one that never was, or is being deleted."""
        record = None if tenant == SYSTEM_TENANT else self._snapshots.of(tenant).record
        if record is None and tenant in (SYSTEM_TENANT, default):
            return "active"
        record = record or self.record(tenant)
        if record is None:
            return "gone"
        if record.deleting:
            return "gone"
        return "suspended" if record.suspended else "active"

    def is_open(self, tenant: str, *, default: str) -> bool:
        """Whether what the tenant's triggers, timers and queues bring is to be taken up."""
        return self.standing(tenant, default=default) == "active"

    def quotas(self, tenant: str) -> Quotas:
        """How much the tenant may take."""
        record = self._snapshots.of(tenant).record
        if record is None:
            return _DEFAULTS
        return quotas_of(record.quotas) if record.quotas else _DEFAULTS

    def born(self, tenant: str) -> int | None:
        """What tells the tenant from an earlier one of the same slug; tokens carry it. None: it has no record."""
        record = self.record(tenant)
        return None if record is None else record.id
