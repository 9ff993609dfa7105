"""T1.4: a webhook POST becomes an event, a rule matches it, an action runs, and its result can be read back."""

import base64
import hashlib
import hmac
import json
import secrets
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from helpers.client import AttuneClient, Json
from helpers.fixtures import create_echo_action, create_python_action, create_webhook_trigger, unique_ref
from helpers.polling import (
    wait_for,
    wait_for_enforcement_count,
    wait_for_event_count,
    wait_for_execution_count,
    wait_for_execution_status,
)

pytestmark = [pytest.mark.tier1, pytest.mark.webhook]


def test_webhook_trigger_with_payload(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    """The whole way, with every id along it pointing to the next."""
    pack = test_pack["ref"]
    trigger = create_webhook_trigger(client, pack)
    code = "import json, sys\np = json.load(sys.stdin)\nprint(p['count'] * 2, p['labels']['env'])"
    action = create_python_action(client, pack, "double", code)
    rule = client.create_rule(
        f"{pack}.rule",
        pack,
        trigger_ref=trigger.ref,
        action_ref=action,
        conditions={"expression": "{{ event.payload.level == 'error' }}"},
        action_params={"count": "{{ event.payload.count }}", "labels": "{{ event.payload.labels }}"},
    )
    payload = {"level": "error", "count": 21, "labels": {"env": "prod"}}

    accepted = client.post_webhook(trigger.key, payload)

    assert accepted["trigger_ref"] == trigger.ref
    assert accepted["received_at"].endswith("Z")
    (summary,) = wait_for_execution_count(client, 1, rule_ref=rule["ref"])
    execution = client.get_execution(summary["id"])
    assert execution["result"]["stdout"].strip() == "42 prod"
    assert execution["result"]["exit_code"] == 0
    assert execution["result"]["succeeded"] is True
    assert execution["config"] == {"count": 21, "labels": {"env": "prod"}}
    assert execution["executor"] == client.me()["id"] == rule["owner_identity"]
    assert (summary["rule_ref"], summary["trigger_ref"]) == (rule["ref"], trigger.ref)

    enforcement = client.get_enforcement(execution["enforcement"])
    assert enforcement["status"] == "processed"
    assert (enforcement["rule_ref"], enforcement["event"]) == (rule["ref"], accepted["event_id"])
    assert enforcement["payload"] == payload
    assert enforcement["conditions"] == rule["conditions"]
    assert enforcement["resolved_at"] is not None

    event = client.get_event(accepted["event_id"])
    assert event["payload"] == payload
    assert event["trigger_ref"] == trigger.ref
    assert event["config"]["source"] == "webhook"
    assert event["source_ref"] == "webhook"


def test_multiple_webhook_posts(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    """Every post is an event and an execution of its own, with its own payload."""
    pack = test_pack["ref"]
    trigger = create_webhook_trigger(client, pack)
    action = create_echo_action(client, pack)
    client.create_rule(
        f"{pack}.rule", pack, trigger_ref=trigger.ref, action_ref=action,
        action_params={"message": "post {{ event.payload.n }}"},
    )  # fmt: skip

    events = {client.post_webhook(trigger.key, {"n": n})["event_id"] for n in range(5)}

    rows = wait_for_execution_count(client, 5, trigger_ref=trigger.ref)
    said = {client.get_execution(row["id"])["result"]["stdout"].strip() for row in rows}
    assert said == {f"post {n}" for n in range(5)}
    assert {event["id"] for event in client.list_events(trigger_ref=trigger.ref)} == events
    assert len(events) == 5


def test_webhook_with_complex_payload(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    """Types and text survive the way: nesting, Unicode, quotes, big and fractional numbers, null, empty things."""
    pack = test_pack["ref"]
    trigger = create_webhook_trigger(client, pack)
    action = create_python_action(client, pack, "mirror", "import sys\nprint(sys.stdin.read())")
    client.create_rule(
        f"{pack}.rule", pack, trigger_ref=trigger.ref, action_ref=action,
        action_params={
            "it": "{{ event.payload }}",
            "text": "{{ event.payload.text }}!",
            "none": "{{ event.payload.none }}",
        },
    )  # fmt: skip
    payload = {
        "text": "Grüße, 世界 🎉 'single' \"double\" $HOME `id` \\n {{ 7 * 7 }}",
        "deep": [{"list": [[1, 2.5, True, None]], "": "empty key"}],
        "big": 2**53 - 1,
        "empty": [{}, [], ""],
        "none": None,
    }

    client.post_webhook(trigger.key, payload)

    (row,) = wait_for_execution_count(client, 1, trigger_ref=trigger.ref)
    seen = json.loads(client.get_execution(row["id"])["result"]["stdout"])
    assert seen["it"] == payload
    assert seen["text"] == payload["text"] + "!"
    assert seen.get("none") is None


def test_body_without_envelope_is_the_payload(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    """Any JSON object does: GitHub and others know nothing of our envelope (contract README 7)."""
    trigger = create_webhook_trigger(client, test_pack["ref"])

    answer = client.request("POST", f"webhooks/{trigger.key}", json={"action": "opened", "number": 7})

    assert answer.status_code == 200
    (event,) = wait_for_event_count(client, 1, trigger_ref=trigger.ref)
    assert client.get_event(event["id"])["payload"] == {"action": "opened", "number": 7}


def test_event_that_matches_nothing_starts_nothing(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    """No match, no enforcement; an event with an empty payload is evaluated like any other (contract README 5)."""
    pack = test_pack["ref"]
    trigger = create_webhook_trigger(client, pack)
    action = create_echo_action(client, pack)
    picky = client.create_rule(
        f"{pack}.picky", pack, trigger_ref=trigger.ref, action_ref=action,
        conditions=[{"field": "level", "operator": "equals", "value": "error"}],
    )  # fmt: skip
    off = client.create_rule(f"{pack}.off", pack, trigger_ref=trigger.ref, action_ref=action, enabled=False)
    always = client.create_rule(f"{pack}.always", pack, trigger_ref=trigger.ref, action_ref=action)

    client.post_webhook(trigger.key, {"level": "info"})
    client.post_webhook(trigger.key, {})

    wait_for_execution_count(client, 2, rule_ref=always["ref"])
    assert client.list_executions(rule_ref=picky["ref"]) == []
    assert client.list_enforcements(rule_ref=off["ref"]) == []


@pytest.mark.criteria
def test_criterion_that_errors_does_not_fire_and_says_why(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    """The failure is on record as an enforcement without an execution, and the platform goes on (contract README 5)."""
    pack = test_pack["ref"]
    trigger = create_webhook_trigger(client, pack)
    action = create_echo_action(client, pack)
    broken = client.create_rule(
        f"{pack}.broken", pack, trigger_ref=trigger.ref, action_ref=action,
        conditions={"expression": "event.payload.missing.deeper > 3"},
    )  # fmt: skip
    fine = client.create_rule(f"{pack}.fine", pack, trigger_ref=trigger.ref, action_ref=action)

    client.post_webhook(trigger.key, {"a": 1})

    wait_for_execution_count(client, 1, rule_ref=fine["ref"])
    (enforcement,) = wait_for_enforcement_count(client, 1, rule_ref=broken["ref"])
    shown = client.get_enforcement(enforcement["id"])
    assert shown["status"] == "disabled"
    assert "missing" in json.dumps(shown), "the reason names what is missing"
    assert client.list_executions(rule_ref=broken["ref"]) == []


def test_rule_changes_take_effect(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    """A disabled rule stays silent, a changed one acts as changed, without anything being restarted."""
    pack = test_pack["ref"]
    trigger = create_webhook_trigger(client, pack)
    action = create_echo_action(client, pack)
    rule = client.create_rule(
        f"{pack}.rule", pack, trigger_ref=trigger.ref, action_ref=action, action_params={"message": "before"}
    )["ref"]
    witness = client.create_rule(f"{pack}.witness", pack, trigger_ref=trigger.ref, action_ref=action)["ref"]

    assert client.disable_rule(rule)["enabled"] is False
    client.post_webhook(trigger.key, {})
    wait_for_execution_count(client, 1, rule_ref=witness)
    assert client.list_executions(rule_ref=rule) == []

    client.update_rule(rule, action_params={"message": "after"})
    assert client.enable_rule(rule)["enabled"] is True
    client.post_webhook(trigger.key, {})
    (row,) = wait_for_execution_count(client, 1, rule_ref=rule)
    assert client.get_execution(row["id"])["result"]["stdout"].strip() == "after"

    client.delete_rule(rule)
    client.post_webhook(trigger.key, {})
    wait_for_execution_count(client, 3, rule_ref=witness)
    assert len(client.list_executions(rule_ref=rule)) == 1


def test_keys_come_and_go(client: AttuneClient, anonymous: AttuneClient, test_pack: dict[str, Json]) -> None:
    """A key works until it is regenerated or the webhook is disabled; posting needs no sign-in."""
    trigger = create_webhook_trigger(client, test_pack["ref"])
    assert trigger.key.startswith("wh_")
    assert len(trigger.key) == len("wh_") + 32
    assert anonymous.request("POST", f"webhooks/{trigger.key}", json={"payload": {}}).status_code == 200

    second = client.regenerate_webhook(trigger.ref)
    old = anonymous.request("POST", f"webhooks/{trigger.key}", json={"payload": {}})
    assert second != trigger.key
    assert (old.status_code, old.json()["error"]) == (404, "Invalid webhook key")
    assert anonymous.request("POST", f"webhooks/{second}", json={"payload": {}}).status_code == 200

    off = client.disable_webhook(trigger.ref)
    assert off["webhook_enabled"] is False
    assert "webhook_key" not in off, "omitted when there is none"
    assert anonymous.request("POST", f"webhooks/{second}", json={"payload": {}}).status_code == 404
    assert client.request("POST", f"triggers/{trigger.ref}/webhooks/regenerate").status_code == 400


@pytest.mark.parametrize("header", ["Idempotency-Key", "X-GitHub-Delivery"])
def test_repeated_delivery_is_the_first_event(client: AttuneClient, test_pack: dict[str, Json], header: str) -> None:
    """A sender that repeats itself starts nothing twice, not even while its first delivery is on its way (README 7)."""
    pack = test_pack["ref"]
    trigger = create_webhook_trigger(client, pack)
    action = create_echo_action(client, pack)
    client.create_rule(f"{pack}.rule", pack, trigger_ref=trigger.ref, action_ref=action)
    deliveries = [unique_ref("delivery") for _ in range(5)]

    def post(delivery: str) -> int:
        event: int = client.post_webhook(trigger.key, {"of": delivery}, headers={header: delivery})["event_id"]
        return event

    with ThreadPoolExecutor(3) as pool:
        events = {delivery: set(pool.map(post, [delivery] * 3)) for delivery in deliveries}
    wait_for_execution_count(client, len(deliveries), match="at least", trigger_ref=trigger.ref)
    for delivery in deliveries:
        events[delivery].add(post(delivery))

    assert all(len(ids) == 1 for ids in events.values())
    assert len(set.union(*events.values())) == len(deliveries)
    # An event posted last has been through when its execution is there; so have those before it.
    last = client.post_webhook(trigger.key, {})["event_id"]
    wait_for(lambda: client.list_enforcements(event=last), timeout=20, what="the last event to be processed")
    wait_for_execution_count(client, len(deliveries) + 1, trigger_ref=trigger.ref)
    assert {event["id"] for event in client.list_events(trigger_ref=trigger.ref)} == {
        last,
        *set.union(*events.values()),
    }


@pytest.mark.security
def test_hmac_signatures(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    """GitHub's and our own header over the raw body; Stripe's and Standard Webhooks' with a replay window."""
    trigger = create_webhook_trigger(client, test_pack["ref"])
    secret = secrets.token_hex(16)
    client.configure_webhook(trigger.ref, {"hmac": {"enabled": True, "secret": secret, "algorithm": "sha256"}})
    body = b'{"payload": {"n": 1}}'
    signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()

    def post(**headers: str) -> int:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        all_headers = {"Content-Type": "application/json", **named}
        return client.request("POST", f"webhooks/{trigger.key}", content=body, headers=all_headers).status_code

    def stripe(at: float) -> str:
        signed = hmac.new(secret.encode(), b"%d." % at + body, hashlib.sha256).hexdigest()
        return f"t={int(at)},v1={signed}"

    def standard(at: float) -> dict[str, str]:
        content = f"msg_1.{int(at)}.".encode() + body
        signed = base64.b64encode(hmac.new(secret.encode(), content, hashlib.sha256).digest()).decode()
        return {"webhook_id": "msg_1", "webhook_timestamp": str(int(at)), "webhook_signature": f"v1,{signed}"}

    now = time.time()
    assert post() == 401
    assert post(X_Hub_Signature_256="sha256=" + "0" * 64) == 401
    assert post(X_Hub_Signature_256="sha256=nothex") == 401
    assert post(X_Hub_Signature_256=f"sha256={signature}") == 200
    assert post(X_Webhook_Signature=signature) == 200
    assert post(Stripe_Signature=stripe(now)) == 200
    assert post(Stripe_Signature=stripe(now - 400)) == 401, "outside the window of 300 s"
    assert post(**standard(now)) == 200
    assert post(**standard(now - 400)) == 401
    assert secret not in client.request("GET", f"triggers/{trigger.ref}").text


@pytest.mark.security
def test_other_limits_of_a_webhook(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    """Size, sender and rate; the configuration survives that the webhook is switched off and on (contract README 7)."""
    trigger = create_webhook_trigger(client, test_pack["ref"])

    def post(payload: Json, key: str = trigger.key) -> int:
        return client.request("POST", f"webhooks/{key}", json={"payload": payload}).status_code

    client.configure_webhook(trigger.ref, {"payload_size_limit_kb": 1})
    assert post("x" * 500) == 200
    assert post("x" * 1500) == 400

    client.configure_webhook(trigger.ref, {"ip_whitelist": {"enabled": True, "ips": ["192.0.2.0/24"]}})
    assert post({}) == 403
    client.disable_webhook(trigger.ref)
    key = client.enable_webhook(trigger.ref)
    assert post({}, key) == 403, "toggling keeps the configuration"
    client.configure_webhook(
        trigger.ref, {"ip_whitelist": {"enabled": True, "ips": ["127.0.0.0/8", "::1", "0.0.0.0/0"]}}
    )
    assert post({}, key) == 200

    client.configure_webhook(trigger.ref, {"rate_limit": {"enabled": True, "requests": 2, "window_seconds": 3600}})
    assert [post({}, key) for _ in range(4)] == [200, 200, 429, 429]


@pytest.mark.rules
def test_rule_trial_shows_and_does_nothing(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    """POST /rules/{ref}/test: would it fire, why, and with which parameters."""
    pack = test_pack["ref"]
    trigger = create_webhook_trigger(client, pack)
    action = create_echo_action(client, pack)
    rule = client.create_rule(
        f"{pack}.rule", pack, trigger_ref=trigger.ref, action_ref=action,
        conditions=[
            {"field": "cpu", "operator": "gt", "value": 80},
            {"field": "host", "operator": "startswith", "value": "db"},
        ],
        action_params={"message": "{{ event.payload.host }} at {{ event.payload.cpu }}"},
    )["ref"]  # fmt: skip

    hit = client.try_rule(rule, {"cpu": 93, "host": "db1"})
    miss = client.try_rule(rule, {"cpu": 93, "host": "web1"})
    error = client.try_rule(rule, {"host": "db1"})

    assert (hit["matched"], hit["would_fire"], hit["error"]) == (True, True, None)
    assert hit["parameters"] == {"message": "db1 at 93"}
    assert [clause["matched"] for clause in hit["conditions"]] == [True, True]
    assert (miss["matched"], miss["would_fire"], miss["parameters"]) == (False, False, None)
    assert [clause["matched"] for clause in miss["conditions"]] == [True, False]
    assert miss["conditions"][1]["value"] == "web1"
    assert error["would_fire"] is False
    assert "cpu" in error["error"]
    assert client.list_enforcements(rule_ref=rule) == []
    assert client.list_executions(rule_ref=rule) == []
    assert client.list_events(trigger_ref=trigger.ref) == []


@pytest.mark.limits
def test_payload_beyond_a_message(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    """A payload too big for a row travels and is kept whole."""
    pack = test_pack["ref"]
    trigger = create_webhook_trigger(client, pack)
    action = create_python_action(client, pack, "measure", "import json, sys\nprint(len(json.load(sys.stdin)['text']))")
    client.create_rule(
        f"{pack}.rule", pack, trigger_ref=trigger.ref, action_ref=action,
        action_params={"text": "{{ event.payload.text }}"},
    )  # fmt: skip
    size = 600_000

    accepted = client.post_webhook(trigger.key, {"text": "x" * size})

    (row,) = wait_for_execution_count(client, 1, trigger_ref=trigger.ref)
    execution = wait_for_execution_status(client, row["id"], "succeeded")
    assert execution["result"]["stdout"].strip() == str(size)
    assert len(client.get_event(accepted["event_id"])["payload"]["text"]) == size
