"""What can be done with a workflow that runs, or has run: cancel, pause, resume, rerun, and look how it went."""

import pytest
from helpers.client import ApiError, AttuneClient, Json
from helpers.polling import wait_for, wait_for_execution_completion, wait_for_execution_status

pytestmark = [pytest.mark.tier2, pytest.mark.workflow]

SOON = 60.0  # seconds: far more than anything here takes


@pytest.fixture
def pack(client: AttuneClient, test_pack: dict[str, Json]) -> str:
    """The ref of a pack with an action that waits for so many ``seconds``."""
    ref = test_pack["ref"]
    client.create_action(f"{ref}.wait", ref, entrypoint="sleep $seconds")
    return ref


def running(client: AttuneClient, execution_id: int, task: str) -> dict[str, Json]:
    """The execution of a task, once it runs."""

    def look() -> dict[str, Json] | None:
        found = client.children_of(execution_id).get(task, [])
        return found[-1] if found and found[-1]["status"] == "running" else None

    found = wait_for(look, timeout=SOON, what=f"task {task} to run")
    assert found is not None
    return found


def two_in_a_row(pack: str, seconds: int = 1, **fields: Json) -> Json:
    tasks: list[Json] = [
        {"name": "first", "action": f"{pack}.wait", "input": {"seconds": seconds}, "next": [{"do": ["second"]}]},
        {"name": "second", "action": "core.echo", "input": {"message": "there"}},
    ]
    return {"tasks": tasks, **fields}


def test_cancelling_a_workflow_lets_tasks_finish_and_starts_none(client: AttuneClient, pack: str) -> None:
    """``allow_finish``: the task that runs goes on to its end, the next one never begins."""
    client.create_workflow(f"{pack}.flow", two_in_a_row(pack, seconds=3))
    run = client.execute(f"{pack}.flow")["id"]
    first = running(client, run, "first")

    assert client.cancel_execution(run)["status"] == "canceling"
    ended = wait_for_execution_status(client, run, "cancelled", SOON)

    assert ended["result"] == {"error": "Workflow cancelled", "succeeded": False}
    assert client.get_execution(first["id"])["status"] == "completed"
    assert list(client.children_of(run)) == ["first"]


def test_cancelling_a_workflow_can_cancel_what_runs(client: AttuneClient, pack: str) -> None:
    """``cancel_running``: nested runs and running tasks end too, long before they would have."""
    client.create_workflow(f"{pack}.inner", two_in_a_row(pack, seconds=300, cancellation_policy="cancel_running"))
    outer = {"tasks": [{"name": "in", "action": f"{pack}.inner"}], "cancellation_policy": "cancel_running"}
    client.create_workflow(f"{pack}.outer", outer)
    run = client.execute(f"{pack}.outer")["id"]
    nested = running(client, run, "in")["id"]
    leaf = running(client, nested, "first")["id"]

    client.cancel_execution(run)
    wait_for_execution_status(client, run, "cancelled", SOON)

    assert client.get_execution(nested)["status"] == "cancelled"
    assert client.get_execution(leaf)["status"] == "cancelled"
    with pytest.raises(ApiError) as refused:
        client.cancel_execution(run)
    assert refused.value.status == 409


def test_a_paused_workflow_waits_to_be_resumed(client: AttuneClient, pack: str) -> None:
    client.create_workflow(f"{pack}.flow", two_in_a_row(pack, seconds=2))
    run = client.execute(f"{pack}.flow")["id"]
    first = running(client, run, "first")["id"]

    assert client.data("POST", f"executions/{run}/pause")["workflow"]["paused"] is True
    wait_for_execution_status(client, first, "completed", SOON)
    wait_for(
        lambda: "first" in client.get_execution(run)["workflow"]["completed_tasks"],
        timeout=SOON,
        what="the workflow to have taken in its first task",
    )
    assert list(client.children_of(run)) == ["first"]
    assert client.get_execution(run)["status"] == "running"

    client.data("POST", f"executions/{run}/resume")
    wait_for_execution_status(client, run, "completed", SOON)
    told = [record["operation"] for record in client.history_of(run)]
    assert told.index("paused") < told.index("resumed")


def test_only_workflows_that_run_can_be_paused(client: AttuneClient) -> None:
    plain = client.execute("core.echo", {"message": "x"})["id"]
    wait_for_execution_status(client, plain, "completed", SOON)
    answer = client.request("POST", f"executions/{plain}/pause")
    assert answer.status_code == 409
    assert "completed" in answer.json()["error"]


def test_a_failed_workflow_goes_on_from_the_task_that_failed(client: AttuneClient, pack: str) -> None:
    """The task asks a key whether it may succeed; what succeeded before it is not run again."""
    key = f"{pack}.may"
    client.create_secret(key, "no", encrypted=False)
    ask = 'test "$may" = yes'
    client.create_action(f"{pack}.ask", pack, entrypoint=ask, param_schema={"may": {"type": "string"}})
    tasks = [
        {
            "name": "before",
            "action": "core.echo",
            "input": {"message": "once"},
            "next": [{"when": "{{ succeeded() }}", "do": ["ask"]}],
        },
        {
            "name": "ask",
            "action": f"{pack}.ask",
            "input": {"may": "{{ keystore." + key + " }}"},
            "next": [{"when": "{{ succeeded() }}", "do": ["after"]}],
        },
        {"name": "after", "action": "core.echo", "input": {"message": "{{ task.before.stdout }}"}},
    ]
    client.create_workflow(f"{pack}.flow", {"tasks": tasks, "output_map": {"said": "{{ task.after.stdout }}"}})
    run = client.execute(f"{pack}.flow")["id"]
    wait_for_execution_status(client, run, "failed", SOON)

    client.update_secret(key, value="yes")
    again = client.rerun(run, "ask")
    assert again["original_execution"] == run
    ended = wait_for_execution_status(client, again["id"], "completed", SOON)

    assert ended["result"]["said"].strip() == "once"
    assert sorted(client.children_of(again["id"])) == ["after", "ask"]
    from_the_start = client.rerun(run)["id"]
    wait_for_execution_status(client, from_the_start, "completed", SOON)
    assert sorted(client.children_of(from_the_start)) == ["after", "ask", "before"]


def test_a_rerun_says_what_it_cannot_do(client: AttuneClient, pack: str) -> None:
    client.create_workflow(f"{pack}.flow", two_in_a_row(pack, seconds=0))
    run = client.execute(f"{pack}.flow")["id"]
    wait_for_execution_status(client, run, "completed", SOON)
    answer = client.request("POST", f"executions/{run}/rerun", json={"tasks": ["third"]})
    assert answer.status_code == 422
    assert "first, second" in answer.json()["error"]
    plain = client.execute("core.echo", {"message": "x"})["id"]
    wait_for_execution_status(client, plain, "completed", SOON)
    assert client.request("POST", f"executions/{plain}/rerun", json={"tasks": ["a"]}).status_code == 422
    again = client.rerun(plain)
    assert wait_for_execution_status(client, again["id"], "completed", SOON)["original_execution"] == plain


def test_a_workflow_ends_when_it_takes_too_long(client: AttuneClient, pack: str) -> None:
    """At the second, and with what still runs; a workflow around it takes its ``timed_out()`` transition."""
    client.create_workflow(f"{pack}.slow", two_in_a_row(pack, seconds=300, timeout=2))
    outer = [
        {"name": "slow", "action": f"{pack}.slow", "next": [{"when": "{{ timed_out() }}", "do": ["late"]}]},
        {"name": "late", "action": "core.echo", "input": {"message": "{{ result().error }}"}},
    ]
    client.create_workflow(f"{pack}.outer", outer)
    run = client.execute(f"{pack}.outer")["id"]
    wait_for_execution_status(client, run, "completed", SOON)
    children = client.children_of(run)
    slow = client.get_execution(children["slow"][0]["id"])
    assert (slow["status"], slow["workflow_task"]["timed_out"]) == ("failed", True)
    assert slow["result"]["error"] == "Workflow timed out after 2 seconds"
    left = client.children_of(slow["id"])["first"][0]["id"]
    assert wait_for_execution_completion(client, left, SOON)["status"] == "cancelled"


def test_the_history_of_a_run_tells_every_step_and_its_cause(client: AttuneClient, pack: str) -> None:
    client.create_workflow(f"{pack}.flow", two_in_a_row(pack, seconds=0))
    run = client.execute(f"{pack}.flow")["id"]
    wait_for_execution_status(client, run, "completed", SOON)
    records = client.history_of(run)
    told = [(record.get("task"), record["operation"]) for record in records]
    story = [
        (None, "requested"),
        (None, "running"),
        ("first", "started"),
        ("first", "completed"),
        ("second", "reached"),
        ("second", "started"),
        ("second", "completed"),
        (None, "completed"),
    ]
    assert told == story
    assert records[4]["cause"] == "first"
    assert [record["time"] for record in records] == sorted(record["time"] for record in records)
    children = client.children_of(run)
    assert records[2]["entity_id"] == children["first"][0]["id"]
