"""The rules box: an event meets the rules of its trigger, and what matches becomes enforcements and executions.

Writes happen in an order that any crash and any redelivery leave consistent: events, then each enforcement with its
execution in one transaction, then the messages to the executor (design §2: side effects come after the commit).
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

import msgspec

from chalicelib.domain import criteria, executions, templates
from chalicelib.domain.criteria import Outcome
from chalicelib.domain.entities import Enforcement, Event, Execution, Json, Rule
from chalicelib.domain.expressions import ExpressionError
from chalicelib.domain.ids import time_of
from chalicelib.domain.parameters import misplaced_secrets
from chalicelib.domain.values import Keystore
from chalicelib.flow import quotas
from chalicelib.flow.batches import each_or_all
from chalicelib.flow.secrets import of_rule, read_key_for, seal
from chalicelib.protocol import EventAccepted, ExecutionRequested
from chalicelib.services import Services
from chalicelib.store.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Consideration:
    """What a rule makes of an event. Without ``enforcement`` nothing happens; without ``execution`` something is wrong,
    and the enforcement says what."""

    outcome: Outcome
    enforcement: Enforcement | None = None
    execution: Execution | None = None


def consider(
    snapshot: Snapshot, event: Event, rule: Rule, *, now: datetime, read_key: Callable[[str], Json]
) -> Consideration:
    """What ``rule`` makes of ``event``; no side effect. ``read_key`` opens a key for a criterion that reads one.

    The ids of the enforcement and its execution are those of the event: the store derives the real ones.
    """
    scope = templates.rule_scope(event, rule, snapshot.pack(rule.pack_ref), now)
    try:
        outcome = criteria.compile_criteria(rule.conditions).evaluate({**scope, "keystore": Keystore(read_key)})
    except criteria.CriteriaError as error:
        outcome = Outcome(matched=False, error=str(error), clauses=[])
    if outcome.error:
        return Consideration(outcome, _enforcement(event, rule, now, error=f"criteria: {outcome.error}"))
    if not outcome.matched:
        return Consideration(outcome)
    action = snapshot.action(rule.action_ref)
    if action is None:
        return Consideration(outcome, _enforcement(event, rule, now, error=f"action {rule.action_ref} does not exist"))
    try:
        rendered = templates.render_with_secrets(rule.action_params, scope, missing="null")
    except ExpressionError as error:
        return Consideration(outcome, _enforcement(event, rule, now, error=f"action_params: {error}"))
    if misplaced := misplaced_secrets(action.param_schema, rendered.secrets):
        return Consideration(outcome, _enforcement(event, rule, now, error=f"action_params: {'; '.join(misplaced)}"))
    for name, sealed in rule.secrets.items():
        rendered.secrets[templates.pointer_to(name)] = [{"sealed": sealed, "of": of_rule(rule)}]
    enforcement = _enforcement(event, rule, now)
    execution = executions.begin(
        id_=enforcement.id,
        action=action,
        given=rendered.value,
        secrets=rendered.secrets,
        now=now,
        enforcement=enforcement.id,
        rule_ref=rule.ref,
        trigger_ref=event.trigger_ref,
        executor=rule.owner_identity,
        permission_set_refs=rule.permission_set_refs,
    )
    return Consideration(outcome, enforcement, execution)


def sealed(services: Services, snapshot: Snapshot, execution: Execution | None) -> Execution | None:
    """``execution`` with its secret parameters sealed (README 11)."""
    action = snapshot.action(execution.action_ref) if execution is not None else None
    if execution is None or action is None:
        return execution
    return seal(services, snapshot.tenant, execution, action)


def _enforcement(event: Event, rule: Rule, now: datetime, error: str | None = None) -> Enforcement:
    return Enforcement(
        id=event.id,
        rule=rule.id,
        rule_ref=rule.ref,
        trigger_ref=event.trigger_ref,
        event=event.id,
        status="disabled" if error else "processed",
        created=now,
        payload=event.payload if isinstance(event.payload, dict) else {},
        conditions=rule.conditions,
        resolved_at=now,
        error=error,
    )


def refused(enforcement: Enforcement, error: str) -> Enforcement:
    """``enforcement`` without an execution, for which ``error`` is the reason."""
    return msgspec.structs.replace(enforcement, status="disabled", error=enforcement.error or error)


def rules_of(snapshot: Snapshot, event: Event) -> list[Rule]:
    """The rules that ``event`` concerns: its own for a timer's, otherwise all enabled ones of its trigger."""
    rules = snapshot.rules_for(event.trigger_ref)
    if event.rule_ref is None:
        return rules
    return [rule for rule in rules if rule.ref == event.rule_ref]


def handle(services: Services, messages: Sequence[EventAccepted]) -> list[int]:
    """Take a batch of accepted events to executions. Returns the positions of the messages to deliver again."""
    by_tenant: dict[str, list[int]] = defaultdict(list)
    for position, message in enumerate(messages):
        by_tenant[message.tenant].append(position)

    def process(positions: Sequence[int]) -> None:
        some = [messages[position] for position in positions]
        _process(services, some[0].tenant, some)

    return [failed for positions in by_tenant.values() for failed in each_or_all(positions, process)]


def _process(services: Services, tenant: str, messages: Sequence[EventAccepted]) -> None:
    now = services.clock()
    snapshot = seen_by_sender(services, tenant, max(messages, key=lambda message: message.registry), now)
    messages = _of_this_tenant(services, tenant, messages)
    if not messages:
        return
    activity = services.store.tenant(tenant).activity
    events = activity.record_events(
        [(_event(services, tenant, snapshot, message), message.key) for message in messages]
    )
    if not services.tenants.is_open(tenant, default=services.settings.default_tenant):
        return  # suspended: what happens is written down, and nothing follows from it
    pairs = []
    for event in events:
        for rule in rules_of(snapshot, event):
            read_key = partial(read_key_for, services, snapshot, rule.owner_identity)
            result = consider(snapshot, event, rule, now=now, read_key=read_key)
            if result.enforcement is not None:
                execution = sealed(services, snapshot, result.execution)
                pairs.append((result.enforcement, execution, f"{rule.id}/{event.id}"))
    if not pairs:
        return
    if not quotas.has_room(services, tenant, len(pairs)):
        pairs = [(refused(enforcement, quotas.FULL), None, key) for enforcement, _, key in pairs]
    started = [one.execution for one in activity.start(pairs) if one.execution is not None]
    requested = [execution for execution in started if execution.status == "requested"]
    if requested:
        services.queues.executions_requested([request_for(tenant, each, snapshot.version) for each in requested])


def _of_this_tenant(services: Services, tenant: str, messages: Sequence[EventAccepted]) -> Sequence[EventAccepted]:
    """The messages without those of an earlier tenant of the same slug; none when the tenant is gone."""
    if services.tenants.standing(tenant, default=services.settings.default_tenant) == "gone":
        return ()
    record = services.tenants.record(tenant) if tenant != services.settings.default_tenant else None
    return messages if record is None else [message for message in messages if message.id >= record.id]


def _event(services: Services, tenant: str, snapshot: Snapshot, message: EventAccepted) -> Event:
    trigger = snapshot.trigger(message.trigger_ref)
    rules = snapshot.rules_for(message.trigger_ref) if message.rule_ref is not None else []
    rule = next((each for each in rules if each.ref == message.rule_ref), None)
    payload = message.payload
    if message.payload_blob is not None:
        payload = msgspec.json.decode(services.store.tenant(tenant).blobs.get(message.payload_blob))
    return Event(
        id=message.id,
        trigger_ref=message.trigger_ref,
        trigger=trigger.id if trigger else None,
        created=time_of(message.id),
        config=message.config,
        payload=payload,
        source=message.source,
        source_ref=message.source_ref,
        rule=rule.id if rule else None,
        rule_ref=message.rule_ref,
    )


def seen_by_sender(
    services: Services, tenant: str, message: EventAccepted | ExecutionRequested, now: datetime
) -> Snapshot:
    """The registry, as new as ``message``'s sender saw it, without a read where our own is that new.

    An id holds the time at which its event or request came in, so the sender looked then or later.
    """
    age = (now - time_of(message.id)).total_seconds()
    return services.snapshots.of(tenant, at_least=message.registry, age=age)


def request_for(tenant: str, execution: Execution, registry: int, *, seat: bool = False) -> ExecutionRequested:
    """The message that asks the executor to run ``execution``. ``seat``: it has been let through its tenant's gate."""
    return ExecutionRequested(
        tenant=tenant,
        id=execution.id,
        action_ref=execution.action_ref,
        timeout=execution.timeout,
        registry=registry,
        seat=seat or execution.seat,
    )
