"""The API does what its document says, whoever asks and whatever they send (issue 6)."""

import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from helpers.client import AttuneClient
from helpers.fuzzing import Fuzzer
from helpers.stack import Stack
from schemathesis.schemas import APIOperation

pytestmark = pytest.mark.tier1

PASSWORD = "Correct horse 1 battery!"
PACK = "fuzzed"
EXAMPLES = 3  # requests to each operation: together less than a minute
ADDRESS = "198.51.100.99"  # so that guessing passwords closes nobody else's door


@dataclass(frozen=True)
class Tenant:
    """A tenant in which there is one of most things, where nothing can be broken that others need."""

    slug: str
    administrator: AttuneClient
    viewer: AttuneClient


def sign_in(stack: Stack, tenant: str, login: str) -> AttuneClient:
    client = AttuneClient(stack.url, timeout=60)
    account = {"login": login, "password": PASSWORD, "tenant": tenant}
    client.token = client.data("POST", "/auth/login", json=account)["access_token"]
    return client


@pytest.fixture(scope="module")
def tenant(stack: Stack, client: AttuneClient) -> Iterator[Tenant]:
    slug = f"t{secrets.token_hex(5)}"
    boss, viewer = "boss@example.org", "viewer@example.org"
    client.call("POST", "tenants", json={"slug": slug, "administrator": {"login": boss, "password": PASSWORD}})
    with sign_in(stack, slug, boss) as administrator:
        administrator.call("POST", "identities", json={"login": viewer, "password": PASSWORD})
        assignment = {"identity_login": viewer, "permission_set_ref": "core.viewer"}
        administrator.call("POST", "permissions/assignments", json=assignment)
        fill(administrator)
        with sign_in(stack, slug, viewer) as reader:
            yield Tenant(slug, administrator, reader)
    client.call("DELETE", f"tenants/{slug}")


def fill(client: AttuneClient) -> None:
    client.create_pack(PACK)
    client.create_action(f"{PACK}.echo", PACK, entrypoint="echo hello", param_schema={"text": {"type": "string"}})
    client.create_trigger(f"{PACK}.hook", PACK)
    client.create_rule(f"{PACK}.rule", PACK, trigger_ref=f"{PACK}.hook", action_ref=f"{PACK}.echo")
    client.create_secret(f"{PACK}.secret", "s3cret")
    client.post_webhook(client.enable_webhook(f"{PACK}.hook"), {"n": 1})
    client.execute(f"{PACK}.echo")


def hold(client: AttuneClient, wanted: Callable[[APIOperation], bool], *, pack: str | None = PACK) -> Fuzzer:
    """Every wanted operation answers as the document says."""
    fuzzer = Fuzzer(client, examples=EXAMPLES, address=ADDRESS, pack=pack)
    problems = [problem for operation in fuzzer.operations(wanted) for problem in fuzzer.try_out(operation)]
    assert not problems, "\n\n".join(problems)
    return fuzzer


def test_every_operation_as_an_administrator(tenant: Tenant) -> None:
    fuzzer = hold(tenant.administrator, lambda _: True)
    assert {200, 201, 400, 404, 422} <= fuzzer.statuses.keys()  # it got past the door, and to the checks of bodies


def test_every_operation_as_a_viewer(tenant: Tenant) -> None:
    fuzzer = hold(tenant.viewer, lambda _: True)
    assert {200, 403, 404} <= fuzzer.statuses.keys()
    assert 202 not in fuzzer.statuses  # nothing was started


def test_tenants_as_an_administrator_of_the_platform(client: AttuneClient) -> None:
    # What is there is other tests': only what the document makes up is named.
    hold(client, lambda operation: operation.path.startswith("/api/v1/tenants"), pack=None)
