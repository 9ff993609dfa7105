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

``TERMINATE`` and ``KILL`` signal the child's process group in between. The child stays a zombie until ``END``, so that
its id cannot name another process meanwhile. When the runner dies the socket closes, and everything ends.
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

FORK, TERMINATE, KILL, END = b"F", b"T", b"K", b"E"
READY, EXITED, ENDED = 1, 2, 3
REPLY = struct.Struct("=Bidq")  # what, wait status, CPU seconds, peak memory in KB


class Zygote:
    """One child at a time, as a Lambda environment has one invocation at a time."""

    def __init__(self, control: socket.socket, means: confinement.Means) -> None:
        self._control = control
        self._means = means
        self._child = 0
        self._children_changed, woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def serve(self) -> list[int] | None:
        """Answer the runner until it is gone. In a child, returns its descriptors; in the zygote, ``None``."""
        waiting = select.poll()
        waiting.register(self._control, select.POLLIN)
        waiting.register(self._children_changed, select.POLLIN)
        self._reply(READY)
        while True:
            ready = [descriptor for descriptor, _ in waiting.poll()]
            if self._children_changed in ready:
                os.read(self._children_changed, 512)
                self._look_after_children()
            if self._control.fileno() not in ready:
                continue
            request, streams, _, _ = socket.recv_fds(self._control, 1, child.STREAMS)
            if request == FORK:
                if self._fork():
                    return streams
                for stream in streams:
                    os.close(stream)
            elif request in (TERMINATE, KILL):
                self._signal(signal.SIGTERM if request == TERMINATE else signal.SIGKILL)
            else:
                self._end()
            if not request:
                return None

    def _reply(self, what: int, status: int = 0, cpu: float = 0.0, memory: int = 0) -> None:
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
        self._remove_folder()
        self._child = 0
        with contextlib.suppress(OSError):  # the runner may be gone, which is why we are here
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
            elif not self._kill_orphans():
                return
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

    @staticmethod
    def _kill_orphans() -> bool:
        """Our children by ``/proc``; theirs become ours when they die. False where there is no ``/proc``."""
        if not kernel.LINUX:
            return False
        for name in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as stat:
                parent = int(stat.read().rpartition(b")")[2].split()[1])
                if parent == os.getpid():
                    os.kill(int(name), signal.SIGKILL)
        return True

    def _remove_folder(self) -> None:
        folder = os.path.join(self._means.base, str(self._child))
        try:
            self._remove_flat(folder)
        except FileNotFoundError:
            return
        except OSError:
            # `rm` copes with any depth; what an action made unreadable for itself, its owner has to open first.
            for command in (["chmod", "-R", "u+rwx", folder], ["rm", "-rf", folder]):
                os.waitpid(os.posix_spawnp(command[0], command, {"PATH": os.defpath}), 0)

    @staticmethod
    def _remove_flat(folder: str) -> None:
        """The usual case: a few files and empty folders."""
        for entry in os.scandir(folder):
            if entry.is_dir(follow_symlinks=False):
                os.rmdir(entry.path)
            else:
                os.unlink(entry.path)
        os.rmdir(folder)


def main() -> None:
    """Run as ``python -I -S -c … <control descriptor> <folder>``."""
    control = socket.socket(fileno=int(sys.argv[1]))
    control.set_inheritable(False)
    kernel.set_dumpable(on=False)
    kernel.adopt_orphans()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole terminal; our end is the socket's
    means = confinement.prepare(sys.argv[2])
    site.setquit()  # the `exit` and `quit` that scripts use; the rest of `site` looks for packages
    gc.collect()
    gc.freeze()
    streams = Zygote(control, means).serve()
    if streams is not None:
        child.become(streams, means)
