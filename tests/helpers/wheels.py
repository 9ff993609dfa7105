"""Packages made by the tests themselves, so that no registry is needed to install one."""

import base64
import hashlib
import io
import json
import tarfile
import zipfile


def wheel_name(name: str, version: str) -> str:
    return f"{name}-{version}-py3-none-any.whl"


def wheel(name: str, version: str, modules: dict[str, str] | None = None) -> bytes:
    """A pure Python wheel (PyPA binary distribution format) of ``modules``, path to source; by default one module of
    the package's name that knows its ``VERSION``."""
    files = modules or {f"{name}.py": f"VERSION = {version!r}\n"}
    info = f"{name}-{version}.dist-info"
    contents = {path: text.encode() for path, text in files.items()}
    contents[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode()
    contents[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    record = "".join(f"{path},sha256={_digest(body)},{len(body)}\n" for path, body in contents.items())
    contents[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, body in contents.items():
            archive.writestr(zipfile.ZipInfo(path, (1980, 1, 1, 0, 0, 0)), body)
    return buffer.getvalue()


def npm_tarball(name: str, version: str, source: str | None = None) -> bytes:
    """What ``npm pack`` would make of a package with one module, which by default exports its version."""
    described = json.dumps({"name": name, "version": version, "main": "index.js"})
    files = {"package.json": described, "index.js": source or f"exports.version = {json.dumps(version)};\n"}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for path, text in files.items():
            member = tarfile.TarInfo(f"package/{path}")
            member.size, member.mode = len(text), 0o644
            archive.addfile(member, io.BytesIO(text.encode()))
    return buffer.getvalue()


def _digest(body: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(body).digest()).rstrip(b"=").decode()
