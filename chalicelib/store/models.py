"""The rows of the two tables as PynamoDB models, and their keys. Nothing outside ``chalicelib.store`` sees them.

Attribute names are short because every row of the activity table is written often and must stay below one write unit
(1 KB) in the plain case. Absent attributes stand for None, defaults and empty values. ``infra.tables`` has the keys.
"""

import hashlib
from dataclasses import dataclass
from typing import Any, TypeVar

from pynamodb.attributes import Attribute, NumberSetAttribute, UnicodeAttribute, UnicodeSetAttribute
from pynamodb.connection import Connection
from pynamodb.constants import NUMBER
from pynamodb.indexes import (
    AllProjection,
    GlobalSecondaryIndex,
    IncludeProjection,
    KeysOnlyProjection,
    LocalSecondaryIndex,
)
from pynamodb.models import Model

from chalicelib import clients

M = TypeVar("M", bound=Model)

SEPARATOR = "#"  # never part of a tenant's slug or of a ref


def partition(tenant: str, *parts: str | int) -> str:
    """A partition key: it begins with the tenant, always. Raises ValueError for what could pose as another's."""
    if not tenant or SEPARATOR in tenant:
        raise ValueError(f"not a tenant: {tenant!r}")
    return SEPARATOR.join((tenant, *map(str, parts)))


def fingerprint(*parts: str) -> str:
    """16 characters that tell one idempotency key from another (96 bits of BLAKE2)."""
    digest = hashlib.blake2b("\x00".join(parts).encode(), digest_size=12)
    return digest.hexdigest()


class IntegerAttribute(Attribute[int]):
    """A number of ours: they are all whole, and PynamoDB's own attribute makes floats of them for the type checker."""

    attr_type = NUMBER

    def serialize(self, value: int) -> str:
        return str(value)

    def deserialize(self, value: str) -> int:
        return int(value)


class _ById(LocalSecondaryIndex["RegistryRow"]):  # type: ignore[no-untyped-call]  # PynamoDB
    class Meta:
        index_name = "by_id"
        projection = KeysOnlyProjection()

    pk = UnicodeAttribute(hash_key=True)
    id = IntegerAttribute(range_key=True)


class _ByGroup(LocalSecondaryIndex["RegistryRow"]):  # type: ignore[no-untyped-call]  # PynamoDB
    class Meta:
        index_name = "by_group"
        projection = AllProjection()

    pk = UnicodeAttribute(hash_key=True)
    group = UnicodeAttribute(range_key=True, attr_name="grp")


class RegistryRow(Model):
    """A definition, the version of a tenant's registry, a webhook key's pointer, or a tenant's wrapped data key."""

    class Meta:
        table_name: str = ""

    pk = UnicodeAttribute(hash_key=True)
    sk = UnicodeAttribute(range_key=True)
    id = IntegerAttribute(null=True)
    revision = IntegerAttribute(attr_name="rev", null=True)
    group = UnicodeAttribute(attr_name="grp", null=True)
    body = UnicodeAttribute(null=True)
    version = IntegerAttribute(attr_name="n", null=True)

    by_id = _ById()
    by_group = _ByGroup()


class _BySubject(GlobalSecondaryIndex[Any]):  # type: ignore[no-untyped-call]  # PynamoDB
    class Meta:
        index_name = "by_subject"
        projection = KeysOnlyProjection()

    subject = UnicodeAttribute(hash_key=True, attr_name="su")
    id = IntegerAttribute(range_key=True)


class _ByParent(GlobalSecondaryIndex[Any]):  # type: ignore[no-untyped-call]  # PynamoDB
    class Meta:
        index_name = "by_parent"
        projection = KeysOnlyProjection()

    parent = UnicodeAttribute(hash_key=True, attr_name="pa")
    id = IntegerAttribute(range_key=True)


class _ByState(GlobalSecondaryIndex[Any]):  # type: ignore[no-untyped-call]  # PynamoDB
    class Meta:
        index_name = "by_state"
        projection = KeysOnlyProjection()

    state = UnicodeAttribute(hash_key=True, attr_name="st")
    id = IntegerAttribute(range_key=True)


class _ByDue(GlobalSecondaryIndex[Any]):  # type: ignore[no-untyped-call]  # PynamoDB
    class Meta:
        index_name = "by_due"
        projection = IncludeProjection(["tm", "tv", "dn", "sn", "tn"])

    due = UnicodeAttribute(hash_key=True, attr_name="du")
    due_at = IntegerAttribute(range_key=True, attr_name="dt")


class ActivityRow(Model):
    """What events, enforcements and executions have in common. ``subject`` is the trigger, rule or action they are of;
    ``key`` the fingerprint of what made the row, so that a repetition is told from a collision of ids.

    Times are microseconds since 1970. A JSON attribute holds the text itself, or ``@name`` of a blob that does.
    """

    class Meta:
        table_name: str = ""

    pk = UnicodeAttribute(hash_key=True)
    id = IntegerAttribute(range_key=True)
    subject = UnicodeAttribute(attr_name="su", null=True)
    key = UnicodeAttribute(attr_name="k", null=True)
    created = IntegerAttribute(attr_name="c", null=True)
    config = UnicodeAttribute(attr_name="cf", null=True)

    by_subject = _BySubject()


class EventRow(ActivityRow):
    payload = UnicodeAttribute(attr_name="py", null=True)
    trigger = IntegerAttribute(attr_name="ti", null=True)
    source = IntegerAttribute(attr_name="so", null=True)
    source_ref = UnicodeAttribute(attr_name="sr", null=True)
    rule = IntegerAttribute(attr_name="ru", null=True)
    rule_ref = UnicodeAttribute(attr_name="rr", null=True)


class EnforcementRow(ActivityRow):
    status = UnicodeAttribute(attr_name="s", null=True)
    rule = IntegerAttribute(attr_name="ru", null=True)
    trigger_ref = UnicodeAttribute(attr_name="tr", null=True)
    event = IntegerAttribute(attr_name="ev", null=True)
    payload = UnicodeAttribute(attr_name="py", null=True)
    conditions = UnicodeAttribute(attr_name="cd", null=True)
    resolved = IntegerAttribute(attr_name="ra", null=True)  # absent: when it was created
    error = UnicodeAttribute(attr_name="er", null=True)


class ExecutionRow(ActivityRow):
    status = UnicodeAttribute(attr_name="s", null=True)
    version = IntegerAttribute(attr_name="v", null=True)
    attempt = IntegerAttribute(attr_name="n", null=True)
    token = UnicodeAttribute(attr_name="t", null=True)
    deadline = IntegerAttribute(attr_name="d", null=True)
    updated = IntegerAttribute(attr_name="u", null=True)  # absent: when it was created
    started = IntegerAttribute(attr_name="sa", null=True)
    action = IntegerAttribute(attr_name="ai", null=True)
    executor = IntegerAttribute(attr_name="x", null=True)
    enforcement = IntegerAttribute(attr_name="e", null=True)
    rule_ref = UnicodeAttribute(attr_name="rr", null=True)
    trigger_ref = UnicodeAttribute(attr_name="tr", null=True)
    result = UnicodeAttribute(attr_name="rs", null=True)
    printed = UnicodeAttribute(attr_name="o", null=True)
    workflow_task = UnicodeAttribute(attr_name="w", null=True)
    timed_out = IntegerAttribute(attr_name="to", null=True)
    rest = UnicodeAttribute(attr_name="b", null=True)  # what never changes and nobody filters by
    parent = UnicodeAttribute(attr_name="pa", null=True)
    lane = IntegerAttribute(attr_name="ln", null=True)
    seat = IntegerAttribute(attr_name="g", null=True)
    state = UnicodeAttribute(attr_name="st", null=True)
    due = UnicodeAttribute(attr_name="du", null=True)
    due_at = IntegerAttribute(attr_name="dt", null=True)

    by_parent = _ByParent()
    by_state = _ByState()
    by_due = _ByDue()


class TimerRow(Model):
    """A rule's timer (``domain.timers``), alone in its partition. ``timer`` holds what never changes within a version;
    without ``due`` nobody looks at it."""

    class Meta:
        table_name: str = ""

    pk = UnicodeAttribute(hash_key=True)
    id = IntegerAttribute(range_key=True)
    due = UnicodeAttribute(attr_name="du", null=True)
    due_at = IntegerAttribute(attr_name="dt", null=True)
    timer = UnicodeAttribute(attr_name="tm", null=True)
    version = IntegerAttribute(attr_name="tv", null=True)
    done = IntegerAttribute(attr_name="dn", null=True)
    sent = IntegerAttribute(attr_name="sn", null=True)
    number = IntegerAttribute(attr_name="tn", null=True)
    claimed = NumberSetAttribute(attr_name="cl", null=True)
    fired = IntegerAttribute(attr_name="lf", null=True)  # when it really fired last

    by_due = _ByDue()


class RunRow(Model):
    """A workflow run (``domain.workflow.state``): what it was started with, and how far it has come."""

    class Meta:
        table_name: str = ""

    pk = UnicodeAttribute(hash_key=True)
    id = IntegerAttribute(range_key=True)
    version = IntegerAttribute(attr_name="v", null=True)
    origin = UnicodeAttribute(attr_name="og", null=True)
    state = UnicodeAttribute(attr_name="wf", null=True)


class StepRow(Model):
    """What one step of a workflow run did; ``id`` is the version that it led to."""

    class Meta:
        table_name: str = ""

    pk = UnicodeAttribute(hash_key=True)
    id = IntegerAttribute(range_key=True)
    created = IntegerAttribute(attr_name="c", null=True)
    notes = UnicodeAttribute(attr_name="no", null=True)


class PollRow(Model):
    """How a sensor is doing (``domain.sensors.Process``, the ``body``), and counters that anybody may add to."""

    class Meta:
        table_name: str = ""

    pk = UnicodeAttribute(hash_key=True)
    id = IntegerAttribute(range_key=True)
    due = UnicodeAttribute(attr_name="du", null=True)
    due_at = IntegerAttribute(attr_name="dt", null=True)
    version = IntegerAttribute(attr_name="v", null=True)
    body = UnicodeAttribute(attr_name="b", null=True)
    events = IntegerAttribute(attr_name="ec", null=True)
    refused = IntegerAttribute(attr_name="rc", null=True)

    by_due = _ByDue()


class InquiryRow(Model):
    """An inquiry (``domain.entities.Inquiry``, the ``body``, or ``@name`` of a blob). ``subject`` is who is asked."""

    class Meta:
        table_name: str = ""

    pk = UnicodeAttribute(hash_key=True)
    id = IntegerAttribute(range_key=True)
    subject = UnicodeAttribute(attr_name="su", null=True)
    state = UnicodeAttribute(attr_name="st", null=True)
    version = IntegerAttribute(attr_name="v", null=True)
    body = UnicodeAttribute(attr_name="b", null=True)

    by_subject = _BySubject()
    by_state = _ByState()


class AskingRow(Model):
    """The execution ``id`` has the inquiry ``inquiry``, and no second one. ``due``: when to look at it."""

    class Meta:
        table_name: str = ""

    pk = UnicodeAttribute(hash_key=True)
    id = IntegerAttribute(range_key=True)
    inquiry = IntegerAttribute(attr_name="q", null=True)
    due = UnicodeAttribute(attr_name="du", null=True)
    due_at = IntegerAttribute(attr_name="dt", null=True)

    by_due = _ByDue()


class GarbageRow(Model):
    """The name in ``pk`` may not be referred to any more. ``due``: when to look at it."""

    class Meta:
        table_name: str = ""

    pk = UnicodeAttribute(hash_key=True)
    id = IntegerAttribute(range_key=True)
    due = UnicodeAttribute(attr_name="du", null=True)
    due_at = IntegerAttribute(attr_name="dt", null=True)

    by_due = _ByDue()


class GateRow(Model):
    """A tenant's gate (``store.gates``), alone in its partition."""

    class Meta:
        table_name: str = ""

    pk = UnicodeAttribute(hash_key=True)
    id = IntegerAttribute(range_key=True)
    start = IntegerAttribute(attr_name="gs", null=True)
    admitted = IntegerAttribute(attr_name="ga", null=True)
    seats = IntegerAttribute(attr_name="gn", null=True)
    waiting = IntegerAttribute(attr_name="gw", null=True)
    turned_away = IntegerAttribute(attr_name="gt", null=True)
    reason = UnicodeAttribute(attr_name="gr", null=True)
    due = UnicodeAttribute(attr_name="du", null=True)
    due_at = IntegerAttribute(attr_name="dt", null=True)

    by_due = _ByDue()


class AuditRow(Model):
    """An audit record (``domain.audit.AuditEvent``, the ``body``). ``subject`` is the request that it is of."""

    class Meta:
        table_name: str = ""

    pk = UnicodeAttribute(hash_key=True)
    id = IntegerAttribute(range_key=True)
    subject = UnicodeAttribute(attr_name="su", null=True)
    body = UnicodeAttribute(attr_name="b", null=True)
    expires = IntegerAttribute(attr_name="ttl", null=True)  # seconds since 1970

    by_subject = _BySubject()


class NoteRow(Model):
    """Small facts with an end: answers remembered by idempotency key, counters, lists of names."""

    class Meta:
        table_name: str = ""

    pk = UnicodeAttribute(hash_key=True)
    id = IntegerAttribute(range_key=True)
    value = UnicodeAttribute(attr_name="va", null=True)
    number = IntegerAttribute(attr_name="n", null=True)
    names = UnicodeSetAttribute(attr_name="ns", null=True)
    expires = IntegerAttribute(attr_name="ttl", null=True)  # seconds since 1970; DynamoDB deletes it within two days


@dataclass(frozen=True, slots=True)
class Tables:
    """The models of one deployment's tables, all over one client."""

    registry: type[RegistryRow]
    events: type[EventRow]
    enforcements: type[EnforcementRow]
    executions: type[ExecutionRow]
    timers: type[TimerRow]
    polls: type[PollRow]
    runs: type[RunRow]
    steps: type[StepRow]
    inquiries: type[InquiryRow]
    askings: type[AskingRow]
    garbage: type[GarbageRow]
    gates: type[GateRow]
    audit: type[AuditRow]
    notes: type[NoteRow]

    @property
    def connection(self) -> Connection:
        """What PynamoDB's transactions want to be given."""
        return self.registry._get_connection().connection


def open_tables(registry: str, activity: str) -> Tables:
    """Models bound to the tables of these names."""
    return Tables(
        registry=_bind(RegistryRow, registry),
        events=_bind(EventRow, activity),
        enforcements=_bind(EnforcementRow, activity),
        executions=_bind(ExecutionRow, activity),
        timers=_bind(TimerRow, activity),
        polls=_bind(PollRow, activity),
        runs=_bind(RunRow, activity),
        steps=_bind(StepRow, activity),
        inquiries=_bind(InquiryRow, activity),
        askings=_bind(AskingRow, activity),
        garbage=_bind(GarbageRow, activity),
        gates=_bind(GateRow, activity),
        audit=_bind(AuditRow, activity),
        notes=_bind(NoteRow, activity),
    )


def _bind(model: type[M], table: str) -> type[M]:
    bound: type[M] = type(model.__name__, (model,), {"Meta": type("Meta", (), {"table_name": table})})
    # PynamoDB would make a client for each model; they all go through the shared one.
    bound._get_connection().connection._client = clients.dynamodb()
    return bound
