"""The audit log: what leaves a record, what the records say, and how they are read."""

from dataclasses import replace
from datetime import timedelta

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from unit.api.conftest import Api

from chalicelib.api import cookies, trail
from chalicelib.domain.audit import MASK, Wanted
from chalicelib.domain.entities import Runtime
from chalicelib.domain.templates import REDACTED
from chalicelib.security import passwords
from chalicelib.store.registry import Put

PASSWORD = "correct horse battery"


def audited(api, **filters):
    """The tenant's records, newest first, in full."""
    listed = api.get("/api/v1/audit-events", params={"per_page": 500, **filters})
    assert listed.status == 200, listed.json
    return [api.get(f"/api/v1/audit-events/{each['id']}").data for each in listed.items]


def with_password(client: Api) -> Api:
    changed = msgspec.structs.replace(client.identity, password_hash=passwords.hash_password(PASSWORD))
    client.registry.commit(Put(changed))
    return client


@pytest.fixture(autouse=True)
def _forget_locks():
    trail._shut.clear()


def test_a_key_from_creation_to_deletion(api):
    body = {"ref": "db.password", "owner_type": "system", "name": "db", "value": "hunter22", "encrypted": True}
    made = api.post("/api/v1/keys", json=body).data
    assert api.put("/api/v1/keys/db.password", json={"value": "hunter33", "name": "database"}).status == 200
    assert api.get("/api/v1/keys/db.password").data["value"] == "hunter33"
    assert api.delete("/api/v1/keys/db.password").status == 200
    deleted, read, updated, created = audited(api)
    assert [each["event_type"] for each in (created, updated, read, deleted)] == [
        "key.create",
        "key.update",
        "secret.read",
        "key.delete",
    ]
    assert {each["category"] for each in (created, updated, read, deleted)} == {"secret"}
    for each in (created, updated, read, deleted):
        assert (each["resource_type"], each["resource_ref"]) == ("key", "db.password")
        assert (each["outcome"], each["actor_login"], each["actor_token_type"]) == ("success", api.login, "access")
        assert (each["actor_ip"], each["actor_user_agent"]) in {("203.0.113.7", "pytest"), ("203.0.113.7", None)}
        assert (each["actor_identity"], each["resource_id"]) == (api.identity.id, made["id"])
    assert (created["http_method"], created["http_path"], created["http_status"]) == ("POST", "/api/v1/keys", 201)
    (change,) = created["details"]["changes"]
    assert (change["operation"], change["before"], change["after"]["sealed"]) == ("create", None, MASK)
    (change,) = updated["details"]["changes"]
    assert change["before"] == {"name": "db", "sealed": MASK}
    assert change["after"] == {"name": "database", "sealed": MASK}
    (change,) = deleted["details"]["changes"]
    assert (change["before"]["name"], change["after"]) == ("database", None)
    assert read["details"]["secrets_read"] == [{"kind": "key", "ref": "db.password"}]
    assert "hunter" not in str(audited(api))


def test_reading_leaves_nothing_but_for_secrets(api):
    api.post("/api/v1/keys", json={"ref": "plain", "owner_type": "system", "name": "n", "value": "v"})
    before = len(audited(api))
    for path in ("/api/v1/keys", "/api/v1/keys/plain", "/api/v1/packs", "/auth/me", "/api/v1/audit-events"):
        assert api.get(path).status == 200
    assert len(audited(api)) == before


def test_a_denial(api):
    viewer = api.as_role("core.viewer")
    assert viewer.post("/api/v1/keys", json={}).status == 403
    assert viewer.get("/api/v1/audit-events").status == 403
    read, written = audited(api, category="rbac")
    assert (written["event_type"], written["outcome"], written["http_status"]) == ("rbac.denied", "denied", 403)
    assert written["actor_login"] == viewer.login
    assert written["details"] == {"code": "FORBIDDEN", "reason": "Insufficient permissions: keys:create"}
    assert read["http_path"] == "/api/v1/audit-events"


def test_signing_in(api):
    user = with_password(api.as_role("core.viewer"))
    tenant = {"tenant": api.tenant}
    signed_in = api.anonymous().post("/auth/login", json={"login": user.login, "password": PASSWORD, **tenant})
    api.anonymous().post("/auth/login", json={"login": user.login, "password": "swordfish99", **tenant})
    api.anonymous().post("/auth/login", json={"login": "swordfish99", "password": PASSWORD, **tenant})
    api.anonymous().post("/auth/refresh", json={"refresh_token": signed_in.data["refresh_token"]})
    refreshed, unknown, wrong, right = audited(api, category="auth")
    assert (right["event_type"], right["outcome"], right["actor_login"]) == ("auth.login", "success", user.login)
    assert (wrong["outcome"], wrong["actor_identity"], wrong["http_status"]) == ("failure", user.identity.id, 401)
    # Somebody may have typed the password in the wrong place.
    assert (unknown["outcome"], unknown["actor_login"]) == ("failure", None)
    assert (refreshed["event_type"], refreshed["actor_login"]) == ("auth.refresh_token", user.login)
    assert "swordfish99" not in str(audited(api))


def test_signing_out(api):
    tokens = api.services.tokens
    refresh = tokens.issue_refresh(
        tenant=api.tenant, identity=api.identity, now=api.services.clock(), family="f", generation=0
    )
    assert api.anonymous().get("/auth/logout").status == 307
    assert audited(api) == []  # nobody has signed out
    assert api.anonymous().get("/auth/logout", headers={"cookie": f"{cookies.REFRESH}={refresh}"}).status == 307
    (signed_out,) = audited(api)
    assert (signed_out["event_type"], signed_out["actor_login"]) == ("auth.logout", api.login)
    assert signed_out["actor_token_type"] == "refresh"
    assert refresh not in str(signed_out)


def test_a_door_that_is_shut_is_told_once(api):
    user = with_password(api.as_role("core.viewer"))
    statuses = [
        api.anonymous()
        .post("/auth/login", json={"login": user.login, "password": "wrong", "tenant": api.tenant})
        .status
        for _ in range(15)
    ]
    assert statuses.count(429) > 1
    assert len(audited(api, event_type="auth.locked", outcome="denied")) == 1
    assert len(audited(api, event_type="auth.login", outcome="failure")) == statuses.count(401)


def test_executions_are_told_by_their_rows(api):
    execution = api.as_execution(action_ref="acme.do", rule_ref="acme.rule", enforcement=7)
    stored = len(audited(api, category="api"))
    (started,) = audited(api, category="execution")
    assert (started["id"], started["resource_id"]) == (execution.execution_id, execution.execution_id)
    assert (started["event_type"], started["resource_ref"]) == ("execution.started", "acme.do")
    assert (started["actor_identity"], started["actor_login"]) == (api.identity.id, api.login)
    assert started["correlation_chain"] == {"rule_ref": "acme.rule", "enforcement": 7}
    assert len(audited(api, category="api")) == stored


def test_both_kinds_by_page_in_the_order_of_time(api):
    for number in range(5):
        api.as_execution(action_ref=f"acme.a{number}")
        api.post("/api/v1/keys", json={"ref": f"k{number}", "owner_type": "system", "name": "n", "value": number})
    refs = [f"{kind}{number}" for number in reversed(range(5)) for kind in ("k", "acme.a")]
    pages = [api.get("/api/v1/audit-events", params={"page": page, "per_page": 4}).json for page in (1, 2, 3)]
    assert [item["resource_ref"] for page in pages for item in page["items"]] == refs
    assert [page["pagination"]["has_next"] for page in pages] == [True, True, False]
    assert "total_items" not in pages[0]["pagination"]
    counted = api.get("/api/v1/audit-events", params={"include_total": "true", "category": "execution"})
    assert counted.json["pagination"]["total_items"] == 5


def test_filters(api):
    api.post("/api/v1/keys", json={"ref": "k", "owner_type": "system", "name": "n", "value": 1})
    (made,) = audited(api)
    matching = {
        "event_type": "key.create",
        "outcome": "success",
        "actor_identity": api.identity.id,
        "actor_login": api.login,
        "resource_type": "key",
        "resource_id": made["resource_id"],
        "resource_ref": "k",
        "request_id": made["request_id"],
        "http_status": 201,
        "http_method": "post",
        "http_path": "/api/v1/k*",
        "created_after": made["created"],
        "created_before": msgspec.json.decode(msgspec.json.encode(api.services.clock() + timedelta(seconds=1))),
    }
    other = {
        "outcome": "denied",
        "actor_identity": 1,
        "resource_id": 1,
        "request_id": "00000000-0000-0000-0000-000000000000",
        "http_status": 200,
        "http_path": "/api/v1/key",
        "created_after": matching["created_before"],
        "created_before": made["created"],
        "category": "auth",
    }
    for name, value in matching.items():
        assert len(audited(api, **{name: value})) == 1, name
    for name, value in other.items():
        assert audited(api, **{name: value}) == [], name
    for name, value in {"category": "x", "request_id": "1", "created_after": "2026-01-01T00:00:00"}.items():
        assert api.get("/api/v1/audit-events", params={name: value}).status == 400, name


def test_by_request(api):
    answer = api.post("/api/v1/keys", json={"ref": "k", "owner_type": "system", "name": "n", "value": 1})
    path = f"/api/v1/audit-events/by-request/{answer.headers['X-Request-Id']}"
    assert [each["resource_ref"] for each in api.get(path).data] == ["k"]
    assert api.as_role("core.admin", tenant="t-elsewhere").get(path).data == []
    assert api.get("/api/v1/audit-events/by-request/1").status == 400


def test_export(api):
    for number in range(5):
        api.as_execution(action_ref=f"acme.a{number}")
        api.post("/api/v1/keys", json={"ref": f"k{number}", "owner_type": "system", "name": "n", "value": number})
    lines, cursor, calls = [], None, 0
    while calls == 0 or cursor is not None:
        given = {} if cursor is None else {"cursor": cursor}
        answer = api.get("/api/v1/audit-events/export", params={"limit": 3, **given})
        assert (answer.status, answer.headers["Content-Type"]) == (200, "application/x-ndjson")
        lines += [msgspec.json.decode(line) for line in answer.body.splitlines()]
        cursor, calls = answer.headers.get("X-Audit-Cursor"), calls + 1
    assert calls == 4
    assert [line["id"] for line in reversed(lines)] == [each["id"] for each in audited(api)]
    assert lines[-1] == audited(api)[0]


def test_nobody_sees_another_tenants_records(api):
    api.post("/api/v1/keys", json={"ref": "k", "owner_type": "system", "name": "n", "value": 1})
    (made,) = audited(api)
    other = api.as_role("core.admin", tenant="t-elsewhere")
    assert audited(other) == []
    assert other.get(f"/api/v1/audit-events/{made['id']}").status == 404
    assert other.get("/api/v1/audit-events/export").body == b""


def test_a_record_that_cannot_be_stored_goes_to_the_log(api, monkeypatch, caplog):
    def refuse(*_, **__):
        raise OSError("no table")

    monkeypatch.setattr(type(api.services.store.tenant(api.tenant).audit), "append", refuse)
    answer = api.post("/api/v1/keys", json={"ref": "k", "owner_type": "system", "name": "n", "value": "hunter22"})
    assert answer.status == 201
    (lost,) = [entry for entry in caplog.records if entry.message == "audit record lost"]
    assert (lost.audit["event_type"], lost.levelname) == ("key.create", "ERROR")
    assert "hunter22" not in str(vars(lost))


def test_records_end_where_it_is_configured(api):
    ninety = msgspec.structs.replace(api.services.settings, audit_days=90)
    short = Api(replace(api.services, settings=ninety), api.tenant, api.token, api.login)
    assert short.post("/api/v1/keys", json={"ref": "k", "owner_type": "system", "name": "n", "value": 1}).status == 201
    (row,) = api.services.store._tables.audit.query(f"{api.tenant}#audit")
    left = row.expires - api.services.clock().timestamp()
    assert timedelta(days=89.9).total_seconds() < left <= timedelta(days=90).total_seconds()


def test_secret_parameters_that_are_shown(api):
    """Who may decrypt reads them on the record; who asks without is denied on it."""
    api.post("/api/v1/keys", json={"ref": "db.password", "owner_type": "system", "name": "n", "value": "hunter22"})
    row = api.as_execution(
        action_ref="acme.do", config={"p": REDACTED}, secrets={"/p": ["Bearer ", {"key": "db.password"}]}
    )
    path = f"/api/v1/executions/{row.execution_id}"
    assert api.get(f"{path}?include_secret_values=true").data["config"] == {"p": "Bearer hunter22"}
    assert api.get(path).data["config"] == {"p": REDACTED}
    assert api.as_role("core.viewer").get(f"{path}?include_secret_values=true").status == 403
    denied, read = audited(api, resource_type="execution", http_method="GET")
    assert (read["event_type"], read["category"], read["resource_id"]) == ("secret.read", "secret", row.execution_id)
    assert {each["ref"] for each in read["details"]["secrets_read"]} == {str(row.execution_id), "db.password"}
    assert denied["details"]["reason"] == "Insufficient permissions: keys:decrypt"
    assert "hunter22" not in str(audited(api))


@settings(
    max_examples=4, phases=[Phase.generate], deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.text("xyz", min_size=16, max_size=100), st.booleans())
def test_no_secret_of_a_request_is_told(api, secret, as_text):
    """Of keys, accounts, webhooks, rules and configurations, whether the request is taken or refused."""
    mark = f"m{api.services.new_id()}"
    value = secret if as_text else {"inner": [secret]}
    schema = {"pin": {"type": "string", "secret": True}}
    now = api.services.clock()
    shell = Runtime(id=api.services.new_id(), ref=f"{mark}.shell", name="S", created=now, updated=now)
    api.registry.commit(Put(shell, new=True))
    anonymous = api.anonymous()
    account = {"login": f"{mark}@example.org", "password": secret}
    named = {"pack_ref": mark, "label": "L"}
    posts = [
        ("keys", {"ref": f"{mark}.k", "owner_type": "system", "name": "n", "value": value}),
        ("keys", {"ref": f"{mark}.k", "owner_type": "nobody", "name": "n", "value": value}),
        ("identities", account),
        ("packs", {"ref": mark, "label": "P", "version": "1.0.0", "conf_schema": schema, "config": {"pin": secret}}),
        ("triggers", {"ref": f"{mark}.t", **named}),
        (
            "actions",
            {"ref": f"{mark}.a", "entrypoint": "a", "runtime_ref": f"{mark}.shell", "param_schema": schema} | named,
        ),
        (f"triggers/{mark}.t/webhooks/enable", {}),
        (
            "rules",
            {
                "ref": f"{mark}.r",
                "trigger_ref": f"{mark}.t",
                "action_ref": f"{mark}.a",
                "action_params": {"pin": secret},
            }
            | named,
        ),
        ("executions/execute", {"action_ref": f"{mark}.a", "parameters": {"pin": secret}}),
    ]
    hmac = {"enabled": True, "secret": secret}
    answers = [api.post(f"/api/v1/{path}", json=body) for path, body in posts]
    answers.append(api.put(f"/api/v1/keys/{mark}.k", json={"value": value, "encrypted": True}))
    answers.append(api.put(f"/api/v1/triggers/{mark}.t/webhooks/config", json={"hmac": hmac}))
    assert [answer.status for answer in answers] == [201, 422, 201, 201, 201, 201, 200, 201, 201, 200, 200], answers
    assert anonymous.post("/auth/login", json=account | {"tenant": api.tenant}).status == 200
    refused = anonymous.post("/auth/login", json={"login": secret, "password": "wrong", "tenant": api.tenant})
    assert refused.status == 401
    anonymous.post("/auth/token-login", json={"token": f"attune_it_{secret}"})
    anonymous.post("/auth/refresh", json={"refresh_token": secret})
    api.with_token(api.token or "").get(f"/api/v1/keys/{mark}.k")
    api.delete(f"/api/v1/keys/{mark}.k")
    log = api.services.store.tenant(api.tenant).audit
    found, _ = log.find(Wanted(), lambda _: None, offset=0, limit=500)
    recorded = msgspec.json.encode(found).decode()
    assert mark in recorded
    assert secret not in recorded
    assert api.registry.triggers.get(f"{mark}.t").webhook_key not in recorded
