"""The Docker engine that container tests need, and the image they run."""

import os
import socket
from pathlib import Path

IMAGE = "python:3.11-slim"


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


def request(method: str, path: str) -> tuple[int, bytes]:
    """Status and body of one call of the engine's API."""
    with socket.socket(socket.AF_UNIX) as engine:
        engine.settimeout(30)
        engine.connect((os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock").removeprefix("unix://"))
        engine.sendall(f"{method} {path} HTTP/1.0\r\nHost: docker\r\n\r\n".encode())
        answer = b""
        while block := engine.recv(65536):
            answer += block
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), body
