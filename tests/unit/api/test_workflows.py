"""Workflows over HTTP: the definition and the action beside it, checked at every door."""

from typing import Any

import pytest
from unit.api.resources import created, make_action, make_pack, make_rule, make_trigger

from chalicelib.domain.entities import Grant

ONE = {"tasks": [{"name": "greet", "action": "mine.greet", "input": {"message": "{{ parameters.who }}"}}]}


@pytest.fixture
def mine(api: Any) -> Any:
    make_pack(api)
    make_action(api)
    return api


def body(ref: str = "mine.flow", **fields: Any) -> dict[str, Any]:
    return {
        "ref": ref,
        "pack_ref": "mine",
        "label": "Flow",
        "version": "1.0.0",
        "definition": ONE,
        "param_schema": {"who": {"type": "string"}},
        **fields,
    }


def make_workflow(api: Any, ref: str = "mine.flow", **fields: Any) -> Any:
    return created(api.post("/api/v1/workflows", json=body(ref, **fields)))


def test_a_workflow_and_the_action_beside_it(mine: Any) -> None:
    answer = mine.post("/api/v1/workflows", json=body(description="Greets", tags=["a"], out_schema={}))
    workflow = created(answer)
    assert answer.json["message"] == "Workflow created successfully"
    assert mine.get("/api/v1/workflows/mine.flow").data == workflow
    assert workflow | {"ref": "mine.flow", "definition": ONE, "tags": ["a"], "version": "1.0.0"} == workflow
    assert "warnings" not in workflow
    action = mine.get("/api/v1/actions/mine.flow").data
    assert action["workflow_def"] == workflow["id"]
    assert (action["runtime"], action["entrypoint"], action["label"]) == (None, "workflow", "Flow")
    assert (action["description"], action["param_schema"]) == ("Greets", {"who": {"type": "string"}})
    (hit,) = mine.get("/api/v1/actions/search", params={"q": "flow"}).items
    assert hit["is_workflow"] is True


@pytest.mark.parametrize(
    ("definition", "path", "says"),
    [
        (None, "definition", "must be a map"),
        ({"tasks": []}, "definition.tasks", "at least one task"),
        ({"tasks": [{"name": "a"}]}, "definition.tasks[0].action", ""),
        ({"tasks": [{"name": "a", "action": "core.noop", "next": [{"do": ["b"]}]}]}, "definition.tasks[0].next", "b"),
        ({"tasks": [{"name": "a", "action": "core.noop"}] * 2}, "definition.tasks[1].name", "taken"),
    ],
)
def test_what_cannot_run_is_refused_with_path_and_reason(mine: Any, definition: Any, path: str, says: str) -> None:
    for answer in (
        mine.post("/api/v1/workflows", json=body(definition=definition)),
        mine.post("/api/v1/packs/mine/workflow-files", json=body(definition=definition) | {"name": "flow"}),
    ):
        assert answer.status == 422, answer.json
        (problem,) = answer.json["details"]
        assert problem["path"].startswith(path)
        assert says in problem["problem"]
    if definition is not None:
        fields = {"label": "A", "workflow_definition": definition}
        answer = mine.post("/api/v1/actions", json={"ref": "mine.flow", "pack_ref": "mine", **fields})
        assert answer.status == 422, answer.json
        assert answer.json["details"][0]["path"].startswith(f"workflow_{path}")
    assert mine.get("/api/v1/workflows/mine.flow").status == 404
    assert mine.get("/api/v1/actions/mine.flow").status == 404


def test_every_problem_is_named(mine: Any) -> None:
    tasks = [{"name": "a"}, {"name": "b", "action": "core.noop", "next": [{"when": "1 +", "do": ["nowhere"]}]}]
    answer = mine.post("/api/v1/workflows", json=body(definition={"tasks": tasks}))
    assert {each["path"] for each in answer.json["details"]} >= {"definition.tasks[0].action"}
    assert len(answer.json["details"]) == 3


def test_an_action_that_does_not_exist_yet_is_a_warning(mine: Any) -> None:
    definition = {"tasks": [{"name": "a", "action": "mine.later"}]}
    answer = mine.post("/api/v1/workflows", json=body(definition=definition))
    (warning,) = created(answer)["warnings"]
    assert "action 'mine.later' does not exist yet" in warning
    assert "with 1 warning(s)" in answer.json["message"]
    assert warning in answer.json["message"]


def test_a_workflow_may_call_itself(mine: Any) -> None:
    assert "warnings" not in make_workflow(mine, definition={"tasks": [{"name": "a", "action": "mine.flow"}]})


def test_both_rows_change_together(mine: Any) -> None:
    make_workflow(mine)
    other = {"tasks": [{"name": "b", "action": "mine.greet"}]}
    changes = {"label": "New", "definition": other, "param_schema": {"n": {"type": "integer"}}, "version": "2.0.0"}
    answer = mine.put("/api/v1/workflows/mine.flow", json=changes)
    assert answer.status == 200, answer.json
    assert answer.data | changes == answer.data
    action = mine.get("/api/v1/actions/mine.flow").data
    assert (action["label"], action["param_schema"]) == ("New", {"n": {"type": "integer"}})
    answer = mine.put("/api/v1/actions/mine.flow", json={"label": "Newer", "entrypoint": "x", "runtime_ref": "nobody"})
    assert (answer.status, answer.data["entrypoint"], answer.data["runtime"]) == (200, "workflow", None)
    assert mine.get("/api/v1/workflows/mine.flow").data | {"label": "Newer", "definition": other} == (
        mine.get("/api/v1/workflows/mine.flow").data
    )
    assert mine.put("/api/v1/workflows/mine.flow", json={"definition": {"tasks": []}}).status == 422
    assert mine.get("/api/v1/workflows/mine.flow").data["definition"] == other


@pytest.mark.parametrize("door", ["workflows", "actions"])
def test_both_rows_go_together(mine: Any, door: str) -> None:
    make_workflow(mine)
    make_trigger(mine)
    make_rule(mine, action_ref="mine.flow", action_params={"who": "x"})
    assert mine.delete(f"/api/v1/{door}/mine.flow").status == 200
    assert mine.get("/api/v1/workflows/mine.flow").status == 404
    assert mine.get("/api/v1/actions/mine.flow").status == 404
    assert mine.get("/api/v1/rules/mine.answer").data["action"] is None


def test_an_action_with_a_definition_of_its_own(mine: Any) -> None:
    fields = {"ref": "mine.flow", "pack_ref": "mine", "label": "A", "workflow_definition": ONE}
    action = created(mine.post("/api/v1/actions", json=fields))
    assert (action["entrypoint"], action["runtime"]) == ("workflow", None)
    workflow = mine.get("/api/v1/workflows/mine.flow").data
    assert (workflow["id"], workflow["definition"], workflow["version"]) == (action["workflow_def"], ONE, "1.0.0")
    other = {"tasks": [{"name": "b", "action": "mine.nothing"}]}
    answer = mine.put("/api/v1/actions/mine.flow", json={"workflow_definition": other})
    assert "mine.nothing" in answer.data["warnings"][0]
    assert mine.get("/api/v1/workflows/mine.flow").data["definition"] == other


def test_a_program_becomes_a_workflow(mine: Any) -> None:
    answer = mine.put("/api/v1/actions/mine.greet", json={"workflow_definition": ONE})
    assert (answer.status, answer.data["entrypoint"], answer.data["runtime"]) == (200, "workflow", None)
    assert mine.get("/api/v1/workflows/mine.greet").data["id"] == answer.data["workflow_def"]


def test_an_action_without_a_program_is_none(mine: Any) -> None:
    answer = mine.post("/api/v1/actions", json={"ref": "mine.x", "pack_ref": "mine", "label": "X"})
    assert (answer.status, answer.json["details"]["path"]) == (422, "entrypoint")


def test_files(mine: Any) -> None:
    saved = {**body(), "name": "flow"}
    assert created(mine.post("/api/v1/packs/mine/workflow-files", json=saved))["ref"] == "mine.flow"
    assert mine.get("/api/v1/actions/mine.flow").data["entrypoint"] == "workflows/flow.workflow.yaml"
    assert mine.post("/api/v1/packs/mine/workflow-files", json=saved).status == 409
    assert mine.put("/api/v1/workflows/mine.flow/file", json=saved | {"label": "B"}).data["label"] == "B"
    assert mine.put("/api/v1/workflows/mine.flow/file", json=saved | {"name": "other"}).status == 422
    assert mine.post("/api/v1/packs/other/workflow-files", json=saved).status == 422


def test_lists(mine: Any) -> None:
    make_workflow(mine, "mine.one", tags=["a", "b"])
    make_workflow(mine, "mine.two", label="Second", tags=["c"])
    assert mine.get("/api/v1/workflows").refs == ["mine.one", "mine.two"]
    assert mine.get("/api/v1/workflows", params={"tags": "x, b"}).refs == ["mine.one"]
    assert mine.get("/api/v1/workflows", params={"search": "SECOND"}).refs == ["mine.two"]
    assert mine.get("/api/v1/workflows", params={"pack_ref": "other"}).refs == []
    assert mine.get("/api/v1/packs/mine/workflows").refs == ["mine.one", "mine.two"]
    assert mine.get("/api/v1/packs/none/workflows").status == 404
    assert "definition" not in mine.get("/api/v1/workflows").items[0]


def test_taken_refs_and_missing_packs(mine: Any) -> None:
    make_workflow(mine)
    assert mine.post("/api/v1/workflows", json=body()).status == 409
    assert mine.post("/api/v1/workflows", json=body("mine.greet")).status == 409
    assert mine.post("/api/v1/workflows", json=body("none.flow", pack_ref="none")).status == 404
    assert mine.post("/api/v1/workflows", json=body("other.flow")).status == 422
    assert mine.post("/api/v1/workflows", json=body("core.flow", pack_ref="core")).status == 403


def test_who_may_do_what_with_actions_may_with_workflows(mine: Any) -> None:
    make_workflow(mine)
    nobody, viewer, editor = (mine.as_role(*sets) for sets in ((), ("core.viewer",), ("core.editor",)))
    assert nobody.get("/api/v1/workflows").refs == []
    assert nobody.get("/api/v1/workflows/mine.flow").status == 403
    assert viewer.get("/api/v1/workflows").refs == ["mine.flow"]
    assert viewer.post("/api/v1/workflows", json=body("mine.other")).status == 403
    assert viewer.put("/api/v1/workflows/mine.flow", json={}).status == 403
    assert editor.put("/api/v1/workflows/mine.flow", json={"label": "E"}).status == 200
    assert editor.delete("/api/v1/workflows/mine.flow").status == 403
    assert mine.anonymous().get("/api/v1/workflows").status == 401
    elsewhere = mine.as_role("core.admin", tenant="elsewhere")
    assert elsewhere.get("/api/v1/workflows/mine.flow").status == 404


def test_nobody_hands_on_what_they_may_not_do(mine: Any) -> None:
    def handing_on(ref: Any) -> Any:
        task = {"name": "a", "action": "mine.greet", "permission_set_refs": ref}
        return {"tasks": [task]}

    editor = mine.as_role("core.editor")
    assert editor.post("/api/v1/workflows", json=body(definition=handing_on(["core.admin"]))).status == 403
    assert editor.post("/api/v1/workflows", json=body(definition=handing_on("core.nobody"))).status == 422
    assert editor.post("/api/v1/workflows", json=body(definition=handing_on("core.viewer"))).status == 201
    fields = {"workflow_definition": handing_on("core.admin")}
    assert editor.put("/api/v1/actions/mine.greet", json=fields).status == 403


def test_a_private_packs_actions_are_not_for_others(mine: Any) -> None:
    make_pack(mine, "hers", visibility="private", installed_by=mine.identity.id)
    make_action(mine, "hers.secret")
    definition = {"tasks": [{"name": "a", "action": "hers.secret"}]}
    make_workflow(mine, definition=definition)
    answer = mine.as_role("core.editor").post("/api/v1/workflows", json=body("mine.theirs", definition=definition))
    assert (answer.status, "does not exist for you" in answer.json["error"]) == (422, True)


def test_a_grant_may_be_for_one_pack(mine: Any) -> None:
    make_pack(mine, "other")
    make_workflow(mine, "mine.flow")
    grants = [Grant(resource="actions", actions=["read", "create"], constraints={"pack_refs": ["other"]})]
    someone = mine.with_grants(*grants, Grant(resource="packs", actions=["read"]))
    assert someone.get("/api/v1/workflows").refs == []
    assert someone.post("/api/v1/workflows", json=body("mine.two")).status == 403
    assert someone.post("/api/v1/workflows", json=body("other.flow", pack_ref="other")).status == 201
