"""T3.7: complex workflows: parallel tasks, branches, nested workflows with recovery, data that changes on its way."""

import pytest
from helpers.client import AttuneClient, Json
from helpers.fixtures import create_failing_action, create_python_action
from helpers.meeting import meeting_of
from helpers.narration import step, summary, title
from helpers.polling import wait_for_execution_status
from helpers.stack import Stack
from helpers.workflows import create_workflow, run, task_of

pytestmark = [pytest.mark.tier3, pytest.mark.workflow, pytest.mark.orchestration]


def test_parallel_workflow_execution(client: AttuneClient, test_pack: dict[str, Json], stack: Stack) -> None:
    """Three tasks run at the same time: each waits until the two others are there. A fourth joins them."""
    title("T3.7: Parallel Workflow Execution")
    if not stack.is_local:
        pytest.skip("the tasks meet on this machine")
    pack, names = test_pack["ref"], ["north", "east", "south"]
    with meeting_of(len(names)) as meeting:
        step(1, "Creating an action that waits for the others, and a workflow of three of it with a join")
        client.create_action(f"{pack}.meet", pack, entrypoint=meeting.shell_command)
        parallel = [
            {
                "name": name,
                "action": f"{pack}.meet",
                "next": [{"publish": [{name: "{{ result().stdout }}"}], "do": ["gather"]}],
            }
            for name in names
        ]
        said = " ".join(f"{{{{ vars.{name} | trim }}}}" for name in names)
        gather = {"name": "gather", "action": "core.echo", "join": "all", "input": {"message": said}}
        workflow = create_workflow(client, pack, "parallel", [*parallel, gather])

        step(2, "Running it")
        execution = run(client, workflow)

    step(3, "Looking at its tasks")
    tasks = client.children_of(execution["id"])
    summary(*(f"{name}: {[row['status'] for row in rows]}" for name, rows in tasks.items()))
    assert {name: len(rows) for name, rows in tasks.items()} == dict.fromkeys([*names, "gather"], 1)
    assert task_of(client, execution["id"], "gather")["result"]["stdout"].strip() == "met met met"


@pytest.mark.parametrize(
    ("parameters", "taken"),
    [({"amount": 5000, "urgent": False}, "review"), ({"amount": 10, "urgent": False}, "approve")],
)
def test_conditional_workflow_branching(
    client: AttuneClient, test_pack: dict[str, Json], parameters: dict[str, Json], taken: str
) -> None:
    """If/else by parameters, by transitions and by a block: one branch runs, the other leaves no trace."""
    title("T3.7: Conditional Workflow Branching")
    pack = test_pack["ref"]
    schema = {"amount": {"type": "integer", "required": True}, "urgent": {"type": "boolean", "default": False}}

    step(1, "Creating the same decision as transitions and as if/then/else")
    branches = [
        {"name": name, "action": "core.echo", "input": {"message": f"{name} {{{{ parameters.amount }}}}"}}
        for name in ("review", "approve")
    ]
    by_transitions = [
        {
            "name": "decide",
            "action": "core.noop",
            "next": [
                {"when": "{{ succeeded() and parameters.amount > 1000 }}", "do": ["review"]},
                {"when": "{{ succeeded() and parameters.amount <= 1000 }}", "do": ["approve"]},
            ],
        },
        *branches,
    ]
    by_block = [{"name": "decide", "if": "{{ parameters.amount > 1000 }}", "then": branches[:1], "else": branches[1:]}]
    workflows = [
        create_workflow(client, pack, "by_transitions", by_transitions, param_schema=schema),
        create_workflow(client, pack, "by_block", by_block, param_schema=schema),
    ]

    step(2, f"Running both with {parameters}")
    executions = [run(client, workflow, parameters) for workflow in workflows]

    step(3, "Looking at which branch was taken")
    for execution in executions:
        tasks = client.children_of(execution["id"])
        print(f"{execution['action_ref']}: {sorted(tasks)}")
        assert set(tasks) - {"decide"} == {taken}
        assert task_of(client, execution["id"], taken)["result"]["stdout"].strip() == f"{taken} {parameters['amount']}"
    summary(f"amount {parameters['amount']} → {taken}")


def test_nested_workflow_with_error_handling(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    """A workflow within a workflow fails; the outer one recovers and completes, and without recovery it fails."""
    title("T3.7: Nested Workflow With Error Handling")
    pack = test_pack["ref"]

    step(1, "Creating a failing inner workflow, and outer ones with and without recovery")
    broken = create_failing_action(client, pack)
    inner = create_workflow(client, pack, "inner", [{"name": "work", "action": broken}])
    call = {"name": "call", "action": inner}
    recovering = [
        {
            **call,
            "next": [
                {"when": "{{ succeeded() }}", "do": ["celebrate"]},
                {"when": "{{ failed() }}", "publish": [{"why": "{{ result().error }}"}], "do": ["recover"]},
            ],
        },
        {"name": "celebrate", "action": "core.noop"},
        {"name": "recover", "action": "core.echo", "input": {"message": "recovered: {{ vars.why }}"}},
    ]
    outer = create_workflow(
        client, pack, "outer", {"tasks": recovering, "output_map": {"said": "{{ task.recover.stdout | trim }}"}}
    )
    helpless = create_workflow(client, pack, "helpless", [call])

    step(2, "Running both")
    recovered = run(client, outer)
    failed = run(client, helpless, expected="failed")

    step(3, "Looking at the levels")
    tasks = client.children_of(recovered["id"])
    (nested,) = tasks["call"]
    inside = task_of(client, nested["id"], "work")
    summary(f"outer: {recovered['result']}", f"inner: {nested['status']}", f"work: {inside['status']}")
    assert set(tasks) == {"call", "recover"}
    assert (nested["status"], inside["status"]) == ("failed", "failed")
    assert inside["parent"] == nested["id"]
    assert nested["parent"] == recovered["id"]
    assert "work" in recovered["result"]["said"]
    assert recovered["result"]["succeeded"] is True
    assert failed["result"] == {"error": "Workflow failed: 1 task(s) failed: call", "succeeded": False}


def test_workflow_with_data_transformation(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    """Orders are drawn, enriched and summed up: values keep their types from task to task and into the result."""
    title("T3.7: Workflow With Data Transformation")
    pack = test_pack["ref"]

    step(1, "Creating a pipeline of three steps")
    extract = create_python_action(
        client,
        pack,
        "extract",
        "import json, sys\ncount = json.load(sys.stdin)['count']\n"
        "print(json.dumps({'orders': [{'id': n, 'price': n * 10, 'quantity': n} for n in range(1, count + 1)]}))",
        {"count": {"type": "integer", "default": 3}},
    )
    transform = create_python_action(
        client,
        pack,
        "transform",
        "import json, sys\norders = json.load(sys.stdin)['orders']\n"
        "print(json.dumps({'totals': {str(o['id']): o['price'] * o['quantity'] for o in orders}}))",
        {"orders": {"type": "array", "required": True}},
    )
    tasks = [
        {
            "name": "extract",
            "action": extract,
            "input": {"count": "{{ parameters.count }}"},
            "next": [
                {"when": "{{ succeeded() }}", "publish": [{"orders": "{{ result().orders }}"}], "do": "transform"}
            ],
        },
        {
            "name": "transform",
            "action": transform,
            "input": {"orders": "{{ vars.orders }}"},
            "next": [{"when": "{{ succeeded() }}", "publish": [{"totals": "{{ result().totals }}"}], "do": "report"}],
        },
        {
            "name": "report",
            "action": "core.echo",
            "input": {"message": "{{ length(vars.orders) }} orders, {{ sum(values(vars.totals)) }} in all"},
        },
    ]
    output_map = {
        "count": "{{ length(vars.orders) }}",
        "total": "{{ sum(values(vars.totals)) }}",
        "totals": "{{ vars.totals }}",
        "report": "{{ task.report.stdout | trim }}",
    }
    workflow = create_workflow(
        client,
        pack,
        "pipeline",
        {"tasks": tasks, "output_map": output_map},
        param_schema={"count": {"type": "integer", "default": 3}},
    )

    step(2, "Running it")
    started = client.execute(workflow, {"count": 4})
    execution = wait_for_execution_status(client, started["id"], "succeeded", timeout=90)

    summary(str(execution["result"]))
    assert execution["result"] == {
        "count": 4,
        "total": 300,
        "totals": {"1": 10, "2": 40, "3": 90, "4": 160},
        "report": "4 orders, 300 in all",
        "succeeded": True,
    }
