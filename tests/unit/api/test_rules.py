"""Rules over the adapter: the wire, what they may refer to, and in whose name they act."""

import pytest
from unit.api.resources import make_action, make_pack, make_rule, make_trigger, rule_body

from chalicelib.flow.secrets import open_rule

WIRE = {
    "id", "ref", "pack", "pack_ref", "label", "description", "action", "action_ref", "trigger", "trigger_ref",
    "conditions", "action_params", "trigger_params", "permission_set_refs", "enabled", "is_adhoc", "owner_identity",
    "sensor_worker_selector", "sensor_worker_tolerations", "sensor_worker_affinity", "created", "updated",
}  # fmt: skip


@pytest.fixture(autouse=True)
def pack(api):
    pack = make_pack(api)
    make_action(api, param_schema={"name": {"type": "string", "required": True}, "times": {"type": "integer"}})
    make_trigger(api, param_schema={"every": {"type": "integer"}})
    return pack


def good_rule(api, ref="mine.answer", **fields):
    return make_rule(api, ref, **{"action_params": {"name": "{{ event.payload.name }}"}, **fields})


def test_a_plain_rule_has_the_contracts_fields_and_no_others(api, pack):
    rule = good_rule(api)
    assert set(rule) == WIRE
    assert rule["pack"] == pack.id
    assert rule["action"] == api.get("/api/v1/actions/mine.greet").data["id"]
    assert rule["trigger"] == api.get("/api/v1/triggers/mine.called").data["id"]
    assert rule["conditions"] == {}
    assert rule["trigger_params"] == {}
    assert rule["permission_set_refs"] is None
    assert rule["description"] is None
    assert rule["owner_identity"] == api.identity.id
    assert rule["enabled"] is True
    assert rule["is_adhoc"] is True
    assert api.get("/api/v1/rules/mine.answer").data == rule


def test_a_summary_leaves_out_what_only_the_detail_has(api):
    good_rule(api)
    summary = api.get("/api/v1/rules").items[0]
    assert set(summary) == WIRE - {"pack", "action", "trigger", "conditions", "is_adhoc", "owner_identity"}


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"ref": "Mine.Answer"}, 422),
        ({"ref": "answer"}, 422),
        ({"label": ""}, 422),
        ({"ref": "gone.answer", "pack_ref": "gone"}, 404),
        ({"ref": "core.answer", "pack_ref": "core"}, 403),
        ({"action_ref": "mine.gone"}, 404),
        ({"trigger_ref": "mine.gone"}, 404),
        ({"action_params": {}}, 422),
        ({"action_params": {"name": 5}}, 422),
        ({"action_params": {"name": "x", "times": "often"}}, 422),
        ({"trigger_params": {"every": "minute"}}, 422),
        ({"permission_set_refs": ["nowhere.set"]}, 422),
        ({"conditions": [{"field": "a", "operator": "resembles", "value": 1}]}, 422),
        ({"conditions": {"expression": "1 +"}}, 422),
        ({"conditions": 5}, 422),
    ],
)
def test_a_bad_rule_is_refused_and_leaves_nothing(api, change, status):
    body = rule_body(**{"action_params": {"name": "x"}, **change})
    answer = api.post("/api/v1/rules", json=body)
    assert answer.status == status, answer.json
    assert api.registry.rules.list() == []


def test_wrong_parameters_are_named(api):
    answer = api.post("/api/v1/rules", json=rule_body(action_params={"name": "x", "times": "often"}))
    assert answer.json["error"].startswith("Invalid parameters for action 'mine.greet'")
    assert "times" in answer.json["error"]
    assert answer.json["details"]["path"] == "action_params"


def test_a_template_stands_for_any_type(api):
    params = {"name": "{{ event.payload.name }}", "times": "{{ event.payload.times }}", "extra": True}
    assert good_rule(api, action_params=params)["action_params"] == params


@pytest.mark.parametrize(
    "conditions",
    [
        None,
        [],
        "event.payload.level > 3",
        {"expression": "{{ event.payload.level > 3 }}"},
        [{"field": "level", "operator": "gt", "value": 3}],
        {"any": [{"field": "a", "operator": "exists"}, {"all": [{"field": "b", "operator": "eq", "value": 1}]}]},
    ],
)
def test_every_form_of_conditions_is_read_back_as_it_was_sent(api, conditions):
    assert good_rule(api, conditions=conditions)["conditions"] == ({} if conditions is None else conditions)


def test_a_ref_is_taken_once(api):
    good_rule(api)
    assert api.post("/api/v1/rules", json=rule_body(action_params={"name": "x"})).status == 409


def test_a_put_changes_what_it_names_and_nothing_else(api):
    good_rule(api, description="before", permission_set_refs=["core.viewer"])
    changed = api.put(
        "/api/v1/rules/mine.answer",
        json={"label": "New", "description": None, "conditions": {"expression": "event.payload.ok"}, "enabled": False},
    ).data
    assert changed["label"] == "New"
    assert changed["description"] == "before"
    assert changed["conditions"] == {"expression": "event.payload.ok"}
    assert changed["permission_set_refs"] == ["core.viewer"]
    assert changed["enabled"] is False
    assert api.put("/api/v1/rules/mine.answer", json={"permission_set_refs": None}).data["permission_set_refs"] is None
    assert api.put("/api/v1/rules/mine.answer", json={"action_params": {"name": 3}}).status == 422
    assert api.put("/api/v1/rules/mine.answer", json={"trigger_ref": "mine.gone"}).status == 404
    assert api.get("/api/v1/rules/mine.answer").data["action_params"] == {"name": "{{ event.payload.name }}"}


def test_whoever_changes_what_a_rule_does_answers_for_it(api):
    good_rule(api)
    editor = api.as_role("core.editor")
    renamed = editor.put("/api/v1/rules/mine.answer", json={"label": "Only a name"}).data
    assert renamed["owner_identity"] == api.identity.id
    changed = editor.put("/api/v1/rules/mine.answer", json={"action_params": {"name": "mallory"}}).data
    assert changed["owner_identity"] == editor.identity.id


def test_nobody_acts_through_anothers_permissions(api):
    good_rule(api, permission_set_refs=["core.admin"])
    editor = api.as_role("core.editor")
    assert editor.put("/api/v1/rules/mine.answer", json={"action_params": {"name": "mallory"}}).status == 403
    refused = editor.post(
        "/api/v1/rules", json=rule_body(action_params={"name": "x"}, permission_set_refs=["core.admin"])
    )
    assert refused.status == 403


def test_rules_are_listed_by_what_they_belong_to(api):
    make_action(api, "mine.other")
    make_trigger(api, "mine.rung")
    good_rule(api, "mine.a")
    good_rule(api, "mine.b", action_ref="mine.other", enabled=False)
    good_rule(api, "mine.c", trigger_ref="mine.rung", label="Special")
    assert api.get("/api/v1/rules").refs == ["mine.a", "mine.b", "mine.c"]
    assert api.get("/api/v1/rules/enabled").refs == ["mine.a", "mine.c"]
    assert api.get("/api/v1/packs/mine/rules").refs == ["mine.a", "mine.b", "mine.c"]
    assert api.get("/api/v1/actions/mine.other/rules").refs == ["mine.b"]
    assert api.get("/api/v1/triggers/mine.called/rules").refs == ["mine.a", "mine.b"]
    assert api.get("/api/v1/rules?enabled=false").refs == ["mine.b"]
    assert api.get("/api/v1/rules?trigger_ref=mine.rung&q=SPECIAL").refs == ["mine.c"]
    assert api.get("/api/v1/actions/mine.gone/rules").status == 404
    assert api.get("/api/v1/triggers/mine.gone/rules").status == 404


def test_a_rule_is_switched_off_and_on(api):
    good_rule(api)
    off = api.post("/api/v1/rules/mine.answer/disable")
    assert (off.status, off.data["enabled"]) == (200, False)
    assert api.post("/api/v1/rules/mine.answer/disable").data == off.data
    assert api.post("/api/v1/rules/mine.answer/enable").data["enabled"] is True
    assert api.post("/api/v1/rules/mine.gone/enable").status == 404


def test_a_deleted_rule_is_gone(api):
    good_rule(api)
    assert api.delete("/api/v1/rules/mine.answer").json["success"] is True
    assert api.get("/api/v1/rules/mine.answer").status == 404
    assert api.delete("/api/v1/rules/mine.answer").status == 404


def test_roles_do_what_they_may(api):
    good_rule(api)
    viewer, executor, editor = (api.as_role(role) for role in ("core.viewer", "core.executor", "core.editor"))
    for someone in (viewer, executor):
        assert someone.get("/api/v1/rules/mine.answer").status == 200
        assert someone.post("/api/v1/rules", json=rule_body("mine.more", action_params={"name": "x"})).status == 403
        assert someone.put("/api/v1/rules/mine.answer", json={"label": "x"}).status == 403
        assert someone.post("/api/v1/rules/mine.answer/disable").status == 403
        assert someone.delete("/api/v1/rules/mine.answer").status == 403
    assert editor.post("/api/v1/rules", json=rule_body("mine.more", action_params={"name": "x"})).status == 201
    assert editor.delete("/api/v1/rules/mine.more").status == 403
    assert api.as_role().get("/api/v1/rules").refs == []


def test_another_tenants_rule_does_not_exist(api):
    good_rule(api)
    stranger = api.as_role("core.admin", tenant=f"{api.tenant}-other")
    assert stranger.get("/api/v1/rules/mine.answer").status == 404
    assert stranger.post("/api/v1/rules/mine.answer/enable").status == 404
    assert stranger.post("/api/v1/rules/mine.answer/test", json={"payload": {}}).status == 404


MARKER = {"$attune_secret": True, "redacted": True}


def opened(api, ref="mine.pays"):
    return open_rule(api.services, api.tenant, api.registry.rules.get(ref)).action_params


@pytest.fixture
def paying(api):
    schema = {"card": {"type": "string", "secret": True}, "amount": {"type": "integer"}}
    make_action(api, "mine.pay", param_schema=schema)
    return make_rule(api, "mine.pays", action_ref="mine.pay", action_params={"card": "4111-1111", "amount": 5})


def test_a_secret_parameter_is_stored_sealed_and_shown_masked(api, paying):
    assert paying["action_params"] == {"card": MARKER, "amount": 5}
    assert api.get("/api/v1/rules/mine.pays").data["action_params"] == {"card": MARKER, "amount": 5}
    assert "4111" not in str(api.registry.rules.get("mine.pays"))
    assert opened(api) == {"card": "4111-1111", "amount": 5}
    tried = api.post("/api/v1/rules/mine.pays/test", json={"payload": {}})
    assert tried.data["would_fire"] is True
    assert "4111" not in tried.body.decode()


@pytest.mark.parametrize(
    "change",
    [{"label": "Other"}, {"conditions": {"expression": "true"}}, {"action_params": {"card": MARKER, "amount": 5}}],
    ids=["label", "conditions", "marker"],
)
def test_a_change_keeps_what_it_cannot_see(api, paying, change):
    assert api.put("/api/v1/rules/mine.pays", json=change).status == 200
    assert opened(api) == {"card": "4111-1111", "amount": 5}
    assert "4111" not in str(api.registry.rules.get("mine.pays"))


def test_a_new_secret_replaces_the_old_one(api, paying):
    api.put("/api/v1/rules/mine.pays", json={"action_params": {"card": "5500-0000"}})
    assert opened(api) == {"card": "5500-0000"}
    api.put("/api/v1/rules/mine.pays", json={"action_params": {"card": "{{ keystore.card }}"}})
    assert api.get("/api/v1/rules/mine.pays").data["action_params"] == {"card": "{{ keystore.card }}"}


def test_another_action_does_not_bring_a_secret_to_light(api, paying):
    make_action(api, "mine.shout", param_schema={"card": {"type": "string"}})
    changed = api.put("/api/v1/rules/mine.pays", json={"action_ref": "mine.shout"})
    assert changed.data["action_params"] == {"card": MARKER, "amount": 5}
    assert "4111" not in str(api.registry.rules.get("mine.pays"))
