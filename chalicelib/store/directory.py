"""The deployment's tenants: who there is, in what state, and which of two that had one slug.

The system tenant keeps the records, so that all processes learn of a change as they learn of any other of the system's,
within a second. ``default`` and ``system`` are always there, record or not.
"""

from typing import TYPE_CHECKING, Literal

from chalicelib.domain.entities import SYSTEM_TENANT, Tenant

if TYPE_CHECKING:
    from chalicelib.store.opening import Store
    from chalicelib.store.snapshot import Snapshots

Standing = Literal["active", "suspended", "gone"]


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
        record = self.record(tenant)
        if record is None:
            return "active" if tenant in (SYSTEM_TENANT, default) else "gone"
        if record.deleting:
            return "gone"
        return "suspended" if record.suspended else "active"

    def born(self, tenant: str) -> int | None:
        """What tells the tenant from an earlier one of the same slug; tokens carry it. None: it has no record."""
        record = self.record(tenant)
        return None if record is None else record.id
