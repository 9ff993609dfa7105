"""The door before a password, over HTTP."""

import dataclasses

import msgspec
import pytest

from chalicelib.api.attempts import DEVICE
from chalicelib.security.throttle import ADDRESS_FAILURES, KNOWN_TRIES, TRIES
from chalicelib.store.registry import Put

PASSWORD = "correct horse battery"


@pytest.fixture
def api(api):
    """The API at one moment: windows of time do not end during a test."""
    now = api.services.clock()
    api.services = dataclasses.replace(api.services, clock=lambda: now)
    return api


@pytest.fixture
def account(api):
    answer = api.anonymous().post("/auth/register", json={"login": "new@example.org", "password": PASSWORD})
    assert answer.status == 200
    return api.with_token(answer.data["access_token"])


@pytest.fixture(autouse=True)
def _fast(monkeypatch):
    monkeypatch.setattr("chalicelib.security.passwords.verify_password", lambda hash_, password: password == PASSWORD)


def sign_in(api, password=PASSWORD, login="new@example.org", **options):
    return api.anonymous().post("/auth/login", json={"login": login, "password": password}, **options)


def device_of(answer):
    (line,) = [line for line in answer.cookies if line.startswith(DEVICE)]
    assert "Path=/auth;" in line
    return {"cookie": line.partition(";")[0]}


def test_guessing_ends_in_429_even_with_the_right_password(api, account):
    for _ in range(TRIES):
        assert sign_in(api, "wrong").status == 401
    answer = sign_in(api)
    assert (answer.status, answer.json["code"]) == (429, "TOO_MANY_REQUESTS")
    assert 0 < int(answer.headers["Retry-After"]) <= 900


def test_a_login_that_nobody_has_ends_alike(api):
    answers = [sign_in(api, "wrong", login="ghost@example.org") for _ in range(TRIES + 1)]
    assert [answer.status for answer in answers] == [401] * TRIES + [429]


def test_a_browser_that_has_signed_in_is_not_locked_out_by_its_neighbours(api, account):
    device = device_of(sign_in(api))
    while sign_in(api, "wrong").status != 429:
        pass
    assert sign_in(api).status == 429
    answer = sign_in(api, headers=device)
    assert answer.status == 200
    assert sign_in(api, headers=device_of(answer)).status == 200


def test_a_browser_is_known_for_its_account_alone(api, account):
    device = device_of(sign_in(api))
    answers = [sign_in(api, "wrong", login="ghost@example.org", headers=device).status for _ in range(TRIES + 1)]
    assert answers[-1] == 429
    for forged in (f"{DEVICE}=1.AAAA", f"{DEVICE}=x", f"{device['cookie'][:-4]}AAA="):
        assert sign_in(api, headers={"cookie": forged}).status == 200


def test_a_known_browser_has_an_end_of_guesses_too(api, account):
    device = device_of(sign_in(api))
    answers = [sign_in(api, "wrong", headers=device).status for _ in range(KNOWN_TRIES + 1)]
    assert answers == [401] * KNOWN_TRIES + [429]


def test_one_address_does_not_try_everybody(api):
    statuses = [sign_in(api, "wrong", login=f"user{number}@example.org").status for number in range(ADDRESS_FAILURES)]
    assert set(statuses) == {401}
    assert sign_in(api, "wrong", login="one@example.org").status == 429


def test_ones_own_password_is_no_easier_to_guess(api, account):
    change = {"current_password": "wrong", "new_password": "another password"}
    statuses = [account.post("/auth/change-password", json=change).status for _ in range(TRIES + 1)]
    assert statuses == [401] * TRIES + [429]


def test_frozen_accounts_count_as_guessed_right(api, account):
    identity = api.registry.identities.get("new@example.org")
    api.registry.commit(Put(msgspec.structs.replace(identity, frozen=True)))
    assert {sign_in(api).status for _ in range(2 * TRIES)} == {403}


def test_one_address_registers_only_so_many(api, monkeypatch):
    monkeypatch.setattr("chalicelib.security.passwords.hash_password", lambda password: "no hash")
    monkeypatch.setattr("chalicelib.api.attempts.REGISTRATIONS", 3)
    accounts = [{"login": f"user{number}@example.org", "password": PASSWORD} for number in range(4)]
    answers = [api.anonymous().post("/auth/register", json=account) for account in accounts]
    assert [answer.status for answer in answers] == [200, 200, 200, 429]
    assert 0 < int(answers[-1].headers["Retry-After"]) <= 3600
