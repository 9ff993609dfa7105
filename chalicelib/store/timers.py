"""Timers of rules: armed with the rule's own write, found by the tick when due, claimed with the event they become.

A firing happens in one transaction: the timer's row says that it is still armed and that the firing was not claimed,
and takes the claim; the event, the enforcement and its execution come into being. So nothing fires once the write that
disarmed it has returned, and nothing fires twice.
"""

import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import msgspec
from pynamodb.exceptions import TransactWriteError, UpdateError
from pynamodb.transactions import TransactWrite

from chalicelib.domain import ids
from chalicelib.domain.entities import Enforcement, Event, Execution, Json, MissedRuns
from chalicelib.domain.timers import Timer
from chalicelib.protocol import Firing
from chalicelib.store import rows
from chalicelib.store.activity import Activity, IdsExhaustedError
from chalicelib.store.models import Tables, TimerRow, partition

TIMER: Final = "timer"

TOGETHER: Final = 25  # firings in one transaction of at most a hundred rows (DynamoDB), four each
_READ_TOGETHER: Final = 100  # DynamoDB: rows in one BatchGetItem
_TRIES: Final = 20
_SPREAD: Final = 1000  # milliseconds over which the ids of one second's firings are spread


class _Fixed(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """What stays the same within a version of a timer, as the row holds it."""

    rule: int
    ref: str
    trigger: str
    params: Json
    anchor: int
    missed: MissedRuns = "skip"
    reason: str | None = None


_decode_fixed = msgspec.json.Decoder(_Fixed).decode


@dataclass(frozen=True, slots=True)
class Arm:
    """Part of a commit: the rule's timer becomes this one."""

    timer: Timer

    @property
    def rule_ref(self) -> str:
        return self.timer.rule_ref


@dataclass(frozen=True, slots=True)
class Disarm:
    """Part of a commit: the rule's timer, if it has one, fires no more. It still knows when it last fired."""

    rule_ref: str


@dataclass(frozen=True, slots=True)
class StoredTimer:
    """A timer as stored; one that is not ``armed`` only tells what was."""

    timer: Timer
    armed: bool
    last_fired_at: datetime | None = None


@dataclass(slots=True)
class Shot:
    """A firing about to happen. ``make`` gives the event under an id, and what the rule makes of it."""

    firing: Firing
    make: Callable[[int], tuple[Event, Enforcement | None, Execution | None]]
    salt: int = 0
    refused: bool = False  # it is not (or no longer) to fire, or somebody else has fired it
    execution: Execution | None = field(default=None)

    @property
    def key(self) -> str:
        return f"{self.firing.version}/{rows.micros(self.firing.at)}"

    @property
    def event_id(self) -> int:
        """Derived, so that whoever delivers again finds what the first one made."""
        at_ms = rows.micros(self.firing.at) // 1000 + self.firing.version % _SPREAD
        return ids.derive(at_ms, self.key, self.salt)


def timer_row(tables: Tables, tenant: str, rule_ref: str) -> TimerRow:
    """The key of a rule's timer."""
    return tables.timers(partition(tenant, TIMER, rule_ref), 0)


def arming(tables: Tables, tenant: str, change: Arm | Disarm) -> tuple[TimerRow, list[Any]]:
    """The update that makes ``change``."""
    row, model = timer_row(tables, tenant, change.rule_ref), tables.timers
    if isinstance(change, Disarm):
        return row, [model.version.set(0), model.due.remove(), model.due_at.remove()]
    timer = change.timer
    fixed = _Fixed(
        rule=timer.rule,
        ref=timer.rule_ref,
        trigger=timer.trigger_ref,
        params=timer.params,
        anchor=rows.micros(timer.anchor),
        missed=timer.missed_runs,
        reason=timer.reason,
    )
    return row, [
        model.timer.set(msgspec.json.encode(fixed).decode()),
        model.version.set(timer.version),
        model.claimed.remove(),
        *_progress(model, timer),
    ]


def stored_timer(row: TimerRow) -> StoredTimer:
    """What a row, or its copy in the index, says."""
    fixed = _decode_fixed(row.timer or "{}")
    timer = Timer(
        rule=fixed.rule,
        rule_ref=fixed.ref,
        version=row.version or 0,
        trigger_ref=fixed.trigger,
        params=fixed.params,
        missed_runs=fixed.missed,
        anchor=rows.moment(fixed.anchor),
        done=rows.moment(row.done or 0),
        sent=rows.moment(row.sent or 0),
        count=row.number or 0,
        claimed=frozenset(rows.moment(int(each)) for each in row.claimed or ()),
        look=None if row.due_at is None else rows.moment(row.due_at),
        reason=fixed.reason,
    )
    return StoredTimer(timer, bool(row.version), None if row.fired is None else rows.moment(row.fired))


class Timers:
    """One tenant's timers."""

    def __init__(self, tables: Tables, tenant: str, activity: Activity) -> None:
        self._tables = tables
        self._tenant = tenant
        self._activity = activity

    def get(self, rule_ref: str) -> StoredTimer | None:
        """The timer of a rule, if it ever had one."""
        row = timer_row(self._tables, self._tenant, rule_ref)
        try:
            row.refresh(consistent_read=True)
        except self._tables.timers.DoesNotExist:
            return None
        return None if row.timer is None else stored_timer(row)

    def read(self, rule_refs: Iterable[str]) -> dict[str, StoredTimer]:
        """Timers of rules, by ref; a hundred in one call."""
        keys = [(partition(self._tenant, TIMER, ref), 0) for ref in rule_refs]
        found = self._tables.timers.batch_get(keys, consistent_read=True)
        stored = [stored_timer(row) for row in found if row.timer is not None]
        return {each.timer.rule_ref: each for each in stored}

    def save(self, before: Timer, after: Timer) -> bool:
        """Write what a look made of a timer; False when it was changed since it was read."""
        model = self._tables.timers
        row = timer_row(self._tables, self._tenant, before.rule_ref)
        actions = _progress(model, after)
        if settled := before.claimed - after.claimed:
            actions.append(model.claimed.delete({rows.micros(each) for each in settled}))
        unchanged = (
            (model.version == before.version)
            & (model.done == rows.micros(before.done))
            & (model.sent == rows.micros(before.sent))
        )
        try:
            row.update(actions=actions, condition=unchanged)
        except UpdateError as error:
            if error.cause_response_code == "ConditionalCheckFailedException":
                return False
            raise
        return True

    def fire(self, shots: Sequence[Shot], now: datetime) -> None:
        """Claim the firings and store what becomes of them, each with its claim or not at all; a shot says afterwards
        whether it was ``refused``. At most ``TOGETHER`` shots, each of another rule.

        For a refused shot ``execution`` is what the first claim started, if it did: its message may still be missing.
        """
        left = list(shots)
        for _ in range(_TRIES):
            if not left:
                return
            codes = self._write([(shot, self._rows_of(shot)) for shot in left], now)
            if codes is None:
                return
            left = self._sort_out(left, codes)
        raise IdsExhaustedError(f"firings of {self._tenant} found no free ids")

    def _sort_out(self, left: list[Shot], codes: dict[int, list[str]]) -> list[Shot]:
        """What to try again after a transaction failed for the given reasons, by position."""
        if not any("ConditionalCheckFailed" in reasons for reasons in codes.values()):
            time.sleep(random.uniform(0.002, 0.03))  # noqa: S311  # jitter, not a secret
            return left
        again = []
        for position, shot in enumerate(left):
            timer, *made = codes.get(position, [""])
            if timer == "ConditionalCheckFailed":
                shot.refused = True
                shot.execution = self._started(shot)
                continue
            if "ConditionalCheckFailed" in made:
                shot.salt += 1  # a stranger has the id
            again.append(shot)
        return again

    def _started(self, shot: Shot) -> Execution | None:
        shot.salt = 0
        _, enforcement, execution = self._derive(shot)
        if enforcement is None or execution is None:
            return None
        stored = self._activity.get_execution(enforcement.id)
        return stored if stored is not None and stored.rule_ref == shot.firing.rule_ref else None

    def _derive(self, shot: Shot) -> tuple[Event, Enforcement | None, Execution | None]:
        event, enforcement, execution = shot.make(shot.event_id)
        if enforcement is not None:
            id_ = ids.derive(ids.milliseconds_of(event.id), f"{enforcement.rule}/{event.id}", shot.salt)
            enforcement = msgspec.structs.replace(enforcement, id=id_)
            if execution is not None:
                execution = msgspec.structs.replace(execution, id=id_, enforcement=id_)
        return event, enforcement, execution

    def _rows_of(self, shot: Shot) -> list[Any]:
        event, enforcement, execution = self._derive(shot)
        spill = self._activity.spill
        made: list[Any] = [rows.event_row(self._tables, self._tenant, event, shot.key, spill)]
        if enforcement is not None:
            key = f"{enforcement.rule}/{event.id}"
            made.append(rows.enforcement_row(self._tables, self._tenant, enforcement, execution, key, spill))
            if execution is not None:
                made.append(rows.execution_row(self._tables, self._tenant, execution, key, spill))
        shot.execution = execution
        return made

    def _write(self, shots: Sequence[tuple[Shot, list[Any]]], now: datetime) -> dict[int, list[str]] | None:
        """Write all shots, or none: then the reasons of each, its timer's first."""
        try:
            with TransactWrite(connection=self._tables.connection) as transaction:
                # PynamoDB sends saves before updates.
                for _, made in shots:
                    for row in made:
                        transaction.save(row, condition=type(row).pk.does_not_exist())
                for shot, _ in shots:
                    actions, condition = self._claim(shot.firing, now)
                    row = timer_row(self._tables, self._tenant, shot.firing.rule_ref)
                    transaction.update(row, actions=actions, condition=condition)
        except TransactWriteError as error:
            codes = [reason.code if reason else "None" for reason in error.cancellation_reasons]
            if not codes or not set(codes) <= {"None", "ConditionalCheckFailed", "TransactionConflict"}:
                raise
            made_codes, timer_codes = codes[: -len(shots)], codes[-len(shots) :]
            told: dict[int, list[str]] = {}
            for position, (_, made) in enumerate(shots):
                told[position] = [timer_codes[position], *made_codes[: len(made)]]
                del made_codes[: len(made)]
            return told
        return None

    def _claim(self, firing: Firing, now: datetime) -> tuple[list[Any], Any]:
        """``domain.timers.claim`` as an update."""
        model = self._tables.timers
        at = rows.micros(firing.at)
        actions: list[Any] = [model.fired.set(rows.micros(now))]
        if firing.only:
            actions += [model.done.set(at), *_look(model, firing.then, firing.rule_ref)]
        else:
            actions.append(model.claimed.add({at}))
        condition = (model.version == firing.version) & (model.done < at) & ~model.claimed.contains(at)
        return actions, condition


def _progress(model: type[TimerRow], timer: Timer) -> list[Any]:
    return [
        model.done.set(rows.micros(timer.done)),
        model.sent.set(rows.micros(timer.sent)),
        model.number.set(timer.count),
        *_look(model, timer.look, timer.rule_ref),
    ]


def _look(model: type[TimerRow], look: datetime | None, rule_ref: str) -> list[Any]:
    if look is None:
        return [model.due.remove(), model.due_at.remove()]
    shard = rows.due_shard(sum(rule_ref.encode()))
    return [model.due.set(shard), model.due_at.set(rows.micros(look))]
