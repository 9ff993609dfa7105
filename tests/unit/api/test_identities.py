"""Identities, and how they come by their permissions. Every test says what it needs by the API alone."""

import msgspec
import pytest

from chalicelib.domain.entities import Grant, RoleAssignment
from chalicelib.domain.permissions import DEFAULT_SETS
from chalicelib.store.registry import Put, Registry

PASSWORD = "correct horse battery"
IDENTITIES = "/api/v1/identities"
SETS = "/api/v1/permissions/sets"
ASSIGNMENTS = "/api/v1/permissions/assignments"


def create(api, login="ann@example.org", **fields):
    answer = api.post(IDENTITIES, json={"login": login, "password": PASSWORD, **fields})
    assert answer.status == 201, answer.json
    return answer.data


def assign(api, identity, permission_set_ref="core.viewer"):
    return api.post(ASSIGNMENTS, json={"identity_id": identity["id"], "permission_set_ref": permission_set_ref})


def signed_in(api, login="ann@example.org"):
    return api.with_token(
        api.anonymous().post("/auth/login", json={"login": login, "password": PASSWORD}).data["access_token"]
    )


def may(api, resource, action):
    permissions = {each["resource"]: each["actions"] for each in api.get("/auth/me").data["effective_permissions"]}
    return action in permissions.get(resource, [])


def test_the_life_of_an_identity(api):
    made = create(api, display_name="Ann", attributes={"team": "blue"})
    assert made == {
        "id": made["id"],
        "login": "ann@example.org",
        "display_name": "Ann",
        "frozen": False,
        "attributes": {"team": "blue"},
        "roles": [],
        "direct_permissions": [],
    }
    path = f"{IDENTITIES}/{made['id']}"
    assert api.get(path).data == made
    assert signed_in(api).get("/auth/me").data["effective_permissions"] == []
    changed = api.put(path, json={"display_name": "Ann B.", "attributes": {}})
    assert changed.data == {**made, "display_name": "Ann B.", "attributes": {}}
    assert "message" in changed.json
    answer = api.delete(path)
    assert answer.data == {"success": True, "message": "Identity deleted successfully"}
    assert api.get(path).status == api.put(path, json={}).status == api.delete(path).status == 404


def test_identities_are_listed_by_login(api):
    for login in ("zoe@example.org", "bob@example.org"):
        create(api, login)
    answer = api.get(IDENTITIES)
    assert [each["login"] for each in answer.items] == ["admin@example.org", "bob@example.org", "zoe@example.org"]
    assert set(answer.items[0]) == {"id", "login", "display_name", "frozen", "attributes", "roles"}
    page = api.get(IDENTITIES, params={"page": 2, "page_size": 2})
    assert [each["login"] for each in page.items] == ["zoe@example.org"]
    assert page.json["pagination"]["total_items"] == 3


@pytest.mark.parametrize(
    "body",
    [
        {"login": "ab"},
        {"login": "with space"},
        {"login": "ann@example.org", "password": "short"},
        {"login": "ann@example.org", "attributes": [1]},
        {},
    ],
)
def test_bad_identities(api, body):
    assert api.post(IDENTITIES, json=body).status == 422


def test_a_login_is_taken_once(api):
    create(api)
    assert api.post(IDENTITIES, json={"login": "ann@example.org"}).status == 409


def test_a_new_password_by_an_administrator(api):
    made = create(api)
    assert api.put(f"{IDENTITIES}/{made['id']}", json={"password": "another password"}).status == 200
    for password, status in ((PASSWORD, 401), ("another password", 200)):
        answer = api.anonymous().post("/auth/login", json={"login": "ann@example.org", "password": password})
        assert answer.status == status


def test_freezing_locks_out_every_token_at_once(api):
    made = create(api)
    ann = signed_in(api)
    path = f"{IDENTITIES}/{made['id']}"
    assert api.post(f"{path}/freeze").data["success"] is True
    assert api.get(path).data["frozen"] is True
    assert ann.get("/auth/me").status == 403
    assert api.anonymous().post("/auth/login", json={"login": "ann@example.org", "password": PASSWORD}).status == 403
    assert api.post(f"{path}/unfreeze").status == 200
    assert ann.get("/auth/me").status == 200
    assert api.put(path, json={"frozen": True}).data["frozen"] is True
    assert ann.get("/auth/me").status == 403


def test_nobody_freezes_or_deletes_themselves(api):
    path = f"{IDENTITIES}/{api.identity.id}"
    assert api.post(f"{path}/freeze").status == 400
    assert api.post(f"{path}/unfreeze").status == 400
    assert api.put(path, json={"frozen": True}).status == 400
    assert api.delete(path).status == 400
    assert api.get("/auth/me").status == 200


def test_with_an_identity_go_its_keys_and_tokens(api):
    made = create(api)
    key = {"ref": "mine", "owner_type": "identity", "owner_identity": made["id"], "name": "k", "value": "v"}
    assert api.post("/api/v1/keys", json=key).status in (201, 403)  # whose keys one may make is another matter
    token = api.post(f"{IDENTITIES}/{made['id']}/integration-tokens", json={"label": "ci"}).data["token"]
    api.delete(f"{IDENTITIES}/{made['id']}")
    assert api.registry.keys_of("identity", made["id"]) == []
    assert api.registry.integration_tokens.list() == []
    assert api.anonymous().post("/auth/token-login", json={"token": token}).status == 401


# What an identity is given


def test_an_assigned_set_takes_effect_and_goes(api):
    made = create(api)
    ann = signed_in(api)
    assert not may(ann, "packs", "read")
    answer = assign(api, made)
    assert answer.status == 201
    viewer = next(each for each in api.get(SETS).json if each["ref"] == "core.viewer")
    assert answer.data == {
        "id": answer.data["id"],
        "identity_id": made["id"],
        "permission_set_id": viewer["id"],
        "permission_set_ref": "core.viewer",
        "created": answer.data["created"],
    }
    assert may(ann, "packs", "read")
    assert not may(ann, "packs", "create")
    assert ann.get("/auth/me").data["assigned_permission_set_refs"] == ["core.viewer"]
    assert api.get(f"{IDENTITIES}/{made['id']}").data["direct_permissions"] == [answer.data]
    assert api.get(f"{IDENTITIES}/{made['id']}/permissions").json == [answer.data]
    assert assign(api, made).status == 409
    gone = api.delete(f"{ASSIGNMENTS}/{answer.data['id']}")
    assert gone.data["success"] is True
    assert not may(ann, "packs", "read")
    assert api.delete(f"{ASSIGNMENTS}/{answer.data['id']}").status == 404


def test_sets_that_are_assigned_at_the_same_time_are_all_there(api, monkeypatch):
    """Nobody is told of a conflict that is none."""
    made = create(api)
    commit = Registry.commit
    others = ["core.executor", "core.editor"]

    def commit_late(registry, *changes, **options):
        if others:  # somebody else is quicker
            assert assign(api, made, others.pop()).status == 201
        return commit(registry, *changes, **options)

    monkeypatch.setattr(Registry, "commit", commit_late)
    assert assign(api, made, "core.viewer").status == 201
    assert others == []
    assigned = api.get(f"{IDENTITIES}/{made['id']}").data["direct_permissions"]
    refs = ["core.editor", "core.executor", "core.viewer"]
    assert sorted(each["permission_set_ref"] for each in assigned) == refs


def test_an_identity_is_named_by_login_too(api):
    made = create(api)
    body = {"identity_login": "ann@example.org", "permission_set_ref": "core.viewer"}
    assert api.post(ASSIGNMENTS, json=body).data["identity_id"] == made["id"]
    assert api.post(ASSIGNMENTS, json={**body, "identity_login": "ghost"}).status == 404
    assert api.post(ASSIGNMENTS, json={**body, "permission_set_ref": "ghost.set"}).status == 404
    assert api.post(ASSIGNMENTS, json={"permission_set_ref": "core.viewer"}).status == 400
    assert api.post(ASSIGNMENTS, json={"identity_id": 1, "permission_set_ref": "core.viewer"}).status == 404


def test_a_role_gives_the_sets_that_it_is_given(api):
    made = create(api)
    ann = signed_in(api)
    given = api.post(f"{IDENTITIES}/{made['id']}/roles", json={"role": "ops"})
    assert given.status == 201
    assert given.data == {
        "id": given.data["id"],
        "identity_id": made["id"],
        "role": "ops",
        "source": "manual",
        "managed": False,
        "created": given.data["created"],
        "updated": given.data["updated"],
    }
    assert api.post(f"{IDENTITIES}/{made['id']}/roles", json={"role": "ops"}).status == 409
    assert not may(ann, "packs", "read")
    viewer = next(each for each in api.get(SETS).json if each["ref"] == "core.viewer")
    mapped = api.post(f"{SETS}/{viewer['id']}/roles", json={"role": "ops"})
    assert mapped.status == 201
    assert mapped.data == {
        "id": mapped.data["id"],
        "permission_set_id": viewer["id"],
        "permission_set_ref": "core.viewer",
        "role": "ops",
        "created": mapped.data["created"],
    }
    assert api.post(f"{SETS}/{viewer['id']}/roles", json={"role": "ops"}).status == 409
    assert may(ann, "packs", "read")
    assert ann.get("/auth/me").data["assigned_permission_set_refs"] == ["core.viewer"]
    listed = next(each for each in api.get(SETS).json if each["ref"] == "core.viewer")
    assert listed["roles"] == [mapped.data]
    assert api.get(f"{IDENTITIES}/{made['id']}").data["roles"] == [given.data]
    assert api.get(IDENTITIES).items[-1]["roles"] == ["ops"]
    assert api.delete(f"{SETS}/roles/{mapped.data['id']}").data["success"] is True
    assert not may(ann, "packs", "read")
    assert api.delete(f"{SETS}/roles/{mapped.data['id']}").status == 404
    assert api.delete(f"{IDENTITIES}/roles/{given.data['id']}").data["success"] is True
    assert api.delete(f"{IDENTITIES}/roles/{given.data['id']}").status == 404


def test_one_tenants_roles_are_not_anothers(api):
    """A standard set belongs to all tenants; who gets it by a role does not."""
    other = api.as_role("core.admin", tenant="t-other")
    viewer = next(each for each in api.get(SETS).json if each["ref"] == "core.viewer")
    assert api.post(f"{SETS}/{viewer['id']}/roles", json={"role": "ops"}).status == 201
    assert next(each for each in other.get(SETS).json if each["ref"] == "core.viewer")["roles"] == []


def test_a_role_of_a_provider_of_identities_is_not_taken_away_here(api):
    made = create(api)
    now = api.services.clock()
    managed = RoleAssignment(id=7, role="sso", source="oidc", managed=True, created=now, updated=now)
    identity = api.registry.identities.get("ann@example.org")
    api.registry.commit(Put(msgspec.structs.replace(identity, roles=[managed])))
    assert api.delete(f"{IDENTITIES}/roles/7").status == 400
    assert api.get(f"{IDENTITIES}/{made['id']}").data["roles"][0]["managed"] is True


# Nobody hands out more than they have


@pytest.fixture
def manager(api):
    """Somebody who manages identities and permissions, and else may do what a viewer may."""
    return api.with_grants(
        Grant(resource="identities", actions=["read", "create", "update", "delete"]),
        Grant(resource="permissions", actions=["read", "create", "delete", "manage"]),
        *DEFAULT_SETS["core.viewer"],
    )


def test_assignments_stay_within_what_one_has(api, manager):
    made = create(manager)
    assert assign(manager, made, "core.viewer").status == 201
    for ref in ("core.editor", "core.admin"):
        assert assign(manager, made, ref).status == 403
    me = {"id": manager.identity.id}
    assert assign(manager, me, "core.admin").status == 403


def test_roles_stay_within_what_one_has(api, manager):
    admin = next(each for each in api.get(SETS).json if each["ref"] == "core.admin")
    assert manager.post(f"{SETS}/{admin['id']}/roles", json={"role": "mine"}).status == 403
    assert api.post(f"{SETS}/{admin['id']}/roles", json={"role": "bosses"}).status == 201
    made = create(manager)
    assert manager.post(f"{IDENTITIES}/{made['id']}/roles", json={"role": "bosses"}).status == 403
    assert manager.post(f"{IDENTITIES}/{made['id']}/roles", json={"role": "empty"}).status == 201


def test_nobody_gets_hold_of_an_account_that_has_more(api, manager):
    boss = create(api)
    path = f"{IDENTITIES}/{boss['id']}"
    assign(api, boss, "core.admin")
    assert manager.put(path, json={"password": "another password"}).status == 403
    assert manager.put(path, json={"attributes": {"team": "x"}}).status == 403
    assert manager.post(f"{path}/integration-tokens", json={"label": "mine"}).status == 403
    assert manager.put(path, json={"display_name": "Boss"}).status == 200


def test_nobody_grows_by_changing_their_attributes(api):
    red = Grant(resource="packs", actions=["delete"], constraints={"attributes": {"team": "red"}})
    clerk = api.with_grants(Grant(resource="identities", actions=["read", "update"]), red)
    assert clerk.put(f"{IDENTITIES}/{clerk.identity.id}", json={"attributes": {"team": "red"}}).status == 403
    assert not may(clerk, "packs", "delete")


def test_grants_may_name_the_identities_they_are_for(api):
    own = api.with_grants(Grant(resource="identities", actions=["read", "update"], constraints={"owner": "self"}))
    assert [each["login"] for each in own.get(IDENTITIES).items] == [own.login]
    assert own.get(f"{IDENTITIES}/{own.identity.id}").status == 200
    assert own.get(f"{IDENTITIES}/{api.identity.id}").status == 403
    assert own.put(f"{IDENTITIES}/{api.identity.id}", json={"display_name": "x"}).status == 403


def test_another_tenants_identities_do_not_exist(api):
    made = create(api)
    assigned = assign(api, made).data["id"]
    role = api.post(f"{IDENTITIES}/{made['id']}/roles", json={"role": "ops"}).data["id"]
    other = api.as_role("core.admin", tenant="t-other")
    path = f"{IDENTITIES}/{made['id']}"
    for answer in (
        other.get(path),
        other.put(path, json={"display_name": "x"}),
        other.delete(path),
        other.post(f"{path}/freeze"),
        other.post(f"{path}/unfreeze"),
        other.get(f"{path}/permissions"),
        other.post(f"{path}/roles", json={"role": "x"}),
        other.delete(f"{IDENTITIES}/roles/{role}"),
        other.post(ASSIGNMENTS, json={"identity_id": made["id"], "permission_set_ref": "core.viewer"}),
        other.post(ASSIGNMENTS, json={"identity_login": made["login"], "permission_set_ref": "core.viewer"}),
        other.delete(f"{ASSIGNMENTS}/{assigned}"),
    ):
        assert answer.status == 404
    assert len(api.get(path).data["roles"]) == len(api.get(path).data["direct_permissions"]) == 1
