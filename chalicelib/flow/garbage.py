"""Deleting archives of packs and environments that nothing refers to any more (docs/decisions/015-garbage.md).

    pack replaced or deleted ── row "look at it in 25 hours" ──► tick ── still unreferenced? ──► deleted
                                        ▲                                   │ no
                                        └── let go of again ◄───────────────┘

Runs that have begun may still fetch what their definitions named, and somebody may go back to the version of yesterday:
nothing goes that anybody had a use for within a day.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from itertools import groupby, islice
from operator import itemgetter
from typing import Final

from chalicelib.domain.dependencies import RUNTIMES
from chalicelib.domain.entities import Action, Pack, Sensor
from chalicelib.flow.environments import ref_for
from chalicelib.log import logger
from chalicelib.services import Services
from chalicelib.store.opening import TenantStore
from chalicelib.store.registry import Conflict, Delete, Registry

AGE: Final = timedelta(hours=25)  # that a presigned URL, and a run that it was signed for, never reach
PER_TICK: Final = 100
_ARCHIVES: Final = "packs/"
_ENVIRONMENTS: Final = "environments/"


def leave(services: Services, tenant: str, before: Iterable[Pack | Action | Sensor]) -> None:
    """These definitions have been replaced or deleted: what they referred to is to be looked at. After the commit; what
    is lost here is never looked at, and costs storage."""
    at = services.clock() + AGE
    for name in sorted(_names(before)):
        services.store.tenant(tenant).garbage.leave(name, at)


def collect(services: Services, due: Iterable[tuple[str, str, datetime]], now: datetime) -> int:
    """Delete what is ``due`` (``Store.due``) and nothing refers to. Returns how much was looked at. May be repeated."""
    some = sorted(islice(due, PER_TICK), key=itemgetter(0))
    for tenant, of_tenant in groupby(some, key=itemgetter(0)):
        try:
            _look_at(services.store.tenant(tenant), [(name, at) for _, name, at in of_tenant], now)
        except Exception:  # it stays due, and must not keep that of others
            logger.exception("garbage could not be collected", tenant=tenant)
    return len(some)


def _look_at(opened: TenantStore, due: list[tuple[str, datetime]], now: datetime) -> None:
    used = _used(opened.registry)
    for name, at in due:
        if name.startswith(_ENVIRONMENTS):
            _drop_environment(opened, name, used, now)
        elif name not in used and not _drop_archive(opened, name, now):
            continue  # it has another time now
        opened.garbage.forget(name, at)


def _drop_archive(opened: TenantStore, name: str, now: datetime) -> bool:
    """False for one that has been stored again within a day: whoever did that may be about to refer to it."""
    stored = opened.blobs.modified(name)
    if stored is not None and stored > now - AGE:
        opened.garbage.leave(name, stored + AGE)
        return False
    opened.blobs.delete(name)
    return True


def _drop_environment(opened: TenantStore, name: str, used: set[str], now: datetime) -> None:
    """Of an environment the row goes first. Whoever asks for it in the same moment has it built anew."""
    if name in used:
        return
    ref = name.removeprefix(_ENVIRONMENTS)
    environment = opened.registry.environments.get(ref)
    if environment is None:
        return
    try:
        opened.registry.commit(Delete("environment", ref))
    except Conflict:
        return
    opened.garbage.leave(f"{_ARCHIVES}{environment.pack_content}.tar.gz", now)  # it was built from that
    for blob in opened.blobs.sizes(f"{name}/"):
        opened.blobs.delete(blob)


def _used(registry: Registry) -> set[str]:
    """The names that the tenant's definitions refer to, as of now."""
    used = _names([*registry.packs.list(), *registry.actions.list(), *registry.sensors.list()])
    return used | {f"{_ARCHIVES}{each.pack_content}.tar.gz" for each in registry.environments.list()}


def _names(definitions: Iterable[Pack | Action | Sensor]) -> set[str]:
    names = set()
    for each in definitions:
        if each.content is not None:
            names.add(f"{_ARCHIVES}{each.content}.tar.gz")
        if isinstance(each, Pack):
            names |= {_ENVIRONMENTS + ref_for(runtime, digest) for runtime, digest in each.manifests.items()}
        elif each.manifest is not None and (runtime := RUNTIMES.get(each.runtime_ref or "")) is not None:
            names.add(_ENVIRONMENTS + ref_for(runtime, each.manifest))
    return names
