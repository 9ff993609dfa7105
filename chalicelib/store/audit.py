"""A tenant's audit records: stored once, read often, and neither changed nor deleted by anything here.

They stand in the order of their ids, which is that of time, in a partition of their own; the index by subject finds
those of one request. The starts of executions are merged in from the rows of the executions, by the same order.
"""

import heapq
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, Final

import msgspec
from pynamodb.exceptions import PutError

from chalicelib.domain.audit import AuditEvent, Wanted, of_execution
from chalicelib.domain.ids import EPOCH_MS, LOW_BITS, MAX_ID
from chalicelib.store import rows
from chalicelib.store.models import Tables, partition

AUDIT: Final = "audit"

_TRIES: Final = 20  # at the ids of a millisecond that others write in
_AT_ONCE: Final = 500  # rows of one query
_BATCH: Final = 100  # DynamoDB: keys of one BatchGetItem
_SLACK: Final = timedelta(minutes=15)  # an execution's id has the time of what it came of, its row was made later

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(AuditEvent).decode

Logins = Callable[[int], str | None]


class Audit:
    """The records of one tenant."""

    def __init__(self, tables: Tables, tenant: str) -> None:
        self._tables = tables
        self._tenant = tenant

    def append(self, event: AuditEvent, *, expires: datetime | None = None) -> AuditEvent:
        """Store a record: one write. It gets the next free id when a stranger's has its own."""
        model = self._tables.audit
        for _ in range(_TRIES):
            row = model(partition(self._tenant, AUDIT), event.id)
            if event.request_id is not None:
                row.subject = partition(self._tenant, AUDIT, event.request_id)
            row.body = _encode(event).decode()
            row.expires = None if expires is None else int(expires.timestamp())
            try:
                row.save(condition=model.pk.does_not_exist())
            except PutError as error:
                if error.cause_response_code != "ConditionalCheckFailedException":
                    raise
                event = msgspec.structs.replace(event, id=event.id + 1)
            else:
                return event
        raise LookupError("no free id for an audit record")

    def get(self, id_: int, logins: Logins) -> AuditEvent | None:
        """The record of that id: a stored one, or the start of the execution of that id."""
        for row in self._tables.audit.batch_get([(partition(self._tenant, AUDIT), id_)], consistent_read=True):
            return _decode(row.body or "")
        executions = self._tables.executions.batch_get([(partition(self._tenant, rows.EXECUTION), id_)])
        return next((_started(row, logins) for row in executions), None)

    def of_request(self, request_id: str) -> list[AuditEvent]:
        """The records of one request, the newest first."""
        pk = partition(self._tenant, AUDIT)
        subject = partition(self._tenant, AUDIT, request_id)
        found = self._tables.audit.by_subject.query(subject, scan_index_forward=False, limit=_BATCH)
        there = {row.id: row for row in self._tables.audit.batch_get([(pk, row.id) for row in found])}
        return [_decode(there[id_].body or "") for id_ in sorted(there, reverse=True)]

    def find(self, wanted: Wanted, logins: Logins, *, offset: int, limit: int) -> tuple[list[AuditEvent], bool]:
        """The records that are wanted, newest first: ``limit`` of them after the first ``offset``, and whether there
        are more."""
        matching = islice(self._matching(wanted, logins, newest_first=True), offset, offset + limit + 1)
        found = list(matching)
        return found[:limit], len(found) > limit

    def count(self, wanted: Wanted, logins: Logins) -> int:
        """How many records are wanted; reads them all."""
        return sum(1 for _ in self._matching(wanted, logins, newest_first=True))

    def since(self, wanted: Wanted, logins: Logins, *, after: int) -> Iterator[AuditEvent]:
        """The records that are wanted with ids above ``after``, oldest first."""
        return self._matching(wanted, logins, newest_first=False, after=after)

    def _matching(self, wanted: Wanted, logins: Logins, *, newest_first: bool, after: int = -1) -> Iterator[AuditEvent]:
        streams: list[Iterator[AuditEvent]] = []
        if wanted.stored:
            low, high = _bounds(wanted, timedelta(seconds=5))
            stored = self._rows(self._tables.audit, AUDIT, max(low, after + 1), high, newest_first=newest_first)
            streams.append(_decode(row.body or "") for row in stored)
        if wanted.executions:
            low, high = _bounds(wanted, _SLACK)
            started = self._rows(
                self._tables.executions, rows.EXECUTION, max(low, after + 1), high, newest_first=newest_first
            )
            streams.append(_started(row, logins) for row in started)
        merged = heapq.merge(*streams, key=lambda event: event.id, reverse=newest_first)
        return filter(wanted.matches, merged)

    def _rows(self, model: Any, kind: str, low: int, high: int, *, newest_first: bool) -> Iterator[Any]:
        if low > high:
            return iter(())
        names = None if kind == AUDIT else _OF_A_START
        found: Iterator[Any] = model.query(
            partition(self._tenant, kind),
            model.id.between(low, high),
            scan_index_forward=not newest_first,
            page_size=_AT_ONCE,
            attributes_to_get=names,
        )
        return found


# What a record of a start is made of; results and logs stay where they are.
_OF_A_START: Final = ["pk", "id", "su", "s", "c", "x", "e", "rr", "tr", "pa", "b"]


def _started(row: Any, logins: Logins) -> AuditEvent:
    execution = rows.execution_of(row, None)
    login = None if execution.executor is None else logins(execution.executor)
    return of_execution(execution, login)


def _bounds(wanted: Wanted, slack: timedelta) -> tuple[int, int]:
    """The ids between which everything wanted lies."""
    low, high = 0, MAX_ID
    if wanted.created_after is not None:
        low = _id_at(wanted.created_after, -slack)
    if wanted.created_before is not None:
        high = _id_at(wanted.created_before, slack)
    return low, high


def _id_at(moment: datetime, slack: timedelta) -> int:
    at_ms = int((moment.timestamp() + slack.total_seconds()) * 1000)
    return min(max(at_ms - EPOCH_MS, 0) << LOW_BITS, MAX_ID)
