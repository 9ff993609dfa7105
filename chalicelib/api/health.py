"""Health (http-api 1.4): alive, ready, and in detail."""

from chalicelib.api.errors import Unavailable
from chalicelib.api.routing import PUBLIC, ROUTES, Call
from chalicelib.api.views import Raw, View
from chalicelib.domain.entities import SYSTEM_TENANT
from chalicelib.log import logger

VERSION = "0.1.0"


class Health(View, kw_only=True, frozen=True):
    status: str


class HealthResponse(View, kw_only=True, frozen=True):
    status: str
    version: str
    database: str


@ROUTES.get("/health", needs=PUBLIC, returns=Raw, tag="health")
def health(_call: Call) -> Raw:
    """Whether the API answers."""
    return Raw(Health(status="ok"))


@ROUTES.get("/health/live", needs=PUBLIC, returns=None, tag="health")
def live(_call: Call) -> None:
    """Whether the process is up."""
    return


@ROUTES.get("/health/ready", needs=PUBLIC, returns=None, tag="health", errors=(503,))
def ready(call: Call) -> None:
    """Whether the store answers too."""
    _touch_store(call)


@ROUTES.get("/health/detailed", needs=PUBLIC, returns=HealthResponse, tag="health", errors=(503,))
def detailed(call: Call) -> HealthResponse:
    """Version, and whether the store answers."""
    _touch_store(call)
    return HealthResponse(status="ok", version=VERSION, database="connected")


def _touch_store(call: Call) -> None:
    try:
        call.services.store.tenant(SYSTEM_TENANT).registry.packs.get("core")
    except Exception as error:
        logger.warning("the store does not answer", exc_info=error)
        raise Unavailable("The store does not answer", {"database": "disconnected"}) from error
