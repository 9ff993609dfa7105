"""Permission sets: those that packs bring along, and those that a tenant makes."""

from pathlib import Path

import pytest

from chalicelib.domain.entities import Grant
from chalicelib.flow import packs
from chalicelib.flow.packs import DelegationError

SETS = "/api/v1/permissions/sets"
CORE = Path(__file__).resolve().parents[3] / "packs" / "core"
READ = [{"resource": "packs", "actions": ["read"]}]
DELETE = [{"resource": "packs", "actions": ["delete"]}]


def create(api, ref="ops.readers", grants=READ, **fields):
    return api.post(SETS, json={"ref": ref, "grants": grants, **fields})


def archive(*grants, **files):
    pack = {"pack.yaml": b"ref: acme\nname: Acme\nversion: 1.0.0\n"}
    for name, text in files.items():
        pack[f"permission_sets/{name}.yaml"] = text.encode()
    return pack


SET = """ref: acme.{name}
label: The set
grants:
  - resource: {resource}
    actions: [{action}]
"""


def of(name, resource="packs", action="read"):
    return SET.format(name=name, resource=resource, action=action)


def install(api, files, **options):
    """As the client ``api``, which is held to what it may do."""
    from unit.api.test_access import call_of

    return packs.install(
        api.services, api.tenant, files, force=True, installed_by=api.identity.id, access=call_of(api).access, **options
    )


def test_the_life_of_a_permission_set(api):
    answer = create(api, label="Readers", description="Read packs")
    assert answer.status == 201
    made = answer.data
    assert made == {
        "id": made["id"],
        "ref": "ops.readers",
        "pack_ref": None,
        "label": "Readers",
        "description": "Read packs",
        "grants": [{"resource": "packs", "actions": ["read"], "constraints": None}],
        "roles": [],
    }
    assert made in api.get(SETS).json
    changed = api.put(f"{SETS}/{made['id']}", json={"grants": DELETE, "label": "Deleters"}).data
    assert (changed["label"], changed["description"]) == ("Deleters", "Read packs")
    assert changed["grants"][0]["actions"] == ["delete"]
    assert api.delete(f"{SETS}/{made['id']}").data["success"] is True
    assert made["ref"] not in [each["ref"] for each in api.get(SETS).json]
    assert api.delete(f"{SETS}/{made['id']}").status == 404


def test_the_list_is_a_bare_array_that_a_pack_narrows(api):
    create(api)
    refs = [each["ref"] for each in api.get(SETS).json]
    assert {"core.admin", "core.editor", "core.executor", "core.viewer", "ops.readers"} <= set(refs)
    assert refs == sorted(refs)
    narrowed = api.get(SETS, params={"pack_ref": "core"}).json
    assert {each["pack_ref"] for each in narrowed} == {"core"}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"ref": "Ops.readers", "grants": READ}, 422),
        ({"ref": "readers", "grants": READ}, 422),
        ({"ref": "ops.readers", "grants": [{"resource": "moon", "actions": ["read"]}]}, 422),
        ({"ref": "ops.readers", "grants": {}}, 422),
        ({"ref": "ops.readers"}, 422),
        ({"ref": "core.mine", "grants": READ}, 403),
        ({"ref": "core.viewer", "grants": READ}, 403),
    ],
)
def test_bad_permission_sets(api, body, status):
    assert api.post(SETS, json=body).status == status


def test_a_ref_is_taken_once(api):
    assert create(api).status == 201
    assert create(api).status == 409


def test_standard_sets_are_nobodys_to_change(api):
    admin = next(each for each in api.get(SETS).json if each["ref"] == "core.admin")
    assert api.put(f"{SETS}/{admin['id']}", json={"grants": []}).status == 403
    assert api.delete(f"{SETS}/{admin['id']}").status == 403


def test_a_set_holds_no_more_than_its_maker_has(api):
    clerk = api.with_grants(
        Grant(resource="permissions", actions=["read", "create", "manage"]),
        Grant(resource="packs", actions=["read"], constraints={"pack_refs": ["acme"]}),
    )
    assert create(clerk, grants=READ).status == 403
    narrow = [{"resource": "packs", "actions": ["read"], "constraints": {"pack_refs": ["acme"]}}]
    made = create(clerk, grants=narrow)
    assert made.status == 201
    assert clerk.put(f"{SETS}/{made.data['id']}", json={"grants": READ}).status == 403


def test_what_a_set_holds_already_may_stay(api):
    made = create(api, grants=[*DELETE, *READ]).data
    clerk = api.with_grants(Grant(resource="permissions", actions=["manage"]))
    assert clerk.put(f"{SETS}/{made['id']}", json={"grants": DELETE}).status == 200
    assert clerk.put(f"{SETS}/{made['id']}", json={"grants": READ}).status == 403


def test_a_deleted_set_is_taken_from_everybody(api):
    """Its ref may live again, with other grants."""
    made = create(api).data
    someone = api.as_role("ops.readers", "core.viewer")
    api.post(f"{SETS}/{made['id']}/roles", json={"role": "ops"})
    api.delete(f"{SETS}/{made['id']}")
    assert [each.permission_set_ref for each in someone.identity.assignments] == ["core.viewer"]
    assert api.registry.roles.get("ops").permission_sets == []
    create(api, grants=DELETE)
    assert someone.get("/auth/me").data["assigned_permission_set_refs"] == ["core.viewer"]


def test_a_packs_sets_come_and_go_with_it(api):
    install(api, archive(reader=of("reader"), writer=of("writer", action="configure")))
    listed = {each["ref"]: each for each in api.get(SETS, params={"pack_ref": "acme"}).json}
    assert set(listed) == {"acme.reader", "acme.writer"}
    assert api.delete(f"{SETS}/{listed['acme.reader']['id']}").status == 403
    assert api.put(f"{SETS}/{listed['acme.reader']['id']}", json={"grants": READ}).status == 200
    someone = api.as_role("acme.reader", "acme.writer")
    install(api, archive(reader=of("reader")))
    assert someone.get("/auth/me").data["assigned_permission_set_refs"] == ["acme.reader"]
    assert api.delete("/api/v1/packs/acme").status == 200
    assert api.get(SETS, params={"pack_ref": "acme"}).json == []
    assert someone.identity.assignments == []


def test_a_pack_brings_no_more_than_its_installer_has(api):
    """Neither in a new set, whose name somebody may be waiting for, nor in one that people have already."""
    editor = api.as_role("core.editor")
    with pytest.raises(DelegationError, match=r"acme\.boss"):
        install(editor, archive(boss=of("boss", "identities", "create")))
    install(editor, archive(boss=of("boss")))
    with pytest.raises(DelegationError, match=r"acme\.boss"):
        install(editor, archive(boss=of("boss", "identities", "create")))
    install(api, archive(boss=of("boss", "identities", "create")))
    install(editor, archive(boss=of("boss", "identities", "create")))


def test_nobody_says_what_runs_with_more_than_they_have(api):
    """An action that somebody's rule runs as an administrator is not an editor's to rewrite, nor to make."""
    editor = api.as_role("core.editor")
    install(api, {"pack.yaml": b"ref: acme\nname: Acme\nversion: 1.0.0\n"})
    packs.install(
        api.services, "system", packs.read_directory(CORE), visibility="standard", force=True
    )  # for its runtimes
    action = {"ref": "acme.do", "pack_ref": "acme", "label": "Do", "entrypoint": "echo", "runtime_ref": "core.shell"}
    assert editor.post("/api/v1/actions", json=action).status == 201
    assert editor.put("/api/v1/actions/acme.do", json={"entrypoint": "echo 1"}).status == 200
    api.post("/api/v1/triggers", json={"ref": "acme.t", "pack_ref": "acme", "label": "T"})
    rule = {"ref": "acme.r", "pack_ref": "acme", "label": "R", "trigger_ref": "acme.t", "action_ref": "acme.do"}
    assert api.post("/api/v1/rules", json={**rule, "permission_set_refs": ["core.admin"]}).status == 201
    assert editor.put("/api/v1/actions/acme.do", json={"entrypoint": "curl evil"}).status == 403
    assert editor.put("/api/v1/actions/acme.do", json={"label": "Done"}).status == 200
    api.delete("/api/v1/actions/acme.do")
    assert editor.post("/api/v1/actions", json=action).status == 403
    api.delete("/api/v1/rules/acme.r")
    task = {"name": "one", "action": "acme.do", "permission_set_refs": ["core.admin"]}
    flow = {"ref": "acme.flow", "pack_ref": "acme", "label": "F", "version": "1.0.0"}
    made = api.post("/api/v1/workflows", json={**flow, "definition": {"version": "1.0.0", "tasks": [task]}})
    assert made.status == 201
    assert editor.post("/api/v1/actions", json=action).status == 403
    assert api.post("/api/v1/actions", json=action).status == 201


def test_the_sets_of_a_hidden_pack_are_hidden(api):
    install(api, archive(reader=of("reader")), visibility="private")
    other = api.as_role("core.admin")
    (hidden,) = api.get(SETS, params={"pack_ref": "acme"}).json
    assert other.get(SETS, params={"pack_ref": "acme"}).json == []
    assert other.put(f"{SETS}/{hidden['id']}", json={"grants": []}).status == 404
    assert other.delete(f"{SETS}/{hidden['id']}").status == 404
    assert other.post(f"{SETS}/{hidden['id']}/roles", json={"role": "x"}).status == 404
    body = {"identity_id": other.identity.id, "permission_set_ref": "acme.reader"}
    assert other.post("/api/v1/permissions/assignments", json=body).status == 404


def test_another_tenants_sets_do_not_exist(api):
    made = create(api).data
    mapped = api.post(f"{SETS}/{made['id']}/roles", json={"role": "ops"}).data
    other = api.as_role("core.admin", tenant="t-other")
    body = {"identity_id": other.identity.id, "permission_set_ref": "ops.readers"}
    for answer in (
        other.put(f"{SETS}/{made['id']}", json={"grants": []}),
        other.delete(f"{SETS}/{made['id']}"),
        other.post(f"{SETS}/{made['id']}/roles", json={"role": "x"}),
        other.delete(f"{SETS}/roles/{mapped['id']}"),
        other.post("/api/v1/permissions/assignments", json=body),
    ):
        assert answer.status == 404
    assert next(each for each in api.get(SETS).json if each["ref"] == "ops.readers") == {**made, "roles": [mapped]}
