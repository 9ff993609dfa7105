"""Asking people: ``core.ask`` waits for somebody, the right one, until its time is up."""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import pytest
from helpers.client import AttuneClient
from helpers.fixtures import create_python_action, unique_ref
from helpers.inquiries import Approver, answer, ask, get, inquiry_of, sign_up, wait_for_inquiry_status
from helpers.polling import wait_for, wait_for_execution_completion, wait_for_execution_status

pytestmark = [pytest.mark.tier2, pytest.mark.inquiry]

APPROVAL = {"approved": {"type": "boolean", "required": True}, "note": {"type": "string"}}

# Answers the inquiry that it is told of with the token of its own execution.
SELF_APPROVING = """\
import json, os, sys, time, urllib.error, urllib.request

def call(method, path, body=None):
    request = urllib.request.Request(
        os.environ["ATTUNE_API_URL"] + path, method=method, data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": "Bearer " + os.environ["ATTUNE_API_TOKEN"], "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refused:
        return refused.code, json.load(refused)

inquiry = json.load(sys.stdin).get("inquiry")
if inquiry is None:
    execution = int(os.environ["ATTUNE_EXEC_ID"])
    inquiry = call("POST", "/api/v1/inquiries", {"execution": execution, "prompt": "May I?"})[1]["data"]["id"]
status, said = call("POST", f"/api/v1/inquiries/{inquiry}/respond", {"response": {"approved": True}})
print(json.dumps({"status": status, "said": said, "inquiry": inquiry}))
"""


@pytest.fixture(scope="module")
def people(client: AttuneClient) -> Iterator[Callable[..., Approver]]:
    """Makes people with roles."""
    with contextlib.ExitStack() as open_clients:

        def make(*roles: str) -> Approver:
            person = sign_up(client, *roles)
            open_clients.callback(person.client.close)
            return person

        yield make


def seconds_between(earlier: str, later: str) -> float:
    return (datetime.fromisoformat(later) - datetime.fromisoformat(earlier)).total_seconds()


def test_an_execution_waits_for_an_answer(client: AttuneClient) -> None:
    execution, inquiry = ask(client, prompt="Deploy?", response_schema=APPROVAL)
    assert (inquiry["status"], inquiry["prompt"], inquiry["execution"]) == ("pending", "Deploy?", execution)
    waiting = client.get_execution(execution)
    assert (waiting["status"], waiting["result"]) == ("running", {"inquiry_id": inquiry["id"], "status": "pending"})

    refused = answer(client, inquiry, {"approved": "certainly"})
    assert refused.status_code == 422
    assert "approved" in refused.json()["error"]
    assert get(client, inquiry) == inquiry

    answered = answer(client, inquiry, {"approved": True, "note": "go"})
    assert answered.status_code == 200
    assert answered.json()["data"]["status"] == "responded"
    ended = wait_for_execution_status(client, execution, "completed")
    assert ended["result"]["response"] == {"approved": True, "note": "go"}
    assert ended["result"]["__inquiry_id"] == inquiry["id"]
    assert answer(client, inquiry, {"approved": False}).status_code == 400


def test_an_answer_is_given_once_per_key(client: AttuneClient) -> None:
    _, inquiry = ask(client)
    first = answer(client, inquiry, "yes", key="the-key")
    assert first.status_code == 200
    assert answer(client, inquiry, "no", key="the-key").json()["data"] == first.json()["data"]
    assert answer(client, inquiry, "no", key="another").status_code == 400


def test_time_runs_out_to_the_second(client: AttuneClient) -> None:
    execution, inquiry = ask(client, timeout=2)
    assert seconds_between(inquiry["created"], inquiry["timeout_at"]) == 2
    ended = wait_for_execution_status(client, execution, "timeout")
    assert ended["result"]["error"] == "inquiry timed out"
    late = get(client, inquiry)
    assert late["status"] == "timeout"
    assert (
        0 <= seconds_between(late["timeout_at"], late["updated"]) < 20
    )  # a second and a bit on a machine that is idle
    assert answer(client, inquiry, "yes").status_code == 400


def test_a_default_response_is_taken_when_time_runs_out(client: AttuneClient) -> None:
    execution, inquiry = ask(client, timeout=1, default_response={"approved": False}, response_schema=APPROVAL)
    ended = wait_for_execution_status(client, execution, "completed")
    assert (ended["result"]["response"], ended["result"]["by_default"]) == ({"approved": False}, True)
    late = get(client, inquiry)
    assert (late["status"], late["response"], late["by_default"]) == ("responded", {"approved": False}, True)


def test_only_who_is_asked_may_answer(client: AttuneClient, people: Callable[..., Approver]) -> None:
    asked, other = people(), people()
    execution, inquiry = ask(client, assigned_to=asked.login)
    assert inquiry["assigned_to"] == asked.id
    assert other.answer(inquiry, "yes").status_code == 403
    assert other.client.request("GET", f"inquiries/{inquiry['id']}").status_code == 403
    assert answer(client, inquiry, "yes").status_code == 403
    inbox = asked.client.call("GET", "inquiries", params={"assigned_to": asked.id, "status": "pending"})["items"]
    assert [each["id"] for each in inbox] == [inquiry["id"]]
    assert asked.answer(inquiry, "yes").status_code == 200
    wait_for_execution_status(client, execution, "completed")


def test_others_are_asked_step_by_step(client: AttuneClient, people: Callable[..., Approver]) -> None:
    manager, director, chief = people(), people(), people("chief")
    steps = [{"after": 1, "assigned_to": director.id}, {"after": 2, "assigned_role": "chief"}]
    execution, inquiry = ask(client, assigned_to=manager.id, escalation=steps)
    assert (inquiry["assigned_to"], inquiry["escalated"]) == (manager.id, 0)

    def escalated(times: int) -> dict[str, Any]:
        return wait_for(
            lambda: now if (now := get(client, inquiry))["escalated"] >= times else None,
            timeout=30,
            what=f"inquiry {inquiry['id']} to be escalated {times} times",
        )

    assert escalated(1)["assigned_to"] == director.id
    now = escalated(2)
    assert now["status"] == "pending"
    assert people().answer(inquiry, "yes").status_code == 403
    assert chief.answer(inquiry, {"approved": True}).status_code == 200
    ended = wait_for_execution_status(client, execution, "completed")
    assert ended["result"]["responses"][0]["login"] == chief.login


def test_two_people_must_agree(client: AttuneClient, people: Callable[..., Approver]) -> None:
    role = unique_ref("role")
    one, two, me = people(role), people(role), people(role)
    execution, inquiry = ask(client, assigned_role=role, required=2, response_schema=APPROVAL)
    assert one.answer(inquiry, {"approved": True}).json()["data"]["status"] == "pending"
    assert one.answer(inquiry, {"approved": True}).status_code == 409
    assert client.get_execution(execution)["status"] == "running"
    assert two.answer(inquiry, {"approved": True}).json()["data"]["status"] == "responded"
    ended = wait_for_execution_status(client, execution, "completed")
    assert {each["login"] for each in ended["result"]["responses"]} == {one.login, two.login}
    assert me.answer(inquiry, {"approved": True}).status_code == 400

    execution, inquiry = ask(client, assigned_role=role, required=3, response_schema=APPROVAL)
    one.answer(inquiry, {"approved": True})
    assert two.answer(inquiry, {"approved": False}).json()["data"]["status"] == "responded"
    ended = wait_for_execution_status(client, execution, "completed")
    assert ended["result"]["response"] == {"approved": False}


def test_who_asks_may_be_kept_out(client: AttuneClient, people: Callable[..., Approver]) -> None:
    _, inquiry = ask(client, exclude_asker=True)
    assert answer(client, inquiry, "yes").status_code == 403
    other = people()
    _, inquiry = ask(client, exclude_asker=True, assigned_to=other.id)
    assert other.answer(inquiry, "yes").status_code == 200


def test_cancelling_takes_the_question_back(client: AttuneClient) -> None:
    execution, inquiry = ask(client, timeout=60)
    assert client.cancel_execution(execution)["status"] == "cancelled"
    assert get(client, inquiry)["status"] == "cancelled"
    assert answer(client, inquiry, "yes").status_code == 400


def test_a_run_may_not_approve_itself(client: AttuneClient, test_pack: dict[str, Any]) -> None:
    schema = {"inquiry": {"type": "integer"}}
    action = create_python_action(client, test_pack["ref"], "approve", SELF_APPROVING, schema)

    def run(**parameters: Any) -> dict[str, Any]:
        execution = client.execute(action, parameters, permission_set_refs=["core.admin"])
        ended = wait_for_execution_completion(client, execution["id"])
        assert ended["status"] == "completed", ended["result"]
        printed: dict[str, Any] = json.loads(ended["result"]["stdout"])
        return printed

    own = run()
    assert (own["status"], "privilege loop" in own["said"]["error"]) == (403, True)
    # Another run's is not its own, and the token's rights reach.
    assert run(inquiry=own["inquiry"])["status"] == 200


def test_a_result_may_ask(client: AttuneClient, test_pack: dict[str, Any]) -> None:
    code = "import json; print(json.dumps({'__inquiry': {'prompt': 'Good?', 'timeout_seconds': 1}}))"
    action = create_python_action(client, test_pack["ref"], "work", code)
    execution = client.execute(action)["id"]
    inquiry = inquiry_of(client, execution)
    assert inquiry["prompt"] == "Good?"
    assert client.get_execution(execution)["status"] == "completed"
    wait_for_inquiry_status(client, inquiry, "timeout")
    assert client.get_execution(execution)["status"] == "completed"


@pytest.mark.performance
def test_of_two_answers_in_the_same_instant_one_is_recorded(
    client: AttuneClient, people: Callable[..., Approver]
) -> None:
    times = 200
    role = unique_ref("role")
    rivals = (people(role), people(role))
    with ThreadPoolExecutor(8) as pool:
        asked = list(pool.map(lambda number: ask(client, prompt=f"Go {number}?", assigned_role=role), range(times)))

    start = threading.Barrier(2)

    def race(person: Approver) -> list[int]:
        statuses = []
        for _, inquiry in asked:
            start.wait(60)
            statuses.append(person.answer(inquiry, {"by": person.login}).status_code)
        return statuses

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(race, rivals)
    assert [sorted(pair) for pair in zip(first, second, strict=True)] == [[200, 400]] * times

    def outcome(number: int) -> tuple[dict[str, Any], dict[str, Any]]:
        execution, inquiry = asked[number]
        return get(client, inquiry), client.get_execution(execution)

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(outcome, range(times)))
    for number, (inquiry, execution) in enumerate(outcomes):
        winner = rivals[0] if first[number] == 200 else rivals[1]
        assert inquiry["response"] == {"by": winner.login}
        assert [each["login"] for each in inquiry["responses"]] == [winner.login]
        assert (execution["status"], execution["result"]["response"]) == ("completed", {"by": winner.login})
    print(f"{times} races: {first.count(200)} to {second.count(200)}")
