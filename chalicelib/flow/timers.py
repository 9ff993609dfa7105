"""Timers: armed with their rules, sent out ahead of time by the tick, fired when their messages arrive (design §5).

What happens when is decided in ``domain.timers``; exactly once is kept by ``store.timers``. Here is the way between:

    rule written ──┐                          ┌─► claim, event, enforcement, execution: one transaction
                   ├─► [events], delayed ─────┤
    tick ──────────┘                          └─► dropped: disarmed, changed, claimed before, or too late
"""

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from functools import partial
from typing import Final, TypeVar

from chalicelib.domain import schedules
from chalicelib.domain import timers as core
from chalicelib.domain.entities import Enforcement, Event, Execution, Rule
from chalicelib.domain.schedules import ScheduleError
from chalicelib.domain.timers import Timer
from chalicelib.flow import quotas
from chalicelib.flow.batches import each_or_all
from chalicelib.flow.rules import consider, refused, request_for, sealed
from chalicelib.flow.secrets import read_key_for
from chalicelib.log import logger
from chalicelib.protocol import Firing, TimersDue
from chalicelib.services import Services
from chalicelib.store.registry import Delete, Put
from chalicelib.store.snapshot import Snapshot
from chalicelib.store.timers import TOGETHER, Arm, Disarm, Shot, StoredTimer

T = TypeVar("T")

# SQS delays by whole seconds. A message may come this much early, and waits; or late by the rest of a second.
_EARLY: Final = 0.5
_PATIENCE: Final = 2.0  # seconds that a message is waited for; clocks differ, but not by more
_AT_ONCE: Final = 8  # calls in flight, of a tick that has much to write


def commit(services: Services, tenant: str, *changes: Put | Delete) -> None:
    """``registry.commit`` for changes that may concern rules: their timers are armed and disarmed in the same
    transaction, and what fires within the next minutes is sent out.

    A change that leaves a timer's schedule alone leaves its timer alone; a rule whose trigger is gone has none. Raises
    ``Conflict``, and ``ScheduleError`` for a rule whose timer's parameters describe no schedule.
    """
    opened = services.store.tenant(tenant)
    now = services.clock()
    written = [each for each in changes if isinstance(each, Put) and isinstance(each.entity, Rule)]
    known = opened.timers.read(each.entity.ref for each in written if not each.new)
    complete: list[Put | Delete | Arm | Disarm] = []
    firings: list[Firing] = []
    for change in changes:
        complete.append(change)
        if isinstance(change, Put) and isinstance(change.entity, Rule):
            arming, soon = _arming(services, change.entity, known.get(change.entity.ref), now)
            complete += arming
            firings += soon
    try:
        opened.registry.commit(*complete)
    except Exception:
        # Many changes are made batch by batch, and some may have been.
        armed = {each.timer.version for each in opened.timers.read({each.rule_ref for each in firings}).values()}
        _send_now(services, tenant, [each for each in firings if each.version in armed])
        raise
    _send_now(services, tenant, firings)


def _arming(
    services: Services, rule: Rule, before: StoredTimer | None, now: datetime
) -> tuple[list[Arm | Disarm], list[Firing]]:
    """What becomes of the timer of ``rule``, and what it fires soon."""
    if not (rule.enabled and rule.trigger is not None and schedules.is_timer(rule.trigger_ref)):
        return [] if before is None else [Disarm(rule.ref)], []
    if before is not None and before.armed and _same(before.timer, rule):
        return [], []
    timer, soon = core.arm(
        rule=rule.id,
        rule_ref=rule.ref,
        version=services.new_id(),
        trigger_ref=rule.trigger_ref,
        params=rule.trigger_params,
        missed_runs=rule.missed_run_policy,
        now=now,
    )
    return [Arm(timer)], soon


def _send_now(services: Services, tenant: str, firings: Sequence[Firing]) -> None:
    if firings:
        # The receiver must know the rules as they are now, even if it looked a moment ago.
        _send(services, tenant, firings, registry=services.snapshots.of(tenant).version)


def _same(timer: Timer, rule: Rule) -> bool:
    wanted = (rule.id, rule.trigger_ref, rule.trigger_params, rule.missed_run_policy)
    return (timer.rule, timer.trigger_ref, timer.params, timer.missed_runs) == wanted


def look_at(
    services: Services,
    due: Sequence[tuple[str, StoredTimer]],
    now: datetime,
    pause: Callable[[float], None] = time.sleep,
) -> int:
    """Send out what the timers that are due will fire in the next minutes. Returns how many firings.

    Sending comes first and writing down that it was sent second: whoever dies in between is repeated by the next tick,
    and the claims know the repetition.
    """
    looked: list[tuple[str, Timer, Timer]] = []
    firings: dict[str, list[Firing]] = defaultdict(list)
    for tenant, timer in _read(services, due):
        try:
            after, soon = core.look(timer, now)
        except ScheduleError:
            logger.exception("timer without a schedule", tenant=tenant, rule=timer.rule_ref)
            continue
        looked.append((tenant, timer, after))
        firings[tenant] += soon
    sending = [(tenant, soon) for tenant, soon in firings.items() if soon]
    if sending:
        # Delays count from now, and what fires fires on the second.
        pause(-services.clock().timestamp() % 1)
    for tenant, soon in sending:
        _send(services, tenant, soon)
    _all_of(looked, lambda each: services.store.tenant(each[0]).timers.save(each[1], each[2]))
    return sum(len(soon) for _, soon in sending)


def _read(services: Services, due: Sequence[tuple[str, StoredTimer]]) -> Iterable[tuple[str, Timer]]:
    """The timers as they are. The index tells enough of those that have nothing outstanding, for nobody claims."""
    unsure: dict[str, list[str]] = defaultdict(list)
    for tenant, stored in due:
        if stored.timer.done == stored.timer.sent:
            yield tenant, stored.timer
        else:
            unsure[tenant].append(stored.timer.rule_ref)
    for tenant, refs in unsure.items():
        for stored in services.store.tenant(tenant).timers.read(refs).values():
            if stored.armed:
                yield tenant, stored.timer


def _send(services: Services, tenant: str, firings: Iterable[Firing], registry: int = 0) -> None:
    """Send firings as messages, those of one moment together, each delayed until its time."""
    moments: dict[datetime, list[Firing]] = defaultdict(list)
    for firing in firings:
        moments[firing.at].append(firing)
    messages = [
        TimersDue(tenant=tenant, firings=list(some), registry=registry)
        for at in sorted(moments)
        for some in _chunks(moments[at], TOGETHER)
    ]

    def send(some: Sequence[TimersDue]) -> None:
        now = services.clock()
        services.queues.timers_due([(message, _delay(message.at, now)) for message in some])

    _all_of(list(_chunks(messages, 10)), send)


def _delay(at: datetime, now: datetime) -> int:
    return max(0, math.ceil((at - now).total_seconds() - _EARLY))


def _chunks(things: Sequence[T], size: int) -> Iterable[Sequence[T]]:
    return (things[start : start + size] for start in range(0, len(things), size))


def _all_of(things: Sequence[T], work: Callable[[T], object]) -> None:
    """``work`` on each, several at once where there are many. Raises what one of them raised."""
    if len(things) < _AT_ONCE:
        for each in things:
            work(each)
        return
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for _ in pool.map(work, things):
            pass


def handle(services: Services, messages: Sequence[TimersDue], pause: Callable[[float], None] = time.sleep) -> list[int]:
    """Fire what is due. Returns the positions of the messages to deliver again."""
    by_time: dict[tuple[datetime, str], list[int]] = defaultdict(list)
    for position, message in enumerate(messages):
        by_time[message.at, message.tenant].append(position)
    failed: list[int] = []
    for at, tenant in sorted(by_time):
        now = services.clock()
        early = (at - now).total_seconds()
        if early > _PATIENCE:
            services.queues.timers_due([(messages[position], _delay(at, now)) for position in by_time[at, tenant]])
            continue
        if early > 0:
            pause(early)

        def fire(some: Sequence[int], tenant: str = tenant) -> None:
            _fire(services, tenant, [messages[position] for position in some])

        failed += each_or_all(by_time[at, tenant], fire)
    return failed


def _fire(services: Services, tenant: str, messages: Sequence[TimersDue]) -> None:
    now = services.clock()
    snapshot = services.snapshots.of(tenant, at_least=max(message.registry for message in messages))
    if not services.tenants.is_open(tenant, default=services.settings.default_tenant):
        return  # the rules' policies for missed runs say what becomes of them when the tenant is resumed
    firings = [firing for message in messages for firing in message.firings]
    rules = snapshot.rules_named([firing.rule_ref for firing in firings])
    shots = []
    for firing in firings:
        rule = rules.get(firing.rule_ref)
        if rule is None or not rule.enabled or not schedules.is_timer(rule.trigger_ref):
            continue  # changed since it was sent
        schedule = schedules.parse(rule.trigger_ref, rule.trigger_params)
        if core.is_missed(schedule, rule.missed_run_policy, firing, now):
            logger.warning("timer too late", tenant=tenant, rule=rule.ref, due=schedules.stamp(firing.at))
            continue
        shots.append(Shot(firing, partial(_become, services, snapshot, rule, firing, now)))
    timers = services.store.tenant(tenant).timers
    for some in _apart(shots):
        timers.fire(some, now)
    requested = [
        request_for(tenant, shot.execution, snapshot.version)
        for shot in shots
        if shot.execution is not None and shot.execution.status == "requested"
    ]
    if requested:
        services.queues.executions_requested(requested)


def _apart(shots: Sequence[Shot]) -> Iterable[list[Shot]]:
    """The shots in transactions, none of which has a timer twice (DynamoDB takes no two writes to one row)."""
    left = list(shots)
    while left:
        some: dict[str, Shot] = {}
        later = []
        for shot in left:
            if len(some) < TOGETHER and shot.firing.rule_ref not in some:
                some[shot.firing.rule_ref] = shot
            else:
                later.append(shot)
        yield list(some.values())
        left = later


def _become(
    services: Services, snapshot: Snapshot, rule: Rule, firing: Firing, now: datetime, id_: int
) -> tuple[Event, Enforcement | None, Execution | None]:
    """The event of a firing under that id, bound to its rule, and what the rule makes of it."""
    schedule = schedules.parse(rule.trigger_ref, rule.trigger_params)
    event = Event(
        id=id_,
        trigger=rule.trigger,
        trigger_ref=rule.trigger_ref,
        created=now,
        payload=schedule.payload(firing.at, now, firing.count),
        source_ref=schedules.SENSOR_REFS[rule.trigger_ref],
        rule=rule.id,
        rule_ref=rule.ref,
    )
    result = consider(
        snapshot, event, rule, now=now, read_key=partial(read_key_for, services, snapshot, rule.owner_identity)
    )
    if (
        result.enforcement is not None
        and result.execution is not None
        and not quotas.has_room(services, snapshot.tenant, 1)
    ):
        return event, refused(result.enforcement, quotas.FULL), None
    return event, result.enforcement, sealed(services, snapshot, result.execution)


def schedule_of(services: Services, tenant: str, rule: Rule, count: int) -> list[datetime]:
    """The next ``count`` moments at which the rule's timer fires; for a rule that is not armed, those it would have if
    it were armed now."""
    now = services.clock()
    stored = services.store.tenant(tenant).timers.get(rule.ref)
    if stored is not None and stored.armed:
        return core.upcoming(stored.timer, now, count)
    schedule = schedules.parse(rule.trigger_ref, rule.trigger_params)
    anchor = now.replace(microsecond=0) + timedelta(seconds=1)
    return schedules.fires(schedule, anchor, after=now, limit=count)
