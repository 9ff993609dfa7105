"""Polling sensors: when they look, and what becomes of what they report (contract: semantics §2.13; issue 4).

Pure. A sensor's *process* is a row and no process at all: it waits, it is claimed for one poll, the poll ends. ``turn``
numbers the polls; a message about any other turn than the current one is outdated, so that no poll ever runs twice.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Final, Literal

import msgspec

from chalicelib.domain.entities import Json, Rule, Sensor
from chalicelib.domain.runtimes import NODE, PYTHON, SHELL

PollInterval = Annotated[float, msgspec.Meta(ge=1, le=31_536_000)]  # seconds

DEFAULT_INTERVAL: Final = 5.0  # seconds; attune-sdk's own
POLL_SECONDS: Final = 60  # what one poll may take
LEASE: Final = timedelta(seconds=POLL_SECONDS + 60)  # after that a poll that said nothing is gone
MAX_BACKOFF: Final = 300.0  # seconds between the polls of a sensor that fails, unless its interval is longer
EARLY: Final = timedelta(seconds=0.6)  # SQS delays whole seconds: a poll may come this much before its time
MAX_DELAY: Final = 900  # SQS: seconds a message can be delayed; what is due later, the tick sends out
SAFETY: Final = timedelta(seconds=30)  # how long after its time somebody looks for a poll whose message was lost
LEAD: Final = timedelta(seconds=120)  # how long before its time the tick sends out a poll that is far away

POLLING: Final = frozenset({PYTHON, SHELL, NODE})  # runtimes of code that can look and report

Phase = Literal["waiting", "running", "stopped"]
Status = Literal["starting", "running", "stopped", "failed", "backoff"]  # semantics: SensorProcessStatus


class Process(msgspec.Struct, kw_only=True, frozen=True):
    """How a sensor is doing for one tenant. ``armed`` is the newest registry version that asked for it: whoever stops
    it must have looked at that one at least. ``look`` is when the tick must see to it, whatever
    became of its messages. ``failures`` counts those in a row, ``failed`` all of them."""

    sensor: int
    ref: str
    phase: Phase
    turn: int
    armed: int = 0
    next_poll: datetime | None = None
    look: datetime | None = None
    token: str | None = None  # hash of the one-time token that the report must carry
    deadline: datetime | None = None
    state: dict[str, Json] | None = None
    polls: int = 0
    failed: int = 0
    failures: int = 0
    active_rules: int = 0
    last_poll_at: datetime | None = None
    last_success_at: datetime | None = None
    last_stopped_at: datetime | None = None
    last_duration_ms: int | None = None
    last_exit_code: int | None = None
    last_error: str | None = None

    @property
    def status(self) -> Status:
        """``backoff``: its last poll failed. ``starting``: it has not been polled yet."""
        if self.phase == "stopped":
            return "stopped"
        if self.failures:
            return "backoff"
        return "running" if self.polls else "starting"


@dataclass(frozen=True, slots=True)
class Report:
    """One event that a sensor prints; ``key`` is its own name for it, under which it happens once a day."""

    trigger_ref: str
    payload: Json
    rule: Rule | None = None
    key: str | None = None


class ReportError(ValueError):
    """An event that the sensor may not report; the message says why."""


def is_polled(sensor: Sensor) -> bool:
    """Whether the platform runs it: its code must be a program. Others, like ``native`` ones, only report by API."""
    return sensor.runtime_ref in POLLING and bool(sensor.entrypoint) and bool(sensor.trigger_refs)


def interval_of(sensor: Sensor) -> float:
    """Seconds between its polls."""
    return sensor.poll_interval or DEFAULT_INTERVAL


def armed(process: Process | None, sensor: Sensor, version: int, now: datetime, *, anew: bool) -> Process:
    """The process now that somebody listens to ``sensor``, as of registry ``version``. One that was stopped, or with
    ``anew`` any that waits, looks at once; its state stays."""
    if process is None:
        fresh = Process(sensor=sensor.id, ref=sensor.ref, phase="waiting", turn=1, armed=version)
        return waiting(fresh, now, now)
    if process.phase == "stopped" or (anew and process.phase == "waiting"):
        again = msgspec.structs.replace(process, turn=process.turn + 1, armed=version, failures=0)
        return waiting(again, now, now)
    return msgspec.structs.replace(process, armed=max(process.armed, version))


def claimed(process: Process, *, token: str, rules: int, now: datetime) -> Process:
    """The process as its poll begins."""
    return msgspec.structs.replace(
        process,
        phase="running",
        token=token,
        deadline=now + LEASE,
        look=now + LEASE,
        active_rules=rules,
        last_poll_at=now,
    )


def waiting(process: Process, next_poll: datetime, now: datetime) -> Process:
    """The process, its current turn due at ``next_poll``: by a message sent now, or by the tick when it is far away."""
    far = (next_poll - now).total_seconds() > MAX_DELAY
    look = next_poll - LEAD if far else next_poll + SAFETY
    return msgspec.structs.replace(process, phase="waiting", token=None, deadline=None, next_poll=next_poll, look=look)


def stopped(process: Process, now: datetime) -> Process:
    """The process once nobody listens."""
    return msgspec.structs.replace(
        process,
        phase="stopped",
        turn=process.turn + 1,
        token=None,
        deadline=None,
        next_poll=None,
        look=None,
        active_rules=0,
        failures=0,
        last_stopped_at=now,
    )


def polled(
    process: Process,
    *,
    interval: float,
    now: datetime,
    error: str | None = None,
    state: dict[str, Json] | None = None,
    wanted: float | None = None,
    duration_ms: int | None = None,
    exit_code: int | None = None,
) -> Process:
    """The process after a poll, waiting for its next turn. A failed one keeps its state and backs off. ``wanted``: in
    how many seconds the sensor itself wants to look again."""
    failures = process.failures + 1 if error is not None else 0
    after = msgspec.structs.replace(
        process,
        turn=process.turn + 1,
        state=process.state if error is not None or state is None else state,
        polls=process.polls + 1,
        failed=process.failed + (error is not None),
        failures=failures,
        last_success_at=process.last_success_at if error is not None else now,
        last_duration_ms=duration_ms,
        last_exit_code=exit_code,
        last_error=error,
    )
    moment = next_poll(process.next_poll, interval=interval, failures=failures, wanted=wanted, now=now)
    return waiting(after, moment, now)


def next_poll(due: datetime | None, *, interval: float, failures: int, wanted: float | None, now: datetime) -> datetime:
    """When a sensor whose poll was ``due`` looks next: an interval after that was, or the next such moment to come, so
    that its rhythm does not drift. After ``failures`` in a row the interval doubles each time."""
    if failures:
        # 2**30 is longer than any cap.
        return now + timedelta(seconds=min(interval * 2 ** min(failures, 30), max(MAX_BACKOFF, interval)))
    if wanted is not None:
        return now + timedelta(seconds=max(1.0, wanted))
    if due is None:
        return now + timedelta(seconds=interval)
    # A poll that came late is not followed at once by the next one.
    passed = max(0.0, (now - due).total_seconds() + interval / 2)
    return due + timedelta(seconds=(passed // interval + 1) * interval)


def delay_until(moment: datetime | None, now: datetime) -> int:
    """The whole seconds to delay a message by, for it to arrive closest to ``moment``."""
    return 0 if moment is None else max(0, math.floor((moment - now).total_seconds() + 0.5))


def document(
    sensor: Sensor, process: Process, rules: Sequence[Rule], keys: Mapping[str, Json], now: datetime
) -> dict[str, Json]:
    """What a sensor is given on standard input (``docs/sensors.md``)."""
    return {
        "sensor": {"id": sensor.id, "ref": sensor.ref, "config": sensor.config or {}},
        "triggers": list(sensor.trigger_refs),
        "rules": [
            {"id": rule.id, "ref": rule.ref, "trigger_ref": rule.trigger_ref, "trigger_params": rule.trigger_params}
            for rule in rules
        ],
        "state": process.state or {},
        "keys": dict(keys),
        "now": now.isoformat().replace("+00:00", "Z"),
    }


def report_of(printed: Json, triggers: Collection[str], rules: Sequence[Rule]) -> Report:
    """The event that a sensor serving ``triggers`` printed, as far as it may. Raises :class:`ReportError`.

    ``rule`` (a ref or an id) binds it to that rule, whose trigger it is then of. Without ``trigger_ref`` it is of the
    sensor's only trigger.
    """
    if not isinstance(printed, dict):
        raise ReportError("an event must be an object with 'payload' and 'trigger_ref'")
    named = printed.get("rule")
    rule = next((each for each in rules if named in (each.ref, each.id)), None) if named is not None else None
    if named is not None and rule is None:
        raise ReportError(f"no enabled rule {named!r} listens to this sensor")
    trigger_ref = printed.get("trigger_ref") or (rule.trigger_ref if rule else None)
    if trigger_ref is None and len(triggers) == 1:
        (trigger_ref,) = triggers
    if not isinstance(trigger_ref, str) or trigger_ref not in triggers:
        raise ReportError(f"trigger_ref {trigger_ref!r} is none of {', '.join(triggers)}")
    if rule is not None and rule.trigger_ref != trigger_ref:
        raise ReportError(f"rule {rule.ref} is not on trigger {trigger_ref}")
    key = printed.get("key")
    if key is not None and not (isinstance(key, str) and 0 < len(key) <= 255):
        raise ReportError("'key' must be a string of at most 255 characters")
    return Report(trigger_ref, printed.get("payload"), rule, key)
