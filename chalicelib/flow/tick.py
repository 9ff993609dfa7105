"""The tick: the one schedule of the platform, once a minute (design §5)."""

from chalicelib.flow.sweeper import sweep
from chalicelib.log import logger
from chalicelib.services import Services


def handle(services: Services) -> None:
    """Do what a minute's passing asks for. A tick that comes twice, or late, does no harm."""
    logger.info("tick", looked_at=sweep(services, services.clock()))
