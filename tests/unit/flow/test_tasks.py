"""Runs as tasks of ECS: what ECS is told, what it may not see, and what becomes of tasks that stop."""

import base64
import json
from dataclasses import dataclass, field, replace
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from unit.flow.world import World

from chalicelib.domain.executions import LEASE_GRACE
from chalicelib.flow import conductor, executor, tasks
from chalicelib.flow.cancel import cancel
from chalicelib.flow.intake import request_execution
from chalicelib.protocol import Container, Run, RunFinished, Task, TaskStopped
from chalicelib.settings import TaskSettings

IMAGE = "python:3.11-slim"
SETTINGS = TaskSettings(
    cluster="attune",
    image="attune-task:1",
    role="arn:aws:iam::1:role/tasks",
    subnets=["subnet-a"],
    closed_groups=["sg-closed"],
    open_groups=["sg-open"],
    logs="/attune/tasks",
)


class ClientError(Exception):
    """ECS's ClientException."""


@dataclass
class FakeEcs:
    """Knows the task definitions it was given, and keeps the tasks it was asked for."""

    definitions: dict[str, Any] = field(default_factory=dict)
    requests: list[Any] = field(default_factory=list)
    full: bool = False
    meta: Any = field(default_factory=lambda: SimpleNamespace(region_name="eu-west-1"))
    exceptions: Any = field(default_factory=lambda: SimpleNamespace(ClientException=ClientError))

    def register_task_definition(self, **definition: Any) -> None:
        self.definitions[definition["family"]] = definition

    def run_task(self, **request: Any) -> Any:
        if request["taskDefinition"] not in self.definitions:
            raise ClientError("TaskDefinition not found.")
        if self.full:
            return {"tasks": [], "failures": [{"reason": "RESOURCE:FARGATE"}]}
        self.requests.append(request)
        return {"tasks": [{}], "failures": []}


@pytest.fixture
def ecs() -> FakeEcs:
    return FakeEcs()


@pytest.fixture
def tasked(world: World, ecs: FakeEcs) -> World:
    """A world whose containers run on ECS."""
    world.services = replace(world.services, tasks=tasks.Tasks(lambda: ecs, SETTINGS))
    return world


def started(world: World, parameters: Any = None, container: Container | None = None, **fields: Any) -> int:
    container = container or Container(image=IMAGE)
    action = world.put_action("p.contained", runtime_ref="core.container", container=container, **fields)
    execution = request_execution(world.services, world.tenant, action, parameters=parameters or {}, timeout=20)
    executor.handle(world.services, [world.requests[-1]])
    return execution.id


def unsealed(world: World, request: Any) -> Task:
    """What the task's own container makes of what it is told."""
    report = next(each for each in request["overrides"]["containerOverrides"] if each["name"] == "report")
    told = {each["name"]: each["value"] for each in report["environment"]}
    sealed = world.store.blobs.get(f"tasks/{request['startedBy'].replace('/', '-')}.run")
    key = base64.urlsafe_b64decode(told["ATTUNE_TASK_KEY"])
    return msgspec.json.decode(AESGCM(key).decrypt(sealed[:12], sealed[12:], None), type=Task)


def stopped(world: World, id_: int, code: str = "EssentialContainerExited", reason: str = "", attempt: int = 1) -> None:
    report = TaskStopped(group=f"tenant:{world.tenant}", started_by=f"{id_}/{attempt}", stop_code=code, reason=reason)
    assert conductor.handle(world.services, [msgspec.json.encode(report).decode()]) == []


def upload(world: World, run: Run, **fields: Any) -> None:
    given = {"tenant": run.tenant, "execution": run.execution, "attempt": run.attempt, "token": run.token}
    finished = RunFinished(**given | {"status": "completed", "result": {"succeeded": True}} | fields)
    world.store.blobs.put(f"tasks/{run.execution}-{run.attempt}.json", msgspec.json.encode(finished))


def test_a_run_becomes_a_task_of_its_own_definition(tasked: World, ecs: FakeEcs) -> None:
    id_ = started(tasked, parameters={"a": 1})
    assert tasked.runner.runs == []
    (request,) = ecs.requests
    (definition,) = ecs.definitions.values()
    assert request["startedBy"] == f"{id_}/1"
    assert request["taskDefinition"] == definition["family"]
    assert request["networkConfiguration"]["awsvpcConfiguration"]["securityGroups"] == ["sg-closed"]
    prepare, report, action = definition["containerDefinitions"]
    assert (prepare["image"], report["image"], action["image"]) == ("attune-task:1", "attune-task:1", IMAGE)
    assert [each["essential"] for each in (prepare, report, action)] == [False, True, False]
    assert action["command"] == ["/bin/sh", "-c", "echo hi"]
    assert action["readonlyRootFilesystem"] is True
    assert action["linuxParameters"]["capabilities"]["drop"] == ["ALL"]
    assert "taskRoleArn" not in definition
    assert unsealed(tasked, request).run.parameters == {"a": 1}
    lease = tasks.START_GRACE + LEASE_GRACE + timedelta(seconds=20)
    assert tasked.activity.get_execution(id_).deadline == tasked.clock() + lease


def test_a_definition_is_registered_once_and_shared(tasked: World, ecs: FakeEcs) -> None:
    action = tasked.put_action(
        "p.contained", runtime_ref="core.container", container=Container(image=IMAGE, network=True)
    )
    for _ in range(2):
        request_execution(tasked.services, tasked.tenant, action, parameters={})
        executor.handle(tasked.services, [tasked.requests[-1]])
    assert len(ecs.requests) == 2
    assert len(ecs.definitions) == 1
    assert ecs.requests[0]["networkConfiguration"]["awsvpcConfiguration"]["securityGroups"] == ["sg-open"]


def test_no_secret_is_in_what_ecs_or_s3_sees(tasked: World, ecs: FakeEcs) -> None:
    tasked.put_key("p.token", "hunter2-secret", owner_type="pack", owner_pack_ref="p")
    id_ = started(tasked)
    assert unsealed(tasked, ecs.requests[0]).run.parameters == {"token": "hunter2-secret"}
    assert "hunter2" not in json.dumps([ecs.requests, ecs.definitions])
    assert b"hunter2" not in tasked.store.blobs.get(f"tasks/{id_}-1.run")


def test_its_result_is_taken_in_when_it_has_stopped(tasked: World, ecs: FakeEcs) -> None:
    id_ = started(tasked)
    upload(tasked, unsealed(tasked, ecs.requests[0]).run)
    for _ in range(2):  # events come twice
        stopped(tasked, id_)
    assert tasked.activity.get_execution(id_).status == "completed"
    assert not tasked.store.blobs.exists(f"tasks/{id_}-1.run")
    assert not tasked.store.blobs.exists(f"tasks/{id_}-1.json")


def test_a_result_with_another_token_is_dropped(tasked: World, ecs: FakeEcs) -> None:
    id_ = started(tasked)
    upload(tasked, unsealed(tasked, ecs.requests[0]).run, token="made up")
    stopped(tasked, id_)
    assert tasked.activity.get_execution(id_).status == "running"


def test_a_task_that_could_not_start_fails_its_execution(tasked: World) -> None:
    id_ = started(tasked)
    stopped(tasked, id_, "TaskFailedToStart", "CannotPullContainerError: no such image")
    execution = tasked.activity.get_execution(id_)
    assert execution.status == "failed"
    assert "CannotPullContainerError: no such image" in execution.result["error"]


def test_a_task_that_was_lost_is_tried_again_and_then_given_up(tasked: World, ecs: FakeEcs) -> None:
    id_ = started(tasked)
    stopped(tasked, id_, "SpotInterruption")
    executor.handle(tasked.services, [tasked.requests[-1]])
    assert [each["startedBy"] for each in ecs.requests] == [f"{id_}/1", f"{id_}/2"]
    stopped(tasked, id_, "SpotInterruption", attempt=2)
    assert tasked.activity.get_execution(id_).status == "abandoned"


def test_a_cancelled_task_ends_as_cancelled_and_leaves_no_mark(tasked: World, ecs: FakeEcs) -> None:
    id_ = started(tasked)
    cancel(tasked.services, tasked.tenant, id_)
    upload(
        tasked, unsealed(tasked, ecs.requests[0]).run, status="failed", result={"succeeded": False, "cancelled": True}
    )
    stopped(tasked, id_)
    assert tasked.activity.get_execution(id_).status == "cancelled"
    assert not tasked.store.blobs.exists(f"stops/{id_}")


def test_a_full_cluster_leaves_the_execution_claimable(tasked: World, ecs: FakeEcs) -> None:
    ecs.full = True
    id_ = started(tasked)
    assert tasked.activity.get_execution(id_).status == "requested"


def test_an_image_of_its_own_command_fails_and_says_so(tasked: World) -> None:
    execution = tasked.activity.get_execution(started(tasked, container=Container(image=IMAGE, command=[])))
    assert execution.status == "failed"
    assert "needs a command or a script" in execution.result["error"]


def test_an_environment_that_no_override_holds_is_refused(tasked: World) -> None:
    run = Run(
        tenant=tasked.tenant,
        execution=1,
        attempt=1,
        token="t",
        action_ref="p.a",
        runner="container",
        entrypoint="",
        environment={"LONG": "x" * 9000},
        container=Container(image=IMAGE, command=["true"]),
    )
    assert tasked.services.tasks is not None
    with pytest.raises(tasks.NotForTasksError, match="environment"):
        tasked.services.tasks.start(run, tasked.store.blobs)


@pytest.mark.parametrize(
    ("cpu", "memory", "expected"),
    [
        (0.25, 256, (256, 512)),
        (0.5, 256, (512, 1024)),
        (0.05, 2048, (512, 3072)),
        (1, 256, (1024, 2048)),
        (4, 8192, (4096, 9216)),
    ],
)
def test_the_smallest_size_that_fits(cpu: float, memory: int, expected: tuple[int, int]) -> None:
    assert tasks.size(Container(image=IMAGE, cpu=cpu, memory=memory)) == expected
