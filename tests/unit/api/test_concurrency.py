"""Concurrency policies on actions, as clients set and see them."""

from typing import Any

import pytest
from unit.api.resources import created, make_action, make_pack

POLICY = {"threshold": 2, "parameters": ["env"], "method": "cancel"}
SCHEMA = {"env": {"type": "string"}, "token": {"type": "string", "secret": True}}


@pytest.fixture(autouse=True)
def pack(api: Any) -> Any:
    return make_pack(api)


def changes(api: Any) -> list[Any]:
    return [message["action_ref"] for message in api.sent("executions") if message["kind"] == "policy"]


def test_a_policy_is_set_changed_and_removed(api: Any) -> None:
    action = make_action(api, concurrency=POLICY, param_schema=SCHEMA)
    assert action["concurrency"] == POLICY
    assert changes(api) == []
    other = {"threshold": 1, "parameters": [], "method": "enqueue"}
    answer = api.put("/api/v1/actions/mine.greet", json={"concurrency": {"op": "set", "value": {"threshold": 1}}})
    assert answer.data["concurrency"] == other
    assert changes(api) == ["mine.greet"]
    assert api.put("/api/v1/actions/mine.greet", json={"label": "New"}).data["concurrency"] == other
    assert changes(api) == []
    assert "concurrency" not in api.put("/api/v1/actions/mine.greet", json={"concurrency": {"op": "clear"}}).data
    assert changes(api) == ["mine.greet"]


def test_deleting_the_action_lets_go_who_waits(api: Any) -> None:
    make_action(api, concurrency={"threshold": 1})
    api.delete("/api/v1/actions/mine.greet")
    assert changes(api) == ["mine.greet"]


@pytest.mark.parametrize(
    ("policy", "path", "says"),
    [
        ({"threshold": 0}, "concurrency.threshold", ">= 1"),
        ({"parameters": []}, "concurrency.threshold", "Missing"),
        ({"threshold": 1, "method": "hope"}, "concurrency.method", "hope"),
        ({"threshold": 1, "parameters": ["evn"]}, "concurrency.parameters", "none of the action's parameters"),
        ({"threshold": 1, "parameters": ["token"]}, "concurrency.parameters", "is secret"),
    ],
)
def test_a_policy_that_cannot_be(api: Any, policy: Any, path: str, says: str) -> None:
    body = {"ref": "mine.a", "pack_ref": "mine", "label": "A", "entrypoint": "true", "param_schema": SCHEMA}
    answer = api.post("/api/v1/actions", json=body | {"concurrency": policy})
    assert answer.status == 422
    assert answer.json["details"]["path"] == path
    assert says in answer.json["error"]


def test_a_workflow_may_have_one(api: Any) -> None:
    definition = {"tasks": [{"name": "a", "action": "mine.flow"}]}
    body = {"ref": "mine.flow", "pack_ref": "mine", "label": "A", "workflow_definition": definition}
    answer = api.post("/api/v1/actions", json=body | {"concurrency": {"threshold": 1}})
    assert created(answer)["concurrency"]["threshold"] == 1


def test_an_execution_says_what_it_waits_for(api: Any) -> None:
    make_action(api, concurrency={"threshold": 1})
    execution = created(api.post("/api/v1/executions/execute", json={"action_ref": "mine.greet"}))
    assert "waiting_for" not in execution
    api.activity.enter(execution["id"], 7)
    shown = api.get(f"/api/v1/executions/{execution['id']}").data
    assert shown["waiting_for"] == "a free slot: mine.greet has a concurrency policy"
    assert api.get("/api/v1/executions").items[0]["waiting_for"] == shown["waiting_for"]
