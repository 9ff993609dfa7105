"""Tier 2, nested workflows: a run within a run, with parameters on the way in and results on the way out."""

import pytest
from helpers.client import AttuneClient, Json
from helpers.fixtures import create_failing_action
from helpers.workflows import create_workflow, run, task_of

pytestmark = [pytest.mark.tier2, pytest.mark.workflow, pytest.mark.orchestration]

NAME = {"name": {"type": "string", "required": True}}


def test_parameters_go_in_and_results_come_out(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    pack = test_pack["ref"]
    greet = {"name": "greet", "action": "core.echo", "input": {"message": "Hello {{ parameters.name }}"}}
    inner = create_workflow(
        client,
        pack,
        "inner",
        {"tasks": [greet], "output_map": {"said": "{{ task.greet.stdout | trim }}"}},
        param_schema=NAME,
    )
    outer = create_workflow(
        client,
        pack,
        "outer",
        {
            "tasks": [
                {
                    "name": "call",
                    "action": inner,
                    "input": {"name": "{{ parameters.name | upper }}"},
                    "next": [{"when": "{{ succeeded() }}", "publish": [{"said": "{{ result().said }}"}], "do": "end"}],
                },
                {"name": "end", "action": "core.noop"},
            ],
            "output_map": {"said": "{{ vars.said }}"},
        },
        param_schema=NAME,
    )
    execution = run(client, outer, {"name": "ada"})
    nested = task_of(client, execution["id"], "call")
    assert execution["result"] == {"said": "Hello ADA", "succeeded": True}
    assert nested["config"] == {"name": "ADA"}
    assert task_of(client, nested["id"], "greet")["parent"] == nested["id"]


def test_without_input_the_inner_one_gets_all_that_the_outer_one_got(
    client: AttuneClient, test_pack: dict[str, Json]
) -> None:
    pack = test_pack["ref"]
    inner = create_workflow(client, pack, "inner", [{"name": "say", "action": "core.echo"}])
    outer = create_workflow(client, pack, "outer", [{"name": "call", "action": inner}])
    execution = run(client, outer, {"message": "all of it"})
    nested = task_of(client, execution["id"], "call")
    assert task_of(client, nested["id"], "say")["result"]["stdout"].strip() == "all of it"


def test_the_failure_of_an_inner_run_is_the_outer_tasks(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    """Three levels, and the innermost task fails: each level says which of its own tasks failed."""
    pack = test_pack["ref"]
    action = create_failing_action(client, pack)
    for level in ("third", "second", "first"):
        action = create_workflow(client, pack, level, [{"name": f"in_{level}", "action": action}])
    first = run(client, action, expected="failed")
    second = task_of(client, first["id"], "in_first")
    third = task_of(client, second["id"], "in_second")
    for level, each in (("first", first), ("second", second), ("third", third)):
        assert each["result"] == {"error": f"Workflow failed: 1 task(s) failed: in_{level}", "succeeded": False}


def test_an_inner_run_with_parameters_that_break_its_schema(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    pack = test_pack["ref"]
    inner = create_workflow(client, pack, "inner", [{"name": "a", "action": "core.noop"}], param_schema=NAME)
    outer = create_workflow(client, pack, "outer", [{"name": "call", "action": inner, "input": {"other": 1}}])
    execution = run(client, outer, expected="failed")
    assert "name" in task_of(client, execution["id"], "call")["result"]["error"]
