"""Asking people and taking in what they say (semantics §2.8, workflow-language §4.1, decision 024).

An inquiry is settled in one transaction with the end of the execution that waits for it. What is due at a moment, the
steps of its escalation and its timeout, is done by whoever looks at it then: a wake, to the second, or the sweeper.
"""

from contextlib import suppress
from datetime import datetime, timedelta
from typing import Final

import msgspec
from msgspec.structs import replace

from chalicelib.domain import inquiries
from chalicelib.domain.entities import Execution, Inquiry, InquiryStatus, Json
from chalicelib.domain.executions import CANCELING, RUNNING, WAITING
from chalicelib.domain.inquiries import (
    ASK,
    NotPendingError,
    Person,
    Question,
    QuestionError,
    Who,
    begin,
    check_may_answer,
    check_response,
    given_with,
    looked_at,
    next_look,
    read_question,
    settled,
)
from chalicelib.domain.schemas import SchemaError
from chalicelib.flow import endings
from chalicelib.flow.wakes import wake_at
from chalicelib.log import logger
from chalicelib.protocol import ExecutionRequested, RunFinished, Wake
from chalicelib.services import Services
from chalicelib.store.activity import BusyError, Move
from chalicelib.store.snapshot import Snapshot

RAISED: Final = "__inquiry"  # what an action's result calls the inquiry that it wants (workflow-language §4.1)

_EARLY: Final = timedelta(minutes=5)  # what is due later than that is looked at so long before, to send the wake
_LATE: Final = timedelta(minutes=1)  # by then a wake that has not come is lost
_AGAIN: Final = 1  # seconds
_TRIES: Final = 20  # ids, and answers of other people in the same instant


class ExistsError(Exception):
    """The execution has an inquiry already (design §2: one per execution)."""

    def __init__(self, execution: int) -> None:
        super().__init__(f"Execution '{execution}' has an inquiry already")


def ask(services: Services, snapshot: Snapshot, message: ExecutionRequested) -> None:
    """Start an execution of ``core.ask``: it runs until somebody answers. Asking again is harmless."""
    now, activity = services.clock(), services.store.tenant(message.tenant).activity
    execution = activity.get_execution(message.id)
    if execution is None:
        return
    if execution.status not in WAITING:
        # An earlier delivery has asked. It may have died before it saw to what is due.
        look_at(services, message.tenant, execution, now)
        return
    error: Exception = ExistsError(message.id)
    try:
        question = read_question(execution.config or {})
        if execution.timeout is not None:
            question = replace(question, timeout=execution.timeout)
        asker = execution.executor
        if _open(services, message.tenant, execution, question, asker=asker, snapshot=snapshot, waits=True) is not None:
            return
    except (QuestionError, SchemaError) as refused:
        error = refused
    # If it was another delivery that asked just now, the execution waits no more and stays as it is.
    result = {"succeeded": False, "error": f"Cannot ask: {error}"}
    failed = activity.transition(message.id, from_=WAITING, to="failed", result=result, now=now)
    if failed is not None:
        endings.ended(services, message.tenant, [failed])


def create(
    services: Services,
    tenant: str,
    execution: Execution,
    question: Question,
    *,
    asker: int | None,
    timeout_at: datetime | None = None,
) -> Inquiry:
    """An inquiry that somebody else opens for ``execution``, which does not wait for it.

    Raises QuestionError, SchemaError, or :class:`ExistsError`: also for an execution that is about to ask by itself.
    """
    if execution.action_ref == ASK and execution.status in WAITING:
        raise ExistsError(execution.id)
    snapshot = services.snapshots.of(tenant)
    opened = _open(services, tenant, execution, question, asker=asker, snapshot=snapshot, timeout_at=timeout_at)
    if opened is None:
        raise ExistsError(execution.id)
    return opened


def raised_by(services: Services, tenant: str, execution: Execution) -> None:
    """Open the inquiry that the result of a completed execution asks for, if it does. Harmless to repeat."""
    given = _raised_in(execution.result)
    if given is None or execution.status != "completed":
        return
    try:
        create(services, tenant, execution, read_question(given), asker=execution.executor)
    except (QuestionError, SchemaError) as error:
        logger.warning("inquiry of a result refused", tenant=tenant, execution=execution.id, reason=str(error))
    except ExistsError:
        look_at(services, tenant, execution, services.clock())


def raised_again(services: Services, report: RunFinished) -> None:
    """The same for a report that came too late to end its execution: an earlier delivery of it may have ended that and
    died before it asked."""
    if _raised_in(report.result) is not None:
        execution = services.store.tenant(report.tenant).activity.get_execution(report.execution)
        if execution is not None:
            raised_by(services, report.tenant, execution)


def _raised_in(result: Json) -> Json:
    """What ``result``, the data in it, or the JSON that was printed says under ``__inquiry``."""
    if not isinstance(result, dict):
        return None
    places = [result, result.get("data")]
    printed = result.get("stdout")
    if isinstance(printed, str) and f'"{RAISED}"' in printed:
        with suppress(msgspec.DecodeError, RecursionError):
            places.append(msgspec.json.decode(printed))
    return next((place[RAISED] for place in places if isinstance(place, dict) and RAISED in place), None)


def _open(
    services: Services,
    tenant: str,
    execution: Execution,
    question: Question,
    *,
    asker: int | None,
    snapshot: Snapshot,
    timeout_at: datetime | None = None,
    waits: bool = False,
) -> Inquiry | None:
    """Store an inquiry and see to what is due. None: somebody else has asked already, or the execution does not wait
    (any more)."""
    store, now = services.store.tenant(tenant), services.clock()
    drawn = begin(
        question,
        id_=services.new_id(),
        execution=execution,
        asker=asker,
        identify=lambda who: _identify(services, snapshot, who),
        now=now,
        timeout_at=timeout_at,
    )
    # Whose permissions are narrowed to a pack sees what that pack's workflows ask.
    parent = store.activity.get_execution(execution.parent) if waits and execution.parent is not None else None
    asking = execution.action_ref if parent is None else parent.action_ref
    for _ in range(_TRIES):
        inquiry = replace(drawn, id=services.new_id(), waits=waits, action_ref=asking)
        move = None
        if waits:
            result = inquiries.waiting_result(inquiry)
            move = store.activity.moving(
                execution.id, from_=WAITING, to="running", result=result, started_at=now, now=now
            )
        if store.inquiries.open(inquiry, look=_look(inquiry, now), move=move):
            _happened(tenant, "inquiry_created", inquiry)
            _wake(services, tenant, inquiry)
            return inquiry
        if store.inquiries.of_execution(execution.id) is not None:
            break
        if waits and store.activity.execution_status(execution.id) not in WAITING:
            break
    return None


def _identify(services: Services, snapshot: Snapshot, who: Who) -> int | None:
    """The id of the identity that has this id or login."""
    identities = services.store.tenant(snapshot.tenant).registry.identities
    if isinstance(who, str):
        found = snapshot.identity(who) or identities.get(who)
        if found is None and who.isdecimal() and len(who) < 20:
            found = identities.by_id(int(who), own=True)
    else:
        found = snapshot.identity_by_id(who) or identities.by_id(who, own=True)
    return None if found is None else found.id


# --- answers


def respond(
    services: Services, tenant: str, id_: int, person: Person, response: Json, *, key: str | None = None
) -> Inquiry | None:
    """Take in what ``person`` answers, and return the inquiry as it then is; None when there is none.

    The same idempotency ``key`` again gives the inquiry and does nothing (README 13). Raises what
    ``domain.inquiries.answered`` does: of two people in the same instant, one is too late.
    """
    store = services.store.tenant(tenant)
    for _ in range(_TRIES):
        inquiry = store.inquiries.get(id_)
        if inquiry is None:
            return None
        if given_with(inquiry, key):
            _told(services, tenant, inquiry)  # who came first may have died before it told anybody
            return inquiry
        if inquiry.status != "pending":
            raise NotPendingError(inquiry)
        now = services.clock()
        current = looked_at(inquiry, now)
        check_may_answer(current, person)
        if current.status != "pending":  # its time is up, and nobody has noticed yet
            _write(services, tenant, inquiry, current)
            raise NotPendingError(current)
        answered = inquiries.answered(current, person, response, now=now, key=key)
        if (stored := _write(services, tenant, inquiry, answered)) is not None:
            return stored
    raise BusyError(f"inquiry {id_} is being answered by somebody else")


def same_run(services: Services, tenant: str, execution: int, inquiry: Inquiry) -> bool:
    """Whether an execution belongs to the run that asks: the one that created the inquiry, a descendant of it, or a
    part of the same workflow. If it could answer, the run would approve itself (semantics §2.8: privilege loop)."""
    return _top(services, tenant, execution) == _top(services, tenant, inquiry.execution)


def _top(services: Services, tenant: str, id_: int) -> int:
    activity = services.store.tenant(tenant).activity
    while (execution := activity.get_execution(id_)) is not None:
        above = execution.root or execution.parent
        if above is None:
            break
        id_ = above
    return id_


# --- what an administrator does


def change(
    services: Services,
    tenant: str,
    id_: int,
    *,
    status: InquiryStatus | None = None,
    response: Json = None,
    assigned_to: int | None = None,
) -> Inquiry | None:
    """Reassign a pending inquiry, set its response, or settle it for those who were asked; None when there is none.

    Raises NotPendingError for a settled one, QuestionError for an unknown identity, ResponseError.
    """
    store = services.store.tenant(tenant)
    for _ in range(_TRIES):
        inquiry = store.inquiries.get(id_)
        if inquiry is None:
            return None
        now, changed = services.clock(), inquiry
        if assigned_to is not None:
            if _identify(services, services.snapshots.of(tenant), assigned_to) is None:
                raise QuestionError(f"'assigned_to': there is no identity '{assigned_to}'")
            changed = inquiries.reassigned(changed, assigned_to, now=now)
        if response is not None:
            if changed.status != "pending":
                raise NotPendingError(changed)
            check_response(changed, response)
            changed = replace(changed, response=response, updated=now)
        if status is not None and status != changed.status:
            if status == "responded":
                check_response(changed, changed.response)
            changed = settled(changed, status, now=now, response=changed.response)
        if changed is inquiry or (stored := _write(services, tenant, inquiry, changed)) is not None:
            return inquiry if changed is inquiry else stored
    raise BusyError(f"inquiry {id_} is being answered by somebody else")


def delete(services: Services, tenant: str, inquiry: Inquiry) -> bool:
    """Forget an inquiry; an execution that waits for it is cancelled. False: somebody else has changed it meanwhile."""
    pending = inquiry.status == "pending"
    gone = settled(inquiry, "cancelled", now=services.clock()) if pending else inquiry
    move = _end(services, tenant, gone) if pending else None
    if not services.store.tenant(tenant).inquiries.delete(inquiry, move):
        return False
    if move is not None:
        _told(services, tenant, gone)
    return True


def cancel(services: Services, tenant: str, execution: Execution) -> Execution:
    """End an execution of ``core.ask`` that is ``canceling``, and its inquiry: nobody else will."""
    store = services.store.tenant(tenant)
    for _ in range(_TRIES):
        inquiry, now = store.inquiries.of_execution(execution.id), services.clock()
        if inquiry is not None and inquiry.status == "pending":
            if _write(services, tenant, inquiry, settled(inquiry, "cancelled", now=now)) is not None:
                break
        else:
            result = {"succeeded": False, "error": "inquiry cancelled"}
            ended = store.activity.transition(execution.id, from_=CANCELING, to="cancelled", result=result, now=now)
            if ended is not None:
                endings.ended(services, tenant, [ended])
            break
    return store.activity.get_execution(execution.id) or execution


# --- time


def look_at(services: Services, tenant: str, execution: Execution, now: datetime) -> None:
    """Do what is due of the inquiry of ``execution``, and see to what is due next; whoever finds nothing does
    nothing."""
    if execution.action_ref == ASK and execution.status in CANCELING:
        cancel(services, tenant, execution)  # whoever began that died before its end
        return
    inquiry = services.store.tenant(tenant).inquiries.of_execution(execution.id)
    if inquiry is None or inquiry.status != "pending":
        return
    after = looked_at(inquiry, now)
    if after is not inquiry:
        _write(services, tenant, inquiry, after)
    elif (look := _look(inquiry, now)) is not None:
        services.store.tenant(tenant).inquiries.look_again(execution.id, look)
        _wake(services, tenant, inquiry)


def _look(inquiry: Inquiry, now: datetime) -> datetime | None:
    """When the sweeper is to look at an inquiry: ahead of what is due later, to send the wake; and behind what is due
    soon, in case that the wake is lost."""
    moment = next_look(inquiry)
    if moment is None:
        return None
    return moment - _EARLY if moment > now + _EARLY else max(moment, now) + _LATE


def _wake(services: Services, tenant: str, inquiry: Inquiry) -> None:
    moment = next_look(inquiry)
    if moment is not None:
        wake_at(services, tenant, inquiry.execution, moment)


# --- writing


def _write(services: Services, tenant: str, before: Inquiry, after: Inquiry) -> Inquiry | None:
    """Write what has become of an inquiry, with the end of the execution that waits for it, and tell whom it concerns.

    None: somebody else was first, and nothing is written.
    """
    store, now = services.store.tenant(tenant), services.clock()
    move = _end(services, tenant, after) if after.status != "pending" else None
    stored = store.inquiries.save(before, after, look=_look(after, now), move=move)
    if stored is None:
        if move is not None and store.inquiries.get(before.id) == before:
            # Its execution has ended without it: it cannot be answered any more.
            store.inquiries.save(before, settled(before, "cancelled", now=now), look=None)
        return None
    if stored.status != "pending":
        _happened(tenant, f"inquiry_{stored.status}", stored)
        _told(services, tenant, stored)
        return stored
    if stored.escalated > before.escalated:
        _happened(tenant, "inquiry_escalated", stored)
    _wake(services, tenant, stored)
    return stored


def _end(services: Services, tenant: str, inquiry: Inquiry) -> Move | None:
    """The end of the execution that waits for a settled inquiry; None when none does."""
    if not inquiry.waits:
        return None
    activity, now = services.store.tenant(tenant).activity, services.clock()
    status, result = inquiries.outcome(inquiry)
    task = None
    if status == "timeout" and (execution := activity.get_execution(inquiry.execution)) is not None:
        task = inquiries.timed_out_task(execution, now)
    from_ = (*RUNNING, *CANCELING) if status == "cancelled" else RUNNING
    return activity.moving(inquiry.execution, from_=from_, to=status, result=result, workflow_task=task, now=now)


def _told(services: Services, tenant: str, inquiry: Inquiry) -> None:
    """Tell whoever waits for the execution that has ended with its inquiry. If that fails, what was answered stays
    answered, and the run that the execution is a part of is woken to look for what it missed."""
    if not inquiry.waits or inquiry.status == "pending":
        return
    execution = services.store.tenant(tenant).activity.get_execution(inquiry.execution)
    if execution is None:
        return
    try:
        endings.ended(services, tenant, [execution])
    except Exception:
        logger.exception("end of an inquiry could not be told", tenant=tenant, execution=execution.id)
        if execution.parent is not None:
            services.queues.wake(Wake(tenant=tenant, id=execution.parent), delay=_AGAIN)


def _happened(tenant: str, what: str, inquiry: Inquiry) -> None:
    """The one place that hears of everything that happens to an inquiry: ``inquiry_created``, ``inquiry_escalated``,
    ``inquiry_responded``, ``inquiry_timeout``, ``inquiry_cancelled``."""
    logger.info(
        what,
        tenant=tenant,
        inquiry=inquiry.id,
        execution=inquiry.execution,
        assigned_to=inquiries.assignee(inquiry),
        by_default=inquiry.by_default,
    )
