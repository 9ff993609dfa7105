"""A lean process with nothing in it, copied once per execution.

It is started by :mod:`runners.sandbox` with an empty environment, before the runner has loaded an SDK, and stays at
about 11 MB, because the time of a fork grows with the memory that is copied (0.6 ms here, 3 ms at 64 MB). It knows no
execution: it is asked for a child, hands it the descriptors it was given, tells when it has ended, and sees to it that
everything it left behind ends too. What it imports, and what :mod:`runners.child`, :mod:`runners.confinement` and
:mod:`runners.kernel` import, every child carries: no ``pathlib``, no ``typing`` that runs, no ``dataclasses``.

The conversation, over a socket pair: one byte from the runner, ``REPLY`` back.

    runner ── FORK + 5 descriptors ──► zygote ── fork ──► child
           ◄─────────────── EXITED ───        ◄─ exits ──
           ── END ────────────────────►       ── kills what is left, reaps
           ◄─────────────── ENDED ────

``TERMINATE`` and ``KILL`` signal the child's process group in between; ``FULL`` says that the child was killed because
it filled the disk. The child stays a zombie until ``END``, so that its id cannot name another process meanwhile.
When the runner dies the socket closes, and everything ends, the runner's folder included; ``QUIT`` keeps the folder for
a successor.
"""

import contextlib
import gc
import json  # noqa: F401  # loaded for the children: nearly every Python action reads its parameters with it
import os
import select
import signal
import site
import socket
import struct
import sys

from runners import child, confinement, kernel

FORK, TERMINATE, KILL, END, QUIT = b"F", b"T", b"K", b"E", b"Q"
READY, EXITED, ENDED, FULL = 1, 2, 3, 4
DISK_CHECK = 250  # milliseconds between two looks
REPLY = struct.Struct("=Bidq")  # what, wait status, CPU seconds, peak memory in KB


class Zygote:
    """One child at a time, as a Lambda environment has one invocation at a time."""

    def __init__(self, control: socket.socket, means: confinement.Means) -> None:
        self._control = control
        self._means = means
        self._child = 0
        self._children_changed, woken = os.pipe()
        for end in (self._children_changed, woken):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def serve(self) -> list[int] | None:
        """Answer the runner until it is gone. In a child, returns its descriptors; in the zygote, ``None``."""
        waiting = select.poll()
        waiting.register(self._control, select.POLLIN)
        waiting.register(self._children_changed, select.POLLIN)
        self._reply(READY)
        while True:
            watched = self._child and not self._means.namespaces
            ready = [descriptor for descriptor, _ in waiting.poll(DISK_CHECK if watched else None)]
            if watched and not ready:
                self._watch_disk()
            if self._children_changed in ready:
                os.read(self._children_changed, 512)
                self._look_after_children()
            if self._control.fileno() not in ready:
                continue
            request, streams = self._next_request()
            if request == FORK:
                if self._fork():
                    return streams
                for stream in streams:
                    os.close(stream)
            elif request in (TERMINATE, KILL):
                self._signal(signal.SIGTERM if request == TERMINATE else signal.SIGKILL)
            else:
                self._end()
            if request in (b"", QUIT):
                if request != QUIT:
                    remove_tree(self._means.base)
                return None

    def _next_request(self) -> tuple[bytes, list[int]]:
        try:
            request, streams, _, _ = socket.recv_fds(self._control, 1, child.STREAMS)
        except ConnectionError:  # the runner went with a reply unread
            return b"", []
        return request, streams

    def _reply(self, what: int, status: int = 0, cpu: float = 0.0, memory: int = 0) -> None:
        with contextlib.suppress(ConnectionError):  # the runner is gone, as the next request will say
            self._control.sendall(REPLY.pack(what, status, cpu, memory))

    def _fork(self) -> bool:
        try:
            pid = os.fork()
        except OSError as error:
            self._reply(ENDED, -(error.errno or 1))
            return False
        if pid == 0:
            self._control.close()
            return True
        self._child = pid
        return False

    def _look_after_children(self) -> None:
        """Tell the runner when the child has ended, and bury the orphans that have ended meanwhile."""
        while self._child:
            ended = None
            with contextlib.suppress(ChildProcessError):
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is None:
                return
            if ended.si_pid == self._child:
                self._reply(EXITED)
                return
            os.waitpid(ended.si_pid, 0)

    def _signal(self, number: int) -> None:
        # The child makes its group as one of its first acts; before that, it is the child alone.
        for send in (os.killpg, os.kill):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                send(self._child, number)
                return

    def _end(self) -> None:
        if not self._child:
            return
        self._signal(signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._child, signal.SIGKILL)
        _, status, usage = os.wait4(self._child, 0)
        self._kill_stragglers()
        self._remove_traces()
        self._child = 0
        self._reply(ENDED, status, usage.ru_utime + usage.ru_stime, usage.ru_maxrss)

    def _kill_stragglers(self) -> None:
        """Daemons left the process group, but they cannot leave the family: orphans become our children."""
        while True:
            try:
                if os.waitpid(-1, os.WNOHANG)[0]:
                    continue
            except ChildProcessError:
                return
            if self._means.ids:
                self._kill_user(self._means.ids[self._child % len(self._means.ids)])
            elif not kill_descendants():
                return
            with contextlib.suppress(ChildProcessError):
                os.waitpid(-1, 0)

    @staticmethod
    def _kill_user(user: int) -> None:
        """Everything the user runs, at one blow: nothing can fork away from under it."""
        pid = os.fork()
        if pid == 0:
            os.setresuid(user, user, user)
            with contextlib.suppress(ProcessLookupError):
                os.kill(-1, signal.SIGKILL)
            os._exit(0)
        os.waitpid(pid, 0)

    def _watch_disk(self) -> None:
        """Where a folder has no size of its own, look now and then."""
        if not confinement.fits(self._folder()):
            self._signal(signal.SIGKILL)
            self._reply(FULL)

    def _folder(self) -> str:
        return os.path.join(self._means.base, str(self._child))

    def _remove_traces(self) -> None:
        if not self._means.namespaces:
            remove_tree(self._folder())
        if self._means.alone:
            empty_scratch(self._means.base)


def kill_descendants() -> bool:
    """Kill our children and theirs, having stopped them all first, so that none has another meanwhile.

    False where there is no ``/proc`` to find them by.
    """
    if not kernel.LINUX:
        return False
    stopped: set[int] = set()
    while True:
        running = descendants() - stopped
        if not running:
            break
        for pid in running:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGSTOP)
        stopped |= running
    for pid in stopped:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    return True


def descendants() -> set[int]:
    """The ids of all processes below this one (proc(5), ``stat``: state and parent follow the name)."""
    children: dict[int, list[int]] = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as stat:
            parent = int(stat.read().rpartition(b")")[2].split()[1])
            children.setdefault(parent, []).append(int(name))
    found: set[int] = set()
    ahead = [os.getpid()]
    while ahead:
        below = children.get(ahead.pop(), [])
        found.update(below)
        ahead += below
    return found


def empty_scratch(keep: str) -> None:
    """Remove all that executions have left where everybody may write, but for the folder ``keep``."""
    for folder in filter(os.path.isdir, confinement.SCRATCH):
        for entry in os.scandir(folder):
            if not confinement.lies_in(keep, entry.path):
                remove_tree(entry.path)


def remove_tree(path: str) -> None:
    """Remove a file or folder, whatever an action made of it."""
    try:
        _remove_flat(path)
    except FileNotFoundError:
        return
    except OSError:
        # `rm` copes with any depth; what an action made unreadable for itself, its owner has to open first.
        for command in (["chmod", "-R", "u+rwx", path], ["rm", "-rf", path]):
            os.waitpid(os.posix_spawnp(command[0], command, {"PATH": os.defpath}), 0)


def _remove_flat(path: str) -> None:
    """The usual case: a file, or a folder with a few files and empty folders."""
    if os.path.islink(path) or not os.path.isdir(path):
        os.unlink(path)
        return
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                os.rmdir(entry.path)
            else:
                os.unlink(entry.path)
    os.rmdir(path)


def main() -> None:
    """Run as ``python -I -S -c … <control descriptor> <folder> <"alone" or "">``."""
    control = socket.socket(fileno=int(sys.argv[1]))
    control.set_inheritable(False)
    kernel.set_dumpable(on=False)
    kernel.adopt_orphans()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole terminal; our end is the socket's
    means = confinement.prepare(sys.argv[2], alone=bool(sys.argv[3]))
    site.setquit()  # the `exit` and `quit` that scripts use; the rest of `site` looks for packages
    gc.collect()
    gc.freeze()
    streams = Zygote(control, means).serve()
    if streams is not None:
        child.become(streams, means)
