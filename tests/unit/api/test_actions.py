"""Actions over the adapter: the wire, who may, and what happens around them."""

import pytest
from unit.api.resources import make_action, make_pack, make_rule, make_runtime, make_trigger

from chalicelib.domain.entities import SYSTEM_TENANT, Action, Grant
from chalicelib.store.registry import Delete, Put

WIRE = {
    "id", "ref", "pack", "pack_ref", "label", "description", "entrypoint", "runtime", "param_schema", "out_schema",
    "is_adhoc", "accesses_mcp", "enabled", "reference_visibility", "created", "updated",
}  # fmt: skip


@pytest.fixture(autouse=True)
def pack(api):
    return make_pack(api)


def test_a_plain_action_has_the_contracts_fields_and_no_others(api, pack):
    action = make_action(api)
    assert set(action) == WIRE
    assert action["description"] is None
    assert action["param_schema"] is None
    assert action["runtime"] is None
    assert action["pack"] == pack.id
    assert action["is_adhoc"] is True
    assert action["created"].endswith("Z")
    assert api.get("/api/v1/actions/mine.greet").data == action


def test_a_full_action_is_read_back_as_it_was_sent(api):
    runtime = make_runtime(api)
    sent = {
        "description": "says hello",
        "runtime_ref": "mine.shell",
        "runtime_version_constraint": ">=3.11",
        "required_worker_runtimes": {"python": ">=3"},
        "worker_selector": {"zone": "a"},
        "worker_tolerations": [{"key": "gpu"}],
        "worker_affinity": {"required": []},
        "param_schema": {"name": {"type": "string", "required": True}},
        "out_schema": {"greeting": {"type": "string"}},
        "accesses_mcp": True,
        "default_execution_permission_set_refs": ["core.viewer"],
        "artifact_retention_policy": "days",
        "artifact_retention_limit": 3,
        "log_retention_policy": "versions",
        "log_retention_limit": 5,
        "timeout_seconds": 20,
    }
    action = make_action(api, **sent)
    assert {name: action[name] for name in sent} == sent
    assert action["runtime"] == runtime.id
    stored = api.registry.actions.get("mine.greet")
    assert stored.timeout == 20


def test_the_answer_to_a_creation_has_a_message(api):
    body = {"ref": "mine.greet", "pack_ref": "mine", "label": "Greet", "entrypoint": "echo"}
    assert api.post("/api/v1/actions", json=body).json["message"] == "Action created successfully"


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"ref": "Mine.Greet"}, 422),
        ({"ref": ""}, 422),
        ({"ref": "greet"}, 422),
        ({"ref": "other.greet"}, 422),
        ({"label": ""}, 422),
        ({"label": "x" * 256}, 422),
        ({"entrypoint": "x" * 1025}, 422),
        ({"artifact_retention_limit": 0}, 422),
        ({"param_schema": {"name": {"type": "nothing"}}}, 422),
        ({"default_execution_permission_set_refs": ["nowhere.set"]}, 422),
        ({"ref": "gone.greet", "pack_ref": "gone"}, 404),
        ({"runtime_ref": "core.cobol"}, 404),
        ({"runtime": 1}, 404),
        ({"ref": "core.greet", "pack_ref": "core"}, 403),
    ],
)
def test_a_bad_action_is_refused_and_leaves_nothing(api, change, status):
    body = {"ref": "mine.greet", "pack_ref": "mine", "label": "Greet", "entrypoint": "echo", **change}
    answer = api.post("/api/v1/actions", json=body)
    assert answer.status == status
    assert answer.json["error"]
    assert api.registry.actions.list() == []


def test_a_ref_is_taken_once(api):
    make_action(api)
    body = {"ref": "mine.greet", "pack_ref": "mine", "label": "Again", "entrypoint": "echo"}
    assert api.post("/api/v1/actions", json=body).status == 409
    assert api.get("/api/v1/actions/mine.greet").data["label"] == "Greet"


def test_a_put_changes_what_it_names_and_nothing_else(api):
    make_action(api, description="before", log_retention_limit=4, param_schema={"a": {"type": "string"}})
    changed = api.put(
        "/api/v1/actions/mine.greet",
        json={
            "label": "New",
            "description": None,
            "runtime_version_constraint": {"op": "set", "value": ">=3.12"},
            "log_retention_limit": {"op": "clear"},
        },
    )
    assert changed.status == 200
    assert changed.data["label"] == "New"
    assert changed.data["description"] == "before"
    assert changed.data["runtime_version_constraint"] == ">=3.12"
    assert "log_retention_limit" not in changed.data
    assert changed.data["param_schema"] == {"a": {"type": "string"}}
    assert api.get("/api/v1/actions/mine.greet").data == changed.data


def test_lists_are_by_ref_and_paged(api):
    for name in ("c", "a", "b"):
        make_action(api, f"mine.{name}")
    page = api.get("/api/v1/actions?page=2&page_size=2")
    assert page.refs == ["mine.c"]
    assert page.json["pagination"] == {
        "page": 2, "page_size": 2, "total_items": 3, "total_pages": 2, "has_previous": True, "has_next": False,
    }  # fmt: skip
    assert api.get("/api/v1/packs/mine/actions").refs == ["mine.a", "mine.b", "mine.c"]
    assert api.get("/api/v1/packs/gone/actions").status == 404


def test_search_looks_at_ref_label_and_description(api):
    make_action(api, "mine.one", label="Send Mail")
    make_action(api, "mine.two", description="also sends MAIL")
    make_action(api, "mine.three")
    assert api.get("/api/v1/actions/search?q=mail").refs == ["mine.one", "mine.two"]
    assert api.get("/api/v1/actions/search?packs=mine&q=mail").refs == ["mine.one", "mine.two"]
    assert api.get("/api/v1/actions/search?packs=core&q=mail").refs == []
    assert api.get("/api/v1/actions/search?packs=gone").status == 404
    hit = api.get("/api/v1/actions/search?q=three").items[0]
    assert hit == {
        "ref": "mine.three", "pack_ref": "mine", "label": "Greet", "is_workflow": False, "accesses_mcp": False,
        "reference_visibility": "public",
    }  # fmt: skip


def test_a_deleted_action_leaves_its_rules_with_the_ref_only(api):
    make_action(api)
    make_trigger(api)
    make_rule(api)
    deleted = api.delete("/api/v1/actions/mine.greet")
    assert deleted.json == {"success": True, "message": "Action 'mine.greet' deleted successfully"}
    assert api.get("/api/v1/actions/mine.greet").status == 404
    rule = api.get("/api/v1/rules/mine.answer").data
    assert (rule["action_ref"], rule["action"]) == ("mine.greet", None)


def test_roles_do_what_they_may(api):
    make_action(api)
    viewer, editor, executor, nobody = (
        api.as_role(*sets) for sets in (["core.viewer"], ["core.editor"], ["core.executor"], [])
    )
    body = {"ref": "mine.next", "pack_ref": "mine", "label": "Next", "entrypoint": "echo"}
    assert [each.get("/api/v1/actions/mine.greet").status for each in (viewer, editor, executor)] == [200, 200, 200]
    assert nobody.get("/api/v1/actions/mine.greet").status in (403, 404)
    assert nobody.get("/api/v1/actions").refs == []
    assert [each.post("/api/v1/actions", json=body).status for each in (viewer, executor, nobody, editor)] == [
        403, 403, 403, 201,
    ]  # fmt: skip
    assert [each.delete("/api/v1/actions/mine.greet").status for each in (viewer, executor, editor, api)] == [
        403, 403, 403, 200,
    ]  # fmt: skip


def test_nobody_hands_on_more_than_they_have(api):
    editor = api.as_role("core.editor")
    body = {"ref": "mine.root", "pack_ref": "mine", "label": "Root", "entrypoint": "id"}
    refused = editor.post("/api/v1/actions", json={**body, "default_execution_permission_set_refs": ["core.admin"]})
    assert refused.status == 403
    make_action(api, "mine.root", default_execution_permission_set_refs=["core.admin"])
    assert editor.put("/api/v1/actions/mine.root", json={"entrypoint": "cat /etc/shadow"}).status == 403
    assert editor.put("/api/v1/actions/mine.root", json={"label": "Only a name"}).status == 200


def test_another_tenants_action_does_not_exist(api):
    make_action(api)
    stranger = api.as_role("core.admin", tenant=f"{api.tenant}-other")
    assert stranger.get("/api/v1/actions/mine.greet").status == 404
    assert stranger.put("/api/v1/actions/mine.greet", json={"label": "x"}).status == 404
    assert stranger.delete("/api/v1/actions/mine.greet").status == 404
    assert stranger.get("/api/v1/actions?page_size=100").refs == []


def test_a_private_packs_actions_exist_for_its_creator_only(api):
    make_pack(api, "secret", visibility="private", installed_by=api.identity.id)
    make_action(api, "secret.greet")
    other = api.as_role("core.admin")
    assert api.get("/api/v1/actions/secret.greet").status == 200
    assert other.get("/api/v1/actions/secret.greet").status == 404
    assert other.get("/api/v1/actions").refs == []
    body = {"ref": "secret.more", "pack_ref": "secret", "label": "More", "entrypoint": "echo"}
    assert other.post("/api/v1/actions", json=body).status == 404


def test_standard_actions_are_for_everybody_to_read_and_for_nobody_to_change(api):
    now = api.services.clock()
    ref = f"core.standard_{api.tenant.replace('-', '_')}"
    system = api.services.store.tenant(SYSTEM_TENANT).registry
    action = Action(
        id=api.services.new_id(), created=now, updated=now, ref=ref, pack=1, pack_ref="core", label="S", entrypoint="s"
    )
    system.commit(Put(action, new=True))
    nobody = api.as_role()
    try:
        assert nobody.get(f"/api/v1/actions/{ref}").status == 200
        assert ref in nobody.get("/api/v1/actions?page_size=100").refs
        assert api.put(f"/api/v1/actions/{ref}", json={"label": "Mine"}).status == 403
        assert api.delete(f"/api/v1/actions/{ref}").status == 403
    finally:
        system.commit(Delete("action", ref))


def test_the_list_can_be_narrowed_to_what_the_caller_may_execute(api):
    make_action(api, "mine.one")
    make_action(api, "mine.two")
    one = api.with_grants(
        Grant(resource="packs", actions=["read"]),
        Grant(resource="actions", actions=["read"]),
        Grant(resource="actions", actions=["execute"], constraints={"refs": ["mine.one"]}),
    )
    assert one.get("/api/v1/actions").refs == ["mine.one", "mine.two"]
    assert one.get("/api/v1/actions?executable_with_current_access=true").refs == ["mine.one"]


def test_a_container_action_keeps_its_container(api):
    make_runtime(api, "core.container")
    action = make_action(api, runtime_ref="core.container", container={"image": "python:3.11-slim", "memory": 64})
    assert action["container"]["image"] == "python:3.11-slim"
    assert action["container"]["memory"] == 64
    assert action["container"]["network"] is False
    changed = api.put("/api/v1/actions/mine.greet", json={"container": {"image": "alpine", "network": True}}).data
    assert changed["container"]["image"] == "alpine"
    assert api.registry.actions.get("mine.greet").container.network is True


@pytest.mark.parametrize("container", [None, {}, {"image": ""}, {"image": "a b"}, {"image": "a", "cpu": 99}])
def test_a_container_action_without_a_usable_container_is_refused(api, container):
    make_runtime(api, "core.container")
    body = {"ref": "mine.greet", "pack_ref": "mine", "label": "Greet", "entrypoint": "echo"}
    answer = api.post("/api/v1/actions", json={**body, "runtime_ref": "core.container", "container": container})
    assert answer.status == 422
