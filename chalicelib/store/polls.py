"""How the sensors of a tenant are doing: one row each, and what its triggers' events were refused for.

A row is written by whoever holds its version; the counters beside it by anybody, at any time.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import msgspec
from pynamodb.exceptions import UpdateError

from chalicelib.domain.sensors import Process
from chalicelib.store import rows
from chalicelib.store.models import SEPARATOR, NoteRow, PollRow, Tables, partition

SENSOR: Final = "sensor"
DUE: Final = "polls"  # all of them in one partition of the index: few are ever due there

_SLACK: Final = 60_000_000  # microseconds by which a look may come late, to spare the index a write per poll
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Process).decode


@dataclass(frozen=True, slots=True)
class Stored:
    """``events`` and ``refused`` count what the sensor has reported, printed or posted."""

    process: Process
    version: int
    events: int = 0
    refused: int = 0
    due_at: int | None = None


class Polls:
    """The processes of one tenant's sensors."""

    def __init__(self, tables: Tables, tenant: str) -> None:
        self._rows = tables.polls
        self._tenant = tenant

    def get(self, sensor_id: int) -> Stored | None:
        """How the sensor is doing; None: nobody has ever asked for it."""
        row = self._row(sensor_id)
        try:
            row.refresh(consistent_read=True)
        except self._rows.DoesNotExist:
            return None
        if "body" not in row.attribute_values:  # nobody has armed it, but it has posted
            return None
        return Stored(_decode(row.body), row.version or 0, row.events or 0, row.refused or 0, row.due_at)

    def put(self, process: Process, before: Stored | None, *, events: int = 0, refused: int = 0) -> bool:
        """Write ``process`` over ``before``, and count. False: somebody else has written meanwhile, nothing is done."""
        model = self._rows
        actions: list[Any] = [model.body.set(_encode(process).decode()), model.version.add(1)]
        actions += [model.events.add(events)] if events else []
        actions += [model.refused.add(refused)] if refused else []
        actions += self._due(process, before)
        condition = model.body.does_not_exist() if before is None else model.version == before.version
        try:
            self._row(process.sensor).update(actions=actions, condition=condition)
        except UpdateError as error:
            if error.cause_response_code != "ConditionalCheckFailedException":
                raise
            return False
        return True

    def count(self, sensor_id: int, *, events: int = 0, refused: int = 0) -> None:
        """Count what the sensor has posted by itself."""
        model = self._rows
        self._row(sensor_id).update(actions=[model.events.add(events), model.refused.add(refused)])

    def delete(self, sensor_id: int) -> None:
        """Forget the sensor."""
        self._row(sensor_id).delete()

    def _due(self, process: Process, before: Stored | None) -> list[Any]:
        model = self._rows
        if process.look is None:
            return [model.due.remove(), model.due_at.remove()]
        at = rows.micros(process.look)
        kept = before.due_at if before is not None else None
        # Of a poll that runs, an earlier look does no harm; hardly any still runs then.
        earliest = 0 if process.phase == "running" else at
        if kept is not None and earliest <= kept <= at + _SLACK:
            return []
        return [model.due.set(DUE), model.due_at.set(at + _SLACK * 3 // 4)]

    def _row(self, sensor_id: int) -> PollRow:
        return self._rows(partition(self._tenant, SENSOR), sensor_id)


class Refusals:
    """What was refused of a tenant's triggers, because it broke their ``out_schema``."""

    def __init__(self, tables: Tables, tenant: str) -> None:
        self._rows = tables.notes
        self._tenant = tenant

    def add(self, trigger_ref: str, reason: str, now: datetime) -> None:
        """Count one event that was refused."""
        last = _encode({"reason": reason[:1000], "at": now}).decode()
        self._row(trigger_ref).update(actions=[self._rows.number.add(1), self._rows.value.set(last)])

    def of(self, trigger_ref: str) -> dict[str, Any] | None:
        """``{"count", "last_at", "last_reason"}``; None: nothing was refused."""
        row = self._row(trigger_ref)
        try:
            row.refresh(consistent_read=True)
        except self._rows.DoesNotExist:
            return None
        last = msgspec.json.decode(row.value or "{}")
        return {"count": row.number or 0, "last_at": last.get("at"), "last_reason": last.get("reason")}

    def _row(self, trigger_ref: str) -> NoteRow:
        return self._rows(partition(self._tenant, "refused", trigger_ref), 0)


def due(tables: Tables, now: datetime, limit: int = 10_000) -> Iterator[tuple[str, int]]:
    """Tenant and id of every sensor that was to be looked at by ``now``, the earliest first."""
    for row in tables.polls.by_due.query(DUE, tables.polls.due_at <= rows.micros(now), limit=limit):
        yield row.pk.partition(SEPARATOR)[0], row.id
