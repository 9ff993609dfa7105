"""Sessions of browsers: what the cookies say, and which pages may use them."""

import dataclasses
from http.cookies import SimpleCookie

import msgspec
import pytest

from chalicelib.api.cookies import ACCESS, REFRESH

PASSWORD = "correct horse battery"
HOST = "attune.example.org"
OWN_PAGE = {"sec-fetch-site": "same-origin"}


class Browser:
    """Keeps cookies as a browser does, by name only, and says where its requests come from."""

    def __init__(self, api, host=HOST):
        self.api = api.anonymous()
        self.host = host
        self.jar = {}

    def request(self, method, path, *, headers=OWN_PAGE, **options):
        sent = {"host": self.host, **headers}
        if self.jar:
            sent["cookie"] = "; ".join(f"{name}={value}" for name, value in self.jar.items())
        answer = self.api.request(method, path, headers=sent, **options)
        for line in answer.cookies:
            for name, morsel in SimpleCookie(line).items():
                if morsel["max-age"] == "0":
                    self.jar.pop(name, None)
                else:
                    self.jar[name] = morsel.value
        return answer

    def get(self, path, **options):
        return self.request("GET", path, **options)

    def put_name(self, name, **headers):
        return self.request("PUT", "/auth/me", json={"display_name": name}, headers=headers)


@pytest.fixture
def deployed(api):
    """The API under a name of its own, with one other origin allowed."""
    settings = msgspec.structs.replace(
        api.services.settings, api_url="", cors_origins=frozenset({"https://ui.example.org"})
    )
    api.services = dataclasses.replace(api.services, settings=settings)
    return api


@pytest.fixture
def browser(deployed):
    """Signed in."""
    browser = Browser(deployed)
    account = {"login": "new@example.org", "password": PASSWORD}
    assert browser.request("POST", "/auth/register", json=account).status == 200
    return browser


def attributes(line):
    (morsel,) = SimpleCookie(line).values()
    return morsel


def test_signing_in_gives_cookies_that_scripts_do_not_read(browser):
    account = {"login": "new@example.org", "password": PASSWORD}
    answer = browser.request("POST", "/auth/login", json=account)
    _, access, refresh = (attributes(line) for line in answer.cookies)  # the first is test_attempts.py's
    assert (access.key, access.value, access["path"], access["max-age"]) == (
        ACCESS,
        answer.data["access_token"],
        "/",
        "3600",
    )
    assert (refresh.key, refresh.value, refresh["path"], refresh["max-age"]) == (
        REFRESH,
        answer.data["refresh_token"],
        "/auth",
        "604800",
    )
    for cookie in (access, refresh):
        assert (cookie["httponly"], cookie["secure"], cookie["samesite"]) == (True, True, "Lax")


@pytest.mark.parametrize("host", ["localhost:8080", "127.0.0.1:8080", "[::1]:8080", "attune.localhost"])
def test_plain_http_on_ones_own_machine_gets_them_too(deployed, host):
    browser = Browser(deployed, host)
    answer = browser.request("POST", "/auth/register", json={"login": "new@example.org", "password": PASSWORD})
    assert not any(attributes(line)["secure"] for line in answer.cookies)


def test_cookies_keep_below_the_api(deployed):
    settings = msgspec.structs.replace(deployed.services.settings, api_url="https://example.org/attune/")
    deployed.services = dataclasses.replace(deployed.services, settings=settings)
    browser = Browser(deployed)
    answer = browser.request("POST", "/auth/register", json={"login": "new@example.org", "password": PASSWORD})
    assert [attributes(line)["path"] for line in answer.cookies] == ["/attune", "/attune/auth"]


def test_the_access_cookie_signs_requests_in(browser):
    assert browser.get("/auth/me").data["login"] == "new@example.org"
    assert browser.put_name("New", **OWN_PAGE).data["display_name"] == "New"


def test_other_programs_cookies_do_no_harm(browser):
    browser.jar = {"odd[]": '"{', "x": "", f"{ACCESS}_old": "1", **browser.jar}
    assert browser.get("/auth/me").status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "same-origin", "origin": f"https://{HOST}"},
        {"origin": f"https://{HOST}"},
        {"sec-fetch-site": "same-site", "origin": "https://ui.example.org"},
        {"sec-fetch-site": "cross-site", "origin": "https://ui.example.org"},
    ],
)
def test_pages_that_may_change_things(browser, headers):
    assert browser.put_name("New", **headers).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"sec-fetch-site": "none"},
        {"sec-fetch-site": "same-site", "origin": "https://evil.example.org"},
        {"sec-fetch-site": "cross-site", "origin": "https://evil.test"},
        {"sec-fetch-site": "cross-site", "origin": "null"},
        {"origin": f"http://{HOST}"},
        {"origin": f"https://{HOST}.evil.test"},
        {"origin": ""},
    ],
)
def test_no_other_page_changes_anything(browser, headers):
    answer = browser.put_name("Owned", **headers)
    assert (answer.status, answer.json["code"]) == (403, "FORBIDDEN")
    assert browser.get("/auth/me", headers=headers).data["display_name"] is None
    assert browser.request("POST", "/auth/refresh", headers=headers).status == 403


def test_a_bearer_token_is_never_sent_unasked(browser):
    token = {"authorization": f"Bearer {browser.jar[ACCESS]}", "origin": "https://evil.test"}
    assert browser.put_name("New", **token).status == 200


def test_a_header_is_not_replaced_by_a_cookie(browser):
    assert browser.get("/auth/me", headers={"authorization": "Bearer x.y.z"}).status == 401
    assert browser.get("/auth/me", headers={"authorization": "Basic abc"}).status == 401


def test_refreshing_by_cookie(browser):
    before = dict(browser.jar)
    answer = browser.request("POST", "/auth/refresh")
    assert answer.status == 200
    assert browser.jar[ACCESS] == answer.data["access_token"]
    assert browser.jar.keys() == before.keys()
    assert browser.get("/auth/me").status == 200


def test_whoever_sends_the_token_gets_no_cookies(browser):
    answer = browser.api.post("/auth/refresh", json={"refresh_token": browser.jar[REFRESH]})
    assert (answer.status, answer.cookies) == (200, [])


def test_a_refresh_cookie_opens_nothing_else(browser):
    browser.jar[ACCESS] = browser.jar[REFRESH]
    assert browser.get("/auth/me").status == 401


def test_signing_out(browser):
    answer = browser.get("/auth/logout")
    assert (answer.status, answer.headers["Location"], answer.body) == (307, "/login", b"")
    assert browser.jar == {}
    assert browser.get("/auth/me").status == 401
    assert browser.request("POST", "/auth/refresh").status == 401
