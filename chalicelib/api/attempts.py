"""The door before every password (:mod:`chalicelib.security.throttle`), and the cookie by which it knows a browser.

The cookie says of which account the browser has known the password, sealed, so that nobody can make one.
"""

import secrets
from datetime import timedelta
from typing import Final

from chalicelib.api import cookies
from chalicelib.api.errors import TooMany
from chalicelib.api.routing import Call
from chalicelib.domain.entities import SYSTEM_TENANT
from chalicelib.security.encryption import SealError
from chalicelib.security.throttle import Attempt, Throttle, ThrottledError, network_of

DEVICE: Final = "attune_device"
DEVICE_LIFE: Final = timedelta(days=180)
REGISTRATIONS: Final = 50  # from one address, in an hour: each hashes a password
_HOUR: Final = 3600


class Door:
    """One attempt at the password of an account, let in and counted. Whoever opens one says how it ended."""

    def __init__(self, call: Call, tenant: str, login: str) -> None:
        """Raises TooMany (429)."""
        self._call = call
        account = f"{tenant}\x00{login}"
        self._attempt = Attempt(account, call.client_ip, _device_of(call, account))
        # The system's counters: the tenant may be one that does not exist.
        system = call.services.store.tenant(SYSTEM_TENANT)
        self._throttle = Throttle(system.hits, system.idempotency)
        try:
            self._throttle.enter(self._attempt, call.now)
        except ThrottledError as error:
            raise TooMany("Too many attempts to sign in; try again later", error.retry_after) from error

    def refused(self) -> None:
        """The password was wrong."""
        self._throttle.failed(self._attempt, self._call.now)

    def opened(self) -> None:
        """The password was right: the browser gets to be known."""
        call, attempt = self._call, self._attempt
        self._throttle.succeeded(attempt, call.now)
        known = [attempt.account, attempt.device or secrets.token_hex(8), int(call.now.timestamp())]
        sealed = call.services.cipher.seal(SYSTEM_TENANT, DEVICE, known)
        life = int(DEVICE_LIFE.total_seconds())
        call.cookies.append(
            cookies.written(call.request, call.services.settings, DEVICE, sealed, seconds=life, below="/auth")
        )


def count_registration(call: Call) -> None:
    """Count an attempt to register from the caller's address. Raises TooMany (429)."""
    hits = call.services.store.tenant(SYSTEM_TENANT).hits
    if hits.hit("register", network_of(call.client_ip), _HOUR, now=call.now) > REGISTRATIONS:
        raise TooMany("Too many registrations; try again later", _HOUR - int(call.now.timestamp()) % _HOUR)


def _device_of(call: Call, account: str) -> str | None:
    sealed = cookies.read(call.request, DEVICE)
    if sealed is None:
        return None
    try:
        known, device, since = call.services.cipher.open(SYSTEM_TENANT, DEVICE, sealed)
    except SealError:
        return None
    fresh = call.now.timestamp() - since < DEVICE_LIFE.total_seconds()
    return device if known == account and fresh else None
