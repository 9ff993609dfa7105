"""The platform's containers in a task, with a shell in the place of the action's container."""

import base64
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from chalicelib.protocol import Container, Logs, Run, RunFinished, Task
from runners import cancellation, task

Act = Callable[..., RunFinished]


@pytest.fixture
def pipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that a task's containers share, prepared."""
    shell = shutil.which("sh")
    assert shell
    monkeypatch.setattr(task, "PIPES", tmp_path)
    monkeypatch.setattr(task, "SCRATCH", tmp_path / "scratch")
    monkeypatch.setattr(task.shutil, "which", lambda _: shell)
    task.prepare()
    return tmp_path


@pytest.fixture
def act(pipes: Path) -> Act:
    """Run a script as the action's container would, and what is reported of it."""

    def act(script: str, **fields: Any) -> RunFinished:
        given = {"tenant": "acme", "execution": 7, "attempt": 1, "token": "one-time", "action_ref": "a.b"}
        container = Container(image="python:3.11-slim", command=["x"], memory=64)
        run = Run(**given | {"runner": "container", "entrypoint": "", "container": container, "timeout": 20.0} | fields)
        # No limit of processes here: the user who runs the tests has others.
        start = (pipes / "start").read_text().replace('ulimit -u "$1"', "")
        action = subprocess.Popen(["sh", "-c", start, "sh", "1024", "sh", "-c", script])
        try:
            return task.carry_out(run)
        finally:
            action.kill()
            action.wait()

    return act


def test_streams_and_exit_code_come_through_the_pipes(act: Act) -> None:
    finished = act("echo out; echo err >&2; exit 3")
    assert finished.status == "failed"
    assert (finished.result["exit_code"], finished.result["stdout"], finished.result["error"]) == (3, "out\n", "err")
    assert finished.token == "one-time"


def test_parameters_go_in_and_secrets_do_not_come_out(act: Act) -> None:
    text = "x" * 300_000
    finished = act("cat", parameters={"password": "hunter2", "text": text}, secrets=["hunter2"], output_format="json")
    assert finished.result["data"] == {"password": "********", "text": text}


def test_who_does_not_read_is_not_waited_for(act: Act) -> None:
    assert act("exit 0", parameters={"text": "x" * 300_000}).status == "completed"


def test_a_timeout_is_reported(act: Act) -> None:
    finished = act("echo begun; exec sleep 60", timeout=1.0)
    assert finished.timed_out
    assert finished.result["error"] == "Execution timed out after 1 seconds"
    assert finished.result["stdout"] == "begun\n"


def test_a_program_that_was_killed_may_have_run_out_of_memory(act: Act) -> None:
    finished = act("kill -9 $$")
    assert finished.result["exit_code"] == 137
    assert "64 MiB of memory" in finished.result["error"]


def test_a_descendant_that_holds_the_streams_is_not_waited_for(act: Act, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task, "LAST_WORDS", 0.2)
    assert act("sleep 30 & echo done").result["stdout"] == "done\n"


def test_an_action_that_never_comes_is_a_clear_failure(pipes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task, "START_SECONDS", 0.3)
    run = Run(
        tenant="acme",
        execution=7,
        attempt=1,
        token="t",
        action_ref="a.b",
        runner="container",
        entrypoint="",
        container=Container(image="a"),
    )
    assert task.carry_out(run).result == {
        "succeeded": False,
        "error": "the container did not start within 0.3 seconds",
    }


def test_a_cancelled_run_ends_at_once(act: Act, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cancellation, "FIRST_LOOK", 0.1)
    monkeypatch.setattr(cancellation, "is_there", lambda url: url == "https://marks/7")
    finished = act("exec sleep 60", stop_url="https://marks/7")
    assert (finished.result["cancelled"], finished.result["exit_code"]) == (True, -1)


class _Bucket(BaseHTTPRequestHandler):
    """Gives out one document, and keeps what is uploaded."""

    document = b""
    uploaded = b""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(_Bucket.document)

    def do_POST(self) -> None:
        _Bucket.uploaded = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def bucket() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), _Bucket) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def test_the_run_is_unsealed_and_its_result_uploaded(pipes: Path, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(
        tenant="acme",
        execution=7,
        attempt=1,
        token="one-time",
        action_ref="a.b",
        runner="container",
        entrypoint="",
        parameters={"a": 1},
        container=Container(image="a"),
    )
    document = msgspec.json.encode(Task(run=run, result=Logs(url=bucket, fields={"key": "tasks/7-1.json"})))
    key, nonce = os.urandom(32), os.urandom(12)
    _Bucket.document = nonce + AESGCM(key).encrypt(nonce, document, None)
    monkeypatch.setenv("ATTUNE_TASK_URL", bucket)
    monkeypatch.setenv("ATTUNE_TASK_KEY", base64.urlsafe_b64encode(key).decode())
    start = (pipes / "start").read_text().replace('ulimit -u "$1"', "")
    with subprocess.Popen(["sh", "-c", start, "sh", "64", "cat"]):
        task.report()

    finished = json.loads(_Bucket.uploaded[_Bucket.uploaded.index(b'{"kind"') :].partition(b"\r\n--")[0])
    assert (finished["status"], finished["token"]) == ("completed", "one-time")
    assert finished["result"]["stdout"] == '{"a":1}\n'
    assert b"tasks/7-1.json" in _Bucket.uploaded
