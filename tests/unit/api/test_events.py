"""Events over the adapter: who reports them, and reading them back."""

from datetime import timedelta

import pytest
from unit.api.resources import make_action, make_pack, make_rule, make_trigger

from chalicelib.api import events
from chalicelib.domain import ids
from chalicelib.domain.entities import Event, Grant, Sensor
from chalicelib.store.registry import Put

WIRE = {
    "id", "trigger", "trigger_ref", "config", "payload", "source", "source_ref", "rule", "rule_ref", "created",
}  # fmt: skip


@pytest.fixture(autouse=True)
def trigger(api):
    make_pack(api)
    return make_trigger(api)


@pytest.fixture
def sensor(api):
    """A client with the token of a sensor that serves mine.called."""
    now = api.services.clock()
    row = Sensor(
        id=api.services.new_id(), ref="mine.ear", created=now, updated=now, label="Ear", entrypoint="ear.py", runtime=1,
        runtime_ref="core.python",
    )  # fmt: skip
    api.registry.commit(Put(row, new=True))
    token = api.services.tokens.issue_sensor(
        tenant=api.tenant, identity_id=row.id, sensor_ref="mine.ear", trigger_types=["mine.called"], now=now
    )
    return api.with_token(token)


def store(api, *, age=0, **fields):
    """An event as if it had happened ``age`` seconds ago."""
    at = api.services.clock() - timedelta(seconds=age)
    id_ = ids.derive(int(at.timestamp() * 1000), "test")
    event = Event(**{"id": id_, "created": at, "trigger_ref": "mine.called", **fields})
    return api.activity.record_events([(event, str(id_))])[0]


def test_a_sensor_reports_what_happened(api, sensor, trigger):
    answer = sensor.post("/api/v1/events", json={"trigger_ref": "mine.called", "payload": {"n": 1}, "config": {"c": 2}})
    assert answer.status == 201
    event = answer.data
    assert set(event) == WIRE
    assert (event["trigger"], event["trigger_ref"]) == (trigger["id"], "mine.called")
    assert (event["payload"], event["config"]) == ({"n": 1}, {"c": 2})
    assert event["source_ref"] == "mine.ear"
    assert event["source"] == api.registry.sensors.get("mine.ear").id
    message = api.sent("events")[0]
    assert (message["id"], message["payload"], message["source_ref"]) == (event["id"], {"n": 1}, "mine.ear")


def test_trigger_type_is_another_name(sensor):
    assert sensor.post("/api/v1/events", json={"trigger_type": "mine.called"}).status == 201
    assert sensor.post("/api/v1/events", json={"payload": {}}).status == 422


def test_people_do_not_report_events(api):
    assert api.post("/api/v1/events", json={"trigger_ref": "mine.called"}).status == 403
    assert api.sent("events") == []


def test_a_sensor_reports_to_the_triggers_it_serves(api, sensor):
    make_trigger(api, "mine.other")
    assert sensor.post("/api/v1/events", json={"trigger_ref": "mine.other"}).status == 403
    assert sensor.post("/api/v1/events", json={"trigger_ref": "mine.gone"}).status == 404


def test_an_idempotency_key_reports_one_event(api, sensor):
    body = {"trigger_ref": "mine.called", "payload": {"n": 1}}
    first = sensor.post("/api/v1/events", json=body, headers={"Idempotency-Key": "k"})
    again = sensor.post("/api/v1/events", json=body, headers={"Idempotency-Key": "k"})
    assert first.data["id"] == again.data["id"]
    assert {message["id"] for message in api.sent("events")} == {first.data["id"]}


def test_an_event_is_bound_to_the_rule_of_its_instance(api, sensor):
    make_action(api)
    rule = make_rule(api)
    body = {"trigger_ref": "mine.called", "trigger_instance_id": f"rule_{rule['id']}"}
    bound = sensor.post("/api/v1/events", json=body)
    assert (bound.status, bound.data["rule"], bound.data["rule_ref"]) == (201, rule["id"], rule["ref"])
    assert api.sent("events")[0]["rule_ref"] == rule["ref"]
    assert sensor.post("/api/v1/events", json=body | {"trigger_instance_id": "rule_17"}).status == 422
    assert sensor.post("/api/v1/events", json=body | {"trigger_instance_id": "mine"}).data["rule"] is None


def test_one_event(api):
    event = store(api, age=30, payload={"n": 1}, source_ref="webhook")  # one of a moment ago would be waited for
    data = api.get(f"/api/v1/events/{event.id}").data
    assert set(data) == WIRE
    assert (data["payload"], data["source_ref"], data["config"]) == ({"n": 1}, "webhook", None)
    assert api.get("/api/v1/events/1").status == 404
    assert api.as_role("core.viewer").get(f"/api/v1/events/{event.id}").status == 403
    stranger = api.as_role("core.admin", tenant=f"{api.tenant}-other")
    assert stranger.get(f"/api/v1/events/{event.id}").status == 404


def test_an_event_that_was_just_accepted_is_waited_for(api, sensor, monkeypatch):
    id_ = sensor.post("/api/v1/events", json={"trigger_ref": "mine.called", "payload": {"n": 1}}).data["id"]

    def the_rules_box_stores_it(_seconds):
        event = Event(id=id_, created=api.services.clock(), trigger_ref="mine.called", payload={"n": 1})
        api.activity.record_events([(event, str(id_))])

    monkeypatch.setattr(events.time, "sleep", the_rules_box_stores_it)
    assert api.get(f"/api/v1/events/{id_}").data["payload"] == {"n": 1}


def test_the_list_is_newest_first_with_filters(api):
    old = store(api, age=30, payload={"n": 1}, trigger=4, source=9)
    new = store(api, age=10, trigger_ref="mine.other", rule=5, rule_ref="mine.rule")

    def found(query=""):
        return [item["id"] for item in api.get(f"/api/v1/events?{query}").items]

    assert found() == [new.id, old.id]
    assert found("per_page=1&page=2") == [old.id]
    assert found("trigger_ref=mine.called") == [old.id]
    assert found("trigger=4") == [old.id]
    assert found("source=9") == [old.id]
    assert found("rule_ref=mine.rule") == [new.id]
    listed = api.get("/api/v1/events?include_total=true")
    assert set(listed.items[0]) == (WIRE - {"config", "payload"}) | {"has_payload"}
    assert [item["has_payload"] for item in listed.items] == [False, True]
    assert listed.json["pagination"]["total_items"] == 2
    assert "total_items" not in api.get("/api/v1/events").json["pagination"]


def test_a_grant_for_one_pack_shows_that_packs_events(api):
    mine = store(api, age=20)
    store(api, age=10, trigger_ref="other.called")
    some = api.with_grants(Grant(resource="events", actions=["read"], constraints={"pack_refs": ["mine"]}))
    answer = some.get("/api/v1/events?include_total=true")
    assert [item["id"] for item in answer.items] == [mine.id]
    assert answer.json["pagination"]["total_items"] == 1
    assert api.as_role("core.editor").get("/api/v1/events").status == 403
