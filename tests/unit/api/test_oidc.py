"""Signing in at a real, small provider of identities, which gets things wrong on purpose."""

import dataclasses
import json
from datetime import timedelta
from http.cookies import SimpleCookie
from urllib.parse import parse_qs, urlsplit

import httpx
import msgspec
import pytest
from helpers.oidc_provider import CLIENT_ID, CLIENT_SECRET, running_provider

from chalicelib import clients
from chalicelib.api import oidc
from chalicelib.api.cookies import ACCESS
from chalicelib.domain.entities import Identity, RoleAssignment
from chalicelib.security.keyring import Keyring
from chalicelib.settings import OidcSettings
from chalicelib.store.registry import Delete, Put

ADA = {"sub": "ada-1", "email": "ada@example.org", "email_verified": True, "name": "Ada", "groups": ["ops", "dev"]}
PUBLIC_URL = "https://attune.example.org"


@pytest.fixture
def provider():
    with running_provider(dict(ADA)) as running:
        yield running


@pytest.fixture
def api(api, provider):
    """The API, with the provider configured and open to new people."""
    manager = clients.secretsmanager()
    text = json.loads(manager.get_secret_value(SecretId="attune")["SecretString"])
    name = f"attune-{api.tenant}"
    manager.create_secret(Name=name, SecretString=json.dumps({**text, "oidc_client_secret": CLIENT_SECRET}))
    configured = OidcSettings(issuer=provider.issuer, client_id=CLIENT_ID, roles_claim="groups", sign_up=True)
    settings = msgspec.structs.replace(
        api.services.settings,
        oidc=configured,
        api_url=PUBLIC_URL,
        cors_origins=frozenset({"https://ui.example.org"}),
    )
    keyring = Keyring(clients.secretsmanager, name)
    api.services = dataclasses.replace(api.services, settings=settings, keyring=keyring)
    oidc._provider.cache_clear()
    return api


def configure(api, **changes):
    settings = api.services.settings
    changed = msgspec.structs.replace(settings, oidc=msgspec.structs.replace(settings.oidc, **changes))
    api.services = dataclasses.replace(api.services, settings=changed)


class Browser:
    def __init__(self, api):
        self.api = api.anonymous()
        self.jar = {}

    def get(self, path, **params):
        cookie = "; ".join(f"{name}={value}" for name, value in self.jar.items())
        answer = self.api.get(path, params=params, headers={"host": "attune.example.org", "cookie": cookie})
        for line in answer.cookies:
            for name, morsel in SimpleCookie(line).items():
                assert morsel["httponly"]
                assert morsel["secure"]
                if morsel["max-age"] == "0":
                    self.jar.pop(name, None)
                else:
                    self.jar[name] = morsel.value
        return answer

    def begin(self, **params):
        """Goes to the provider and returns what it sends the browser back with."""
        answer = self.get("/auth/oidc/login", **params)
        assert answer.status == 307, answer.body
        back = httpx.get(answer.headers["Location"]).headers["Location"]
        assert back.startswith(f"{PUBLIC_URL}/auth/callback?")
        return {name: values[0] for name, values in parse_qs(urlsplit(back).query).items()}

    def sign_in(self, **params):
        return self.get("/auth/callback", **self.begin(**params))

    @property
    def me(self):
        return self.api.with_token(self.jar[ACCESS]).get("/auth/me").data


def test_without_a_provider_there_is_501(services):
    from unit.api.conftest import Api

    nobody = Api(services, services.settings.default_tenant)
    for path in ("/auth/oidc/login", "/auth/callback", "/auth/oidc/login?redirect_to=//evil"):
        answer = nobody.get(path)
        assert (answer.status, answer.json["code"]) == (501, "NOT_IMPLEMENTED")


def test_ldap_looks_at_the_body_and_says_that_it_is_not_there(api):
    nobody = api.anonymous()
    assert nobody.post("/auth/ldap/login", json={"login": "ada"}).status == 422
    assert nobody.post("/auth/ldap/login", json={"login": "", "password": "x"}).status == 422
    answer = nobody.post("/auth/ldap/login", json={"login": "ada", "password": "x"})
    assert (answer.status, answer.json["code"]) == (501, "NOT_IMPLEMENTED")
    assert "not configured" in answer.json["error"]


def test_the_settings_name_the_provider(api):
    configure(api, name="keycloak", label="Example", icon_url="https://example.org/i.svg")
    said = api.anonymous().get("/auth/settings").data
    assert said["oidc_enabled"] is True
    assert said["oidc_provider_name"] == "keycloak"
    assert said["oidc_provider_label"] == "Example"
    assert said["oidc_provider_icon_url"] == "https://example.org/i.svg"
    assert said["ldap_enabled"] is False


def test_signing_in_makes_an_identity_and_a_session(api, provider):
    browser = Browser(api)
    answer = browser.sign_in(redirect_to="/executions?page=2")
    assert (answer.status, answer.headers["Location"]) == (307, "/executions?page=2")
    assert not [name for name in browser.jar if name.startswith(oidc.FLOW)]
    assert browser.me["login"] == "ada@example.org"
    assert browser.me["display_name"] == "Ada"
    assert (browser.me["auth_provider"], browser.me["is_local"], browser.me["can_change_password"]) == (
        "oidc",
        False,
        False,
    )
    roles = api.registry.identities.get("ada@example.org").roles
    assert [(each.role, each.source, each.managed) for each in roles] == [("ops", "oidc", True), ("dev", "oidc", True)]
    (asked,) = provider.asked
    assert asked["scope"] == "openid profile email"
    assert asked["redirect_uri"] == f"{PUBLIC_URL}/auth/callback"
    (exchanged,) = provider.exchanged
    assert len(exchanged["code_verifier"]) >= 43
    assert "client_secret" not in exchanged


def test_somebody_who_comes_again_is_the_same_whatever_they_are_called_now(api, provider):
    first = Browser(api)
    first.sign_in()
    provider.user["email"] = "ada.married@example.org"
    again = Browser(api)
    again.sign_in()
    assert again.me["id"] == first.me["id"]
    assert again.me["login"] == "ada@example.org"


def test_whoever_gets_the_name_does_not_get_the_account(api, provider):
    Browser(api).sign_in()
    provider.user["sub"] = "somebody else"
    answer = Browser(api).sign_in()
    assert (answer.status, answer.json["code"]) == (403, "FORBIDDEN")


def test_a_local_account_is_not_taken_over(api, provider):
    account = {"login": "ada@example.org", "password": "correct horse battery"}
    assert api.anonymous().post("/auth/register", json=account).status == 200
    assert Browser(api).sign_in().status == 403
    assert api.registry.identities.get("ada@example.org").external is None


def test_where_nobody_signs_up_an_account_has_to_wait(api, provider):
    configure(api, sign_up=False)
    assert Browser(api).sign_in().status == 403
    now = api.services.clock()
    manual = RoleAssignment(id=5, role="dev", created=now, updated=now)
    waiting = Identity(id=7, ref="ada@example.org", created=now, updated=now, roles=[manual])
    api.registry.commit(Put(waiting, new=True))
    browser = Browser(api)
    assert browser.sign_in().status == 307
    assert browser.me["id"] == 7
    roles = {each.role: each for each in api.registry.identities.get("ada@example.org").roles}
    assert roles["dev"] == manual  # given here, and so not the provider's to take
    assert roles["ops"].managed


def test_roles_follow_the_claim(api, provider):
    Browser(api).sign_in()
    before = {each.role: each.id for each in api.registry.identities.get("ada@example.org").roles}
    provider.user["groups"] = ["dev", "qa", 7, "", "x" * 300]
    Browser(api).sign_in()
    after = {each.role: each.id for each in api.registry.identities.get("ada@example.org").roles}
    assert after.keys() == {"dev", "qa"}
    assert after["dev"] == before["dev"]
    provider.user.pop("groups")
    Browser(api).sign_in()
    assert api.registry.identities.get("ada@example.org").roles == []


def test_roles_may_lie_deeper(api, provider):
    configure(api, roles_claim="realm_access.roles")
    provider.user["realm_access"] = {"roles": ["admin"]}
    Browser(api).sign_in()
    assert [each.role for each in api.registry.identities.get("ada@example.org").roles] == ["admin"]


def test_a_frozen_or_deleted_identity(api, provider):
    Browser(api).sign_in()
    identity = api.registry.identities.get("ada@example.org")
    api.registry.commit(Put(msgspec.structs.replace(identity, frozen=True)))
    browser = Browser(api)
    assert browser.sign_in().status == 403
    assert ACCESS not in browser.jar
    api.registry.commit(Delete("identity", "ada@example.org"))
    assert Browser(api).sign_in().status == 307


@pytest.mark.parametrize(
    ("login_claim", "user", "status"),
    [
        ("preferred_username", {"preferred_username": "ada"}, 307),
        ("preferred_username", {}, 403),
        ("email", {"email_verified": False}, 403),
        ("email", {"email": 7}, 403),
        ("email", {"email": "a b@example.org"}, 422),
    ],
)
def test_the_login_is_what_a_claim_says(api, provider, login_claim, user, status):
    configure(api, login_claim=login_claim)
    provider.user |= user
    assert Browser(api).sign_in().status == status


@pytest.mark.parametrize(
    "mistakes",
    [
        {"aud": "another client"},
        {"aud": [CLIENT_ID, "another"]},
        {"aud": [CLIENT_ID, "another"], "azp": "another"},
        {"azp": "another"},
        {"iss": "https://evil.test"},
        {"nonce": "another sign-in's"},
        {"nonce": None},
        {"sub": None},
        {"exp": 1_000_000},
        {"exp": None},
        {"kid": "not published"},
        {"alg": "HS256", "key": CLIENT_SECRET * 3},
        {"alg": "none", "key": None},
    ],
    ids=str,
)
def test_an_id_token_that_does_not_hold(api, provider, mistakes):
    provider.mistakes = mistakes
    browser = Browser(api)
    answer = browser.sign_in()
    assert (answer.status, answer.json["code"]) == (401, "UNAUTHORIZED")
    assert ACCESS not in browser.jar
    assert api.registry.identities.get("ada@example.org") is None


def test_several_audiences_with_us_as_the_party(api, provider):
    provider.mistakes = {"aud": [CLIENT_ID, "another"], "azp": CLIENT_ID}
    assert Browser(api).sign_in().status == 307


def test_the_provider_changes_its_key(api, provider):
    Browser(api).sign_in()
    provider.rotate()
    assert Browser(api).sign_in().status == 307


def test_a_public_client_has_no_secret(api, provider):
    provider.public_client = True
    api.services = dataclasses.replace(api.services, keyring=Keyring(clients.secretsmanager, "attune"))
    assert Browser(api).sign_in().status == 307


def test_a_client_that_the_provider_does_not_know(api):
    api.services = dataclasses.replace(api.services, keyring=Keyring(clients.secretsmanager, "attune"))
    assert Browser(api).sign_in().status == 401


def test_the_provider_says_no(api, provider):
    provider.mistakes = {"error": "access_denied"}
    browser = Browser(api)
    assert browser.sign_in().status == 401
    assert ACCESS not in browser.jar


def test_an_answer_of_another_provider(api, provider):
    provider.mistakes = {"answer_iss": "https://evil.test"}
    assert Browser(api).sign_in().status == 400


def test_a_provider_that_calls_itself_otherwise_or_is_away(api, provider):
    provider.mistakes = {"described_issuer": "https://evil.test"}
    assert Browser(api).get("/auth/oidc/login").status == 503
    configure(api, issuer="http://127.0.0.1:9")
    assert Browser(api).get("/auth/oidc/login").status == 503


def test_nobody_is_signed_in_with_a_sign_in_that_others_began(api):
    mine, theirs = Browser(api), Browser(api)
    back = theirs.begin()
    assert mine.get("/auth/callback", **back).status == 400
    mine.begin()
    assert mine.get("/auth/callback", **back).status == 400
    assert theirs.get("/auth/callback", **back).status == 307


def test_a_sign_in_ends_once(api):
    browser = Browser(api)
    back = browser.begin()
    flow = dict(browser.jar)
    assert browser.get("/auth/callback", **back).status == 307
    browser.jar = flow
    assert browser.get("/auth/callback", **back).status == 401  # the code is used up


def test_two_tabs_do_not_meet(api):
    browser = Browser(api)
    first, second = browser.begin(redirect_to="/first"), browser.begin(redirect_to="/second")
    assert browser.get("/auth/callback", **first).headers["Location"] == "/first"
    assert browser.get("/auth/callback", **second).headers["Location"] == "/second"


def test_a_sign_in_takes_ten_minutes_at_most(api):
    browser = Browser(api)
    back = browser.begin()
    late = api.services.clock() + timedelta(minutes=11)
    browser.api.services = dataclasses.replace(api.services, clock=lambda: late)
    assert browser.get("/auth/callback", **back).status == 400


@pytest.mark.parametrize(
    "query", [{}, {"code": "x"}, {"state": "x"}, {"state": "ü", "code": "x"}, {"state": "x" * 200, "code": "x"}]
)
def test_callbacks_out_of_nowhere(api, query):
    assert Browser(api).get("/auth/callback", **query).status == 400


@pytest.mark.parametrize("address", ["/", "/a/b?c=d#e", "https://ui.example.org/x", f"{PUBLIC_URL}/ui"])
def test_where_a_browser_may_go_afterwards(api, address):
    assert Browser(api).sign_in(redirect_to=address).headers["Location"] == address


@pytest.mark.parametrize(
    "address",
    [
        "//evil.test",
        "/\\evil.test",
        "\\\\evil.test",
        "/\t/evil.test",
        "/\n",
        " //evil.test",
        "https://evil.test",
        "https://ui.example.org.evil.test/",
        "https://ui.example.org@evil.test/",
        "https:evil.test",
        "javascript:alert(1)",
        "evil",
        "/" + "x" * 300,
    ],
)
def test_a_redirect_never_leads_elsewhere(api, address):
    assert Browser(api).get("/auth/oidc/login", redirect_to=address).status == 400


@pytest.mark.parametrize("address", ["http://127.0.0.1:4711/done", "http://localhost:1/", "http://[::1]:80/x?y=1"])
def test_a_program_on_the_users_machine_gets_the_tokens(api, address):
    browser = Browser(api)
    location = browser.sign_in(cli_redirect_uri=address).headers["Location"]
    assert location.startswith(address)
    handed = {name: values[0] for name, values in parse_qs(urlsplit(location).query).items()}
    assert api.with_token(handed["access_token"]).get("/auth/me").data["login"] == "ada@example.org"
    assert handed["token_type"] == "Bearer"
    assert not browser.jar  # it is not the browser's session
    again = api.anonymous().post("/auth/refresh", json={"refresh_token": handed["refresh_token"]})
    assert again.status == 200


@pytest.mark.parametrize(
    "address",
    [
        "https://127.0.0.1/",
        "http://evil.test/",
        "http://127.0.0.1.evil.test/",
        "http://127.0.0.1@evil.test/",
        "http://localhost:x/",
        "http://localhost/#x",
        "file:///etc/passwd",
        "/path",
        "",
    ],
)
def test_tokens_go_to_the_users_machine_alone(api, address):
    assert Browser(api).get("/auth/oidc/login", cli_redirect_uri=address).status == 400
