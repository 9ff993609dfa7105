"""Inquiries are stored with their executions' transitions, once, and found by what people look for."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace as changed
from unit.store.builders import NOW, an_execution, new_id

from chalicelib.domain.entities import Escalation, Execution, Inquiry
from chalicelib.domain.inquiries import settled
from chalicelib.store.inquiries import Inquiries, InquiryFilter
from chalicelib.store.opening import Store, TenantStore


@pytest.fixture
def own(store: Store) -> TenantStore:
    return store.tenant("acme")


@pytest.fixture
def inquiries(own: TenantStore) -> Inquiries:
    return own.inquiries


def an_inquiry(**fields: Any) -> Inquiry:
    given = {"id": new_id(), "created": NOW, "updated": NOW, "execution": new_id(), "action_ref": "core.ask"}
    return Inquiry(**given | {"prompt": "Go?"} | fields)


def opened(inquiries: Inquiries, **fields: Any) -> Inquiry:
    inquiry = an_inquiry(**fields)
    assert inquiries.open(inquiry, look=None)
    return inquiry


def found(inquiries: Inquiries, offset: int = 0, limit: int = 50, **wanted: Any) -> tuple[list[int], int]:
    items, total = inquiries.find(InquiryFilter(**wanted), offset=offset, limit=limit)
    return [each.id for each in items], total


def waiting(own: TenantStore) -> Execution:
    return own.activity.create_execution(an_execution())


def test_it_is_read_by_id_and_by_execution(inquiries: Inquiries) -> None:
    inquiry = opened(inquiries, assigned_to=7, escalation=[Escalation(after=5, assigned_role="boss")])
    assert inquiries.get(inquiry.id) == inquiry
    assert inquiries.of_execution(inquiry.execution) == inquiry
    assert inquiries.get(inquiry.execution) is None
    assert inquiries.of_execution(inquiry.id) is None


def test_another_tenant_has_none(inquiries: Inquiries, store: Store) -> None:
    inquiry = opened(inquiries)
    stranger = store.tenant("other").inquiries
    assert stranger.get(inquiry.id) is None
    assert stranger.of_execution(inquiry.execution) is None
    assert found(stranger) == ([], 0)


def test_an_execution_has_one(inquiries: Inquiries) -> None:
    first = opened(inquiries)
    second = an_inquiry(execution=first.execution)
    assert not inquiries.open(second, look=None)
    assert inquiries.get(second.id) is None


def test_it_opens_with_its_execution_or_not_at_all(own: TenantStore) -> None:
    execution = waiting(own)

    def ask() -> tuple[Inquiry, bool]:
        inquiry = an_inquiry(execution=execution.id)
        move = own.activity.moving(
            execution.id, from_=("requested",), to="running", result={"inquiry_id": 1}, started_at=NOW, now=NOW
        )
        return inquiry, own.inquiries.open(inquiry, look=None, move=move)

    _, asked = ask()
    assert asked
    running = own.activity.get_execution(execution.id)
    assert running is not None
    assert (running.status, running.result, running.started_at) == ("running", {"inquiry_id": 1}, NOW)
    again, asked = ask()
    assert not asked
    assert own.inquiries.get(again.id) is None


def test_of_two_answers_one_is_written(inquiries: Inquiries) -> None:
    inquiry = opened(inquiries)
    one = settled(inquiry, "responded", now=NOW, response="one")
    other = settled(inquiry, "responded", now=NOW, response="other")
    assert inquiries.save(inquiry, one, look=None) is not None
    assert inquiries.save(inquiry, other, look=None) is None
    stored = inquiries.get(inquiry.id)
    assert stored is not None
    assert stored.response == "one"


def test_an_answer_comes_too_late_for_an_execution_that_moved_on(own: TenantStore) -> None:
    execution = waiting(own)
    inquiry = opened(own.inquiries, execution=execution.id)
    move = own.activity.moving(execution.id, from_=("running",), to="completed", result={}, now=NOW)
    assert own.inquiries.save(inquiry, settled(inquiry, "responded", now=NOW), look=None, move=move) is None
    assert own.inquiries.get(inquiry.id) == inquiry


def test_a_conflict_of_transactions_is_tried_again(inquiries: Inquiries, refuse: Any) -> None:
    refuse(2)
    opened(inquiries)


def test_after_its_deletion_the_execution_may_ask_anew(inquiries: Inquiries) -> None:
    inquiry = opened(inquiries)
    assert inquiries.delete(inquiry)
    assert inquiries.get(inquiry.id) is None
    assert not inquiries.delete(inquiry)
    opened(inquiries, execution=inquiry.execution)


def test_lists_are_newest_first_and_paged(inquiries: Inquiries) -> None:
    ids = [opened(inquiries).id for _ in range(5)][::-1]
    assert found(inquiries) == (ids, 5)
    assert found(inquiries, 1, 2) == (ids[1:3], 5)
    assert found(inquiries, 4, 2) == (ids[4:], 5)
    assert found(inquiries, 9, 2) == ([], 5)


def test_lists_follow_status_and_assignee(inquiries: Inquiries) -> None:
    of_seven = opened(inquiries, assigned_to=7, escalation=[Escalation(after=1, assigned_to=8)])
    free = opened(inquiries)
    answered = opened(inquiries, assigned_to=7)
    inquiries.save(answered, settled(answered, "responded", now=NOW, response=1), look=None)
    assert found(inquiries, status="pending") == ([free.id, of_seven.id], 2)
    assert found(inquiries, status="responded") == ([answered.id], 1)
    assert found(inquiries, status="timeout") == ([], 0)
    assert found(inquiries, assigned_to=7) == ([answered.id, of_seven.id], 2)
    assert found(inquiries, assigned_to=7, status="pending") == ([of_seven.id], 1)
    assert found(inquiries, execution=free.execution) == ([free.id], 1)
    assert found(inquiries, execution=free.execution, status="timeout") == ([], 0)

    inquiries.save(of_seven, changed(of_seven, escalated=1), look=None)
    assert found(inquiries, assigned_to=8) == ([of_seven.id], 1)
    assert found(inquiries, assigned_to=7) == ([answered.id], 1)


def test_what_may_not_be_seen_is_not_counted(inquiries: Inquiries) -> None:
    ids = [opened(inquiries).id for _ in range(3)][::-1]
    hidden = replace(InquiryFilter(), allowed=lambda inquiry: inquiry.id != ids[1])
    items, total = inquiries.find(hidden, offset=1, limit=5)
    assert ([each.id for each in items], total) == ([ids[2]], 2)


def test_what_is_due_leads_to_the_execution(inquiries: Inquiries, store: Store) -> None:
    inquiry = an_inquiry()
    assert inquiries.open(inquiry, look=NOW)
    assert store.due(NOW).executions == [("acme", inquiry.execution)]
    inquiries.look_again(inquiry.execution, NOW + timedelta(hours=1))
    assert store.due(NOW).executions == []
    assert store.due(NOW + timedelta(hours=1)).executions == [("acme", inquiry.execution)]
    inquiries.save(inquiry, settled(inquiry, "cancelled", now=NOW), look=None)
    inquiries.look_again(inquiry.execution, NOW)
    assert store.due(NOW + timedelta(hours=1)).executions == []


def test_a_long_answer_is_kept_whole(inquiries: Inquiries) -> None:
    inquiry = opened(inquiries)
    long = "x" * 500_000
    inquiries.save(inquiry, settled(inquiry, "responded", now=NOW, response=long), look=None)
    stored = inquiries.get(inquiry.id)
    assert stored is not None
    assert stored.response == long
