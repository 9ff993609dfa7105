"""The platform's containers in a task of ECS (see chalicelib/flow/tasks.py): ``prepare``, then ``report``.

They are apart from the action in everything but a folder of pipes. Its streams are read while it writes them and never
lie on a disk; what leaves is redacted, as everywhere.
"""

import base64
import contextlib
import os
import selectors
import shutil
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any, Final

import msgspec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from chalicelib.protocol import Run, RunFinished, Task
from runners import results
from runners.cancellation import Cancellation
from runners.capture import Capture
from runners.following import followed
from runners.parameters import document
from runners.presigned import post_form
from runners.redaction import Redactor
from runners.sandbox import Ended

PIPES: Final = Path("/attune")
SCRATCH: Final = Path("/scratch")
LAST_WORDS: Final = 2.0  # seconds for output that is on its way when the action has ended
START_SECONDS: Final = 5 * 60  # that the action's image may take
_NONCE: Final = 12
_BLOCK: Final = 1 << 16
_KILLED: Final = 137  # what a shell says of a program that got SIGKILL
_STEP: Final = 0.05

# The way into the pipes, by a shell that needs nothing of the image.
_START: Final = """ulimit -u "$1"
shift
"$@" <{pipes}/stdin >{pipes}/stdout 2>{pipes}/stderr
echo $? >{pipes}/code
"""


def prepare() -> None:
    """Lay the pipes, and what the action's container starts with."""
    for name in ("stdin", "stdout", "stderr", "code"):
        os.mkfifo(PIPES / name)
        (PIPES / name).chmod(0o666)
    shell = shutil.which("busybox")
    if shell is None:
        raise RuntimeError("the platform's image has no busybox")
    shutil.copyfile(shell, PIPES / "busybox")
    (PIPES / "busybox").chmod(0o755)
    (PIPES / "start").write_text(_START.format(pipes=PIPES))
    (PIPES / "start").chmod(0o644)
    if SCRATCH.exists():
        SCRATCH.chmod(0o1777)


def report() -> None:
    """Carry the run out, and upload its result."""
    with urllib.request.urlopen(os.environ.pop("ATTUNE_TASK_URL"), timeout=10) as answer:  # noqa: S310  # ours
        sealed = answer.read()
    key = base64.urlsafe_b64decode(os.environ.pop("ATTUNE_TASK_KEY"))
    task = msgspec.json.decode(AESGCM(key).decrypt(sealed[:_NONCE], sealed[_NONCE:], None), type=Task)
    finished = results.encoded(carry_out(task.run), results.MAX_RESULT)
    post_form(task.result.url, {**task.result.fields, "file": ("result.json", finished.encode())})


def carry_out(run: Run) -> RunFinished:
    """Feed and hear the action until its end, its timeout or its cancellation; ending this container ends it."""
    redactor = Redactor([*run.secrets, run.token])
    conversation = _Conversation(run)
    outcome = followed(run, conversation.hold, run.timeout, redactor)
    return RunFinished(
        tenant=run.tenant,
        execution=run.execution,
        attempt=run.attempt,
        token=run.token,
        status=outcome.status,
        result=outcome.result,
        timed_out=outcome.timed_out,
        duration_ms=conversation.duration_ms,
        log_parts=outcome.log_parts,
        printed=outcome.printed,
    )


class _Conversation:
    """With the action, through the pipes. Times are of the monotonic clock, in seconds."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._began: float | None = None
        self._cancellation = Cancellation(run.stop_url)
        self._cancelled = False
        self._until = time.monotonic() + START_SECONDS

    @property
    def duration_ms(self) -> int:
        return 0 if self._began is None else round((time.monotonic() - self._began) * 1000)

    def hold(self, stdout: Capture, stderr: Capture) -> Ended:
        """How it went. The action's time begins when it opens its standard input."""
        code = Capture()
        captures = {"stdout": stdout, "stderr": stderr, "code": code}
        timed_out = False
        with selectors.DefaultSelector() as selector, contextlib.ExitStack() as opened:
            for name, capture in captures.items():
                reading = os.open(PIPES / name, os.O_RDONLY | os.O_NONBLOCK)
                opened.callback(os.close, reading)
                selector.register(reading, selectors.EVENT_READ, capture)
            writing: int | None = None
            rest = memoryview(document(self._run.parameters, "json").encode())
            open_streams, silent = set(captures), 0.0
            while open_streams:
                if self._over(bool(code.captured().total)):
                    timed_out = not code.captured().total and not self._cancelled
                    break
                if self._began is None and (writing := _opened(PIPES / "stdin")) is not None:
                    self._began = time.monotonic()
                    self._until = self._began + self._run.timeout
                if writing is not None:
                    rest, writing = _fed(writing, rest)
                for key, _ in selector.select(_STEP):
                    block = os.read(key.fd, _BLOCK)
                    key.data.add(block)
                    if not block:
                        selector.unregister(key.fd)
                        open_streams -= {name for name, capture in captures.items() if capture is key.data}
                if open_streams == {"code"}:  # it has been killed, if it is not about to say its code
                    silent = silent or time.monotonic()
                    if time.monotonic() - silent > LAST_WORDS:
                        break
        return self._ended(code.captured().head.strip(), stdout, stderr, timed_out=timed_out)

    def _over(self, has_ended: bool) -> bool:  # noqa: FBT001  # what is known, not a mode
        now = time.monotonic()
        if has_ended:  # a descendant may hold its streams open for ever
            self._until = min(self._until, now + LAST_WORDS)
        elif self._cancellation.heard():
            self._cancelled = True
            return True
        return now >= self._until

    def _ended(self, code: bytes, stdout: Capture, stderr: Capture, *, timed_out: bool) -> Ended:
        exit_code = int(code) if code.isdigit() else _KILLED
        fields: dict[str, Any] = {"timed_out": timed_out, "cancelled": self._cancelled}
        if timed_out and self._began is None:
            fields = {"not_started": f"the container did not start within {START_SECONDS} seconds"}
        elif exit_code == _KILLED and not timed_out and self._run.container:
            memory = self._run.container.memory
            fields["failure"] = f"the container was killed: it may have run out of its {memory} MiB of memory"
        return Ended(
            exit_code=None if self._cancelled else exit_code,
            stdout=stdout.captured(),
            stderr=stderr.captured(),
            duration_ms=self.duration_ms,
            **fields,
        )


def _opened(pipe: Path) -> int | None:
    """The pipe for writing, once there is somebody to read."""
    with contextlib.suppress(OSError):
        return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    return None


def _fed(writing: int, rest: memoryview) -> tuple[memoryview, int | None]:
    """What is still to be written, and to what; None once it is all in, or nobody wants more."""
    try:
        while rest:
            rest = rest[os.write(writing, rest) :]
    except BlockingIOError:
        return rest, writing
    except BrokenPipeError:
        rest = rest[len(rest) :]
    os.close(writing)
    return rest, None


if __name__ == "__main__":
    {"prepare": prepare, "report": report}[sys.argv[1]]()
