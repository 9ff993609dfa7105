"""Tasks of ECS on this machine as they are on Fargate, on its Docker engine.

MiniStack starts a task's containers one after the other, each by its image and command alone. Here they wait for one
another, share the task's volumes, get their limits and their own entry point, and are removed when the task has
stopped, of which EventBridge hears. The action's container has the network that Fargate's security groups leave it:
none, or the engine's; the platform's two have the machine's, since that is where the emulator is.
"""

import contextlib
import json
import threading
from typing import Any, Final

import docker
from docker.errors import DockerException

PREFIX: Final = "ministack-ecs-"
_PREPARED_SECONDS: Final = 60
_MEBIBYTE: Final = 1 << 20


def run_as_on_fargate() -> None:
    """Adjusts the emulator, which has been imported."""
    from ministack.services import ecs, eventbridge

    run, mark = ecs._run_docker_container, ecs._mark_task_stopped

    def run_container(engine: Any, definition: dict[str, Any], options: dict[str, Any], **rest: Any) -> Any:
        task = options["labels"]["com.amazonaws.ecs.task-arn"]
        for other in definition.get("dependsOn", ()):
            if other["condition"] in ("COMPLETE", "SUCCESS"):
                engine.containers.get(_name(task, other["containerName"])).wait(timeout=_PREPARED_SECONDS)
        started_by = (ecs._tasks.get(task) or {}).get("startedBy", "")
        return run(engine, definition, _options(task, started_by, definition, options), **rest)

    def mark_stopped(arn: str, task: dict[str, Any], reason: str, code: str, exit_code: int | None = None) -> Any:
        marked = mark(arn, task, reason, code, exit_code)
        if marked:
            told = {key: task.get(key) for key in ("taskArn", "clusterArn", "group", "startedBy", "lastStatus")}
            told |= {"stopCode": code, "stoppedReason": reason}
            entry = {"Source": "aws.ecs", "DetailType": "ECS Task State Change", "Detail": json.dumps(told)}
            eventbridge._put_events({"Entries": [entry]}, allow_aws_source=True)
            threading.Thread(target=_remove, args=(arn,), name="task-removal", daemon=True).start()
        return marked

    ecs._run_docker_container = run_container
    ecs._mark_task_stopped = mark_stopped


def _name(task: str, part: str) -> str:
    return f"{PREFIX}{task.rpartition('/')[2][:8]}-{part}"


def _options(task: str, started_by: str, definition: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """What the engine's client takes for a container: what MiniStack says, and what the definition says besides."""
    labels = definition.get("dockerLabels", {})
    is_action = definition["name"] == "action"
    options = {name: value for name, value in given.items() if name not in ("network", "extra_hosts")}
    capabilities = definition.get("linuxParameters", {}).get("capabilities", {})
    options |= {
        "entrypoint": definition.get("entryPoint"),
        "user": definition.get("user"),
        "read_only": definition.get("readonlyRootFilesystem", False),
        "cap_drop": capabilities.get("drop"),
        "labels": {**given["labels"], **labels, "attune.execution": started_by.partition("/")[0]},
        "log_config": {"Type": "none"},
        "network_mode": "host",
        "volumes": [
            f"{_name(task, mount['sourceVolume'])}:{mount['containerPath']}:{'ro' if mount.get('readOnly') else 'rw'}"
            for mount in definition.get("mountPoints", ())
        ],
    }
    if is_action:
        options["network_mode"] = "none" if labels.get("attune.network") == "none" else "bridge"
    if definition.get("memory"):
        options["mem_limit"] = options["memswap_limit"] = definition["memory"] * _MEBIBYTE
    if definition.get("cpu"):
        options["nano_cpus"] = round(definition["cpu"] / 1024 * 1e9)
    return options


def _remove(task: str) -> None:
    with contextlib.suppress(DockerException), contextlib.closing(docker.from_env()) as engine:
        for container in engine.containers.list(all=True, filters={"label": f"com.amazonaws.ecs.task-arn={task}"}):
            with contextlib.suppress(DockerException):  # MiniStack has been faster
                container.remove(force=True)
        for volume in ("pipes", "scratch"):
            with contextlib.suppress(DockerException):
                engine.volumes.get(_name(task, volume)).remove(force=True)
