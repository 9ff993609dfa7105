"""The folder that the executions of one workflow run share: ``ATTUNE_ARTIFACTS_DIR`` (docs/decisions/014-artifacts.md).

A run finds there what those before it have left, and what it changes becomes an archive of its own. This process has no
rights on any bucket: the archives come by presigned URLs, and the new one goes by a presigned form. Only the difference
travels, so runs side by side do not undo each other's files; a run that changes nothing makes no call.

What lies in the folder is an action's. It is packed when nothing of the action runs any more; links, devices and pipes
are not looked at, let alone followed.
"""

import contextlib
import gzip
import io
import os
import shutil
import stat
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import IO, Final

import msgspec

from chalicelib.protocol import Artifacts, Upload
from runners import presigned
from runners.following import Outcome

MAX_CONTENT: Final = 192 * 1024 * 1024  # bytes of all files together; a run may leave 256 MB on disk at a time
MAX_FILES: Final = 10_000  # with folders
MAX_ARCHIVE: Final = 64 * 1024 * 1024
_MEGABYTE: Final = 1024 * 1024
_LEVEL: Final = 1  # of gzip: it is the runner's time
_LONG_AGO: Final = 946_684_800 * 10**9  # of files that were unpacked: a clock's step may be longer than a run
_REMOVED: Final = tarfile.CHRTYPE  # in archives, stands for a name that is gone, as in overlayfs


class ArtifactsError(Exception):
    """There is too much in the folder, or what should be there has expired: the run has failed."""


class _Seen(msgspec.Struct, frozen=True):
    """What tells a file from a changed one. Folders have no size and time: what changes in them is files."""

    folder: bool
    executable: bool = False
    size: int = 0
    inode: int = 0
    changed: int = 0  # nanoseconds


Get = Callable[[str, int], bytes | None]
Put = Callable[[Upload, IO[bytes], int], None]


class SharedFolder:
    """One run's copy of it, from when it is made until :meth:`remove`."""

    def __init__(self, base: Path, given: Artifacts, get: Get | None = None, put: Put | None = None) -> None:
        """Raises :class:`ArtifactsError`, and OSError when S3 is out of reach."""
        self._upload = given.upload
        self._put = put or presigned.upload
        self._base = base
        self.path = Path(tempfile.mkdtemp(prefix="artifacts-", dir=base))
        try:
            self._fetch(given.archives, get or presigned.get)
            self._before = _look(self.path)
        except BaseException:
            self.remove()
            raise

    def _fetch(self, archives: list[str], get: Get) -> None:
        room = _Room()
        for url in archives:
            content = get(url, MAX_ARCHIVE)
            if content is None:
                raise ArtifactsError("artifacts of earlier tasks of this workflow have expired")
            _unpack(content, self.path, room)

    def store(self) -> int:
        """Upload what has changed, and return how many bytes that takes; 0: nothing has changed.

        Raises :class:`ArtifactsError`, and OSError when S3 is out of reach.
        """
        now = _look(self.path)
        changed = [name for name, seen in now.items() if self._before.get(name) != seen]
        gone = [name for name in self._before if name not in now]
        if not changed and not gone:
            return 0
        if sum(seen.size for seen in now.values()) > MAX_CONTENT:
            raise ArtifactsError(f"the artifacts take more than {MAX_CONTENT // _MEGABYTE} MB")
        with tempfile.TemporaryFile(dir=self._base) as file:
            _pack(file, self.path, sorted(changed), sorted(gone, reverse=True))
            size = file.tell()
            if size > self._upload.most:
                raise ArtifactsError(
                    f"what the action changed in its artifacts takes {size} bytes packed; "
                    f"this workflow run has room for {self._upload.most} more"
                )
            file.seek(0)
            self._put(self._upload, file, size)
        return size

    def remove(self) -> None:
        """Remove it from this machine."""
        # What an action made unreadable for itself, its owner has to open first.
        with contextlib.suppress(ArtifactsError):
            _look(self.path, open_all=True)
        shutil.rmtree(self.path, ignore_errors=True)


def stored(folder: SharedFolder, outcome: Outcome) -> Outcome:
    """``outcome`` of a run in ``folder``, with what it left there stored, whether it succeeded or not; but nothing of
    one that was cut off in the middle."""
    if outcome.timed_out or outcome.result.get("cancelled"):
        return outcome
    try:
        return msgspec.structs.replace(outcome, artifacts=folder.store())
    except (ArtifactsError, OSError) as error:
        if outcome.status == "failed":
            return outcome
        said = str(error) if isinstance(error, ArtifactsError) else "the artifacts could not be stored"
        result = outcome.result | {"succeeded": False, "error": said}
        return msgspec.structs.replace(outcome, status="failed", result=result)


class _Room:
    """What archives may still unpack."""

    def __init__(self) -> None:
        self._bytes = MAX_CONTENT
        self._files = MAX_FILES

    def take(self, size: int) -> None:
        self._bytes -= size
        self._files -= 1
        if self._bytes < 0 or self._files < 0:
            raise ArtifactsError(
                f"the artifacts of this workflow run are more than {MAX_CONTENT // _MEGABYTE} MB or {MAX_FILES} files"
            )


def _look(folder: Path, *, open_all: bool = False) -> dict[str, _Seen]:
    """Every file and folder below ``folder``, by its relative path."""
    found: dict[str, _Seen] = {}
    ahead = [str(folder)]
    while ahead:
        within = ahead.pop()
        for entry in _entries(within):
            with contextlib.suppress(OSError):
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    ahead.append(entry.path)
                    found[os.path.relpath(entry.path, folder)] = _Seen(folder=True)
                elif stat.S_ISREG(status.st_mode):
                    found[os.path.relpath(entry.path, folder)] = _Seen(
                        folder=False,
                        executable=bool(status.st_mode & stat.S_IXUSR),
                        size=status.st_size,
                        inode=status.st_ino,
                        changed=status.st_mtime_ns,
                    )
        if len(found) > MAX_FILES and not open_all:
            raise ArtifactsError(f"the artifacts are more than {MAX_FILES} files")
    return found


def _entries(folder: str) -> list[os.DirEntry[str]]:
    with contextlib.suppress(OSError):  # deeper than a path can say
        _open_to_us(Path(folder), 0o700)
        return list(os.scandir(folder))
    return []


def _open_to_us(path: Path, mode: int) -> None:
    """Where actions run as our own user, one may have shut itself out."""
    if path.lstat().st_mode & mode != mode:
        path.chmod(mode)


def _pack(file: IO[bytes], folder: Path, changed: list[str], gone: list[str]) -> None:
    with tarfile.open(fileobj=file, mode="w:gz", compresslevel=_LEVEL, format=tarfile.PAX_FORMAT) as archive:
        for name in gone:
            member = tarfile.TarInfo(name)
            member.type = _REMOVED
            archive.addfile(member)
        for name in changed:
            _add(archive, folder / name, name)


def _add(archive: tarfile.TarFile, path: Path, name: str) -> None:
    member = tarfile.TarInfo(name)
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISDIR(path.lstat().st_mode):
            member.type = tarfile.DIRTYPE
            archive.addfile(member)
            return
        _open_to_us(path, 0o400)
        source = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(source, "rb") as content:
            status = os.fstat(source)
            if stat.S_ISREG(status.st_mode):
                member.size, member.mode = status.st_size, status.st_mode & 0o700
                archive.addfile(member, content)


def _unpack(content: bytes, folder: Path, room: _Room) -> None:
    """Lay the archives in ``content`` over ``folder``, which nobody else can reach yet."""
    unpacked = gzip.GzipFile(fileobj=io.BytesIO(content))  # reads several as one
    try:
        with tarfile.open(fileobj=unpacked, mode="r|", ignore_zeros=True) as archive:
            for member in archive:
                room.take(member.size)
                _lay(archive, member, folder)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise ArtifactsError(f"artifacts of this workflow run cannot be read: {error}") from error


def _lay(archive: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    name = PurePosixPath(member.name)
    if name.is_absolute() or not name.parts or ".." in name.parts:
        raise tarfile.TarError(f"{member.name} does not lie in the folder")
    path = folder / name
    if member.type == _REMOVED:
        with contextlib.suppress(OSError):  # somebody else has put something there, or taken it away
            path.rmdir() if path.is_dir() else path.unlink()
        return
    for above in [*reversed(path.relative_to(folder).parents)][1:]:
        _make_folder(folder / above)
    if member.isdir():
        _make_folder(path)
    elif member.isfile():
        if path.is_dir():
            shutil.rmtree(path)
        source = archive.extractfile(member)
        path.unlink(missing_ok=True)
        with path.open("xb") as target:
            shutil.copyfileobj(source or io.BytesIO(), target)
        path.chmod(0o700 if member.mode & 0o100 else 0o600)
        os.utime(path, ns=(_LONG_AGO, _LONG_AGO))


def _make_folder(path: Path) -> None:
    if not path.is_dir():
        path.unlink(missing_ok=True)
        path.mkdir(mode=0o700)
