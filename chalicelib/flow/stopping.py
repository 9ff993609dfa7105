"""Telling a run that it is cancelled: a mark in S3, for which its runner looks by a presigned URL (semantics §2.7).

Nobody can call a runner. It looks for itself, once the run has lasted for some seconds, and stops what runs, be it a
process, a container or a task. The API only leaves the mark, whatever the execution runs on.
"""

from typing import Final

from chalicelib.domain.entities import Execution
from chalicelib.domain.executions import DEFAULT_TIMEOUT
from chalicelib.services import Services
from chalicelib.store.blobs import Blobs

SHORTEST: Final = 5  # seconds of timeout; what may last no longer has ended by the time when it would have looked
_MARGIN: Final = 15 * 60  # seconds until it begins, at most
_LONGEST: Final = 7 * 24 * 3600  # S3: seconds that a presigned URL may last


def stop_url(blobs: Blobs, execution: Execution) -> str | None:
    """Where the run of ``execution`` finds its mark; None for one that is too short to look. No AWS call."""
    if not _looks(execution):
        return None
    seconds = (execution.timeout or DEFAULT_TIMEOUT) + _MARGIN
    return blobs.presigned_get(_mark(execution.id), min(seconds, _LONGEST), once=True)


def stop(services: Services, tenant: str, execution: Execution) -> None:
    """Leave the mark for a running execution, if anybody looks for it. May be repeated."""
    if _looks(execution):
        services.store.tenant(tenant).blobs.put(_mark(execution.id), b"")


def forget(services: Services, tenant: str, id_: int) -> None:
    """Delete the mark that :func:`stop` left."""
    services.store.tenant(tenant).blobs.delete(_mark(id_))


def _looks(execution: Execution) -> bool:
    return (execution.timeout or DEFAULT_TIMEOUT) >= SHORTEST


def _mark(id_: int) -> str:
    return f"stops/{id_}"
