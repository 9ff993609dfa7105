"""How often somebody may try a password (docs/decisions/020-login-throttle.md).

Guessing is made slow and nobody is locked out by others: what closes is a door for one account *at one address*. An
account that is tried from everywhere gets narrower doors, never none, and who signed in from an address or in a browser
before has a door that attempts elsewhere do not touch.

Times are aware datetimes. The state is counters in the store: four small calls for a successful sign-in.
"""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

WINDOW: Final = 15 * 60  # seconds; windows follow each other
TRIES: Final = 10  # of one account at one address
NARROW_TRIES: Final = 3  # the same, while the account is under attack
KNOWN_TRIES: Final = 20  # of one account in a browser, or at an address, where it has signed in before
ATTACK: Final = 100  # failures of one account, wherever they come from (NIST SP 800-63B §5.2.2: at most 100)
ADDRESS_FAILURES: Final = 100  # of one address, whatever accounts it tries
KNOWN_DAYS: Final = 30  # that an address is known for after a sign-in

_PAIR, _ACCOUNT, _ADDRESS, _KNOWN = "login", "login-account", "login-address", "login-known"


class Counters(Protocol):
    """``store.idempotency.Hits``."""

    def hit(self, key: str, source: str, window: int, *, now: datetime | None = None) -> int: ...
    def counts(self, pairs: Sequence[tuple[str, str]], window: int, *, now: datetime) -> list[int]: ...
    def forget(self, key: str, source: str, window: int, *, now: datetime) -> None: ...


class Facts(Protocol):
    """``store.idempotency.Idempotency``."""

    def remember(self, scope: str, key: str, answer: int, *, now: datetime | None = None, seconds: int) -> int: ...
    def recall(self, scope: str, key: str, *, now: datetime | None = None) -> object: ...


class ThrottledError(Exception):
    """Too many attempts; there is room again in ``retry_after`` seconds."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"too many attempts, again in {retry_after} s")
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Attempt:
    """Somebody is about to try a password of ``account`` (tenant and login) from ``address``. ``device`` is the browser
    in which the account has signed in before, as far as that is proved."""

    account: str
    address: str
    device: str | None = None

    @property
    def place(self) -> str:
        return f"device {self.device}" if self.device else network_of(self.address)


class Throttle:
    """Lets attempts in, or not. The same for accounts that exist and that do not."""

    def __init__(self, counters: Counters, facts: Facts) -> None:
        self._counters = counters
        self._facts = facts

    def enter(self, attempt: Attempt, now: datetime) -> None:
        """Count the attempt; to be called before the password is looked at. Raises :class:`ThrottledError`."""
        tries = self._counters.hit(_PAIR, _place_of(attempt), WINDOW, now=now)
        if attempt.device:
            allowed = KNOWN_TRIES
        else:
            wanted = [(_ACCOUNT, attempt.account), (_ADDRESS, attempt.place)]
            account, address = self._counters.counts(wanted, WINDOW, now=now)
            allowed = NARROW_TRIES if account >= ATTACK else TRIES
            if address >= ADDRESS_FAILURES:
                allowed = 0
            if tries > allowed and self._knows(attempt, now):
                allowed = KNOWN_TRIES
        if tries > allowed:
            raise ThrottledError(WINDOW - int(now.timestamp()) % WINDOW)

    def failed(self, attempt: Attempt, now: datetime) -> None:
        """The password was wrong, or there is no such account."""
        if not attempt.device:
            self._counters.hit(_ACCOUNT, attempt.account, WINDOW, now=now)
            self._counters.hit(_ADDRESS, attempt.place, WINDOW, now=now)

    def succeeded(self, attempt: Attempt, now: datetime) -> None:
        """The password was right: the place is known from now on."""
        self._counters.forget(_PAIR, _place_of(attempt), WINDOW, now=now)
        if not attempt.device:
            self._facts.remember(_KNOWN, _place_of(attempt), 1, now=now, seconds=KNOWN_DAYS * 24 * 3600)

    def _knows(self, attempt: Attempt, now: datetime) -> bool:
        return self._facts.recall(_KNOWN, _place_of(attempt), now=now) == 1


def _place_of(attempt: Attempt) -> str:
    return f"{attempt.account}\x00{attempt.place}"


def network_of(address: str) -> str:
    """What counts as one address: with IPv6 the /64 that one customer gets (RFC 6177)."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)
