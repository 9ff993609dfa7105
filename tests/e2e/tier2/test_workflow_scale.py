"""Workflows that are long, wide and deep (issue 5): each task runs, and runs once."""

import pytest
from helpers.client import AttuneClient, Json
from helpers.polling import wait_for_execution_status

pytestmark = [pytest.mark.tier2, pytest.mark.workflow]

LONG = 300.0  # seconds, on a machine with much else to do


def test_a_thousand_items(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    ref = f"{test_pack['ref']}.items"
    each = {"name": "each", "action": "core.noop", "with_items": "{{ range(1000) }}", "concurrency": 50}
    client.create_workflow(ref, [each])
    run = client.execute(ref)["id"]
    wait_for_execution_status(client, run, "completed", LONG)
    indexes = [child["workflow_task"]["task_index"] for child in client.children_of(run)["each"]]
    assert sorted(indexes) == list(range(1000))


def test_a_hundred_tasks_in_a_row(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    ref = f"{test_pack['ref']}.chain"
    following = [[{"do": [f"t{number + 1}"]}] for number in range(99)]
    tasks = [{"name": f"t{n}", "action": "core.noop", "next": next_} for n, next_ in enumerate([*following, []])]
    client.create_workflow(ref, tasks)
    run = client.execute(ref)["id"]
    wait_for_execution_status(client, run, "completed", LONG)
    children = client.children_of(run)
    assert {name: len(runs) for name, runs in children.items()} == {f"t{number}": 1 for number in range(100)}


def test_ten_levels_deep(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    pack = test_pack["ref"]
    leaf = {"name": "leaf", "action": "core.echo", "input": {"message": "{{ parameters.word }}"}}
    client.create_workflow(f"{pack}.level0", {"tasks": [leaf], "output_map": {"said": "{{ task.leaf.stdout }}"}})
    for level in range(1, 10):
        inner = {"name": "inner", "action": f"{pack}.level{level - 1}"}
        definition = {"tasks": [inner], "output_map": {"said": "{{ task.inner.said }}"}}
        client.create_workflow(f"{pack}.level{level}", definition)
    run = client.execute(f"{pack}.level9", {"word": "deep"})["id"]
    ended = wait_for_execution_status(client, run, "completed", LONG)
    assert ended["result"]["said"].strip() == "deep"


def test_fifty_branches_meet(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    ref = f"{test_pack['ref']}.fan"
    names = [f"b{number}" for number in range(50)]
    tasks: list[Json] = [{"name": "start", "action": "core.noop", "next": [{"do": names}]}]
    tasks += [{"name": name, "action": "core.noop", "next": [{"do": ["meet"]}]} for name in names]
    client.create_workflow(ref, [*tasks, {"name": "meet", "join": "all", "action": "core.noop"}])
    run = client.execute(ref)["id"]
    wait_for_execution_status(client, run, "completed", LONG)
    children = client.children_of(run)
    assert len(children) == 52
    assert all(len(runs) == 1 for runs in children.values())
