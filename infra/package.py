"""Turning the source into what a deployment uploads: Chalice's template and one zip per plane (design §1, §7).

Zips are deterministic (same source, same bytes), and hold compiled modules, since Lambda's file system is read-only and
a cold start would compile everything again. Our own modules have their sources beside them; the packages' are left out
for size (Python imports a .pyc that stands where the source would). Zips come in two forms: *whole*, with the locked
packages for Lambda's Linux, and *slim*, with our own code only, for the embedded emulator, whose functions run on the
interpreter and packages that are here anyway.
"""

import hashlib
import importlib.util
import io
import json
import marshal
import platform
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
BUILD: Final = ROOT / ".build"
CONTROL_SOURCES: Final = ("app.py", "chalicelib")
RUNNER_SOURCES: Final = ("runners", "chalicelib/__init__.py", "chalicelib/protocol.py")

# Of botocore's 400 service descriptions, 24 MB, the planes use these.
_CONTROL_SERVICES: Final = ("apigatewaymanagementapi", "dynamodb", "ecs", "lambda", "s3", "secretsmanager", "sqs")
_RUNNER_SERVICES: Final = ("sqs",)
_NEVER_NEEDED: Final = ("*/tests/*", "*/test/*", "*.dist-info/RECORD", "*.pyi", "*.pyx", "*.pxd", "*.c", "*.h", "bin/*")


class PackagingError(Exception):
    """One sentence for whoever runs the deployment."""


@dataclass(frozen=True)
class Zip:
    """A zip and the name its content gives it."""

    name: str
    content: bytes

    @property
    def key(self) -> str:
        return f"{self.name}-{hashlib.sha256(self.content).hexdigest()[:16]}.zip"


def chalice_template() -> dict[str, Any]:
    """What ``chalice package`` generates for app.py. Raises :class:`PackagingError` with Chalice's last words."""
    stage = BUILD / "app"
    shutil.rmtree(stage, ignore_errors=True)
    stage.mkdir(parents=True)
    # Chalice gets a copy without requirements: the packages are ours to bundle, from a lock it does not know.
    for source in (*CONTROL_SOURCES, ".chalice/config.json", *_policies()):
        _copy(ROOT / source, stage / source)
    (stage / "requirements.txt").touch()
    command = [sys.executable, "-c", "import sys, chalice.cli; sys.exit(chalice.cli.main())"]
    command += ["package", "--stage", "live", "--pkg-format", "cloudformation", "out"]
    done = subprocess.run(command, cwd=stage, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode != 0:
        last = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
        raise PackagingError(f"chalice package failed: {last}")
    template: dict[str, Any] = json.loads((stage / "out" / "sam.json").read_text())
    return template


def _policies() -> list[str]:
    return [f".chalice/{path.name}" for path in sorted((ROOT / ".chalice").glob("policy*.json"))]


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copyfile(source, target)


def fingerprint(settings: str) -> str:
    """Of everything that decides what a deployment makes: the source, the locks, the interpreter and ``settings``."""
    digest = hashlib.sha256(f"{sys.version_info[:2]} {settings}".encode())
    sources = ("app.py", "chalicelib", "runners", "infra", "requirements.txt", ".chalice/config.json")
    for path in _files(sources):
        digest.update(f"\0{path}\0".encode() + (ROOT / path).read_bytes())
    return digest.hexdigest()[:16]


def control_zip(architecture: str | None) -> Zip:
    """The control plane's code. ``architecture`` is Lambda's name for one, or None for the slim form."""
    entries = _modules(CONTROL_SOURCES)
    if architecture:
        chalice = Path(_origin("chalice"))
        for module in ("__init__.py", "app.py"):  # what Chalice itself puts into a package
            entries |= _compiled(f"chalice/{module}", (chalice / module).read_bytes())
        entries |= _packages(ROOT / "requirements.txt", architecture, _CONTROL_SERVICES)
    return Zip("control", _zip(entries))


def runner_zip(architecture: str | None) -> Zip:
    """The execution plane's code, and of the control plane's only the message schema."""
    entries = _modules(RUNNER_SOURCES)
    if architecture:
        entries |= _packages(ROOT / "runners" / "requirements.txt", architecture, _RUNNER_SERVICES)
    return Zip("runner", _zip(entries))


def host_architecture() -> str:
    """Lambda's name for this machine's processor."""
    return "arm64" if platform.machine().lower() in ("arm64", "aarch64") else "x86_64"


def _origin(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise PackagingError(f"the package {package} is not installed: run make")
    return Path(spec.origin).parent


def _files(sources: Iterable[str]) -> Iterator[str]:
    for source in sources:
        path = ROOT / source
        found = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in found:
            if file.is_file() and "__pycache__" not in file.parts:
                yield file.relative_to(ROOT).as_posix()


def _modules(sources: Iterable[str]) -> dict[str, bytes]:
    entries: dict[str, bytes] = {}
    for path in _files(sources):
        entries |= _compiled(path, (ROOT / path).read_bytes())
    return entries


def _compiled(path: str, source: bytes) -> dict[str, bytes]:
    """``path`` and, for a module, its bytecode: unchecked, because a zip's times are not the sources'."""
    if not path.endswith(".py"):
        return {path: source}
    at = PurePosixPath(path)
    cached = at.parent / "__pycache__" / f"{at.stem}.{sys.implementation.cache_tag}.pyc"
    return {path: source, str(cached): _bytecode(path, source)}


def _bytecode(path: str, source: bytes) -> bytes:
    code = compile(source, f"/var/task/{path}", "exec", dont_inherit=True)
    return (
        importlib.util.MAGIC_NUMBER
        + (1).to_bytes(4, "little")
        + importlib.util.source_hash(source)
        + marshal.dumps(code)
    )


def _packages(lock: Path, architecture: str, services: tuple[str, ...]) -> dict[str, bytes]:
    """The locked packages as Lambda's Linux wants them, without what a function never reads."""
    target = _installed(lock, architecture)
    entries: dict[str, bytes] = {}
    for file in sorted(target.rglob("*")):
        path = file.relative_to(target)
        if not file.is_file() or "__pycache__" in path.parts or any(path.match(pattern) for pattern in _NEVER_NEEDED):
            continue
        if path.parts[:2] == ("botocore", "data") and len(path.parts) > 3 and path.parts[2] not in services:
            continue
        entries |= _sourceless(path, file.read_bytes())
    return entries


def _sourceless(path: Path, content: bytes) -> dict[str, bytes]:
    if path.suffix != ".py":
        return {path.as_posix(): content}
    try:
        return {path.with_suffix(".pyc").as_posix(): _bytecode(path.as_posix(), content)}
    except (SyntaxError, ValueError):  # packages carry files for other Pythons
        return {}


def _installed(lock: Path, architecture: str) -> Path:
    name = hashlib.sha256(lock.read_bytes() + f"{sys.version_info[:2]}{architecture}".encode()).hexdigest()[:16]
    target = BUILD / "packages" / name
    if target.exists():
        return target
    machine = {"arm64": "aarch64", "x86_64": "x86_64"}[architecture]
    unfinished = target.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--require-hashes", "--no-deps", "--no-compile"]
    command += ["--only-binary=:all:", "--implementation", "cp", "--target", str(unfinished), "-r", str(lock)]
    for libc in ("manylinux_2_28", "manylinux_2_17", "manylinux2014"):  # Lambda runs Amazon Linux 2023: glibc 2.34
        command += ["--platform", f"{libc}_{machine}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode != 0:
        last = next((line for line in done.stderr.splitlines() if "ERROR" in line), "no output")
        raise PackagingError(f"the packages of {lock.name} could not be fetched: {last}")
    unfinished.rename(target)
    return target


def _zip(entries: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(entries):
            info = zipfile.ZipInfo(path, date_time=(1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            archive.writestr(info, entries[path])
    return buffer.getvalue()
