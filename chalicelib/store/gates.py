"""Gates: where the executions of a tenant wait that asks for more than its share (docs/decisions/022-fair-queueing.md).

A tenant has a gate only while something of it waits. Behind the gate executions go in the order of their ids: those up
to ``admitted`` may run, the others wait as ``requested``. ``seats`` counts those that were let through it and have not
ended.
"""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from pynamodb.exceptions import DeleteError, UpdateError

from chalicelib.store import rows
from chalicelib.store.models import SEPARATOR, GateRow, Tables, partition

FREE_STARTS: Final = 25  # of a tenant, in a process, before it looks again; fewer where it may run few at once
FREE_FOR: Final = timedelta(seconds=30)  # or after this time
LOOK_EVERY: Final = timedelta(seconds=1)  # at a gate that stands
SEEN_FOR: Final = timedelta(seconds=10)  # that a tenant counts as one that is at work

DUE: Final = "gates"  # all gates of the deployment, in one partition of the index: few are ever there


@dataclass(frozen=True, slots=True)
class Gate:
    """``start``: ids below it never came to the gate. ``waiting`` is as of the last count; ``turned_away`` counts those
    that came and were to wait, so that the gate is not taken away while one of them comes."""

    start: int
    admitted: int
    seats: int
    reason: str
    waiting: int = 0
    turned_away: int = 0


@dataclass(slots=True)
class Known:
    """What a process knows of a tenant: ``left`` starts are free until a time; or there is a gate, as it was when
    somebody ``looked``."""

    left: int
    until: datetime
    gate: Gate | None = None
    looked: datetime | None = None


class KnownGates:
    """What a process knows of the tenants whose executions it starts."""

    def __init__(self) -> None:
        self._known: dict[str, Known] = {}
        self._seen: OrderedDict[str, datetime] = OrderedDict()

    def see(self, tenant: str, now: datetime) -> None:
        """Something of the tenant begins or ends."""
        self._seen[tenant] = now
        self._seen.move_to_end(tenant)
        while next(iter(self._seen.values())) < now - SEEN_FOR:
            self._seen.popitem(last=False)

    def is_alone(self, tenant: str, now: datetime) -> bool:
        """Whether this process has seen nobody else lately."""
        return all(each == tenant or at < now - SEEN_FOR for each, at in self._seen.items())

    def of(self, tenant: str, now: datetime, free: int = FREE_STARTS) -> Known:
        """What is known of the tenant; of a new one, that ``free`` starts are."""
        known = self._known.get(tenant)
        if known is None:
            known = self._known[tenant] = Known(free, now + FREE_FOR)
        return known


class Gates:
    """One tenant's gate."""

    def __init__(self, tables: Tables, tenant: str) -> None:
        self._tables = tables
        self._tenant = tenant

    def get(self) -> Gate | None:
        row = self._row()
        try:
            row.refresh(consistent_read=True)
        except self._tables.gates.DoesNotExist:
            return None
        return _gate_of(row)

    def open(self, start: int, reason: str, now: datetime) -> Gate:
        """The gate that stands, or a new one behind which everything from ``start`` on waits."""
        model, row = self._tables.gates, self._row()
        at = rows.micros(now)
        row.update(
            actions=[
                model.start.set(model.start | start),
                model.admitted.set(model.admitted | (start - 1)),
                model.seats.set(model.seats | 0),
                model.reason.set(reason),
                model.due.set(DUE),
                model.due_at.set(at),
            ]
        )
        return _gate_of(row)

    def give_back(self, count: int) -> Gate | None:
        """Free ``count`` seats; the gate as it then is, None when there is none."""
        model = self._tables.gates
        return self._update([model.seats.add(-count)], model.start.exists())

    def take_seat(self) -> None:
        """Count a seat that is taken by one who did not come through the gate."""
        self._update([self._tables.gates.seats.add(1)], self._tables.gates.start.exists())

    def turn_away(self, id_: int) -> bool:
        """Have the execution wait; False when it need not: the gate is gone, or has admitted it meanwhile."""
        model = self._tables.gates
        return self._update([model.turned_away.add(1)], model.admitted < id_) is not None

    def admit(self, gate: Gate, up_to: int, count: int, reason: str) -> bool:
        """Let ``count`` executions up to the id ``up_to`` through, unless somebody else has admitted meanwhile."""
        model = self._tables.gates
        actions: list[Any] = [model.admitted.set(up_to), model.seats.add(count), model.reason.set(reason)]
        return self._update(actions, model.admitted == gate.admitted) is not None

    def settle(self, gate: Gate, *, seats: int, waiting: int) -> bool:
        """Put right what was counted, unless somebody has admitted meanwhile."""
        model = self._tables.gates
        actions: list[Any] = [model.seats.set(seats), model.waiting.set(waiting)]
        return self._update(actions, model.admitted == gate.admitted) is not None

    def close(self, gate: Gate) -> bool:
        """Take the gate away, unless somebody has been admitted or turned away meanwhile."""
        model = self._tables.gates
        same = model.turned_away == gate.turned_away if gate.turned_away else model.turned_away.does_not_exist()
        try:
            self._row().delete(condition=(model.admitted == gate.admitted) & same)
        except DeleteError as error:
            if error.cause_response_code == "ConditionalCheckFailedException":
                return False
            raise
        return True

    def _row(self) -> GateRow:
        return self._tables.gates(partition(self._tenant, "gate"), 0)

    def _update(self, actions: list[Any], condition: Any) -> Gate | None:
        row = self._row()
        try:
            row.update(actions=actions, condition=condition)
        except UpdateError as error:
            if error.cause_response_code == "ConditionalCheckFailedException":
                return None
            raise
        return _gate_of(row)


def gated(tables: Tables) -> Iterator[str]:
    """The tenants that have a gate. One call for many of them."""
    for row in tables.gates.by_due.query(DUE):
        yield row.pk.partition(SEPARATOR)[0]


def _gate_of(row: GateRow) -> Gate:
    return Gate(
        start=row.start or 0,
        admitted=row.admitted or 0,
        seats=row.seats or 0,
        reason=row.reason or "",
        waiting=row.waiting or 0,
        turned_away=row.turned_away or 0,
    )
