"""Who may answer an inquiry, and what an answer, or none, does to it."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from chalicelib.domain import inquiries
from chalicelib.domain.entities import Escalation, Execution, Inquiry
from chalicelib.domain.inquiries import (
    AnsweredError,
    NotPendingError,
    NotYoursError,
    Person,
    QuestionError,
    ResponseError,
    answered,
    assignee,
    begin,
    is_asked,
    looked_at,
    next_look,
    outcome,
    read_question,
    reassigned,
    settled,
)
from chalicelib.domain.schemas import SchemaError

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
PEOPLE = {"ann@example.org": 1, "bob@example.org": 2}
EXECUTION = Execution(id=9, created=NOW, updated=NOW, action_ref="core.ask", status="requested")


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def asked(asker: int | None = 5, **parameters: Any) -> Inquiry:
    def identify(who: int | str) -> int | None:
        return PEOPLE.get(who) if isinstance(who, str) else who if who < 100 else None

    question = read_question(parameters)
    return begin(question, id_=1, execution=EXECUTION, asker=asker, identify=identify, now=NOW)


def person(identity: int = 1, *roles: str, may_respond: bool = False) -> Person:
    return Person(identity, f"p{identity}@example.org", frozenset(roles), may_respond)


ANYBODY = person(may_respond=True)

# --- asking


def test_a_question_has_defaults() -> None:
    inquiry = asked()
    assert (inquiry.prompt, inquiry.status, inquiry.required) == ("Approval required", "pending", 1)
    assert (inquiry.assigned_to, inquiry.timeout_at, inquiry.excluded) == (None, None, [])
    assert inquiry.asker == 5


def test_null_counts_as_absent_and_what_is_unknown_is_ignored() -> None:
    assert asked(prompt=None, required=None, colour="red") == asked()


def test_people_are_named_by_login_or_id() -> None:
    steps = [{"after": 9, "assigned_to": 2}, {"after": 3, "assigned_to": "ann@example.org", "assigned_role": "boss"}]
    inquiry = asked(assigned_to="bob@example.org", escalation=steps, exclude_asker=True, timeout_seconds=60)
    assert inquiry.assigned_to == 2
    assert inquiry.escalation == [
        Escalation(after=3, assigned_to=1, assigned_role="boss"),
        Escalation(after=9, assigned_to=2),
    ]
    assert inquiry.excluded == [5]
    assert inquiry.timeout_at == after(60)


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"prompt": 5}, "'prompt': Expected 'str', got 'int'"),
        ({"prompt": {"$attune_secret": True}}, "'prompt': Expected 'str', got 'object'"),
        ({"required": 0}, "'required': Expected 'int' >= 1"),
        ({"timeout": -1}, "'timeout': Expected 'float' > 0.0"),
        ({"assigned_to": "nobody@example.org"}, "'assigned_to': there is no identity 'nobody@example.org'"),
        ({"assigned_to": 100}, "'assigned_to': there is no identity '100'"),
        ({"escalation": [{"assigned_to": 1}]}, "'escalation[0]': Object missing required field 'after'"),
        ({"escalation": [{"after": 1}]}, "'escalation[0]': needs assigned_to or assigned_role"),
        ({"escalation": [{"after": 1, "assigned_to": 100}]}, "'escalation[0].assigned_to': there is no identity"),
        (
            {"response_schema": {"ok": {"type": "boolean", "required": True}}, "default_response": {}},
            "'default_response' breaks the response_schema: 'ok': is required",
        ),
    ],
)
def test_what_cannot_be_asked_says_why(parameters: dict[str, Any], said: str) -> None:
    with pytest.raises(QuestionError) as refused:
        asked(**parameters)
    assert str(refused.value).startswith(said)


def test_only_an_object_describes_an_inquiry() -> None:
    with pytest.raises(QuestionError):
        read_question("Go?")


def test_a_schema_that_cannot_be_used_is_refused() -> None:
    with pytest.raises(SchemaError):
        asked(response_schema={"ok": {"type": "wonder"}})


# --- who may answer


def test_what_is_nobodys_is_for_those_who_may_respond() -> None:
    assert answered(asked(), ANYBODY, "yes", now=NOW).status == "responded"
    with pytest.raises(NotYoursError, match="inquiries:respond"):
        answered(asked(), person(), "yes", now=NOW)


def test_what_is_assigned_is_for_the_assigned_only() -> None:
    inquiry = asked(assigned_to=1)
    assert answered(inquiry, person(1), "yes", now=NOW).status == "responded"
    with pytest.raises(NotYoursError, match="assigned to somebody else"):
        answered(inquiry, person(2, may_respond=True), "yes", now=NOW)


def test_a_role_may_answer() -> None:
    inquiry = asked(assigned_role="boss")
    assert answered(inquiry, person(7, "boss"), "yes", now=NOW).status == "responded"
    with pytest.raises(NotYoursError):
        answered(inquiry, person(7, "clerk", may_respond=True), "yes", now=NOW)


def test_a_step_of_the_escalation_asks_others_as_well() -> None:
    inquiry = asked(assigned_to=1, escalation=[{"after": 5, "assigned_to": 2}, {"after": 9, "assigned_role": "boss"}])
    for somebody in (person(2), person(3, "boss")):
        with pytest.raises(NotYoursError):
            answered(looked_at(inquiry, after(4)), somebody, "yes", now=after(4))
    first = looked_at(inquiry, after(5))
    assert (assignee(first), first.escalated) == (2, 1)
    assert is_asked(first, person(1))
    assert is_asked(first, person(2))
    assert not is_asked(first, person(3, "boss"))
    second = looked_at(first, after(9))
    assert (assignee(second), second.escalated) == (2, 2)
    assert is_asked(second, person(3, "boss"))


def test_what_is_nobodys_stays_so_when_it_is_escalated() -> None:
    inquiry = looked_at(asked(escalation=[{"after": 5, "assigned_to": 2}]), after(5))
    assert answered(inquiry, ANYBODY, "yes", now=after(6)).status == "responded"
    assert answered(inquiry, person(2), "yes", now=after(6)).status == "responded"


def test_the_asker_may_be_kept_out() -> None:
    inquiry = asked(asker=1, assigned_to=1, exclude_asker=True)
    with pytest.raises(NotYoursError, match="Who asks"):
        answered(inquiry, person(1), "yes", now=NOW)


def test_an_inquiry_reassigned_is_not_the_former_ones_any_more() -> None:
    inquiry = looked_at(
        asked(assigned_to=1, escalation=[{"after": 5, "assigned_to": 2}, {"after": 9, "assigned_to": 3}]), after(5)
    )
    moved = reassigned(inquiry, 4, now=after(6))
    assert assignee(moved) == 4
    assert [is_asked(moved, person(each)) for each in (1, 2, 3, 4)] == [False, False, False, True]
    assert next_look(moved) == after(9)
    assert assignee(looked_at(moved, after(9))) == 3


# --- answering


def test_a_response_is_held_against_the_schema() -> None:
    inquiry = asked(response_schema={"approved": {"type": "boolean", "required": True}})
    with pytest.raises(ResponseError) as refused:
        answered(inquiry, ANYBODY, {"approved": "yes"}, now=NOW)
    assert refused.value.violations == ["'approved': must be boolean, got string"]
    after_it = answered(inquiry, ANYBODY, {"approved": True}, now=after(1))
    assert (after_it.status, after_it.response, after_it.responded_at) == ("responded", {"approved": True}, after(1))


def test_json_schema_works_as_well() -> None:
    inquiry = asked(response_schema={"type": "string", "enum": ["go", "stop"]})
    with pytest.raises(ResponseError):
        answered(inquiry, ANYBODY, "maybe", now=NOW)
    assert answered(inquiry, ANYBODY, "go", now=NOW).response == "go"


def test_nothing_answers_a_settled_inquiry() -> None:
    for end in ("responded", "timeout", "cancelled"):
        inquiry = settled(asked(), end, now=NOW)
        with pytest.raises(NotPendingError):
            answered(inquiry, ANYBODY, "yes", now=NOW)
        with pytest.raises(NotPendingError):
            settled(inquiry, "cancelled", now=NOW)
        with pytest.raises(NotPendingError):
            reassigned(inquiry, 2, now=NOW)
        assert looked_at(inquiry, after(9999)) is inquiry
        assert next_look(inquiry) is None


def test_two_people_must_agree() -> None:
    inquiry = asked(required=2)
    one = answered(inquiry, ANYBODY, {"approved": True}, now=after(1))
    assert (one.status, one.response, one.responded_at) == ("pending", None, None)
    with pytest.raises(AnsweredError):
        answered(one, ANYBODY, {"approved": True}, now=after(2))
    two = answered(one, person(2, may_respond=True), {"approved": True, "note": "ok"}, now=after(3))
    assert (two.status, two.response) == ("responded", {"approved": True, "note": "ok"})
    assert [each.identity for each in two.responses] == [1, 2]


@pytest.mark.parametrize("refusal", [False, {"approved": False}, {"approved": False, "reason": "too late"}])
def test_one_who_refuses_settles_it(refusal: Any) -> None:
    inquiry = answered(asked(required=3), ANYBODY, refusal, now=NOW)
    assert (inquiry.status, inquiry.response) == ("responded", refusal)


# --- time


def test_time_runs_out() -> None:
    inquiry = asked(timeout=10)
    assert next_look(inquiry) == after(10)
    assert looked_at(inquiry, after(9.999)) is inquiry
    late = looked_at(inquiry, after(10))
    assert (late.status, late.response, late.responded_at) == ("timeout", None, None)


def test_a_default_response_is_taken_when_time_runs_out() -> None:
    late = looked_at(asked(timeout=10, default_response={"approved": False}), after(11))
    assert (late.status, late.response, late.responded_at) == ("responded", {"approved": False}, after(11))
    assert late.by_default
    assert late.responses == []


def test_steps_beyond_the_timeout_are_not_taken() -> None:
    steps = [{"after": 5, "assigned_to": 1}, {"after": 15, "assigned_to": 2}]
    inquiry = asked(timeout=10, escalation=steps)
    assert next_look(inquiry) == after(5)
    late = looked_at(inquiry, after(60))
    assert (late.status, late.escalated) == ("timeout", 1)


def test_without_steps_and_timeout_nothing_is_ever_due() -> None:
    assert next_look(asked()) is None
    assert looked_at(asked(), after(10**8)).status == "pending"


# --- the execution


def test_its_execution_ends_as_it_does() -> None:
    yes = answered(asked(), ANYBODY, {"approved": True}, now=NOW, key="k")
    status, result = outcome(yes)
    assert status == "completed"
    assert result["response"] == {"approved": True}
    assert (result["__inquiry_id"], result["__inquiry_created_published"]) == (1, True)
    assert result["responses"] == [
        {"identity": 1, "login": "p1@example.org", "response": {"approved": True}, "at": "2026-11-22T12:00:00Z"}
    ]
    assert outcome(settled(asked(), "timeout", now=NOW))[0] == "timeout"
    assert outcome(settled(asked(), "timeout", now=NOW))[1]["error"] == "inquiry timed out"
    assert outcome(settled(asked(), "cancelled", now=NOW))[0] == "cancelled"
    by_default = looked_at(asked(timeout=1, default_response=7), after(1))
    assert outcome(by_default) == (
        "completed",
        {"succeeded": True, "response": 7, "__inquiry_id": 1, "__inquiry_created_published": True, "by_default": True},
    )


def test_a_task_is_told_that_it_timed_out() -> None:
    task = replace(EXECUTION, workflow_task={"task_name": "ask", "timed_out": False})
    assert inquiries.timed_out_task(task, NOW) == {
        "task_name": "ask",
        "timed_out": True,
        "completed_at": "2026-11-22T12:00:00Z",
    }
    assert inquiries.timed_out_task(EXECUTION, NOW) is None


# --- anything

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["approved", "note", "x"]), inner, max_size=3)
    ),
    max_leaves=6,
)
SCHEMAS = st.sampled_from([
    None,
    {},
    {"approved": {"type": "boolean", "required": True}},
    {"type": "object", "required": ["note"], "properties": {"note": {"type": "string"}}},
    {"type": "boolean"},
])  # fmt: skip
ANSWERS = st.lists(st.tuples(st.integers(1, 4), st.sampled_from(["", "boss"]), JSON, st.floats(0, 30)), max_size=8)


@given(
    SCHEMAS,
    ANSWERS,
    st.integers(1, 3),
    st.none() | st.integers(1, 4),
    st.none() | st.just("boss"),
    st.booleans(),
    st.none() | st.integers(1, 30),
    st.lists(st.tuples(st.integers(1, 30), st.integers(1, 4)), max_size=3),
)
def test_whoever_answers_whatever(
    schema: Any,
    answers: list[tuple[int, str, Any, float]],
    required: int,
    assigned_to: int | None,
    role: str | None,
    exclude: bool,
    timeout: int | None,
    steps: list[tuple[int, int]],
) -> None:
    escalation = [{"after": seconds, "assigned_to": who} for seconds, who in steps]
    inquiry = asked(
        asker=1, response_schema=schema, required=required, assigned_to=assigned_to, assigned_role=role,
        exclude_asker=exclude, timeout=timeout, escalation=escalation,
    )  # fmt: skip
    for identity, held, response, seconds in sorted(answers, key=lambda answer: answer[3]):
        now = after(seconds)
        before = inquiry = looked_at(inquiry, now)
        try:
            inquiry = answered(inquiry, person(identity, held, may_respond=identity == 3), response, now=now)
        except (NotPendingError, NotYoursError, AnsweredError, ResponseError):
            assert inquiry is before
            continue
        assert before.status == "pending"
        assert len(inquiry.responses) == len(before.responses) + 1
        assert inquiry.status == "responded" or (not inquiries.refuses(response) and len(inquiry.responses) < required)
    people = [each.identity for each in inquiry.responses]
    assert len(set(people)) == len(people) <= required
    assert not (exclude and 1 in people)
    if inquiry.status == "pending":
        assert inquiry.response is None
        assert timeout is None or all(each[3] < timeout for each in answers)
    elif inquiry.status == "responded":
        assert inquiry.response == inquiry.responses[-1].response
        assert inquiries.refuses(inquiry.response) or len(people) == required
        inquiries.check_response(inquiry, inquiry.response)
    else:
        assert inquiry.status == "timeout"
    # What is stored is what was.
    assert msgspec.json.decode(msgspec.json.encode(inquiry), type=Inquiry) == inquiry
