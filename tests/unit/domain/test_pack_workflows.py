"""Workflows in packs: where they may stand, and that what they lack is told by file and line."""

from typing import Any

import pytest

from chalicelib.domain import packs
from chalicelib.domain.entities import Action, WorkflowDefinition
from chalicelib.domain.packs import PackSource

TASKS = "tasks:\n- name: greet\n  action: core.echo\n"
PARSED = [{"name": "greet", "action": "core.echo"}]


def read(**files: str) -> PackSource:
    """File names are written with ``__`` for the slash and without ``.yaml``."""
    named = {f"{name.replace('__', '/')}.yaml": text.encode() for name, text in files.items()}
    return packs.read({"pack.yaml": b"ref: demo\nversion: 1.2.0\n", **named})


def both(source: PackSource, ref: str = "demo.flow") -> tuple[dict[str, Any], dict[str, Any]]:
    """The fields of a workflow and of its action."""
    found = {(component.type, component.ref): component.fields for component in source.components}
    return found[WorkflowDefinition, ref], found[Action, ref]


@pytest.mark.parametrize("folder", ["workflows", "actions__workflows"])
@pytest.mark.parametrize("suffix", ["", ".workflow"])
def test_a_file_is_a_workflow_by_its_name(folder: str, suffix: str) -> None:
    header = "label: Flow\ndescription: Greets\nversion: 2.0.0\ntags: [a]\nparameters: {who: {type: string}}\n"
    source = read(**{f"{folder}__flow{suffix}": header + TASKS})
    assert source.warnings == []
    workflow, action = both(source)
    assert (workflow["version"], workflow["tags"], workflow["definition"]["tasks"]) == ("2.0.0", ["a"], PARSED)
    for fields in (workflow, action):
        assert (fields["label"], fields["description"]) == ("Flow", "Greets")
        assert (fields["param_schema"], fields["out_schema"]) == ({"who": {"type": "string"}}, None)
    assert (action["runtime_ref"], action["entrypoint"]) == (None, f"{folder.replace('__', '/')}/flow{suffix}.yaml")


@pytest.mark.parametrize(
    ("named", "file"),
    [
        ("workflows/flow.yaml", "workflows__flow"),
        ("workflows/flow.yaml", "actions__workflows__flow"),
        ("./flow.yaml", "workflows__flow"),
        ("flow.yaml", "actions__workflows__flow"),
    ],
)
def test_an_action_names_its_file_and_has_the_last_word(named: str, file: str) -> None:
    source = read(
        actions__deploy=f"ref: deploy\nlabel: Deploy\nworkflow_file: {named}\nparameters: {{to: {{type: string}}}}\n",
        **{file: "label: Flow\ndescription: Greets\nparameters: {who: {type: string}}\n" + TASKS},
    )
    assert source.warnings == []
    assert [component.ref for component in source.components] == ["demo.deploy", "demo.deploy"]
    for fields in both(source, "demo.deploy"):
        assert (fields["label"], fields["description"]) == ("Deploy", "Greets")
        assert fields["param_schema"] == {"to": {"type": "string"}}


def test_a_definition_inside_an_action() -> None:
    tasks = TASKS.replace("\n", "\n  ")
    source = read(actions__flow=f"ref: flow\nsecrets: [token]\ntimeout: 60\nworkflow_definition:\n  {tasks}\n")
    assert source.warnings == []
    workflow, action = both(source)
    assert workflow["definition"] == {"tasks": PARSED}
    assert workflow["version"] == "1.2.0"
    assert (action["entrypoint"], action["secrets"], action["timeout"]) == ("workflow", ["token"], 60)


def test_two_actions_may_run_one_file() -> None:
    source = read(
        actions__one="ref: one\nworkflow_file: flow.yaml\n",
        actions__two="ref: two\nworkflow_file: flow.yaml\n",
        workflows__flow=TASKS,
    )
    assert source.warnings == []
    assert {component.ref for component in source.components} == {"demo.one", "demo.two"}


def test_workflows_come_before_actions_and_these_before_rules() -> None:
    source = read(
        workflows__flow=TASKS,
        actions__flow2="ref: flow2\nrunner_type: native\n",
        rules__r="ref: r\ntrigger_ref: t\naction_ref: flow\n",
    )
    assert [component.type.__name__ for component in source.components] == [
        "WorkflowDefinition", "Action", "Action", "Rule",
    ]  # fmt: skip


def test_what_is_wrong_is_told_by_line_all_of_it() -> None:
    source = read(
        workflows__flow="tasks:\n- name: a\n  action: core.noop\n  next:\n  - do: nowhere\n- name: a\n  action: x\n",
        workflows__fine=TASKS,
    )
    assert {(flaw.file, flaw.line) for flaw in source.warnings} >= {
        ("workflows/flow.yaml", 5),
        ("workflows/flow.yaml", 6),
        ("workflows/flow.yaml", 7),
    }
    assert {component.ref for component in source.components} == {"demo.fine"}
    assert source.broken == {(Action, "demo.flow"), (WorkflowDefinition, "demo.flow")}


def test_a_broken_file_breaks_the_action_that_names_it() -> None:
    source = read(actions__deploy="ref: deploy\nworkflow_file: flow.yaml\n", workflows__flow="tasks: [\n")
    assert source.components == []
    assert [(flaw.file, flaw.line) for flaw in source.warnings] == [("workflows/flow.yaml", 2)]
    assert source.broken == {(Action, "demo.deploy"), (WorkflowDefinition, "demo.deploy")}


def test_a_ref_is_defined_once() -> None:
    source = read(actions__flow="ref: flow\nrunner_type: native\n", workflows__flow=TASKS)
    assert [component.type for component in source.components] == [Action]
    assert source.warnings[0].reason == "demo.flow is already defined"
    source = read(workflows__flow=TASKS, actions__workflows__flow=TASKS)
    assert [flaw.file for flaw in source.warnings] == ["actions/workflows/flow.yaml"]


def test_the_files_name_decides() -> None:
    source = read(workflows__flow="ref: demo.other\n" + TASKS)
    assert [(flaw.line, flaw.reason) for flaw in source.warnings] == [
        (1, "'ref' is ignored: the file's name makes it demo.flow")
    ]
    assert {component.ref for component in source.components} == {"demo.flow"}


def test_a_file_or_a_definition() -> None:
    source = read(
        actions__flow="ref: flow\nworkflow_file: flow.yaml\nworkflow_definition: {tasks: []}\n", workflows__flow=TASKS
    )
    assert [(flaw.file, flaw.line) for flaw in source.warnings] == [("actions/flow.yaml", 3)]


def test_a_file_has_at_most_a_megabyte() -> None:
    source = read(workflows__flow=TASKS + "#" * (1 << 20))
    assert "larger than 1048576 bytes" in source.warnings[0].reason
