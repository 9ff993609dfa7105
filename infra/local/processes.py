"""Ending what the stack has started, and nothing else.

The functions' processes start others (an action's shell and its children), in process groups of their own and
sometimes orphaned. On Linux this process adopts orphans of its descendants, so that at the end every one of them is a
child of a child of ours, and can be found and ended.
"""

import contextlib
import ctypes
import os
import signal
import sys
import time
from pathlib import Path
from typing import Final

_PR_SET_CHILD_SUBREAPER: Final = 36  # linux/prctl.h


def adopt_orphans() -> None:
    """Makes this process the parent of its descendants' orphans. Elsewhere than on Linux nothing happens."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def descendants(of: int) -> set[int]:
    """Process ids of all that ``of`` has started, directly or not (Linux; empty elsewhere)."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            parent = int(entry.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(entry.parent.name))
    found: set[int] = set()
    waiting = [of]
    while waiting:
        for child in children.get(waiting.pop(), ()):
            found.add(child)
            waiting.append(child)
    return found


def reap_orphans(ended_before: set[int]) -> set[int]:
    """Collects adopted processes that had ended by the previous call already, so that whoever started a process has
    had the time to collect it. Returns those that have ended now, for the next call."""
    ended: set[int] = set()
    for child in descendants(os.getpid()):
        with contextlib.suppress(OSError):
            if _state(child) == "Z" and _parent(child) == os.getpid():
                ended.add(child)
    for child in ended & ended_before:
        with contextlib.suppress(OSError):
            os.waitpid(child, os.WNOHANG)
    return ended - ended_before


def _fields(process: int) -> list[str]:
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()


def _state(process: int) -> str:
    return _fields(process)[0]


def _parent(process: int) -> int:
    return int(_fields(process)[1])


def end_descendants(grace: float) -> None:
    """Ends every descendant of this process: SIGTERM, and after ``grace`` seconds SIGKILL."""
    for number, seconds in ((signal.SIGTERM, grace), (signal.SIGKILL, 2.0)):
        deadline = time.monotonic() + seconds
        signalled: set[int] = set()
        while left := _living():
            for process in left - signalled:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(process, number)
            signalled |= left
            if time.monotonic() > deadline:
                break
            time.sleep(0.02)
        else:
            return


def _living() -> set[int]:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    living: set[int] = set()
    for process in descendants(os.getpid()):
        with contextlib.suppress(OSError):
            if _state(process) != "Z":
                living.add(process)
    return living
