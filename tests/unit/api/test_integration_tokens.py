"""Integration tokens from their making to their end, and what they were exchanged for."""

from dataclasses import replace
from datetime import timedelta
from hashlib import sha256

import pytest

from chalicelib.domain.entities import Grant


@pytest.fixture
def path(api):
    return f"/api/v1/identities/{api.identity.id}/integration-tokens"


def create(api, path, **fields):
    answer = api.post(path, json={"label": "CI", **fields})
    assert answer.status == 201, answer.json
    return answer.data


def sign_in(api, token):
    return api.anonymous().post("/auth/token-login", json={"token": token})


def refresh(api, tokens):
    return api.anonymous().post("/auth/refresh", json={"refresh_token": tokens["refresh_token"]})


def later(api, **duration):
    moment = api.services.clock() + timedelta(**duration)
    api.services = replace(api.services, clock=lambda: moment)


def test_a_token_is_shown_once_and_kept_as_its_hash(api, path):
    made = create(api, path, description="nightly")
    token, told = made["token"], made["integration_token"]
    assert token.startswith("attune_it_")
    assert len(token) == len("attune_it_") + 43
    assert told == {
        "id": told["id"],
        "identity_id": api.identity.id,
        "label": "CI",
        "description": "nightly",
        "token_prefix": token[:14],
        "token_suffix": token[-4:],
        "created_by": api.identity.id,
        "expires_at": None,
        "last_used_at": None,
        "last_used_ip": None,
        "revoked_at": None,
        "revoked_by": None,
        "revocation_reason": None,
        "active": True,
        "created": told["created"],
        "updated": told["updated"],
    }
    listed = api.get(path)
    assert listed.data == [told]
    assert token not in listed.body.decode()
    (stored,) = api.registry.integration_tokens.list()
    assert stored.ref == sha256(token.encode()).hexdigest()


def test_it_is_exchanged_for_tokens_that_work(api, path):
    token = create(api, path)["token"]
    answer = sign_in(api, token)
    assert answer.status == 200
    assert set(answer.data) == {"access_token", "refresh_token", "token_type", "expires_in", "user"}
    assert answer.cookies == () or list(answer.cookies) == []
    assert api.with_token(answer.data["access_token"]).get("/auth/me").data["login"] == api.login
    renewed = refresh(api, answer.data)
    assert renewed.status == 200
    assert api.with_token(renewed.data["access_token"]).get("/auth/me").status == 200


def test_a_token_itself_opens_no_route(api, path):
    assert api.with_token(create(api, path)["token"]).get("/auth/me").status == 401


@pytest.mark.parametrize("token", ["attune_it_" + "x" * 43, "nonsense", "ü"])
def test_unknown_tokens_are_refused(api, token):
    answer = sign_in(api, token)
    assert (answer.status, answer.json["error"]) == (401, "Invalid integration token")
    assert sign_in(api, "").status == 422


def test_the_last_use_is_noted_once_a_minute(api, path):
    token = create(api, path)["token"]
    tokens = sign_in(api, token).data
    (first,) = api.get(path).data
    assert first["last_used_ip"] == "203.0.113.7"
    later(api, seconds=30)
    sign_in(api, token)
    assert api.get(path).data == [first]
    later(api, seconds=31)
    assert refresh(api, tokens).status == 200
    (second,) = api.get(path).data
    assert second["last_used_at"] > first["last_used_at"]
    assert second["updated"] == first["updated"]


@pytest.mark.parametrize("way", ["revoke", "delete", "freeze", "identity"])
def test_what_ends_a_token_ends_all_that_came_of_it(api, way):
    clerk = api.as_role("core.viewer")
    path = f"/api/v1/identities/{clerk.identity.id}/integration-tokens"
    made = create(api, path)
    tokens = sign_in(api, made["token"]).data
    program = api.with_token(tokens["access_token"])
    assert program.get("/api/v1/packs").status == 200
    own, identity = f"{path}/{made['integration_token']['id']}", f"/api/v1/identities/{clerk.identity.id}"
    ended = {
        "revoke": lambda: api.post(f"{own}/revoke", json={"reason": "leaked"}),
        "delete": lambda: api.delete(own),
        "freeze": lambda: api.post(f"{identity}/freeze"),
        "identity": lambda: api.delete(identity),
    }[way]()
    assert ended.status == 200
    refused = 403 if way == "freeze" else 401
    assert program.get("/api/v1/packs").status == refused
    assert refresh(api, tokens).status == refused
    assert sign_in(api, made["token"]).status == refused


def test_a_revocation_is_told(api, path):
    made = create(api, path)["integration_token"]
    answer = api.post(f"{path}/{made['id']}/revoke", json={"reason": "leaked"})
    told = answer.data
    assert (told["active"], told["revoked_by"], told["revocation_reason"]) == (False, api.identity.id, "leaked")
    again = api.post(f"{path}/{made['id']}/revoke")
    assert again.data == told
    assert api.get(path).data == [told]
    assert api.delete(f"{path}/{made['id']}").data["success"] is True
    assert api.get(path).data == []
    assert api.delete(f"{path}/{made['id']}").status == 404


def test_a_token_expires(api, path):
    now = api.services.clock()
    soon = (now + timedelta(minutes=5)).isoformat()
    made = create(api, path, expires_at=soon)
    tokens = sign_in(api, made["token"]).data
    assert tokens["expires_in"] <= 300
    later(api, minutes=6)
    assert sign_in(api, made["token"]).status == 401
    assert refresh(api, tokens).status == 401
    assert api.get(path).data[0]["active"] is False
    assert api.with_token(tokens["access_token"]).get("/auth/me").status == 401


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"label": ""},
        {"label": "x", "expires_at": "2020-01-01T00:00:00Z"},
        {"label": "x", "expires_at": "2050-01-01T00:00:00"},
        {"label": "x", "description": "x" * 2001},
    ],
)
def test_bad_tokens(api, path, body):
    assert api.post(path, json=body).status == 422


def test_whose_token_it_is_must_be_said_right(api, path):
    made = create(api, path)["integration_token"]
    someone = api.as_role()
    wrong = f"/api/v1/identities/{someone.identity.id}/integration-tokens/{made['id']}"
    assert api.delete(wrong).status == 404
    assert api.post(f"{wrong}/revoke").status == 404
    assert api.delete(f"{path}/1").status == 404
    reader = api.with_grants(Grant(resource="identities", actions=["read"]))
    assert reader.get(path).status == 200
    assert reader.post(path, json={"label": "x"}).status == 403
    assert reader.delete(f"{path}/{made['id']}").status == 403


def test_another_tenants_tokens_do_not_exist(api, path):
    made = create(api, path)["integration_token"]
    other = api.as_role("core.admin", tenant="t-other")
    mine = f"/api/v1/identities/{other.identity.id}/integration-tokens"
    for answer in (
        other.get(path),
        other.post(path, json={"label": "x"}),
        other.delete(f"{path}/{made['id']}"),
        other.delete(f"{mine}/{made['id']}"),
        other.post(f"{path}/{made['id']}/revoke"),
        other.post(f"{mine}/{made['id']}/revoke"),
    ):
        assert answer.status == 404
    assert api.get(path).data == [made]
