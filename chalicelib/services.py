"""The composition root: everything a handler needs, built once per process from the environment."""

import os
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache

from chalicelib import clients
from chalicelib.domain.ids import LOW_BITS, Sequence
from chalicelib.flow.invoker import Invoker
from chalicelib.flow.pace import Pace
from chalicelib.flow.queues import Queues
from chalicelib.flow.tasks import Tasks
from chalicelib.security.encryption import Cipher
from chalicelib.security.keyring import Keyring
from chalicelib.security.rates import Rates
from chalicelib.security.tokens import Tokens
from chalicelib.settings import Settings, settings_from
from chalicelib.store.directory import Directory
from chalicelib.store.gates import KnownGates
from chalicelib.store.liveness import Liveness
from chalicelib.store.opening import Store
from chalicelib.store.snapshot import Snapshots


def utc_now() -> datetime:
    """The wall clock. Tests put another one in :class:`Services`."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Services:
    """What the boxes work with. All parts are safe to share within a process."""

    settings: Settings
    store: Store
    snapshots: Snapshots
    tenants: Directory
    liveness: Liveness
    keyring: Keyring
    cipher: Cipher
    tokens: Tokens
    pace: Pace
    gates: KnownGates
    queues: Queues
    invoker: Invoker
    tasks: Tasks | None = None  # None: containers run where the other runs do
    clock: Callable[[], datetime] = utc_now
    ids: Sequence = field(default_factory=lambda: Sequence(secrets.randbits(LOW_BITS)))
    rates: Rates = field(default_factory=Rates)

    def new_id(self) -> int:
        """An id drawn now."""
        return self.ids.draw(int(self.clock().timestamp() * 1000))


@lru_cache(maxsize=1)
def services() -> Services:
    """The services of this process."""
    return open_services(settings_from(os.environ))


def open_services(settings: Settings) -> Services:
    """Services for ``settings``, on whatever AWS the environment names (``AWS_ENDPOINT_URL``)."""
    store = Store(settings.registry_table, settings.activity_table, settings.bucket)
    snapshots = Snapshots(store, time.monotonic)
    tenants = Directory(store, snapshots)
    keyring = Keyring(clients.secretsmanager, settings.secret)
    cipher = Cipher(store, keyring)
    store.on_renewal(cipher.forget)
    store.limit(tenants.quotas)
    return Services(
        settings=settings,
        store=store,
        snapshots=snapshots,
        tenants=tenants,
        liveness=Liveness(store, time.monotonic),
        keyring=keyring,
        cipher=cipher,
        tokens=Tokens(keyring, tenants.born),
        pace=Pace(store),
        gates=KnownGates(),
        queues=Queues(clients.sqs, events_url=settings.events_queue, executions_url=settings.executions_queue),
        invoker=Invoker(clients.lambda_, function=settings.runner_function, isolated=settings.tenant_isolation),
        tasks=Tasks(clients.ecs, settings.tasks) if settings.tasks else None,
    )
