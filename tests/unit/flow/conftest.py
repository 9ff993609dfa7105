"""The boxes against moto's tables and fakes of what they send to."""

import pytest

from chalicelib.services import Services
from unit.api.conftest import deployment
from unit.flow.world import World

__all__ = ["deployment"]


@pytest.fixture
def world(deployment: Services) -> World:
    """A tenant of this test's own."""
    return World(deployment)
