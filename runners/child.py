"""The forked child: reads what it is to be, confines itself, and becomes it.

It gets its job through a pipe of its own, so that the zygote, which it was copied from and which the next execution is
copied from, never holds anything of a tenant: not in a variable, not in freed memory.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import io
import json
import os
import signal
import site
import sys
import types

from runners import confinement

TYPE_CHECKING = False  # `typing` is 1 MB that every child would carry
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

STREAMS = 5  # descriptors that come with a fork: job, stdin, stdout, stderr, report
FOLDER, UNNAMED = "\0folder", "\0unnamed"  # places that only the child knows; no argument or variable can hold a NUL

_REPORT = 3
_UNNAMED = 4


class Job:
    """What the child is to do; the mirror of :class:`runners.sandbox.Job`, which has the words on each field."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self.command: list[str] = fields["command"]
        self.in_process: bool = fields["in_process"]
        self.files: dict[str, str] = fields["files"]
        self.artifacts: str | None = fields["artifacts"]
        self.unnamed: str | None = fields["unnamed"]
        self.environment: dict[str, str] = fields["environment"]
        self.folder: str | None = fields["folder"]
        self.visible: list[str] = fields["visible"]
        self.import_from: list[str] = fields["import_from"]
        self.packages: list[str] = fields["packages"]
        self.group: int | None = fields["group"]
        self.memory: int | None = fields["memory"]


def become(streams: list[int], means: confinement.Means) -> NoReturn:
    """Turn the calling process into the job that ``streams[0]`` carries.

    What goes wrong before the action has begun is written to the report, and ends the process with code 127.
    """
    source, *standard, report = streams
    try:
        job = Job(_read(source))
        _take_streams(standard, report)
        folder = confinement.confine(means, group=job.group, memory=job.memory, visible=job.visible, own=job.artifacts)
        command = _settle(job, folder)
        scripts = [_prepare_script(command, job)] if job.in_process else []
        if not scripts:
            for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, and programs inherit that
                signal.signal(number, signal.SIG_DFL)
            os.execvpe(command[0], command, os.environ)  # noqa: S606  # the confinement above is what a shell is not
    except BaseException as error:  # there is nobody above who could know
        os.write(_REPORT, f"{type(error).__name__}: {error}"[:4000].encode("utf-8", "replace"))
        os._exit(127)
    os.close(_REPORT)
    _run(scripts)


def _read(source: int) -> dict[str, Any]:
    with open(source, "rb") as stream:
        fields: dict[str, Any] = json.loads(stream.read())
    return fields


def _take_streams(standard: list[int], report: int) -> None:
    """Standard streams on 0-2, the report on 3 until the action begins, and nothing else open."""
    above = [os.dup(descriptor) for descriptor in (*standard, report)]
    for number, descriptor in enumerate(above):
        os.dup2(descriptor, number, inheritable=number != _REPORT)
    os.closerange(_REPORT + 1, 1 << 16)
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _settle(job: Job, folder: str) -> list[str]:
    """Files, environment and working folder. Returns the command with its places filled in."""
    artifacts = job.artifacts
    if artifacts is None:
        artifacts = os.path.join(folder, "artifacts")
        os.mkdir(artifacts)
    for name, text in job.files.items():
        with open(os.path.join(folder, name), "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            file.write(text)
    os.environ.clear()
    os.environ.update({"HOME": folder, "TMPDIR": folder, "ATTUNE_ARTIFACTS_DIR": artifacts})
    os.environ.update({name: value.replace(FOLDER, folder) for name, value in job.environment.items()})
    os.chdir(job.folder or folder)
    if job.unnamed is not None:
        _open_unnamed(job.unnamed, folder)
    return [word.replace(FOLDER, folder).replace(UNNAMED, f"/dev/fd/{_UNNAMED}") for word in job.command]


def _open_unnamed(text: str, folder: str) -> None:
    """Text with secrets in it: a file that has no name, and is gone with the last process that has it open."""
    if hasattr(os, "memfd_create"):
        source = os.memfd_create("attune", 0)
    else:
        path = os.path.join(folder, ".unnamed")
        source = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        os.unlink(path)
    with open(source, "wb", closefd=False) as file:
        file.write(text.encode("utf-8", "surrogateescape"))
    os.lseek(source, 0, os.SEEK_SET)
    if source != _UNNAMED:
        os.dup2(source, _UNNAMED)
        os.close(source)
    os.set_inheritable(_UNNAMED, True)  # noqa: FBT003  # the standard library's signature


def _prepare_script(command: list[str], job: Job) -> Callable[[], None]:
    """``command`` is a Python file and its arguments: what ``python file`` would do before its first line."""
    path = command[0]
    with open(path, "rb") as file:
        source = file.read()
    main = types.ModuleType("__main__")
    main.__dict__["__file__"] = path
    # The action sees the standard library, its own folder and what its pack brings, and nothing of the platform.
    sys.path = [os.path.dirname(path), *job.import_from, *sys.path[1:]]
    for folder in job.packages:
        site.addsitedir(folder)
    sys.argv = command
    sys.dont_write_bytecode = True
    for name in [name for name in sys.modules if name.partition(".")[0] == "runners"]:
        del sys.modules[name]
    sys.modules["__main__"] = main
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # what it wrote is there when it is killed

    def start() -> None:
        exec(compile(source, path, "exec", dont_inherit=True), main.__dict__)  # noqa: S102  # that is the whole point

    return start


def _run(scripts: list[Callable[[], None]]) -> NoReturn:
    """Run the one script in ``scripts`` and end the process as the interpreter would, but for tearing down the zygote's
    copy, which is 2 ms.

    Threads are waited for, exit functions run, open files flushed, and objects finalized. ``scripts`` is emptied, for
    nothing here may keep the script's objects alive.
    """
    code = 0
    try:
        scripts.pop()()
    except SystemExit as error:
        code = _exit_code(error.code)
    except BaseException as error:  # as the interpreter does: report, exit code 1
        _report(error)
        code = 1
    threading = sys.modules.get("threading")
    if threading is not None:
        threading._shutdown()
    atexit._run_exitfuncs()
    for kind in (io.TextIOWrapper, io.BufferedWriter, io.BufferedRandom):  # the first write into the others
        for open_file in [thing for thing in gc.get_objects() if type(thing) is kind]:
            with contextlib.suppress(OSError, ValueError):
                open_file.flush()
    del sys.modules["__main__"]
    gc.collect()  # what the zygote brought is frozen, and not looked at
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            code = 120  # the interpreter's own code for it
    os._exit(code)


def _exit_code(code: object) -> int:
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    print(code, file=sys.stderr)
    return 1


def _report(error: BaseException) -> None:
    trace = error.__traceback__
    own = 2  # frames: `_run`'s and `start`'s
    while trace is not None and own:
        trace, own = trace.tb_next, own - 1
    sys.excepthook(type(error), error.with_traceback(trace), trace)
