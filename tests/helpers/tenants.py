"""Tenants for tests that need more than one, made as a platform administrator makes them."""

import contextlib
import uuid
from collections.abc import Iterator

from helpers.client import AttuneClient, Json
from helpers.stack import Stack

PASSWORD = "Correct horse 1 battery!"


def create_tenant(stack: Stack, *, slug: str | None = None, **settings: Json) -> AttuneClient:
    """A tenant of its own; the client is signed in as its administrator, and ``client.tenant`` is its slug.

    The caller closes the client. :func:`own_tenant` also deletes the tenant.
    """
    slug, login = slug or f"t{uuid.uuid4().hex[:10]}", f"admin-{uuid.uuid4().hex[:8]}@example.test"
    administrator = {"login": login, "password": PASSWORD}
    with stack.sign_in() as platform:
        platform.data("POST", "tenants", json={"slug": slug, "administrator": administrator, **settings})
    return sign_in(stack, slug, login)


def sign_in(stack: Stack, slug: str, login: str, password: str = PASSWORD) -> AttuneClient:
    client = AttuneClient(stack.url)
    client.tenant = slug
    body = {"tenant": slug, "login": login, "password": password}
    try:
        tokens = client.data("POST", "/auth/login", json=body)
    except Exception:
        client.close()
        raise
    client.token, client.refresh_token = tokens["access_token"], tokens["refresh_token"]
    return client


@contextlib.contextmanager
def own_tenant(stack: Stack, **settings: Json) -> Iterator[AttuneClient]:
    """A tenant for as long as the context lasts."""
    with create_tenant(stack, **settings) as client:
        try:
            yield client
        finally:
            with stack.sign_in() as platform:
                platform.request("DELETE", f"tenants/{client.tenant}")
