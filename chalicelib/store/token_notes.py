"""What tokens leave behind while they are used: how far a family of refresh tokens has come, and when an integration
token was used last. Notes, not definitions: a write here leaves the registry's version, and so every cache, as it is.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
from pynamodb.exceptions import UpdateError

from chalicelib.store.models import NoteRow, Tables, partition

GRACE: Final = timedelta(seconds=10)  # two tabs that refresh at once (docs/decisions/017-tokens.md)
USE_STEP: Final = timedelta(minutes=1)  # a use is written down once in it

_REVOKED: Final = -1  # as a generation


class RevokedError(Exception):
    """The family of a refresh token is over."""


class ReusedError(RevokedError):
    """The refresh token was used before, by its owner or by a thief: its family is over from now on."""


@dataclass(frozen=True, slots=True)
class Use:
    """The last use of an integration token, to the minute."""

    at: datetime
    ip: str | None


class TokenNotes:
    """The notes on one tenant's tokens."""

    def __init__(self, tables: Tables, tenant: str) -> None:
        self._rows = tables.notes
        self._tenant = tenant

    def rotate(self, family: str, generation: int, *, now: datetime, life: timedelta) -> int:
        """Use up refresh token number ``generation`` of ``family``; returns the number of the next, which lives for
        ``life``. Raises :class:`RevokedError`, and :class:`ReusedError` when this is what ends the family.

        A family has no note before its first rotation: signing in writes nothing. The token just used up gets the same
        successor once more within :data:`GRACE`.
        """
        model, row = self._rows, self._family(family)
        untouched = model.number.does_not_exist() if generation == 0 else model.number == generation
        try:
            row.update(
                actions=[
                    model.number.set(generation + 1),
                    model.value.set(now.isoformat()),
                    model.expires.set(_seconds(now + life)),
                ],
                condition=untouched,
            )
        except UpdateError as error:
            if error.cause_response_code != "ConditionalCheckFailedException":
                raise
            return self._again(family, generation, now, life)
        return generation + 1

    def _again(self, family: str, generation: int, now: datetime, life: timedelta) -> int:
        row = self._family(family)
        try:
            row.refresh(consistent_read=True)
        except self._rows.DoesNotExist:
            raise RevokedError(family) from None  # a note outlives all tokens that it is about
        if row.number == _REVOKED:
            raise RevokedError(family)
        if row.number == generation + 1 and now - datetime.fromisoformat(row.value or "") <= GRACE:
            return generation + 1
        self.revoke(family, now=now, life=life)
        raise ReusedError(family)

    def revoke(self, family: str, *, now: datetime, life: timedelta) -> None:
        """End a family: none of its refresh tokens, which live for ``life`` at most, opens anything any more."""
        model = self._rows
        actions: list[Any] = [model.number.set(_REVOKED), model.expires.set(_seconds(now + life))]
        self._family(family).update(actions=actions)

    def used(self, token_id: int, *, now: datetime, ip: str | None) -> None:
        """Note a use of an integration token, unless one was noted within :data:`USE_STEP`."""
        model = self._rows
        note = msgspec.json.encode([now, ip]).decode()
        due = model.number.does_not_exist() | (model.number <= _seconds(now - USE_STEP))
        try:
            self._use(token_id).update(
                actions=[model.number.set(_seconds(now)), model.value.set(note)],
                condition=due,
            )
        except UpdateError as error:
            if error.cause_response_code != "ConditionalCheckFailedException":
                raise

    def uses(self, token_ids: Iterable[int]) -> dict[int, Use]:
        """The last uses of those of these integration tokens that were ever used."""
        named = {self._use(id_).pk: id_ for id_ in token_ids}
        found = self._rows.batch_get([(pk, 0) for pk in named], consistent_read=True) if named else ()
        return {named[row.pk]: Use(*_use_of(row.value or "")) for row in found}

    def forget(self, token_id: int) -> None:
        """Forget when a token was used that is no more."""
        self._use(token_id).delete()

    def _family(self, family: str) -> NoteRow:
        return self._rows(partition(self._tenant, "refresh", family), 0)

    def _use(self, token_id: int) -> NoteRow:
        return self._rows(partition(self._tenant, "used", token_id), 0)


_use_of: Final = msgspec.json.Decoder(tuple[datetime, str | None]).decode


def _seconds(moment: datetime) -> int:
    return int(moment.astimezone(UTC).timestamp())
