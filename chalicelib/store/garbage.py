"""What nothing may refer to any more: names of blobs and environments, each with the time when somebody is to look.

A name has one row, which whoever lets go of the name last has written: so it is looked at a full while after that.
"""

from datetime import datetime
from typing import Final

from pynamodb.exceptions import DeleteError

from chalicelib.store import rows
from chalicelib.store.models import SEPARATOR, Tables, partition

_KIND: Final = "garbage"


class Garbage:
    """What one tenant has let go of."""

    def __init__(self, tables: Tables, tenant: str) -> None:
        self._rows = tables.garbage
        self._tenant = tenant

    def leave(self, name: str, at: datetime) -> None:
        """Have ``name`` looked at, at ``at`` and not before."""
        row = self._rows(partition(self._tenant, _KIND, name), 0)
        moment = rows.micros(at)
        row.update(actions=[self._rows.due.set(rows.due_shard(moment)), self._rows.due_at.set(moment)])

    def forget(self, name: str, at: datetime) -> None:
        """``name`` has been looked at as it was due, unless somebody has let go of it again meanwhile."""
        row = self._rows(partition(self._tenant, _KIND, name), 0)
        try:
            row.delete(condition=self._rows.due_at == rows.micros(at))
        except DeleteError as error:
            if error.cause_response_code != "ConditionalCheckFailedException":
                raise


def garbage_name(pk: str) -> str | None:
    """The name that a row's key is of; None for another kind of row."""
    parts = pk.split(SEPARATOR, 2)
    return parts[2] if len(parts) == 3 and parts[1] == _KIND else None
