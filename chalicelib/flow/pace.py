"""How fast a tenant may go: counts by the minute, leased in blocks, so that what is usual makes no call.

A process grants a small part of the limit by itself, and tells of it when that is used up; from then on it takes blocks
from the tenant's count, and nothing any more in that minute once the count says so. So a limit is exact where it is
small, and where it is large each process may exceed it by half a percent (docs/decisions/021-quotas.md).
"""

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from chalicelib.store.opening import Store

REQUESTS: Final = "requests"  # what is asked for at the door
STARTS: Final = "starts"  # what is begun

_UNTOLD: Final = 200  # the part of the limit that a process grants by itself in a minute
_BLOCK: Final = 20  # the part of it that is taken in one call
_LARGEST_BLOCK: Final = 500
_KEPT: Final = 2000  # leases per process


@dataclass(slots=True)
class _Lease:
    minute: int
    free: int  # may be granted without telling
    untold: int = 0  # was
    left: int = 0  # of the last block
    spent: bool = False


class Pace:
    """The leases of one process."""

    def __init__(self, store: "Store") -> None:
        self._store = store
        self._leases: dict[tuple[str, str], _Lease] = {}
        self.stored: dict[str, tuple[int, datetime]] = {}  # bytes of a tenant's, as of when (flow.quotas)

    def take(self, tenant: str, what: str, count: int, limit: int, now: datetime) -> int:
        """How many of ``count`` are within the tenant's ``limit`` of this minute; they are used up."""
        lease = self._lease(tenant, what, limit, now)
        wanted = count
        for source in ("left", "free"):
            taken = min(wanted, getattr(lease, source))
            setattr(lease, source, getattr(lease, source) - taken)
            wanted -= taken
            lease.untold += taken if source == "free" else 0
        if wanted and not lease.spent:
            block = max(wanted, min(limit // _BLOCK, _LARGEST_BLOCK))
            sum_ = self._store.tenant(tenant).usage.add(what, lease.minute, block + lease.untold)
            granted = max(0, min(block, limit - (sum_ - block)))
            lease.untold, lease.spent = 0, granted < block
            taken = min(wanted, granted)
            lease.left = granted - taken
            wanted -= taken
        return count - wanted

    def is_busy(self, tenant: str, what: str, now: datetime) -> bool:
        """Whether this process had to ask for more in this minute."""
        lease = self._leases.get((tenant, what))
        return lease is not None and lease.minute == minute_of(now) and (lease.left > 0 or lease.spent)

    def _lease(self, tenant: str, what: str, limit: int, now: datetime) -> _Lease:
        minute = minute_of(now)
        lease = self._leases.get((tenant, what))
        if lease is None or lease.minute != minute:
            if len(self._leases) >= _KEPT:
                self._leases.clear()
            lease = self._leases[tenant, what] = _Lease(minute, free=limit // _UNTOLD)
        return lease


def minute_of(now: datetime) -> int:
    """The minute, since 1970."""
    return int(now.timestamp()) // 60


def seconds_left(now: datetime) -> int:
    """Until the next minute begins, at least one."""
    return 60 - int(now.timestamp()) % 60
