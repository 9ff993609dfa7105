"""Small facts with an end: the answer an idempotency key got, and how often a webhook was hit."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, TypeVar

import msgspec
from pynamodb.exceptions import PutError

from chalicelib.store.models import NoteRow, Tables, fingerprint, partition

T = TypeVar("T")

DAY: Final = 24 * 3600  # seconds an idempotency key is remembered (contract README 13)


class Idempotency:
    """What one tenant's idempotency keys were answered."""

    def __init__(self, tables: Tables, tenant: str) -> None:
        self._rows = tables.notes
        self._tenant = tenant

    def remember(self, scope: str, key: str, answer: T, *, now: datetime | None = None, seconds: int = DAY) -> T:
        """The answer that ``key`` has in ``scope``: ``answer`` when it is the first within ``seconds``, else the
        earlier one. ``answer`` is JSON, and small (an id)."""
        at = int((now or datetime.now(UTC)).timestamp())
        row = self._row(scope, key)
        row.value = msgspec.json.encode(answer).decode()
        row.expires = at + seconds
        # DynamoDB deletes what has expired within two days, not at once.
        fresh = self._rows.pk.does_not_exist() | (self._rows.expires < at)
        try:
            row.save(condition=fresh)
        except PutError as error:
            if error.cause_response_code != "ConditionalCheckFailedException":
                raise
            row.refresh(consistent_read=True)
            first: T = msgspec.json.decode(row.value or "null")
            return first
        return answer

    def recall(self, scope: str, key: str, *, now: datetime | None = None) -> object:
        """The answer that ``key`` had in ``scope``, or None."""
        row = self._row(scope, key)
        try:
            row.refresh(consistent_read=True)
        except self._rows.DoesNotExist:
            return None
        if (row.expires or 0) < (now or datetime.now(UTC)).timestamp():
            return None
        answer: object = msgspec.json.decode(row.value or "null")
        return answer

    def _row(self, scope: str, key: str) -> NoteRow:
        return self._rows(partition(self._tenant, "once", fingerprint(scope, key)), 0)


class Hits:
    """Counts what must not happen too often (semantics §2.4: a webhook's rate limit)."""

    def __init__(self, tables: Tables, tenant: str) -> None:
        self._rows = tables.notes
        self._tenant = tenant

    def hit(self, key: str, source: str, window: int, *, now: datetime | None = None) -> int:
        """Count one hit on ``key`` from ``source``; returns how many there are in the current ``window`` of seconds.
        Windows follow each other, they do not slide."""
        slot = int((now or datetime.now(UTC)).timestamp()) // window
        row = self._rows(self._key(key, source, slot), 0)
        row.update(actions=[self._rows.number.add(1), self._rows.expires.set((slot + 2) * window)])
        return row.number or 0

    def counts(self, pairs: Sequence[tuple[str, str]], window: int, *, now: datetime) -> list[int]:
        """How many hits there are in the current window of each pair of key and source. One call."""
        slot = int(now.timestamp()) // window
        keys = [self._key(key, source, slot) for key, source in pairs]
        found = {row.pk: row.number for row in self._rows.batch_get([(pk, 0) for pk in keys], consistent_read=True)}
        return [found.get(pk) or 0 for pk in keys]

    def forget(self, key: str, source: str, window: int, *, now: datetime) -> None:
        """Begin to count anew."""
        self._rows(self._key(key, source, int(now.timestamp()) // window), 0).delete()

    def _key(self, key: str, source: str, slot: int) -> str:
        return partition(self._tenant, "hits", fingerprint(key, source, str(slot)))
