"""What nothing may refer to any more: names of blobs and environments, each with the time when somebody is to look.

A name has one row, which whoever lets go of the name last has written: so it is looked at a full while after that.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Final

from pynamodb.exceptions import DeleteError

from chalicelib.store import rows
from chalicelib.store.models import SEPARATOR, Tables, partition

DUE: Final = "garbage"  # all of it in one partition of the index: little is ever due there
_KIND: Final = "garbage"


class Garbage:
    """What one tenant has let go of."""

    def __init__(self, tables: Tables, tenant: str) -> None:
        self._rows = tables.garbage
        self._tenant = tenant

    def leave(self, name: str, at: datetime) -> None:
        """Have ``name`` looked at, at ``at`` and not before."""
        row = self._rows(partition(self._tenant, _KIND, name), 0)
        row.update(actions=[self._rows.due.set(DUE), self._rows.due_at.set(rows.micros(at))])

    def forget(self, name: str, at: datetime) -> None:
        """``name`` has been looked at as it was due, unless somebody has let go of it again meanwhile."""
        row = self._rows(partition(self._tenant, _KIND, name), 0)
        try:
            row.delete(condition=self._rows.due_at == rows.micros(at))
        except DeleteError as error:
            if error.cause_response_code != "ConditionalCheckFailedException":
                raise


def due(tables: Tables, now: datetime, limit: int) -> Iterator[tuple[str, str, datetime]]:
    """Tenant and name of what was to be looked at by ``now``, and since when; the earliest first."""
    index = tables.garbage.by_due
    for row in index.query(DUE, tables.garbage.due_at <= rows.micros(now), limit=limit):
        tenant, _, name = row.pk.split(SEPARATOR, 2)
        yield tenant, name, rows.moment(row.due_at or 0)
