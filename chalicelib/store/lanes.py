"""Lanes: who holds the slots of an action's concurrency policy, and who waits for one (``domain.admission``).

A lane's row, under its number in the partition of its action, holds the ids of those who hold a slot; it is there only
while there are any. Each who waits has a row of its own in the lane's queue: a partition in the order of ids.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

import msgspec
from pynamodb.exceptions import DeleteError, PutError

from chalicelib.domain.admission import BATCH, Holders
from chalicelib.store import rows
from chalicelib.store.models import Tables, partition

FORGOTTEN: Final = timedelta(days=30)  # a place in a queue that nobody asks for any more


class Lanes:
    """One tenant's lanes. All reads are consistent."""

    def __init__(self, tables: Tables, tenant: str) -> None:
        self._notes = tables.notes
        self._tenant = tenant

    def of_action(self, action_ref: str) -> list[int]:
        """The numbers of an action's lanes that are in use."""
        return [row.id for row in self._notes.query(partition(self._tenant, "lanes", action_ref), consistent_read=True)]

    def holders(self, action_ref: str, lane: int) -> Holders:
        try:
            row = self._notes.get(partition(self._tenant, "lanes", action_ref), lane, consistent_read=True)
        except self._notes.DoesNotExist:
            return {}
        return {id_: rows.moment(until) for id_, until in _decode(row.value or "[]")}

    def swap(self, action_ref: str, lane: int, old: Holders, new: Holders) -> bool:
        """Let ``new`` hold the slots, provided that it is ``old`` who do."""
        row = self._notes(partition(self._tenant, "lanes", action_ref), lane)
        unchanged = self._notes.value == _encode(old) if old else self._notes.pk.does_not_exist()
        try:
            if new:
                row.value = _encode(new)
                row.save(condition=unchanged)
            elif old:
                row.delete(condition=unchanged)
        except (PutError, DeleteError) as error:
            if error.cause_response_code != "ConditionalCheckFailedException":
                raise
            return False
        return True

    def queue(self, action_ref: str, lane: int) -> list[int]:
        """The ids of the first who wait, in order."""
        found = self._notes.query(self._queue(action_ref, lane), consistent_read=True, limit=BATCH, page_size=BATCH)
        return [row.id for row in found]

    def enqueue(self, action_ref: str, lane: int, id_: int, now: datetime) -> None:
        expires = int((now + FORGOTTEN).timestamp())
        self._notes(self._queue(action_ref, lane), id_, expires=expires).save()

    def dequeue(self, action_ref: str, lane: int, ids: Sequence[int]) -> None:
        """Nothing happens to those who do not wait."""
        if len(ids) == 1:
            self._notes(self._queue(action_ref, lane), ids[0]).delete()
            return
        with self._notes.batch_write() as batch:
            for id_ in ids:
                batch.delete(self._notes(self._queue(action_ref, lane), id_))

    def _queue(self, action_ref: str, lane: int) -> str:
        return partition(self._tenant, "queue", action_ref, lane)


def _encode(holders: Holders) -> str:
    """The same text for the same holders: what is compared is the text. Times are microseconds."""
    return msgspec.json.encode(sorted((id_, rows.micros(until)) for id_, until in holders.items())).decode()


_decode = msgspec.json.Decoder(list[tuple[int, int]]).decode
