"""Containers on a real engine: their limits, their ends, and that nothing of them is left."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from helpers.engine import IMAGE, has_network, missing_engine, request
from helpers.polling import wait_for

from chalicelib.protocol import Container, Run, RunFinished
from runners import docker
from runners.handler import Runner

pytestmark = pytest.mark.slow

Carry = Callable[..., RunFinished]

needs_engine = pytest.mark.skipif((reason := missing_engine()) is not None, reason=reason or "")


def container(command: list[str], **limits: Any) -> Container:
    return Container(image=limits.pop("image", IMAGE), command=command, **limits)


def sh(script: str, **limits: Any) -> Container:
    return container(["/bin/sh", "-c", script], **limits)


def python(code: str, **limits: Any) -> Container:
    return container(["python3", "-c", code], **limits)


def containers(tenant: str) -> list[Any]:
    filters = quote(json.dumps({"label": [f"attune.tenant={tenant}"]}))
    found: list[Any] = json.loads(request("GET", f"/containers/json?all=1&filters={filters}")[1])
    return found


@pytest.fixture
def tenant(request: pytest.FixtureRequest) -> Iterator[str]:
    """A tenant of this test's own, of whom no container may be left."""
    name = f"t{os.getpid()}-{abs(hash(request.node.name)):x}"
    yield name
    assert containers(name) == []


@pytest.fixture
def contain(runner: Runner, tenant: str) -> Carry:
    def contain(what: Container, **fields: Any) -> RunFinished:
        given = {"tenant": tenant, "execution": 7, "attempt": 1, "token": "one-time-token", "action_ref": "demo.it"}
        run = Run(**given | {"runner": "container", "entrypoint": "", "container": what, "timeout": 60.0} | fields)
        return runner.carry_out(run)

    return contain


@needs_engine
def test_both_streams_and_the_exit_code_come_back(contain: Carry) -> None:
    finished = contain(sh("echo out; echo err >&2; exit 3"))

    assert finished.status == "failed"
    assert finished.result["exit_code"] == 3
    assert finished.result["stdout"] == "out\n"
    assert finished.result["stderr"] == "err\n"
    assert finished.result["error"] == "err"


@needs_engine
def test_parameters_are_json_on_standard_input(contain: Carry) -> None:
    text = "ü\n" * 200_000  # more than a pipe holds
    finished = contain(
        python("import json, sys; p = json.load(sys.stdin); print(json.dumps({'length': len(p['text'])}))"),
        parameters={"text": text},
        output_format="json",
    )

    assert finished.status == "completed"
    assert finished.result["data"] == {"length": len(text)}


@needs_engine
def test_it_may_write_to_its_scratch_folder_only(contain: Carry) -> None:
    script = "id -u; echo x >/tmp/x && echo scratch; echo x >/x || echo refused; echo x >/etc/x || echo refused"
    finished = contain(sh(f"{script}; head -c 9000000 /dev/zero >/tmp/y || echo full", scratch=8))

    assert finished.result["stdout"].splitlines() == ["65534", "scratch", "refused", "refused", "full"]


@needs_engine
def test_it_has_no_network_and_no_capabilities(contain: Carry) -> None:
    finished = contain(sh("ls /sys/class/net; grep -E 'CapEff|CapBnd|NoNewPrivs' /proc/self/status"))

    assert finished.result["stdout"].split() == [
        "lo", "CapEff:", "0" * 16, "CapBnd:", "0" * 16, "NoNewPrivs:", "1",
    ]  # fmt: skip


@needs_engine
def test_memory_is_limited(contain: Carry) -> None:
    finished = contain(python("x = bytearray(200 << 20); print(len(x))", memory=64))

    assert finished.status == "failed"
    assert finished.result["error"] == "the container ran out of its 64 MiB of memory"
    assert finished.result["exit_code"] == 137


@needs_engine
def test_processes_are_limited(contain: Carry) -> None:
    code = """
import os, time
count = 0
try:
    while count < 100:
        if os.fork() == 0:
            time.sleep(60)
        count += 1
except OSError as error:
    print(count, error.strerror)
"""
    finished = contain(python(code, processes=10))

    assert finished.result["stdout"] == "9 Resource temporarily unavailable\n"


@needs_engine
def test_processor_time_is_limited(contain: Carry) -> None:
    code = "import time; end = time.monotonic() + 2\nwhile time.monotonic() < end: pass\nprint(time.process_time())"
    finished = contain(python(code, cpu=0.2))

    assert float(finished.result["stdout"]) < 1.0


@needs_engine
def test_a_timeout_kills_what_ignores_sigterm(contain: Carry) -> None:
    began = time.monotonic()
    finished = contain(sh("trap '' TERM; echo begun; while :; do sleep 1; done"), timeout=2.0)

    assert finished.timed_out
    assert finished.result["error"] == "Execution timed out after 2 seconds"
    assert finished.result["exit_code"] == -1
    assert finished.result["stdout"] == "begun\n"
    assert time.monotonic() - began < 15


@needs_engine
def test_an_image_that_is_nowhere_is_a_clear_failure(contain: Carry) -> None:
    finished = contain(sh("true", image="localhost:1/attune/no-such-image:1"))

    assert finished.status == "failed"
    assert "image localhost:1/attune/no-such-image:1 is not to be had" in finished.result["error"]


@needs_engine
def test_a_program_that_the_image_lacks_is_a_clear_failure(contain: Carry) -> None:
    finished = contain(container(["/no/such/program"]))

    assert finished.result == {
        "succeeded": False,
        "error": "the container could not be started: the image has no `/no/such/program`",
    }


@needs_engine
def test_secrets_are_masked_in_what_it_prints(contain: Carry) -> None:
    finished = contain(
        sh('cat; echo "$OPEN"; cat >&2 </dev/null; echo hunter2-secret >&2; exit 1'),
        parameters={"password": "hunter2-secret"},
        secrets=["hunter2-secret"],
        environment={"OPEN": "yes"},
    )

    assert "hunter2" not in json.dumps(finished.result)
    assert finished.result["stdout"] == '{"password":"********"}\nyes\n'


@needs_engine
def test_endless_output_is_counted_and_cut(contain: Carry) -> None:
    finished = contain(sh("head -c 30000000 /dev/zero | tr '\\0' x"))

    assert finished.status == "completed"
    assert finished.result["stdout_bytes"] == 30_000_000
    assert len(finished.result["stdout"]) < 100_000


class _Mark(BaseHTTPRequestHandler):
    """Answers 404 until its server's ``marked`` is set."""

    def do_GET(self) -> None:
        self.send_response(200 if self.server.marked.is_set() else 404)  # type: ignore[attr-defined]
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@needs_engine
def test_cancelling_kills_it(contain: Carry, tenant: str) -> None:
    with HTTPServer(("127.0.0.1", 0), _Mark) as server:
        server.marked = threading.Event()  # type: ignore[attr-defined]
        threading.Thread(target=partial(server.serve_forever, 0.05), daemon=True).start()

        def mark_once_it_runs() -> None:
            wait_for(lambda: containers(tenant), timeout=20, what="the container")
            server.marked.set()  # type: ignore[attr-defined]

        marking = threading.Thread(target=mark_once_it_runs)
        marking.start()
        began = time.monotonic()
        finished = contain(sh("sleep 60"), stop_url=f"http://127.0.0.1:{server.server_port}/")
        marking.join()
        server.shutdown()

    assert finished.result["cancelled"] is True
    assert finished.result["error"] == "Execution cancelled by user"
    assert time.monotonic() - began < 20


@needs_engine
def test_a_runner_that_is_killed_leaves_no_container(tenant: str) -> None:
    code = f"""
from chalicelib.protocol import Container, Run
from runners import docker
from runners.capture import Capture
what = Container(image={IMAGE!r}, command=["/bin/sh", "-c", "sleep 60"])
run = Run(tenant={tenant!r}, execution=7, attempt=1, token="t", action_ref="a", runner="container", entrypoint="",
          container=what)
docker.run_container(docker.Engine(), run, b"", timeout=60, stdout=Capture(), stderr=Capture())
"""
    root = Path(docker.__file__).parent.parent
    runner = subprocess.Popen([sys.executable, "-c", code], cwd=root)
    try:
        wait_for(
            lambda: [each for each in containers(tenant) if each["State"] == "running"],
            timeout=30,
            what="the container to run",
        )
    finally:
        runner.send_signal(signal.SIGKILL)
        runner.wait()

    wait_for(lambda: not containers(tenant), timeout=30, what="the container to be gone")


@needs_engine
def test_what_is_overdue_is_removed(tenant: str) -> None:
    engine = docker.Engine()
    run = Run(
        tenant=tenant,
        execution=7,
        attempt=1,
        token="t",
        action_ref="a",
        runner="container",
        entrypoint="",
        container=sh("sleep 60"),
    )
    for deadline in (time.time() - 1, time.time() + 600):
        made = engine.call("POST", "/containers/create", docker.specification(run, deadline))["Id"]

    try:
        docker.remove_overdue(engine)
        # Another process that runs containers may be about to remove it as well.
        wait_for(lambda: [each["Id"] for each in containers(tenant)] == [made], timeout=20, what="one to be left")
    finally:
        engine.call("DELETE", f"/containers/{made}?force=1")


def test_without_an_engine_the_execution_fails_and_says_so(
    runner: Runner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/docker.sock")
    run = Run(
        tenant="acme",
        execution=7,
        attempt=1,
        token="t",
        action_ref="a",
        runner="container",
        entrypoint="",
        container=sh("true"),
    )

    finished = runner.carry_out(run)

    assert finished.status == "failed"
    assert finished.result["error"] == (
        f"Containers cannot run here: no Docker engine answers at unix://{tmp_path}/docker.sock"
        " (No such file or directory)"
    )


def test_nothing_secret_is_in_what_an_engine_is_told() -> None:
    run = Run(
        tenant="acme",
        execution=7,
        attempt=1,
        token="one-time",
        action_ref="a",
        runner="container",
        entrypoint="",
        parameters={"password": "hunter2"},
        secrets=["hunter2"],
        container=sh("true"),
    )
    told = json.dumps(docker.specification(run, 1.0))
    assert "hunter2" not in told
    assert "one-time" not in told


@needs_engine
def test_a_network_is_there_only_when_asked_for(contain: Carry) -> None:
    if not has_network():
        pytest.skip("the Docker engine has no bridge network")
    finished = contain(sh("ls /sys/class/net", network=True))

    assert sorted(finished.result["stdout"].split()) == ["eth0", "lo"]
