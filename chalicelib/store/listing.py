"""Lists of events, enforcements and executions: newest first, by page, through the most selective index.

An index holds keys only; what it finds is read row by row in batches, and whatever the index does not say is filtered
here, in memory, before paging: so totals are true, and hidden rows leave no holes. A page's end is remembered for a
minute in this process, so that walking through pages skips nothing twice; elsewhere, the keys before a page are
skipped.
"""

import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Final, Generic, TypeVar

from chalicelib.domain.entities import Enforcement, EnforcementStatus, Event, Execution, ExecutionStatus, Json
from chalicelib.domain.executions import OPEN, TERMINAL
from chalicelib.domain.ids import same_millisecond
from chalicelib.store import rows
from chalicelib.store.models import ActivityRow, Tables, partition

T = TypeVar("T", Event, Enforcement, Execution)

_BATCH: Final = 100  # DynamoDB: keys of one BatchGetItem
_KEYS_AT_ONCE: Final = 1000
_CURSOR_SECONDS: Final = 60.0
_CURSORS: Final = 1000


def _anyone(_: object) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Page:
    """Page ``number`` (from 1) of ``size`` rows; with ``total``, count all that match."""

    number: int = 1
    size: int = 50
    total: bool = False


@dataclass(frozen=True, slots=True)
class Slice(Generic[T]):
    """The rows of a page. ``total`` is None unless it was asked for."""

    items: list[T]
    has_next: bool
    total: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilter:
    """Every given field must equal; ``allowed`` leaves out what the caller may not see."""

    trigger: int | None = None
    trigger_ref: str | None = None
    rule_ref: str | None = None
    source: int | None = None
    allowed: Callable[[Event], bool] = _anyone


@dataclass(frozen=True, slots=True, kw_only=True)
class EnforcementFilter:
    """Every given field must equal; ``allowed`` leaves out what the caller may not see."""

    rule: int | None = None
    event: int | None = None
    status: EnforcementStatus | None = None
    trigger_ref: str | None = None
    rule_ref: str | None = None
    allowed: Callable[[Enforcement], bool] = _anyone


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionFilter:
    """Every given field must equal. ``pack_name`` is the pack of the action; ``result_contains`` is searched in the
    result's JSON text without regard to case; ``allowed`` leaves out what the caller may not see."""

    status: ExecutionStatus | None = None
    action_ref: str | None = None
    pack_name: str | None = None
    rule_ref: str | None = None
    trigger_ref: str | None = None
    executor: int | None = None
    result_contains: str | None = None
    enforcement: int | None = None
    parent: int | None = None
    top_level_only: bool = False
    allowed: Callable[[Execution], bool] = _anyone


@dataclass(slots=True)
class Cursors:
    """Where pages ended, for the lists of one process."""

    clock: Callable[[], float] = time.monotonic
    _ends: OrderedDict[tuple[Any, ...], tuple[float, int]] = field(default_factory=OrderedDict)

    def after(self, key: tuple[Any, ...], number: int) -> int | None:
        """The id of the last row before page ``number``."""
        kept = self._ends.get((*key, number))
        return kept[1] if kept is not None and self.clock() - kept[0] < _CURSOR_SECONDS else None

    def keep(self, key: tuple[Any, ...], number: int, last: int) -> None:
        self._ends[(*key, number)] = (self.clock(), last)
        self._ends.move_to_end((*key, number))
        if len(self._ends) > _CURSORS:
            self._ends.popitem(last=False)


@dataclass(frozen=True, slots=True)
class _Source(Generic[T]):
    """Where a list's rows come from: ``ids(before)`` yields candidates newest first, all of them below ``before``;
    ``matches`` decides on what the source does not guarantee, None when it guarantees everything."""

    ids: Callable[[int | None], Iterator[int]]
    count: Callable[[], int]
    matches: Callable[[T], bool] | None
    direct: Callable[[int | None, int], Iterator[T]] | None = None  # rows without a detour over ids


class Listing:
    """The lists of one tenant."""

    def __init__(self, tables: Tables, tenant: str, cursors: Cursors) -> None:
        self._tables = tables
        self._tenant = tenant
        self._cursors = cursors

    def events(self, wanted: EventFilter, page: Page) -> Slice[Event]:
        left = replace(wanted, trigger_ref=None)
        if wanted.trigger_ref is not None:
            source = self._by_subject(rows.EVENT, wanted.trigger_ref, _events_like(left))
        else:
            source = self._all(rows.EVENT, _events_like(wanted))
        return self._page(rows.EVENT, wanted, page, source)

    def enforcements(self, wanted: EnforcementFilter, page: Page) -> Slice[Enforcement]:
        source: _Source[Enforcement]
        if wanted.event is not None:
            # An enforcement's id is derived from its event's millisecond.
            source = self._between(rows.ENFORCEMENT, *same_millisecond(wanted.event), _enforcements_like(wanted))
        elif wanted.rule_ref is not None:
            like = _enforcements_like(replace(wanted, rule_ref=None))
            source = self._by_subject(rows.ENFORCEMENT, wanted.rule_ref, like)
        else:
            source = self._all(rows.ENFORCEMENT, _enforcements_like(wanted))
        return self._page(rows.ENFORCEMENT, wanted, page, source)

    def executions(self, wanted: ExecutionFilter, page: Page) -> Slice[Execution]:
        return self._page(rows.EXECUTION, wanted, page, self._executions(wanted))

    def execution_counts(self) -> dict[ExecutionStatus, int]:
        counts: dict[ExecutionStatus, int] = dict.fromkeys((*OPEN, *TERMINAL), 0)
        total = self._all(rows.EXECUTION, None).count()
        for status in TERMINAL:
            if status != "completed":
                counts[status] = self._by_state(status, None).count()
        open_rows = self._by_state("requested", None)
        for execution in self._read(rows.EXECUTION, open_rows.ids(None)):
            counts[execution.status] += 1
        counts["completed"] = max(total - sum(counts.values()), 0)
        return counts

    def _executions(self, wanted: ExecutionFilter) -> "_Source[Execution]":
        if wanted.enforcement is not None:
            return self._between(rows.EXECUTION, wanted.enforcement, wanted.enforcement, _executions_like(wanted))
        if wanted.parent is not None:
            left = replace(wanted, parent=None, top_level_only=False)
            if wanted.top_level_only:
                return _Source(lambda _: iter(()), lambda: 0, None)
            return self._index("by_parent", partition(self._tenant, rows.EXECUTION, wanted.parent), left)
        if wanted.status is not None and wanted.status != "completed":
            left = wanted if wanted.status in OPEN else replace(wanted, status=None)
            return self._by_state(wanted.status, _executions_like(left))
        if wanted.rule_ref is not None:
            # A rule's executions have the ids of its enforcements.
            of_rule: _Source[Enforcement] = self._by_subject(rows.ENFORCEMENT, wanted.rule_ref, None)
            return _Source(of_rule.ids, of_rule.count, _executions_like(wanted))
        if wanted.action_ref is not None:
            like = _executions_like(replace(wanted, action_ref=None))
            return self._by_subject(rows.EXECUTION, wanted.action_ref, like)
        if wanted == ExecutionFilter(status="completed"):
            source = self._all(rows.EXECUTION, _executions_like(wanted))
            return replace(source, count=lambda: self.execution_counts()["completed"])
        return self._all(rows.EXECUTION, _executions_like(wanted))

    def _page(self, kind: str, wanted: Any, page: Page, source: "_Source[T]") -> Slice[T]:
        # What one caller may see ends its pages elsewhere than what another may.
        cursor_key = (self._tenant, kind, wanted, page.size) if wanted.allowed is _anyone else None
        skipped = min((page.number - 1) * page.size, sys.maxsize // 2)  # nobody has so many; islice takes no more
        before = None if cursor_key is None else self._cursors.after(cursor_key, page.number)
        if before is not None or page.number == 1:
            matching = self._matching(kind, source, before, page.size + 1)
        elif source.matches is None:
            after_skipping = islice(source.ids(None), skipped, skipped + page.size + 1)
            matching = self._read(kind, after_skipping)
        else:
            matching = islice(self._matching(kind, source, None, _BATCH), skipped, None)
        found = list(islice(matching, page.size + 1))
        items, has_next = found[: page.size], len(found) > page.size
        if has_next and cursor_key is not None:
            self._cursors.keep(cursor_key, page.number + 1, items[-1].id)
        total = None
        if page.total:
            counted = source.matches is None or _counts_itself(wanted)
            total = source.count() if counted else sum(1 for _ in self._matching(kind, source, None, _BATCH))
        return Slice(items, has_next, total)

    def _matching(self, kind: str, source: "_Source[T]", before: int | None, at_once: int) -> Iterator[T]:
        if source.direct is not None:
            candidates = source.direct(before, at_once)
        else:
            candidates = self._read(kind, source.ids(before), at_once)
        return candidates if source.matches is None else filter(source.matches, candidates)

    def _read(self, kind: str, ids: Iterable[int], at_once: int = _BATCH) -> Iterator[Any]:
        """The rows of ``ids``, in their order; those that are gone are left out."""
        model, entity_of = self._kind(kind)
        pk = partition(self._tenant, kind)
        remaining = iter(ids)
        while chunk := list(islice(remaining, min(at_once, _BATCH))):
            there = {row.id: row for row in model.batch_get([(pk, id_) for id_ in chunk])}
            yield from (entity_of(there[id_], None) for id_ in chunk if id_ in there)

    def _kind(self, kind: str) -> tuple[type[Any], Callable[[Any, Any], Any]]:
        kinds: dict[str, tuple[type[Any], Callable[[Any, Any], Any]]] = {
            rows.EVENT: (self._tables.events, rows.event_of),
            rows.ENFORCEMENT: (self._tables.enforcements, rows.enforcement_of),
            rows.EXECUTION: (self._tables.executions, rows.execution_of),
        }
        return kinds[kind]

    def _all(self, kind: str, matches: Callable[[T], bool] | None) -> "_Source[T]":
        model, entity_of = self._kind(kind)
        pk = partition(self._tenant, kind)

        def ids(before: int | None) -> Iterator[int]:
            found = model.query(
                pk, _below(model, before), scan_index_forward=False, attributes_to_get=["id"], page_size=_KEYS_AT_ONCE
            )
            return (row.id for row in found)

        def direct(before: int | None, at_once: int) -> Iterator[T]:
            found = model.query(pk, _below(model, before), scan_index_forward=False, page_size=at_once)
            return (entity_of(row, None) for row in found)

        return _Source(ids, lambda: model.count(pk), matches, direct)

    def _between(self, kind: str, low: int, high: int, matches: Callable[[T], bool] | None) -> "_Source[T]":
        model, entity_of = self._kind(kind)

        def direct(before: int | None, at_once: int) -> Iterator[T]:
            top = high if before is None else min(high, before - 1)
            if top < low:
                return iter(())
            found = model.query(
                partition(self._tenant, kind), model.id.between(low, top), scan_index_forward=False, page_size=at_once
            )
            return (entity_of(row, None) for row in found)

        def ids(before: int | None) -> Iterator[int]:
            return (each.id for each in direct(before, _BATCH))

        return _Source(ids, lambda: sum(1 for _ in ids(None)), matches, direct)

    def _by_subject(self, kind: str, ref: str, matches: Callable[[T], bool] | None) -> "_Source[T]":
        model, _ = self._kind(kind)
        return self._indexed(model, model.by_subject, partition(self._tenant, kind, ref), matches)

    def _by_state(self, status: str, matches: Callable[[Execution], bool] | None) -> "_Source[Execution]":
        model = self._tables.executions
        return self._indexed(model, model.by_state, rows.state_of(self._tenant, status) or "", matches)

    def _index(self, name: str, key: str, left: ExecutionFilter) -> "_Source[Execution]":
        model = self._tables.executions
        return self._indexed(model, getattr(model, name), key, _executions_like(left))

    def _indexed(
        self, model: type[ActivityRow], index: Any, key: str, matches: Callable[[T], bool] | None
    ) -> "_Source[T]":
        def ids(before: int | None) -> Iterator[int]:
            found = index.query(key, _below(model, before), scan_index_forward=False, page_size=_KEYS_AT_ONCE)
            return (row.id for row in found)

        return _Source(ids, lambda: int(index.count(key)), matches)


def _below(model: type[ActivityRow], before: int | None) -> Any:
    return None if before is None else model.id < before


def _counts_itself(wanted: Any) -> bool:
    return bool(wanted == ExecutionFilter(status="completed"))


def _events_like(wanted: EventFilter) -> Callable[[Event], bool] | None:
    if wanted == EventFilter():
        return None
    given = _given(wanted, "trigger", "trigger_ref", "rule_ref", "source")
    return lambda event: all(getattr(event, name) == value for name, value in given) and wanted.allowed(event)


def _enforcements_like(wanted: EnforcementFilter) -> Callable[[Enforcement], bool] | None:
    if wanted == EnforcementFilter():
        return None
    given = _given(wanted, "rule", "event", "status", "trigger_ref", "rule_ref")
    return lambda each: all(getattr(each, name) == value for name, value in given) and wanted.allowed(each)


def _executions_like(wanted: ExecutionFilter) -> Callable[[Execution], bool] | None:
    if wanted == ExecutionFilter():
        return None
    given = _given(wanted, "status", "action_ref", "rule_ref", "trigger_ref", "executor", "enforcement", "parent")
    pack = None if wanted.pack_name is None else f"{wanted.pack_name}."
    text = None if wanted.result_contains is None else wanted.result_contains.lower()

    def matches(execution: Execution) -> bool:
        return (
            all(getattr(execution, name) == value for name, value in given)
            and (pack is None or execution.action_ref.startswith(pack))
            and (text is None or _has(execution.result, text))
            and not (wanted.top_level_only and execution.parent is not None)
            and wanted.allowed(execution)
        )

    return matches


def _has(value: Json, text: str) -> bool:
    return value is not None and text in rows.encode(value).decode().lower()


def _given(wanted: Any, *names: str) -> list[tuple[str, Any]]:
    return [(name, value) for name in names if (value := getattr(wanted, name)) is not None]
