"""Triggers over the adapter: the wire, who may, and what happens around them."""

import pytest
from unit.api.resources import make_action, make_pack, make_rule, make_trigger

from chalicelib.domain.entities import Trigger
from chalicelib.store.registry import Put

WIRE = {
    "id", "ref", "pack", "pack_ref", "label", "description", "enabled", "param_schema", "out_schema", "webhook_enabled",
    "is_adhoc", "reference_visibility", "created", "updated",
}  # fmt: skip


@pytest.fixture(autouse=True)
def pack(api):
    return make_pack(api)


def test_a_plain_trigger_has_the_contracts_fields_and_no_others(api, pack):
    trigger = make_trigger(api)
    assert set(trigger) == WIRE
    assert (trigger["pack"], trigger["pack_ref"]) == (pack.id, "mine")
    assert trigger["enabled"] is True
    assert trigger["webhook_enabled"] is False
    assert api.get("/api/v1/triggers/mine.called").data == trigger


def test_a_trigger_without_a_pack_belongs_to_the_one_its_ref_names(api, pack):
    body = {"ref": "mine.called", "label": "Called"}
    assert api.post("/api/v1/triggers", json=body).data["pack"] == pack.id
    loose = api.post("/api/v1/triggers", json={**body, "ref": "nowhere.called"})
    assert loose.status == 201
    assert (loose.data["pack"], loose.data["pack_ref"]) == (None, None)
    assert api.post("/api/v1/triggers", json={**body, "ref": "core.called"}).status == 403


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"ref": "MINE.called"}, 422),
        ({"ref": "called"}, 422),
        ({"label": ""}, 422),
        ({"label": None}, 422),
        ({"param_schema": {"a": {"type": "nothing"}}}, 422),
        ({"param_schema": "text"}, 422),
        ({"ref": "gone.called", "pack_ref": "gone"}, 404),
        ({"ref": "core.called", "pack_ref": "core"}, 403),
    ],
)
def test_a_bad_trigger_is_refused_and_leaves_nothing(api, change, status):
    body = {"ref": "mine.called", "pack_ref": "mine", "label": "Called", **change}
    assert api.post("/api/v1/triggers", json=body).status == status
    assert api.registry.triggers.list() == []


def test_a_ref_is_taken_once(api):
    make_trigger(api)
    body = {"ref": "mine.called", "pack_ref": "mine", "label": "Again"}
    assert api.post("/api/v1/triggers", json=body).status == 409


def test_a_put_sets_clears_and_leaves(api):
    make_trigger(
        api, description="before", param_schema={"a": {"type": "string"}}, out_schema={"b": {"type": "string"}}
    )
    changed = api.put(
        "/api/v1/triggers/mine.called",
        json={
            "label": "New",
            "description": {"op": "clear"},
            "param_schema": {"op": "set", "value": {"c": {"type": "integer"}}},
            "out_schema": None,
            "enabled": False,
        },
    ).data
    assert changed["label"] == "New"
    assert changed["description"] is None
    assert changed["param_schema"] == {"c": {"type": "integer"}}
    assert changed["out_schema"] == {"b": {"type": "string"}}
    assert changed["enabled"] is False
    assert api.put("/api/v1/triggers/mine.called", json={"description": {"op": "forget"}}).status == 422


def test_enabled_triggers_can_be_listed_alone(api):
    make_trigger(api, "mine.on")
    make_trigger(api, "mine.off")
    answer = api.post("/api/v1/triggers/mine.off/disable")
    assert answer.status == 200
    assert answer.data["enabled"] is False
    assert api.get("/api/v1/triggers/enabled").refs == ["mine.on"]
    assert api.get("/api/v1/triggers?q=OFF").refs == ["mine.off"]
    assert api.post("/api/v1/triggers/mine.off/enable").data["enabled"] is True
    assert api.get("/api/v1/packs/mine/triggers").refs == ["mine.off", "mine.on"]
    assert api.get("/api/v1/packs/gone/triggers").status == 404
    assert api.post("/api/v1/triggers/mine.gone/enable").status == 404


def test_a_deleted_trigger_leaves_its_rules_with_the_ref_only(api):
    make_action(api)
    make_trigger(api)
    make_rule(api)
    assert api.delete("/api/v1/triggers/mine.called").status == 200
    rule = api.get("/api/v1/rules/mine.answer").data
    assert (rule["trigger_ref"], rule["trigger"]) == ("mine.called", None)
    assert api.delete("/api/v1/triggers/mine.called").status == 404


def test_a_timer_whose_trigger_is_deleted_stops(api):
    make_action(api)
    now = api.services.clock()
    timer = Trigger(id=api.services.new_id(), ref="core.intervaltimer", created=now, updated=now, label="Interval")
    api.registry.commit(Put(timer, new=True))
    rule = make_rule(api, trigger_ref="core.intervaltimer", trigger_params={"interval": 60})
    assert "next_fire_at" in rule
    assert api.delete("/api/v1/triggers/core.intervaltimer").status == 200
    after = api.get("/api/v1/rules/mine.answer").data
    assert (after["enabled"], after["trigger"]) == (True, None)
    assert "next_fire_at" not in after


def test_only_administrators_write_triggers(api):
    make_trigger(api)
    body = {"ref": "mine.next", "pack_ref": "mine", "label": "Next"}
    for role in ("core.editor", "core.executor", "core.viewer"):
        someone = api.as_role(role)
        assert someone.get("/api/v1/triggers/mine.called").status == 200
        assert someone.post("/api/v1/triggers", json=body).status == 403
        assert someone.put("/api/v1/triggers/mine.called", json={"label": "x"}).status == 403
        assert someone.post("/api/v1/triggers/mine.called/disable").status == 403
        assert someone.delete("/api/v1/triggers/mine.called").status == 403
    assert api.as_role().get("/api/v1/triggers").refs == []


def test_another_tenants_trigger_does_not_exist(api):
    make_trigger(api)
    stranger = api.as_role("core.admin", tenant=f"{api.tenant}-other")
    assert stranger.get("/api/v1/triggers/mine.called").status == 404
    assert stranger.post("/api/v1/triggers/mine.called/disable").status == 404
    assert stranger.delete("/api/v1/triggers/mine.called").status == 404
