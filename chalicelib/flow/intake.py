"""Where things come in: events and executions that somebody asks for, each accepted once per idempotency key."""

import secrets
from collections.abc import Collection, Sequence
from typing import Any, Final

import msgspec

from chalicelib.domain import executions, ids, parameters
from chalicelib.domain.entities import Action, Event, Execution, Json, Key, Rule, Trigger
from chalicelib.domain.templates import pointer_to
from chalicelib.domain.workflow.state import Again
from chalicelib.flow.rules import request_for
from chalicelib.flow.secrets import seal
from chalicelib.flow.workflows import check_rerun
from chalicelib.protocol import EventAccepted
from chalicelib.services import Services

SPILL: Final = 200_000  # bytes of a payload beyond which it travels through S3 instead of in the message


class PayloadRefusedError(Exception):
    """The payload breaks the trigger's ``out_schema``; ``violations`` says how."""

    def __init__(self, trigger_ref: str, violations: list[str]) -> None:
        super().__init__(f"Payload breaks the schema of trigger '{trigger_ref}': {'; '.join(violations)}")
        self.violations = violations


def check_payload(services: Services, tenant: str, trigger: Trigger, payload: Json) -> None:
    """Raises :class:`PayloadRefusedError`, and counts it, for a payload that ``trigger`` does not let in."""
    if not trigger.out_schema:
        return
    violations = parameters.validate(trigger.out_schema, {} if payload is None else payload)
    if violations:
        refused = PayloadRefusedError(trigger.ref, violations)
        services.store.tenant(tenant).refusals.add(trigger.ref, "; ".join(violations), services.clock())
        raise refused


def accept_event(
    services: Services,
    tenant: str,
    trigger: Trigger,
    *,
    payload: Json,
    rule: Rule | None = None,
    config: Json = None,
    source: int | None = None,
    source_ref: str | None = None,
    idempotency_key: str | None = None,
    derived: tuple[int, str] | None = None,
) -> Event:
    """Take in an event of ``trigger``: it is durable when this returns, and its rules are considered soon after; with
    ``rule``, only that one.

    The same ``idempotency_key`` for the same trigger within a day gives the first event and starts nothing (README 7).
    ``derived``, Unix milliseconds and a key, does the same without a call for a caller that repeats both. Raises
    :class:`PayloadRefusedError`.
    """
    store = services.store.tenant(tenant)
    check_payload(services, tenant, trigger, payload)
    id_ = services.new_id() if derived is None else ids.derive(*derived)
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
        rule=rule.id if rule else None,
        rule_ref=rule.ref if rule else None,
    )
    encoded = msgspec.json.encode(payload)
    spilled = store.blobs.put(f"events/{id_}", encoded) if len(encoded) > SPILL else None
    services.queues.event_accepted(
        EventAccepted(
            tenant=tenant,
            id=id_,
            key=idempotency_key or (derived[1] if derived else secrets.token_hex(12)),
            trigger_ref=trigger.ref,
            payload=None if spilled else payload,
            payload_blob=spilled,
            config=config,
            source=source,
            source_ref=source_ref,
            rule_ref=event.rule_ref,
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
        secrets={pointer_to(key.name): [{"key": key.ref}] for key in keys},
        **origin,
    )
    return _request(services, tenant, seal(services, tenant, execution, action), idempotency_key)


def run_again(
    services: Services,
    tenant: str,
    action: Action,
    before: Execution,
    tasks: Sequence[str],
    *,
    reset: bool,
    executor: int | None,
) -> Execution:
    """Start ``before`` again, which has ended: with the parameters and secrets that it had, as ``executor``.

    With ``tasks`` of a workflow, from these on (``domain.workflow.conductor.begin_again``). Raises
    :class:`~chalicelib.flow.workflows.RerunError`.
    """
    if tasks:
        check_rerun(services, tenant, before.id, tasks)
    execution = executions.begin(
        id_=services.new_id(),
        action=action,
        given=before.config,
        secrets=before.secrets,
        now=services.clock(),
        executor=executor,
        env_vars=before.env_vars,
        timeout=before.timeout,
        permission_set_refs=before.permission_set_refs,
        original_execution=before.id,
        rerun=msgspec.to_builtins(Again(execution=before.id, tasks=list(tasks), reset=reset)) if tasks else None,
    )
    return _request(services, tenant, execution, None)


def _request(services: Services, tenant: str, execution: Execution, idempotency_key: str | None) -> Execution:
    stored = services.store.tenant(tenant).activity.create_execution(execution, idempotency_key)
    if stored.status == "requested":
        # Also for a repeated request: the first one may have died between its write and its message.
        version = services.snapshots.of(tenant).version
        services.queues.executions_requested([request_for(tenant, stored, version)])
    return stored
