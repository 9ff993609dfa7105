"""Environments: the libraries that packs ask for, built once in the execution plane (docs/decisions/007).

    pack arrives ──► row `pending` ──► executions queue ──► claim ──► runner: installs, uploads
                          ▲                                              │ results queue
                          └── lost: once again ── `ready` | `failed` ◄───┘

The row moves by conditional writes; whoever holds an outdated message finds that there is nothing to do. Every build
under way has a message waiting for its deadline, so that none is pending for ever.
"""

import contextlib
import secrets
import sys
import sysconfig
from collections.abc import Iterable
from datetime import timedelta
from typing import Any, Final

import msgspec

from chalicelib.domain.dependencies import FILES, RUNTIMES, environment_ref
from chalicelib.domain.entities import SYSTEM_TENANT, Action, Environment, LibraryRuntime, Pack, Sensor
from chalicelib.domain.executions import MAX_ATTEMPTS
from chalicelib.flow.queues import MAX_DELAY
from chalicelib.flow.tokens import token_hash
from chalicelib.log import logger
from chalicelib.protocol import Build, EnvironmentBuilt, EnvironmentRequested, Upload
from chalicelib.protocol import Pack as Archive
from chalicelib.services import Services
from chalicelib.store.registry import Conflict, Put, Registry
from chalicelib.store.snapshot import Snapshot

BUILD_SECONDS: Final = 600
MAX_ARCHIVE: Final = 128 * 1024 * 1024  # bytes of an environment's tar.gz
LONGEST_LOG: Final = 4000  # characters
LOST: Final = "the build was lost: its runner died or went silent"

_GRACE: Final = timedelta(seconds=60)  # a cold start, the upload, and the way of the report
_UPLOAD_SECONDS: Final = 900
_FIRST_LOOK, _LAST_LOOK = 1, 15  # seconds between two looks at an environment that is being built


class EnvironmentFailedError(Exception):
    """The libraries of a pack could not be installed; the message says why."""


class EnvironmentPendingError(Exception):
    """The libraries are being installed. ``delay``: seconds after which to look again."""

    def __init__(self, delay: int) -> None:
        super().__init__("being built")
        self.delay = delay


def ref_for(runtime: LibraryRuntime, manifest: str) -> str:
    """The ref of the environment for a manifest's digest. Both planes run the same Python on the same architecture
    (``infra/template.py``), so that our own platform names the runner's."""
    version = f"{sys.version_info[0]}.{sys.version_info[1]}-" if runtime == "python" else ""
    return environment_ref(runtime, manifest, version + sysconfig.get_platform())


def of_pack(registry: Registry, pack: Pack) -> list[Environment]:
    """The environments of ``pack``, as far as they have been asked for. ``registry`` is that of the pack's tenant."""
    found = [registry.environments.get(ref_for(runtime, digest)) for runtime, digest in pack.manifests.items()]
    return [environment for environment in found if environment is not None]


def ensure(services: Services, tenant: str, pack: Pack) -> None:
    """Have what ``pack`` asks for built, unless it is there. One that failed is tried anew: a pack that arrives is a
    reason to. May be repeated."""
    registry = services.store.tenant(tenant).registry
    for runtime, digest in pack.manifests.items():
        environment = registry.environments.get(ref_for(runtime, digest))
        if environment is not None and environment.state == "ready":
            continue
        put = None
        if environment is None:
            put = Put(_new(services, runtime, digest, pack.ref, pack.content or ""), new=True)
        elif environment.state == "failed":
            put = Put(_anew(services, environment))
        if put is not None:
            with contextlib.suppress(Conflict):  # somebody else has done it just now
                registry.commit(put)
        request(services, tenant, [ref_for(runtime, digest)])


def request(services: Services, tenant: str, refs: Iterable[str], *, delay: int = 0) -> None:
    """Have the executor see to environments, after ``delay`` seconds (at most 900)."""
    for ref in refs:
        services.queues.environment_requested(EnvironmentRequested(tenant=tenant, ref=ref), delay=delay)


def libraries_for(services: Services, snapshot: Snapshot, action: Action | Sensor) -> Archive | None:
    """The environment that ``action`` runs with; None if its pack asks for none.

    Raises :class:`EnvironmentPendingError` and :class:`EnvironmentFailedError`. One that nobody has asked for yet,
    because the platform's Python has changed since the pack came, is asked for.
    """
    runtime = RUNTIMES.get(action.runtime_ref or "")
    if action.manifest is None or runtime is None:
        return None
    pack = snapshot.pack(action.pack_ref or "")
    standard = pack is not None and pack.is_standard
    owner = SYSTEM_TENANT if standard else snapshot.tenant
    environment = snapshot.environment(ref_for(runtime, action.manifest), standard=standard)
    if environment is None:
        environment = _ask(services, owner, runtime, action)
    if environment.state == "failed":
        said = environment.log or "the installer gave no reason"
        raise EnvironmentFailedError(
            f"the libraries of pack {action.pack_ref} could not be installed from {environment.manifest}: {said}"
        )
    if environment.state == "pending":
        age = (services.clock() - environment.updated).total_seconds()
        raise EnvironmentPendingError(round(min(max(age / 3, _FIRST_LOOK), _LAST_LOOK)))
    url = services.store.tenant(owner).blobs.presigned_get(environment.archive or "")
    return Archive(ref=environment.ref, content=environment.content or "", url=url)


def start(services: Services, message: EnvironmentRequested) -> None:
    """Begin the build, or see what has become of one that was begun."""
    opened = services.store.tenant(message.tenant)
    environment = opened.registry.environments.get(message.ref)
    if environment is None or environment.state != "pending":
        return
    now = services.clock()
    if environment.deadline is not None and now < environment.deadline:
        left = (environment.deadline - now).total_seconds()
        request(services, message.tenant, [message.ref], delay=min(MAX_DELAY, round(left) + 1))
        return
    if environment.attempt >= MAX_ATTEMPTS:
        _change(opened.registry, environment, state="failed", log=LOST, deadline=None, updated=now)
        return
    token = secrets.token_urlsafe(24)
    claimed = _change(
        opened.registry,
        environment,
        attempt=environment.attempt + 1,
        attempt_token=token_hash(token),
        archive=f"environments/{environment.ref}/{token_hash(token)[:16]}.tar.gz",
        deadline=now + timedelta(seconds=BUILD_SECONDS) + _GRACE,
        updated=now,
    )
    if claimed is None:
        return  # somebody else has it
    try:
        services.invoker.build(_build(services, message.tenant, claimed, token))
    except Exception:
        # Undo the claim, so that the redelivered message can make it again.
        _unclaim(services, message.tenant, claimed)
        raise
    request(services, message.tenant, [message.ref], delay=BUILD_SECONDS + round(_GRACE.total_seconds()) + 5)


def take_in(services: Services, built: EnvironmentBuilt) -> None:
    """Bring a build to its end. A report that is not its current attempt's is dropped (design §3)."""
    registry = services.store.tenant(built.tenant).registry
    environment = _current(registry, built.environment, built.attempt, built.token)
    if environment is None:
        logger.warning("report of a build dropped", environment=built.environment, tenant=built.tenant)
        return
    _change(
        registry,
        environment,
        state="ready" if built.ready else "failed",
        content=built.content if built.ready else None,
        size=built.size,
        log=built.log[-LONGEST_LOG:],
        runtime_version=built.runtime_version[:100],
        deadline=None,
        updated=services.clock(),
    )


def lost(services: Services, build: Build) -> None:
    """The runner of a build died: another begins, or it has failed after the last one."""
    registry = services.store.tenant(build.tenant).registry
    environment = _current(registry, build.environment, build.attempt, build.token)
    if environment is not None:
        _change(registry, environment, deadline=None)
        request(services, build.tenant, [build.environment])


def postpone(services: Services, build: Build, *, delay: int) -> None:
    """There was no room for a build: it has not begun, and no attempt is used up."""
    registry = services.store.tenant(build.tenant).registry
    environment = _current(registry, build.environment, build.attempt, build.token)
    if environment is not None:
        _unclaim(services, build.tenant, environment)
        request(services, build.tenant, [build.environment], delay=delay)


def _ask(services: Services, owner: str, runtime: LibraryRuntime, action: Action | Sensor) -> Environment:
    registry = services.store.tenant(owner).registry
    new = _new(services, runtime, action.manifest or "", action.pack_ref or "", action.content or "")
    try:
        registry.commit(Put(new, new=True))
    except Conflict:
        return registry.environments.get(new.ref) or new
    request(services, owner, [new.ref])
    return new


def _new(services: Services, runtime: LibraryRuntime, digest: str, pack_ref: str, content: str) -> Environment:
    now = services.clock()
    return Environment(
        id=services.new_id(),
        created=now,
        updated=now,
        ref=ref_for(runtime, digest),
        runtime=runtime,
        manifest=FILES[runtime],
        pack_ref=pack_ref,
        pack_content=content,
    )


def _anew(services: Services, environment: Environment) -> Environment:
    return msgspec.structs.replace(
        environment, state="pending", attempt=0, attempt_token=None, deadline=None, log="", updated=services.clock()
    )


def _build(services: Services, tenant: str, environment: Environment, token: str) -> Build:
    blobs = services.store.tenant(tenant).blobs
    form = blobs.presigned_post(environment.archive or "", MAX_ARCHIVE, _UPLOAD_SECONDS)
    source = blobs.presigned_get(f"packs/{environment.pack_content}.tar.gz")
    return Build(
        tenant=tenant,
        environment=environment.ref,
        attempt=environment.attempt,
        token=token,
        runtime=environment.runtime,
        manifest=environment.manifest,
        pack=Archive(ref=environment.pack_ref, content=environment.pack_content, url=source),
        upload=Upload(url=form["url"], fields=form["fields"], most=MAX_ARCHIVE),
        timeout=BUILD_SECONDS,
    )


def _current(registry: Registry, ref: str, attempt: int, token: str) -> Environment | None:
    """The environment, if it waits for the report of just this attempt."""
    found = registry.environments.get(ref)
    if found is None or found.state != "pending":
        return None
    return found if (found.attempt, found.attempt_token) == (attempt, token_hash(token)) else None


def _change(registry: Registry, environment: Environment, **fields: Any) -> Environment | None:
    """``environment`` as it is afterwards; None if somebody else was faster."""
    changed = msgspec.structs.replace(environment, **fields)
    try:
        registry.commit(Put(changed))
    except Conflict:
        return None
    return msgspec.structs.replace(changed, revision=changed.revision + 1)


def _unclaim(services: Services, tenant: str, environment: Environment) -> None:
    _change(
        services.store.tenant(tenant).registry,
        environment,
        attempt=environment.attempt - 1,
        attempt_token=None,
        deadline=None,
    )
