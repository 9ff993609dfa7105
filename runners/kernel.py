"""The few system calls that Python does not offer, through the C library.

Everything here says by its return value or an ``OSError`` whether the kernel did it; what to do when it did not is the
caller's business (:mod:`runners.confinement`). Numbers are from the Linux headers named beside them. Imported by the
zygote, so it imports nothing that is not needed (see :mod:`runners.zygote`).
"""

import ctypes
import os
import sys

LINUX = sys.platform == "linux"

# linux/prctl.h
_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38

# linux/sched.h
NEW_MOUNTS = 0x00020000
NEW_IPC = 0x08000000

# linux/mount.h
_MS_NOSUID, _MS_NODEV, _MS_BIND, _MS_REC, _MS_PRIVATE = 0x2, 0x4, 0x1000, 0x4000, 0x40000

# linux/landlock.h; the system calls have one number on every architecture
_LANDLOCK_CREATE_RULESET, _LANDLOCK_ADD_RULE, _LANDLOCK_RESTRICT_SELF = 444, 445, 446
_LANDLOCK_RULE_PATH_BENEATH = 1
_LANDLOCK_CREATE_RULESET_VERSION = 1
_LANDLOCK_SCOPES = 0b11  # abstract sockets and signals stay inside
FS_EXECUTE, FS_WRITE_FILE, FS_READ_FILE, FS_READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
FS_REFER, FS_TRUNCATE, FS_IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_FS_FIRST = (1 << 13) - 1  # what ABI 1 knows
FS_OF_FILES = FS_EXECUTE | FS_WRITE_FILE | FS_READ_FILE | FS_TRUNCATE | FS_IOCTL_DEV

_LINUX_CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


class _Ruleset(ctypes.Structure):
    _fields_ = [("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scopes", ctypes.c_uint64)]


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("access", ctypes.c_uint64), ("parent", ctypes.c_int32)]


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def set_dumpable(*, on: bool) -> None:
    """Off: no process without ``CAP_SYS_PTRACE`` reads this one's memory, environment or open files in ``/proc``."""
    if LINUX:
        _checked(_libc.prctl(_PR_SET_DUMPABLE, int(on), 0, 0, 0))


def adopt_orphans() -> None:
    """Descendants whose parent dies become our children, so that none gets away."""
    if LINUX:
        _checked(_libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))


def die_with_parent(signal_number: int) -> None:
    """Get this signal when the parent dies. A change of user forgets it."""
    if LINUX:
        _checked(_libc.prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0))


def no_new_privileges() -> None:
    """Set-user-id files give nothing from here on."""
    if LINUX:
        _checked(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))


def unshare(what: int) -> None:
    """Leave the namespaces named by ``what``. ``PermissionError`` without ``CAP_SYS_ADMIN``."""
    _checked(_libc.unshare(what))


def keep_mounts_private() -> None:
    """What is mounted from here on does not show outside this mount namespace."""
    _checked(_libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None))


def mount_scratch(path: str, *, size: int, files: int, mode: int) -> None:
    """An empty file system in memory at ``path``, at most ``size`` bytes and ``files`` files."""
    options = f"size={size},nr_inodes={files},mode={mode:o}".encode()
    _checked(_libc.mount(b"attune", path.encode(), b"tmpfs", _MS_NOSUID | _MS_NODEV, options))


def mount_processes(path: str) -> None:
    """``/proc`` that shows a user only its own processes (hidepid, proc(5); per mount since Linux 5.8)."""
    _checked(_libc.mount(b"proc", path.encode(), b"proc", _MS_NOSUID | _MS_NODEV, b"hidepid=2"))


def mount_again(source: int, path: str) -> None:
    """Show the folder open as descriptor ``source`` at ``path`` too."""
    _checked(_libc.mount(f"/proc/self/fd/{source}".encode(), path.encode(), None, _MS_BIND | _MS_REC, None))


def drop_capabilities() -> None:
    """A root without powers: what is left of uid 0 is that it owns files."""

    class Header(ctypes.Structure):
        _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]

    nothing = (ctypes.c_uint32 * 6)()
    _checked(_libc.capset(ctypes.byref(Header(_LINUX_CAPABILITY_VERSION_3, 0)), ctypes.byref(nothing)))


def landlock_version() -> int:
    """The kernel's Landlock ABI; 0 where there is none (Linux < 5.13, or switched off)."""
    if not LINUX:
        return 0
    version: int = _libc.syscall(_LANDLOCK_CREATE_RULESET, None, 0, _LANDLOCK_CREATE_RULESET_VERSION)
    return max(0, version)


def landlock(version: int, readable: list[str], writable: list[str]) -> None:
    """Confine this process and its descendants to these trees, for good. Paths that do not exist are left out.

    Devices and ``/proc`` belong among the readable ones. From ABI 6 on, signals and abstract sockets stay inside too.
    """
    handled = _FS_FIRST
    for since, right in ((2, FS_REFER), (3, FS_TRUNCATE), (5, FS_IOCTL_DEV)):
        handled |= right if version >= since else 0
    size = 8 if version < 4 else 16 if version < 6 else 24  # the struct grew with the ABI
    ruleset = _Ruleset(handled, 0, _LANDLOCK_SCOPES if version >= 6 else 0)
    rules = _checked(_libc.syscall(_LANDLOCK_CREATE_RULESET, ctypes.byref(ruleset), size, 0))
    look = FS_EXECUTE | FS_READ_FILE | FS_READ_DIR
    devices = FS_READ_FILE | FS_WRITE_FILE | FS_READ_DIR | (handled & FS_IOCTL_DEV)
    for path, access in [(p, look) for p in readable] + [(p, handled) for p in writable] + [("/dev", devices)]:
        try:
            folder = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue
        allowed = access if os.path.isdir(path) else access & FS_OF_FILES
        rule = _PathBeneath(allowed, folder)
        _checked(_libc.syscall(_LANDLOCK_ADD_RULE, rules, _LANDLOCK_RULE_PATH_BENEATH, ctypes.byref(rule), 0))
        os.close(folder)
    _checked(_libc.syscall(_LANDLOCK_RESTRICT_SELF, rules, 0))
    os.close(rules)
