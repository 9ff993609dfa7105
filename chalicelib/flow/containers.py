"""What concerns runs in containers, whatever engine they run on (docs/decisions/008-containers.md)."""

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from chalicelib.domain.entities import Action
from chalicelib.protocol import Container, Run

SHELL: Final = ("/bin/sh", "-c")
SCRATCH: Final = "/tmp"  # noqa: S108  # within the container, which has nothing else to write to

# Everybody who may list containers sees what is in their environment.
_NEVER: Final = ("ATTUNE_API_TOKEN",)
_SHORTEST_SECRET: Final = 4  # characters; a shorter one is found in anything


class NoImageError(Exception):
    """The action does not say what to run. Trying again does not help."""


def contained(run: Run, action: Action) -> Run:
    """``run`` as a container gets it. Raises :class:`NoImageError`."""
    return msgspec.structs.replace(
        run,
        parameter_delivery="stdin",
        parameter_format="json",
        environment=environment_of(run.environment, run.secrets),
        container=container_of(action),
    )


def container_of(action: Action) -> Container:
    """What the action runs, with its command settled: an empty one is the image's own. Raises :class:`NoImageError`."""
    container = action.container
    if container is None:
        raise NoImageError(f"action {action.ref} names no container image")
    command = container.command
    if command is None:
        command = [*(container.interpreter or SHELL), action.entrypoint] if action.entrypoint else []
    return msgspec.structs.replace(container, command=command, interpreter=None)


def environment_of(environment: Mapping[str, str], secrets: Iterable[str]) -> dict[str, str]:
    """The part of a run's environment that a container gets: nothing in it is, or holds, a secret."""
    hidden = [secret for secret in secrets if len(secret) >= _SHORTEST_SECRET]
    open_to_all = {
        name: value
        for name, value in environment.items()
        if name not in _NEVER and not any(secret in value for secret in hidden)
    }
    settings = {"ATTUNE_PARAMETER_DELIVERY": "stdin", "ATTUNE_PARAMETER_FORMAT": "json"}
    return open_to_all | settings | {"HOME": SCRATCH, "TMPDIR": SCRATCH}
