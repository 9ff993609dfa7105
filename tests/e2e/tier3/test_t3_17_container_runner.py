"""T3.17: actions in containers of their own: parameters on standard input, nothing shared, nothing left.

Every test runs twice: with containers of the Docker engine, as on one machine, and with tasks of ECS, as on AWS.
"""

import json
import os
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from helpers import engine
from helpers.client import ApiError, AttuneClient, Json
from helpers.fixtures import pack_archive, unique_ref
from helpers.narration import step, summary, title
from helpers.polling import wait_for, wait_for_execution_completion, wait_for_execution_status
from helpers.stack import Stack, running_stack

TIMEOUT = 60  # seconds

reason = engine.missing_engine()
pytestmark = [
    pytest.mark.tier3,
    pytest.mark.container,
    pytest.mark.runner,
    pytest.mark.skipif(reason is not None, reason=reason or ""),
]


@pytest.fixture(scope="module", params=["docker", "ecs"])
def stack(request: pytest.FixtureRequest, stack: Stack) -> Iterator[Stack]:
    """The platform of all tests, whose containers are the Docker engine's own; or one that runs them by ECS."""
    if not stack.is_local:
        pytest.skip("the platform is elsewhere: its engine is not this machine's")
    if request.param == "docker":
        yield stack
        return
    if "ATTUNE_API_URL" in os.environ:
        pytest.skip("the platform runs already: it takes one with ATTUNE_TASK_IMAGE")
    if why_not := engine.build_task_image():
        pytest.skip(why_not)
    groups = {"ATTUNE_TASK_CLOSED_GROUPS": "sg-closed", "ATTUNE_TASK_OPEN_GROUPS": "sg-open"}
    with running_stack(ATTUNE_TASK_IMAGE=engine.TASK_IMAGE, ATTUNE_TASK_SUBNETS="subnet", **groups) as with_tasks:
        yield with_tasks


@pytest.fixture(scope="module")
def client(stack: Stack) -> Iterator[AttuneClient]:
    """Signed in as the administrator of this module's platform."""
    with stack.sign_in() as signed_in:
        yield signed_in


def create_container_action(
    client: AttuneClient, pack: str, name: str, code: str, *, timeout: int | None = None, **container: Any
) -> str:
    """A Python script in a container; returns the action's ref."""
    ref = f"{pack}.{name}"
    spec = {"image": engine.IMAGE, "interpreter": ["python3", "-c"], **container}
    client.create_action(
        ref, pack, entrypoint=code, runtime_ref="core.container", container=spec, timeout=timeout, output_format="json"
    )
    return ref


def containers_of(execution: int) -> list[dict[str, Json]]:
    """The containers that there are of an execution."""
    filters = quote(json.dumps({"label": [f"attune.execution={execution}"]}))
    found: list[dict[str, Json]] = json.loads(engine.request("GET", f"/containers/json?all=1&filters={filters}")[1])
    return found


def assert_nothing_left(execution: int) -> None:
    wait_for(lambda: not containers_of(execution), timeout=TIMEOUT, what="the container to be removed")


def test_container_runner_basic_execution(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    title("T3.17: a Python container")
    pack = test_pack["ref"]

    step(1, "an action with an image")
    code = """
import json, platform, sys
print("working", file=sys.stderr)
print(json.dumps({"python": platform.python_version()}))
"""
    action = create_container_action(client, pack, "version", code)
    assert client.call("GET", f"actions/{action}")["data"]["container"]["image"] == engine.IMAGE

    step(2, "its execution")
    execution = wait_for_execution_status(client, client.execute(action)["id"], "succeeded", timeout=TIMEOUT)
    result = execution["result"]
    assert result["data"]["python"].startswith("3.11")
    assert result["exit_code"] == 0
    assert result["stderr"] == "working\n"
    assert_nothing_left(execution["id"])

    step(3, "the same from a pack's file")
    ref = unique_ref("contained")
    client.upload_pack(
        pack_archive(
            {
                "pack.yaml": f"ref: {ref}\nversion: 1.0.0\n",
                "actions/hello.yaml": f"ref: hello\nrunner_type: container\nentry_point: hello.sh\n"
                f"container: {{image: '{engine.IMAGE}'}}\n",
                "actions/hello.sh": 'echo "hello from $ATTUNE_ACTION"\n',
            }
        )
    )
    execution = wait_for_execution_status(client, client.execute(f"{ref}.hello")["id"], "succeeded", timeout=TIMEOUT)
    assert execution["result"]["stdout"] == f"hello from {ref}.hello\n"
    client.delete_pack(ref)
    summary("exit code, both streams and structured output of a container")


def test_container_runner_with_parameters(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    title("T3.17: parameters on standard input")
    pack = test_pack["ref"]

    step(1, "parameters of every type arrive as JSON, a secret among them")
    client.create_secret(f"{pack}.password", "correct horse battery", owner_type="pack", owner_pack_ref=pack)
    code = """
import json, os, sys
given = json.load(sys.stdin)
assert given["password"] == "correct horse battery"
assert "correct horse" not in str(os.environ) + str(sys.argv)
assert "ATTUNE_API_TOKEN" not in os.environ
print(json.dumps({"given": given, "environment": sorted(os.environ)}))
"""
    action = create_container_action(client, pack, "parameters", code)
    parameters = {"name": "Zoë", "count": 3, "ratio": 0.5, "on": True, "list": [1, "a"], "map": {"k": None}}
    execution = wait_for_execution_completion(client, client.execute(action, parameters)["id"], timeout=TIMEOUT)
    assert execution["status"] == "completed", execution["result"]
    data = execution["result"]["data"]
    assert data["given"] == {**parameters, "password": "********"}
    assert {"ATTUNE_EXEC_ID", "ATTUNE_ACTION", "ATTUNE_API_URL"} <= set(data["environment"])

    step(2, "a long one")
    text = "x" * 300_000
    counting = create_container_action(
        client, pack, "long", "import json, sys; print(len(json.load(sys.stdin)['text']))"
    )
    execution = wait_for_execution_status(
        client, client.execute(counting, {"text": text})["id"], "succeeded", timeout=TIMEOUT
    )
    assert execution["result"]["data"] == len(text)
    summary("parameters and keys on standard input, and nowhere else")


def test_container_runner_isolation(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    title("T3.17: containers are isolated")
    pack = test_pack["ref"]
    code = """
import json, os, pathlib, socket
def may(write):
    try:
        pathlib.Path(write).write_text("x")
        return True
    except OSError:
        return False
def reach():
    try:
        socket.create_connection(("127.0.0.1", int(os.environ["ATTUNE_API_URL"].rsplit(":", 1)[-1].split("/")[0])), 2)
        return True
    except (OSError, ValueError):
        return False
print(json.dumps({
    "left": pathlib.Path("/tmp/left").exists(),
    "scratch": may("/tmp/left"),
    "root": may("/left") or may("/usr/left") or may("/var/tmp/left"),
    "interfaces": os.listdir("/sys/class/net"),
    "api": reach(),
    "uid": os.getuid(),
    "processes": len([p for p in os.listdir("/proc") if p.isdigit()]),
}))
"""
    action = create_container_action(client, pack, "isolated", code)

    step(1, "two executions of one action, one after the other")
    for _ in range(2):
        execution = wait_for_execution_status(client, client.execute(action)["id"], "succeeded", timeout=TIMEOUT)
        found = execution["result"]["data"]
        assert found["left"] is False, "nothing of the execution before is there"
        assert found["scratch"] is True
        assert found["root"] is False, "its root is read-only"
        assert found["interfaces"] == ["lo"]
        assert found["api"] is False
        assert found["uid"] != 0
        assert found["processes"] <= 5, "it sees nobody else's processes"
        assert_nothing_left(execution["id"])

    step(2, "its memory is limited")
    greedy = create_container_action(client, pack, "greedy", "print(len(bytearray(300 << 20)))", memory=64)
    execution = wait_for_execution_status(client, client.execute(greedy)["id"], "failed", timeout=TIMEOUT)
    assert "memory" in execution["result"]["error"]
    assert_nothing_left(execution["id"])
    summary("no state, no network, no root, no more memory than it was given")


def test_container_runner_failure_handling(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    title("T3.17: failures are captured, and containers removed")
    pack = test_pack["ref"]

    step(1, "an exit code")
    code = "import sys; print('\"before\"'); sys.exit('it broke')"
    action = create_container_action(client, pack, "broken", code)
    execution = wait_for_execution_status(client, client.execute(action)["id"], "failed", timeout=TIMEOUT)
    assert execution["result"]["exit_code"] == 1
    assert execution["result"]["error"] == "it broke"
    assert execution["result"]["stdout"] == '"before"\n'
    assert_nothing_left(execution["id"])

    step(2, "an image that is nowhere")
    missing = create_container_action(client, pack, "missing", "0", image="localhost:1/attune/no-such-image:1")
    execution = wait_for_execution_status(client, client.execute(missing)["id"], "failed", timeout=TIMEOUT)
    assert "no-such-image" in execution["result"]["error"]

    step(3, "a program that the image does not have")
    lacking = create_container_action(client, pack, "lacking", "0", interpreter=["/no/such/program"])
    execution = wait_for_execution_status(client, client.execute(lacking)["id"], "failed", timeout=TIMEOUT)
    assert "/no/such/program" in execution["result"]["error"]
    assert_nothing_left(execution["id"])

    step(4, "a timeout")
    endless = create_container_action(client, pack, "endless", "import time; time.sleep(600)", timeout=2)
    execution = wait_for_execution_status(client, client.execute(endless)["id"], "failed", timeout=TIMEOUT)
    assert "timed out" in execution["result"]["error"]
    assert_nothing_left(execution["id"])

    step(5, "a cancellation")
    long = create_container_action(client, pack, "long", "import time; time.sleep(600)")
    id_ = client.execute(long)["id"]
    wait_for(
        lambda: [each for each in containers_of(id_) if each["State"] == "running"],
        timeout=TIMEOUT,
        what="the container to run",
    )
    began = time.monotonic()
    client.cancel_execution(id_)
    execution = wait_for_execution_status(client, id_, "cancelled", timeout=TIMEOUT)
    assert execution["result"]["cancelled"] is True
    assert time.monotonic() - began < 30
    assert_nothing_left(id_)

    step(6, "an action that names no image is refused")
    with pytest.raises(ApiError) as refused:
        client.create_action(f"{pack}.none", pack, entrypoint="0", runtime_ref="core.container")
    assert refused.value.status == 422
    summary("every way to fail is told, and none leaves a container")
