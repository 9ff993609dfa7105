"""Claiming, gathering, starting."""

from datetime import timedelta
from typing import Any

import pytest
from unit.flow.world import World

from chalicelib.domain.entities import Identity
from chalicelib.domain.executions import LEASE_GRACE
from chalicelib.domain.templates import REDACTED
from chalicelib.flow import executor
from chalicelib.flow.intake import request_execution
from chalicelib.flow.invoker import RunTooLargeError
from chalicelib.flow.tokens import token_hash
from chalicelib.protocol import ExecutionRequested
from chalicelib.store.registry import Delete


def start(world: World, action: Any = None, parameters: Any = None, **origin: Any) -> tuple[int, ExecutionRequested]:
    execution = request_execution(world.services, world.tenant, action or world.action, parameters=parameters, **origin)
    return execution.id, world.requests[-1]


def test_a_requested_execution_is_claimed_and_handed_to_the_runner(world: World) -> None:
    id_, request = start(world, parameters={"a": 1}, timeout=20)
    assert executor.handle(world.services, [request]) == []
    (run,) = world.runner.runs
    assert (run.execution, run.attempt, run.runner, run.entrypoint) == (id_, 1, "shell", "echo hi")
    assert run.parameters == {"a": 1}
    assert run.timeout == 20
    execution = world.activity.get_execution(id_)
    assert execution.status == "running"
    assert execution.started_at == world.clock()
    assert execution.attempt_token == token_hash(run.token)
    assert execution.deadline == world.clock() + timedelta(seconds=20) + LEASE_GRACE


def test_a_message_that_comes_twice_starts_one_run(world: World) -> None:
    _, request = start(world)
    assert executor.handle(world.services, [request, request]) == []
    assert executor.handle(world.services, [request]) == []
    assert len(world.runner.runs) == 1


def test_a_runner_out_of_reach_leaves_the_execution_claimable(world: World) -> None:
    id_, request = start(world)
    world.runner.error = ConnectionError("no runner")
    assert executor.handle(world.services, [request]) == [0]
    assert world.activity.get_execution(id_).status == "requested"
    world.runner.error = None
    assert executor.handle(world.services, [request]) == []
    assert world.activity.get_execution(id_).status == "running"


def test_a_native_action_completes_without_a_runner(world: World) -> None:
    id_, request = start(world, world.put_action("p.nothing", runtime_ref="core.native"))
    assert executor.handle(world.services, [request]) == []
    execution = world.activity.get_execution(id_)
    assert (execution.status, execution.result["succeeded"]) == ("completed", True)
    assert world.runner.runs == []


@pytest.mark.parametrize("runtime_ref", ["core.cobol", None])
def test_a_runtime_that_nothing_runs_is_a_clear_failure(world: World, runtime_ref: str | None) -> None:
    id_, request = start(world, world.put_action("p.odd", runtime_ref=runtime_ref))
    assert executor.handle(world.services, [request]) == []
    execution = world.activity.get_execution(id_)
    assert execution.status == "failed"
    assert str(runtime_ref) in execution.result["error"]


def test_an_action_that_is_gone_fails_its_executions(world: World) -> None:
    id_, request = start(world)
    world.store.registry.commit(Delete("action", "p.act"))
    assert executor.handle(world.services, [request]) == []
    assert "no longer exists" in world.activity.get_execution(id_).result["error"]


def test_keys_of_pack_and_action_come_by_name_and_are_hidden(world: World) -> None:
    world.put_key("p.token", "pack's", owner_type="pack", owner_pack_ref="p")
    world.put_key("p.act.token", "action's", owner_type="action", owner_action_ref="p.act")
    world.put_key("p.limit", 5, owner_type="pack", owner_pack_ref="p", encrypted=False)
    _, request = start(world, parameters={"a": 1})
    executor.handle(world.services, [request])
    (run,) = world.runner.runs
    assert run.parameters == {"a": 1, "token": "action's", "limit": 5}
    assert "action's" in run.secrets
    assert "5" not in run.secrets


def test_named_keys_are_injected_and_never_stored(world: World) -> None:
    key = world.put_key("api_key", {"user": "u", "password": "s3cret"})
    id_, request = start(world, keys=[key], executor=world.owner.id)
    executor.handle(world.services, [request])
    (run,) = world.runner.runs
    assert run.parameters == {"api_key": {"user": "u", "password": "s3cret"}}
    assert {"u", "s3cret"} <= set(run.secrets)
    assert "s3cret" not in str(world.activity.get_execution(id_))


def test_a_key_that_is_gone_is_a_clear_failure(world: World) -> None:
    id_, request = start(world, keys=[world.put_key("api_key", "x")], executor=world.owner.id)
    world.store.registry.commit(Delete("key", "api_key"))
    assert executor.handle(world.services, [request]) == []
    execution = world.activity.get_execution(id_)
    assert (execution.status, execution.result["error"]) == ("failed", "unknown key: api_key")


def test_a_key_that_the_executor_may_not_read_is_as_good_as_none(world: World) -> None:
    somebody = world.put(Identity, "somebody@example.org")
    id_, request = start(world, keys=[world.put_key("api_key", "x")], executor=somebody.id)
    executor.handle(world.services, [request])
    assert world.activity.get_execution(id_).result["error"] == "unknown key: api_key"
    assert world.runner.runs == []


def test_a_secret_parameter_is_stored_sealed_and_hidden(world: World) -> None:
    schema = {"password": {"type": "string", "secret": True}, "name": {"type": "string"}}
    id_, request = start(world, world.put_action("p.s", param_schema=schema), {"password": "hunter2", "name": "bob"})
    stored = world.activity.get_execution(id_)
    assert stored.config == {"password": REDACTED, "name": "bob"}
    assert "hunter2" not in str(stored)
    executor.handle(world.services, [request])
    (run,) = world.runner.runs
    assert run.parameters == {"password": "hunter2", "name": "bob"}
    assert "hunter2" in run.secrets


def test_the_environment_says_who_and_where(world: World) -> None:
    id_, request = start(world, rule_ref="p.rule", trigger_ref="p.hook")
    executor.handle(world.services, [request])
    environment = world.runner.runs[0].environment
    assert environment["ATTUNE_EXEC_ID"] == str(id_)
    assert environment["ATTUNE_ACTION"] == "p.act"
    assert environment["ATTUNE_RULE"] == "p.rule"
    assert environment["ATTUNE_TRIGGER"] == "p.hook"
    assert "ATTUNE_API_TOKEN" not in environment


def test_an_execution_with_permission_sets_gets_a_token_of_its_own(world: World) -> None:
    id_, request = start(world, permission_set_refs=["core.viewer"], executor=world.owner.id)
    executor.handle(world.services, [request])
    principal = world.services.tokens.verify(world.runner.runs[0].environment["ATTUNE_API_TOKEN"])
    assert (principal.token_type, principal.tenant) == ("execution", world.tenant)
    assert principal.metadata["execution_id"] == id_
    assert principal.permission_set_refs == ["core.viewer"]


def test_a_pack_action_brings_its_files(world: World) -> None:
    digest = "ab" * 32
    _, request = start(world, world.put_action("p.file", entrypoint="run.sh", content=digest))
    executor.handle(world.services, [request])
    pack = world.runner.runs[0].pack
    assert (pack.ref, pack.content) == ("p", digest)
    assert f"{world.tenant}/packs/{digest}.tar.gz" in pack.url


def test_parameters_that_no_invocation_can_carry_fail_clearly(world: World) -> None:
    id_, request = start(world)
    world.runner.error = RunTooLargeError("parameters and secrets take 2000000 bytes")
    assert executor.handle(world.services, [request]) == []
    execution = world.activity.get_execution(id_)
    assert (execution.status, "2000000 bytes" in execution.result["error"]) == ("failed", True)


def test_variables_of_the_request_reach_the_action_under_the_platforms_own(world: World) -> None:
    _, request = start(world, env_vars={"GREETING": "hello", "ATTUNE_ACTION": "forged"})
    executor.handle(world.services, [request])
    (run,) = world.runner.runs
    assert run.environment["GREETING"] == "hello"
    assert run.environment["ATTUNE_ACTION"] == "p.act"


def test_keys_that_the_action_asks_for_come_before_those_of_its_own(world: World) -> None:
    world.put_key("shared.token", "shared")
    world.put_key("shared.region", "eu", encrypted=False)
    world.put_key("p.token", "pack's", owner_type="pack", owner_pack_ref="p")
    asking = world.put_action("p.asking", secrets=["shared.token", "shared.region"])
    _, request = start(world, asking, executor=world.owner.id)
    executor.handle(world.services, [request])
    (run,) = world.runner.runs
    assert run.parameters == {"token": "pack's", "region": "eu"}


def test_an_action_gets_no_key_that_its_executor_may_not_read(world: World) -> None:
    world.put_key("shared.token", "shared")
    somebody = world.put(Identity, "somebody@example.org")
    asking = world.put_action("p.asking", secrets=["shared.token"])
    for who in (somebody.id, None):
        id_, request = start(world, asking, executor=who)
        executor.handle(world.services, [request])
        assert world.activity.get_execution(id_).result["error"] == "unknown key: shared.token"
    assert world.runner.runs == []


def test_the_parameter_context_is_in_the_environment_without_its_secrets(world: World) -> None:
    context = {"team": "ops", "run-id": 7, "nested": {"a": [1]}, "nothing": None}
    _, request = start(world, parameters={"context": context, "other": "x"})
    executor.handle(world.services, [request])
    environment = world.runner.runs[0].environment
    found = {name: value for name, value in environment.items() if name.startswith("ATTUNE_CONTEXT_")}
    assert found == {
        "ATTUNE_CONTEXT_TEAM": "ops",
        "ATTUNE_CONTEXT_RUN_ID": "7",
        "ATTUNE_CONTEXT_NESTED": '{"a":[1]}',
    }
    secret = world.put_action("p.secret", param_schema={"context": {"type": "object", "secret": True}})
    _, request = start(world, secret, {"context": {"token": "hunter2"}})
    executor.handle(world.services, [request])
    assert "hunter2" not in str(world.runner.runs[1].environment)
