"""Questions to people: who may answer, what an answer does, and what happens when none comes (contract: semantics §2.8,
workflow-language §4.1, README 10; decision 024).

An inquiry settles once. It is ``responded`` when as many people as it requires have agreed, as soon as one refuses, or
by its default response when its time is up; else it ends in ``timeout``, or is ``cancelled``.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, Final

import msgspec
from msgspec.structs import replace

from chalicelib.domain import parameters
from chalicelib.domain.entities import Answer, Escalation, Execution, ExecutionStatus, Inquiry, InquiryStatus, Json

ASK: Final = "core.ask"  # the action that is the asking itself

MAX_PROMPT: Final = 10_000  # http-api part 2: CreateInquiryRequest
MAX_REQUIRED: Final = 100
MAX_STEPS: Final = 20
_MAX_SECONDS: Final = 10 * 365 * 24 * 3600

Seconds = Annotated[float, msgspec.Meta(gt=0, le=_MAX_SECONDS)]
Required = Annotated[int, msgspec.Meta(ge=1, le=MAX_REQUIRED)]
RoleName = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
Who = int | Annotated[str, msgspec.Meta(min_length=1, max_length=255)]  # an identity's id or login


class QuestionError(ValueError):
    """What is asked cannot be asked; the message says why."""


class NotPendingError(Exception):
    """The inquiry is settled already."""

    def __init__(self, inquiry: Inquiry) -> None:
        super().__init__(f"Inquiry '{inquiry.id}' is not pending: it is {inquiry.status}")


class NotYoursError(Exception):
    """Somebody else is to answer."""


class AnsweredError(Exception):
    """One person counts once."""


class ResponseError(Exception):
    """The response breaks the inquiry's schema; ``violations`` says how (README 10)."""

    def __init__(self, violations: list[str]) -> None:
        super().__init__(f"Response breaks the inquiry's schema: {'; '.join(violations)}")
        self.violations = violations


class Step(msgspec.Struct, kw_only=True, frozen=True):
    """After so many seconds without an answer, another identity or another role is asked as well."""

    after: Seconds
    assigned_to: Who | None = None
    assigned_role: RoleName | None = None


class Question(msgspec.Struct, kw_only=True, frozen=True):
    """What is to be asked: the parameters of ``core.ask``, and what an action puts into ``__inquiry``.

    ``timeout`` is in seconds; ``timeout_seconds`` is another name for it.
    """

    prompt: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_PROMPT)] = "Approval required"
    response_schema: dict[str, Json] | None = None
    assigned_to: Who | None = None
    assigned_role: RoleName | None = None
    required: Required = 1
    exclude_asker: bool = False
    escalation: Annotated[list[Step], msgspec.Meta(max_length=MAX_STEPS)] = []
    default_response: Json = None
    timeout: Seconds | None = None
    timeout_seconds: Seconds | None = None

    @property
    def seconds(self) -> float | None:
        return self.timeout or self.timeout_seconds


@dataclass(frozen=True, slots=True)
class Person:
    """Who wants to answer. ``roles``: the names of their roles and permission sets. ``may_respond``: a grant lets them
    answer what is nobody's in particular."""

    identity: int
    login: str
    roles: frozenset[str] = frozenset()
    may_respond: bool = False


def read_question(given: Json) -> Question:
    """The question that ``given`` describes; null counts as absent, and what is unknown is ignored. Raises
    :class:`QuestionError`."""
    if not isinstance(given, dict):
        raise QuestionError("an inquiry must be described by an object")
    try:
        return msgspec.convert({name: value for name, value in given.items() if value is not None}, Question)
    except msgspec.ValidationError as error:
        problem, _, at = str(error).replace("`", "'").partition(" - at ")
        path = at.strip("'").removeprefix("$.")
        raise QuestionError(f"'{path}': {problem}" if path else problem) from None


def begin(
    question: Question,
    *,
    id_: int,
    execution: Execution,
    asker: int | None,
    identify: Callable[[Who], int | None],
    now: datetime,
    timeout_at: datetime | None = None,
) -> Inquiry:
    """A new inquiry of ``execution``. ``identify`` gives the id of an identity, or None when there is none such.

    Raises :class:`QuestionError`, or ``SchemaError`` for a ``response_schema`` that cannot be used.
    """
    parameters.check_schema(question.response_schema)
    if question.default_response is not None:
        violations = parameters.validate(question.response_schema, question.default_response)
        if violations:
            raise QuestionError(f"'default_response' breaks the response_schema: {'; '.join(violations)}")
    if timeout_at is None and question.seconds is not None:
        timeout_at = now + timedelta(seconds=question.seconds)

    def known(who: Who | None, where: str) -> int | None:
        found = None if who is None else identify(who)
        if who is not None and found is None:
            raise QuestionError(f"'{where}': there is no identity '{who}'")
        return found

    return Inquiry(
        id=id_,
        created=now,
        updated=now,
        execution=execution.id,
        action_ref=execution.action_ref,
        prompt=question.prompt,
        asker=asker,
        assigned_to=known(question.assigned_to, "assigned_to"),
        assigned_role=question.assigned_role,
        excluded=[asker] if question.exclude_asker and asker is not None else [],
        required=question.required,
        response_schema=question.response_schema,
        default_response=question.default_response,
        escalation=sorted(_steps(question.escalation, known), key=lambda step: step.after),
        timeout_at=timeout_at,
    )


def _steps(steps: list[Step], known: Callable[[Who | None, str], int | None]) -> Iterator[Escalation]:
    for position, step in enumerate(steps):
        where = f"escalation[{position}]"
        if step.assigned_to is None and step.assigned_role is None:
            raise QuestionError(f"'{where}': needs assigned_to or assigned_role")
        assigned_to = known(step.assigned_to, f"{where}.assigned_to")
        yield Escalation(after=step.after, assigned_to=assigned_to, assigned_role=step.assigned_role)


# --- who is asked


def assignee(inquiry: Inquiry) -> int | None:
    """The identity that is asked now: that of the last step taken that names one, else the first."""
    named = [step.assigned_to for step in inquiry.escalation[: inquiry.escalated] if step.assigned_to is not None]
    return named[-1] if named else inquiry.assigned_to


def is_asked(inquiry: Inquiry, person: Person) -> bool:
    """Whether the inquiry is this person's to answer by name or by role: now, or before it was escalated."""
    asked: list[Inquiry | Escalation] = [inquiry, *inquiry.escalation[: inquiry.escalated]]
    return any(each.assigned_to == person.identity or each.assigned_role in person.roles for each in asked)


def check_may_answer(inquiry: Inquiry, person: Person) -> None:
    """Raise :class:`NotYoursError` unless ``person`` is one of those who are asked."""
    if person.identity in inquiry.excluded:
        raise NotYoursError("Who asks may not answer this inquiry")
    unassigned = inquiry.assigned_to is None and inquiry.assigned_role is None
    if not is_asked(inquiry, person) and not (unassigned and person.may_respond):
        raise NotYoursError(
            "Insufficient permissions: inquiries:respond"
            if unassigned
            else f"Inquiry '{inquiry.id}' is assigned to somebody else"
        )


# --- what happens to it


def given_with(inquiry: Inquiry, key: str | None) -> bool:
    """Whether an answer with this idempotency key is among the responses already (README 13)."""
    return key is not None and any(each.key == key for each in inquiry.responses)


def refuses(response: Json) -> bool:
    """Whether a response says no: ``false``, or an object whose ``approved`` is false. Nobody need agree any more."""
    return response is False or (isinstance(response, dict) and response.get("approved") is False)


def answered(inquiry: Inquiry, person: Person, response: Json, *, now: datetime, key: str | None = None) -> Inquiry:
    """The inquiry with one more response: still pending if it requires more people to agree.

    Raises :class:`NotPendingError`, :class:`NotYoursError`, :class:`AnsweredError` or :class:`ResponseError`.
    """
    if inquiry.status != "pending":
        raise NotPendingError(inquiry)
    check_may_answer(inquiry, person)
    if any(each.identity == person.identity for each in inquiry.responses):
        raise AnsweredError(f"You have answered inquiry '{inquiry.id}' already; it waits for somebody else")
    check_response(inquiry, response)
    answer = Answer(identity=person.identity, login=person.login, response=response, at=now, key=key)
    more = replace(inquiry, responses=[*inquiry.responses, answer], updated=now)
    settles = refuses(response) or len(more.responses) >= inquiry.required
    return settled(more, "responded", now=now, response=response) if settles else more


def check_response(inquiry: Inquiry, response: Json) -> None:
    """Raise :class:`ResponseError` for a response that the inquiry's schema does not allow."""
    if violations := parameters.validate(inquiry.response_schema, response):
        raise ResponseError(violations)


def settled(inquiry: Inquiry, status: InquiryStatus, *, now: datetime, response: Json = None) -> Inquiry:
    """The inquiry at its end. Raises :class:`NotPendingError` when it had one before."""
    if inquiry.status != "pending":
        raise NotPendingError(inquiry)
    responded_at = now if status == "responded" else None
    return replace(inquiry, status=status, response=response, responded_at=responded_at, updated=now)


def reassigned(inquiry: Inquiry, identity: int, *, now: datetime) -> Inquiry:
    """The inquiry asked of somebody else instead of whoever was asked so far."""
    if inquiry.status != "pending":
        raise NotPendingError(inquiry)
    left = inquiry.escalation[inquiry.escalated :]
    return replace(inquiry, assigned_to=identity, assigned_role=None, escalation=left, escalated=0, updated=now)


def looked_at(inquiry: Inquiry, now: datetime) -> Inquiry:
    """The inquiry after all that is due by ``now``: steps of its escalation, then its timeout. The same one if nothing
    is."""
    if inquiry.status != "pending":
        return inquiry
    until = now if inquiry.timeout_at is None else min(now, inquiry.timeout_at)
    taken = sum(_moment(inquiry, step) <= until for step in inquiry.escalation)
    if taken > inquiry.escalated:
        inquiry = replace(inquiry, escalated=taken, updated=now)
    if inquiry.timeout_at is None or now < inquiry.timeout_at:
        return inquiry
    if inquiry.default_response is None:
        return settled(inquiry, "timeout", now=now)
    return replace(settled(inquiry, "responded", now=now, response=inquiry.default_response), by_default=True)


def next_look(inquiry: Inquiry) -> datetime | None:
    """When something is due next; None: only an answer will change it."""
    if inquiry.status != "pending":
        return None
    moments = [_moment(inquiry, step) for step in inquiry.escalation[inquiry.escalated : inquiry.escalated + 1]]
    if inquiry.timeout_at is not None:
        moments.append(inquiry.timeout_at)
    return min(moments, default=None)


def _moment(inquiry: Inquiry, step: Escalation) -> datetime:
    return inquiry.created + timedelta(seconds=step.after)


# --- what its execution says


def waiting_result(inquiry: Inquiry) -> dict[str, Json]:
    """The result of the asking while nobody has answered (workflow-language §4.1)."""
    return {"inquiry_id": inquiry.id, "status": "pending"}


def outcome(inquiry: Inquiry) -> tuple[ExecutionStatus, dict[str, Json]]:
    """Status and result that the asking ends with, for an inquiry that is settled (workflow-language §4.1)."""
    about: dict[str, Any] = {"__inquiry_id": inquiry.id, "__inquiry_created_published": True}
    if inquiry.responses:
        about["responses"] = [shown(each) for each in inquiry.responses]
    if inquiry.status == "responded":
        by_default = {"by_default": True} if inquiry.by_default else {}
        return "completed", {"succeeded": True, "response": inquiry.response, **about, **by_default}
    if inquiry.status == "timeout":
        return "timeout", {"succeeded": False, "error": "inquiry timed out", **about}
    return "cancelled", {"succeeded": False, "error": "inquiry cancelled", **about}


def shown(answer: Answer) -> dict[str, Json]:
    """An answer as it is told to others."""
    told: dict[str, Json] = msgspec.to_builtins(answer)
    told.pop("key", None)
    return told


def timed_out_task(execution: Execution, now: datetime) -> Json:
    """``workflow_task`` of an execution whose inquiry timed out; None for one that is no task."""
    if not isinstance(execution.workflow_task, dict):
        return None
    return {**execution.workflow_task, "timed_out": True, "completed_at": msgspec.to_builtins(now)}
