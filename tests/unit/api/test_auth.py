from dataclasses import replace
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from chalicelib.domain.entities import Grant
from chalicelib.store.registry import Delete, Put

PASSWORD = "correct horse battery"


def register(api, login="new@example.org", **fields):
    return api.anonymous().post("/auth/register", json={"login": login, "password": PASSWORD, **fields})


def login(api, login="new@example.org", password=PASSWORD, **fields):
    return api.anonymous().post("/auth/login", json={"login": login, "password": password, **fields})


def freeze(api, login):
    identity = api.registry.identities.get(login)
    api.registry.commit(Put(msgspec.structs.replace(identity, frozen=True)))


def test_registering_signs_in_with_no_permissions(api):
    answer = register(api, display_name="New")
    assert answer.status == 200
    assert answer.data["token_type"] == "Bearer"
    assert answer.data["expires_in"] == 3600
    assert answer.data["user"] == {
        "id": answer.data["user"]["id"],
        "login": "new@example.org",
        "display_name": "New",
    }
    me = api.with_token(answer.data["access_token"]).get("/auth/me")
    assert me.data["effective_permissions"] == []
    assert me.data["assigned_permission_set_refs"] == []
    assert api.with_token(answer.data["access_token"]).get("/api/v1/keys").status == 403


def test_a_login_is_taken_once_per_tenant(api):
    register(api)
    assert register(api).status == 409


@pytest.mark.parametrize(
    "body",
    [
        {"login": "ab", "password": PASSWORD},
        {"login": "x" * 256, "password": PASSWORD},
        {"login": "with space", "password": PASSWORD},
        {"login": "short@example.org", "password": "1234567"},
        {"login": "long@example.org", "password": "x" * 129},
        {"login": "long@example.org", "password": PASSWORD, "display_name": "x" * 256},
        {"login": "no-password@example.org"},
        {"login": 1, "password": PASSWORD},
    ],
)
def test_bad_registrations(api, body):
    assert api.anonymous().post("/auth/register", json=body).status == 422


def test_registration_can_be_switched_off(api):
    closed = msgspec.structs.replace(api.services.settings, self_registration=False)
    api.services = replace(api.services, settings=closed)
    assert register(api).status == 403
    assert api.get("/auth/settings").data["self_registration_enabled"] is False


def test_nobody_registers_in_another_tenant(api):
    assert register(api, tenant="elsewhere").status == 403
    assert register(api, tenant=api.tenant).status == 200


def test_signing_in(api):
    register(api)
    answer = login(api)
    assert answer.status == 200
    assert set(answer.data) == {"access_token", "refresh_token", "token_type", "expires_in", "user"}
    assert api.with_token(answer.data["access_token"]).get("/auth/me").data["login"] == "new@example.org"


def test_a_wrong_password_and_an_unknown_login_are_refused_alike(api):
    register(api)
    wrong, unknown = login(api, password="wrong"), login(api, login="ghost@example.org")
    assert wrong.status == unknown.status == 401
    assert wrong.json == unknown.json == {"error": "Invalid login or password", "code": "UNAUTHORIZED"}


def test_an_identity_without_a_password_does_not_sign_in(api):
    assert login(api, login="admin@example.org", password="").status == 422
    assert login(api, login="admin@example.org", password="x").status == 401


def test_logins_belong_to_their_tenant(api):
    register(api)
    assert login(api, tenant="elsewhere").status == 401
    assert login(api, tenant=api.tenant).status == 200
    assert login(api, tenant="a#b").status == 422


def test_a_frozen_identity_is_forbidden_everything(api):
    tokens = register(api).data
    freeze(api, "new@example.org")
    signed_in = api.with_token(tokens["access_token"])
    assert login(api).status == 403
    assert login(api, password="wrong").status == 401
    assert signed_in.get("/auth/me").status == 403
    assert signed_in.get("/api/v1/runtimes").status == 403
    assert api.anonymous().post("/auth/refresh", json={"refresh_token": tokens["refresh_token"]}).status == 403


def test_refreshing(api):
    tokens = register(api).data
    answer = api.anonymous().post("/auth/refresh", json={"refresh_token": tokens["refresh_token"]})
    assert answer.status == 200
    assert set(answer.data) == {"access_token", "refresh_token", "token_type", "expires_in"}
    assert api.with_token(answer.data["access_token"]).get("/auth/me").status == 200


def test_a_refresh_token_is_used_up(api):
    def refresh(tokens):
        return api.anonymous().post("/auth/refresh", json={"refresh_token": tokens["refresh_token"]})

    first = register(api).data
    second = refresh(first).data
    third = refresh(second)
    assert third.status == 200
    again = refresh(first)
    assert (again.status, again.json["error"]) == (401, "Refresh token invalid")
    assert refresh(third.data).status == 401
    assert api.with_token(third.data["access_token"]).get("/auth/me").status == 200  # for the hour it has
    assert refresh(login(api).data).status == 200


def test_a_new_password_ends_the_sessions_of_the_old_one(api):
    now, earlier = api.services, api.services.clock() - timedelta(seconds=5)
    api.services = replace(now, clock=lambda: earlier)
    thief, owner = register(api).data, login(api).data
    api.services = now
    change = {"current_password": PASSWORD, "new_password": "another password"}
    signed_in = api.with_token(owner["access_token"])
    answer = signed_in.post(
        "/auth/change-password", json=change, headers={"cookie": f"attune_refresh={owner['refresh_token']}"}
    )
    assert answer.status == 200
    kept = next(each for each in answer.cookies if each.startswith("attune_refresh=")).partition(";")[0]
    for old in (thief, owner):
        assert api.anonymous().post("/auth/refresh", json={"refresh_token": old["refresh_token"]}).status == 401
    body = {"refresh_token": kept.partition("=")[2]}
    assert api.anonymous().post("/auth/refresh", json=body).status == 200


def test_only_refresh_tokens_refresh_and_they_open_nothing_else(api):
    tokens = register(api).data
    for token in (tokens["access_token"], "nonsense", ""):
        answer = api.anonymous().post("/auth/refresh", json={"refresh_token": token})
        assert answer.status == (401 if token else 422)
    assert api.anonymous().post("/auth/refresh").status == 401
    answer = api.with_token(tokens["refresh_token"]).get("/auth/me")
    assert answer.json == {"error": {"code": 401, "message": "Invalid authentication token"}}


def test_the_tokens_of_a_deleted_identity_are_dead_even_when_its_login_lives_again(api):
    tokens = register(api).data
    api.registry.commit(Delete("identity", "new@example.org"))
    assert api.with_token(tokens["access_token"]).get("/auth/me").status == 401
    register(api)
    assert api.with_token(tokens["access_token"]).get("/auth/me").status == 401
    assert api.anonymous().post("/auth/refresh", json={"refresh_token": tokens["refresh_token"]}).status == 401


def test_who_am_i(api):
    editor = api.as_role("core.editor")
    data = editor.get("/auth/me").data
    assert data == {
        "id": editor.identity.id,
        "login": editor.login,
        "display_name": None,
        "auth_provider": "local",
        "is_local": True,
        "can_change_password": False,
        "effective_permissions": data["effective_permissions"],
        "assigned_permission_set_refs": ["core.editor"],
    }
    permissions = {each["resource"]: each["actions"] for each in data["effective_permissions"]}
    assert permissions["packs"] == ["read", "create", "install", "configure"]
    assert "identities" not in permissions


def test_changing_ones_name(api):
    answer = api.put("/auth/me", json={"display_name": "Boss"})
    assert (answer.status, answer.data["display_name"]) == (200, "Boss")
    assert api.put("/auth/me", json={}).data["display_name"] == "Boss"
    assert api.get("/auth/me").data["display_name"] == "Boss"
    assert api.put("/auth/me", json={"display_name": "x" * 256}).status == 422


def test_changing_ones_password(api):
    signed_in = api.with_token(register(api).data["access_token"])
    change = {"current_password": PASSWORD, "new_password": "another password"}
    assert signed_in.post("/auth/change-password", json={**change, "current_password": "wrong"}).status == 401
    assert signed_in.post("/auth/change-password", json={**change, "new_password": "short"}).status == 422
    answer = signed_in.post("/auth/change-password", json=change)
    assert answer.data == {"success": True, "message": "Password changed successfully"}
    assert login(api).status == 401
    assert login(api, password="another password").status == 200


def test_an_account_without_a_password_has_none_to_change(api):
    body = {"current_password": "x", "new_password": "another password"}
    assert api.post("/auth/change-password", json=body).status == 403


def test_an_actions_token_does_not_change_its_executor(api):
    token = api.services.tokens.issue_sensor(
        tenant=api.tenant,
        identity_id=api.identity.id,
        sensor_ref="acme.sensor",
        trigger_types=["acme.t"],
        now=api.services.clock(),
    )
    sensor = api.with_token(token)
    assert sensor.get("/auth/me").data["login"] == "admin@example.org"
    assert sensor.get("/auth/me").data["effective_permissions"] == []
    assert sensor.put("/auth/me", json={"display_name": "x"}).status == 403


def test_settings_are_public(api):
    data = api.anonymous().get("/auth/settings").data
    assert data["local_password_enabled"] is True
    assert data["oidc_provider_name"] is None
    assert len(data) == 14


def test_bearer_tokens(api):
    missing = {"error": {"code": 401, "message": "Missing authentication token"}}
    invalid = {"error": {"code": 401, "message": "Invalid authentication token"}}
    nobody = api.anonymous()
    assert nobody.get("/auth/me").json == missing
    assert nobody.get("/auth/me", headers={"authorization": "Basic abc"}).json == missing
    assert nobody.get("/auth/me", headers={"authorization": "Bearer "}).json == missing
    assert nobody.get("/auth/me", headers={"authorization": "Bearer x.y.z"}).json == invalid
    assert nobody.get("/auth/me", headers={"authorization": f"bearer {api.token}"}).status == 200
    assert nobody.get("/auth/me").headers["WWW-Authenticate"] == "Bearer"
    old = api.services.tokens.issue_access(
        tenant=api.tenant, identity=api.identity, now=datetime.now(UTC) - timedelta(hours=2)
    )
    assert api.with_token(old).get("/auth/me").json == {
        "error": {"code": 401, "message": "Authentication token expired"}
    }


def test_permissions_follow_a_change_at_once_in_this_process(api):
    someone = api.as_role()
    assert someone.get("/api/v1/keys").status == 403
    granted = api.with_grants(Grant(resource="keys", actions=["read"])).identity.assignments
    api.registry.commit(Put(msgspec.structs.replace(someone.identity, assignments=granted)))
    assert someone.get("/api/v1/keys").status == 200
