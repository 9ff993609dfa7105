"""Runs in containers as tasks of ECS on Fargate (docs/decisions/008-containers.md).

One task is one attempt. Of its three containers two are the platform's (``runners/task.py``): ``prepare`` lays pipes
into a volume that all three share, ``report`` fetches the run, feeds and hears the third, and uploads the result; when
it ends, so does the task. The third, ``action``, is the tenant's image, with nothing of ours but a way to its standard
streams.

The run lies in S3 for a few minutes, sealed under a key that only its task is told. What ECS says when a task has
stopped comes to the conductor on the results queue.
"""

import base64
import hashlib
import json
import secrets
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Final

import msgspec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from chalicelib.domain.entities import Json
from chalicelib.protocol import Container, Logs, Run, Task
from chalicelib.settings import TaskSettings
from chalicelib.store.blobs import Blobs, MissingBlobError

PIPES: Final = "/attune"  # where the containers of a task meet
SCRATCH: Final = "/tmp"  # noqa: S108  # within the container
NOBODY: Final = "65534:65534"
TENANT_GROUP: Final = "tenant:"
FETCH_SECONDS: Final = 15 * 60  # that a task may take to fetch its run
START_GRACE: Final = timedelta(minutes=5)  # that Fargate may take to find room and images
MAX_OVERRIDES: Final = 8000  # characters; AWS takes 8192 with what names the containers
MAX_RESULT: Final = 5_000_000  # bytes, with what is around a result of the most that a runner reports
_PLATFORM_MEMORY: Final = 256  # MiB, of the platform's containers
_NONCE: Final = 12

# CPU units of a Fargate task and the MiB that go with them, by step (AWS: "Fargate task CPU and memory").
_SIZES: Final = (
    (256, (512, 1024, 2048)),
    (512, tuple(range(1024, 4097, 1024))),
    (1024, tuple(range(2048, 8193, 1024))),
    (2048, tuple(range(4096, 16385, 1024))),
    (4096, tuple(range(8192, 30721, 1024))),
    (8192, tuple(range(16384, 61441, 4096))),
)

_encode = msgspec.json.Encoder().encode


class NotForTasksError(Exception):
    """The container says too little, or the engine has no room for it. Trying again does not help."""


class TasksBusyError(Exception):
    """ECS has no room just now."""


class Tasks:
    """Starts tasks, and reads what became of them."""

    def __init__(self, client: Callable[[], Any], settings: TaskSettings) -> None:
        self._client = client
        self._settings = settings

    def start(self, run: Run, blobs: Blobs) -> None:
        """Returns when ECS has taken the run. Raises :class:`NotForTasksError`, :class:`TasksBusyError`, or botocore's
        errors."""
        if run.container is None or not run.container.command:
            raise NotForTasksError(
                "a container on ECS needs a command or a script: the image's own cannot be read there"
            )
        key, sealed = seal(_encode(Task(run=run, result=_result_form(run, blobs))))
        url = blobs.presigned_get(blobs.put(_document(run.execution, run.attempt), sealed), FETCH_SECONDS)
        definition = self.definition(run.container)
        request = self._request(run, definition["family"], url, key)
        if len(json.dumps(request["overrides"])) > MAX_OVERRIDES:
            raise NotForTasksError(f"the environment of a task takes {MAX_OVERRIDES} characters")
        ecs = self._client()
        try:
            answer = ecs.run_task(**request)
        except ecs.exceptions.ClientException:  # nobody has run this yet
            ecs.register_task_definition(**definition)
            answer = ecs.run_task(**request)
        if not answer["tasks"]:
            raise TasksBusyError(", ".join(failure.get("reason", "") for failure in answer["failures"]))

    def _request(self, run: Run, family: str, url: str, key: str) -> Json:
        container = run.container
        groups = self._settings.open_groups if container and container.network else self._settings.closed_groups
        environments = {
            "action": run.environment,
            "report": {"ATTUNE_TASK_URL": url, "ATTUNE_TASK_KEY": key},
        }
        return {
            "cluster": self._settings.cluster,
            "taskDefinition": family,
            "launchType": "FARGATE",
            "startedBy": f"{run.execution}/{run.attempt}",
            "group": TENANT_GROUP + run.tenant,
            "clientToken": hashlib.sha256(run.token.encode()).hexdigest()[:32],
            "networkConfiguration": {
                "awsvpcConfiguration": {
                    "subnets": self._settings.subnets,
                    "securityGroups": groups,
                    "assignPublicIp": "ENABLED" if self._settings.public_address else "DISABLED",
                }
            },
            "overrides": {
                "containerOverrides": [
                    {"name": name, "environment": _pairs(values)} for name, values in environments.items()
                ]
            },
        }

    def definition(self, container: Container) -> Json:
        """What RegisterTaskDefinition takes; its family is named by its content."""
        cpu, memory = size(container)
        pipes = {"sourceVolume": "pipes", "containerPath": PIPES}
        platform = {
            "image": self._settings.image,
            "readonlyRootFilesystem": True,
            "mountPoints": [pipes],
            "logConfiguration": {
                "logDriver": "awslogs",
                "options": {
                    "awslogs-group": self._settings.logs,
                    "awslogs-region": self._client().meta.region_name,
                    "awslogs-stream-prefix": "task",
                },
            },
        }
        prepared = {"containerName": "prepare", "condition": "SUCCESS"}
        definition: dict[str, Json] = {
            "requiresCompatibilities": ["FARGATE"],
            "networkMode": "awsvpc",
            "cpu": str(cpu),
            "memory": str(memory),
            "executionRoleArn": self._settings.role,
            "volumes": [{"name": "pipes"}, {"name": "scratch"}],
            "containerDefinitions": [
                platform
                | {
                    "name": "prepare",
                    "command": ["prepare"],
                    "essential": False,
                    "mountPoints": [pipes, {"sourceVolume": "scratch", "containerPath": "/scratch"}],
                },
                platform | {"name": "report", "command": ["report"], "essential": True, "dependsOn": [prepared]},
                {
                    "name": "action",
                    "image": container.image,
                    "entryPoint": [f"{PIPES}/busybox", "sh", f"{PIPES}/start", str(container.processes)],
                    "command": container.command,
                    "essential": False,
                    "dependsOn": [prepared, {"containerName": "report", "condition": "START"}],
                    "user": NOBODY,
                    "readonlyRootFilesystem": True,
                    "memory": container.memory,
                    "cpu": round(container.cpu * 1024),
                    "linuxParameters": {"capabilities": {"drop": ["ALL"]}},
                    "mountPoints": [
                        {**pipes, "readOnly": True},
                        {"sourceVolume": "scratch", "containerPath": SCRATCH},
                    ],
                    "dockerLabels": {"attune.network": "open" if container.network else "none"},
                },
            ],
        }
        digest = hashlib.sha256(json.dumps(definition, sort_keys=True).encode()).hexdigest()[:32]
        return {"family": f"attune-{digest}", **definition}


def size(container: Container) -> tuple[int, int]:
    """CPU units and MiB of the smallest task that the container fits in."""
    wanted_cpu, wanted_memory = container.cpu * 1024, container.memory + _PLATFORM_MEMORY
    for cpu, memories in _SIZES:
        for memory in memories:
            if cpu >= wanted_cpu and memory >= wanted_memory:
                return cpu, memory
    raise NotForTasksError(f"no task has {container.cpu:g} processors and {container.memory} MiB")


def seal(document: bytes) -> tuple[str, bytes]:
    """A new key, and the document under it (AES-256-GCM, nonce first)."""
    key, nonce = secrets.token_bytes(32), secrets.token_bytes(_NONCE)
    return base64.urlsafe_b64encode(key).decode(), nonce + AESGCM(key).encrypt(nonce, document, None)


def result_of(blobs: Blobs, execution: int, attempt: int) -> bytes | None:
    """The RunFinished that the task uploaded; None if it came to nothing."""
    try:
        return blobs.get(_result(execution, attempt))
    except MissingBlobError:
        return None


def forget(blobs: Blobs, execution: int, attempt: int) -> None:
    """Delete what the attempt has in S3 but for its logs."""
    blobs.delete(_document(execution, attempt))
    blobs.delete(_result(execution, attempt))


def _result_form(run: Run, blobs: Blobs) -> Logs:
    seconds = int(run.timeout + START_GRACE.total_seconds()) + FETCH_SECONDS
    form = blobs.presigned_post(_result(run.execution, run.attempt), MAX_RESULT, seconds)
    return Logs(url=form["url"], fields=form["fields"])


def _document(execution: int, attempt: int) -> str:
    return f"tasks/{execution}-{attempt}.run"


def _result(execution: int, attempt: int) -> str:
    return f"tasks/{execution}-{attempt}.json"


def _pairs(environment: Mapping[str, str]) -> list[Json]:
    return [{"name": name, "value": value} for name, value in environment.items()]
