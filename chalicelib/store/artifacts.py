"""What the executions of one workflow run have left for each other: which archives there are, in which order.

One row per workflow run that has any. Many conductors add to it at once, so that what is new is a set, to which adding
needs to know nothing of what is there; now and then what is in it becomes one archive, the row's base.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

import msgspec
from pynamodb.exceptions import UpdateError

from chalicelib.store import rows
from chalicelib.store.models import NoteRow, Tables, partition

_ENTRY: Final = "{:017d}/{:d}/{}"  # sorts by time


class Archive(msgspec.Struct, frozen=True, order=True):
    """One archive: when it came, in microseconds, its bytes, and the blob's name within the run's folder."""

    at: int
    size: int
    name: str


class Manifest(msgspec.Struct, frozen=True):
    """Archives in the order in which they are to be unpacked: ``base``, and what has come since."""

    base: Archive | None = None
    recent: tuple[Archive, ...] = ()
    written: int = 0  # bytes of all archives that ever came

    @property
    def archives(self) -> list[Archive]:
        return [*([self.base] if self.base else []), *self.recent]


class Artifacts:
    """The manifests of one tenant. ``root`` is the execution at the top of the workflow run."""

    def __init__(self, tables: Tables, tenant: str) -> None:
        self._rows = tables.notes
        self._tenant = tenant

    def of(self, root: int) -> Manifest:
        """The manifest, empty for a run that has left nothing. One consistent read."""
        row = self._row(root)
        try:
            row.refresh(consistent_read=True)
        except self._rows.DoesNotExist:
            return Manifest()
        return _manifest(row)

    def add(self, root: int, name: str, size: int, *, now: datetime, keep: timedelta) -> Manifest:
        """Put an archive behind those that are there, and keep the manifest for as long as ``keep``."""
        row = self._row(root)
        entry = _ENTRY.format(rows.micros(now), size, name)
        row.update(
            actions=[
                self._rows.names.add({entry}),
                self._rows.number.add(size),
                self._rows.expires.set(int((now + keep).timestamp())),
            ]
        )
        return _manifest(row)

    def merge(self, root: int, base: Archive | None, merged: Sequence[Archive], into: Archive) -> bool:
        """Let the archive ``into`` stand for ``base`` and the recent ones ``merged``. False: somebody else was
        faster."""
        model = self._rows
        before = model.value.does_not_exist() if base is None else model.value == _text(base)
        try:
            self._row(root).update(
                actions=[model.names.delete({_text(each) for each in merged}), model.value.set(_text(into))],
                condition=before,
            )
        except UpdateError as error:
            if error.cause_response_code != "ConditionalCheckFailedException":
                raise
            return False
        return True

    def _row(self, root: int) -> NoteRow:
        return self._rows(partition(self._tenant, "artifacts"), root)


def _manifest(row: NoteRow) -> Manifest:
    recent = tuple(sorted(_archive(text) for text in row.names or ()))
    return Manifest(_archive(row.value) if row.value else None, recent, row.number or 0)


def _text(archive: Archive) -> str:
    return _ENTRY.format(archive.at, archive.size, archive.name)


def _archive(text: str) -> Archive:
    at, size, name = text.split("/")
    return Archive(int(at), int(size), name)
