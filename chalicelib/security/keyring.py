"""The deployment's own secrets: the keys that sign tokens and the keys that wrap the tenants' data keys.

One secret in Secrets Manager holds both, as JSON: ``{"jwt": [{"kid", "key"}, ...], "master": [{"kid", "key"}, ...]}``.
The first of each list is current and the others are old ones that still verify and unwrap; rotation puts a new one in
front (:mod:`chalicelib.security.rotation`). A ``key`` is base64, or any text of at least 32 characters, which is hashed
to 256 bits: CloudFormation generates secrets as text.

A new signing key has a ``since``: it verifies at once and signs only from then on, so that every process knows it
before it meets a token that it made.
"""

import base64
import binascii
import hashlib
import time
from collections.abc import Callable
from typing import Any, Final

import msgspec

from chalicelib.log import logger

_KEY_BYTES: Final = 32  # AES-256, HS256
_MIN_TEXT: Final = 32
REREAD: Final = 300.0  # seconds that the keys are kept; rotation.LEAD leaves room for that
_UNKNOWN: Final = 10.0  # seconds between two looks for an unknown kid, which anybody may send


class KeyringError(Exception):
    """The deployment secret is unusable, or a key that is needed is not in it (any more)."""


class NamedKey(msgspec.Struct, frozen=True):
    """A key and the name under which what it made refers to it."""

    kid: str
    key: str
    since: int = 0  # seconds since 1970 from which it makes anything

    @property
    def secret(self) -> bytes:
        """The key's 32 bytes."""
        try:
            decoded = base64.b64decode(self.key, validate=True)
        except binascii.Error:
            decoded = b""
        if len(decoded) == _KEY_BYTES:
            return decoded
        if len(self.key) < _MIN_TEXT:
            raise KeyringError(f"key {self.kid} is too short: 32 bytes in base64, or 32 characters, are needed")
        return hashlib.sha256(self.key.encode()).digest()


class Keys(msgspec.Struct, frozen=True):
    """What the deployment secret says."""

    jwt: list[NamedKey]
    master: list[NamedKey]
    oidc_client_secret: str | None = None


class Keyring:
    """The keys of the deployment, read at first use and again from time to time. ``client`` gives a Secrets Manager
    client; ``clock`` the seconds since 1970."""

    def __init__(self, client: Callable[[], Any], secret_id: str, clock: Callable[[], float] = time.time) -> None:
        self._client = client
        self._secret_id = secret_id
        self._clock = clock
        self._keys: Keys | None = None
        self._looked_at = 0.0

    def signing(self) -> NamedKey:
        """The key that signs new tokens."""
        now = self._clock()
        keys = self._load().jwt
        return next((each for each in keys if each.since <= now), keys[-1])

    def verifying(self, kid: str | None) -> NamedKey | None:
        """The signing key of that name, old ones and those to come included."""
        return self._named(lambda keys: keys.jwt, kid)

    def wrapping(self) -> NamedKey:
        """The master key that wraps new data keys."""
        return self._load().master[0]

    def unwrapping(self, kid: str) -> NamedKey:
        """The master key of that name. Raises :class:`KeyringError` when it is gone."""
        found = self._named(lambda keys: keys.master, kid)
        if found is None:
            raise KeyringError(f"master key {kid} is not in the deployment secret")
        return found

    def oidc_client_secret(self) -> str | None:
        """What the deployment shows to the provider of identities; None: its client is a public one."""
        return self._load().oidc_client_secret

    def _named(self, purpose: Callable[[Keys], list[NamedKey]], kid: str | None) -> NamedKey | None:
        found = _find(purpose(self._load()), kid)
        if found is None and self._clock() - self._looked_at >= _UNKNOWN:
            found = _find(purpose(self._load(again=True)), kid)  # it may have been put there since
        return found

    def _load(self, *, again: bool = False) -> Keys:
        now = self._clock()
        if self._keys is None:
            self._keys = self._read()
            self._looked_at = now
        elif again or now - self._looked_at >= REREAD:
            self._looked_at = now
            try:
                self._keys = self._read()
            except Exception:  # whatever is wrong with the secret now, the keys that we have still hold
                logger.exception("the deployment secret could not be read again")
        return self._keys

    def _read(self) -> Keys:
        text = self._client().get_secret_value(SecretId=self._secret_id)["SecretString"]
        try:
            keys = msgspec.json.decode(text, type=Keys)
        except msgspec.MsgspecError:
            # What the text says must not get into a log.
            raise KeyringError(f"secret {self._secret_id} is not the JSON that the keyring expects") from None
        if not keys.jwt or not keys.master:
            raise KeyringError(f"secret {self._secret_id} names no current key")
        return keys


def _find(keys: list[NamedKey], kid: str | None) -> NamedKey | None:
    return next((each for each in keys if each.kid == kid), None)
