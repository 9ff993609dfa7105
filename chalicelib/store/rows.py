"""Events, enforcements and executions as rows, and rows as what they were."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from chalicelib.domain.entities import Enforcement, Event, Execution, Json
from chalicelib.domain.executions import OPEN, TERMINAL
from chalicelib.domain.ids import milliseconds_of
from chalicelib.store.models import (
    SEPARATOR,
    EnforcementRow,
    EventRow,
    ExecutionRow,
    Tables,
    fingerprint,
    partition,
)

EVENT: Final = "event"
ENFORCEMENT: Final = "enforcement"
EXECUTION: Final = "execution"

INLINE_BYTES: Final = 100_000  # bigger values live in S3 (design §2.8)
DUE_SHARDS: Final = 2  # parts of what is due: an index key takes 1,000 writes a second, an idle tick asks for each
DUE_AFTER: Final = timedelta(minutes=15)  # when the sweeper first looks at a row that has not ended

BLOB_MARK: Final = "$attune_blob"  # in lists, {BLOB_MARK: name} stands for a value that lives in S3

# Fields of an execution that never change and that nobody filters by: one attribute for all, when there are any.
_REST: Final = (
    "env_vars",
    "permission_set_refs",
    "secrets",
    "timeout",
    "original_execution",
    "rerun",
    "root",
    "artifact_retention_policy",
    "artifact_retention_limit",
    "worker_selector",
    "worker_tolerations",
    "worker_affinity",
)
_REST_DEFAULTS: Final[dict[str, Json]] = dict.fromkeys(_REST) | {"permission_set_refs": []}

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)

Spill = Callable[[bytes], str]  # puts a big value away and names it
Fetch = Callable[[str], bytes]  # gets it back

encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder().decode


def micros(moment: datetime) -> int:
    return (moment - _EPOCH) // _MICROSECOND


def moment(micros_: int) -> datetime:
    return _EPOCH + timedelta(microseconds=micros_)


def due_shard(id_: int) -> str:
    """The part of what is due that the row ``id_`` belongs in; within it, rows stand in the order of their times."""
    return f"due#{id_ % DUE_SHARDS}"


def state_of(tenant: str, status: str) -> str | None:
    """The entry of a status in the index by state: open rows stand together, completed ones nowhere."""
    if status == "completed":
        return None
    return partition(tenant, "open" if status in OPEN else status)


def text_of(value: Json, spill: Spill) -> str:
    """A JSON value as an attribute: its text, or ``@`` and the name of the blob that holds it."""
    encoded = encode(value)
    return "@" + spill(encoded) if len(encoded) > INLINE_BYTES else encoded.decode()


def value_of(text: str | None, fetch: Fetch | None) -> Json:
    """The JSON value of an attribute; without ``fetch``, one in S3 is only marked."""
    if text is None:
        return None
    if text.startswith("@"):
        return {BLOB_MARK: text[1:]} if fetch is None else decode(fetch(text[1:]))
    return decode(text)


def event_row(tables: Tables, tenant: str, event: Event, key: str, spill: Spill) -> EventRow:
    payload = None if event.payload is None else text_of(event.payload, spill)
    config = None if event.config is None else text_of(event.config, spill)
    return tables.events(
        partition(tenant, EVENT),
        event.id,
        subject=partition(tenant, EVENT, event.trigger_ref),
        # Ids are drawn, so two events may share one: then it is what they say that tells them apart.
        key=fingerprint(event.trigger_ref, key),
        created=micros(event.created),
        payload=payload,
        config=config,
        trigger=event.trigger,
        source=event.source,
        source_ref=event.source_ref,
        rule=event.rule,
        rule_ref=event.rule_ref,
    )


def event_of(row: EventRow, fetch: Fetch | None) -> Event:
    return Event(
        id=row.id,
        trigger_ref=_subject(row.subject),
        created=moment(row.created or 0),
        trigger=row.trigger,
        config=value_of(row.config, fetch),
        payload=value_of(row.payload, fetch),
        source=row.source,
        source_ref=row.source_ref,
        rule=row.rule,
        rule_ref=row.rule_ref,
    )


def enforcement_row(
    tables: Tables, tenant: str, enforcement: Enforcement, execution: Execution | None, key: str, spill: Spill
) -> EnforcementRow:
    """``config`` is kept once, with the execution, when both have the same."""
    shared = execution is not None and enforcement.config in (None, execution.config)
    resolved = enforcement.resolved_at
    return tables.enforcements(
        partition(tenant, ENFORCEMENT),
        enforcement.id,
        subject=partition(tenant, ENFORCEMENT, enforcement.rule_ref),
        key=fingerprint(key),
        status=enforcement.status,
        created=micros(enforcement.created),
        resolved=None if resolved in (None, enforcement.created) else micros(resolved),
        rule=enforcement.rule,
        trigger_ref=enforcement.trigger_ref,
        event=enforcement.event,
        config=None if shared or enforcement.config is None else text_of(enforcement.config, spill),
        payload=text_of(enforcement.payload, spill) if enforcement.payload else None,
        conditions=text_of(enforcement.conditions, spill) if enforcement.conditions else None,
        error=enforcement.error,
    )


def enforcement_of(row: EnforcementRow, fetch: Fetch | None) -> Enforcement:
    status: Any = row.status
    created = moment(row.created or 0)
    return Enforcement(
        id=row.id,
        rule=row.rule,
        rule_ref=_subject(row.subject),
        trigger_ref=row.trigger_ref or "",
        event=row.event or 0,
        status=status,
        created=created,
        config=value_of(row.config, fetch),
        payload=value_of(row.payload, fetch) or {},
        conditions=value_of(row.conditions, fetch) or {},
        resolved_at=moment(row.resolved) if row.resolved else (None if status == "created" else created),
        error=row.error,
    )


def execution_row(tables: Tables, tenant: str, execution: Execution, key: str, spill: Spill) -> ExecutionRow:
    rest = {name: value for name in _REST if (value := getattr(execution, name)) != _REST_DEFAULTS[name]}
    ended = execution.status in TERMINAL
    return tables.executions(
        partition(tenant, EXECUTION),
        execution.id,
        subject=partition(tenant, EXECUTION, execution.action_ref),
        key=fingerprint(key),
        status=execution.status,
        version=execution.version,
        attempt=execution.attempt,
        created=micros(execution.created),
        updated=None if execution.updated == execution.created else micros(execution.updated),
        started=execution.started_at and micros(execution.started_at),
        deadline=execution.deadline and micros(execution.deadline),
        token=execution.attempt_token,
        action=execution.action,
        executor=execution.executor,
        enforcement=execution.enforcement,
        rule_ref=execution.rule_ref,
        trigger_ref=execution.trigger_ref,
        config=None if execution.config is None else text_of(execution.config, spill),
        result=None if execution.result is None else text_of(execution.result, spill),
        printed=None if execution.printed is None else text_of(execution.printed, spill),
        workflow_task=None if execution.workflow_task is None else text_of(execution.workflow_task, spill),
        rest=text_of(rest, spill) if rest else None,
        parent=None if execution.parent is None else partition(tenant, EXECUTION, execution.parent),
        state=state_of(tenant, execution.status),
        # From the id's time and not from a clock, so that a repeated write is the same write.
        due=None if ended else due_shard(execution.id),
        due_at=None if ended else micros(moment(milliseconds_of(execution.id) * 1000) + DUE_AFTER),
    )


def execution_of(row: ExecutionRow, fetch: Fetch | None) -> Execution:
    status: Any = row.status
    created = moment(row.created or 0)
    rest = value_of(row.rest, fetch) or {}
    rest.pop(BLOB_MARK, None)
    return Execution(
        id=row.id,
        created=created,
        updated=moment(row.updated) if row.updated else created,
        action_ref=_subject(row.subject),
        status=status,
        version=row.version or 0,
        attempt=row.attempt or 0,
        action=row.action,
        config=value_of(row.config, fetch),
        parent=int(_subject(row.parent)) if row.parent else None,
        enforcement=row.enforcement,
        rule_ref=row.rule_ref,
        trigger_ref=row.trigger_ref,
        executor=row.executor,
        lane=row.lane,
        result=value_of(row.result, fetch),
        printed=value_of(row.printed, fetch),
        workflow_task=value_of(row.workflow_task, fetch),
        started_at=moment(row.started) if row.started else None,
        deadline=moment(row.deadline) if row.deadline else None,
        attempt_token=row.token,
        timed_out=bool(row.timed_out),
        seat=bool(row.seat),
        **rest,
    )


def _subject(key: str | None) -> str:
    """The last part of a partition key."""
    return (key or "").rpartition(SEPARATOR)[2]
