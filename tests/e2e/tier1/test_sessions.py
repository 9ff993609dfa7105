"""Sessions of browsers, the door before passwords, single sign-on and the rotation of keys, on a running stack."""

import os
import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest
from helpers.client import AttuneClient
from helpers.fixtures import unique_ref
from helpers.oidc_provider import running_provider
from helpers.stack import ROOT, Stack

pytestmark = pytest.mark.tier1

PASSWORD = "Correct horse 1 battery!"
OWN_PAGE = {"Sec-Fetch-Site": "same-origin"}


@pytest.fixture
def browser(stack: Stack) -> Iterator[httpx.Client]:
    """Keeps cookies, says nothing of where its requests come from, and follows no redirect."""
    with httpx.Client(base_url=stack.url, timeout=60) as client:
        yield client


def registered(client: AttuneClient) -> dict[str, str]:
    account = {"login": f"{unique_ref()}@example.org", "password": PASSWORD}
    client.data("POST", "/auth/register", json=account)
    return account


def test_a_browser_signs_in_works_and_signs_out(browser: httpx.Client, anonymous: AttuneClient) -> None:
    account = registered(anonymous)
    assert browser.post("/auth/login", json=account).status_code == 200
    assert browser.get("/auth/me").json()["data"]["login"] == account["login"]

    name = {"display_name": "Me"}
    assert browser.put("/auth/me", json=name).status_code == 403
    assert browser.put("/auth/me", json=name, headers={"Origin": "https://evil.example"}).status_code == 403
    assert browser.put("/auth/me", json=name, headers=OWN_PAGE).status_code == 200
    assert browser.put("/auth/me", json=name, headers={"Origin": str(browser.base_url)}).status_code == 200

    before = browser.cookies["attune_refresh"]
    assert browser.post("/auth/refresh", headers=OWN_PAGE).status_code == 200
    assert browser.cookies["attune_refresh"] != before

    kept = browser.cookies["attune_refresh"]
    answer = browser.get("/auth/logout")
    assert (answer.status_code, answer.headers["Location"]) == (307, "/login")
    assert browser.get("/auth/me").status_code == 401
    assert browser.post("/auth/refresh", json={"refresh_token": kept}).status_code == 401


def test_guessing_a_password_closes_a_door_for_the_guesser_alone(stack: Stack, anonymous: AttuneClient) -> None:
    if not stack.is_local:
        pytest.skip("pretends to have other addresses, which only the embedded API Gateway believes")
    account = registered(anonymous)

    def tries(password: str, address: str) -> httpx.Response:
        body = {**account, "password": password}
        return anonymous.request("POST", "/auth/login", json=body, headers={"X-Forwarded-For": address})

    # Ten, or up to twice as many where a quarter of an hour ends meanwhile.
    statuses = [tries("wrong", "198.51.100.7").status_code for _ in range(21)]
    assert statuses[:10] == [401] * 10
    assert statuses[-1] == 429
    refused = tries(PASSWORD, "198.51.100.7")
    assert refused.status_code == 429
    assert 0 < int(refused.headers["Retry-After"]) <= 900
    assert tries(PASSWORD, "198.51.100.8").status_code == 200


def test_single_sign_on(stack: Stack, browser: httpx.Client) -> None:
    if stack.oidc_port is None:
        pytest.skip("this stack expects no provider of identities on this machine")
    login = f"{unique_ref()}@example.org"
    with running_provider({"sub": login, "email": login, "groups": ["operators"]}, stack.oidc_port):
        begun = browser.get("/auth/oidc/login", params={"redirect_to": "/docs"})
        assert begun.status_code == 307
        back = httpx.get(begun.headers["Location"]).headers["Location"]
        done = browser.get(back)
    assert (done.status_code, done.headers["Location"]) == (307, "/docs")
    me = browser.get("/auth/me").json()["data"]
    assert (me["login"], me["auth_provider"], me["is_local"]) == (login, "oidc", False)
    with stack.sign_in() as administrator:
        roles = administrator.data("GET", f"identities/{me['id']}")["roles"]
    assert [(each["role"], each["source"], each["managed"]) for each in roles] == [("operators", "oidc", True)]


def test_a_new_key_for_tokens_signs_nobody_out(stack: Stack, client: AttuneClient) -> None:
    if not stack.is_local:
        pytest.skip("needs the operator's rights on the AWS below")
    command = [sys.executable, "-m", "infra.rotate"]
    rotated = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **stack.aws}, capture_output=True, text=True, timeout=120, check=False
    )
    assert rotated.returncode == 0, rotated.stderr
    assert "signs from" in rotated.stdout
    assert client.me()["login"]
    with stack.sign_in() as again:
        assert again.me()["login"]
