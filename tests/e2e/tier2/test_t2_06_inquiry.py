"""T2.6 and T2.7: a workflow waits for somebody's answer and goes on with it, or without, when nobody answers."""

import pytest
from helpers.client import AttuneClient, Json
from helpers.inquiries import answer, get, inquiry_of_task, wait_for_inquiry_status
from helpers.polling import wait_for, wait_for_execution_status
from helpers.workflows import RUN_TIMEOUT, create_workflow, task_of

pytestmark = [pytest.mark.tier2, pytest.mark.workflow, pytest.mark.inquiry]


def asking(*following: Json, **fields: Json) -> list[Json]:
    """A task that prepares, one that asks, and those that follow."""
    return [
        {"name": "prepare", "action": "core.echo", "input": {"message": "ready"}, "next": [{"do": ["ask"]}]},
        {"name": "ask", "action": "core.ask", "input": {"prompt": "Go on?"}, "next": list(following), **fields},
        {"name": "work", "action": "core.echo", "input": {"message": "{{ tasks.ask.response.how }}"}},
        {"name": "give_up", "action": "core.echo", "input": {"message": "nobody said a word"}},
    ]


ANSWERED = {"when": "{{ succeeded() }}", "do": ["work"]}
TIMED_OUT = {"when": "{{ timed_out() }}", "do": ["give_up"]}


def test_a_workflow_goes_on_with_the_answer(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    workflow = create_workflow(client, test_pack["ref"], "flow", asking(ANSWERED, TIMED_OUT))
    execution = client.execute(workflow)
    inquiry = inquiry_of_task(client, execution["id"], "ask")
    assert client.get_execution(execution["id"])["status"] == "running"
    waiting = task_of(client, execution["id"], "ask")
    assert (waiting["status"], waiting["id"]) == ("running", inquiry["execution"])
    assert waiting["result"] == {"inquiry_id": inquiry["id"], "status": "pending"}

    assert answer(client, inquiry, {"how": "carefully"}).status_code == 200
    wait_for_execution_status(client, execution["id"], "completed", timeout=RUN_TIMEOUT)
    assert task_of(client, execution["id"], "work")["result"]["stdout"].strip() == "carefully"
    assert set(client.children_of(execution["id"])) == {"prepare", "ask", "work"}


def test_a_workflow_takes_the_branch_of_the_timeout(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    workflow = create_workflow(client, test_pack["ref"], "flow", asking(ANSWERED, TIMED_OUT, timeout=1))
    execution = client.execute(workflow)
    inquiry = wait_for_inquiry_status(client, inquiry_of_task(client, execution["id"], "ask"), "timeout")
    wait_for_execution_status(client, execution["id"], "completed", timeout=RUN_TIMEOUT)
    assert set(client.children_of(execution["id"])) == {"prepare", "ask", "give_up"}
    asked = task_of(client, execution["id"], "ask")
    assert (asked["status"], asked["result"]["error"]) == ("timeout", "inquiry timed out")
    assert asked["workflow_task"]["timed_out"] is True
    assert answer(client, inquiry, {"how": "late"}).status_code == 400


def test_without_such_a_branch_the_timeout_fails_the_workflow(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    workflow = create_workflow(client, test_pack["ref"], "flow", asking(ANSWERED, timeout=1)[:3])
    execution = client.execute(workflow)
    ended = wait_for_execution_status(client, execution["id"], "failed", timeout=RUN_TIMEOUT)
    assert "ask" in ended["result"]["error"]


def test_a_default_response_lets_it_go_on(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    default = {"prompt": "Go on?", "default_response": {"how": "by default"}}
    workflow = create_workflow(client, test_pack["ref"], "flow", asking(ANSWERED, TIMED_OUT, timeout=1, input=default))
    execution = client.execute(workflow)
    wait_for_execution_status(client, execution["id"], "completed", timeout=RUN_TIMEOUT)
    assert task_of(client, execution["id"], "work")["result"]["stdout"].strip() == "by default"


def test_cancelling_the_workflow_takes_the_question_back(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    definition = {"tasks": asking(ANSWERED, TIMED_OUT), "cancellation_policy": "cancel_running"}
    workflow = create_workflow(client, test_pack["ref"], "flow", definition)
    execution = client.execute(workflow)
    inquiry = inquiry_of_task(client, execution["id"], "ask")
    client.cancel_execution(execution["id"])
    wait_for(
        lambda: client.get_execution(execution["id"])["status"] == "cancelled",
        timeout=RUN_TIMEOUT,
        what="the workflow to be cancelled",
    )
    assert get(client, inquiry)["status"] == "cancelled"
    assert answer(client, inquiry, {"how": "late"}).status_code == 400
