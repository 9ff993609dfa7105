"""Building environments: a pack's libraries, installed once and kept in S3 (docs/decisions/007).

Installers run what packages bring along, so they run confined like an action: without credentials, in a folder that is
gone afterwards, within the limits of an execution. The result comes out of the confinement through a pipe, is nothing
but bytes to this process, and goes to S3 by the presigned form that the control plane sent. Running *with* an
environment is :mod:`runners.programs`'; unpacking one is :mod:`runners.pack_files`'.
"""

import hashlib
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Final

import msgspec

from chalicelib.protocol import Build, EnvironmentBuilt, Upload
from runners.capture import Capture, Captured
from runners.child import FOLDER
from runners.presigned import upload
from runners.programs import PATH, RuntimeMissingError, installation_of, node
from runners.sandbox import Ended, Job, Sandbox

SHOWN_LINES: Final = 25  # of what the installer said
_LONGEST_LINE: Final = 500
_MEGABYTE: Final = 1 << 20

Put = Callable[[Upload, IO[bytes], int], None]


class Spool(Capture):
    """Standard output that is kept in a file, up to ``most`` bytes."""

    def __init__(self, file: IO[bytes], most: int) -> None:
        super().__init__()
        self._file = file
        self.most = most
        self._digest = hashlib.sha256()
        self.size = 0

    def add(self, block: bytes) -> None:
        self.size += len(block)
        if self.fits:
            self._file.write(block)
            self._digest.update(block)

    @property
    def fits(self) -> bool:
        return self.size <= self.most

    @property
    def content(self) -> str:
        return self._digest.hexdigest()

    def captured(self) -> Captured:
        return Captured(total=self.size)


class _Tools(msgspec.Struct, frozen=True):
    installer: str
    visible: list[str]
    path: str
    version: str


def build(
    order: Build,
    sandbox: Sandbox,
    files: Path,
    *,
    group: int | None,
    memory: int | None,
    timeout: float,
    put: Put | None = None,
) -> EnvironmentBuilt:
    """Install and upload what ``order`` asks for. ``files`` is the root of the pack's files.

    What the manifest or the packages did wrong is a report. Raises OSError when it cannot be stored,
    and the sandbox's errors: another runner should try.
    """
    started = time.monotonic()
    try:
        tools = _tools(order.runtime)
    except RuntimeMissingError as error:
        return _report(order, started, log=str(error))
    task = {"runtime": order.runtime, "pack": str(files), "manifest": order.manifest, "installer": tools.installer}
    job = Job(
        command=[_python(), "-I", f"{FOLDER}/build.py", json.dumps(task)],
        files={"build.py": Path(__file__).with_name("builder.py").read_text("utf-8")},
        environment={"PATH": tools.path, "LANG": "C.UTF-8"},
        visible=[str(files), *tools.visible],
        group=group,
        memory=memory if order.runtime == "python" else None,  # V8 reserves far more than it uses
    )
    with tempfile.TemporaryFile(dir=sandbox.base) as file:
        spool, said = Spool(file, order.upload.most), Capture()
        ended = sandbox.run(job, b"", timeout=timeout, stdout=spool, stderr=said)
        log = last_lines(said.captured())
        failure = _failure(ended, spool, timeout)
        if failure is None:
            (put or upload)(order.upload, file, spool.size)
    if failure is not None:
        return _report(order, started, log=f"{log}\n{failure}".strip(), version=tools.version)
    return _report(order, started, log=log, version=tools.version, spool=spool)


def last_lines(said: Captured) -> str:
    """The end of what the installer said, as text for people."""
    text = (said.head + b"\n" + said.tail).decode("utf-8", "replace")
    lines = ["".join(c if c.isprintable() else " " for c in line.rstrip()) for line in text.splitlines()]
    return "\n".join([line[:_LONGEST_LINE] for line in lines if line][-SHOWN_LINES:])


def _failure(ended: Ended, spool: Spool, timeout: float) -> str | None:
    if ended.not_started is not None:
        return ended.not_started
    if ended.timed_out:
        return f"the installation was stopped after {timeout:.0f} seconds"
    if ended.disk_full:
        return "the installation was stopped: it filled its disk"
    if not spool.fits:
        return f"what was installed takes more than {spool.most // _MEGABYTE} MB packed"
    if ended.exit_code is None:
        return f"the installation was ended by signal {ended.signal}"
    return f"the installer ended with code {ended.exit_code}" if ended.exit_code else None


def _report(
    order: Build, started: float, *, log: str, version: str = "", spool: Spool | None = None
) -> EnvironmentBuilt:
    return EnvironmentBuilt(
        tenant=order.tenant,
        environment=order.environment,
        attempt=order.attempt,
        token=order.token,
        ready=spool is not None,
        log=log,
        content="" if spool is None else spool.content,
        size=0 if spool is None else spool.size,
        runtime_version=version,
        duration_ms=round((time.monotonic() - started) * 1000),
    )


def _tools(runtime: str) -> _Tools:
    """The installer for a runtime. Raises :class:`RuntimeMissingError`."""
    if runtime == "python":
        pip = _pip()
        return _Tools(str(pip), [str(pip)], PATH, f"Python {platform.python_version()}")
    interpreter = node()
    path = f"{Path(interpreter).parent}:{PATH}"
    npm = shutil.which("npm", path=f"{path}:{os.environ.get('PATH', '')}")
    if npm is None:
        raise RuntimeMissingError("there is no `npm` where environments are built")
    version = subprocess.run([interpreter, "--version"], capture_output=True, text=True, check=False)  # noqa: S603
    visible = [*installation_of(interpreter), *installation_of(npm)]
    return _Tools(npm, visible, path, f"Node.js {version.stdout.strip()}")


def _pip() -> Path:
    """pip's folder, or the wheel of it that Python itself brings for new virtual environments."""
    installed = importlib.util.find_spec("pip")
    if installed is not None and installed.origin is not None:
        return Path(installed.origin).resolve().parent
    bundled = importlib.util.find_spec("ensurepip")
    if bundled is not None and bundled.origin is not None:
        for wheel in Path(bundled.origin).with_name("_bundled").glob("pip-*.whl"):
            return wheel.resolve() / "pip"
    raise RuntimeMissingError("there is no `pip` where environments are built")


def _python() -> str:
    return str(Path(sys.executable).resolve())
