"""T3.6: events that sensors make.

A pack brings a trigger of its own and a sensor, which is code that looks and reports. The platform polls it, keeps its
state, takes in what it prints, and does so only while an enabled rule listens. Any other program reports by API, with a
sensor token.
"""

import json
from collections.abc import Iterator
from importlib import metadata
from typing import Any

import pytest
from helpers.client import ApiError, AttuneClient, Json
from helpers.fixtures import create_echo_action, pack_archive, unique_ref
from helpers.narration import step, summary, title
from helpers.polling import wait_for, wait_for_event_count, wait_for_execution_count, wait_for_execution_status

COUNTER = """\
import json
import sys

given = json.load(sys.stdin)
count = given["state"].get("count", 0) + 1
for rule in given["rules"]:
    print(json.dumps({"event": {"rule": rule["ref"], "payload": {"count": count, **rule["trigger_params"]}}}))
print(json.dumps({"state": {"count": count}}))
print("looked", count, "times")
"""

SENSOR = """\
ref: counter
label: Counts its polls
runner_type: python
entry_point: counter.py
trigger_types: [counted]
poll_interval: 1
config: {unit: polls}
"""

TRIGGER = """\
ref: counted
label: Counted
parameters:
  who: {type: string}
output:
  count: {type: integer, required: true}
  who: {type: string}
"""

FAILING = """\
import sys

print('{"event": {"payload": {"count": 1}}}')
print("cannot look", file=sys.stderr)
sys.exit(3)
"""


POLLING = """\
import attune


class Ticker(attune.PollingSensor):
    def setup(self):
        self.interval = 1.0

    def poll(self, rule):
        self.emit({"count": len(rule.rule_ref), "who": rule.trigger_params["who"]}, rule=rule)


if __name__ == "__main__":
    attune.run_sensor(Ticker)
"""


class Sensor:
    """A sensor of a pack of its own, with an action for its rules."""

    def __init__(self, client: AttuneClient, pack: str, code: str, **files: bytes) -> None:
        self.client = client
        self.pack = pack
        self.ref = f"{pack}.counter"
        self.trigger_ref = f"{pack}.counted"
        source: dict[str, str | bytes] = {
            "pack.yaml": f"ref: {pack}\nversion: 1.0.0\n",
            "triggers/counted.yaml": TRIGGER,
            "sensors/counter.yaml": SENSOR,
            "sensors/counter.py": code,
            **files,
        }
        assert client.upload_pack(pack_archive(source))["warnings"] == []
        self.action = create_echo_action(client, pack)

    def rule(self, name: str, **fields: Json) -> str:
        ref = f"{self.pack}.{name}"
        params = {"message": "count {{ event.payload.count }}"}
        self.client.create_rule(
            ref, self.pack, trigger_ref=self.trigger_ref, action_ref=self.action, action_params=params, **fields
        )
        return ref

    def status(self) -> dict[str, Json]:
        found: dict[str, Json] = self.client.data("GET", f"sensors/{self.ref}/status")
        return found

    def log(self, stream: str) -> str:
        text: str = self.client.call("GET", f"sensors/{self.ref}/logs/{stream}")
        return text


@pytest.fixture
def pack_ref(client: AttuneClient) -> Iterator[str]:
    ref = unique_ref("sensing")
    yield ref
    client.delete_pack(ref)


@pytest.mark.tier3
@pytest.mark.sensors
def test_sensor_generates_custom_events(client: AttuneClient, pack_ref: str) -> None:
    """Polled each second, with its state and the rules that listen; each event runs its rule's action."""
    title("T3.6: Sensor-Generated Custom Events")

    step(1, "Installing a pack with a trigger and a sensor that nobody listens to")
    sensor = Sensor(client, pack_ref, COUNTER)
    assert sensor.status()["status"] == "stopped"
    assert client.get_trigger(sensor.trigger_ref)["sensor_ref"] == sensor.ref

    step(2, "Making a rule")
    rule = sensor.rule("each", trigger_params={"who": "me"})

    step(3, "Waiting for three of its events to become executions")
    wait_for_execution_count(client, 3, match="at least", rule_ref=rule)
    client.disable_rule(rule)
    wait_for(lambda: sensor.status()["status"] == "stopped", timeout=10, what="the sensor to stop")

    step(4, "Looking at what it reported")
    events = wait_for_event_count(client, sensor.status()["events"], trigger_ref=sensor.trigger_ref)
    payloads = [client.get_event(event["id"])["payload"] for event in reversed(events)]
    status = sensor.status()
    summary(f"{status['polls']} polls", f"{len(events)} events", status["reason"])
    assert payloads == [{"count": number, "who": "me"} for number in range(1, len(events) + 1)], "no poll ran twice"
    assert {(event["rule_ref"], event["source_ref"]) for event in events} == {(rule, sensor.ref)}
    executions = wait_for_execution_count(client, 3, match="at least", rule_ref=rule)
    said = {client.get_execution(row["id"])["result"]["stdout"].strip() for row in executions}
    assert {"count 1", "count 2", "count 3"} <= said
    assert sensor.log("stdout").startswith("looked 1 times\nlooked 2 times\n")

    step(5, "Enabling the rule again: the state is still there")
    client.enable_rule(rule)
    after = wait_for_event_count(client, len(events) + 1, match="at least", trigger_ref=sensor.trigger_ref)
    newest = client.get_event(max(event["id"] for event in after))
    assert newest["payload"]["count"] > len(events)


@pytest.mark.tier3
@pytest.mark.sensors
def test_sensor_failure_backs_off(client: AttuneClient, pack_ref: str) -> None:
    """A poll that fails reports nothing, says why, and is tried again later and later."""
    title("T3.6: A Sensor That Fails")
    sensor = Sensor(client, pack_ref, FAILING)

    step(1, "Making a rule, so that it is polled")
    sensor.rule("each")
    wait_for(lambda: sensor.status()["consecutive_failures"] >= 2, timeout=20, what="two failed polls")

    step(2, "Looking at its status and log")
    status = sensor.status()
    summary(status["status"], status["last_error"], f"next {status['next_poll_at']}")
    assert status["status"] == "backoff"
    assert (status["events"], status["last_exit_code"]) == (0, 3)
    assert "cannot look" in status["last_error"]
    assert "cannot look" in sensor.log("stderr")
    assert client.list_events(trigger_ref=sensor.trigger_ref) == []

    step(3, "Disabling it")
    client.call("POST", f"sensors/{sensor.ref}/disable")
    assert sensor.status()["status"] == "stopped"


@pytest.mark.tier3
@pytest.mark.sensors
def test_sensor_made_by_api(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    """Made, changed, disabled, enabled and deleted by API; what it reports against its trigger's schema is counted."""
    title("T3.6: A Sensor Made by API")
    pack = test_pack["ref"]
    trigger = client.create_trigger(f"{pack}.felt", pack, out_schema={"celsius": {"type": "number"}})["ref"]
    client.create_rule(f"{pack}.each", pack, trigger_ref=trigger, action_ref="core.noop")
    path = f"sensors/{pack}.thermometer"

    def status() -> dict[str, Json]:
        found: dict[str, Json] = client.data("GET", f"{path}/status")
        return found

    def printing(celsius: Json) -> str:
        return f"echo '{json.dumps({'event': {'payload': {'celsius': celsius}}})}'"

    step(1, "Making one that reports what its trigger does not take")
    fields = {"pack_ref": pack, "label": "Feels", "runtime_ref": "core.shell", "trigger_ref": trigger}
    body = {"ref": f"{pack}.thermometer", **fields, "entrypoint": printing("warm"), "poll_interval": 1}
    client.call("POST", "sensors", json=body)
    wait_for(lambda: status()["events_refused"], timeout=20, what="a refused event")
    assert status()["events"] == 0
    assert "celsius" in client.get_trigger(trigger)["refused_payloads"]["last_reason"]

    step(2, "Mending it")
    client.call("PUT", path, json={"entrypoint": printing(21.5)})
    wait_for_event_count(client, 1, match="at least", trigger_ref=trigger, timeout=30)

    step(3, "Disabling, enabling and deleting it")
    client.call("POST", f"{path}/disable")
    wait_for(lambda: status()["status"] == "stopped", timeout=10, what="the sensor to stop")
    reported = status()["events"]
    client.call("POST", f"{path}/enable")
    wait_for(lambda: status()["events"] > reported, timeout=20, what="the sensor to report again")
    summary(f"{status()['polls']} polls", f"{status()['events']} events", f"{status()['events_refused']} refused")
    client.call("DELETE", path)
    assert client.request("GET", path).status_code == 404
    assert f"{pack}.thermometer" not in [each["ref"] for each in client.items("sensors")]


@pytest.mark.tier3
@pytest.mark.sensors
def test_event_by_sensor_token(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    """A program anywhere reports with a sensor token, for the triggers that the token names and for no other."""
    title("T3.6: Events by API")
    pack = test_pack["ref"]
    triggers = [f"{pack}.seen", f"{pack}.heard"]
    for ref in triggers:
        client.create_trigger(ref, pack)
    action = create_echo_action(client, pack)
    message = {"message": "{{ event.payload.what }}"}
    rule = client.create_rule(f"{pack}.each", pack, trigger_ref=triggers[0], action_ref=action, action_params=message)

    step(1, "Getting a token for one of two triggers")
    issued = client.data(
        "POST", "/auth/sensor-token", json={"sensor_ref": f"{pack}.eye", "trigger_types": triggers[:1]}
    )

    step(2, "Reporting")
    with AttuneClient(client.base_url, token=issued["token"]) as eye:
        event = eye.data("POST", "events", json={"trigger_ref": triggers[0], "payload": {"what": "a cat"}})
        refused = eye.request("POST", "events", json={"trigger_ref": triggers[1], "payload": {}})
        listening = eye.call("GET", f"triggers/{triggers[0]}/rules")["items"]
    (execution,) = wait_for_execution_count(client, 1, rule_ref=rule["ref"])
    done = wait_for_execution_status(client, execution["id"], "succeeded")

    summary(f"event {event['id']} of {event['source_ref']}", done["result"]["stdout"].strip())
    assert event["source_ref"] == f"{pack}.eye"
    assert done["result"]["stdout"].strip() == "a cat"
    assert refused.status_code == 404, "the pack is private: its other trigger does not exist for this token"
    assert [each["ref"] for each in listening] == [rule["ref"]]


@pytest.mark.tier3
@pytest.mark.sensors
@pytest.mark.rbac
def test_event_by_an_identity(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    """People report only with events:create, and only where they have it."""
    title("T3.6: Events by Somebody With the Right")
    pack = test_pack["ref"]
    trigger, other = (client.create_trigger(f"{pack}.{name}", pack)["ref"] for name in ("seen", "heard"))
    rule = client.create_rule(
        f"{pack}.each",
        pack,
        trigger_ref=trigger,
        action_ref=create_echo_action(client, pack),
        action_params={"message": "{{ event.payload.what }}"},
    )
    login, password = f"{pack}@example.test", "Correct horse 1 battery!"
    identity = client.data("POST", "identities", json={"login": login, "password": password})
    grants = [
        {"resource": "packs", "actions": ["read"], "constraints": {"pack_refs": [pack]}},
        {"resource": "events", "actions": ["create"], "constraints": {"refs": [trigger]}},
    ]
    allowed = client.data("POST", "permissions/sets", json={"ref": f"{pack}.reporter", "grants": grants})
    with AttuneClient(client.base_url) as somebody:
        somebody.login(login, password)
        report = {"trigger_ref": trigger, "payload": {"what": "a cat"}}

        step(1, "Reporting without the right")
        assert somebody.request("POST", "events", json=report).status_code == 403

        step(2, "Being given it, and reporting")
        assigned = {"identity_id": identity["id"], "permission_set_ref": allowed["ref"]}
        client.data("POST", "permissions/assignments", json=assigned)
        event = somebody.data("POST", "events", json=report)
        elsewhere = somebody.request("POST", "events", json={**report, "trigger_ref": other})
    (execution,) = wait_for_execution_count(client, 1, rule_ref=rule["ref"])
    summary(f"event {event['id']}", f"execution {execution['id']}", f"another trigger: {elsewhere.status_code}")
    assert client.get_execution(execution["id"])["result"]["stdout"].strip() == "a cat"
    assert client.get_event(event["id"]).get("source_ref") is None
    assert elsewhere.status_code == 403
    client.call("DELETE", f"identities/{identity['id']}")
    client.call("DELETE", f"permissions/sets/{allowed['id']}")


@pytest.mark.tier3
@pytest.mark.sensors
@pytest.mark.validation
def test_payload_against_schema(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    """A payload that breaks the trigger's ``out_schema`` is refused with every reason, and counted."""
    title("T3.6: Payloads Against Their Schema")
    pack = test_pack["ref"]
    trigger = f"{pack}.measured"
    schema = {"celsius": {"type": "number", "required": True}, "room": {"type": "string", "enum": ["a", "b"]}}
    client.create_trigger(trigger, pack, out_schema=schema)
    body = {"sensor_ref": f"{pack}.thermometer", "trigger_types": [trigger]}
    token = client.data("POST", "/auth/sensor-token", json=body)["token"]

    def report(payload: Any) -> dict[str, Json]:
        with AttuneClient(client.base_url, token=token) as sensor:
            event: dict[str, Json] = sensor.data("POST", "events", json={"trigger_ref": trigger, "payload": payload})
            return event

    step(1, "Reporting something that breaks it twice")
    with pytest.raises(ApiError) as error:
        report({"celsius": "warm", "room": "c"})
    print(error.value.body)
    assert error.value.status == 422
    assert len(error.value.body["details"]["violations"]) == 2

    step(2, "Reporting something that fits")
    event = report({"celsius": 21.5, "room": "a"})

    assert [each["id"] for each in wait_for_event_count(client, 1, trigger_ref=trigger)] == [event["id"]]
    refused = client.get_trigger(trigger)["refused_payloads"]
    summary(refused)
    assert refused["count"] == 1
    assert "celsius" in refused["last_reason"]


@pytest.mark.tier3
@pytest.mark.sensors
def test_sensor_of_the_published_sdk(client: AttuneClient, pack_ref: str) -> None:
    """A sensor written against attune-sdk, which lies beside it in the pack, runs as it is and posts its events."""
    title("T3.6: A Sensor of attune-sdk")

    step(1, "Installing a pack with a PollingSensor, and a rule for it")
    sensor = Sensor(client, pack_ref, POLLING, **sdk_files())
    rule = sensor.rule("each", trigger_params={"who": "me"})

    step(2, "Waiting for what it emits")
    events = wait_for_event_count(client, 2, match="at least", trigger_ref=sensor.trigger_ref, timeout=40)
    status = sensor.status()
    summary(f"{status['polls']} polls", f"{status['events']} events")
    assert {(event["rule_ref"], event["source_ref"]) for event in events} == {(rule, sensor.ref)}
    assert client.get_event(events[0]["id"])["payload"]["who"] == "me"
    assert (status["status"], status["last_error"]) == ("running", None)


def sdk_files() -> dict[str, bytes]:
    """attune-sdk and what it stands on, as this test's own Python has them, to lie beside a sensor."""
    names = ("attune-sdk", "httpx", "httpcore", "h11", "anyio", "idna", "certifi", "attrs", "python-json-logger")
    files = {}
    for name in (*names, "typing_extensions"):
        for path in metadata.files(name) or ():
            if path.suffix in (".py", ".pem") and not path.match("attune/api_client/*/**") and ".." not in path.parts:
                files[f"sensors/{path}"] = path.read_binary()
    return files
