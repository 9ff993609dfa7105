"""The audit log over HTTP: who signed in, was refused, changed something, read a secret, started something."""

import json
from datetime import UTC, datetime

import pytest
from helpers.client import AttuneClient, Json
from helpers.fixtures import create_echo_action, create_webhook_trigger, unique_login, unique_ref
from helpers.polling import wait_for_execution_count

pytestmark = [pytest.mark.tier2]

PASSWORD = "a password that is long enough"
MASK = "********"


def records(client: AttuneClient, **filters: Json) -> list[dict[str, Json]]:
    """The records that match, oldest first, in full."""
    found = client.call("GET", "audit-events", params={"per_page": 500, **filters})["items"]
    return [client.data("GET", f"audit-events/{each['id']}") for each in reversed(found)]


def test_signing_in_and_being_denied(client: AttuneClient, anonymous: AttuneClient) -> None:
    login = unique_login()
    anonymous.register(login, PASSWORD)
    wrong = {"login": login, "password": "not that password"}
    assert anonymous.request("POST", "/auth/login", json=wrong).status_code == 401
    anonymous.login(login, PASSWORD)
    denied = anonymous.request("POST", "keys", json={})
    assert denied.status_code == 403
    assert anonymous.request("GET", "audit-events").status_code == 403

    registered, refused, signed_in, forbidden, unread = records(client, actor_login=login)

    told = [(each["event_type"], each["outcome"]) for each in (registered, refused, signed_in, forbidden, unread)]
    assert told == [
        ("auth.register", "success"),
        ("auth.login", "failure"),
        ("auth.login", "success"),
        ("rbac.denied", "denied"),
        ("rbac.denied", "denied"),
    ]
    assert forbidden["request_id"] == denied.headers["X-Request-Id"]
    assert client.data("GET", f"audit-events/by-request/{forbidden['request_id']}") == [forbidden]
    assert (forbidden["http_method"], forbidden["http_path"]) == ("POST", "/api/v1/keys")
    assert forbidden["actor_ip"]
    assert PASSWORD not in json.dumps([registered, refused, signed_in, forbidden])


def test_a_key_from_creation_to_deletion(client: AttuneClient) -> None:
    ref = f"{unique_ref()}.password"
    key = {"ref": ref, "owner_type": "system", "name": "before", "value": "hunter22", "encrypted": True}
    made = client.data("POST", "keys", json=key)
    client.data("PUT", f"keys/{ref}", json={"name": "after", "value": "hunter33"})
    assert client.data("GET", f"keys/{ref}")["value"] == "hunter33"
    client.call("DELETE", f"keys/{ref}")

    found = records(client, category="secret", resource_ref=ref)

    created, updated, read, deleted = found
    assert [each["event_type"] for each in found] == ["key.create", "key.update", "secret.read", "key.delete"]
    assert {each["resource_id"] for each in (created, updated, deleted)} == {made["id"]}
    (change,) = created["details"]["changes"]
    assert (change["before"], change["after"]["sealed"]) == (None, MASK)
    (change,) = updated["details"]["changes"]
    assert (change["before"], change["after"]) == (
        {"name": "before", "sealed": MASK},
        {"name": "after", "sealed": MASK},
    )
    (change,) = deleted["details"]["changes"]
    assert (change["before"]["name"], change["after"]) == ("after", None)
    assert read["details"]["secrets_read"] == [{"kind": "key", "ref": ref}]
    assert "hunter" not in json.dumps(found)


def test_executions_and_the_export(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    """Started by API and by a rule; and what was told page by page is what the export tells."""
    began = datetime.now(UTC).isoformat()
    pack = test_pack["ref"]
    action, trigger = create_echo_action(client, pack), create_webhook_trigger(client, pack)
    rule = client.create_rule(f"{pack}.rule", pack, trigger_ref=trigger.ref, action_ref=action)
    by_hand = client.execute(action, {"message": "hello"})
    client.post_webhook(trigger.key, {"n": 1})
    (by_rule,) = wait_for_execution_count(client, 1, rule_ref=rule["ref"])

    started = {each["id"]: each for each in records(client, category="execution", resource_ref=action)}

    me = client.me()
    assert set(started) == {by_hand["id"], by_rule["id"]}
    assert {each["event_type"] for each in started.values()} == {"execution.started"}
    assert {each["actor_login"] for each in started.values()} == {me["login"]}
    assert started[by_rule["id"]]["correlation_chain"] == {
        "enforcement": by_rule["id"],
        "rule_ref": rule["ref"],
        "trigger_ref": trigger.ref,
    }
    (asked,) = records(client, event_type="execution.execute", resource_id=by_hand["id"])
    assert (asked["category"], asked["http_status"], asked["actor_login"]) == ("api", 201, me["login"])

    lines, cursor = [], None
    while cursor is not None or not lines:
        answer = client.request("GET", "audit-events/export", params={"since": began, "limit": 3, "cursor": cursor})
        assert answer.headers["Content-Type"] == "application/x-ndjson"
        lines += [json.loads(line) for line in answer.text.splitlines()]
        cursor = answer.headers.get("X-Audit-Cursor")
    told = {line["id"]: line for line in lines}
    for record in (*started.values(), asked):
        assert told[record["id"]] == record
    assert [line["id"] for line in lines] == sorted(line["id"] for line in lines)
    assert trigger.key not in json.dumps(lines)
