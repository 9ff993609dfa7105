"""Inquiries: one per execution, settled once, whoever comes at the same time.

Two rows: the inquiry under its own id, which orders the lists, and one under its execution's, which keeps a second one
out and stands in the index of what is due. They are written in one transaction, and the transition of an execution that
waits for the answer is part of it: the inquiry is settled and its execution has ended, or neither.
"""

import random
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice
from typing import Any, Final

import msgspec
from pynamodb.exceptions import TransactWriteError, UpdateError
from pynamodb.transactions import TransactWrite

from chalicelib.domain.entities import Inquiry, InquiryStatus
from chalicelib.domain.inquiries import assignee
from chalicelib.store import rows
from chalicelib.store.activity import BusyError, Move
from chalicelib.store.blobs import Blobs
from chalicelib.store.models import AskingRow, InquiryRow, Tables, partition

INQUIRY: Final = "inquiry"
ASKING: Final = "asking"

_BATCH: Final = 100  # DynamoDB: keys of one BatchGetItem
_KEYS_AT_ONCE: Final = 1000
_CONFLICTS: Final = 20  # tries at rows that another writer is in the middle of writing

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Inquiry).decode


def _anyone(_: object) -> bool:
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class InquiryFilter:
    """Every given field must equal; ``assigned_to`` is who is asked now. ``allowed`` leaves out what the caller may not
    see."""

    status: InquiryStatus | None = None
    execution: int | None = None
    assigned_to: int | None = None
    allowed: Callable[[Inquiry], bool] = _anyone


class Inquiries:
    """One tenant's inquiries."""

    def __init__(self, tables: Tables, blobs: Blobs, tenant: str) -> None:
        self._tables = tables
        self._blobs = blobs
        self._tenant = tenant

    # Reading

    def get(self, id_: int) -> Inquiry | None:
        row = self._row(id_)
        try:
            row.refresh(consistent_read=True)
        except self._tables.inquiries.DoesNotExist:
            return None
        return self._inquiry(row)

    def of_execution(self, execution: int) -> Inquiry | None:
        """The inquiry of an execution; None when it has none."""
        row = self._asking(execution)
        try:
            row.refresh(consistent_read=True)
        except self._tables.askings.DoesNotExist:
            return None
        return self.get(row.inquiry or 0)

    def find(self, wanted: InquiryFilter, *, offset: int, limit: int) -> tuple[list[Inquiry], int]:
        """Inquiries that match, newest first, ``limit`` of them after the first ``offset``; and how many match."""
        if wanted.execution is not None:
            inquiry = self.of_execution(wanted.execution)
            found = [inquiry] if inquiry is not None and _matches(wanted, inquiry) else []
            return found[offset : offset + limit], len(found)
        if wanted.assigned_to is not None and wanted.status != "pending":  # few are pending, however many there were
            left = replace(wanted, assigned_to=None)
            index: Any = self._tables.inquiries.by_subject
            key = partition(self._tenant, INQUIRY, wanted.assigned_to)
        elif wanted.status is not None:
            left = replace(wanted, status=None)
            index, key = self._tables.inquiries.by_state, self._state(wanted.status)
        else:
            left = wanted
            index, key = self._tables.inquiries, partition(self._tenant, INQUIRY)
        ids = (
            row.id
            for row in index.query(key, scan_index_forward=False, attributes_to_get=["id"], page_size=_KEYS_AT_ONCE)
        )
        # What a row was when the index was written may have changed since: each is asked again.
        if left == InquiryFilter():  # the index says it all: what is skipped need not be read
            page = self._read(islice(ids, offset, offset + limit))
            return [inquiry for inquiry in page if _matches(wanted, inquiry)], int(index.count(key))
        matching = [inquiry for inquiry in self._read(ids) if _matches(wanted, inquiry)]
        return matching[offset : offset + limit], len(matching)

    def _read(self, ids: Iterable[int]) -> Iterator[Inquiry]:
        """The inquiries of ``ids`` in their order; those that are gone are left out."""
        pk, remaining = partition(self._tenant, INQUIRY), iter(ids)
        while chunk := list(islice(remaining, _BATCH)):
            keys = [(pk, id_) for id_ in chunk]
            there = {row.id: row for row in self._tables.inquiries.batch_get(keys, consistent_read=True)}
            yield from (self._inquiry(there[id_]) for id_ in chunk if id_ in there)

    # Writing

    def open(self, inquiry: Inquiry, *, look: datetime | None, move: Move | None = None) -> bool:
        """Store a new inquiry, to be looked at at ``look``, with the transition ``move`` of its execution.

        False, and nothing is stored, when its execution has one already or is not where ``move`` leads from, or when
        a stranger has the id.
        """
        row, asking = self._filled(inquiry), self._asking(inquiry.execution)
        asking.inquiry = inquiry.id
        if look is not None:
            asking.due, asking.due_at = rows.due_shard(inquiry.execution), rows.micros(look)

        def write(transaction: TransactWrite) -> None:
            transaction.save(row, condition=self._tables.inquiries.pk.does_not_exist())
            transaction.save(asking, condition=self._tables.askings.pk.does_not_exist())

        return self._commit(write, move)

    def save(
        self, before: Inquiry, after: Inquiry, *, look: datetime | None, move: Move | None = None
    ) -> Inquiry | None:
        """Write ``after`` over ``before``, with the transition ``move`` of its execution, and return it as stored.

        None, and nothing is changed, when somebody else has written meanwhile, or the execution has moved on.
        """
        after = msgspec.structs.replace(after, version=before.version + 1)
        filled, model = self._filled(after), self._tables.inquiries

        def write(transaction: TransactWrite) -> None:
            actions: list[Any] = [
                model.body.set(filled.body),
                model.version.set(after.version),
                model.state.set(filled.state),
                model.subject.remove() if filled.subject is None else model.subject.set(filled.subject),
            ]
            transaction.update(self._row(after.id), actions=actions, condition=model.version == before.version)
            transaction.update(self._asking(after.execution), actions=self._due(after.execution, look))

        return after if self._commit(write, move) else None

    def delete(self, inquiry: Inquiry, move: Move | None = None) -> bool:
        """Forget an inquiry, with the transition ``move`` of its execution; False as in :meth:`save`."""

        def write(transaction: TransactWrite) -> None:
            unchanged = self._tables.inquiries.version == inquiry.version
            transaction.delete(self._row(inquiry.id), condition=unchanged)
            transaction.delete(self._asking(inquiry.execution))

        return self._commit(write, move)

    def look_again(self, execution: int, when: datetime) -> None:
        """Have the inquiry of an execution looked at at ``when``, unless it is settled."""
        model = self._tables.askings
        try:
            self._asking(execution).update(actions=self._due(execution, when), condition=model.due.exists())
        except UpdateError as error:
            if error.cause_response_code != "ConditionalCheckFailedException":
                raise

    def _commit(self, write: Callable[[TransactWrite], None], move: Move | None) -> bool:
        for _ in range(_CONFLICTS):
            try:
                with TransactWrite(connection=self._tables.connection) as transaction:
                    write(transaction)
                    if move is not None:
                        transaction.update(move.row, actions=move.actions, condition=move.condition)
            except TransactWriteError as error:
                codes = {reason.code for reason in error.cancellation_reasons if reason} - {"None"}
                if "ConditionalCheckFailed" in codes:
                    return False
                if codes != {"TransactionConflict"}:
                    raise
                time.sleep(random.uniform(0.002, 0.03))  # noqa: S311  # jitter, not a secret
            else:
                return True
        raise BusyError("the inquiry is being written by somebody else")

    def _due(self, execution: int, look: datetime | None) -> list[Any]:
        model = self._tables.askings
        if look is None:
            return [model.due.remove(), model.due_at.remove()]
        return [model.due.set(rows.due_shard(execution)), model.due_at.set(rows.micros(look))]

    # Rows

    def _row(self, id_: int) -> InquiryRow:
        return self._tables.inquiries(partition(self._tenant, INQUIRY), id_)

    def _asking(self, execution: int) -> AskingRow:
        return self._tables.askings(partition(self._tenant, ASKING), execution)

    def _state(self, status: InquiryStatus) -> str:
        return partition(self._tenant, INQUIRY, status)

    def _filled(self, inquiry: Inquiry) -> InquiryRow:
        encoded, asked = _encode(inquiry), assignee(inquiry)
        row = self._row(inquiry.id)
        row.subject = None if asked is None else partition(self._tenant, INQUIRY, asked)
        row.state = self._state(inquiry.status)
        row.version = inquiry.version
        row.body = "@" + self._blobs.put_value(encoded) if len(encoded) > rows.INLINE_BYTES else encoded.decode()
        return row

    def _inquiry(self, row: InquiryRow) -> Inquiry:
        body = row.body or ""
        return _decode(self._blobs.get(body[1:]) if body.startswith("@") else body)


def _matches(wanted: InquiryFilter, inquiry: Inquiry) -> bool:
    return (
        wanted.status in (None, inquiry.status)
        and wanted.execution in (None, inquiry.execution)
        and wanted.assigned_to in (None, assignee(inquiry))
        and wanted.allowed(inquiry)
    )
