"""Tenants: made with their first administrator, suspended and resumed, and deleted with everything in them.

Deleting takes as many ticks as it needs. From its first moment on the tenant is gone for everybody: its tokens, keys
and webhooks open nothing and its work is not taken up, so that nothing grows behind the deletion's back.
"""

import contextlib
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Final

import msgspec

from chalicelib.domain import ids, refs
from chalicelib.domain.entities import SYSTEM_TENANT, Tenant
from chalicelib.flow import gates
from chalicelib.flow.bootstrap import TENANT_ADMINISTRATOR, ensure_administrator
from chalicelib.flow.cancel import NotCancellableError, cancel
from chalicelib.log import logger
from chalicelib.services import Services
from chalicelib.store.registry import Conflict, Delete, Put
from chalicelib.store.removal import Progress

RESERVED: Final = frozenset({SYSTEM_TENANT})
REMOVAL_SECONDS: Final = 15.0  # of one tick
_RUNS_END: Final = timedelta(minutes=16)  # a run lasts for fifteen at most
_LOOKED_AT: Final = 500  # executions
_SETTLED: Final = timedelta(seconds=5)  # by when every process knows that the tenant is gone, and has ended what it did


class ReservedTenantError(Exception):
    """The deployment itself needs this tenant."""


def create(
    services: Services,
    slug: str,
    *,
    login: str,
    password: str,
    label: str = "",
    display_name: str | None = None,
    quotas: Mapping[str, int] | None = None,
    self_registration: bool = False,
) -> Tenant:
    """A new tenant with its first administrator. Raises ``RefError`` and ``Conflict``."""
    refs.tenant_slug(slug)
    refs.login(login)
    if slug in RESERVED or slug == services.settings.default_tenant:
        raise Conflict(f"tenant {slug}", exists=True)
    now = services.clock()
    tenant = Tenant(
        id=services.new_id(),
        ref=slug,
        created=now,
        updated=now,
        label=label or slug,
        quotas=dict(quotas or {}),
        self_registration=self_registration,
    )
    directory = services.store.tenant(SYSTEM_TENANT).registry
    directory.commit(Put(tenant, new=True))
    try:
        services.store.begin(slug, ids.milliseconds_of(tenant.id))
        ensure_administrator(
            services, tenant=slug, login=login, password=password, display_name=display_name, sets=TENANT_ADMINISTRATOR
        )
    except Exception:
        directory.commit(Delete("tenant", slug))  # a tenant that nobody can sign in to
        raise
    return msgspec.structs.replace(tenant, revision=1)


def change(services: Services, tenant: Tenant, **changes: object) -> Tenant:
    """``tenant`` with these fields changed; its work goes by them within a second or two. Raises ``Conflict``."""
    changed = msgspec.structs.replace(tenant, **changes, updated=services.clock())
    services.store.tenant(SYSTEM_TENANT).registry.commit(Put(changed))
    return msgspec.structs.replace(changed, revision=tenant.revision + 1)


def resume(services: Services, tenant: Tenant) -> Tenant:
    """Let a suspended tenant go on; what waited since then, and before, starts by and by."""
    resumed = change(services, tenant, suspended=False)
    gates.hold_up(services, tenant.ref)
    return resumed


def close(services: Services, tenant: Tenant, **changes: object) -> Tenant:
    """The same for changes that the tenant may not survive. Raises :class:`ReservedTenantError`."""
    if tenant.ref in (SYSTEM_TENANT, services.settings.default_tenant):
        raise ReservedTenantError(f"The deployment needs its tenant '{tenant.ref}'")
    return change(services, tenant, **changes)


def remove_some(services: Services, seconds: float = REMOVAL_SECONDS) -> int:
    """Go on with the deletion of tenants, for about so long. Returns how many are gone for good."""
    directory = services.store.tenant(SYSTEM_TENANT).registry
    until = time.monotonic() + seconds
    gone = 0
    for tenant in directory.tenants.group("deleting"):
        if services.clock() - tenant.updated < _SETTLED:
            continue
        try:
            gone += _remove(services, tenant, until)
        except Exception:  # the next tick goes on; the others' must not wait for it
            logger.exception("tenant could not be deleted further", tenant=tenant.ref)
        if time.monotonic() >= until:
            break
    return gone


def _stop_runs(services: Services, tenant: str) -> bool:
    """Cancel what runs; whether something does."""
    activity = services.store.tenant(tenant).activity
    running = [each for each in activity.read(activity.open_ids(0, _LOOKED_AT)) if each.attempt_token is not None]
    for execution in running:
        with contextlib.suppress(NotCancellableError):
            cancel(services, tenant, execution.id)
    return bool(running)


def _remove(services: Services, tenant: Tenant, until: float) -> bool:
    if tenant.purged is None and services.clock() - tenant.updated < _RUNS_END and _stop_runs(services, tenant.ref):
        return False  # a run that goes on would upload its log behind the deletion's back
    directory = services.store.tenant(SYSTEM_TENANT).registry
    before = msgspec.convert(tenant.purged or {}, Progress)
    after = services.store.tenant(tenant.ref).removal.go_on(before, lambda: time.monotonic() >= until)
    if after is not None:
        # ``updated`` stays: it says when the tenant was closed.
        directory.commit(Put(msgspec.structs.replace(tenant, purged=msgspec.to_builtins(after))))
        return False
    directory.commit(Delete("tenant", tenant.ref))
    logger.info("tenant deleted", tenant=tenant.ref)
    return True
