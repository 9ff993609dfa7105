"""Deleting a tenant with everything in it: rows of both tables, blobs, its data key, and what leads to it by a hash.

This is the one place that scans. What a tenant has is spread over partitions that nobody lists (an idempotency key is
a partition), and a list of kinds would be wrong the day that one is added. A scan of ten gigabytes costs about $0.20,
and is taken up again where it was left.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final, Literal

import msgspec
from pynamodb.expressions.condition import Condition

from chalicelib.store.blobs import Blobs
from chalicelib.store.models import SEPARATOR, Tables

_PAGE: Final = 1000  # rows looked at in one call, at most a megabyte (DynamoDB)

Stage = Literal["blobs", "registry", "activity"]
_NEXT: Final[dict[Stage, Stage | None]] = {"blobs": "registry", "registry": "activity", "activity": None}


class Progress(msgspec.Struct, kw_only=True, frozen=True):
    """How far a round has come: within ``stage`` behind ``key``, with so much ``found`` on the way."""

    stage: Stage = "blobs"
    key: Any = None
    found: int = 0


class Removal:
    """Takes away what one tenant has. May be repeated, and left at any point."""

    def __init__(self, tables: Tables, blobs: Blobs, tenant: str) -> None:
        self._tables = tables
        self._blobs = blobs
        self._tenant = tenant

    def go_on(self, progress: Progress, enough: Callable[[], bool]) -> Progress | None:
        """Go on from ``progress`` until it is ``enough``. None: a whole round found nothing, so nothing is left."""
        while True:
            for key, found in self._stage(progress):
                progress = msgspec.structs.replace(progress, key=key, found=progress.found + found)
                if key is not None and enough():
                    return progress
            after = _NEXT[progress.stage]
            if after is not None:
                progress = msgspec.structs.replace(progress, stage=after, key=None)
            elif progress.found:
                progress = Progress()  # somebody may have written behind our back: one more round
            else:
                return None

    def _stage(self, progress: Progress) -> Iterator[tuple[Any, int]]:
        """Works on, and yields after each step: where to go on (None: the stage is done), and how much it deleted."""
        if progress.stage == "blobs":
            names = list(self._blobs.sizes(""))
            for start in range(0, len(names), _PAGE):
                some = names[start : start + _PAGE]
                self._blobs.delete_all(some)
                yield some[-1], len(some)
            return
        model: Any = self._tables.registry if progress.stage == "registry" else self._tables.notes
        pages = model.scan(
            filter_condition=self._is_its(progress.stage),
            attributes_to_get=["pk", "sk"] if progress.stage == "registry" else ["pk", "id"],
            page_size=_PAGE,
            last_evaluated_key=progress.key,
            consistent_read=True,
        ).page_iter
        for page in pages:
            found = [model.from_raw_data(row) for row in page["Items"]]
            with model.batch_write() as batch:
                for row in found:
                    batch.delete(row)
            yield page.get("LastEvaluatedKey"), len(found)

    def _is_its(self, stage: Stage) -> Condition:
        model: Any = self._tables.registry if stage == "registry" else self._tables.notes
        own: Condition = model.pk.startswith(f"{self._tenant}{SEPARATOR}")
        if stage == "activity":
            return own
        # Pointers stand under a hash and name the tenant in their body (registry.webhook_partition).
        leads = (model.body == self._tenant) | model.body.startswith(f'["{self._tenant}",')
        either: Condition = own | (model.pk.startswith(SEPARATOR) & leads)
        return either
