"""What a pack asks to be installed for it (contract: semantics §2.9): ``requirements.txt`` and ``package.json``.

A manifest is known by a digest of its content, and of everything in the pack that it refers to: wheels beside it,
further requirement files, tarballs, lock files. Packs with the same digest run with the same environment.

No installer's grammar is known here. Every word of a manifest that names a file or a folder of the pack counts as a
reference, and where code of the pack takes part in the installation, every file of the pack counts: one too many costs
a build, one too few would run a pack with another's libraries.
"""

import hashlib
import posixpath
import re
from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from chalicelib.domain.entities import LibraryRuntime
from chalicelib.domain.runtimes import NODE, PYTHON

FILES: Final[Mapping[LibraryRuntime, str]] = {"python": "requirements.txt", "node": "package.json"}
RUNTIMES: Final[Mapping[str, LibraryRuntime]] = {PYTHON: "python", NODE: "node"}  # by runtime ref

_FORMAT: Final = "1"  # of environments: a change of what is built, or how it is packed, makes other digests
_BESIDE: Final[Mapping[LibraryRuntime, tuple[str, ...]]] = {
    "python": (),
    "node": ("package-lock.json", "npm-shrinkwrap.json", ".npmrc"),
}
_WORDS: Final = re.compile(rb"[^\s\"'=@,;<>()\[\]{}#]+")
_NESTED: Final = (".txt", ".in", ".toml", ".cfg", ".json")  # files that may refer to further ones
_CODE: Final = ("setup.py", "pyproject.toml", "package.json")  # of a package that lies in the pack as source
_HOOKS: Final = ("preinstall", "install", "postinstall", "prepare")  # scripts that npm runs
_MOST_SCANNED: Final = 1 << 20  # bytes of one file


class _PackageJson(msgspec.Struct, rename="camel"):
    """The part of ``package.json`` that says whether anything is to be installed."""

    dependencies: dict[str, str] = {}
    optional_dependencies: dict[str, str] = {}
    workspaces: list[str] | dict[str, list[str]] = []
    scripts: dict[str, str] = {}


def manifests(files: Mapping[str, bytes]) -> dict[LibraryRuntime, str]:
    """The digest of each manifest among ``files`` that asks for anything, by the runtime it is for.

    A pack that brings its own ``node_modules`` asks for nothing.
    """
    found: dict[LibraryRuntime, str] = {}
    for runtime, name in FILES.items():
        if name in files and _asks(runtime, files):
            found[runtime] = _digest(runtime, files)
    return found


def environment_ref(runtime: LibraryRuntime, manifest: str, platform: str) -> str:
    """The ref of the environment for a manifest's digest on ``platform`` (runtime's version and machine)."""
    return f"{runtime}-{platform}-{manifest[:40]}"


def _asks(runtime: LibraryRuntime, files: Mapping[str, bytes]) -> bool:
    content = files[FILES[runtime]]
    if runtime == "python":
        return any(line.strip() and not line.lstrip().startswith(b"#") for line in content.splitlines())
    if any(name.startswith("node_modules/") for name in files):
        return False
    asked = _package(content)
    # What cannot be read is the installer's to complain about.
    return asked is None or bool(asked.dependencies or asked.optional_dependencies or asked.workspaces)


def _package(content: bytes) -> _PackageJson | None:
    try:
        return msgspec.json.decode(content, type=_PackageJson)
    except msgspec.DecodeError:
        return None


def _runs_code(runtime: LibraryRuntime, counted: set[str], files: Mapping[str, bytes]) -> bool:
    """Whether the installation runs code of the pack, which may read any file of it."""
    manifest = FILES[runtime]
    if any(posixpath.basename(name) in _CODE for name in counted if name != manifest):
        return True
    asked = _package(files[manifest]) if runtime == "node" else None
    return asked is not None and any(hook in asked.scripts for hook in _HOOKS)


def _digest(runtime: LibraryRuntime, files: Mapping[str, bytes]) -> str:
    counted: set[str] = set()
    ahead = [name for name in (FILES[runtime], *_BESIDE[runtime]) if name in files]
    while ahead:
        name = ahead.pop()
        if name in counted:
            continue
        counted.add(name)
        if name.endswith(_NESTED) or name == ".npmrc":
            ahead += _named(files[name][:_MOST_SCANNED], posixpath.dirname(name), files)
    digest = hashlib.sha256(f"{_FORMAT} {runtime}".encode())
    for name in sorted(files if _runs_code(runtime, counted, files) else counted):
        digest.update(f"\0{name}\0{hashlib.sha256(files[name]).hexdigest()}".encode())
    return digest.hexdigest()


def _named(content: bytes, folder: str, files: Mapping[str, bytes]) -> Iterator[str]:
    """The files that a word of ``content`` names, from its own folder or from the pack's, alone or by their folder."""
    words = {word.decode("utf-8", "replace") for word in _WORDS.findall(content)}
    for word in sorted(words):
        path = re.sub(r"^(file:(//)?)?", "", word)
        for start in dict.fromkeys((folder, "")):
            named = posixpath.normpath(posixpath.join(start, path.lstrip("/") if start == "" else path))
            if named in files:
                yield named
            elif named == "." and path:
                yield from files
            elif _plain(named):
                yield from (name for name in files if name.startswith(f"{named}/"))


def _plain(path: str) -> bool:
    return not path.startswith(("..", "/")) and path != "."
