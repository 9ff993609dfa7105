"""Tenants: who may make them, what they keep apart, and what is left of one that is deleted."""

import hashlib
import io
import tarfile
from datetime import timedelta
from typing import Any

import pytest
from unit.api.resources import make_action, make_pack, make_rule, make_trigger

from chalicelib import clients
from chalicelib.domain.entities import SYSTEM_TENANT, Grant
from chalicelib.flow import tenants
from chalicelib.flow.bootstrap import ensure_tenant
from chalicelib.services import Services

PASSWORD = "Correct horse 1"
ROUTES = (
    ("GET", "/api/v1/tenants/acme"),
    ("PUT", "/api/v1/tenants/acme"),
    ("POST", "/api/v1/tenants/acme/suspend"),
    ("POST", "/api/v1/tenants/acme/resume"),
    ("DELETE", "/api/v1/tenants/acme"),
)


@pytest.fixture
def platform(api: Any) -> Any:
    return api.as_role("core.admin", "core.platform_admin")


def body(slug: str = "acme", **fields: Any) -> dict[str, Any]:
    return {"slug": slug, "administrator": {"login": "ann@acme.test", "password": PASSWORD}, **fields}


def signed_in(platform: Any, slug: str = "acme", login: str = "ann@acme.test") -> Any:
    answer = platform.anonymous().post("/auth/login", json={"login": login, "password": PASSWORD, "tenant": slug})
    assert answer.status == 200, answer.json
    client = platform.with_token(answer.data["access_token"])
    client.tenant = slug
    client.refresh = answer.data["refresh_token"]
    return client


def made(platform: Any, slug: str = "acme", **fields: Any) -> Any:
    """A new tenant's administrator, signed in."""
    assert platform.post("/api/v1/tenants", json=body(slug, **fields)).status == 201
    return signed_in(platform, slug)


def removed(platform: Any, services: Services, monkeypatch: pytest.MonkeyPatch, slug: str = "acme") -> None:
    assert platform.delete(f"/api/v1/tenants/{slug}").status == 202
    monkeypatch.setattr(tenants, "_SETTLED", timedelta(0))
    assert tenants.remove_some(services) == 1


def test_a_tenant_begins_with_its_administrator(platform: Any) -> None:
    answer = platform.post("/api/v1/tenants", json=body(label="Acme Ltd", quotas={"keys": 3}))
    assert answer.status == 201
    assert answer.data["slug"] == "acme"
    assert answer.data["label"] == "Acme Ltd"
    assert answer.data["status"] == "active"
    assert answer.data["quotas"]["keys"] == 3
    ann = signed_in(platform)
    assert ann.get("/auth/me").data["assigned_permission_set_refs"] == ["core.admin"]
    assert "core" in ann.get("/api/v1/packs").refs
    assert platform.post("/api/v1/tenants", json=body()).status == 409
    assert [row["slug"] for row in platform.get("/api/v1/tenants").items] == ["acme"]


@pytest.mark.parametrize("slug", ["", "A", "a b", "a#b", "a/b", "a.b", "-a", "_a", "x" * 64, "ä", "a\n", "#", ".."])
def test_a_slug_cannot_be_forged(platform: Any, slug: str) -> None:
    assert platform.post("/api/v1/tenants", json=body(slug)).status == 422
    assert platform.get("/api/v1/tenants").items == []


@pytest.mark.parametrize("slug", ["system", "default"])
def test_the_deployments_own_tenants_are_taken(platform: Any, slug: str) -> None:
    slug = platform.services.settings.default_tenant if slug == "default" else slug
    assert platform.post("/api/v1/tenants", json=body(slug)).status == 409


@pytest.mark.parametrize(("method", "path"), [("GET", "/api/v1/tenants"), ("POST", "/api/v1/tenants"), *ROUTES])
def test_only_the_platforms_administrators_get_in(api: Any, platform: Any, method: str, path: str) -> None:
    made(platform)
    # Whoever administrates a tenant may hand out what sets there are, and make sets with any grant.
    elsewhere = api.as_role("core.admin", "core.platform_admin", tenant="other")
    everything = [Grant(resource="tenants", actions=["read", "create", "update", "delete"])]
    grown = elsewhere.with_grants(*everything)
    for client in (api, elsewhere, grown, api.as_role("core.viewer")):
        answer = client.request(method, path, json=body("another") if path.endswith("tenants") else {})
        assert answer.status == 403, answer.json
        assert "acme" not in answer.body.decode()
    assert "tenants" not in {each["resource"] for each in grown.get("/auth/me").data["effective_permissions"]}
    assert platform.anonymous().request(method, path, json={}).status == 401


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_a_tenant_that_is_not_there_is_not_found(platform: Any, method: str, path: str) -> None:
    assert platform.request(method, path, json={}).status == 404


def test_a_suspended_tenant_is_closed_and_opens_again(platform: Any, services: Services) -> None:
    ann = made(platform)
    make_pack(ann, "mine")
    make_trigger(ann, "mine.called")
    key = ann.post("/api/v1/triggers/mine.called/webhooks/enable").data["webhook_key"]
    assert platform.post("/api/v1/tenants/acme/suspend").data["status"] == "suspended"
    assert ann.get("/api/v1/packs").status == 403
    credentials = {"login": "ann@acme.test", "password": PASSWORD, "tenant": "acme"}
    assert ann.anonymous().post("/auth/login", json=credentials).status == 403
    assert ann.anonymous().post("/auth/login", json={**credentials, "password": "wrong"}).status == 401
    assert ann.anonymous().post("/auth/refresh", json={"refresh_token": ann.refresh}).status == 403
    assert ann.anonymous().post(f"/api/v1/webhooks/{key}", json={}).status == 403
    assert platform.post("/api/v1/tenants/acme/resume").data["status"] == "active"
    assert ann.get("/api/v1/packs").status == 200
    assert ann.anonymous().post("/auth/refresh", json={"refresh_token": ann.refresh}).status == 200
    assert ann.anonymous().post(f"/api/v1/webhooks/{key}", json={}).status == 200


def test_the_deployment_keeps_its_own_tenant(platform: Any, services: Services) -> None:
    ensure_tenant(services, platform.tenant)
    platform = platform.as_role("core.platform_admin")
    path = f"/api/v1/tenants/{platform.tenant}"
    assert platform.get(path).status == 200
    assert platform.post(f"{path}/suspend").status == 409
    assert platform.delete(path).status == 409
    assert platform.put(path, json={"quotas": {"keys": 1}}).data["quotas"]["keys"] == 1


def test_nothing_is_left_of_a_deleted_tenant(
    platform: Any, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = made(platform)
    stay = made(platform, "acme-2")
    for client in (ann, stay):
        make_pack(client, "mine")
        make_action(client, "mine.greet")
        make_trigger(client, "mine.called")
        make_rule(client, "mine.answer")
        key = client.post("/api/v1/triggers/mine.called/webhooks/enable").data["webhook_key"]
        secret = {"ref": "s", "owner_type": "system", "name": "s", "value": "hidden"}
        assert client.post("/api/v1/keys", json=secret).status == 201
        client.services.store.tenant(client.tenant).blobs.put("packs/some", b"bytes")
        for number in range(30):
            started = client.post("/api/v1/executions/execute", json={"action_ref": "mine.greet"})
            assert started.status == 201, number
    before = rows_of(services, "acme-2")
    assert rows_of(services, "acme")
    assert platform.delete("/api/v1/tenants/acme").status == 202
    assert platform.get("/api/v1/tenants/acme").data["status"] == "deleting"
    assert ann.get("/api/v1/packs").status == 401
    assert platform.post("/api/v1/tenants", json=body()).status == 409
    removed(platform, services, monkeypatch)
    assert rows_of(services, "acme") == []
    assert rows_of(services, "acme-2") == before
    assert list(services.store.tenant("acme").blobs.sizes("")) == []
    assert list(services.store.tenant("acme-2").blobs.sizes("")) == ["packs/some"]
    assert platform.get("/api/v1/tenants/acme").status == 404
    assert stay.anonymous().post(f"/api/v1/webhooks/{key}", json={}).status == 200


def rows_of(services: Services, tenant: str) -> list[str]:
    """The keys of all rows that have to do with the tenant."""
    found = []
    for table in ("registry", "activity"):
        for page in clients.dynamodb().get_paginator("scan").paginate(TableName=table):
            for row in page["Items"]:
                leads = row.get("body", {}).get("S", "")
                if row["pk"]["S"].startswith(f"{tenant}#") or leads == tenant or leads.startswith(f'["{tenant}"'):
                    found.append(f"{row['pk']} {row.get('sk', row.get('id'))}")
    return sorted(found)


def test_a_slug_that_is_given_again_opens_nothing_to_old_tokens(
    platform: Any, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = made(platform)
    refs = {"sensor_ref": "x.y", "trigger_types": ["mine.called"], "identity_id": 1}
    sensor = services.tokens.issue_sensor(tenant="acme", now=services.clock(), **refs)
    removed(platform, services, monkeypatch)
    after = made(platform)
    # The same login, in the same slug.
    assert before.get("/api/v1/packs").status == 401
    assert before.anonymous().post("/auth/refresh", json={"refresh_token": before.refresh}).status == 401
    assert platform.with_token(sensor).get("/api/v1/packs").status == 401
    assert after.get("/api/v1/packs").status == 200
    # What was sealed for the first is no riddle to the second: both seal and open with keys of their own.
    secret = {"ref": "s", "owner_type": "system", "name": "s", "value": "hidden", "encrypted": True}
    assert after.post("/api/v1/keys", json=secret).data["value"] == "hidden"


def test_a_deletion_goes_on_where_it_was_left(
    platform: Any, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = made(platform)
    for number in range(30):
        ann.services.store.tenant("acme").idempotency.remember("x", str(number), number)
    assert platform.delete("/api/v1/tenants/acme").status == 202
    monkeypatch.setattr(tenants, "_SETTLED", timedelta(0))
    monkeypatch.setattr("chalicelib.store.removal._PAGE", 7)
    rounds = 0
    while tenants.remove_some(services, seconds=0) == 0:
        rounds += 1
        assert rounds < 200
    assert rounds > 3
    assert rows_of(services, "acme") == []
    assert services.store.tenant(SYSTEM_TENANT).registry.tenants.get("acme") is None


def test_registration_joins_a_tenant_that_is_open_to_it(platform: Any) -> None:
    made(platform, "open", self_registration=True)
    made(platform, "shut")
    account = {"login": "bob@acme.test", "password": PASSWORD}
    bob = platform.anonymous().post("/auth/register", json={**account, "tenant": "open"})
    assert bob.status == 200
    assert platform.with_token(bob.data["access_token"]).get("/auth/me").data["effective_permissions"] == []
    assert platform.anonymous().post("/auth/register", json={**account, "tenant": "shut"}).status == 403
    assert platform.anonymous().post("/auth/register", json={**account, "tenant": "nowhere"}).status == 403
    assert platform.anonymous().post("/auth/login", json=account).status == 401  # no such login in the default tenant


def test_definitions_have_quotas(platform: Any) -> None:
    ann = made(platform, quotas={"keys": 1, "packs": 1, "rules": 0})
    assert ann.post("/api/v1/packs", json={"ref": "mine", "label": "M", "version": "1.0.0"}).status == 201
    refused = ann.post("/api/v1/packs", json={"ref": "more", "label": "M", "version": "1.0.0"})
    assert refused.status == 429
    assert int(refused.headers["Retry-After"]) > 0
    key = {"owner_type": "system", "value": "v"}
    assert ann.post("/api/v1/keys", json={**key, "ref": "a", "name": "a"}).status == 201
    assert ann.post("/api/v1/keys", json={**key, "ref": "b", "name": "b"}).status == 429
    assert ann.delete("/api/v1/keys/a").status == 200
    assert ann.post("/api/v1/keys", json={**key, "ref": "b", "name": "b"}).status == 201
    use = platform.get("/api/v1/tenants/acme").data["use"]
    assert (use["packs"], use["keys"], use["rules"]) == (1, 1, 0)


def test_a_deletion_lets_what_runs_end_first(
    platform: Any, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = made(platform)
    make_pack(ann, "mine")
    make_action(ann, "mine.greet")
    running = ann.post("/api/v1/executions/execute", json={"action_ref": "mine.greet"}).data["id"]
    activity, now = ann.activity, services.clock()
    activity.claim(running, token_hash="t", deadline=now + timedelta(minutes=5), now=now)
    assert platform.delete("/api/v1/tenants/acme").status == 202
    monkeypatch.setattr(tenants, "_SETTLED", timedelta(0))
    assert tenants.remove_some(services) == 0
    assert activity.get_execution(running).status == "canceling"
    activity.finish(
        running,
        attempt=1,
        token_hash="t",
        status="cancelled",
        result={},
        now=now,
        from_=("canceling",),
    )
    assert tenants.remove_some(services) == 1
    assert rows_of(services, "acme") == []


def test_too_many_requests_are_refused_at_every_door(platform: Any) -> None:
    ann, stay = made(platform, quotas={"executions_per_minute": 4}), made(platform, "acme-2")
    for client in (ann, stay):
        make_pack(client, "mine")
        make_action(client, "mine.greet")
        make_trigger(client, "mine.called")
    keys = [client.post("/api/v1/triggers/mine.called/webhooks/enable").data["webhook_key"] for client in (ann, stay)]

    def ask(client: Any, key: str) -> list[Any]:
        return [
            client.post("/api/v1/executions/execute", json={"action_ref": "mine.greet"}),
            client.anonymous().post(f"/api/v1/webhooks/{key}", json={}),
            client.post("/api/v1/events", json={"trigger_ref": "mine.called", "payload": {}}),
        ]

    answers = [answer for _ in range(4) for answer in ask(ann, keys[0])]
    refused = [answer for answer in answers if answer.status == 429]
    assert len(refused) >= 4, "two minutes may meet here, not three"
    for answer in refused:
        assert 1 <= int(answer.headers["Retry-After"]) <= 60
        assert answer.json["code"] == "TOO_MANY_REQUESTS"
    assert {answer.status for answer in ask(stay, keys[1])} <= {200, 201, 403}, "the others go on"


def test_storage_has_a_quota(platform: Any) -> None:
    ann = made(platform, quotas={"storage": 300})
    archive = pack_archive({"pack.yaml": "ref: mine\nname: Mine\nversion: 1.0.0\n"})
    noise = pack_archive({"pack.yaml": "ref: more\nname: M\nversion: 1.0.0\n", "actions/x.py": "# " + noise_of(2000)})
    form = {"force": "false", "skip_tests": "true"}
    assert ann.post("/api/v1/packs/upload", fields=form, files={"pack": ("p.tgz", archive)}).status == 201
    refused = ann.post("/api/v1/packs/upload", fields=form, files={"pack": ("p.tgz", noise)})
    assert refused.status == 429
    assert ann.get("/api/v1/packs/more").status == 404
    assert 0 < platform.get("/api/v1/tenants/acme").data["use"]["storage"] <= 300


def pack_archive(files: dict[str, str]) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    return content.getvalue()


def noise_of(size: int) -> str:
    """Text that does not compress."""
    return hashlib.shake_256(b"noise").hexdigest(size // 2)
