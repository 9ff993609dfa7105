"""What a request reads and changes of definitions, noted where every one of them passes: for the audit record, which
tells what was there before and what came after, at no further read.

A journal is kept while one is open in the current context, and costs nothing otherwise.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from chalicelib.domain.audit import Change
from chalicelib.domain.entities import Definition, Identity


@dataclass(slots=True)
class Journal:
    """``read`` holds each definition as it was first read, by tenant, kind and ref; ``account`` the identity that was
    read or made last."""

    read: dict[tuple[str, str, str], Definition] = field(default_factory=dict)
    changes: list[tuple[str, Change]] = field(default_factory=list)
    account: tuple[str, Identity] | None = None

    def was_read(self, tenant: str, kind: str, thing: Definition) -> None:
        self.read.setdefault((tenant, kind, thing.ref), thing)
        if isinstance(thing, Identity):
            self.account = (tenant, thing)

    def was_put(self, tenant: str, kind: str, thing: Definition, *, new: bool) -> None:
        """``thing`` was stored. Whoever reads on sees it; what changes it again is a change of its own."""
        key = (tenant, kind, thing.ref)
        before = None if new else self.read.get(key)
        change = Change(kind=kind, operation="create" if new else "update", ref=thing.ref, before=before, after=thing)
        self.changes.append((tenant, change))
        self.read[key] = thing
        if isinstance(thing, Identity):
            self.account = (tenant, thing)

    def was_deleted(self, tenant: str, kind: str, ref: str) -> None:
        before = self.read.get((tenant, kind, ref))
        self.changes.append((tenant, Change(kind=kind, operation="delete", ref=ref, before=before)))


_OPEN: ContextVar[Journal | None] = ContextVar("journal", default=None)


def current() -> Journal | None:
    """The journal that is open here."""
    return _OPEN.get()


@contextmanager
def opened() -> Iterator[Journal]:
    """Keep a journal in the block."""
    journal = Journal()
    before = _OPEN.set(journal)
    try:
        yield journal
    finally:
        _OPEN.reset(before)
