"""How much a tenant has used: starts and requests by the minute, as far as processes have told (``flow.pace``)."""

from typing import Final

from chalicelib.store.models import NoteRow, Tables, partition

_KEPT: Final = 3600  # seconds after its minute that a count is kept


class Usage:
    """What one tenant has used."""

    def __init__(self, tables: Tables, tenant: str) -> None:
        self._rows = tables.notes
        self._tenant = tenant

    def add(self, what: str, minute: int, count: int) -> int:
        """Count ``count`` more of ``what`` in a minute (since 1970); returns the minute's sum."""
        row = self._row(what, minute)
        row.update(actions=[self._rows.number.add(count), self._rows.expires.set(minute * 60 + _KEPT)])
        return row.number or 0

    def sum(self, what: str, minute: int) -> int:
        row = self._row(what, minute)
        try:
            row.refresh(consistent_read=True)
        except self._rows.DoesNotExist:
            return 0
        return row.number or 0

    def _row(self, what: str, minute: int) -> NoteRow:
        return self._rows(partition(self._tenant, "usage", what), minute)
