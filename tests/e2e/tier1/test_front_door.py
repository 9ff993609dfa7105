"""Health, signing in, and what answers for routes, methods and tokens that are not right."""

import re

import pytest
from helpers.client import AttuneClient, Json
from helpers.fixtures import unique_login
from helpers.stack import ADMIN_LOGIN, ADMIN_PASSWORD, Stack

pytestmark = pytest.mark.tier1


def test_health(anonymous: AttuneClient) -> None:
    assert anonymous.call("GET", "/health") == {"status": "ok"}
    detailed = anonymous.call("GET", "/health/detailed")
    assert (detailed["status"], detailed["database"]) == ("ok", "connected")
    for path in ("/health/ready", "/health/live"):
        answer = anonymous.request("GET", path)
        assert (answer.status_code, answer.content) == (200, b"")


def test_documentation_is_served_without_the_internet(anonymous: AttuneClient) -> None:
    document = anonymous.call("GET", "/api-spec/openapi.json")
    assert document["openapi"].startswith("3.1")
    paths = {re.sub(r"{\w+}", "{}", path) for path in document["paths"]}
    assert {"/api/v1/webhooks/{}", "/api/v1/rules/{}/test", "/auth/login"} <= paths
    page = anonymous.request("GET", "/docs")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    assert "//cdn" not in page.text
    assert 'src="http' not in page.text


def test_signing_in(stack: Stack, anonymous: AttuneClient) -> None:
    tokens = anonymous.login(ADMIN_LOGIN, ADMIN_PASSWORD)
    assert (tokens["token_type"].lower(), tokens["expires_in"]) == ("bearer", 3600)
    assert tokens["user"]["login"] == ADMIN_LOGIN
    me = anonymous.me()
    assert me["login"] == ADMIN_LOGIN
    assert me["assigned_permission_set_refs"] == ["core.admin", "core.platform_admin"]
    assert {"resource": "rules", "actions": ["read", "create", "update", "delete"]} in [
        {**each, "actions": sorted(each["actions"], key=["read", "create", "update", "delete"].index)}
        for each in me["effective_permissions"]
        if each["resource"] == "rules"
    ]
    refreshed = anonymous.data("POST", "/auth/refresh", json={"refresh_token": tokens["refresh_token"]})
    assert "user" not in refreshed
    with AttuneClient(stack.url, token=refreshed["access_token"]) as again:
        assert again.me()["id"] == me["id"]


@pytest.mark.security
def test_who_may_not_sign_in(anonymous: AttuneClient) -> None:
    def login(**body: Json) -> Json:
        return anonymous.request("POST", "/auth/login", json=body)

    wrong, nobody = login(login=ADMIN_LOGIN, password="wrong"), login(login=unique_login(), password="wrong")
    assert wrong.status_code == nobody.status_code == 401
    assert wrong.json()["error"] == nobody.json()["error"], "the answer does not tell whether the login exists"
    assert login(login=ADMIN_LOGIN).status_code == 422


@pytest.mark.security
def test_tokens_that_are_not_right(anonymous: AttuneClient, client: AttuneClient) -> None:
    """The shape of the extractor's 401 (contract §1.2)."""

    def answer(header: str | None) -> tuple[int, Json]:
        headers = {} if header is None else {"Authorization": header}
        response = anonymous.request("GET", "packs", headers=headers)
        return response.status_code, response.json()

    def refusal(message: str) -> tuple[int, Json]:
        return 401, {"error": {"code": 401, "message": message}}

    assert answer(None) == refusal("Missing authentication token")
    assert answer("Bearer nonsense") == refusal("Invalid authentication token")
    assert answer(f"Bearer {client.token}x") == refusal("Invalid authentication token")
    tokens = anonymous.data("POST", "/auth/login", json={"login": ADMIN_LOGIN, "password": ADMIN_PASSWORD})
    assert answer(f"Bearer {tokens['refresh_token']}")[0] == 401


@pytest.mark.security
def test_registration(anonymous: AttuneClient) -> None:
    """Where it is on, whoever registers may sign in and do nothing; where it is off, 403 (contract README 1)."""
    login, password = unique_login(), "Correct-Horse-9"
    if not anonymous.data("GET", "/auth/settings")["self_registration_enabled"]:
        answer = anonymous.request("POST", "/auth/register", json={"login": login, "password": password})
        assert answer.status_code == 403
        return
    anonymous.register(login, password)
    assert anonymous.me()["effective_permissions"] == []
    assert anonymous.request("POST", "packs", json={"ref": "mine", "label": "x", "version": "1.0.0"}).status_code == 403
    again = anonymous.request("POST", "/auth/register", json={"login": login, "password": password})
    assert again.status_code == 409
    short = anonymous.request("POST", "/auth/register", json={"login": unique_login(), "password": "short"})
    assert short.status_code == 422
    changed = {"current_password": password, "new_password": "Another-Horse-9"}
    assert anonymous.data("POST", "/auth/change-password", json=changed)["success"] is True
    assert anonymous.request("POST", "/auth/login", json={"login": login, "password": password}).status_code == 401
    anonymous.login(login, "Another-Horse-9")


def test_routes_and_methods_that_do_not_exist(client: AttuneClient) -> None:
    unknown = client.request("GET", "nothing-here")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "NOT_FOUND")
    wrong_method = client.request("DELETE", "packs")
    assert wrong_method.status_code == 405
    assert "error" in wrong_method.json()


def test_lists_have_the_contracts_pages(client: AttuneClient) -> None:
    for path in ("packs", "actions", "triggers", "rules", "runtimes"):
        page = client.call("GET", path, params={"page": 1, "page_size": 2})
        pagination = page["pagination"]
        assert (pagination["page"], pagination["page_size"], pagination["has_previous"]) == (1, 2, False), path
        assert len(page["items"]) <= 2
        assert pagination["total_pages"] == -(-pagination["total_items"] // 2)
        refs = [item["ref"] for item in page["items"]]
        assert refs == sorted(refs)
    assert client.call("GET", "actions", params={"page_size": 1000})["pagination"]["page_size"] == 100


def test_runtimes(client: AttuneClient) -> None:
    refs = {runtime["ref"] for runtime in client.items("runtimes")}
    assert {"core.shell", "core.python", "core.native"} <= refs
    assert client.data("GET", "runtimes/core.python")["pack_ref"] == "core"
