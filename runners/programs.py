"""The runtimes that run a program: which process, for which code (``semantics.md`` §2.6).

With a pack, ``entrypoint`` names a file of it; without one it is the code itself, which inline shell gets its
parameters in front of and the others read them on standard input.
"""

import os
import shutil
from functools import cache
from pathlib import Path
from typing import Final

from chalicelib.protocol import Run
from runners.child import FOLDER, UNNAMED
from runners.pack_files import action_file
from runners.parameters import Delivered, deliver, shell_variables
from runners.sandbox import Job

PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class RuntimeMissingError(Exception):
    """This platform has no such interpreter."""


def job_for(
    run: Run, pack: Path | None, *, group: int | None, memory: int | None, libraries: Path | None = None
) -> tuple[Job, bytes]:
    """The process for a run of python, shell or node, and what it gets on standard input.

    ``pack`` is the root of the pack's files, ``libraries`` that of its environment. Raises
    :class:`RuntimeMissingError` and :class:`~runners.pack_files.NoSuchFileError`.
    """
    if pack is None and run.runner == "shell":
        return _inline_shell(run, group=group, memory=memory), b""
    delivered = deliver(run)
    extension = {"python": "py", "shell": "sh", "node": "js"}[run.runner]
    files = dict(delivered.files)
    if pack is None:
        file = f"{FOLDER}/action.{extension}"
        files[f"action.{extension}"] = run.entrypoint
    else:
        file = str(action_file(pack, run.pack.ref if run.pack else "", run.entrypoint))
    visible = [str(folder) for folder in (pack, libraries) if folder is not None]
    command = [file]
    if run.runner != "python":
        interpreter = bash() if run.runner == "shell" else node()
        visible += installation_of(interpreter)
        command = [interpreter, file]
    return Job(
        command=command,
        in_process=run.runner == "python",
        files=files,
        packages=[str(libraries)] if libraries and run.runner == "python" else [],
        environment=_environment(run, delivered, libraries),
        folder=None if pack is None else str(pack),
        visible=visible,
        group=group,
        memory=None if run.runner == "node" else memory,  # V8 reserves far more than it uses, and has its own limit
    ), delivered.stdin


def _inline_shell(run: Run, *, group: int | None, memory: int | None) -> Job:
    # The script holds secrets. It has no name, and its descriptor is closed before a program of the script starts.
    script = f"#!/bin/bash\nexec 4<&-\nset -e\n{shell_variables(run.parameters)}{run.entrypoint}\n"
    interpreter = bash()
    return Job(
        command=[interpreter, UNNAMED],
        unnamed=script,
        environment=_environment(run, Delivered()),
        visible=installation_of(interpreter),
        group=group,
        memory=memory,
    )


def _environment(run: Run, delivered: Delivered, libraries: Path | None = None) -> dict[str, str]:
    installed = {}
    if libraries is not None:
        installed["ATTUNE_RUNTIME_ENVS_DIR"] = str(libraries)
        if run.runner == "python":  # for the interpreters that the action starts
            installed["PYTHONPATH"] = str(libraries)
    return {"PATH": PATH, "LANG": "C.UTF-8"} | installed | run.environment | delivered.environment


@cache
def bash() -> str:
    """The shell of shell actions. Raises :class:`RuntimeMissingError`."""
    return _found("bash")


@cache
def node() -> str:
    """Node.js, where there is one: on AWS by layer or container image. Raises :class:`RuntimeMissingError`."""
    return _found("node")


def _found(program: str) -> str:
    path = shutil.which(program, path=f"{PATH}:/opt/bin:/opt/nodejs/bin:{os.environ.get('PATH', '')}")
    if path is None:
        raise RuntimeMissingError(f"there is no `{program}` where actions run")
    return str(Path(path).resolve())


def installation_of(program: str) -> list[str]:
    """The folder that a program outside of the system's own lies in with its libraries."""
    folder = Path(program).parent
    if folder.is_relative_to("/usr") or folder.is_relative_to("/bin") or folder.is_relative_to("/opt"):
        return []
    return [str(folder.parent if folder.name == "bin" else folder)]
