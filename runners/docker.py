"""A container on a Docker engine: made with every limit it has, fed, listened to, ended in time, and removed.

The engine is spoken to over its HTTP API on a Unix socket (Docker Engine API, v1.40 and later), with the standard
library: attaching to a container turns the connection into a plain stream, which HTTP clients do not give out.

Whatever happens to this process, the container goes: its guard is another process that waits for the end of this one.
"""

import contextlib
import http.client
import json
import os
import selectors
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final
from urllib.parse import quote, urlencode

from chalicelib.protocol import Container, Run
from runners.cancellation import Cancellation
from runners.capture import Capture
from runners.sandbox import TERMINATION_GRACE, Ended

Json = Any

DEFAULT_HOST: Final = "unix:///var/run/docker.sock"
NOBODY: Final = "65534:65534"
_ANSWER_SECONDS: Final = 30.0  # that the engine may take for one call, a pull aside
_MEBIBYTE: Final = 1 << 20
_FRAME: Final = struct.Struct(">BxxxL")  # stream, bytes (Engine API, "Stream format" of ContainerAttach)
_STDOUT: Final = 1
_BLOCK: Final = 1 << 16
_DEADLINE: Final = "attune.deadline"  # a label: seconds since the epoch after which nobody wants the container

_GUARD: Final = """
import os, signal, socket, sys
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
os.read(0, 1)
with socket.socket(socket.AF_UNIX) as engine:
    engine.connect(sys.argv[1])
    engine.sendall(sys.argv[2].encode())
    while engine.recv(65536):
        pass
"""


class EngineUnreachableError(Exception):
    """There is no Docker engine where one was looked for."""


class EngineError(Exception):
    """The engine refused; the message is its own."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Engine:
    """A Docker engine at ``host``, by default the one that ``DOCKER_HOST`` names (Unix sockets only)."""

    def __init__(self, host: str | None = None) -> None:
        self.host = host or os.environ.get("DOCKER_HOST") or DEFAULT_HOST

    @property
    def path(self) -> str:
        """The socket's path. Raises :class:`EngineUnreachableError` for a host that is none."""
        scheme, _, path = self.host.partition("://")
        if scheme != "unix":
            raise EngineUnreachableError(f"{self.host} is no Unix socket")
        return path

    def call(self, method: str, path: str, body: Json = None, *, timeout: float = _ANSWER_SECONDS) -> Json:
        """The engine's JSON answer, None where it has no content. Raises the module's errors, and TimeoutError."""
        with self._answer(method, path, body, timeout) as answer:
            content = answer.read()
        return json.loads(content) if content else None

    def pull(self, image: str, *, timeout: float) -> None:
        """Fetch ``image`` from its registry. Raises as :meth:`call` does; EngineError carries the registry's reason."""
        last = image.rpartition("/")[2]
        tag = {} if ":" in last or "@" in last else {"tag": "latest"}
        query = urlencode({"fromImage": image, **tag})
        deadline = time.monotonic() + timeout
        with self._answer("POST", f"/images/create?{query}", None, timeout) as progress:
            for line in progress:
                if time.monotonic() > deadline:
                    raise TimeoutError
                step = json.loads(line)
                if "error" in step:
                    raise EngineError(404, step["error"])

    def attach(self, container: str) -> socket.socket:
        """A stream with the container's standard input one way, and frames of both outputs the other."""
        query = "stream=1&stdin=1&stdout=1&stderr=1"
        connection = self._connection(_ANSWER_SECONDS)
        connection.request(
            "POST", f"/containers/{container}/attach?{query}", headers={"Connection": "Upgrade", "Upgrade": "tcp"}
        )
        answer = connection.getresponse()
        if answer.status != http.client.SWITCHING_PROTOCOLS:
            raise _refusal(answer)
        stream = connection.sock
        connection.sock = None  # it is ours now: the connection would close it
        return stream

    @contextlib.contextmanager
    def _answer(self, method: str, path: str, body: Json, timeout: float) -> Iterator[http.client.HTTPResponse]:
        connection = self._connection(timeout)
        with contextlib.closing(connection):
            content = None if body is None else json.dumps(body)
            connection.request(method, path, content, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            if answer.status >= http.client.BAD_REQUEST:
                raise _refusal(answer)
            yield answer

    def _connection(self, timeout: float) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("docker", timeout=timeout)
        connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.sock.settimeout(timeout)
        try:
            connection.sock.connect(self.path)
        except OSError as error:
            connection.close()
            raise EngineUnreachableError(f"no Docker engine answers at {self.host} ({error.strerror})") from error
        return connection


def _refusal(answer: http.client.HTTPResponse) -> EngineError:
    content = answer.read().decode("utf-8", "replace")
    with contextlib.suppress(ValueError, AttributeError):
        content = json.loads(content).get("message", content)
    return EngineError(answer.status, content.strip() or answer.reason)


def specification(run: Run, deadline: float) -> Json:
    """The body of ContainerCreate: everything is closed that the action does not need."""
    container = _container(run)
    argv = container.command
    runs = {"Entrypoint": argv[:1], "Cmd": argv[1:]} if argv else {}
    return runs | {
        "Image": container.image,
        "Env": [f"{name}={value}" for name, value in run.environment.items()],
        "User": NOBODY,
        "AttachStdin": True,
        "AttachStdout": True,
        "AttachStderr": True,
        "OpenStdin": True,
        "StdinOnce": True,
        "NetworkDisabled": not container.network,
        "Labels": {
            "attune.tenant": run.tenant,
            "attune.execution": str(run.execution),
            "attune.attempt": str(run.attempt),
            _DEADLINE: str(int(deadline)),
        },
        "HostConfig": {
            "NetworkMode": "bridge" if container.network else "none",
            "Memory": container.memory * _MEBIBYTE,
            "MemorySwap": container.memory * _MEBIBYTE,  # memory and swap together: no swap
            "NanoCpus": round(container.cpu * 1e9),
            "PidsLimit": container.processes,
            "ReadonlyRootfs": True,
            "Tmpfs": {"/tmp": f"rw,nosuid,nodev,mode=1777,size={container.scratch}m"},  # noqa: S108  # in the container
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges"],
            "LogConfig": {
                "Type": "none",
                "Config": {},
            },  # what it says may hold secrets: it is not for the engine's disk
            "IpcMode": "private",
            "ShmSize": _MEBIBYTE,
        },
    }


def run_container(
    engine: Engine,
    run: Run,
    stdin: bytes,
    *,
    timeout: float,
    stdout: Capture,
    stderr: Capture,
) -> Ended:
    """Run it to its end, or for ``timeout`` seconds, the image's way from its registry included.

    Raises :class:`EngineUnreachableError`; what the engine refuses is in ``not_started``.
    """
    supervisor = _Supervisor(engine, run, timeout, stdout, stderr)
    try:
        return supervisor.carry_out(stdin)
    except EngineError as error:
        return supervisor.ended(not_started=f"the container could not be started: {error}")
    except TimeoutError:
        return supervisor.ended(timed_out=True)


class _Supervisor:
    """The loop around one container. Times are of the monotonic clock, in seconds."""

    def __init__(self, engine: Engine, run: Run, timeout: float, stdout: Capture, stderr: Capture) -> None:
        self._engine = engine
        self._run = run
        self._timeout = timeout
        self._stdout, self._stderr = stdout, stderr
        self._begun = time.monotonic()
        self._cancellation = Cancellation(run.stop_url)
        self._cancelled = False
        self._pending = b""  # of a frame that is not whole yet

    def ended(self, **fields: Any) -> Ended:
        given: dict[str, Any] = {
            "exit_code": None,
            "stdout": self._stdout.captured(),
            "stderr": self._stderr.captured(),
            "duration_ms": round((time.monotonic() - self._begun) * 1000),
        }
        return Ended(**given | fields)

    def carry_out(self, stdin: bytes) -> Ended:
        remove_overdue(self._engine)
        # Not longer than this would anybody wait for it, killed runners and all.
        deadline = time.time() + self._timeout + 2 * TERMINATION_GRACE + _ANSWER_SECONDS
        container = self._create(specification(self._run, deadline))
        with self._guarded(container), contextlib.closing(self._engine.attach(container)) as stream:
            try:
                self._engine.call("POST", f"/containers/{container}/start")
            except EngineError as error:
                return self.ended(not_started=_why_not(error, _container(self._run).command))
            if not self._converse(stream, stdin, self._begun + self._timeout):
                timed_out = not self._cancelled
                self._terminate(container, stream)
            else:
                timed_out = False
                self._engine.call("POST", f"/containers/{container}/wait", timeout=self._left() + _ANSWER_SECONDS)
            state = self._engine.call("GET", f"/containers/{container}/json")["State"]
            return self.ended(
                exit_code=state["ExitCode"],
                timed_out=timed_out,
                cancelled=self._cancelled,
                failure=self._failure(state),
            )

    def _failure(self, state: Json) -> str | None:
        if state.get("OOMKilled") and state["ExitCode"] != 0:
            return f"the container ran out of its {_container(self._run).memory} MiB of memory"
        return None

    def _create(self, body: Json) -> str:
        name = f"attune-{self._run.execution}-{self._run.attempt}-{os.urandom(4).hex()}"
        try:
            return str(self._engine.call("POST", f"/containers/create?name={name}", body)["Id"])
        except EngineError as error:
            if error.status != http.client.NOT_FOUND:
                raise
        image = body["Image"]
        try:
            self._engine.pull(image, timeout=self._left())
        except EngineError as error:
            raise EngineError(error.status, f"image {image} is not to be had: {error}") from error
        return str(self._engine.call("POST", f"/containers/create?name={name}", body)["Id"])

    def _left(self) -> float:
        left = self._begun + self._timeout - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    @contextlib.contextmanager
    def _guarded(self, container: str) -> Iterator[None]:
        """Removes the container at the end, by this process or, when that is killed, by its guard."""
        removal = f"/containers/{container}?force=1&v=1"
        request = f"DELETE {removal} HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n"
        guard = subprocess.Popen(  # noqa: S603  # our own program
            [sys.executable, "-I", "-S", "-c", _GUARD, self._engine.path, request],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={},
            cwd="/",
            start_new_session=True,
        )
        try:
            yield
        finally:
            # Without the engine's word that it is gone, removing it stays with the guard.
            with contextlib.suppress(EngineUnreachableError, EngineError, OSError, http.client.HTTPException):
                self._engine.call("DELETE", removal)
                guard.kill()
            if guard.stdin:
                guard.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                guard.wait(_ANSWER_SECONDS)

    def _converse(self, stream: socket.socket, stdin: bytes, until: float) -> bool:
        """Feed and listen until the container has ended (True), or is to end by the time or by its user (False)."""
        stream.settimeout(0)
        rest = memoryview(stdin)
        with selectors.DefaultSelector() as selector:
            selector.register(stream, selectors.EVENT_READ | selectors.EVENT_WRITE)
            while True:
                now = time.monotonic()
                if now >= until:
                    return False
                if self._cancellation.heard():
                    self._cancelled = True
                    return False
                for _, events in selector.select(max(0.0, min(until, self._cancellation.due) - now)):
                    if events & selectors.EVENT_WRITE:
                        rest = _fed(stream, rest)
                        if not rest:
                            selector.modify(stream, selectors.EVENT_READ)
                    if events & selectors.EVENT_READ and not self._heard(stream):
                        return True

    def _heard(self, stream: socket.socket) -> bool:
        try:
            block = stream.recv(_BLOCK)
        except BlockingIOError:
            return True
        except ConnectionError:
            return False
        data = self._pending + block
        while len(data) >= _FRAME.size:
            kind, size = _FRAME.unpack_from(data)
            if len(data) < _FRAME.size + size:
                break
            content, data = data[_FRAME.size : _FRAME.size + size], data[_FRAME.size + size :]
            (self._stdout if kind == _STDOUT else self._stderr).add(content)
        self._pending = data
        return bool(block)

    def _terminate(self, container: str, stream: socket.socket) -> None:
        """SIGTERM to its first process, and SIGKILL to all after the grace (semantics §2.6)."""
        self._cancellation.settle()
        for number in ("SIGTERM", "SIGKILL"):
            with contextlib.suppress(EngineError):  # it has just ended
                self._engine.call("POST", f"/containers/{container}/kill?signal={number}")
            if self._converse(stream, b"", time.monotonic() + TERMINATION_GRACE):
                return


def _container(run: Run) -> Container:
    if run.container is None:
        raise ValueError("a container's run without a container")
    return run.container


def _fed(stream: socket.socket, rest: memoryview) -> memoryview:
    """What is still to be written. At the end the container reads the end of its standard input."""
    try:
        while rest:
            rest = rest[stream.send(rest) :]
        stream.shutdown(socket.SHUT_WR)
    except BlockingIOError:
        pass
    except OSError:  # it has closed its input, or ended
        return rest[len(rest) :]
    return rest


def _why_not(error: EngineError, argv: Sequence[str] | None) -> str:
    if argv and ("executable file not found" in str(error) or "no such file or directory" in str(error)):
        return f"the container could not be started: the image has no `{argv[0]}`"
    return f"the container could not be started: {error}"


def remove_overdue(engine: Engine) -> None:
    """Remove containers that a killed runner and its guard have left, once their time is over."""
    filters = quote(json.dumps({"label": [_DEADLINE]}))
    for container in engine.call("GET", f"/containers/json?all=1&filters={filters}"):
        if float(container["Labels"][_DEADLINE]) < time.time():
            with contextlib.suppress(EngineError):  # somebody else has
                engine.call("DELETE", f"/containers/{container['Id']}?force=1&v=1")
