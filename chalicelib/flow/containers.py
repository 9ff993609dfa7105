"""What concerns runs in containers, whatever engine they run on (docs/decisions/008-containers.md)."""

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from chalicelib.domain.entities import Action, Execution
from chalicelib.domain.runtimes import CONTAINER
from chalicelib.protocol import Container, Run
from chalicelib.services import Services

SHELL: Final = ("/bin/sh", "-c")
SCRATCH: Final = "/tmp"  # noqa: S108  # within the container, which has nothing else to write to
STOP_SECONDS: Final = 24 * 3600  # that a run may look for its mark to stop

# Everybody who may list containers sees what is in their environment.
_NEVER: Final = ("ATTUNE_API_TOKEN",)
_SHORTEST_SECRET: Final = 4  # characters; a shorter one is found in anything


class NoImageError(Exception):
    """The action does not say what to run. Trying again does not help."""


def contained(services: Services, run: Run, execution: Execution, action: Action) -> Run:
    """``run`` as a container gets it. Raises :class:`NoImageError`."""
    return msgspec.structs.replace(
        run,
        parameter_delivery="stdin",
        parameter_format="json",
        environment=environment_of(run.environment, run.secrets),
        container=container_of(action),
        stop_url=services.store.tenant(run.tenant).blobs.presigned_get(_mark(execution.id), STOP_SECONDS),
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


def stop(services: Services, tenant: str, execution: Execution) -> None:
    """Have the container of a running execution killed; does nothing for an execution that has none."""
    action = services.snapshots.of(tenant).action(execution.action_ref)
    if action is not None and action.runtime_ref == CONTAINER:
        services.store.tenant(tenant).blobs.put(_mark(execution.id), b"")


def forget(services: Services, tenant: str, id_: int) -> None:
    """Delete the mark that :func:`stop` left."""
    services.store.tenant(tenant).blobs.delete(_mark(id_))


def _mark(id_: int) -> str:
    return f"stops/{id_}"
