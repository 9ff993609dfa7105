"""What happens: events, enforcements, executions. Each is made once per key, and moves only by conditional write.

Write units of the plain case (rows below 1 KB, indexes included): event 2, enforcement with execution 8, claim 1,
finish 3, so 14 from a webhook to a completed execution (design §9). Nothing but creation and ending touches an index.
"""

import random
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeVar

import msgspec
from pynamodb.exceptions import PutError, TransactWriteError, UpdateError
from pynamodb.transactions import TransactWrite

from chalicelib.domain import ids
from chalicelib.domain.entities import Enforcement, Event, Execution, ExecutionStatus, Json
from chalicelib.domain.executions import TERMINAL, WAITING
from chalicelib.store import rows
from chalicelib.store.blobs import Blobs
from chalicelib.store.idempotency import Idempotency
from chalicelib.store.listing import (
    Cursors,
    EnforcementFilter,
    EventFilter,
    ExecutionFilter,
    Listing,
    Page,
    Slice,
)
from chalicelib.store.models import ActivityRow, EnforcementRow, EventRow, ExecutionRow, Tables, partition

R = TypeVar("R", bound=ActivityRow)

_TRANSACTION_ROWS: Final = 100  # DynamoDB
_TRANSACTION_BYTES: Final = 3_500_000  # DynamoDB: 4 MB
_SALTS: Final = 20  # ids to try before giving up: each collides once in 8192 rows of one millisecond
_CONFLICTS: Final = 8  # tries at rows that another writer is in the middle of writing


class IdsExhaustedError(Exception):
    """Every id that a row could have is taken by a stranger."""


class BusyError(Exception):
    """Somebody else is writing the same rows and takes too long: whoever asked should ask again."""


@dataclass(frozen=True, slots=True)
class Started:
    """An enforcement and its execution as stored, under the id that both have. ``new``: by this very call."""

    enforcement: Enforcement
    execution: Execution | None
    new: bool

    @property
    def id(self) -> int:
        return self.enforcement.id


@dataclass(frozen=True, slots=True)
class Move:
    """An execution's transition, before it is written."""

    row: ExecutionRow
    actions: list[Any]
    condition: Any


Pair = tuple[Enforcement, Execution | None, str]


class Activity:
    """One tenant's activity."""

    def __init__(self, tables: Tables, blobs: Blobs, tenant: str, idempotency: Idempotency, cursors: Cursors) -> None:
        self._tables = tables
        self._blobs = blobs
        self._tenant = tenant
        self._idempotency = idempotency
        self._listing = Listing(tables, tenant, cursors)

    # Making things once

    def record_events(self, events: Sequence[tuple[Event, str]]) -> list[Event]:
        """Store events, each with its idempotency key, and return them as stored.

        An event whose trigger and key are there already is not an error. One that meets a stranger under its id gets
        the next one. A single event is one conditional write; several go in one transaction.
        """
        if len(events) > 1 and len(events) <= _TRANSACTION_ROWS:
            made = [rows.event_row(self._tables, self._tenant, event, key, self.spill) for event, key in events]
            if len({row.id for row in made}) == len(made) and _weight(made) < _TRANSACTION_BYTES and self._insert(made):
                return [event for event, _ in events]
        return [self._record(event, key) for event, key in events]

    def _record(self, event: Event, key: str) -> Event:
        def row_of(id_: int) -> EventRow:
            same = event if id_ == event.id else msgspec.structs.replace(event, id=id_)
            return rows.event_row(self._tables, self._tenant, same, key, self.spill)

        row, _ = self._put_once(row_of, event.id, key)
        return event if row.id == event.id else msgspec.structs.replace(event, id=row.id)

    def create_execution(self, execution: Execution, key: str | None = None) -> Execution:
        """Store an execution that no rule asked for. With an idempotency ``key`` that was used within a day (README
        13), nothing is stored and the first execution comes back as it now is."""
        if key is not None:
            first = self._idempotency.remember("execution", key, execution.id, now=execution.created)
            if first != execution.id:
                stored = self.get_execution(first)
                if stored is not None:
                    return stored
                # The first request died before its write: its id is given out, so this one takes it.
                execution = msgspec.structs.replace(execution, id=first)
        own = key or f"{execution.id} {execution.action_ref} {execution.executor} {execution.created.isoformat()}"

        def row_of(id_: int) -> ExecutionRow:
            same = msgspec.structs.replace(execution, id=id_)
            return rows.execution_row(self._tables, self._tenant, same, own, self.spill)

        row, new = self._put_once(row_of, execution.id, own)
        return msgspec.structs.replace(execution, id=row.id) if new else rows.execution_of(row, self._blobs.get)

    def start(self, pairs: Sequence[Pair]) -> list[Started]:
        """Store enforcements with their executions, both rows of a pair or neither, once per key of the pair.

        The ids are derived from the millisecond of the given ids and the key, and are the same for both. One
        transaction for all; where somebody was here before, pair by pair.
        """
        derived = [_under(pair, _derived(pair[0].id, pair[2], 0)) for pair in pairs]
        started: list[Started] = []
        batch: list[tuple[Pair, list[EnforcementRow | ExecutionRow]]] = []
        room, places = _TRANSACTION_BYTES, _TRANSACTION_ROWS
        for pair in derived:
            made = self._pair_rows(pair)
            if batch and (len(made) > places or _weight(made) > room):
                started += self._start_together(batch)
                batch, room, places = [], _TRANSACTION_BYTES, _TRANSACTION_ROWS
            batch.append((pair, made))
            room -= _weight(made)
            places -= len(made)
        if batch:
            started += self._start_together(batch)
        return started

    def _start_together(self, batch: Sequence[tuple[Pair, list[EnforcementRow | ExecutionRow]]]) -> list[Started]:
        ids_ = {pair[0].id for pair, _ in batch}
        if len(ids_) == len(batch) and self._insert([row for _, made in batch for row in made]):
            return [Started(enforcement, execution, new=True) for (enforcement, execution, _), _ in batch]
        return [self._start_alone(pair) for pair, _ in batch]

    def _start_alone(self, pair: Pair) -> Started:
        at, key = pair[0].id, pair[2]
        for salt in range(_SALTS):
            candidate = _under(pair, _derived(at, key, salt))
            made = self._pair_rows(candidate)
            for _ in range(_CONFLICTS):
                if self._insert(made):
                    return Started(candidate[0], candidate[1], new=True)
                there = _get(self._tables.enforcements, made[0].pk, made[0].id)
                if there is not None and there.key == made[0].key:
                    enforcement = self._enforcement(there)
                    return Started(enforcement, self.get_execution(enforcement.id), new=False)
                if there is not None or self.get_execution(candidate[0].id) is not None:
                    break  # a stranger has the id
                time.sleep(random.uniform(0.002, 0.02))  # noqa: S311  # jitter, not a secret
            else:
                # Moving on to another id now could store the pair twice.
                raise BusyError(f"enforcement {key} is being written by somebody else")
        raise IdsExhaustedError(f"enforcement {key} found no free id")

    def _pair_rows(self, pair: Pair) -> list[EnforcementRow | ExecutionRow]:
        enforcement, execution, key = pair
        made: list[EnforcementRow | ExecutionRow] = [
            rows.enforcement_row(self._tables, self._tenant, enforcement, execution, key, self.spill)
        ]
        if execution is not None:
            made.append(rows.execution_row(self._tables, self._tenant, execution, key, self.spill))
        return made

    def _insert(self, made: Sequence[ActivityRow]) -> bool:
        """Put rows in one transaction, provided that none of them is there; False when one is."""
        try:
            with TransactWrite(connection=self._tables.connection) as transaction:
                for row in made:
                    transaction.save(row, condition=type(row).pk.does_not_exist())
        except TransactWriteError as error:
            codes = {reason.code for reason in error.cancellation_reasons if reason}
            if codes and codes <= {"ConditionalCheckFailed", "TransactionConflict"}:
                return False
            raise
        return True

    def _put_once(self, row_of: Callable[[int], R], first_id: int, key: str) -> tuple[R, bool]:
        """Put the row, under the first id that is free or holds the same row already: (stored row, put just now)."""
        for salt in range(_SALTS):
            row = row_of(first_id if salt == 0 else _derived(first_id, key, salt))
            try:
                row.save(condition=type(row).pk.does_not_exist())
            except PutError as error:
                if error.cause_response_code != "ConditionalCheckFailedException":
                    raise
                there = _get(type(row), row.pk, row.id)
                if there is not None and there.key == row.key:
                    return there, False
            else:
                return row, True
        raise IdsExhaustedError(f"{row.pk} {first_id} found no free id")

    # Reading

    def get_event(self, id_: int) -> Event | None:
        row = _get(self._tables.events, partition(self._tenant, rows.EVENT), id_)
        return None if row is None else rows.event_of(row, self._blobs.get)

    def get_enforcement(self, id_: int) -> Enforcement | None:
        row = _get(self._tables.enforcements, partition(self._tenant, rows.ENFORCEMENT), id_)
        return None if row is None else self._enforcement(row)

    def get_execution(self, id_: int) -> Execution | None:
        row = _get(self._tables.executions, partition(self._tenant, rows.EXECUTION), id_)
        return None if row is None else rows.execution_of(row, self._blobs.get)

    def execution_status(self, id_: int) -> ExecutionStatus | None:
        """The status alone, without what goes with it."""
        model = self._tables.executions
        try:
            row = model.get(partition(self._tenant, rows.EXECUTION), id_, consistent_read=True, attributes_to_get=["s"])
        except model.DoesNotExist:
            return None
        status: ExecutionStatus = row.status  # type: ignore[assignment]  # written by us
        return status

    def open_ids(self, after: int, limit: int) -> list[int]:
        """The first ids beyond ``after`` of executions that have not ended, as the index knows them."""
        model = self._tables.executions
        found = model.by_state.query(
            rows.state_of(self._tenant, "requested") or "", model.id > after, limit=limit, page_size=limit
        )
        return [row.id for row in found]

    def count_open(self, after: int = 0) -> int:
        """How many executions beyond the id ``after`` have not ended. A call for about ten thousand of them."""
        model = self._tables.executions
        return model.by_state.count(rows.state_of(self._tenant, "requested") or "", model.id > after)

    def take_seat(self, id_: int) -> bool:
        """Have a run give back a seat when it ends; False when it has one, or has ended, or is no run of a runner."""
        model = self._tables.executions
        row = model(partition(self._tenant, rows.EXECUTION), id_)
        running = model.status.is_in("running", "canceling") & model.token.exists() & model.seat.does_not_exist()
        return _update(row, [model.seat.set(1)], running)

    def read(self, ids_: Sequence[int]) -> list[Execution]:
        """Those of these executions that there are, by id; a hundred in one consistent call."""
        keys = [(partition(self._tenant, rows.EXECUTION), id_) for id_ in ids_]
        found = self._tables.executions.batch_get(keys, consistent_read=True)
        return sorted((rows.execution_of(row, None) for row in found), key=lambda each: each.id)

    def _enforcement(self, row: EnforcementRow) -> Enforcement:
        enforcement = rows.enforcement_of(row, self._blobs.get)
        if not row.config and enforcement.status == "processed":
            execution = self.get_execution(enforcement.id)
            if execution is not None:
                return msgspec.structs.replace(enforcement, config=execution.config)
        return enforcement

    def events(self, wanted: EventFilter, page: Page) -> Slice[Event]:
        """Events, newest first. Big values are only marked (``rows.BLOB_MARK``), here and in the other lists."""
        return self._listing.events(wanted, page)

    def enforcements(self, wanted: EnforcementFilter, page: Page) -> Slice[Enforcement]:
        """Enforcements, newest first, without the ``config`` that is kept with their execution."""
        return self._listing.enforcements(wanted, page)

    def executions(self, wanted: ExecutionFilter, page: Page) -> Slice[Execution]:
        """Executions, newest first."""
        return self._listing.executions(wanted, page)

    def execution_counts(self) -> dict[ExecutionStatus, int]:
        """How many executions there are in each status."""
        return self._listing.execution_counts()

    # Moving executions on

    def claim(
        self,
        id_: int,
        *,
        token_hash: str,
        deadline: datetime,
        now: datetime,
        from_: Collection[ExecutionStatus] = WAITING,
        seat: bool = False,
    ) -> Execution | None:
        """Begin the next attempt of a waiting execution; None when it does not wait (any more). ``seat``: one that came
        through its tenant's gate."""
        row = self._tables.executions
        actions = [
            row.attempt.add(1),
            row.token.set(token_hash),
            row.deadline.set(rows.micros(deadline)),
            row.started.set(row.started | rows.micros(now)),
            *([row.seat.set(1)] if seat else ()),
        ]
        return self._move(id_, from_, "running", now, actions)

    def finish(
        self,
        id_: int,
        *,
        attempt: int,
        token_hash: str,
        status: ExecutionStatus,
        result: Json,
        now: datetime,
        from_: Collection[ExecutionStatus] = ("running", "canceling"),
        printed: str | None = None,
        timed_out: bool = False,
    ) -> Execution | None:
        """End the execution with what its current attempt reports; None when the report is not that attempt's."""
        return self.transition(
            id_,
            from_=from_,
            to=status,
            now=now,
            result=result,
            attempt=attempt,
            token_hash=token_hash,
            printed=printed,
            timed_out=timed_out,
        )

    def transition(
        self,
        id_: int,
        *,
        from_: Collection[ExecutionStatus],
        to: ExecutionStatus,
        now: datetime,
        result: Json = None,
        attempt: int | None = None,
        token_hash: str | None = None,
        version: int | None = None,
        started_at: datetime | None = None,
        undo_attempt: bool = False,
        workflow_task: Json = None,
        printed: str | None = None,
        timed_out: bool = False,
    ) -> Execution | None:
        """Move an execution ``to`` another status, in one conditional write, and return it as it then is.

        None, and nothing changed, unless it is in one of ``from_`` and its attempt, token and version are those given.
        ``undo_attempt`` takes back a claim that led to no run. A terminal status is never left.
        """
        row = self._tables.executions
        actions = self._changes(to, result=result, started_at=started_at, workflow_task=workflow_task)
        if printed is not None:
            actions.append(row.printed.set(rows.text_of(printed, self.spill)))
        if timed_out:
            actions.append(row.timed_out.set(1))
        if undo_attempt:
            actions.append(row.attempt.add(-1))
        return self._move(id_, from_, to, now, actions, attempt=attempt, token_hash=token_hash, version=version)

    def moving(
        self,
        id_: int,
        *,
        from_: Collection[ExecutionStatus],
        to: ExecutionStatus,
        now: datetime,
        result: Json = None,
        started_at: datetime | None = None,
        workflow_task: Json = None,
        timed_out: bool = False,
    ) -> Move:
        """:meth:`transition` as part of a transaction that somebody else writes."""
        actions = self._changes(to, result=result, started_at=started_at, workflow_task=workflow_task)
        if timed_out:
            actions.append(self._tables.executions.timed_out.set(1))
        return self._moved(id_, from_, to, now, actions)

    def _changes(
        self, to: ExecutionStatus, *, result: Json, started_at: datetime | None, workflow_task: Json
    ) -> list[Any]:
        row = self._tables.executions
        actions: list[Any] = []
        if result is not None:
            actions.append(row.result.set(rows.text_of(result, self.spill)))
        if workflow_task is not None:
            actions.append(row.workflow_task.set(rows.text_of(workflow_task, self.spill)))
        if started_at is not None:
            actions.append(row.started.set(row.started | rows.micros(started_at)))
        if to in TERMINAL:
            state = rows.state_of(self._tenant, to)
            actions += [
                row.state.remove() if state is None else row.state.set(state),
                row.due.remove(),
                row.due_at.remove(),
                row.token.remove(),
                row.deadline.remove(),
            ]
        elif to in WAITING:
            actions += [row.token.remove(), row.deadline.remove()]
        return actions

    def enter(self, id_: int, lane: int) -> Execution | None:
        """Write down in which lane a waiting execution stands (``domain.admission``); None when it does not wait."""
        row = self._tables.executions(partition(self._tenant, rows.EXECUTION), id_)
        model = self._tables.executions
        if not _update(row, [model.lane.set(lane)], model.status.is_in(*WAITING)):
            return None
        return rows.execution_of(row, self._blobs.get)

    def look_again(self, id_: int, when: datetime) -> None:
        """Have the sweeper look at an open execution at ``when`` instead of now; nothing happens to one that ended."""
        row = self._tables.executions(partition(self._tenant, rows.EXECUTION), id_)
        _update(
            row,
            [self._tables.executions.due_at.set(rows.micros(when))],
            self._tables.executions.due.exists(),
        )

    def _move(
        self,
        id_: int,
        from_: Collection[ExecutionStatus],
        to: ExecutionStatus,
        now: datetime,
        actions: list[Any],
        *,
        attempt: int | None = None,
        token_hash: str | None = None,
        version: int | None = None,
    ) -> Execution | None:
        move = self._moved(id_, from_, to, now, actions)
        model, condition = self._tables.executions, move.condition
        if attempt is not None:
            condition &= model.attempt == attempt
        if token_hash is not None:
            condition &= model.token == token_hash
        if version is not None:
            condition &= model.version == version
        return rows.execution_of(move.row, self._blobs.get) if _update(move.row, move.actions, condition) else None

    def _moved(
        self, id_: int, from_: Collection[ExecutionStatus], to: ExecutionStatus, now: datetime, actions: list[Any]
    ) -> Move:
        if not TERMINAL_STATES.isdisjoint(from_):
            raise ValueError(f"nothing leads out of a terminal status: {sorted(from_)}")
        model = self._tables.executions
        moved = [model.status.set(to), model.version.add(1), model.updated.set(rows.micros(now)), *actions]
        return Move(model(partition(self._tenant, rows.EXECUTION), id_), moved, model.status.is_in(*from_))

    def spill(self, content: bytes) -> str:
        """Puts a big value away and names it."""
        return self._blobs.put_value(content)


TERMINAL_STATES: Final = frozenset(TERMINAL)


def _update(row: ActivityRow, actions: list[Any], condition: Any) -> bool:
    """Update ``row`` and fill it with what it then is; False when the condition does not hold."""
    try:
        row.update(actions=actions, condition=condition)
    except UpdateError as error:
        if error.cause_response_code == "ConditionalCheckFailedException":
            return False
        raise
    return True


def _get(model: type[R], pk: str, id_: int) -> R | None:
    try:
        return model.get(pk, id_, consistent_read=True)
    except model.DoesNotExist:
        return None


def _derived(id_: int, key: str, salt: int) -> int:
    return ids.derive(ids.milliseconds_of(id_), key, salt)


def _under(pair: Pair, id_: int) -> Pair:
    """The pair with both its rows under ``id_``."""
    enforcement, execution, key = pair
    if execution is not None:
        execution = msgspec.structs.replace(execution, id=id_, enforcement=id_)
    return msgspec.structs.replace(enforcement, id=id_), execution, key


def _weight(made: Sequence[ActivityRow]) -> int:
    """About how many bytes rows have: their texts, and a generous rest."""
    return sum(
        1000 + sum(len(text) for text in row.attribute_values.values() if isinstance(text, str)) * 2 for row in made
    )
