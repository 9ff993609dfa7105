"""Every kind of constraint, on rows that are asked for over the API: what it names is there, the rest is not."""

import pytest

from chalicelib.domain.entities import Grant, Pack
from chalicelib.store.registry import Put

KEYS = {
    "acme.token": {"owner_type": "pack", "owner_pack_ref": "acme", "name": "token", "encrypted": True},
    "acme.plain": {"owner_type": "pack", "owner_pack_ref": "acme", "name": "plain", "encrypted": False},
    "other.token": {"owner_type": "pack", "owner_pack_ref": "other", "name": "token", "encrypted": True},
    "sys": {"owner_type": "system", "name": "sys", "encrypted": True},
}


@pytest.fixture
def keys(api):
    """Four keys by ref, with their ids."""
    now = api.services.clock()
    for ref in ("acme", "other"):
        pack = Pack(id=api.services.new_id(), ref=ref, label=ref, version="1.0.0", created=now, updated=now)
        api.registry.commit(Put(pack, new=True))
    for ref, fields in KEYS.items():
        assert api.post("/api/v1/keys", json={"ref": ref, "value": "v", **fields}).status == 201
    return {key.ref: key.id for key in api.registry.keys.list()}


@pytest.mark.parametrize(
    ("constraints", "seen"),
    [
        (None, set(KEYS)),
        ({"pack_refs": ["acme"]}, {"acme.token", "acme.plain"}),
        ({"refs": ["sys", "acme.plain"]}, {"sys", "acme.plain"}),
        ({"ids": ["other.token"]}, {"other.token"}),
        ({"owner_types": ["system"]}, {"sys"}),
        ({"owner_refs": ["other"]}, {"other.token"}),
        ({"encrypted": False}, {"acme.plain"}),
        ({"owner": "none"}, set(KEYS)),
        ({"owner": "self"}, set()),
        ({"owner": "any"}, set(KEYS)),
        ({"visibility": ["public"]}, set()),
        ({"execution_scope": "self"}, set()),
        ({"attributes": {"team": "blue"}}, set()),
        ({"pack_refs": ["acme"], "encrypted": True}, {"acme.token"}),
        ({"pack_refs": ["acme"], "owner_types": ["system"]}, set()),
    ],
)
def test_keys(api, keys, constraints, seen):
    if constraints and "ids" in constraints:
        constraints = {"ids": [keys[ref] for ref in constraints["ids"]]}
    reader = api.with_grants(Grant(resource="keys", actions=["read"], constraints=constraints))
    listed = reader.get("/api/v1/keys")
    assert (set(listed.refs) if listed.status == 200 else set()) == seen
    answers = {ref: reader.get(f"/api/v1/keys/{ref}").status for ref in KEYS}
    assert {ref for ref, status in answers.items() if status == 200} == seen
    assert reader.delete("/api/v1/keys/sys").status == 403


def test_two_narrow_grants_are_both_had(api, keys):
    """Each alone is enough, and neither takes from the other."""
    reader = api.with_grants(
        Grant(resource="keys", actions=["read"], constraints={"refs": ["sys"]}),
        Grant(resource="keys", actions=["read"], constraints={"owner_refs": ["other"]}),
    )
    assert set(reader.get("/api/v1/keys").refs) == {"sys", "other.token"}


def test_executions_are_their_executors(api):
    own = api.with_grants(Grant(resource="executions", actions=["read", "cancel"], constraints={"owner": "self"}))
    mine, other = own.as_execution(), api.as_execution()
    assert own.get(f"/api/v1/executions/{mine.execution_id}").status == 200
    assert own.get(f"/api/v1/executions/{other.execution_id}").status == 403
    assert own.post(f"/api/v1/executions/{other.execution_id}/cancel").status == 403
    assert [each["id"] for each in own.get("/api/v1/executions").items] == [mine.execution_id]


def test_the_actions_of_some_packs(api):
    runner = api.with_grants(
        Grant(resource="executions", actions=["read"], constraints={"pack_refs": ["acme"]}),
    )
    ours, theirs = api.as_execution(action_ref="acme.do"), api.as_execution(action_ref="other.do")
    assert runner.get(f"/api/v1/executions/{ours.execution_id}").status == 200
    assert runner.get(f"/api/v1/executions/{theirs.execution_id}").status == 403
    page = runner.get("/api/v1/executions", params={"include_total": "true"}).json
    assert [each["id"] for each in page["items"]] == [ours.execution_id]
    assert page["pagination"]["total_items"] == 1
