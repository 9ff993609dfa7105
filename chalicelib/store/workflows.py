"""Workflow runs: how far each has come, in one row that moves by version, and what led there, a row per step.

A step is one transaction: the state, the executions that it starts, the transition of the run's own execution where
there is one, and the line of its history (design §2, rules 3 and 4).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import msgspec
from pynamodb.exceptions import TransactWriteError
from pynamodb.transactions import TransactWrite

from chalicelib.domain.entities import Execution, Json
from chalicelib.domain.workflow.state import Origin, State
from chalicelib.store import rows
from chalicelib.store.activity import Move
from chalicelib.store.blobs import Blobs
from chalicelib.store.models import RunRow, StepRow, Tables, partition

RUN: Final = "workflow"
STEP: Final = "workflow-step"

_HISTORY_AT_ONCE: Final = 1000  # steps read at most

_LOST: Final = frozenset({"ConditionalCheckFailed", "TransactionConflict"})


@dataclass(frozen=True, slots=True)
class Run:
    """A run as stored; ``version`` counts its steps."""

    origin: Origin
    state: State
    version: int


@dataclass(frozen=True, slots=True)
class Recorded:
    """One step of a run's history: its notes, as :class:`~chalicelib.domain.workflow.steps.Note` writes them."""

    time: datetime
    notes: list[Json]


class Workflows:
    """One tenant's workflow runs."""

    def __init__(self, tables: Tables, blobs: Blobs, tenant: str) -> None:
        self._tables = tables
        self._blobs = blobs
        self._tenant = tenant

    def get(self, execution: int) -> Run | None:
        """The run of a workflow's execution, consistently; None when it is none, or has not begun."""
        row = self._row(execution)
        try:
            row.refresh(consistent_read=True)
        except self._tables.runs.DoesNotExist:
            return None
        return Run(
            msgspec.convert(rows.value_of(row.origin, self._blobs.get), Origin),
            msgspec.convert(rows.value_of(row.state, self._blobs.get), State, strict=False),
            row.version or 0,
        )

    def commit(
        self,
        before: Run | Origin,
        state: State,
        *,
        now: datetime,
        starts: Sequence[tuple[Execution, str]] = (),
        move: Move | None = None,
        notes: Json = None,
    ) -> bool:
        """Write one step: from ``before``, or from nothing, to ``state``.

        ``starts`` are new executions, each with the key of what it is. False, and nothing is written, if somebody else
        made a step since ``before``, ``move`` does not apply, or an id is taken: read again, and draw other ids.
        """
        origin, version = (before, 0) if isinstance(before, Origin) else (before.origin, before.version)
        model = self._tables.runs
        row = self._row(origin.execution)
        text = rows.text_of(state, self._blobs.put_value)
        try:
            with TransactWrite(connection=self._tables.connection) as transaction:
                if version == 0:
                    row.origin, row.state, row.version = rows.text_of(origin, self._blobs.put_value), text, 1
                    transaction.save(row, condition=model.pk.does_not_exist())
                else:
                    actions: list[Any] = [model.state.set(text), model.version.set(version + 1)]
                    transaction.update(row, actions=actions, condition=model.version == version)
                if move is not None:
                    transaction.update(move.row, actions=move.actions, condition=move.condition)
                for execution, key in starts:
                    made = rows.execution_row(self._tables, self._tenant, execution, key, self._blobs.put_value)
                    transaction.save(made, condition=type(made).pk.does_not_exist())
                if notes:
                    transaction.save(self._step(origin.execution, version + 1, now, notes))
        except TransactWriteError as error:
            codes = {reason.code for reason in error.cancellation_reasons if reason}
            if codes and codes <= _LOST:
                return False
            raise
        return True

    def history(self, execution: int) -> list[Recorded]:
        """The steps of a run, in their order, at most a thousand of the latest."""
        found = self._tables.steps.query(
            partition(self._tenant, STEP, execution), scan_index_forward=False, limit=_HISTORY_AT_ONCE
        )
        steps = [Recorded(rows.moment(row.created or 0), rows.value_of(row.notes, self._blobs.get)) for row in found]
        return steps[::-1]

    def _row(self, execution: int) -> RunRow:
        return self._tables.runs(partition(self._tenant, RUN), execution)

    def _step(self, execution: int, version: int, now: datetime, notes: Json) -> StepRow:
        row = self._tables.steps(partition(self._tenant, STEP, execution), version)
        row.created, row.notes = rows.micros(now), rows.text_of(notes, self._blobs.put_value)
        return row
