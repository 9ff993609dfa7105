"""The platform over HTTP, one for the whole session; every test makes its own objects in it."""

import contextlib
from collections.abc import Iterator

import pytest
from helpers.client import ApiError, AttuneClient, Json
from helpers.fixtures import unique_ref
from helpers.stack import Stack, running_stack


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """The platform at ``ATTUNE_API_URL``, or one started for this session."""
    with running_stack() as running:
        yield running


@pytest.fixture(scope="session")
def client(stack: Stack) -> Iterator[AttuneClient]:
    """Signed in as the administrator."""
    with stack.sign_in() as signed_in:
        yield signed_in


@pytest.fixture
def anonymous(stack: Stack) -> Iterator[AttuneClient]:
    """Not signed in."""
    with AttuneClient(stack.url) as nobody:
        yield nobody


@pytest.fixture
def test_pack(client: AttuneClient) -> Iterator[dict[str, Json]]:
    """A pack of this test's own; what the test puts into it goes with it."""
    pack = client.create_pack(unique_ref())
    yield pack
    # A test may have deleted it already.
    with contextlib.suppress(ApiError):
        client.delete_pack(pack["ref"])
