"""Asking and answering on the store: once, whatever comes twice, at once, late or never."""

from datetime import UTC, datetime
from typing import Any

import pytest
from unit.flow.world import World

from chalicelib.domain.entities import SYSTEM_TENANT, Action, Execution, Identity, Inquiry
from chalicelib.domain.inquiries import NotPendingError, NotYoursError, Person, ResponseError, read_question
from chalicelib.flow import conductor, endings, executor, inquiries, sweeper
from chalicelib.flow.cancel import NotCancellableError, cancel
from chalicelib.flow.inquiries import ExistsError
from chalicelib.flow.intake import request_execution
from chalicelib.protocol import RunFinished, Wake
from chalicelib.store.registry import Put

ANYBODY = Person(1, "ann@example.org", may_respond=True)


@pytest.fixture
def ask(world: World) -> Action:
    """``core.ask`` as the core pack installs it."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    action = Action(
        id=world.services.new_id(), ref="core.ask", created=now, updated=now, pack=1, pack_ref="core", label="Ask",
        entrypoint="", runtime_ref="core.native",
    )  # fmt: skip
    world.services.store.tenant(SYSTEM_TENANT).registry.commit(Put(action, new=True))
    return action


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The executions whose end was told."""
    ids: list[int] = []

    def ended(_services: Any, _tenant: str, executions: list[Execution]) -> None:
        ids.extend(execution.id for execution in executions)

    monkeypatch.setattr(endings, "ended", ended)
    return ids


def asking(world: World, action: Action, *, timeout: int | None = None, **parameters: Any) -> Execution:
    """An execution of ``core.ask`` as the executor leaves it."""
    execution = request_execution(world.services, world.tenant, action, parameters=parameters, timeout=timeout)
    executor.handle(world.services, [world.requests[-1]])
    return world.activity.get_execution(execution.id)


def inquiry_of(world: World, execution: Execution) -> Inquiry:
    inquiry = world.store.inquiries.of_execution(execution.id)
    assert inquiry is not None
    return inquiry


def respond(world: World, inquiry: Inquiry, response: Any = "yes", **options: Any) -> Inquiry | None:
    person = options.pop("person", ANYBODY)
    return inquiries.respond(world.services, world.tenant, inquiry.id, person, response, **options)


def look(world: World, execution: Execution) -> Execution:
    """Let the wake arrive that was sent last."""
    sweeper.look_at(world.services, world.tenant, execution.id, world.clock())
    return world.activity.get_execution(execution.id)


def sweep(world: World) -> None:
    sweeper.sweep(world.services, world.services.store.due(world.clock()).executions, world.clock())


def test_an_execution_asks_and_waits(world: World, ask: Action, told: list[int]) -> None:
    execution = asking(world, ask, prompt="Go?", response_schema={"ok": {"type": "boolean"}})
    inquiry = inquiry_of(world, execution)
    assert execution.status == "running"
    assert execution.result == {"inquiry_id": inquiry.id, "status": "pending"}
    assert (inquiry.prompt, inquiry.response_schema) == ("Go?", {"ok": {"type": "boolean"}})
    assert (inquiry.status, inquiry.action_ref, inquiry.waits) == ("pending", "core.ask", True)
    assert told == []


def test_an_answer_ends_it(world: World, ask: Action, told: list[int]) -> None:
    execution = asking(world, ask)
    answered = respond(world, inquiry_of(world, execution), {"ok": True})
    assert answered is not None
    assert answered.status == "responded"
    ended = world.activity.get_execution(execution.id)
    assert ended.status == "completed"
    assert ended.result["response"] == {"ok": True}
    assert ended.result["__inquiry_id"] == answered.id
    assert told == [execution.id]


def test_asking_twice_asks_once(world: World, ask: Action) -> None:
    execution = asking(world, ask, timeout=30)
    inquiry = inquiry_of(world, execution)
    world.queues.wakes.clear()
    assert executor.handle(world.services, [world.requests[-1]]) == []
    assert inquiry_of(world, execution) == inquiry
    assert world.activity.get_execution(execution.id).status == "running"
    # The first delivery may have died before it sent the wake.
    assert world.queues.wakes == [(Wake(tenant=world.tenant, id=execution.id), 30)]


def test_what_cannot_be_asked_fails(world: World, ask: Action, told: list[int]) -> None:
    execution = asking(world, ask, assigned_to="nobody@example.org")
    assert execution.status == "failed"
    assert execution.result["error"] == "Cannot ask: 'assigned_to': there is no identity 'nobody@example.org'"
    assert told == [execution.id]
    execution = asking(world, ask, response_schema={"ok": {"type": "wonder"}})
    assert execution.result["error"].startswith("Cannot ask: ok.type: 'wonder' is not a type")


def test_who_is_asked_is_found_by_login_and_id(world: World, ask: Action) -> None:
    for name in (world.owner.login, world.owner.id, str(world.owner.id)):
        assert inquiry_of(world, asking(world, ask, assigned_to=name)).assigned_to == world.owner.id


def test_a_bad_response_leaves_it_pending(world: World, ask: Action) -> None:
    execution = asking(world, ask, response_schema={"ok": {"type": "boolean", "required": True}})
    inquiry = inquiry_of(world, execution)
    with pytest.raises(ResponseError):
        respond(world, inquiry, {"ok": "perhaps"})
    assert inquiry_of(world, execution) == inquiry
    assert world.activity.get_execution(execution.id).status == "running"


def test_the_second_answer_comes_too_late(world: World, ask: Action) -> None:
    execution = asking(world, ask)
    inquiry = inquiry_of(world, execution)
    respond(world, inquiry, "first")
    with pytest.raises(NotPendingError):
        respond(world, inquiry, "second", person=Person(2, "bob@example.org", may_respond=True))
    assert world.activity.get_execution(execution.id).result["response"] == "first"


def test_an_answer_repeated_with_its_key_is_the_first(world: World, ask: Action, told: list[int]) -> None:
    execution = asking(world, ask)
    inquiry = inquiry_of(world, execution)
    first = respond(world, inquiry, "first", key="k")
    assert respond(world, inquiry, "second", key="k") == first
    # Whoever answered may have died before telling of it.
    assert told == [execution.id, execution.id]


def test_an_answer_stays_though_nobody_could_be_told(
    world: World, ask: Action, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(*_: Any) -> None:
        raise ConnectionError("queue out of reach")

    flow = request_execution(world.services, world.tenant, world.action, parameters={})
    task = request_execution(world.services, world.tenant, ask, parameters={}, parent=flow.id, root=flow.id)
    executor.handle(world.services, [world.requests[-1]])
    monkeypatch.setattr(endings, "ended", busy)
    answered = respond(world, inquiry_of(world, task))
    assert answered is not None
    assert answered.status == "responded"
    assert world.queues.wakes == [(Wake(tenant=world.tenant, id=flow.id), 1)]


def test_its_time_runs_out_to_the_second(world: World, ask: Action, told: list[int]) -> None:
    execution = asking(world, ask, timeout=90)
    assert world.queues.wakes == [(Wake(tenant=world.tenant, id=execution.id), 90)]
    world.clock.advance(seconds=89)
    assert look(world, execution).status == "running"
    world.clock.advance(seconds=1)
    ended = look(world, execution)
    assert (ended.status, ended.result["error"]) == ("timeout", "inquiry timed out")
    assert inquiry_of(world, execution).status == "timeout"
    assert told == [execution.id]
    with pytest.raises(NotPendingError):
        respond(world, inquiry_of(world, execution))


def test_the_timeout_of_the_task_goes_first(world: World, ask: Action) -> None:
    inquiry = inquiry_of(world, asking(world, ask, timeout=90, timeout_seconds=30))
    assert inquiry.timeout_at is not None
    assert (inquiry.timeout_at - inquiry.created).total_seconds() == 90
    inquiry = inquiry_of(world, asking(world, ask, timeout_seconds=30))
    assert inquiry.timeout_at is not None
    assert (inquiry.timeout_at - inquiry.created).total_seconds() == 30


def test_a_default_response_completes_it(world: World, ask: Action) -> None:
    execution = asking(world, ask, timeout=5, default_response={"approved": False})
    world.clock.advance(seconds=5)
    ended = look(world, execution)
    assert ended.status == "completed"
    assert (ended.result["response"], ended.result["by_default"]) == ({"approved": False}, True)


def test_an_answer_after_the_time_is_refused_though_nobody_looked(world: World, ask: Action) -> None:
    execution = asking(world, ask, timeout=5)
    world.clock.advance(seconds=6)
    with pytest.raises(NotPendingError, match="it is timeout"):
        respond(world, inquiry_of(world, execution))
    assert world.activity.get_execution(execution.id).status == "timeout"


def test_steps_are_taken_and_the_next_wake_sent(world: World, ask: Action) -> None:
    owner = world.owner.id
    other: Identity = world.put(Identity, "other@example.org")
    steps = [{"after": 10, "assigned_to": other.id}, {"after": 20, "assigned_role": "boss"}]
    execution = asking(world, ask, assigned_to=owner, escalation=steps, timeout=60)
    assert world.queues.wakes[-1][1] == 10
    with pytest.raises(NotYoursError):
        respond(world, inquiry_of(world, execution), person=Person(other.id, other.login))
    world.clock.advance(seconds=10)
    look(world, execution)
    assert inquiry_of(world, execution).escalated == 1
    assert world.queues.wakes[-1][1] == 10
    world.clock.advance(seconds=10)
    look(world, execution)
    assert inquiry_of(world, execution).escalated == 2
    assert world.queues.wakes[-1][1] == 40
    respond(world, inquiry_of(world, execution), person=Person(other.id, other.login))
    assert world.activity.get_execution(execution.id).status == "completed"


def test_a_step_that_is_due_counts_before_anybody_has_looked(world: World, ask: Action) -> None:
    other: Identity = world.put(Identity, "other@example.org")
    steps = [{"after": 10, "assigned_to": other.id}]
    execution = asking(world, ask, assigned_to=world.owner.id, escalation=steps)
    world.clock.advance(seconds=11)
    answered = respond(world, inquiry_of(world, execution), person=Person(other.id, other.login))
    assert answered is not None
    assert (answered.status, answered.escalated) == ("responded", 1)


def test_a_lost_wake_is_made_up_for(world: World, ask: Action) -> None:
    execution = asking(world, ask, timeout=90)
    world.clock.advance(seconds=89)
    sweep(world)
    assert world.activity.get_execution(execution.id).status == "running"
    world.clock.advance(seconds=62)
    sweep(world)
    assert world.activity.get_execution(execution.id).status == "timeout"


def test_what_is_due_in_days_is_waked_for_then(world: World, ask: Action) -> None:
    execution = asking(world, ask, timeout=3 * 24 * 3600)
    assert world.queues.wakes == []
    world.clock.advance(days=2)
    sweep(world)
    assert world.queues.wakes == []
    world.clock.advance(hours=23, minutes=56)
    sweep(world)
    assert world.queues.wakes[-1] == (Wake(tenant=world.tenant, id=execution.id), 240)
    world.clock.advance(minutes=4)
    assert look(world, execution).status == "timeout"


def test_without_a_timeout_it_waits_for_ever(world: World, ask: Action) -> None:
    execution = asking(world, ask)
    for _ in range(3):
        world.clock.advance(days=30)
        sweep(world)
    assert world.activity.get_execution(execution.id).status == "running"
    assert world.queues.wakes == []
    respond(world, inquiry_of(world, execution))
    assert world.activity.get_execution(execution.id).status == "completed"


def test_cancelling_cancels_both_at_once(world: World, ask: Action, told: list[int]) -> None:
    execution = asking(world, ask, timeout=60)
    cancelled = cancel(world.services, world.tenant, execution.id)
    assert cancelled is not None
    assert cancelled.status == "cancelled"
    assert inquiry_of(world, execution).status == "cancelled"
    assert told == [execution.id]
    with pytest.raises(NotPendingError):
        respond(world, inquiry_of(world, execution))
    with pytest.raises(NotCancellableError):
        cancel(world.services, world.tenant, execution.id)
    world.clock.advance(minutes=5)
    sweep(world)
    assert world.activity.get_execution(execution.id).status == "cancelled"


def test_a_cancellation_that_was_cut_off_is_finished(world: World, ask: Action) -> None:
    execution = asking(world, ask)
    world.activity.transition(execution.id, from_=("running",), to="canceling", now=world.clock())
    with pytest.raises(NotPendingError):
        respond(world, inquiry_of(world, execution))
    assert look(world, execution).status == "cancelled"
    assert inquiry_of(world, execution).status == "cancelled"


def test_an_answer_finds_an_execution_that_has_ended_without_it(world: World, ask: Action) -> None:
    execution = asking(world, ask)
    world.activity.transition(execution.id, from_=("running",), to="abandoned", now=world.clock())
    with pytest.raises(NotPendingError):
        respond(world, inquiry_of(world, execution))
    assert inquiry_of(world, execution).status == "cancelled"


# --- by others


def finished(world: World, result: Any, status: Any = "completed") -> Execution:
    """An execution of an ordinary action that ends with ``result``."""
    execution = request_execution(world.services, world.tenant, world.action, parameters={}, executor=world.owner.id)
    executor.handle(world.services, [world.requests[-1]])
    run = world.runner.runs[-1]
    report = RunFinished(
        tenant=run.tenant, execution=run.execution, attempt=1, token=run.token, status=status, result=result
    )
    conductor.finish(world.services, report)
    conductor.finish(world.services, report)  # SQS may deliver twice
    return world.activity.get_execution(execution.id)


@pytest.mark.parametrize(
    "result",
    [
        {"data": {"__inquiry": {"prompt": "Deploy?", "timeout_seconds": 30}}, "stdout": "..."},
        {"stdout": '{"__inquiry": {"prompt": "Deploy?", "timeout_seconds": 30}}'},
        {"__inquiry": {"prompt": "Deploy?", "timeout_seconds": 30}},
    ],
)
def test_a_result_may_ask(world: World, result: Any) -> None:
    execution = finished(world, result)
    assert execution.status == "completed"
    inquiry = inquiry_of(world, execution)
    assert (inquiry.prompt, inquiry.waits, inquiry.asker) == ("Deploy?", False, world.owner.id)
    world.clock.advance(seconds=30)
    look(world, execution)
    assert inquiry_of(world, execution).status == "timeout"
    assert world.activity.get_execution(execution.id) == execution


def test_a_result_asks_though_its_first_delivery_died(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(inquiries, "raised_by", lambda *_: None)
        execution = request_execution(world.services, world.tenant, world.action, parameters={})
        executor.handle(world.services, [world.requests[-1]])
        run = world.runner.runs[-1]
        report = RunFinished(
            tenant=run.tenant, execution=run.execution, attempt=1, token=run.token, status="completed",
            result={"__inquiry": {"prompt": "Deploy?"}},
        )  # fmt: skip
        conductor.finish(world.services, report)
    assert world.store.inquiries.of_execution(execution.id) is None
    conductor.finish(world.services, report)
    assert inquiry_of(world, execution).prompt == "Deploy?"


@pytest.mark.parametrize("result", [None, {}, {"data": [1]}, {"stdout": '"__inquiry": no JSON'}, {"data": {"x": 1}}])
def test_other_results_ask_nothing(world: World, result: Any) -> None:
    assert world.store.inquiries.of_execution(finished(world, result).id) is None


def test_a_failed_result_asks_nothing(world: World) -> None:
    execution = finished(world, {"data": {"__inquiry": {"prompt": "Deploy?"}}}, "failed")
    assert world.store.inquiries.of_execution(execution.id) is None


def test_a_result_that_asks_wrongly_is_a_result(world: World) -> None:
    execution = finished(world, {"data": {"__inquiry": {"prompt": 5}}})
    assert execution.status == "completed"
    assert world.store.inquiries.of_execution(execution.id) is None


def created(world: World, execution: Execution, **question: Any) -> Inquiry:
    return inquiries.create(world.services, world.tenant, execution, read_question(question), asker=7)


def test_an_execution_is_asked_about_once(world: World, ask: Action) -> None:
    execution = finished(world, {})
    inquiry = created(world, execution, prompt="Good?")
    assert inquiry.asker == 7
    with pytest.raises(ExistsError):
        created(world, execution)
    answered = respond(world, inquiry, "very")
    assert answered is not None
    assert answered.status == "responded"
    assert world.activity.get_execution(execution.id) == execution
    with pytest.raises(ExistsError):
        created(world, asking(world, ask))


def test_nobody_asks_in_the_place_of_one_who_is_about_to(world: World, ask: Action) -> None:
    waiting = request_execution(world.services, world.tenant, ask, parameters={})
    with pytest.raises(ExistsError):
        created(world, waiting)


def test_an_inquiry_about_a_run_is_looked_at_after_its_end(world: World) -> None:
    execution = finished(world, {})
    inquiry = created(world, execution, timeout=3600)
    assert world.queues.wakes == []
    world.clock.advance(minutes=56)
    sweep(world)
    assert world.queues.wakes[-1][1] == 240
    world.clock.advance(minutes=5, seconds=1)
    sweep(world)  # the wake was lost
    stored = world.store.inquiries.get(inquiry.id)
    assert stored is not None
    assert stored.status == "timeout"


def test_an_administrator_settles_for_others(world: World, ask: Action, told: list[int]) -> None:
    change = inquiries.change
    execution = asking(world, ask, response_schema={"ok": {"type": "boolean", "required": True}})
    id_ = inquiry_of(world, execution).id
    with pytest.raises(ResponseError):
        change(world.services, world.tenant, id_, status="responded")
    settled = change(world.services, world.tenant, id_, status="responded", response={"ok": True})
    assert settled is not None
    assert (settled.status, settled.response) == ("responded", {"ok": True})
    assert world.activity.get_execution(execution.id).result["response"] == {"ok": True}
    assert told == [execution.id]
    with pytest.raises(NotPendingError):
        change(world.services, world.tenant, id_, status="pending")
    assert change(world.services, world.tenant, id_, status="responded") == settled
    assert change(world.services, world.tenant, 12345) is None


def test_an_administrator_may_cancel_and_time_out(world: World, ask: Action) -> None:
    for status in ("cancelled", "timeout"):
        execution = asking(world, ask)
        inquiries.change(world.services, world.tenant, inquiry_of(world, execution).id, status=status)
        assert world.activity.get_execution(execution.id).status == status


def test_a_deleted_inquiry_takes_its_execution_along(world: World, ask: Action, told: list[int]) -> None:
    execution = asking(world, ask)
    assert inquiries.delete(world.services, world.tenant, inquiry_of(world, execution))
    assert world.store.inquiries.of_execution(execution.id) is None
    assert world.activity.get_execution(execution.id).status == "cancelled"
    assert told == [execution.id]

    execution = asking(world, ask)
    respond(world, inquiry_of(world, execution))
    assert inquiries.delete(world.services, world.tenant, inquiry_of(world, execution))
    assert world.activity.get_execution(execution.id).status == "completed"
    assert told[1:] == [execution.id]


# --- privilege loops


def test_a_run_is_what_hangs_together(world: World, ask: Action) -> None:
    def child_of(parent: int | None, action: Action, **fields: Any) -> Execution:
        return request_execution(world.services, world.tenant, action, parameters={}, parent=parent, **fields)

    flow = child_of(None, world.action)
    question = child_of(flow.id, ask, root=flow.id)
    executor.handle(world.services, [world.requests[-1]])
    inquiry = inquiry_of(world, question)
    assert inquiry.action_ref == world.action.ref  # the workflow asks
    sibling = child_of(flow.id, world.action, root=flow.id)
    nephew = child_of(sibling.id, world.action)
    stranger = child_of(None, world.action)
    same = [inquiries.same_run(world.services, world.tenant, each.id, inquiry) for each in (flow, sibling, nephew)]
    assert same == [True, True, True]
    assert inquiries.same_run(world.services, world.tenant, question.id, inquiry)
    assert not inquiries.same_run(world.services, world.tenant, stranger.id, inquiry)
