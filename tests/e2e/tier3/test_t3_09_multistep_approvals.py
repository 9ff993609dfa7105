"""T3.9: multi-step approvals: people decide, one after the other, on where a workflow goes; who does not answer in time
is passed over, and a refusal ends it."""

import contextlib
from collections.abc import Callable, Iterator

import pytest
from helpers.client import AttuneClient, Json
from helpers.inquiries import Approver, answer, get, inquiry_of_task, sign_up, wait_for_inquiry_status
from helpers.narration import step, summary, title
from helpers.polling import wait_for, wait_for_execution_status
from helpers.workflows import RUN_TIMEOUT, create_workflow, task_of

pytestmark = [pytest.mark.tier3, pytest.mark.workflow, pytest.mark.inquiry, pytest.mark.orchestration]

APPROVAL = {"approved": {"type": "boolean", "required": True}, "note": {"type": "string"}}
APPROVED = "{{ succeeded() and result().response.approved }}"
DENIED = "{{ succeeded() and not result().response.approved }}"


@pytest.fixture
def people(client: AttuneClient) -> Iterator[Callable[..., Approver]]:
    """Makes people with roles."""
    with contextlib.ExitStack() as open_clients:

        def make(*roles: str) -> Approver:
            person = sign_up(client, *roles)
            open_clients.callback(person.client.close)
            return person

        yield make


def approval(name: str, prompt: str, *following: Json, who: Approver | None = None, **fields: Json) -> Json:
    """A task that asks, and what follows."""
    asked = {"prompt": prompt, "response_schema": APPROVAL, **fields.pop("input", {})}
    if who is not None:
        asked["assigned_to"] = who.login
    return {"name": name, "action": "core.ask", "input": asked, "next": list(following), **fields}


def say(name: str, message: str) -> Json:
    return {"name": name, "action": "core.echo", "input": {"message": message}}


def test_sequential_multi_step_approvals(
    client: AttuneClient, test_pack: dict[str, Json], people: Callable[..., Approver]
) -> None:
    """Manager, director and VP are asked one after the other; none of them can answer for another."""
    title("T3.9: Sequential Multi-Step Approvals")
    step(1, "Creating three approvers and a workflow that asks them in turn")
    levels = {"manager": people(), "director": people(), "vp": people()}
    names = [*levels, "deploy"]
    tasks = [
        approval(
            name,
            f"{name.title()}, may {{{{ parameters.what }}}} go out?",
            {"when": APPROVED, "publish": [{f"{name}_said": "{{ result().response.note }}"}], "do": [following]},
            who=levels[name],
        )
        for name, following in zip(levels, names[1:], strict=True)
    ]
    said = " ".join(f"{{{{ vars.{name}_said }}}}" for name in levels)
    schema = {"what": {"type": "string", "required": True}}
    workflow = create_workflow(client, test_pack["ref"], "release", [*tasks, say("deploy", said)], param_schema=schema)

    step(2, "Running it, each answering in turn")
    execution = client.execute(workflow, {"what": "v2"})
    for position, (name, approver) in enumerate(levels.items()):
        inquiry = inquiry_of_task(client, execution["id"], name)
        assert inquiry["prompt"] == f"{name.title()}, may v2 go out?"
        assert inquiry["assigned_to"] == approver.id
        assert set(client.children_of(execution["id"])) == set(names[: position + 1]), "somebody was asked too early"
        others = [other for other in levels.values() if other is not approver]
        assert {other.answer(inquiry, {"approved": True}).status_code for other in others} == {403}
        assert approver.answer(inquiry, {"approved": True, "note": f"{name}-ok"}).status_code == 200

    step(3, "Checking what came of it")
    wait_for_execution_status(client, execution["id"], "succeeded", timeout=RUN_TIMEOUT)
    deployed = task_of(client, execution["id"], "deploy")["result"]["stdout"].strip()
    summary(f"deployed after: {deployed}")
    assert deployed == "manager-ok director-ok vp-ok"


@pytest.mark.parametrize(("amount", "asked"), [(50, ["manager"]), (5000, ["manager", "finance"])])
def test_conditional_approval_workflow(
    client: AttuneClient, test_pack: dict[str, Json], amount: int, asked: list[str]
) -> None:
    """What the manager answers decides whether finance is asked as well."""
    title(f"T3.9: Conditional Approval Workflow ({amount})")
    step(1, "Creating a workflow whose second approval depends on the first answer")
    schema = {"approved": {"type": "boolean", "required": True}, "amount": {"type": "integer", "required": True}}
    tasks = [
        approval(
            "manager",
            "How much may it cost?",
            {"when": "{{ succeeded() and result().response.amount > 1000 }}", "do": ["finance"]},
            {"when": "{{ succeeded() and result().response.amount <= 1000 }}", "do": ["buy"]},
            input={"response_schema": schema},
        ),
        approval("finance", "That much?", {"when": APPROVED, "do": ["buy"]}),
        say("buy", "bought"),
    ]
    workflow = create_workflow(client, test_pack["ref"], "purchase", tasks)

    step(2, "Running it and answering")
    execution = client.execute(workflow)
    inquiry = inquiry_of_task(client, execution["id"], "manager")
    refused = answer(client, inquiry, {"approved": True, "amount": "a lot"})
    assert refused.status_code == 422
    assert get(client, inquiry)["status"] == "pending"
    assert answer(client, inquiry, {"approved": True, "amount": amount}).status_code == 200
    if "finance" in asked:
        assert (
            answer(client, inquiry_of_task(client, execution["id"], "finance"), {"approved": True}).status_code == 200
        )

    step(3, "Checking who was asked")
    wait_for_execution_status(client, execution["id"], "succeeded", timeout=RUN_TIMEOUT)
    tasks_run = set(client.children_of(execution["id"]))
    summary(f"tasks: {sorted(tasks_run)}")
    assert tasks_run == {*asked, "buy"}


def test_approval_with_timeout_and_escalation(
    client: AttuneClient, test_pack: dict[str, Json], people: Callable[..., Approver]
) -> None:
    """Nobody answers the first approval: it times out, and the timeout's branch asks a director; where that one is
    silent as well, a step of the escalation asks the chiefs."""
    title("T3.9: Approval With Timeout And Escalation")
    step(1, "Creating a workflow that escalates by its timeout and by a chain")
    manager, director, chief = people(), people(), people("chiefs")
    tasks = [
        approval(
            "manager",
            "Restart?",
            {"when": APPROVED, "do": ["restart"]},
            {"when": "{{ timed_out() }}", "do": ["director"]},
            who=manager,
            timeout=2,
        ),
        approval(
            "director",
            "The manager is silent: restart?",
            {"when": APPROVED, "publish": [{"by": "{{ result().responses[0].login }}"}], "do": ["restart"]},
            who=director,
            input={"escalation": [{"after": 1, "assigned_role": "chiefs"}]},
        ),
        say("restart", "restarted for {{ vars.by }}"),
    ]
    definition = {"vars": {"by": "nobody"}, "tasks": tasks}
    workflow = create_workflow(client, test_pack["ref"], "restart", definition)

    step(2, "Running it without an answer from the manager")
    execution = client.execute(workflow)
    first = inquiry_of_task(client, execution["id"], "manager")
    wait_for_inquiry_status(client, first, "timeout")
    second = inquiry_of_task(client, execution["id"], "director")
    timed_out = task_of(client, execution["id"], "manager")
    assert (timed_out["status"], timed_out["result"]["error"]) == ("timeout", "inquiry timed out")
    assert timed_out["workflow_task"]["timed_out"] is True
    assert manager.answer(first, {"approved": True}).status_code == 400

    step(3, "Escalating further, to the chiefs")
    assert second["assigned_to"] == director.id
    wait_for(lambda: get(client, second)["escalated"] == 1, timeout=30, what="the chiefs to be asked")
    assert chief.answer(second, {"approved": True}).status_code == 200
    wait_for_execution_status(client, execution["id"], "succeeded", timeout=RUN_TIMEOUT)
    said = task_of(client, execution["id"], "restart")["result"]["stdout"].strip()
    summary(said)
    assert said == f"restarted for {chief.login}"


def test_approval_denial_stops_workflow(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    """A refusal goes its own way: what needed the approval never runs."""
    title("T3.9: Approval Denial Stops Workflow")
    step(1, "Creating two workflows of two approvals: one that says what a refusal leads to, one that does not")
    ask_both = [
        approval("first", "Delete?", {"when": APPROVED, "do": ["second"]}),
        approval("second", "Really?", {"when": APPROVED, "do": ["delete"]}),
        say("delete", "deleted"),
    ]
    told = [
        approval("first", "Delete?", {"when": APPROVED, "do": ["second"]}, {"when": DENIED, "do": ["refuse"]}),
        *ask_both[1:],
        say("refuse", "kept: {{ tasks.first.response.note }}"),
    ]
    quiet_workflow = create_workflow(client, test_pack["ref"], "quiet", ask_both)
    told_workflow = create_workflow(client, test_pack["ref"], "told", told)

    step(2, "Refusing in both")
    runs = [client.execute(workflow)["id"] for workflow in (quiet_workflow, told_workflow)]
    for run_id in runs:
        inquiry = inquiry_of_task(client, run_id, "first")
        assert answer(client, inquiry, {"approved": False, "note": "still needed"}).status_code == 200

    step(3, "Checking what ran")
    for run_id in runs:
        wait_for_execution_status(client, run_id, "succeeded", timeout=RUN_TIMEOUT)
    quiet, loud = (set(client.children_of(run_id)) for run_id in runs)
    summary(f"without a branch: {sorted(quiet)}", f"with one: {sorted(loud)}")
    assert quiet == {"first"}
    assert loud == {"first", "refuse"}
    assert task_of(client, runs[1], "refuse")["result"]["stdout"].strip() == "kept: still needed"
