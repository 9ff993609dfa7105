"""Runs one job in a confined process: feeds it, listens to it, ends it in time, and leaves nothing of it.

The process is a fork of the zygote (:mod:`runners.zygote`); what it may do is :mod:`runners.confinement`'s. This is
the runner's side: two pipes in (the job, standard input), three out (standard output and error, and the report of a
child that could not begin), one clock.
"""

import contextlib
import math
import os
import selectors
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from runners import confinement, zygote
from runners.cancellation import Cancellation, never
from runners.capture import Capture, Captured
from runners.child import FOLDER, UNNAMED

__all__ = ["FOLDER", "UNNAMED", "Ended", "Job", "Sandbox", "SandboxBrokenError"]

TERMINATION_GRACE: Final = 5.0  # seconds between SIGTERM and SIGKILL (semantics §2.6)
DISK_CHECK: Final = 0.25  # seconds between two looks at a folder
LAST_WORDS: Final = 0.2  # seconds for a pipeline's tail that outlives its shell
_BLOCK: Final = 1 << 16
_START: Final = "import sys; sys.path.insert(0, sys.argv.pop(1)); from runners.zygote import main; main()"
_OPTIONS: Final = ("-I", "-S", "-X", "utf8", "-c", _START)

_encode = msgspec.json.Encoder().encode


class SandboxBrokenError(Exception):
    """The zygote is gone, and with it the run. The next run gets a new one."""


class Job(msgspec.Struct, kw_only=True, frozen=True):
    """What the child becomes. :data:`FOLDER` in ``command`` and ``environment`` stands for its private folder."""

    command: list[str]  # a program and its arguments; with `in_process` a Python file and its arguments
    in_process: bool = False
    files: dict[str, str] = {}  # written into the private folder before it starts
    artifacts: str | None = None  # a folder outside of the private one that becomes its own; None: one within
    unnamed: str | None = None  # text with secrets in it, for a file without a name: UNNAMED in `command`
    environment: dict[str, str] = {}  # all of it, but for HOME, TMPDIR and ATTUNE_ARTIFACTS_DIR
    folder: str | None = None  # where it starts; None: in its private folder
    visible: list[str] = []  # what it may read besides the system
    import_from: list[str] = []  # before the standard library, for Python
    packages: list[str] = []  # folders of installed packages, for Python: behind the standard library, as in a venv
    group: int | None = None  # that it is to be in, to read its pack (confinement.group_of_tenant)
    memory: int | None = None  # bytes of data per process


class Ended(msgspec.Struct, kw_only=True, frozen=True):
    """How it went. ``not_started`` says why there was no process of the job's at all."""

    exit_code: int | None  # None: ended by `signal`
    signal: int | None = None
    timed_out: bool = False
    cancelled: bool = False
    disk_full: bool = False  # killed for it
    stdout: Captured
    stderr: Captured
    duration_ms: int
    cpu_ms: int = 0  # user and system, with the descendants it waited for
    peak_kb: int = 0
    not_started: str | None = None
    failure: str | None = None  # what went wrong, where neither exit code nor signal tells


class Sandbox:
    """One run at a time. Starts its zygote when made, without waiting for it."""

    def __init__(self, base: Path | None = None) -> None:
        self.base = base or Path(tempfile.mkdtemp(prefix="attune-runner-"))
        self.base.chmod(0o711)  # executions' users reach what is theirs in here, and list nothing
        self._start_zygote()

    def run(
        self,
        job: Job,
        stdin: bytes,
        *,
        timeout: float,
        stdout: Capture | None = None,
        stderr: Capture | None = None,
        cancellation: Cancellation | None = None,
    ) -> Ended:
        """Start the job, wait for its end, its cancellation or ``timeout`` seconds, and clean up behind it.

        Give ``stdout`` and ``stderr`` to look at them from another thread meanwhile. Raises
        :class:`SandboxBrokenError` if the zygote dies. Descendants that are still there when the job's process has
        ended get :data:`LAST_WORDS` seconds to finish their output, and are killed.
        """
        try:
            run = _Run(self._control, timeout, stdout or Capture(), stderr or Capture(), cancellation or never())
            run.watch(job.artifacts)
            return run.carry_out(_encode(job), stdin)
        except (OSError, SandboxBrokenError) as error:
            with contextlib.suppress(OSError):
                self._control.sendall(zygote.QUIT)
            self.close()
            self._start_zygote()
            raise SandboxBrokenError(str(error)) from error

    def close(self) -> None:
        """Stop the zygote, and with it whatever runs; it removes the folder."""
        self._control.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._zygote.wait(TERMINATION_GRACE)
        if self._zygote.poll() is None:
            self._zygote.kill()
            self._zygote.wait()

    def _start_zygote(self) -> None:
        self._control, its_end = socket.socketpair()
        root = str(Path(__file__).resolve().parent.parent)
        # The interpreter itself and not a virtual environment's link to it: an action's Python has nothing installed.
        interpreter = str(Path(sys.executable).resolve())
        # In a Lambda environment proper there is nobody else's file.
        alone = "alone" if root == "/var/task" and "AWS_LAMBDA_RUNTIME_API" in os.environ else ""
        with its_end:
            self._zygote = subprocess.Popen(  # noqa: S603  # our own program
                [interpreter, *_OPTIONS, root, str(its_end.fileno()), str(self.base), alone],
                env={},
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[its_end.fileno()],
                start_new_session=True,
            )
        self._ready = False

    def wait_until_ready(self, timeout: float = 10.0) -> None:
        """Wait for the zygote's first word. Raises :class:`SandboxBrokenError`."""
        if not self._ready:
            self._control.settimeout(timeout)
            _receive(self._control)
            self._control.settimeout(None)
            self._ready = True


def _receive(control: socket.socket) -> tuple[int, int, float, int]:
    try:
        reply = control.recv(zygote.REPLY.size, socket.MSG_WAITALL)
    except TimeoutError as error:
        raise SandboxBrokenError("the zygote does not answer") from error
    if len(reply) < zygote.REPLY.size:
        raise SandboxBrokenError("the zygote has ended")
    what, status, cpu, memory = zygote.REPLY.unpack(reply)
    return what, status, cpu, memory


class _Run:
    """The loop around one child. Times are of the monotonic clock, in seconds."""

    def __init__(
        self, control: socket.socket, timeout: float, stdout: Capture, stderr: Capture, cancellation: Cancellation
    ) -> None:
        self._control = control
        self._timeout = timeout
        self._cancellation = cancellation
        self._selector = selectors.DefaultSelector()
        self._stdout, self._stderr, self._report = stdout, stderr, Capture()
        self._listening = 0  # pipes that have not come to their end
        self._next: tuple[float, Callable[[], None]] | None = None  # what to do when, if nothing happens before
        self._timed_out = self._cancelled = self._disk_full = False
        self._ended: tuple[int, float, int] | None = None  # wait status, CPU seconds, peak memory
        self._ended_at = 0.0
        self._watched = ""
        self._watch = math.inf  # when to look at it

    def watch(self, folder: str | None) -> None:
        """Keep ``folder``, which has no size of its own, from filling the disk."""
        if folder is not None:
            self._watched, self._watch = folder, 0.0

    def carry_out(self, job: bytes, stdin: bytes) -> Ended:
        started = self._ended_at = time.monotonic()
        with contextlib.closing(self._selector):
            self._start(job, stdin)
            self._next = (started + self._timeout, self._time_out)
            while self._ended is None or self._listening:
                self._step()
            for key in list(self._selector.get_map().values()):
                if key.fileobj is not self._control:
                    os.close(key.fd)
        status, cpu, memory = self._ended
        failure = self._report.captured().head.decode("utf-8", "replace") or None
        if status < 0:
            failure, status = f"no process to be had: {os.strerror(-status)}", 0
        code = os.waitstatus_to_exitcode(status)
        return Ended(
            exit_code=code if code >= 0 else None,
            signal=-code if code < 0 else None,
            timed_out=self._timed_out,
            cancelled=self._cancelled,
            disk_full=self._disk_full,
            stdout=self._stdout.captured(),
            stderr=self._stderr.captured(),
            duration_ms=round((self._ended_at - started) * 1000),
            cpu_ms=round(cpu * 1000),
            peak_kb=memory,
            not_started=failure,
        )

    def _start(self, job: bytes, stdin: bytes) -> None:
        into = [os.pipe() for _ in range(2)]
        out_of = [os.pipe() for _ in range(3)]
        theirs = [reading for reading, _ in into] + [writing for _, writing in out_of]
        for (_, writing), content in zip(into, (job, stdin), strict=True):
            self._feed(writing, content)
        try:
            socket.send_fds(self._control, [zygote.FORK], theirs)
        finally:
            for descriptor in theirs:
                os.close(descriptor)
        for (reading, _), capture in zip(out_of, (self._stdout, self._stderr, self._report), strict=True):
            os.set_blocking(reading, False)
            self._listening += 1
            self._selector.register(reading, selectors.EVENT_READ, lambda r=reading, c=capture: self._listen(r, c))
        self._selector.register(self._control, selectors.EVENT_READ, self._hear)

    def _feed(self, writing: int, content: bytes) -> None:
        """Write what the pipe takes at once, which is all of it but for long parameters."""
        os.set_blocking(writing, False)
        rest = memoryview(content)
        with contextlib.suppress(BlockingIOError):
            try:
                while rest:
                    rest = rest[os.write(writing, rest) :]
            except BrokenPipeError:  # it does not care for its parameters
                rest = rest[len(rest) :]
        if writing in self._selector.get_map():
            self._selector.unregister(writing)
        if rest:
            self._selector.register(writing, selectors.EVENT_WRITE, lambda: self._feed(writing, bytes(rest)))
        else:
            os.close(writing)

    def _step(self) -> None:
        until = min(self._cancellation.due, self._watch, math.inf if self._next is None else self._next[0])
        ready = self._selector.select(None if until == math.inf else max(0.0, until - time.monotonic()))
        for key, _ in ready:
            key.data()
        if self._next is not None and time.monotonic() >= self._next[0]:
            due, self._next = self._next[1], None
            due()
        if time.monotonic() >= self._watch:
            self._watch = time.monotonic() + DISK_CHECK
            if not confinement.fits(self._watched):
                self._watch = math.inf
                self._disk_full = True
                self._kill()
        if self._cancellation.heard():
            self._cancelled = True
            self._terminate()

    def _listen(self, reading: int, capture: Capture) -> None:
        block = b""
        with contextlib.suppress(BlockingIOError):
            block = os.read(reading, _BLOCK)
            if not block:
                self._selector.unregister(reading)
                os.close(reading)
                self._listening -= 1
                if not self._listening and self._exited:
                    self._end()
        capture.add(block)

    _exited = False
    _end_asked = False

    def _hear(self) -> None:
        what, *usage = _receive(self._control)
        if what == zygote.EXITED:
            self._exited = True
            self._cancellation.settle()
            self._watch = math.inf
            self._ended_at = time.monotonic()
            if self._listening:
                self._next = (self._ended_at + LAST_WORDS, self._end)
            else:
                self._end()
        elif what == zygote.FULL:
            self._disk_full = True
        elif what == zygote.ENDED:
            status, cpu, memory = usage
            self._ended = (int(status), float(cpu), int(memory))
            # Everything that could write is dead, and what it wrote is in the pipes; where there is no `/proc` to find
            # everything by, an orphan may hold one open.
            self._next = (time.monotonic() + LAST_WORDS, self._stop_listening)

    def _time_out(self) -> None:
        self._timed_out = True
        self._terminate()

    def _terminate(self) -> None:
        self._cancellation.settle()
        self._control.sendall(zygote.TERMINATE)
        self._next = (time.monotonic() + TERMINATION_GRACE, self._kill)

    def _kill(self) -> None:
        self._control.sendall(zygote.KILL)

    def _stop_listening(self) -> None:
        self._listening = 0

    def _end(self) -> None:
        if not self._end_asked:
            self._end_asked = True
            self._next = None
            self._control.sendall(zygote.END)
