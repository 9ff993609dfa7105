"""Trying a rule out over the adapter."""

import pytest
from unit.api.resources import make_action, make_pack, make_rule, make_trigger


@pytest.fixture(autouse=True)
def parts(api):
    make_pack(api)
    make_action(
        api, param_schema={"name": {"type": "string", "required": True}, "times": {"type": "integer", "default": 2}}
    )
    make_trigger(api)


def try_out(api, payload=None, **fields):
    make_rule(api, **{"action_params": {"name": "{{ event.payload.name }}"}, **fields})
    answer = api.post("/api/v1/rules/mine.answer/test", json={"payload": payload})
    assert answer.status == 200, answer.json
    return answer.data


def test_a_match_shows_what_the_action_would_get(api):
    tried = try_out(api, {"name": "Ada"}, conditions={"expression": "event.payload.name == 'Ada'"})
    assert (tried["matched"], tried["would_fire"], tried["error"]) == (True, True, None)
    assert tried["parameters"] == {"name": "Ada", "times": 2}
    assert [clause["matched"] for clause in tried["conditions"]] == [True]
    assert (tried["rule_ref"], tried["action_ref"], tried["enabled"]) == ("mine.answer", "mine.greet", True)


def test_a_mismatch_shows_which_condition_and_the_value_it_found(api):
    conditions = [
        {"field": "name", "operator": "equals", "value": "Ada"},
        {"field": "level", "operator": "gt", "value": 5},
    ]
    tried = try_out(api, {"name": "Ada", "level": 3}, conditions=conditions)
    assert (tried["matched"], tried["would_fire"], tried["parameters"]) == (False, False, None)
    assert [clause["matched"] for clause in tried["conditions"]] == [True, False]
    assert [clause["value"] for clause in tried["conditions"]] == ["Ada", 3]


def test_a_condition_that_fails_says_why(api):
    tried = try_out(api, {}, conditions=[{"field": "level", "operator": "gt", "value": 5}])
    assert (tried["matched"], tried["would_fire"]) == (False, False)
    assert "level" in tried["error"]


def test_parameters_that_break_the_schema_are_named(api):
    tried = try_out(api, {"name": 5})
    assert (tried["matched"], tried["would_fire"]) == (True, False)
    assert "name" in tried["error"]


def test_a_disabled_rule_matches_and_does_not_fire(api):
    tried = try_out(api, {"name": "Ada"}, enabled=False)
    assert (tried["matched"], tried["would_fire"], tried["enabled"]) == (True, False, False)


def test_nothing_is_stored_and_nothing_runs(api):
    try_out(api, {"name": "Ada"})
    for what in ("events", "enforcements", "executions"):
        assert api.get(f"/api/v1/{what}").items == []
    assert api.sent("events") == []
    assert api.sent("executions") == []


def test_it_is_for_those_who_may_read_the_rule(api):
    make_rule(api, action_params={"name": "x"})
    assert api.as_role("core.viewer").post("/api/v1/rules/mine.answer/test", json={"payload": {}}).status == 200
    assert api.as_role().post("/api/v1/rules/mine.answer/test", json={"payload": {}}).status in (403, 404)
    assert api.post("/api/v1/rules/mine.gone/test", json={"payload": {}}).status == 404
