"""Tier 2, what goes wrong in a workflow: failures, retries, timeouts, actions and templates that are not there."""

import pytest
from helpers.client import ApiError, AttuneClient, Json
from helpers.fixtures import create_failing_action
from helpers.workflows import create_workflow, run, task_of

pytestmark = [pytest.mark.tier2, pytest.mark.workflow, pytest.mark.orchestration]

FAILING = "exit 3"


def test_a_failure_nobody_takes_care_of_fails_the_workflow(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    """What is under way goes on to its end, what would have followed does not begin, and every failure is named."""
    pack = test_pack["ref"]
    broken = create_failing_action(client, pack)
    tasks = [
        {"name": "one", "action": broken, "next": [{"when": "{{ succeeded() }}", "do": ["after"]}]},
        {"name": "two", "action": broken},
        {"name": "fine", "action": "core.noop"},
        {"name": "after", "action": "core.noop"},
    ]
    execution = run(client, create_workflow(client, pack, "flow", tasks), expected="failed")
    children = client.children_of(execution["id"])
    assert execution["result"] == {"error": "Workflow failed: 2 task(s) failed: one, two", "succeeded": False}
    assert {name: row["status"] for name, (row,) in children.items()} == {
        "one": "failed", "two": "failed", "fine": "completed",
    }  # fmt: skip


def test_a_failure_that_somebody_takes_care_of_does_not(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    pack = test_pack["ref"]
    tasks = [
        {
            "name": "work",
            "action": create_failing_action(client, pack, exit_code=7),
            "next": [
                {"when": "{{ succeeded() }}", "do": ["celebrate"]},
                {"when": "{{ failed() and result().exit_code == 7 }}", "do": ["clean_up"]},
            ],
        },
        {"name": "celebrate", "action": "core.noop"},
        {"name": "clean_up", "action": "core.noop"},
    ]
    execution = run(client, create_workflow(client, pack, "flow", tasks))
    assert set(client.children_of(execution["id"])) == {"work", "clean_up"}


def test_a_failed_task_is_tried_again(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    """``count: 2``: three attempts, each an execution, which names the first one and its number."""
    pack = test_pack["ref"]
    client.create_action(f"{pack}.failing", pack, entrypoint=FAILING)
    task = {"name": "work", "action": f"{pack}.failing", "retry": {"count": 2, "delay": 1}}
    execution = run(client, create_workflow(client, pack, "flow", [task]), expected="failed")
    first, second, third = client.children_of(execution["id"])["work"]
    assert {row["status"] for row in (first, second, third)} == {"failed"}
    assert [row["workflow_task"]["retry_count"] for row in (first, second, third)] == [0, 1, 2]
    assert [row.get("original_execution") for row in (second, third)] == [first["id"], first["id"]]


def test_only_failures_that_are_worth_it_are_tried_again(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    pack = test_pack["ref"]
    client.create_action(f"{pack}.failing", pack, entrypoint=FAILING)
    retry = {"count": 5, "delay": 0, "on_error": "{{ result().exit_code == 4 }}"}
    task = {"name": "work", "action": f"{pack}.failing", "retry": retry}
    execution = run(client, create_workflow(client, pack, "flow", [task]), expected="failed")
    assert len(client.children_of(execution["id"])["work"]) == 1


def test_a_task_that_takes_too_long(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    """It is stopped and says so; ``timed_out()`` is taken where it is there, and ``failed()`` where it is not."""
    pack = test_pack["ref"]
    client.create_action(f"{pack}.wait", pack, entrypoint="sleep 300")
    slow = {"name": "slow", "action": f"{pack}.wait", "timeout": 1}
    rest = [{"name": name, "action": "core.noop"} for name in ("late", "failure")]
    both = [{"when": "{{ timed_out() }}", "do": ["late"]}, {"when": "{{ failed() }}", "do": ["failure"]}]
    with_both = create_workflow(client, pack, "with_both", [{**slow, "next": both}, *rest])
    with_one = create_workflow(client, pack, "with_one", [{**slow, "next": both[1:]}, rest[1]])

    execution = run(client, with_both)
    stopped = task_of(client, execution["id"], "slow")
    assert "timed out after 1 seconds" in stopped["result"]["error"]
    assert stopped["workflow_task"]["timed_out"] is True
    assert set(client.children_of(execution["id"])) == {"slow", "late"}
    assert set(client.children_of(run(client, with_one)["id"])) == {"slow", "failure"}


def test_an_action_that_does_not_exist(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    """Taken with a warning, fails clearly, and runs once the action is there (README 16)."""
    pack = test_pack["ref"]
    created = client.create_workflow(f"{pack}.flow", [{"name": "later", "action": f"{pack}.later"}])
    assert f"action '{pack}.later' does not exist yet" in created["warnings"][0]
    failed = run(client, f"{pack}.flow", expected="failed")
    assert failed["result"]["error"] == "Workflow failed: 1 task(s) failed: later"
    client.create_action(f"{pack}.later", pack, entrypoint="echo there")
    run(client, f"{pack}.flow")


def test_a_definition_that_cannot_run_is_refused(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    pack = test_pack["ref"]
    tasks = [{"name": "a", "action": "core.noop", "next": [{"when": "{{ 1 + }}", "do": ["nowhere"]}]}]
    with pytest.raises(ApiError) as refused:
        client.create_workflow(f"{pack}.flow", tasks)
    assert refused.value.status == 422
    assert {each["path"] for each in refused.value.body["details"]} == {
        "definition.tasks[0].next[0].when",
        "definition.tasks[0].next[0].do",
    }


def test_a_template_that_finds_nothing_fails_its_task(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    pack = test_pack["ref"]
    tasks = [
        {"name": "a", "action": "core.noop", "next": [{"when": "{{ succeeded() }}", "do": ["b"]}]},
        {"name": "b", "action": "core.echo", "input": {"message": "{{ task.a.nothing_of_that_name }}"}},
    ]
    execution = run(client, create_workflow(client, pack, "flow", tasks), expected="failed")
    assert execution["result"]["error"] == "Workflow failed: 1 task(s) failed: b"
