"""The platform that end-to-end tests and benchmarks talk to: one that runs already, or one of their own.

With ``ATTUNE_API_URL`` set, that one is used and left as it is. Otherwise ``make run`` is started on free ports with a
state folder of its own, and stopped with the Ctrl-C that a person would use.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import botocore.session

from helpers import oidc_provider
from helpers.client import AttuneClient
from helpers.polling import wait_for

ROOT = Path(__file__).resolve().parents[2]
START_TIMEOUT = 180  # a first start also builds the virtual environment (issue 2: under 90 s)
STOP_TIMEOUT = 60
DEFAULT_AWS_URL = "http://127.0.0.1:4566"
ADMIN_LOGIN = os.environ.get("ATTUNE_ADMIN_LOGIN", "test@attune.local")
ADMIN_PASSWORD = os.environ.get("ATTUNE_ADMIN_PASSWORD", "TestPass123!")


class StackError(Exception):
    """The platform did not come up; the message carries the end of what it said."""


@dataclass(frozen=True)
class Stack:
    """``url`` of the API, ``aws_url`` of the AWS it runs on; when it is ours, ``pid`` of ``make run`` and the folder
    that ``POST /packs/register`` may read. ``peer_port``: a port of this machine that HTTP actions may call.
    ``oidc_port``: the port at which it expects its provider of identities (``helpers.oidc_provider``).
    ``state``: the stack's own folder, as far as it is known."""

    url: str
    aws_url: str
    pid: int | None = None
    packs_dir: Path | None = None
    peer_port: int | None = None
    oidc_port: int | None = None
    state: Path | None = None

    @property
    def is_local(self) -> bool:
        """Whether actions run on this machine and see its files."""
        return any(host in self.url for host in ("//localhost", "//127.0.0.1"))

    @property
    def aws(self) -> dict[str, str]:
        """The environment in which AWS clients speak to the AWS below, as its operator: the embedded one wants the
        access key that is in the stack's state folder, any other what is in our environment."""
        kept = (self.state or ROOT / ".attune") / "aws.env"
        given = (
            dict(re.findall(r"^export (\w+)=(\S+)$", kept.read_text(), re.MULTILINE)) if kept.exists() else os.environ
        )
        return {
            "AWS_ENDPOINT_URL": self.aws_url,
            "AWS_ACCESS_KEY_ID": given.get("AWS_ACCESS_KEY_ID", "test"),
            "AWS_SECRET_ACCESS_KEY": given.get("AWS_SECRET_ACCESS_KEY", "test"),
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def aws_client(self, service: str) -> Any:
        """A client of the AWS below."""
        settings = self.aws
        return botocore.session.get_session().create_client(
            service,
            region_name=settings["AWS_DEFAULT_REGION"],
            endpoint_url=self.aws_url,
            aws_access_key_id=settings["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=settings["AWS_SECRET_ACCESS_KEY"],
        )

    def sign_in(self) -> AttuneClient:
        """A client signed in as the administrator."""
        client = AttuneClient(self.url)
        client.login(ADMIN_LOGIN, ADMIN_PASSWORD)
        return client


@contextlib.contextmanager
def running_stack(**settings: str) -> Iterator[Stack]:
    """The platform, for as long as the context lasts; with ``settings`` in its environment if it is our own."""
    existing = os.environ.get("ATTUNE_API_URL")
    if existing:
        peer_port = os.environ.get("ATTUNE_PEER_PORT")
        oidc_port = os.environ.get("ATTUNE_OIDC_PORT")
        state_dir = os.environ.get("ATTUNE_STATE_DIR")
        yield Stack(
            existing.rstrip("/"),
            os.environ.get("AWS_ENDPOINT_URL", DEFAULT_AWS_URL),
            peer_port=int(peer_port) if peer_port else None,
            oidc_port=int(oidc_port) if oidc_port else None,
            state=Path(state_dir) if state_dir else None,
        )
        return
    state = Path(tempfile.mkdtemp(prefix="attune-test-"))
    try:
        with own_stack(state, **settings) as stack:
            yield stack
    finally:
        shutil.rmtree(state, ignore_errors=True)


@contextlib.contextmanager
def own_stack(state: Path, **settings: str) -> Iterator[Stack]:
    """`make run` on free ports with its state in ``state``, which it finds again in a second start."""
    port, aws_port, peer_port, oidc_port = free_ports(4)
    packs_dir = state / "packs"
    packs_dir.mkdir(exist_ok=True)
    environment = {
        **os.environ,
        "ATTUNE_PORT": str(port),
        "ATTUNE_AWS_PORT": str(aws_port),
        "ATTUNE_STATE_DIR": str(state),
        "ATTUNE_PACKS_DIR": str(packs_dir),
        "ATTUNE_HTTP_ALLOWED": f"127.0.0.1:{peer_port}",
        "ATTUNE_OIDC": json.dumps(
            {
                "issuer": f"http://127.0.0.1:{oidc_port}",
                "client_id": oidc_provider.CLIENT_ID,
                "roles_claim": "groups",
                "sign_up": True,
            }
        ),
        "ATTUNE_OIDC_CLIENT_SECRET": oidc_provider.CLIENT_SECRET,
        "ATTUNE_ADMIN_LOGIN": ADMIN_LOGIN,
        "ATTUNE_ADMIN_PASSWORD": ADMIN_PASSWORD,
        **settings,
    }
    log_path = state.with_suffix(".log")
    with log_path.open("wb") as log:
        # A session of its own: the signal that stops it reaches all that it started and nothing else.
        process = subprocess.Popen(
            ["make", "run"],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        url = wait_for(lambda: _ready_url(process, log_path), timeout=START_TIMEOUT, what="`make run` to be ready")
        assert url is not None
        aws_url = os.environ.get("AWS_ENDPOINT_URL", f"http://127.0.0.1:{aws_port}")
        yield Stack(url, aws_url, process.pid, packs_dir, peer_port, oidc_port, state)
    finally:
        _stop(process)
        log_path.unlink(missing_ok=True)


def _ready_url(process: subprocess.Popen[bytes], log_path: Path) -> str | None:
    said = log_path.read_text(errors="replace")
    for line in said.splitlines():
        if line.startswith("ready http"):
            return line.removeprefix("ready ").strip().rstrip("/")
    if process.poll() is not None:
        raise StackError(f"`make run` ended with code {process.returncode}:\n{said[-4000:]}")
    return None


def _stop(process: subprocess.Popen[bytes]) -> None:
    _signal_group(process.pid, signal.SIGINT)
    try:
        # Its group, not only make: what make started may take a moment longer to save its state.
        wait_for(lambda: _has_ended(process), timeout=STOP_TIMEOUT, what="the stack to stop")
    except AssertionError:
        _signal_group(process.pid, signal.SIGKILL)
        process.wait(STOP_TIMEOUT)
        raise StackError(f"`make run` did not stop within {STOP_TIMEOUT} s of Ctrl-C") from None


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    return process.poll() is not None and not _signal_group(process.pid, 0)


def _signal_group(group: int, number: int) -> bool:
    """Whether the process group still had anybody to signal."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    return True


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on at this moment."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
