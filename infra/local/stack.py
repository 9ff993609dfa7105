"""Attune on one machine: ``make run`` (design §8).

One process holds the embedded AWS and serves the API; its functions are child processes. State lives in one folder
and survives a restart. With ``AWS_ENDPOINT_URL`` set, the stack is deployed there and only the API's port is served
from here.

Settings (environment): ``ATTUNE_PORT`` 8080, ``ATTUNE_AWS_PORT`` 4566, ``ATTUNE_BIND`` 127.0.0.1, ``ATTUNE_STATE_DIR``
.attune, ``ATTUNE_ADMIN_LOGIN``, ``ATTUNE_ADMIN_PASSWORD``; docs/operating.md has the rest.
"""

import asyncio
import contextlib
import errno
import fcntl
import json
import logging
import os
import shutil
import signal
import socket
import stat
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import uvicorn
import uvloop

from infra import steps
from infra.local import keys, processes

_SAVE_SECONDS: Final = 30
_STOP_SECONDS: Final = 2.0  # what functions get to end by themselves


class StartError(Exception):
    """One sentence for whoever started the stack."""


@dataclass(frozen=True)
class Place:
    """Where this stack is, as told by the environment."""

    port: int
    aws_port: int
    bind: str
    state: Path
    endpoint: str | None  # an emulator elsewhere

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}"


def place_from(environment: Mapping[str, str]) -> Place:
    """Reads the settings. Raises :class:`StartError` on a port that is no port."""
    return Place(
        port=_port(environment, "ATTUNE_PORT", 8080),
        aws_port=_port(environment, "ATTUNE_AWS_PORT", 4566),
        bind=environment.get("ATTUNE_BIND") or "127.0.0.1",
        state=Path(environment.get("ATTUNE_STATE_DIR") or ".attune").resolve(),
        endpoint=environment.get("AWS_ENDPOINT_URL") or None,
    )


def _port(environment: Mapping[str, str], name: str, default: int) -> int:
    given = environment.get(name) or str(default)
    if not given.isdigit() or not 0 < int(given) < 65536:
        raise StartError(f"{name} must be a port number from 1 to 65535, not {given!r}.")
    return int(given)


def _count(name: str, default: int) -> int:
    given = os.environ.get(name) or str(default)
    if not given.isdigit() or int(given) < 1:
        raise StartError(f"{name} must be a number from 1, not {given!r}.")
    return int(given)


def _listen(bind: str, port: int, variable: str) -> socket.socket:
    """A listening socket, held from now on, so that nobody takes the port while the stack starts."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((bind, port))
        listener.listen(512)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise StartError(
                f"Port {port} is taken by another program: stop that, or choose another with {variable}."
            ) from error
        raise StartError(f"Port {port} of {bind} cannot be used: {error.strerror} (see {variable}).") from error
    listener.settimeout(0)
    return listener


@contextlib.contextmanager
def _claimed(state: Path) -> Any:
    """The state folder, for this process alone."""
    try:
        _make_private(state)
        lock = (state / "lock").open("a+")
    except OSError as error:
        raise StartError(f"The folder {state} cannot be used: {error.strerror} (see ATTUNE_STATE_DIR).") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StartError(
                f"Another stack is running on {state}: stop it, or choose another folder with ATTUNE_STATE_DIR."
            ) from error
        yield


def _make_private(state: Path) -> None:
    """Makes the state folder, or closes it to other users: tables and keys are in it. Raises :class:`StartError` on a
    folder that others use too."""
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = state.stat()
    if found.st_mode & stat.S_ISVTX or found.st_uid != os.geteuid():
        raise StartError(f"The folder {state} is not this user's alone: choose another with ATTUNE_STATE_DIR.")
    state.chmod(0o700)


@contextlib.contextmanager
def _workspace(state: Path) -> Any:
    """A folder for everything temporary, removed at the end; a killed predecessor's is removed at the start.

    It is not inside the state folder because actions run as another user where they can, and must be able to reach
    their working folder below it.
    """
    note = state / "workspace"
    if note.exists():
        left = Path(note.read_text().strip())
        if left.name.startswith("attune-"):
            shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix="attune-"))
    folder.chmod(0o711)
    note.write_text(str(folder))
    tempfile.tempdir = str(folder)
    os.environ["TMPDIR"] = str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = None
        shutil.rmtree(folder, ignore_errors=True)
        note.unlink(missing_ok=True)


async def _deploy(
    place: Place, stop: asyncio.Event, *, slim: bool, on_step: Callable[[str], None] = lambda _: None
) -> dict[str, str] | None:
    """Runs the deployment, repeating its progress and passing each step on to ``on_step``. Returns the stack's
    outputs, or None when told to stop."""
    outputs = place.state / "outputs.json"
    command = [sys.executable, "-m", "infra.deploy", "--outputs", str(outputs)] + (["--slim"] if slim else [])
    process = await asyncio.create_subprocess_exec(
        *command,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={
            **os.environ,
            "ATTUNE_PUBLIC_URL": os.environ.get("ATTUNE_PUBLIC_URL") or place.url,
            "ATTUNE_SELF_REGISTRATION": os.environ.get("ATTUNE_SELF_REGISTRATION") or "on",
        },
        start_new_session=True,  # Ctrl-C is for us; we end it
    )
    assert process.stdout  # noqa: S101
    assert process.stderr  # noqa: S101
    complaint = asyncio.create_task(process.stderr.read())
    stopping = asyncio.create_task(stop.wait())
    lines = asyncio.create_task(_repeat(process.stdout, on_step))
    await asyncio.wait((lines, stopping), return_when=asyncio.FIRST_COMPLETED)
    if stopping.done():
        process.kill()
        await process.wait()
        return None
    stopping.cancel()
    if await process.wait() != 0:
        last = (await complaint).decode(errors="replace").strip().splitlines() or ["no reason given"]
        raise StartError(last[-1])
    deployed: dict[str, str] = json.loads(outputs.read_text())
    return deployed


async def _repeat(lines: asyncio.StreamReader, on_step: Callable[[str], None]) -> None:
    async for line in lines:
        step = line.decode().rstrip()
        _say(step)
        on_step(step)


_began: Final = time.monotonic()


def _say(what: str) -> None:
    print(f"[{time.monotonic() - _began:5.1f} s] {what}", flush=True)


class _Server(uvicorn.Server):
    """uvicorn without signal handlers of its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.asynccontextmanager
async def _serving(application: Any, listeners: list[socket.socket]) -> AsyncIterator[asyncio.Task[None]]:
    """Serves ``application`` on the listeners; at the end lets it finish (the emulator saves its state then).

    uvicorn with its C parser, because every call of a function to the emulator comes through here: the emulator's own
    choice, hypercorn, takes more time for HTTP than the emulator for the work.
    """
    config = uvicorn.Config(
        application,
        http="httptools",
        ws="wsproto",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,  # the emulator writes its own
        timeout_keep_alive=75,
        timeout_graceful_shutdown=1,
        backlog=512,
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=listeners))
    try:
        while not server.started and not task.done():
            await asyncio.sleep(0.01)
        yield task
    finally:
        server.should_exit = True
        await task


def _log_to(state: Path) -> None:
    handler = logging.FileHandler(state / "aws.log", mode="w")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s [%(name)s] %(message)s"))
    logging.basicConfig(level=os.environ.get("ATTUNE_AWS_LOG_LEVEL", "WARNING").upper(), handlers=[handler])


def _summary(place: Place, outputs: Mapping[str, str], aws: str) -> str:
    login = os.environ.get("ATTUNE_ADMIN_LOGIN") or "test@attune.local"
    password = "(ATTUNE_ADMIN_PASSWORD)" if os.environ.get("ATTUNE_ADMIN_PASSWORD") else "TestPass123!"
    credentials = json.dumps({"login": login, "password": "…" if password.startswith("(") else password})
    keys_line = f"\n             its access key: {place.state / 'aws.env'}" if place.endpoint is None else ""
    return f"""
  API        {place.url}/api/v1      documentation {place.url}/docs
  WebSocket  ws://localhost:{place.port}/ws
  AWS        {aws}      stack {os.environ.get("ATTUNE_STACK", "attune")}, bucket {outputs["Bucket"]}{keys_line}
  State      {place.state}      (make reset forgets it; functions.log in it is what the functions say)
  Sign in    {login} / {password}

  Try it:
    curl -s {place.url}/auth/login -H 'content-type: application/json' -d '{credentials}'
"""


async def _run_embedded(place: Place, listeners: list[socket.socket], stop: asyncio.Event) -> None:
    from infra import template
    from infra.local import emulator, front

    _say("starting the embedded AWS")
    key = keys.kept_in(place.state / "aws.env", emulator.REGION)
    environment = emulator.settings(port=place.aws_port, state=place.state, bind=place.bind, key=key)
    cores = os.cpu_count() or 2
    embedded = emulator.load(
        environment,
        keys=keys.Keys(key),
        runners=_count("ATTUNE_RUNNERS", template.local_runners()),
        logs=place.state / "functions.log",
    )
    web = front.Front(embedded.application, place.port, width=_count("ATTUNE_API_WIDTH", max(4, 2 * cores)))
    async with _serving(web, listeners) as server:
        warming: list[asyncio.Task[None]] = []

        def warm(step: str) -> None:
            if step == steps.LOADING:
                warming.extend(
                    asyncio.create_task(asyncio.to_thread(embedded.warm, function)) for function in embedded.functions()
                )

        try:
            outputs = await _deploy(place, stop, slim=True, on_step=warm)
        finally:  # a function that cannot start explains why a deployment failed
            await _warmed(warming)
        if outputs is not None:
            web.rest_api = outputs["RestAPIId"]
            web.websocket_api = outputs.get("WebsocketAPIId")
            await _knock(place)
            print(_summary(place, outputs, f"http://localhost:{place.aws_port}"))
            print(f"ready {place.url}", flush=True)
            await _until_stopped(server, stop, embedded.save)
        _say("stopping")
        await asyncio.to_thread(embedded.finish)
    embedded.stop_functions()


async def _knock(place: Place) -> None:
    """One request through the API that reaches the store, so that the first user's does not wait for connections."""
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{place.port}", timeout=30) as client:
        answer = await client.post("/auth/login", json={"login": "nobody@attune.local", "password": "knock-knock"})
        if answer.status_code != httpx.codes.UNAUTHORIZED:
            raise StartError(f"The API answers {answer.status_code} to a sign-in: {answer.text[:200]}")


async def _warmed(warming: list[asyncio.Task[None]]) -> None:
    try:
        await asyncio.gather(*warming)
    except RuntimeError as error:
        raise StartError(f"A function cannot start: {error}") from error


async def _run_elsewhere(place: Place, listeners: list[socket.socket], stop: asyncio.Event) -> None:
    from infra.local import front

    endpoint = str(place.endpoint)
    _say(f"deploying to {endpoint}")
    relay = front.Relay(endpoint)
    async with _serving(relay, listeners) as server:
        outputs = await _deploy(place, stop, slim=False)
        if outputs is not None:
            relay.rest_api = outputs["RestAPIId"]
            print(_summary(place, outputs, endpoint))
            print(f"ready {place.url}", flush=True)
            await _until_stopped(server, stop, None)
        _say("stopping")


async def _until_stopped(server: asyncio.Task[None], stop: asyncio.Event, save: Any) -> None:
    """Waits for a signal, saving the state from time to time in case there will be no clean stop."""
    stopping = asyncio.create_task(stop.wait())
    ended: set[int] = set()
    while not stopping.done():
        done, _ = await asyncio.wait((stopping, server), timeout=_SAVE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if server in done:
            raise StartError("The local web server has stopped by itself; see aws.log in the state folder.")
        if save is not None and not done:
            await asyncio.to_thread(save)
            ended = processes.reap_orphans(ended)


async def _run(place: Place, listeners: list[socket.socket]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    run = _run_elsewhere if place.endpoint else _run_embedded
    await run(place, listeners, stop)


def main() -> int:
    """The command. Exit code 0 after a stop that was asked for, 1 when the stack could not start."""
    try:
        place = place_from(os.environ)
        with contextlib.ExitStack() as held:
            held.enter_context(_claimed(place.state))
            listeners = [_listen(place.bind, place.port, "ATTUNE_PORT")]
            if not place.endpoint:
                listeners.append(_listen(place.bind, place.aws_port, "ATTUNE_AWS_PORT"))
            held.enter_context(_workspace(place.state))
            _log_to(place.state)
            processes.adopt_orphans()
            try:
                # Not asyncio.run, which waits for every thread, and with it for clients' long polls.
                uvloop.new_event_loop().run_until_complete(_run(place, listeners))
            finally:
                processes.end_descendants(_STOP_SECONDS)
    except StartError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # the emulator's threads may still wait for something
