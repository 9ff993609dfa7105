"""The boxes against moto's tables and fakes of what they send to."""

import pytest
from unit.flow.world import World

from chalicelib.services import Services


@pytest.fixture
def world(services: Services) -> World:
    """A tenant of this test's own."""
    return World(services)
