"""Pack archives: what came in a tar.gz, as plain files, and the same files as one canonical tar.gz.

An archive is a stranger's input. Nothing of it touches a file system here, memory is bounded by :class:`Limits`, and
only plain files with harmless names come out (contract: semantics §2.9, "safe unpack").
"""

import gzip
import hashlib
import io
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

MANIFEST: Final = "pack.yaml"

# What macOS and git leave in archives that people make by hand.
_DEBRIS: Final = frozenset({".DS_Store", ".git", "__MACOSX", "__pycache__"})
_RATIO_COUNTS_FROM: Final = 1 << 20


class ArchiveError(Exception):
    """The bytes are not an archive that we take; the message says why."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes. ``unpacked`` counts the tar stream with its headers, so many empty files do not slip through."""

    packed: int = 100 << 20
    unpacked: int = 64 << 20
    file: int = 32 << 20
    files: int = 5_000
    ratio: int = 200  # deflate reaches 1000 on zeros; text with any sense in it stays under 50
    name: int = 255


def unpack(data: bytes, limits: Limits | None = None) -> dict[str, bytes]:
    """The files of a tar.gz by their path under the pack's root, which is where ``pack.yaml`` is: at the top of the
    archive or in its only top folder.

    Raises :class:`ArchiveError` for anything else: links, devices, sparse files, absolute paths, ``..``, names that
    occur twice, more than ``limits`` allow, no ``pack.yaml``.
    """
    limits = limits or Limits()
    stream = _decompress(data, limits)
    files: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(stream), mode="r:") as tar:
            for member in tar:
                if (name := _accept(member, limits)) is None:
                    continue
                if name in files:
                    raise ArchiveError(f"{name!r} is in the archive twice")
                if len(files) == limits.files:
                    raise ArchiveError(f"the archive has more than {limits.files} files")
                content = tar.extractfile(member)
                files[name] = content.read() if content else b""
    except (tarfile.TarError, ValueError, EOFError) as error:
        raise ArchiveError(f"not a tar archive: {error}") from None
    return _under_root(files)


def gathered(files: Iterable[tuple[str, bytes]], limits: Limits | None = None) -> dict[str, bytes]:
    """Files that came one by one, held to the same rules as those of an archive. Raises :class:`ArchiveError`."""
    limits = limits or Limits()
    found: dict[str, bytes] = {}
    for given, content in files:
        name = _clean(given, limits)
        if name == ".":
            raise ArchiveError("a file has no name")
        if name in found:
            raise ArchiveError(f"{name!r} is there twice")
        if len(content) > limits.file:
            raise ArchiveError(f"{name!r} is larger than {limits.file} bytes")
        found[name] = content
    if len(found) > limits.files:
        raise ArchiveError(f"there are more than {limits.files} files")
    _check_folders(found)
    return found


def contents(archive: bytes) -> dict[str, bytes]:
    """The files of an archive that :func:`pack` made."""
    files: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        for member in tar:
            content = tar.extractfile(member)
            files[member.name] = content.read() if content else b""
    return files


def pack(files: Mapping[str, bytes]) -> bytes:
    """One tar.gz of ``files``: the same files always give the same bytes, whoever packed them and when.

    Files that begin with ``#!`` are executable.
    """
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in sorted(files):
            member = tarfile.TarInfo(name)
            member.size = len(files[name])
            member.mode = 0o755 if files[name].startswith(b"#!") else 0o644
            tar.addfile(member, io.BytesIO(files[name]))
    return gzip.compress(plain.getvalue(), compresslevel=6, mtime=0)


def digest(data: bytes) -> str:
    """SHA-256 in hex: the name of an archive (``Pack.content``)."""
    return hashlib.sha256(data).hexdigest()


def _decompress(data: bytes, limits: Limits) -> bytes:
    if len(data) > limits.packed:
        raise ArchiveError(f"the archive is larger than {limits.packed} bytes")
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as packed:
            stream = packed.read(limits.unpacked + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise ArchiveError(f"not a gzip archive: {error}") from None
    if len(stream) > limits.unpacked:
        raise ArchiveError(f"the archive unpacks to more than {limits.unpacked} bytes")
    if len(stream) > _RATIO_COUNTS_FROM and len(stream) > limits.ratio * len(data):
        raise ArchiveError(f"the archive unpacks to more than {limits.ratio} times its size")
    return stream


def _accept(member: tarfile.TarInfo, limits: Limits) -> str | None:
    """The clean name of a file to take; None for folders and debris."""
    name = _clean(member.name, limits)
    if member.isdir():
        return None
    if not member.isreg() or member.issparse():
        raise ArchiveError(f"{name!r} is not a plain file: links, devices and sparse files are not taken")
    if member.size > limits.file:
        raise ArchiveError(f"{name!r} is larger than {limits.file} bytes")
    parts = PurePosixPath(name).parts
    if not parts or _DEBRIS.intersection(parts) or parts[-1].startswith("._"):
        return None
    return name


def _clean(name: str, limits: Limits) -> str:
    if len(name.encode(errors="surrogateescape")) > limits.name:
        raise ArchiveError(f"a name in the archive is longer than {limits.name} bytes: {name[:40]!r}...")
    if name.startswith("/") or "\\" in name or not name.isprintable():
        raise ArchiveError(f"{name!r} is not a relative path of plain characters")
    path = PurePosixPath(name)
    if ".." in path.parts:
        raise ArchiveError(f"{name!r} leads out of the archive")
    return str(path)


def _check_folders(files: Mapping[str, bytes]) -> None:
    for name in files:
        for folder in _folders(name):
            if folder in files:
                raise ArchiveError(f"{folder!r} is both a file and a folder")


def _under_root(files: Mapping[str, bytes]) -> dict[str, bytes]:
    _check_folders(files)
    if MANIFEST in files:
        return dict(files)
    roots = {PurePosixPath(name).parts[0] for name in files}
    if len(roots) == 1:
        root = roots.pop()
        if f"{root}/{MANIFEST}" in files:
            return {name.removeprefix(f"{root}/"): content for name, content in files.items()}
    raise ArchiveError(f"no {MANIFEST} at the top of the archive or in its only top folder")


def _folders(name: str) -> Iterator[str]:
    return (str(folder) for folder in PurePosixPath(name).parents)
