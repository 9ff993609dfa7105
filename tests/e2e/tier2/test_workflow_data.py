"""Tier 2, templates in workflows: where values come from, what types they have, and in what order tasks begin."""

import json
from itertools import pairwise

import pytest
from helpers.client import AttuneClient, Json
from helpers.fixtures import create_python_action
from helpers.meeting import meeting_of
from helpers.stack import Stack
from helpers.workflows import create_workflow, outputs_of, run, task_of

pytestmark = [pytest.mark.tier2, pytest.mark.workflow, pytest.mark.orchestration]


def test_templates_read_parameters_variables_results_and_more(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    """Every namespace, Jinja's filters, and the types of values that are one template."""
    pack = test_pack["ref"]
    echo_back = create_python_action(
        client, pack, "echo_back", "import json, sys\nprint(json.dumps({'got': json.load(sys.stdin)}))"
    )
    tasks = [
        {
            "name": "first",
            "action": echo_back,
            "input": {
                "number": "{{ parameters.count * 2 }}",
                "text": "{{ parameters.count * 2 }} pieces",
                "list": "{{ parameters.names }}",
                "nested": {"deep": ["{{ vars.factor }}", "{{ factor }}"]},
                "filtered": "{{ parameters.names | join(', ') | upper }}",
                "nothing": "{{ null }}",
            },
            "next": [{"when": "{{ succeeded() }}", "publish": [{"seen": "{{ result().got }}"}], "do": ["second"]}],
        },
        {
            "name": "second",
            "action": echo_back,
            "input": {"of_task": "{{ task.first.got.number }}", "of_vars": "{{ length(vars.seen.list) }}"},
        },
    ]
    workflow = create_workflow(
        client,
        pack,
        "flow",
        {"vars": {"factor": 1.5}, "tasks": tasks},
        param_schema={"count": {"type": "integer", "default": 21}, "names": {"type": "array", "default": ["a", "b"]}},
    )
    execution = run(client, workflow, {})
    first, second = (
        json.loads(task_of(client, execution["id"], name)["result"]["stdout"])["got"] for name in ("first", "second")
    )
    assert first["number"] == 42
    assert first["text"] == "42 pieces"
    assert first["list"] == ["a", "b"]
    assert first["nested"] == {"deep": [1.5, 1.5]}
    assert first["filtered"] == "A, B"
    assert second == {"of_task": 42, "of_vars": 2}


def test_tasks_without_order_run_at_once(client: AttuneClient, test_pack: dict[str, Json], stack: Stack) -> None:
    """Each waits until all the others are there."""
    if not stack.is_local:
        pytest.skip("the tasks meet on this machine")
    pack = test_pack["ref"]
    with meeting_of(4) as meeting:
        client.create_action(f"{pack}.meet", pack, entrypoint=meeting.shell_command)
        tasks = [{"name": f"t{number}", "action": f"{pack}.meet"} for number in range(4)]
        execution = run(client, create_workflow(client, pack, "flow", tasks))
    assert [outputs_of(client, execution["id"], f"t{number}") for number in range(4)] == [["met"]] * 4


def test_tasks_in_order_run_one_after_the_other(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    """By transitions, and by dependencies, which make the same graph."""
    pack = test_pack["ref"]
    names = ["a", "b", "c", "d"]
    by_next = [
        {"name": name, "action": "core.noop", "next": [{"when": "{{ succeeded() }}", "do": following}]}
        for name, following in zip(names, [*[[each] for each in names[1:]], []], strict=True)
    ]
    by_dependency = [
        {"name": name, "action": "core.noop", "depends_on": before}
        for name, before in zip(names, [[], *[[each] for each in names]][:4], strict=True)
    ]
    for kind, tasks in (("next", by_next), ("depends_on", by_dependency)):
        execution = run(client, create_workflow(client, pack, f"by_{kind}", tasks))
        rows = [client.get_execution(row["id"]) for (row,) in client.children_of(execution["id"]).values()]
        rows.sort(key=lambda row: row["workflow_task"]["task_name"])
        assert [row["workflow_task"]["task_name"] for row in rows] == names
        assert all(one["updated"] <= other["created"] for one, other in pairwise(rows))


def test_a_join_waits_for_all_of_them(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    pack = test_pack["ref"]
    client.create_action(f"{pack}.wait", pack, entrypoint="sleep $seconds")
    to_end = [{"when": "{{ succeeded() }}", "do": ["end"]}]
    tasks = [
        {"name": f"t{number}", "action": f"{pack}.wait", "input": {"seconds": number / 2}, "next": to_end}
        for number in range(3)
    ]
    flow = create_workflow(client, pack, "flow", [*tasks, {"name": "end", "action": "core.noop", "join": "all"}])
    execution = run(client, flow)
    children = client.children_of(execution["id"])
    ends = [client.get_execution(children[f"t{number}"][0]["id"])["updated"] for number in range(3)]
    (end,) = children["end"]
    assert end["created"] >= max(ends)
