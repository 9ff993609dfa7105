"""What a forked child gives up before it becomes somebody's action (design §3).

As much as the platform lets us, decided once by :func:`prepare` in the zygote:

====================  ============================================================================================
the zygote is root    a user of its own per execution, so that nothing of another execution or of the platform can
                      be read, signalled or traced; the tenant's group, to read its pack
  … and may mount     its own /tmp, /var/tmp and /dev/shm in memory, gone with it; /proc without the others
  … and may not       without a readable Python for that user: root without its capabilities
an ordinary user      what Landlock knows (Linux 5.13): write in the own folder only, no signals outside
AWS Lambda            the function's microVM and Lambda's tenant isolation; /tmp is emptied between executions
====================  ============================================================================================

Always: resource limits, no new privileges, a session of its own, first in line when memory runs out. Nothing of this
is undone: it ends with the process.
"""

import contextlib
import os
import resource
import signal
import stat
import sys

from runners import kernel

MEGABYTE = 1024 * 1024
DISK = 256 * MEGABYTE  # what one execution may leave on disk at a time
FILES = 65_536
PROCESSES = 256
OPEN_FILES = 1024

SCRATCH = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108  # what every user may write, and would find again

_SYSTEM = (
    *("/usr", "/bin", "/sbin", "/lib", "/lib64", "/opt", "/proc", "/nix", "/sys/devices/system/cpu"),
    *("/run/systemd/resolve", "/var/lang", "/var/task", "/var/runtime"),
)
_SETTINGS = "/etc"
_MANY_IDS = range(1 << 30, (1 << 31) - 1)  # process ids end at 2^22 (proc(5), pid_max)
_FEW_IDS = range(20_000, 65_000)  # a container with 65,536 of them


class Means:
    """What this platform lets us do; see the module's table."""

    def __init__(self, base: str, *, alone: bool = False) -> None:
        self.alone = alone  # the machine is ours: what is in its scratch folders an execution has left
        self.base = base  # the runner's folder; executions' folders are in it unless they get a /tmp of their own
        self.root = os.geteuid() == 0
        self.namespaces = False
        self.settings = [_SETTINGS]  # what it may read of the system's configuration
        self.ids = range(0)  # for users and groups of executions; empty: it stays root
        self.landlock = kernel.landlock_version()
        self.processes: int | None = PROCESSES  # None: cannot be told apart from the user's own

    def user(self) -> int:
        """The user id of the calling process's execution; a process id belongs to one execution at a time."""
        return self.ids[os.getpid() % len(self.ids)]


def prepare(base: str, *, alone: bool = False) -> Means:
    """Look what can be done, and arrange once what all children share. Runs in the zygote, before any child."""
    means = Means(base, alone=alone)
    if not means.root:
        means.processes = _room_for_processes()
        return means
    with contextlib.suppress(OSError):
        kernel.unshare(kernel.NEW_MOUNTS)
        kernel.keep_mounts_private()
        means.namespaces = True
    if means.namespaces:
        closed = _first_closed(sys.base_prefix)
        if closed is not None:
            _cover(closed, [sys.base_prefix], size=MEGABYTE, mode=0o755)
        with contextlib.suppress(OSError):
            kernel.mount_processes("/proc")
    means.ids = own_ids() if _first_closed(sys.base_prefix) is None else range(0)
    if not means.ids:  # a root without capabilities still owns files
        means.settings = open_to_all(_SETTINGS)
    return means


def confine(means: Means, *, group: int | None, memory: int | None, visible: list[str], own: str | None = None) -> str:
    """Confine the calling process, for good; ``visible`` are folders that it may read, and ``own`` is one outside of
    its private folder that is to be its own as well. Returns its private folder.

    Raises ``OSError`` where something that should work does not: then nothing of the tenant's may run.
    """
    os.setsid()
    os.umask(0o077)
    _first_to_die()
    visible = [*visible, sys.base_prefix, *([own] if own else [])]
    folder = os.path.join(means.base, str(os.getpid()))
    if means.namespaces:
        kernel.unshare(kernel.NEW_MOUNTS | kernel.NEW_IPC)
        for path in SCRATCH:
            if os.path.isdir(path):
                _cover(path, [v for v in visible if lies_in(v, path)], size=DISK, mode=0o1777)
        folder = "/tmp/run"  # noqa: S108  # this /tmp is the execution's own
    os.mkdir(folder, 0o700)
    _limit(means, memory)
    if means.ids:
        user = means.user()
        group = user if group is None else group
        os.chown(folder, user, group)
        if own:
            _hand_over(own, user, group)
        os.setgroups([])
        os.setresgid(group, group, group)
        os.setresuid(user, user, user)
    elif means.root:
        kernel.drop_capabilities()
    kernel.die_with_parent(signal.SIGKILL)
    kernel.no_new_privileges()
    if means.landlock and not means.namespaces:
        kernel.landlock(means.landlock, [*_SYSTEM, *means.settings, *visible], [folder, *([own] if own else [])])
    # Whoever runs under this user may look at itself; the fork has taken "no" over from the zygote.
    kernel.set_dumpable(on=True)
    return folder


def _limit(means: Means, memory: int | None) -> None:
    limits = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: DISK,
        resource.RLIMIT_NOFILE: OPEN_FILES,
    }
    if means.processes is not None:
        limits[resource.RLIMIT_NPROC] = means.processes
    if memory is not None and kernel.LINUX:
        limits[resource.RLIMIT_DATA] = memory
    for what, most in limits.items():
        hard = resource.getrlimit(what)[1]
        value = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (value, value))


def _first_to_die() -> None:
    """Memory runs out: the kernel takes the action, and neither the runner nor the machine."""
    with contextlib.suppress(OSError):
        score = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
        os.write(score, b"1000")
        os.close(score)


def _cover(path: str, keep: list[str], *, size: int, mode: int) -> None:
    """Put an empty file system over ``path``, through which only the folders ``keep`` still show."""
    kept = [(os.open(folder, os.O_PATH | os.O_CLOEXEC), folder) for folder in keep]
    kernel.mount_scratch(path, size=size, files=FILES, mode=mode)
    for source, folder in kept:
        umask = os.umask(0o022)
        os.makedirs(folder, exist_ok=True)
        os.umask(umask)
        kernel.mount_again(source, folder)
        os.close(source)


def _hand_over(folder: str, user: int, group: int) -> None:
    """What the runner has laid out, in a folder that no execution has reached yet."""
    os.chown(folder, user, group)
    for within, folders, files in os.walk(folder):
        for name in folders + files:
            os.chown(os.path.join(within, name), user, group, follow_symlinks=False)


def fits(folder: str) -> bool:
    """Whether what is in ``folder`` keeps to :data:`DISK` bytes and :data:`FILES` files."""
    used, files, ahead = 0, 0, [folder]
    while ahead:
        path = ahead.pop()
        try:
            entries = list(os.scandir(path))
        except PermissionError:
            os.chmod(path, 0o700)  # somebody does not want to be looked at
            entries = list(os.scandir(path))
        except OSError:
            continue  # gone meanwhile
        files += len(entries)
        for entry in entries:
            with contextlib.suppress(OSError):
                used += entry.stat(follow_symlinks=False).st_blocks * 512
                if entry.is_dir(follow_symlinks=False):
                    ahead.append(entry.path)
        if used > DISK or files > FILES:
            return False
    return True


def lies_in(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder + "/")


def _first_closed(path: str) -> str | None:
    """The topmost folder on the way to ``path`` that other users may not pass; None: they get there."""
    parts = os.path.realpath(path).split("/")
    for end in range(2, len(parts) + 1):
        folder = "/".join(parts[:end])
        if not os.stat(folder).st_mode & 0o001:
            return folder
    return None


def open_to_all(path: str) -> list[str]:
    """``path`` if everybody may read all of it, else the parts of it that everybody may read."""
    mode = os.stat(path, follow_symlinks=False).st_mode
    if stat.S_ISLNK(mode):
        return []
    if not stat.S_ISDIR(mode):
        return [path] if mode & 0o004 else []
    if mode & 0o005 != 0o005:
        return []
    inside = {entry.path: open_to_all(entry.path) for entry in os.scandir(path) if not entry.is_symlink()}
    if all(parts == [entry] for entry, parts in inside.items()):
        return [path]
    return [part for parts in inside.values() for part in parts]


def own_ids() -> range:
    """The user and group ids that executions get; empty where we are not root or there are too few."""
    if os.geteuid() != 0 or not kernel.LINUX:
        return range(0)
    try:
        with open("/proc/self/uid_map", encoding="ascii") as mapping:
            inside, _, count = (int(number) for number in mapping.readline().split())
    except (OSError, ValueError):
        return _FEW_IDS
    if inside != 0 or count < _FEW_IDS.stop:
        return range(0)
    return _MANY_IDS if count > _MANY_IDS.stop else _FEW_IDS


def group_of_tenant(runner: int, tenant: int) -> int | None:
    """The group that may read what runner process ``runner`` keeps for the ``tenant``-th tenant it saw (0-255)."""
    ids = own_ids()
    return ids[(runner * 256 + tenant) % len(ids)] if ids else None


def _room_for_processes() -> int | None:
    """The limit counts all threads of the user: few on Lambda, but on a desktop ours come on top of them."""
    threads = 0
    try:
        for entry in os.scandir("/proc"):
            if entry.name.isdigit() and entry.stat().st_uid == os.getuid():
                with contextlib.suppress(OSError):
                    threads += len(os.listdir(f"/proc/{entry.name}/task"))
    except OSError:
        return None
    return threads + 2 * PROCESSES
