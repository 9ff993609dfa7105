"""Where things come in: events and executions that somebody asks for, each accepted once per idempotency key."""

from collections.abc import Collection
from typing import Any, Final

import msgspec

from chalicelib.domain import executions
from chalicelib.domain.entities import Action, Event, Execution, Json, Key, Trigger
from chalicelib.flow.rules import request_for
from chalicelib.protocol import EventAccepted
from chalicelib.services import Services
from chalicelib.store.snapshot import Snapshot

SPILL: Final = 200_000  # bytes of a payload beyond which it travels through S3 instead of in the message


class UnknownKeyError(Exception):
    """An execution asked for a key that its tenant does not have, or its executor may not read."""


def accept_event(
    services: Services,
    tenant: str,
    trigger: Trigger,
    *,
    payload: Json,
    config: Json = None,
    source: int | None = None,
    source_ref: str | None = None,
    idempotency_key: str | None = None,
) -> Event:
    """Take in an event of ``trigger``: it is durable when this returns, and its rules are considered soon after.

    The same ``idempotency_key`` for the same trigger within a day gives the first event and starts nothing (README 7).
    """
    store = services.store.tenant(tenant)
    id_ = services.new_id()
    if idempotency_key is not None:
        first = store.idempotency.remember(f"event/{trigger.ref}", idempotency_key, id_)
        if first != id_ and (stored := store.activity.get_event(first)) is not None:
            return stored
        # A first request that died before its message was sent: this one sends it, under the id given out then.
        id_ = first
    event = Event(
        id=id_,
        trigger=trigger.id,
        trigger_ref=trigger.ref,
        created=services.clock(),
        config=config,
        payload=payload,
        source=source,
        source_ref=source_ref,
    )
    encoded = msgspec.json.encode(payload)
    spilled = store.blobs.put(f"events/{id_}", encoded) if len(encoded) > SPILL else None
    services.queues.event_accepted(
        EventAccepted(
            tenant=tenant,
            id=id_,
            trigger_ref=trigger.ref,
            payload=None if spilled else payload,
            payload_blob=spilled,
            config=config,
            source=source,
            source_ref=source_ref,
            registry=services.snapshots.of(tenant).version,
        )
    )
    return event


def request_execution(
    services: Services,
    tenant: str,
    action: Action,
    *,
    parameters: Json,
    keys: Collection[Key] = (),
    idempotency_key: str | None = None,
    **origin: Any,
) -> Execution:
    """Start ``action`` with ``parameters``; ``keys`` are injected by name. ``origin``: see ``executions.begin``.

    Parameters that break the schema give an execution that is ``failed`` from the start (README 6). The same
    ``idempotency_key`` within a day gives the first execution and starts nothing (README 13).
    """
    execution = executions.begin(
        id_=services.new_id(),
        action=action,
        given=parameters,
        now=services.clock(),
        secrets={f"/{_pointer_token(key.name)}": [{"key": key.ref}] for key in keys},
        **origin,
    )
    stored = services.store.tenant(tenant).activity.create_execution(execution, idempotency_key)
    if stored.status == "requested":
        # Also for a repeated request: the first one may have died between its write and its message.
        version = services.snapshots.of(tenant).version
        services.queues.executions_requested([request_for(tenant, stored, version)])
    return stored


def keys_named(snapshot: Snapshot, refs: Collection[str]) -> list[Key]:
    """The keys that ``secrets`` on an execute request names. Raises :class:`UnknownKeyError` for the first unknown."""
    keys = []
    for ref in refs:
        key = snapshot.key(ref)
        if key is None:
            raise UnknownKeyError(f"unknown key: {ref}")
        keys.append(key)
    return keys


def _pointer_token(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")  # RFC 6901
