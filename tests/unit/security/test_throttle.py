"""Guessing is slow, and nobody is locked out by others."""

from datetime import UTC, datetime, timedelta

import pytest

from chalicelib.security.throttle import (
    ADDRESS_FAILURES,
    ATTACK,
    KNOWN_TRIES,
    NARROW_TRIES,
    TRIES,
    WINDOW,
    Attempt,
    Throttle,
    ThrottledError,
    network_of,
)

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


class Notes:
    """Counters and facts, as the store keeps them."""

    def __init__(self):
        self.hits, self.facts = {}, {}

    def hit(self, key, source, window, *, now):
        slot = (key, source, int(now.timestamp()) // window)
        self.hits[slot] = self.hits.get(slot, 0) + 1
        return self.hits[slot]

    def counts(self, pairs, window, *, now):
        return [self.hits.get((*pair, int(now.timestamp()) // window), 0) for pair in pairs]

    def forget(self, key, source, window, *, now):
        self.hits.pop((key, source, int(now.timestamp()) // window), None)

    def remember(self, scope, key, answer, *, now, seconds):
        self.facts[scope, key] = now + timedelta(seconds=seconds)
        return answer

    def recall(self, scope, key, *, now):
        return 1 if self.facts.get((scope, key), now) > now else None


class World:
    def __init__(self):
        notes = Notes()
        self.throttle = Throttle(notes, notes)
        self.now = NOON

    def tries(self, account="acme\0owner", address="203.0.113.7", device=None, *, right=False):
        """Whether the attempt is let in."""
        attempt = Attempt(account, address, device)
        try:
            self.throttle.enter(attempt, self.now)
        except ThrottledError:
            return False
        (self.throttle.succeeded if right else self.throttle.failed)(attempt, self.now)
        return True

    def attack(self, failures):
        """Strangers try the owner's account, each from an address of their own."""
        for number in range(failures):
            assert self.tries(address=f"198.51.{number // 256}.{number % 256}")


@pytest.fixture
def world():
    return World()


def count(outcomes):
    return sum(1 for each in outcomes if each)


def test_one_address_has_ten_tries_at_an_account_in_a_quarter_of_an_hour(world):
    assert count(world.tries() for _ in range(50)) == TRIES
    assert world.tries(account="acme\0somebody else")
    assert world.tries(address="203.0.113.8")
    world.now += timedelta(seconds=WINDOW)
    assert world.tries()


def test_it_is_said_when_there_is_room_again(world):
    world.now = NOON + timedelta(seconds=40)
    for _ in range(TRIES):
        world.tries()
    with pytest.raises(ThrottledError) as refused:
        world.throttle.enter(Attempt("acme\0owner", "203.0.113.7"), world.now)
    assert refused.value.retry_after == WINDOW - 40


def test_a_success_begins_anew(world):
    for _ in range(5):
        assert count(world.tries() for _ in range(TRIES - 1)) == TRIES - 1
        assert world.tries(right=True)
        world.now += timedelta(seconds=WINDOW)


def test_success_with_ones_own_account_does_not_help_to_guess_at_another(world):
    let_in = 0
    for _ in range(30):
        let_in += world.tries()
        assert world.tries(account="acme\0attacker", right=True)
    assert let_in == TRIES


def test_an_account_under_attack_has_narrow_doors_and_never_none(world):
    world.attack(ATTACK)
    assert count(world.tries(address="192.0.2.1") for _ in range(10)) == NARROW_TRIES
    assert world.tries(address="192.0.2.2", right=True)


def test_an_attack_does_not_reach_where_the_owner_has_signed_in_before(world):
    assert world.tries(address="192.0.2.1", right=True)
    assert world.tries(device="laptop", right=True)
    world.attack(3 * ATTACK)
    assert count(world.tries(address="192.0.2.1") for _ in range(KNOWN_TRIES - 1)) == KNOWN_TRIES - 1
    assert world.tries(address="192.0.2.1", right=True)
    assert count(world.tries(device="laptop") for _ in range(50)) == KNOWN_TRIES


def test_an_attacker_behind_the_same_address_does_not_reach_the_owners_browser(world):
    assert world.tries(right=True, device="laptop")
    for _ in range(50):
        world.tries()
    assert not world.tries()
    assert world.tries(device="laptop", right=True)


def test_an_address_is_known_for_a_month(world):
    world.tries(address="192.0.2.1", right=True)
    world.now += timedelta(days=31)
    world.attack(ATTACK)
    assert count(world.tries(address="192.0.2.1") for _ in range(10)) == NARROW_TRIES


def test_one_address_tries_a_hundred_accounts_and_no_more(world):
    assert world.tries(right=True)
    let_in = count(world.tries(account=f"acme\0user {number}") for number in range(300))
    assert let_in == ADDRESS_FAILURES
    assert not world.tries(account="acme\0new here")
    assert world.tries(right=True)  # who is known here goes in and out


def test_an_unknown_account_is_treated_like_a_known_one(world):
    assert count(world.tries(account="nowhere\0nobody") for _ in range(50)) == TRIES


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("", ""),
        ("unknown", "unknown"),
    ],
)
def test_addresses(address, network):
    assert network_of(address) == network
