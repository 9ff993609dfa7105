"""The Docker engine that container tests need, and the images they run."""

import importlib.util
import io
import os
import socket
import sys
import tarfile
from pathlib import Path

IMAGE = "python:3.11-slim"
TASK_IMAGE = "attune-task:test"

_ROOT = Path(__file__).resolve().parents[2]
_PACKAGES = ("_cffi_backend", "cffi", "cryptography", "msgspec", "urllib3", "yaml")
_DOCKERFILE = f"""FROM {IMAGE}
COPY files /opt/attune
ENV PYTHONPATH=/opt/attune PYTHONDONTWRITEBYTECODE=1
ENTRYPOINT ["python3", "-m", "runners.task"]
"""


def missing_engine() -> str | None:
    """Why containers cannot be run here; None where they can."""
    host = os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
    scheme, _, path = host.partition("://")
    if scheme != "unix" or not Path(path).exists():
        return f"no Docker engine at {host}: it takes one to run containers"
    try:
        status, _ = request("GET", f"/images/{IMAGE}/json")
    except OSError as error:
        return f"the Docker engine at {host} does not answer: {error.strerror}"
    return None if status == 200 else f"the Docker engine at {host} has no image {IMAGE}: pull it first"


def has_network() -> bool:
    """Whether the engine has the network that containers with `network: true` are in."""
    return request("GET", "/networks/bridge")[0] == 200


def build_task_image() -> str | None:
    """Build :data:`TASK_IMAGE`, as infra/task.Dockerfile would, of the packages that are here. Why not; None: done."""
    if sys.version_info[:2] != (3, 11):
        return f"the packages of this Python are not for the Python of {IMAGE}"
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as archive:
        info = tarfile.TarInfo("Dockerfile")
        info.size = len(_DOCKERFILE)
        archive.addfile(info, io.BytesIO(_DOCKERFILE.encode()))
        for name in ("runners", "chalicelib/__init__.py", "chalicelib/protocol.py"):
            archive.add(_ROOT / name, f"files/{name}")
        for name in _PACKAGES:
            spec = importlib.util.find_spec(name)
            if spec is None or spec.origin is None:
                return f"there is no package {name}"
            path = Path(spec.origin).parent if spec.submodule_search_locations else Path(spec.origin)
            archive.add(path, f"files/{path.name}")
    status, body = request("POST", f"/build?t={TASK_IMAGE}&networkmode=none", context.getvalue())
    if status != 200 or b'"errorDetail"' in body:
        return f"the image of tasks could not be built: {body[-300:].decode(errors='replace')}"
    return None


def request(method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
    """Status and body of one call of the engine's API."""
    with socket.socket(socket.AF_UNIX) as engine:
        engine.settimeout(120)
        engine.connect((os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock").removeprefix("unix://"))
        head = f"{method} {path} HTTP/1.0\r\nHost: docker\r\nContent-Length: {len(body)}\r\n"
        engine.sendall(f"{head}Content-Type: application/x-tar\r\n\r\n".encode() + body)
        answer = b""
        while block := engine.recv(65536):
            answer += block
    head_bytes, _, content = answer.partition(b"\r\n\r\n")
    return int(head_bytes.split()[1]), content
