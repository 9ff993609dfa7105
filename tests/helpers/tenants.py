"""Tenants for tests that need more than one."""

import contextlib
import os
import uuid
from collections.abc import Iterator

from chalicelib import clients
from chalicelib.flow.bootstrap import ensure_administrator
from chalicelib.services import open_services
from chalicelib.settings import settings_from
from helpers.client import AttuneClient
from helpers.footprint import Footprint
from helpers.stack import Stack

PASSWORD = "Correct horse 1 battery!"


def create_tenant(stack: Stack) -> AttuneClient:
    """A tenant of its own, made as an operator makes one; the client is signed in as its administrator.

    The caller closes the client. A tenant has no end: what tests make in it is nobody's.
    """
    tenant, login = f"t{uuid.uuid4().hex[:10]}", f"admin-{uuid.uuid4().hex[:8]}@example.test"
    functions = Footprint(stack).functions()
    (api,) = [each for each in functions if each["Handler"] == "app.app"]
    with _environment(stack):
        services = open_services(settings_from(api["Environment"]["Variables"]))
        ensure_administrator(services, tenant=tenant, login=login, password=PASSWORD)
    client = AttuneClient(stack.url)
    tokens = client.data("POST", "/auth/login", json={"tenant": tenant, "login": login, "password": PASSWORD})
    client.token = tokens["access_token"]
    return client


@contextlib.contextmanager
def _environment(stack: Stack) -> Iterator[None]:
    """Lets the clients of this process speak to the AWS of ``stack``."""
    wanted = stack.aws
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    clients.client.cache_clear()
    clients.session.cache_clear()
    try:
        yield
    finally:
        clients.client.cache_clear()
        clients.session.cache_clear()
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
