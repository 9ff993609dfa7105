"""Sensors over the adapter: the routes, their tokens, and the payloads that triggers let in."""

from typing import Any

import pytest
from unit.api.resources import created, make_action, make_pack, make_rule, make_runtime, make_trigger

from chalicelib.domain.entities import Grant, Runtime
from chalicelib.flow import sensors
from chalicelib.store.registry import Put

pytestmark = pytest.mark.slow

SUMMARY = {"id", "ref", "pack_ref", "label", "description", "enabled", "created", "updated"}
WIRE = SUMMARY | {
    "pack", "entrypoint", "runtime", "runtime_ref", "trigger_refs", "param_schema", "config", "poll_interval",
    "worker_selector", "worker_tolerations", "worker_affinity",
}  # fmt: skip
BODY = {
    "ref": "mine.eye", "pack_ref": "mine", "label": "Eye", "entrypoint": "look()", "runtime_ref": "core.python",
    "trigger_ref": "mine.called",
}  # fmt: skip


@pytest.fixture(autouse=True)
def trigger(api):
    make_pack(api)
    make_action(api)
    now = api.services.clock()
    python = Runtime(id=api.services.new_id(), ref="core.python", created=now, updated=now, name="Python")
    api.registry.commit(Put(python, new=True))
    return make_trigger(api)


def make_sensor(api: Any, **fields: Any) -> Any:
    return created(api.post("/api/v1/sensors", json={**BODY, **fields}))


def due(api: Any) -> list[Any]:
    return [message for message in api.sent("executions") if message["kind"] == "sensor"]


def test_create_and_read_back(api):
    sensor = make_sensor(api, poll_interval=1.5, config={"a": 1}, log_retention_policy="days", log_retention_limit=3)
    assert set(sensor) == WIRE | {"log_retention_policy", "log_retention_limit"}
    assert (sensor["trigger_refs"], sensor["poll_interval"], sensor["enabled"]) == (["mine.called"], 1.5, True)
    assert api.get("/api/v1/sensors/mine.eye").data == sensor


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"pack_ref": "none", "ref": "none.eye"}, 404),
        ({"runtime_ref": "core.ruby"}, 404),
        ({"trigger_ref": "mine.none"}, 404),
        ({"ref": "eye"}, 422),
        ({"poll_interval": 0.5}, 422),
        ({"entrypoint": ""}, 422),
        ({"param_schema": {"a": {"type": "text"}}}, 422),
        ({"pack_ref": "core", "ref": "core.eye"}, 403),
    ],
)
def test_what_cannot_be_made(api, fields, status):
    answer = api.post("/api/v1/sensors", json={**BODY, **fields})
    assert answer.status == status, answer.json


def test_a_ref_is_taken_once(api):
    make_sensor(api)
    assert api.post("/api/v1/sensors", json=BODY).status == 409


def test_lists(api):
    make_trigger(api, "mine.other")
    make_sensor(api)
    make_sensor(api, ref="mine.ear", label="Ear", enabled=False, trigger_ref="mine.other")
    listed = api.get("/api/v1/sensors")
    assert listed.refs == ["mine.ear", "mine.eye"]
    assert set(listed.items[0]) == SUMMARY
    assert api.get("/api/v1/sensors?q=EYE").refs == ["mine.eye"]
    assert api.get("/api/v1/sensors/enabled").refs == ["mine.eye"]
    assert api.get("/api/v1/packs/mine/sensors").refs == ["mine.ear", "mine.eye"]
    assert api.get("/api/v1/triggers/mine.other/sensors").refs == ["mine.ear"]
    assert api.get("/api/v1/packs/none/sensors").status == 404
    assert api.get("/api/v1/triggers/mine.none/sensors").status == 404


def test_a_rule_lets_it_look_and_a_change_at_once(api):
    sensor = make_sensor(api)
    assert due(api) == []
    make_rule(api)
    assert [(message["ref"], message["turn"]) for message in due(api)] == [("mine.eye", 1)]
    assert api.get("/api/v1/sensors/mine.eye/status").data["status"] == "starting"
    body = {"label": "New", "entrypoint": "look_again()", "param_schema": {"op": "set", "value": {}}}
    updated = api.put("/api/v1/sensors/mine.eye", json=body)
    assert updated.data == sensor | {
        "label": "New", "entrypoint": "look_again()", "param_schema": {}, "updated": updated.data["updated"],
    }  # fmt: skip
    assert [message["turn"] for message in due(api)] == [2]


def test_disable_and_enable(api):
    make_sensor(api)
    make_rule(api)
    assert api.post("/api/v1/sensors/mine.eye/disable").data["enabled"] is False
    status = api.get("/api/v1/sensors/mine.eye/status").data
    assert (status["status"], status["reason"], status["next_poll_at"]) == ("stopped", "the sensor is disabled", None)
    due(api)
    assert api.post("/api/v1/sensors/mine.eye/enable").data["enabled"] is True
    assert len(due(api)) == 1


def test_delete_takes_its_keys_along(api):
    make_sensor(api)
    make_rule(api)
    key = {
        "ref": "mine.eye.token",
        "name": "token",
        "value": "x",
        "owner_type": "sensor",
        "owner_sensor_ref": "mine.eye",
    }
    created(api.post("/api/v1/keys", json=key))
    assert api.delete("/api/v1/sensors/mine.eye").status == 200
    assert api.get("/api/v1/sensors/mine.eye").status == 404
    assert api.get("/api/v1/keys/mine.eye.token").status == 404


def test_status_says_why_nothing_looks(api):
    make_runtime(api, "mine.ruby")
    make_sensor(api)
    make_sensor(api, ref="mine.other", runtime_ref="mine.ruby")
    assert api.get("/api/v1/sensors/mine.eye/status").data["reason"] == "no enabled rule listens"
    assert "mine.ruby" in api.get("/api/v1/sensors/mine.other/status").data["reason"]


def test_logs(api):
    id_ = make_sensor(api)["id"]
    assert api.get("/api/v1/sensors/mine.eye/logs").json == {"sensor_ref": "mine.eye", "logs": []}
    assert api.get("/api/v1/sensors/mine.eye/logs/stdout").body == b""
    blobs = api.services.store.tenant(api.tenant).blobs
    blobs.put(sensors.log_name(id_, "stdout"), b"one\ntwo\nthree\n")
    assert api.get("/api/v1/sensors/mine.eye/logs").json["logs"] == [
        {"stream": "stdout", "artifact_ref": "sensor.mine.eye.stdout", "artifact_id": None}
    ]
    assert api.get("/api/v1/sensors/mine.eye/logs/stdout?tail=2").body == b"two\nthree\n"
    assert api.get("/api/v1/sensors/mine.eye/logs/stdin").status == 422
    assert api.get("/api/v1/sensors/mine.none/logs/stdout").status == 404


def test_who_may(api):
    make_sensor(api)
    viewer, nobody = api.as_role("core.viewer"), api.as_role()
    assert nobody.get("/api/v1/sensors").items == []
    assert nobody.get("/api/v1/sensors/mine.eye/status").status == 403
    assert viewer.get("/api/v1/sensors").refs == ["mine.eye"]
    for method, path in (("POST", ""), ("PUT", "/mine.eye"), ("DELETE", "/mine.eye"), ("POST", "/mine.eye/disable")):
        assert viewer.request(method, f"/api/v1/sensors{path}", json=BODY).status == 403


# Tokens


def token_for(api: Any, **fields: Any) -> Any:
    return api.post("/auth/sensor-token", json={"sensor_ref": "mine.eye", "trigger_types": ["mine.called"], **fields})


def test_a_token_reports_for_its_triggers(api):
    make_trigger(api, "mine.other")
    issued = token_for(api, ttl_seconds=3600).data
    assert set(issued) == {
        "identity_id", "sensor_ref", "token", "expires_at", "trigger_types", "permission_set_refs",
    }  # fmt: skip
    eye = api.with_token(issued["token"])
    event = created(eye.post("/api/v1/events", json={"trigger_ref": "mine.called", "payload": {"n": 1}}))
    assert event["source_ref"] == "mine.eye"
    assert eye.post("/api/v1/events", json={"trigger_ref": "mine.other"}).status in (403, 404)


def test_a_sensor_sees_the_rules_that_listen(api):
    make_rule(api)
    eye = api.with_token(token_for(api).data["token"])
    assert eye.get("/api/v1/triggers/mine.called/rules").refs == ["mine.answer"]
    assert eye.get("/api/v1/rules").items == []


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"trigger_types": []}, 422),
        ({"trigger_types": ["mine.none"]}, 404),
        ({"ttl_seconds": 3599}, 422),
        ({"ttl_seconds": 259_201}, 422),
        ({"sensor_ref": "eye"}, 422),
    ],
)
def test_tokens_that_are_not_given(api, fields, status):
    assert token_for(api, **fields).status == status


def test_who_gets_a_token(api):
    assert token_for(api.as_role("core.viewer")).status == 403
    reporter = api.with_grants(Grant(resource="events", actions=["create"], constraints={"refs": ["mine.called"]}))
    assert token_for(reporter).status == 200
    make_trigger(api, "mine.other")
    assert token_for(reporter, trigger_types=["mine.called", "mine.other"]).status == 403
    assert token_for(api.with_token(token_for(api).data["token"])).status == 403


def test_a_sensor_renews_its_token(api):
    eye = api.with_token(token_for(api).data["token"])
    renewed = eye.post("/auth/internal/sensor-token", json={}).data
    assert (renewed["sensor_ref"], renewed["trigger_types"]) == ("mine.eye", ["mine.called"])
    assert eye.post("/auth/internal/sensor-token", json={"trigger_types": ["mine.other"]}).status == 403
    assert eye.post("/auth/internal/sensor-token", json={"sensor_ref": "mine.ear"}).status == 403
    assert api.post("/auth/internal/sensor-token", json={}).status == 403


def test_a_disabled_sensor_does_not_report(api):
    make_sensor(api, enabled=False)
    eye = api.with_token(token_for(api).data["token"])
    assert eye.post("/api/v1/events", json={"trigger_ref": "mine.called"}).status == 403
    assert eye.post("/auth/internal/sensor-token", json={}).status == 403


def test_what_it_posts_is_counted(api):
    make_sensor(api)
    make_rule(api)
    eye = api.with_token(token_for(api).data["token"])
    created(eye.post("/api/v1/events", json={"trigger_ref": "mine.called"}))
    assert api.get("/api/v1/sensors/mine.eye/status").data["events"] == 1


# People, and payloads


def test_who_has_the_right_reports_as_well(api):
    reporter = api.with_grants(Grant(resource="events", actions=["create"], constraints={"refs": ["mine.called"]}))
    # The pack is nobody's private one, and seen by whoever may read packs; an event needs no more than its right.
    event = created(reporter.post("/api/v1/events", json={"trigger_ref": "mine.called", "payload": {"n": 1}}))
    assert event["source_ref"] is None
    make_trigger(api, "mine.other")
    assert reporter.post("/api/v1/events", json={"trigger_ref": "mine.other"}).status == 403
    assert api.post("/api/v1/events", json={"trigger_ref": "mine.called"}).status == 403


@pytest.mark.parametrize(
    "schema",
    [
        {"n": {"type": "integer", "required": True}},
        {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]},
    ],
)
def test_a_payload_that_breaks_the_schema_is_refused_and_counted(api, schema):
    api.put("/api/v1/triggers/mine.called", json={"out_schema": {"op": "set", "value": schema}})
    assert "refused_payloads" not in api.get("/api/v1/triggers/mine.called").data
    eye = api.with_token(token_for(api).data["token"])
    for payload in ({"n": "x"}, {}, None):
        answer = eye.post("/api/v1/events", json={"trigger_ref": "mine.called", "payload": payload})
        assert answer.status == 422
        assert answer.json["details"]["path"] == "payload"
        assert len(answer.json["details"]["violations"]) == 1
    created(eye.post("/api/v1/events", json={"trigger_ref": "mine.called", "payload": {"n": 1}}))
    assert len(api.sent("events")) == 1
    refused = api.get("/api/v1/triggers/mine.called").data["refused_payloads"]
    assert refused["count"] == 3
    assert "n" in refused["last_reason"]


def test_a_webhook_is_held_to_the_schema_too(api):
    schema = {"n": {"type": "integer", "required": True}}
    api.put("/api/v1/triggers/mine.called", json={"out_schema": {"op": "set", "value": schema}})
    key = api.post("/api/v1/triggers/mine.called/webhooks/enable").data["webhook_key"]
    hook = api.anonymous()
    assert hook.post(f"/api/v1/webhooks/{key}", json={"payload": {"n": "x"}}).status == 422
    assert hook.post(f"/api/v1/webhooks/{key}", json={"payload": {"n": 1}}).status == 200
