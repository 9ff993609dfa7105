import msgspec
import pytest

from chalicelib import clients
from chalicelib.domain.entities import Action, Grant, Pack
from chalicelib.store.registry import Put

KEYS = "/api/v1/keys"
SECRET = "hunter2-and-more"


def key(ref="db.password", **fields):
    return {"ref": ref, "owner_type": "system", "name": "password", "value": SECRET, "encrypted": True, **fields}


@pytest.fixture
def acme(api):
    """A pack with an action."""
    made = {"created": api.services.clock(), "updated": api.services.clock()}
    pack = Pack(id=api.services.new_id(), ref="acme", label="Acme", version="1.0.0", **made)
    action = Action(
        id=api.services.new_id(), ref="acme.do", pack=pack.id, pack_ref="acme", label="Do", entrypoint="do.py", **made
    )
    api.registry.commit(Put(pack, new=True), Put(action, new=True))
    return pack


def test_a_key_is_created_and_read_back(api):
    created = api.post(KEYS, json=key())
    assert created.status == 201
    assert created.json["message"] == "Key created successfully"
    assert created.data["value"] == SECRET
    assert list(created.data) == [
        "id", "ref", "local_ref", "owner_type", "owner", "owner_identity", "owner_pack", "owner_pack_ref",
        "owner_action", "owner_action_ref", "owner_sensor", "owner_sensor_ref", "name", "encrypted", "value",
        "created", "updated",
    ]  # fmt: skip
    assert api.get(f"{KEYS}/db.password").data == created.data


@pytest.mark.parametrize("value", ["", "text", 0, 1.5, True, None, [], {"a": [1, {"b": None}]}])
def test_a_value_is_any_json(api, value):
    assert api.post(KEYS, json=key(value=value)).data["value"] == value
    assert api.get(f"{KEYS}/db.password").data["value"] == value


@pytest.mark.parametrize("encrypted", [True, False])
def test_no_value_rests_in_clear(api, encrypted):
    api.post(KEYS, json=key(encrypted=encrypted))
    for page in clients.dynamodb().get_paginator("scan").paginate(TableName="registry"):
        assert SECRET not in str(page["Items"])


def test_an_encrypted_value_takes_decrypt(api):
    api.post(KEYS, json=key())
    api.post(KEYS, json=key("plain", encrypted=False))
    viewer = api.as_role("core.viewer")
    assert viewer.get(f"{KEYS}/db.password").data["value"] is None
    assert viewer.get(f"{KEYS}/plain").data["value"] == SECRET
    assert api.as_role("core.editor").get(f"{KEYS}/db.password").data["value"] == SECRET


def test_declaring_a_key_unencrypted_takes_decrypt(api):
    api.post(KEYS, json=key())
    updater = api.with_grants(Grant(resource="keys", actions=["read", "update"]))
    assert updater.put(f"{KEYS}/db.password", json={"encrypted": False}).status == 403
    assert updater.put(f"{KEYS}/db.password", json={"name": "other"}).data["value"] is None
    assert api.put(f"{KEYS}/db.password", json={"encrypted": False}).data["encrypted"] is False


def test_a_key_is_changed(api):
    api.post(KEYS, json=key())
    answer = api.put(f"{KEYS}/db.password", json={"value": {"new": 1}, "name": "n"})
    assert answer.status == 200
    assert answer.json["message"] == "Key updated successfully"
    assert (answer.data["value"], answer.data["name"], answer.data["encrypted"]) == ({"new": 1}, "n", True)
    assert api.get(f"{KEYS}/db.password").data["value"] == {"new": 1}


def test_a_key_is_deleted(api):
    api.post(KEYS, json=key())
    assert api.delete(f"{KEYS}/db.password").json == {
        "success": True,
        "message": "Key 'db.password' deleted successfully",
    }
    assert api.get(f"{KEYS}/db.password").status == 404
    assert api.delete(f"{KEYS}/db.password").status == 404
    assert api.put(f"{KEYS}/db.password", json={"name": "n"}).status == 404


def test_a_ref_is_taken_once(api):
    api.post(KEYS, json=key())
    answer = api.post(KEYS, json=key(value="other"))
    assert answer.status == 409
    assert answer.json["code"] == "CONFLICT"
    assert api.get(f"{KEYS}/db.password").data["value"] == SECRET


@pytest.mark.parametrize(
    "body",
    [
        key(ref="Upper.Case"),
        key(ref=""),
        key(ref="a..b"),
        key(ref="x" * 256),
        key(name=""),
        key(owner_type="nobody"),
        {name: value for name, value in key().items() if name != "ref"},
        {name: value for name, value in key().items() if name != "value"},
        key(value="x" * 300_000),
        key(owner_type="pack", owner_pack=10**40),
        key(owner_type="pack", owner_pack=-1),
    ],
)
def test_bad_keys(api, body):
    assert api.post(KEYS, json=body).status == 422
    assert api.get(KEYS).items == []


@pytest.mark.parametrize(
    ("owner", "fields"),
    [
        ({"owner_type": "pack", "owner_pack_ref": "acme"}, {"owner": "acme", "owner_pack_ref": "acme"}),
        ({"owner_type": "pack", "owner": "acme"}, {"owner": "acme", "owner_pack_ref": "acme"}),
        ({"owner_type": "action", "owner_action_ref": "acme.do"}, {"owner": "acme.do", "owner_action_ref": "acme.do"}),
        ({"owner_type": "pack", "owner_pack_ref": "core"}, {"owner": "core", "owner_pack_ref": "core"}),
    ],
)
def test_owners(api, acme, owner, fields):
    data = api.post(KEYS, json=key(**owner)).data
    assert {name: data[name] for name in fields} == fields
    assert isinstance(data[f"owner_{owner['owner_type']}"], int)


def test_an_owner_by_id(api, acme):
    assert api.post(KEYS, json=key(owner_type="pack", owner_pack=acme.id)).data["owner_pack_ref"] == "acme"


def test_an_identity_owns_by_login_by_id_or_by_asking(api):
    own = api.identity.id
    bodies = [
        {"owner_identity": own},
        {"owner_identity_login": "admin@example.org"},
        {"owner": "admin@example.org"},
        {"owner": str(own)},
        {},
    ]
    for number, body in enumerate(bodies):
        data = api.post(KEYS, json=key(f"own.{number}", owner_type="identity", **body)).data
        assert (data["owner_identity"], data["owner"]) == (own, str(own))


@pytest.mark.parametrize(
    "owner",
    [
        {"owner_type": "pack", "owner_pack_ref": "ghost"},
        {"owner_type": "pack"},
        {"owner_type": "action", "owner_action_ref": "acme.ghost"},
        {"owner_type": "sensor", "owner_sensor_ref": "acme.ghost"},
        {"owner_type": "identity", "owner_identity_login": "ghost@example.org"},
        {"owner_type": "identity", "owner_identity": 4711},
        {"owner_type": "identity", "owner": "9" * 200},
    ],
)
def test_an_unknown_owner_is_a_bad_request(api, owner):
    answer = api.post(KEYS, json=key(**owner))
    assert (answer.status, answer.json["code"]) == (400, "BAD_REQUEST")


@pytest.mark.parametrize(
    ("owner", "ref"),
    [
        ({"owner_type": "system"}, "system.token"),
        ({"owner_type": "pack", "owner_pack_ref": "acme"}, "acme.token"),
        ({"owner_type": "action", "owner_action_ref": "acme.do"}, "acme.do.token"),
    ],
)
def test_the_published_client_names_keys_within_their_owner(api, acme, owner, ref):
    body = key(**owner)
    del body["ref"]
    data = api.post(KEYS, json={**body, "local_ref": "token"}).data
    assert (data["ref"], data["local_ref"]) == (ref, "token")


def test_a_ref_of_free_choice_is_its_own_local_ref(api):
    assert api.post(KEYS, json=key("db.password")).data["local_ref"] == "db.password"


def test_lists_are_filtered_paged_and_without_values(api, acme):
    for number in range(3):
        api.post(KEYS, json=key(f"k{number}"))
    api.post(KEYS, json=key("a.token", owner_type="pack", owner_pack_ref="acme"))
    page = api.get(KEYS, params={"page": 2, "per_page": 3})
    assert page.refs == ["k2"]
    assert "value" not in page.items[0]
    assert page.json["pagination"] == {
        "page": 2, "page_size": 3, "total_items": 4, "total_pages": 2, "has_previous": True, "has_next": False,
    }  # fmt: skip
    assert api.get(KEYS, params={"owner_type": "pack"}).refs == ["a.token"]
    assert api.get(KEYS, params={"owner": "acme"}).refs == ["a.token"]
    assert api.get(KEYS, params={"owner_type": "nobody"}).status == 400


def test_grants_decide_over_rows_before_paging(api, acme):
    api.post(KEYS, json=key("sys"))
    api.post(KEYS, json=key("acme.token", owner_type="pack", owner_pack_ref="acme"))
    narrow = api.with_grants(
        Grant(resource="keys", actions=["read", "delete"], constraints={"pack_refs": ["acme"]}),
        Grant(resource="keys", actions=["update"], constraints={"refs": ["elsewhere"]}),
    )
    listed = narrow.get(KEYS)
    assert listed.refs == ["acme.token"]
    assert listed.json["pagination"]["total_items"] == 1
    assert narrow.get(f"{KEYS}/sys").status == 404
    assert narrow.delete(f"{KEYS}/sys").status == 403
    assert narrow.put(f"{KEYS}/acme.token", json={"name": "n"}).status == 403
    assert narrow.post(KEYS, json=key("more")).status == 403
    assert narrow.delete(f"{KEYS}/acme.token").status == 200


def test_somebody_elses_keys_take_an_owner_grant(api):
    api.post(KEYS, json=key("mine", owner_type="identity"))
    other = api.as_role("core.admin")
    assert other.get(KEYS).refs == []
    assert other.get(f"{KEYS}/mine").status == 404
    assert api.get(f"{KEYS}/mine").status == 200


def test_without_any_grant_keys_are_forbidden(api):
    nobody = api.as_role()
    answer = nobody.get(KEYS)
    assert (answer.status, answer.json["error"]) == (403, "Insufficient permissions: keys:read")
    assert nobody.get(f"{KEYS}/x").status == 403


def test_another_tenants_key_does_not_exist(api):
    api.post(KEYS, json=key())
    stranger = api.as_role("core.admin", tenant=f"{api.tenant}-2")
    assert stranger.get(f"{KEYS}/db.password").status == 404
    assert stranger.get(KEYS).items == []
    assert stranger.delete(f"{KEYS}/db.password").status == 404
    assert stranger.post(KEYS, json=key()).status == 201


def test_an_actions_token_reads_its_own_keys_only(api, acme):
    api.post(KEYS, json=key("acme.token", owner_type="pack", owner_pack_ref="acme"))
    api.post(KEYS, json=key("sys"))
    running = api.as_execution("standard")
    assert running.get(KEYS).refs == ["acme.token"]
    assert running.get(f"{KEYS}/acme.token").data["value"] == SECRET
    assert running.get(f"{KEYS}/sys").status == 404
    assert running.post(KEYS, json=key("more")).status == 403


def test_keys_are_the_contracts_integers_and_times(api):
    data = msgspec.json.decode(api.post(KEYS, json=key()).body)["data"]
    assert 0 < data["id"] < 2**53
    assert data["created"].endswith("Z")
