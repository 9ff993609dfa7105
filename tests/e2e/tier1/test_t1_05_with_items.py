"""T1.5: one task for each item of a list: all of them, so many at a time, in batches, and what becomes of failures."""

import pytest
from helpers.client import AttuneClient, Json
from helpers.fixtures import create_python_action
from helpers.polling import wait_for, wait_for_execution_status
from helpers.workflows import RUN_TIMEOUT, create_workflow, outputs_of, run

pytestmark = [pytest.mark.tier1, pytest.mark.workflow]

ITEMS = {"items": {"type": "array", "default": []}}


def for_each(**fields: Json) -> list[Json]:
    """A task that says what it got, for each of the parameter ``items``."""
    task = {
        "name": "each",
        "action": "core.echo",
        "with_items": "{{ parameters.items }}",
        "input": {"message": "{{ index }}: {{ item }}"},
    }
    return [task | fields]


def test_an_execution_for_each_item(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    """Each item has its own execution, which knows its item and its place."""
    workflow = create_workflow(client, test_pack["ref"], "flow", for_each(concurrency=3), param_schema=ITEMS)
    execution = run(client, workflow, {"items": ["a", "b", "c", "d", "e"]})
    rows = client.children_of(execution["id"])["each"]
    assert sorted(row["workflow_task"]["task_index"] for row in rows) == [0, 1, 2, 3, 4]
    assert sorted(outputs_of(client, execution["id"], "each")) == ["0: a", "1: b", "2: c", "3: d", "4: e"]
    assert {row["status"] for row in rows} == {"completed"}


def test_one_item_after_the_other_unless_said_otherwise(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    workflow = create_workflow(client, test_pack["ref"], "flow", for_each(), param_schema=ITEMS)
    execution = run(client, workflow, {"items": [1, 2, 3]})
    rows = sorted(client.children_of(execution["id"])["each"], key=lambda row: row["workflow_task"]["task_index"])
    ended = [client.get_execution(row["id"])["updated"] for row in rows]
    assert all(rows[n + 1]["started_at"] >= ended[n] for n in range(2)), "an item began before the last one had ended"


def test_no_items_no_executions(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    tasks = [*for_each(next=[{"when": "{{ succeeded() }}", "do": ["then"]}]), {"name": "then", "action": "core.noop"}]
    workflow = create_workflow(client, test_pack["ref"], "flow", tasks, param_schema=ITEMS)
    execution = run(client, workflow, {"items": []})
    assert list(client.children_of(execution["id"])) == ["then"]


def test_what_is_no_list_is_one_item(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    schema = {"items": {"type": "string"}}
    workflow = create_workflow(client, test_pack["ref"], "flow", for_each(), param_schema=schema)
    assert outputs_of(client, run(client, workflow, {"items": "alone"})["id"], "each") == ["0: alone"]


def test_a_failed_item_fails_the_task_and_the_others_still_run(
    client: AttuneClient, test_pack: dict[str, Json]
) -> None:
    """The task fails, and where somebody takes care of that the workflow completes."""
    pack = test_pack["ref"]
    picky = create_python_action(
        client,
        pack,
        "picky",
        "import json, sys\nsys.exit(json.load(sys.stdin)['number'] == 2)",
        {"number": {"type": "integer", "required": True}},
    )
    task = for_each(action=picky, input={"number": "{{ item }}"}, concurrency=3)[0]
    caring = [{**task, "next": [{"when": "{{ failed() }}", "do": ["care"]}]}, {"name": "care", "action": "core.noop"}]
    plain = create_workflow(client, pack, "plain", [task], param_schema=ITEMS)
    handled = create_workflow(client, pack, "handled", caring, param_schema=ITEMS)

    failed = run(client, plain, {"items": [1, 2, 3]}, expected="failed")
    assert failed["result"]["error"] == "Workflow failed: 1 task(s) failed: each"
    assert sorted(row["status"] for row in client.children_of(failed["id"])["each"]) == [
        "completed", "completed", "failed",
    ]  # fmt: skip
    assert "care" in client.children_of(run(client, handled, {"items": [2]})["id"])


def test_items_in_batches(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    """``batch_size``: an execution gets so many items at once."""
    task = for_each(batch_size=2, concurrency=2, input={"message": "{{ batch | join('+') }}"})
    workflow = create_workflow(client, test_pack["ref"], "flow", task, param_schema=ITEMS)
    execution = run(client, workflow, {"items": ["a", "b", "c", "d", "e"]})
    assert sorted(outputs_of(client, execution["id"], "each")) == ["a+b", "c+d", "e"]


def test_never_more_items_at_a_time_than_said(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    pack = test_pack["ref"]
    client.create_action(f"{pack}.wait", pack, entrypoint="sleep 0.3")
    task = for_each(action=f"{pack}.wait", input={"item": "{{ item }}"}, concurrency=2)
    workflow = create_workflow(client, pack, "flow", task, param_schema=ITEMS)
    started = client.execute(workflow, {"items": list(range(6))})["id"]
    most = 0

    def look() -> bool:
        nonlocal most
        rows = client.children_of(started).get("each", [])
        most = max(most, sum(row["status"] not in ("completed", "failed") for row in rows))
        return len(rows) == 6

    wait_for(look, timeout=RUN_TIMEOUT, what="six items to have begun")
    wait_for_execution_status(client, started, "succeeded", timeout=RUN_TIMEOUT)
    assert 0 < most <= 2
