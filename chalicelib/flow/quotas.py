"""Quotas at the door: what a tenant asks for beyond them is refused before anything is stored (429).

What comes by timers and rules was let in before; it waits behind the tenant's gate instead (``flow.gates``).
"""

from datetime import datetime, timedelta
from typing import Final

from chalicelib.domain.entities import SYSTEM_TENANT
from chalicelib.domain.quotas import QuotaExceededError
from chalicelib.flow.pace import REQUESTS, seconds_left
from chalicelib.services import Services
from chalicelib.store.gates import FREE_FOR, FREE_STARTS

_LOOK_EVERY: Final = timedelta(seconds=5)  # at the gate of a tenant that is busy
_MEASURED_FOR: Final = timedelta(minutes=1)  # a listing of a tenant's blobs is good for so long
_FULL_RETRY: Final = 60  # seconds
FULL: Final = "quota: the tenant has as many executions waiting as it may"
_STORAGE_RETRY: Final = 3600  # somebody has to delete something, or be given more


def admit(services: Services, tenant: str) -> None:
    """Count a request that may start something. Raises ``QuotaExceededError``."""
    if tenant == SYSTEM_TENANT:
        return
    quotas, now = services.tenants.quotas(tenant), services.clock()
    if not services.pace.take(tenant, REQUESTS, 1, quotas.executions_per_minute, now):
        limit = quotas.executions_per_minute
        raise QuotaExceededError(f"The tenant may ask for {limit} executions a minute", seconds_left(now))
    # Who asks for little has nothing that waits, or not for long.
    if services.pace.is_busy(tenant, REQUESTS, now) and _waiting(services, tenant, now) >= quotas.waiting:
        raise QuotaExceededError(f"The tenant has {quotas.waiting} executions waiting already", _FULL_RETRY)


def admit_bytes(services: Services, tenant: str, size: int) -> None:
    """Let the tenant store ``size`` bytes more. Raises ``QuotaExceededError``."""
    if tenant == SYSTEM_TENANT:
        return
    limit, now = services.tenants.quotas(tenant).storage, services.clock()
    known = services.pace.stored.get(tenant)
    if known is None or now - known[1] > _MEASURED_FOR or known[0] + size > limit:
        known = (sum(services.store.tenant(tenant).blobs.sizes("").values()), now)
    if known[0] + size > limit:
        raise QuotaExceededError(f"The tenant may store {limit} bytes", _STORAGE_RETRY)
    services.pace.stored[tenant] = (known[0] + size, known[1])


def has_room(services: Services, tenant: str, count: int) -> bool:
    """Whether ``count`` executions may be put behind those that wait. Looked up now and then, so about so many."""
    if tenant == SYSTEM_TENANT:
        return True
    now = services.clock()
    known = services.gates.of(tenant, now)
    known.left -= count
    if known.gate is None and known.left > 0 and now < known.until:
        return True
    known.left, known.until = FREE_STARTS, now + FREE_FOR
    return _waiting(services, tenant, now) < services.tenants.quotas(tenant).waiting


def _waiting(services: Services, tenant: str, now: datetime) -> int:
    known = services.gates.of(tenant, now)
    if known.looked is None or now - known.looked >= _LOOK_EVERY:
        known.gate, known.looked = services.store.tenant(tenant).gates.get(), now
    return known.gate.waiting if known.gate is not None else 0
