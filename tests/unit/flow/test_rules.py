"""Events to executions, once each, whatever is delivered twice or cut off half-way."""

from typing import Any

import msgspec
import pytest
from unit.flow.world import World

from chalicelib.flow import executor, rules
from chalicelib.flow.intake import SPILL, accept_event
from chalicelib.store.listing import EnforcementFilter, ExecutionFilter, Page
from chalicelib.store.registry import Put

ALL = Page(number=1, size=100)


def executions(world: World) -> list[Any]:
    return world.activity.executions(ExecutionFilter(), ALL).items


def enforcements(world: World) -> list[Any]:
    return world.activity.enforcements(EnforcementFilter(), ALL).items


def test_a_matching_rule_starts_its_action(world: World) -> None:
    rule = world.put_rule(
        "p.r", conditions={"expression": "event.payload.n > 1"}, action_params={"n": "{{ event.payload.n }}"}
    )
    message = world.accepted({"n": 2})
    assert world.happen(message) == []
    (execution,) = executions(world)
    assert (execution.status, execution.config, execution.rule_ref) == ("requested", {"n": 2}, "p.r")
    assert execution.executor == world.owner.id
    (request,) = world.requests
    assert (request.id, request.action_ref) == (execution.id, "p.act")
    enforcement = world.activity.get_enforcement(execution.id)
    assert (enforcement.status, enforcement.event, enforcement.rule) == ("processed", message.id, rule.id)
    assert (enforcement.config, enforcement.payload) == ({"n": 2}, {"n": 2})
    assert execution.enforcement == enforcement.id


def test_no_match_leaves_the_event_and_nothing_else(world: World) -> None:
    world.put_rule("p.r", conditions={"expression": "event.payload.n > 1"})
    message = world.accepted({"n": 1})
    assert world.happen(message) == []
    assert world.activity.get_event(message.id).payload == {"n": 1}
    assert executions(world) == enforcements(world) == world.requests == []


def test_each_rule_fires_for_itself(world: World) -> None:
    for number in range(3):
        world.put_rule(f"p.r{number}")
    world.put_rule("p.off", enabled=False)
    messages = [world.accepted({"n": number}) for number in range(4)]
    assert world.happen(*messages) == []
    assert len(executions(world)) == len({execution.id for execution in executions(world)}) == 12


def test_redelivery_makes_nothing_twice(world: World) -> None:
    world.put_rule("p.r1")
    world.put_rule("p.r2")
    messages = [world.accepted({"n": number}) for number in range(3)]
    world.happen(*messages)
    before = {execution.id for execution in executions(world)}
    world.happen(*reversed(messages))
    world.happen(messages[1], messages[1])
    assert {execution.id for execution in executions(world)} == before
    assert {request.id for request in world.requests} == before


def test_a_message_that_could_not_be_sent_goes_out_with_the_redelivery(world: World) -> None:
    world.put_rule("p.r")
    message = world.accepted({})
    world.queues.failing = True
    assert world.happen(message) == [0]
    world.queues.failing = False
    assert world.happen(message) == []
    assert len(world.requests) == len(executions(world)) == 1


@pytest.mark.parametrize(
    "rule",
    [
        {"conditions": {"expression": "event.payload.missing > 1"}},
        {"conditions": {"expression": "'a' * 10 ** 9 == ''"}},
        {"action_params": {"x": "{{ event.payload.n.__class__ }}"}},
        {"action_params": {"x": "{% for i in range(999999) %}{% for j in range(999999) %}x{% endfor %}{% endfor %}"}},
        {"action_ref": "p.gone"},
    ],
)
def test_what_goes_wrong_is_shown_on_the_enforcement(world: World, rule: dict[str, Any]) -> None:
    world.put_rule("p.bad", **rule)
    world.put_rule("p.good")
    assert world.happen(world.accepted({"n": 1})) == []
    by_rule = {enforcement.rule_ref: enforcement for enforcement in enforcements(world)}
    assert by_rule["p.bad"].status == "disabled"
    assert by_rule["p.bad"].error
    assert by_rule["p.good"].status == "processed"
    assert [execution.rule_ref for execution in executions(world)] == ["p.good"]


def test_bad_parameters_fail_from_the_start_and_reach_no_runner(world: World) -> None:
    world.put_action("p.strict", param_schema={"n": {"type": "integer", "required": True}})
    world.put_rule("p.r", action_ref="p.strict", action_params={"n": "{{ event.payload.n }}"})
    world.happen(world.accepted({"n": "many"}))
    (execution,) = executions(world)
    assert execution.status == "failed"
    assert "n" in execution.result["error"]
    assert world.requests == []


def test_a_rule_changed_a_moment_ago_counts(world: World) -> None:
    world.put_rule("p.r", conditions={"expression": "false"})
    world.happen(world.accepted({}))
    rule = world.store.registry.rules.get("p.r")
    world.store.registry.commit(Put(msgspec.structs.replace(rule, conditions={})))
    world.happen(world.accepted({}))
    assert len(executions(world)) == 1


def test_a_secret_in_a_template_stays_a_reference(world: World) -> None:
    world.put_key("db.password", "s3cret")
    world.put_rule("p.r", action_params={"auth": "Basic {{ keystore.db.password }}", "who": "{{ event.payload.who }}"})
    world.happen(world.accepted({"who": {"$attune_secret": True, "key": "db.password"}}))
    (execution,) = [world.activity.get_execution(each.id) for each in executions(world)]
    assert execution.config["auth"] == {"$attune_secret": True, "redacted": True}
    assert execution.secrets == {"/auth": ["Basic ", {"key": "db.password"}]}
    executor.handle(world.services, [world.requests[-1]])
    assert world.runner.runs[0].parameters["auth"] == "Basic s3cret"
    assert world.runner.runs[0].parameters["who"] == {"$attune_secret": True, "key": "db.password"}


def test_a_big_payload_travels_through_s3(world: World) -> None:
    world.put_rule("p.r", action_params={"n": "{{ event.payload.n }}"})
    event = accept_event(world.services, world.tenant, world.trigger, payload={"n": 1, "fat": "x" * SPILL})
    (message,) = world.queues.events
    assert message.payload is None
    assert rules.handle(world.services, [message]) == []
    assert world.activity.get_event(event.id).payload["fat"] == "x" * SPILL
    assert executions(world)[0].config == {"n": 1}


def test_deliveries_that_cross_are_one_event(world: World) -> None:
    world.put_rule("p.r")
    events = [
        accept_event(
            world.services, world.tenant, world.trigger, payload={}, config={"received": number}, idempotency_key="d"
        )
        for number in range(3)
    ]
    world.happen(*world.queues.events)
    assert len({event.id for event in events}) == len(executions(world)) == 1


def test_strangers_with_one_id_are_two_events(world: World) -> None:
    world.put_rule("p.r")
    first, second = world.accepted({"n": 1}), world.accepted({"n": 2})
    world.happen(first, msgspec.structs.replace(second, id=first.id))
    world.happen(msgspec.structs.replace(second, id=first.id), first)
    assert len(executions(world)) == 2


def test_the_same_delivery_gives_the_first_event(world: World) -> None:
    first = accept_event(world.services, world.tenant, world.trigger, payload={"n": 1}, idempotency_key="d1")
    again = accept_event(world.services, world.tenant, world.trigger, payload={"n": 1}, idempotency_key="d1")
    other = accept_event(world.services, world.tenant, world.trigger, payload={"n": 1}, idempotency_key="d2")
    assert first.id == again.id != other.id
    world.put_rule("p.r")
    world.happen(*world.queues.events)
    assert len(executions(world)) == 2
    sent = len(world.queues.events)
    accept_event(world.services, world.tenant, world.trigger, payload={"n": 1}, idempotency_key="d1")
    assert len(world.queues.events) == sent, "its event is stored, nothing is left to do"
