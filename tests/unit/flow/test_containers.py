"""What a container gets of its execution, and how it is stopped."""

from typing import Any

import pytest
from unit.flow.world import World

from chalicelib.domain.entities import Runtime
from chalicelib.flow import executor
from chalicelib.flow.intake import request_execution
from chalicelib.protocol import Container, Run

IMAGE = "python:3.11-slim"


def run(world: World, parameters: Any = None, **fields: Any) -> Run:
    fields = {"runtime_ref": "core.container", "container": Container(image=IMAGE)} | fields
    action = world.put_action("p.contained", **fields)
    request_execution(world.services, world.tenant, action, parameters=parameters or {})
    assert executor.handle(world.services, [world.requests[-1]]) == []
    return world.runner.runs[-1]


@pytest.mark.parametrize(
    ("container", "entrypoint", "command"),
    [
        (Container(image=IMAGE), "echo hi", ["/bin/sh", "-c", "echo hi"]),
        (Container(image=IMAGE, interpreter=["python3", "-c"]), "print()", ["python3", "-c", "print()"]),
        (Container(image=IMAGE, command=["date"]), "echo hi", ["date"]),
        (Container(image=IMAGE, command=[]), "echo hi", []),
        (Container(image=IMAGE), "", []),
    ],
)
def test_what_it_runs(world: World, container: Container, entrypoint: str, command: list[str]) -> None:
    handed = run(world, container=container, entrypoint=entrypoint)
    assert handed.container is not None
    assert (handed.runner, handed.container.image, handed.container.command) == ("container", IMAGE, command)


def test_nothing_secret_is_in_its_environment(world: World) -> None:
    world.put_key("p.token", "hunter2-secret", owner_type="pack", owner_pack_ref="p")
    with_secret = {"env_vars": {"OPEN": "yes", "URL": "https://u:hunter2-secret@host"}}
    world.put(Runtime, "core.container", name="Container", pack_ref="core", execution_config=with_secret)
    handed = run(world, default_execution_permission_set_refs=["core.viewer"])
    assert handed.parameters["token"] == "hunter2-secret"
    assert handed.environment["OPEN"] == "yes"
    assert handed.environment["ATTUNE_EXEC_ID"] == str(handed.execution)
    assert not {"URL", "ATTUNE_API_TOKEN"} & handed.environment.keys()
    assert "hunter2" not in str(handed.environment)


def test_an_action_without_an_image_fails_and_says_so(world: World) -> None:
    action = world.put_action("p.contained", runtime_ref="core.container")
    id_ = request_execution(world.services, world.tenant, action, parameters={}).id
    executor.handle(world.services, [world.requests[-1]])
    execution = world.activity.get_execution(id_)
    assert (execution.status, execution.result["error"]) == ("failed", "action p.contained names no container image")
