"""Concurrency policies: so many executions of an action at a time, by value, in order; what happens to the others."""

import pytest
from helpers.client import AttuneClient, Json
from helpers.polling import wait_for, wait_for_execution_completion, wait_for_execution_status
from helpers.workflows import create_workflow

pytestmark = [pytest.mark.tier2, pytest.mark.limits]

SOON = 60.0  # seconds: far more than anything here takes
ENV = {"env": {"type": "string", "default": "test"}, "seconds": {"type": "number", "default": 0.3}}


def policed(client: AttuneClient, pack: str, **policy: Json) -> str:
    """An action that waits for so many ``seconds``, under ``policy``."""
    ref = f"{pack}.policed"
    client.create_action(ref, pack, entrypoint="sleep $seconds", param_schema=ENV, concurrency=policy)
    return ref


def overlaps(executions: list[dict[str, Json]]) -> int:
    """The most of them that ran at the same time, as far as their rows say."""
    moments = sorted(
        [(each["started_at"], 1) for each in executions] + [(each["updated"], -1) for each in executions],
        key=lambda moment: (moment[0], moment[1]),
    )
    now = most = 0
    for _, change in moments:
        now += change
        most = max(most, now)
    return most


def held_up(client: AttuneClient, execution_id: int) -> dict[str, Json]:
    """The execution, once it waits for a slot."""

    def look() -> dict[str, Json] | None:
        execution = client.get_execution(execution_id)
        return execution if execution.get("waiting_for") else None

    found = wait_for(look, timeout=SOON, what=f"execution {execution_id} to wait for a slot")
    assert found is not None
    return found


def test_one_at_a_time_in_the_order_of_asking(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    action = policed(client, test_pack["ref"], threshold=1)
    first = client.execute(action, {"seconds": 2})["id"]
    wait_for_execution_status(client, first, "running", timeout=SOON)
    asked = [client.execute(action)["id"] for _ in range(4)]
    assert all(held_up(client, each)["status"] == "requested" for each in asked)
    ended = [wait_for_execution_status(client, each, "succeeded", timeout=SOON) for each in (first, *asked)]
    assert overlaps(ended) == 1
    assert [each["started_at"] for each in ended] == sorted(each["started_at"] for each in ended)


def test_as_many_for_each_value(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    action = policed(client, test_pack["ref"], threshold=1, parameters=["env"])
    busy = client.execute(action, {"env": "production", "seconds": 300})["id"]
    wait_for_execution_status(client, busy, "running", timeout=SOON)
    waiting = client.execute(action, {"env": "production"})["id"]
    free = client.execute(action, {"env": "staging"})["id"]
    wait_for_execution_status(client, free, "succeeded", timeout=SOON)
    assert client.get_execution(waiting)["status"] == "requested"
    client.cancel_execution(busy)
    wait_for_execution_status(client, waiting, "succeeded", timeout=SOON)


def test_what_is_too_much_can_be_cancelled(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    action = policed(client, test_pack["ref"], threshold=1, method="cancel")
    busy = client.execute(action, {"seconds": 300})["id"]
    wait_for_execution_status(client, busy, "running", timeout=SOON)
    refused = wait_for_execution_status(client, client.execute(action)["id"], "cancelled", timeout=SOON)
    assert "1 time(s) at once already" in refused["result"]["error"]
    client.cancel_execution(busy)
    wait_for_execution_completion(client, busy, timeout=SOON)


def test_cancelling_who_waits(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    action = policed(client, test_pack["ref"], threshold=1)
    busy = client.execute(action, {"seconds": 300})["id"]
    wait_for_execution_status(client, busy, "running", timeout=SOON)
    waiting, following = (client.execute(action)["id"] for _ in range(2))
    held_up(client, waiting)
    assert client.cancel_execution(waiting)["status"] == "cancelled"
    client.cancel_execution(busy)
    wait_for_execution_status(client, following, "succeeded", timeout=SOON)
    assert client.get_execution(waiting)["status"] == "cancelled"


@pytest.mark.parametrize("change", [{"op": "clear"}, {"op": "set", "value": {"threshold": 5}}])
def test_another_policy_lets_those_go_who_wait(
    client: AttuneClient, test_pack: dict[str, Json], change: dict[str, Json]
) -> None:
    action = policed(client, test_pack["ref"], threshold=1)
    busy = client.execute(action, {"seconds": 300})["id"]
    wait_for_execution_status(client, busy, "running", timeout=SOON)
    asked = [client.execute(action)["id"] for _ in range(3)]
    for each in asked:
        held_up(client, each)
    client.data("PUT", f"actions/{action}", json={"concurrency": change})
    for each in asked:
        wait_for_execution_status(client, each, "succeeded", timeout=SOON)
    client.cancel_execution(busy)
    wait_for_execution_completion(client, busy, timeout=SOON)


def test_tasks_of_a_workflow_wait_too(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    """Eight items at once, of an action that two of may run: never more, and the workflow completes."""
    pack = test_pack["ref"]
    task = {
        "name": "each",
        "action": policed(client, pack, threshold=2),
        "with_items": list(range(8)),
        "concurrency": 8,
    }
    workflow = create_workflow(client, pack, "flow", [task])
    run = client.execute(workflow)["id"]
    wait_for_execution_status(client, run, "succeeded", timeout=SOON)
    ended = [client.get_execution(row["id"]) for row in client.children_of(run)["each"]]
    assert len(ended) == 8
    assert overlaps(ended) == 2


def test_a_workflow_may_have_a_policy(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    pack = test_pack["ref"]
    client.create_action(f"{pack}.wait", pack, entrypoint="sleep 0.5")
    definition = {"tasks": [{"name": "wait", "action": f"{pack}.wait"}]}
    body = {"ref": f"{pack}.flow", "pack_ref": pack, "label": "Flow", "workflow_definition": definition}
    client.data("POST", "actions", json=body | {"concurrency": {"threshold": 1}})
    asked = [client.execute(f"{pack}.flow")["id"] for _ in range(3)]
    runs = [wait_for_execution_status(client, each, "succeeded", timeout=SOON) for each in asked]
    assert overlaps(runs) == 1


def test_cancelling_a_workflow_frees_what_its_tasks_held(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    """One task runs, the others wait for its slot: all of them end, and the next execution runs."""
    pack = test_pack["ref"]
    action = policed(client, pack, threshold=1)
    task = {"name": "each", "action": action, "with_items": [1, 2, 3], "concurrency": 3, "input": {"seconds": 300}}
    workflow = create_workflow(client, pack, "flow", {"tasks": [task], "cancellation_policy": "cancel_running"})
    run = client.execute(workflow)["id"]

    def look() -> bool:
        states = sorted(row["status"] for row in client.children_of(run).get("each", []))
        return states == ["requested", "requested", "running"]

    wait_for(look, timeout=SOON, what="one item to run and two to wait")
    client.cancel_execution(run)
    wait_for_execution_status(client, run, "cancelled", timeout=SOON)
    assert {row["status"] for row in client.children_of(run)["each"]} == {"cancelled"}
    wait_for_execution_status(client, client.execute(action)["id"], "succeeded", timeout=SOON)
