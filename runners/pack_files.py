"""The files of packs, fetched once per content and kept for the life of the runner (design §3).

Every tenant has a folder of its own, which only executions of that tenant can enter (their group), even for a
pack that another tenant has too: what lies on disk is never shared across tenants.
"""

import contextlib
import hashlib
import io
import os
import shutil
import tarfile
import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Final

import msgspec

from chalicelib.protocol import Pack
from runners.confinement import group_of_tenant

MAX_ARCHIVE: Final = 128 * 1024 * 1024  # bytes; the control plane takes less of a pack, and this of an environment
MAX_CONTENT: Final = 512 * 1024 * 1024
MAX_KEPT: Final = 48  # packs and environments
MAX_BYTES: Final = 768 * 1024 * 1024  # on disk; Lambda's has 1 GB (infra/template.py)
MAX_TENANTS: Final = 256
_ATTEMPTS: Final = 3
_TIMEOUT: Final = 10.0  # seconds for the connection and between two blocks


class PackUnavailableError(Exception):
    """The archive cannot be had just now, or is not what it should be: nothing the action could have done."""


class NoSuchFileError(Exception):
    """The pack has no such file."""


class _Kept(msgspec.Struct):
    """What lies on disk; ``state`` is compared where an execution could have changed it."""

    folder: Path
    size: int
    state: frozenset[tuple[str, int, int]]
    linked: Path | None = None  # what its `node_modules` points to


class PackFiles:
    """The packs on this runner's disk, and the environments, which are archives as well."""

    def __init__(self, base: Path, fetch: Callable[[str], bytes] | None = None) -> None:
        self._base = base / "packs"
        self._base.mkdir(mode=0o711)
        self._fetch = fetch or fetch_archive
        self._tenants: OrderedDict[str, int] = OrderedDict()
        self._packs: OrderedDict[tuple[str, str], _Kept] = OrderedDict()

    def group(self, tenant: str) -> int | None:
        """The group that may read this tenant's packs; ``None`` where executions have no users of their own."""
        return group_of_tenant(os.getpid(), self._number(tenant))

    def folder(self, tenant: str, pack: Pack) -> Path:
        """The root folder of the pack's files. Raises :class:`PackUnavailableError`."""
        key = (tenant, pack.content)
        known = self._packs.get(key)
        if known is not None:
            self._packs.move_to_end(key)
            if self._is_as_left(tenant, known):
                return known.folder
            self._forget(key)
        folder = self._unpack(tenant, pack, self._fetch(pack.url))
        self._packs[key] = _Kept(folder, _size(folder), self._state(tenant, folder))
        while len(self._packs) > MAX_KEPT or sum(kept.size for kept in self._packs.values()) > MAX_BYTES:
            if len(self._packs) == 1:
                break
            self._forget(next(iter(self._packs)))
        return folder

    def with_modules(self, tenant: str, pack: Pack, libraries: Pack) -> tuple[Path, Path]:
        """The pack's folder, whose ``node_modules`` leads to those of the environment, and the environment's folder.

        Node.js looks for modules in the folders above a file, and nowhere else for ``import``.
        """
        environment = self.folder(tenant, libraries)
        folder = self.folder(tenant, pack)
        kept = self._packs[tenant, pack.content]
        link, target = folder / "node_modules", environment / "node_modules"
        if kept.linked != target and (link.is_symlink() or not link.exists()):
            folder.chmod(0o750)
            link.unlink(missing_ok=True)
            link.symlink_to(target)
            folder.chmod(0o550)
            kept.linked, kept.state = target, self._state(tenant, folder)
        return folder, environment

    def _is_as_left(self, tenant: str, kept: _Kept) -> bool:
        return self._state(tenant, kept.folder) == kept.state

    def _state(self, tenant: str, folder: Path) -> frozenset[tuple[str, int, int]]:
        """Where executions run as our own user, one of them may have changed what the next would read."""
        return frozenset() if self.group(tenant) is not None else _state(folder)

    def _number(self, tenant: str) -> int:
        number = self._tenants.get(tenant)
        if number is None:
            number = len(self._tenants)
            if number >= MAX_TENANTS:
                oldest, number = self._tenants.popitem(last=False)
                for key in [key for key in self._packs if key[0] == oldest]:
                    self._forget(key)
            self._tenants[tenant] = number
        self._tenants.move_to_end(tenant)
        return number

    def _forget(self, key: tuple[str, str]) -> None:
        folder = self._packs.pop(key).folder
        for path in (folder, *folder.rglob("*")):
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o700)  # an ordinary owner has to be let in first
        shutil.rmtree(folder, ignore_errors=True)

    def _unpack(self, tenant: str, pack: Pack, archive: bytes) -> Path:
        if hashlib.sha256(archive).hexdigest() != pack.content:
            raise PackUnavailableError(f"pack {pack.ref}: the archive is not the one that was asked for")
        folder = Path(tempfile.mkdtemp(prefix=f"{pack.content[:12]}-", dir=self._base))
        try:
            with tarfile.open(fileobj=io.BytesIO(archive)) as files:
                _extract(files, folder)
            _hand_over(folder, self.group(tenant))
        except (tarfile.TarError, EOFError, OSError) as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise PackUnavailableError(f"pack {pack.ref}: {error}") from error
        return folder


def fetch_archive(url: str) -> bytes:
    """Get an archive through its presigned URL, with a few attempts. Raises :class:`PackUnavailableError`."""
    import urllib.request  # not before there is a pack to fetch: 15 ms of a cold start
    from http.client import HTTPException

    for attempt in range(_ATTEMPTS):
        with contextlib.suppress(OSError, HTTPException):
            with urllib.request.urlopen(url, timeout=_TIMEOUT) as answer:  # noqa: S310  # the control plane's URL
                content: bytes = answer.read(MAX_ARCHIVE + 1)
            if len(content) > MAX_ARCHIVE:
                break
            return content
        time.sleep(0.1 * 2**attempt)
    raise PackUnavailableError("the archive of the pack cannot be fetched")


def action_file(folder: Path, pack_ref: str, entrypoint: str) -> Path:
    """The file that ``entrypoint`` names: below ``actions/`` (semantics §2.6), or from the pack's root.

    Raises :class:`NoSuchFileError`, also for a name that leads out of the pack.
    """
    name = PurePosixPath(entrypoint)
    if not name.is_absolute() and ".." not in name.parts:
        for path in (folder / "actions" / name, folder / name):
            if path.is_file():
                return path
    raise NoSuchFileError(f"pack {pack_ref} has no file actions/{entrypoint}")


def _extract(files: tarfile.TarFile, folder: Path) -> None:
    """Files and folders, as the control plane has packed them. ``tarfile``'s own filter is not in every Python 3.11."""
    room = MAX_CONTENT
    for member in files:
        name = PurePosixPath(member.name)
        room -= member.size
        if name.is_absolute() or ".." in name.parts or not (member.isfile() or member.isdir()) or room < 0:
            raise tarfile.TarError(f"{member.name} is too large, no file, or does not lie in the pack")
        path = folder / name
        if member.isdir():
            path.mkdir(parents=True, exist_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        source = files.extractfile(member)
        if source is not None:
            with source, path.open("xb") as target:
                shutil.copyfileobj(source, target)
            path.chmod(0o700 if member.mode & 0o100 else 0o600)


def _hand_over(folder: Path, group: int | None) -> None:
    """Readable for the tenant's executions, writable for none."""
    for path in (folder, *folder.rglob("*")):
        if path.is_symlink():
            continue
        if group is not None:
            os.chown(path, 0, group)
        path.chmod(0o550 if path.is_dir() or path.stat().st_mode & 0o100 else 0o440)


def _state(folder: Path) -> frozenset[tuple[str, int, int]]:
    """Every file with its inode and the time of its last change, which no ordinary user can set (``ctime``)."""
    found = set()
    for path, status in _walk(str(folder)):
        found.add((path, status.st_ino, status.st_ctime_ns))
    return frozenset(found)


def _size(folder: Path) -> int:
    """Bytes on disk."""
    return sum(status.st_blocks * 512 for _, status in _walk(str(folder)))


def _walk(folder: str) -> Iterator[tuple[str, os.stat_result]]:
    """Everything below ``folder``, and itself, with links as links. Thousands of files take some milliseconds."""
    yield folder, os.lstat(folder)
    ahead = [folder]
    while ahead:
        for entry in os.scandir(ahead.pop()):
            yield entry.path, entry.stat(follow_symlinks=False)
            if entry.is_dir(follow_symlinks=False):
                ahead.append(entry.path)
