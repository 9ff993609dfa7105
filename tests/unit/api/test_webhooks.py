"""Webhooks over the adapter: switching, securing, receiving."""

import hashlib
import hmac as hmaclib
import json
import re
import time

import msgspec
import pytest
from unit.api.resources import make_pack, make_trigger

from chalicelib import clients
from chalicelib.store.registry import Put

ENABLE = "/api/v1/triggers/mine.called/webhooks/enable"
DISABLE = "/api/v1/triggers/mine.called/webhooks/disable"
REGENERATE = "/api/v1/triggers/mine.called/webhooks/regenerate"
CONFIG = "/api/v1/triggers/mine.called/webhooks/config"


@pytest.fixture(autouse=True)
def trigger(api):
    make_pack(api)
    return make_trigger(api)


@pytest.fixture
def key(api):
    return api.post(ENABLE).data["webhook_key"]


def post(api, key, body=None, headers=None, content=None):
    raw = content if content is not None else json.dumps({"n": 1} if body is None else body).encode()
    return api.anonymous().post(f"/api/v1/webhooks/{key}", content=raw, headers=headers)


def secure(api, **config):
    answer = api.put(CONFIG, json=config)
    assert answer.status == 200, answer.json


def signature(secret, body):
    return "sha256=" + hmaclib.new(secret.encode(), body, hashlib.sha256).hexdigest()


def test_enabling_gives_a_key_once(api):
    answer = api.post(ENABLE)
    assert answer.status == 200
    assert answer.data["webhook_enabled"] is True
    assert re.fullmatch(r"wh_[0-9a-f]{32}", answer.data["webhook_key"])
    assert api.post(ENABLE).data["webhook_key"] == answer.data["webhook_key"]
    assert answer.json["webhook_key"] == answer.data["webhook_key"]  # where the published client looks


def test_disabling_takes_the_key_away_for_good(api, key):
    answer = api.post(DISABLE)
    assert answer.data["webhook_enabled"] is False
    assert "webhook_key" not in answer.data
    assert post(api, key).status == 404
    assert api.post(ENABLE).data["webhook_key"] != key
    assert post(api, key).status == 404


def test_regenerating_ends_the_old_key(api, key):
    new = api.post(REGENERATE).data["webhook_key"]
    assert new != key
    assert post(api, key).status == 404
    assert post(api, new).status == 200
    api.post(DISABLE)
    assert api.post(REGENERATE).status == 400


def test_switching_needs_its_grant(api, key):
    for role in ("core.editor", "core.viewer"):
        someone = api.as_role(role)
        assert [someone.post(path).status for path in (ENABLE, DISABLE, REGENERATE)] == [403, 403, 403]
        assert someone.put(CONFIG, json={}).status == 403
        assert someone.get(CONFIG).status == 403
    assert api.post("/api/v1/triggers/mine.gone/webhooks/enable").status == 404
    stranger = api.as_role("core.admin", tenant=f"{api.tenant}-other")
    assert stranger.post(ENABLE).status == 404


def test_a_delivery_becomes_an_event(api, key):
    answer = post(api, key, {"n": 1})
    assert answer.status == 200
    assert set(answer.data) == {"event_id", "trigger_ref", "received_at", "message"}
    assert answer.data["trigger_ref"] == "mine.called"
    assert answer.json["event_id"] == answer.data["event_id"]  # where the published client looks
    (message,) = api.sent("events")
    assert message["id"] == answer.data["event_id"]
    assert message["payload"] == {"n": 1}
    assert (message["source_ref"], message["trigger_ref"]) == ("webhook", "mine.called")


def test_a_payload_key_makes_the_body_an_envelope(api, key):
    post(api, key, {"payload": [1, 2], "headers": {"x": "y"}, "source_ip": "198.51.100.1"})
    (message,) = api.sent("events")
    assert message["payload"] == [1, 2]
    assert message["config"]["source"] == "webhook"
    assert message["config"]["headers"] == {"x": "y"}


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'"text"', b"\xff", b"[" * 100_000])
def test_what_is_no_json_object_is_refused(api, key, content):
    answer = post(api, key, content=content)
    assert answer.status == 400
    assert answer.json["code"] == "BAD_REQUEST"
    assert api.sent("events") == []


def test_a_body_of_any_content_type_works(api, key):
    assert post(api, key, headers={"content-type": "text/plain"}).status == 200


def test_an_unknown_key_is_404_after_the_body_is_read(api):
    answer = post(api, "wh_" + "0" * 32)
    assert (answer.status, answer.json["error"]) == (404, "Invalid webhook key")
    assert post(api, "wh_" + "0" * 32, content=b"{").status == 400


def test_a_key_that_another_process_made_works_at_once(api, key):
    now = api.services.clock()
    assert post(api, key).status == 200  # this process has the trigger in its cache now
    current = api.registry.triggers.get("mine.called")
    elsewhere = msgspec.structs.replace(current, webhook_key="wh_" + "a" * 32, updated=now)
    listeners, api.services.store._listeners = api.services.store._listeners, []
    try:
        api.registry.commit(Put(elsewhere))
        assert post(api, "wh_" + "a" * 32).status == 200
    finally:
        api.services.store._listeners = listeners


@pytest.mark.parametrize("header", ["Idempotency-Key", "X-GitHub-Delivery", "webhook-id"])
def test_a_repeated_delivery_gives_the_first_event(api, key, header):
    first, again, other = (post(api, key, headers={header: value}).data["event_id"] for value in ("a", "a", "b"))
    assert first == again
    assert first != other


def test_the_configuration_keeps_its_secrets_to_itself(api, key):
    secure(api, hmac={"enabled": True, "secret": "hush-hush-hush-hush", "algorithm": "sha256"})
    shown = api.get(CONFIG).data
    assert shown["hmac"] == {"enabled": True, "secret": "********", "algorithm": "sha256"}
    stored = msgspec.json.encode(api.registry.triggers.get("mine.called")).decode()
    assert "hush-hush-hush-hush" not in stored
    assert "hmac" not in api.get("/api/v1/triggers/mine.called").body.decode()


def test_a_signed_delivery_passes_and_an_unsigned_one_does_not(api, key):
    secure(api, hmac={"enabled": True, "secret": "hush-hush-hush-hush", "algorithm": "sha256"})
    body = b'{"n":1}'
    assert post(api, key, content=body).status == 401
    wrong = {"X-Hub-Signature-256": signature("another", body)}
    assert post(api, key, content=body, headers=wrong).status == 401
    right = {"X-Hub-Signature-256": signature("hush-hush-hush-hush", body)}
    assert post(api, key, content=body, headers=right).status == 200
    (message,) = api.sent("events")
    assert message["config"]["hmac_verified"] is True


def test_security_survives_being_toggled_and_a_masked_update(api, key):
    secure(api, hmac={"enabled": True, "secret": "hush-hush-hush-hush", "algorithm": "sha256"})
    api.post(DISABLE)
    again = api.post(ENABLE).data["webhook_key"]
    body = b'{"n":1}'
    right = {"X-Hub-Signature-256": signature("hush-hush-hush-hush", body)}
    assert post(api, again, content=body).status == 401
    secure(api, **api.get(CONFIG).data, payload_size_limit_kb=10)
    assert post(api, again, content=body, headers=right).status == 200


def test_two_secrets_are_active_while_they_are_rotated(api, key):
    secure(
        api, hmac={"enabled": True, "secrets": ["old-old-old-old-old", "new-new-new-new-new"], "algorithm": "sha256"}
    )
    body = b'{"n":1}'
    for secret in ("old-old-old-old-old", "new-new-new-new-new"):
        assert post(api, key, content=body, headers={"X-Webhook-Signature": signature(secret, body)}).status == 200


def test_addresses_outside_the_whitelist_are_refused(api, key):
    secure(api, ip_whitelist={"enabled": True, "ips": ["198.51.100.0/24"]})
    assert post(api, key).status == 403
    secure(api, ip_whitelist={"enabled": True, "ips": ["203.0.113.0/24"]})
    assert post(api, key).status == 200


def test_big_bodies_are_refused(api, key):
    secure(api, payload_size_limit_kb=1)
    assert post(api, key, {"text": "x" * 2000}).status == 400
    assert post(api, key).status == 200


def test_more_deliveries_than_the_limit_are_refused_until_the_window_ends(api, key):
    secure(api, rate_limit={"enabled": True, "requests": 2, "window_seconds": 86_400})
    answers = [post(api, key) for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 429]
    assert answers[2].json["code"] == "TOO_MANY_REQUESTS"
    assert answers[2].headers["Retry-After"] == "86400"


def test_a_bad_configuration_is_refused_and_the_old_one_stays(api, key):
    secure(api, payload_size_limit_kb=5)
    for config in ({"hmac": {"enabled": True}}, {"ip_whitelist": {"enabled": True, "ips": ["somewhere"]}}):
        assert api.put(CONFIG, json=config).status == 422
    assert api.put(CONFIG, json=[1]).status == 422
    assert api.get(CONFIG).data == {"payload_size_limit_kb": 5}


def test_a_warm_delivery_costs_one_call(api, key, monkeypatch):
    """Design §9: of the nine calls from a webhook to a completed execution, receiving it takes one."""
    now = time.monotonic()
    monkeypatch.setattr(api.services.snapshots, "_clock", lambda: now)  # warm means: within the cache's second
    post(api, key)
    calls = []

    def count(event_name, **_):
        calls.append(event_name)

    clients.on_event("before-send", count)
    try:
        post(api, key)
    finally:
        clients.off_event("before-send", count)
    assert calls == ["before-send.sqs.SendMessage"]
