"""The deployment's own secrets: the keys that sign tokens and the keys that wrap the tenants' data keys.

One secret in Secrets Manager holds both, as JSON: ``{"jwt": [{"kid", "key"}, ...], "master": [{"kid", "key"}, ...]}``.
The first of each list is current and the others are old ones that still verify and unwrap; rotation puts a new one in
front. A ``key`` is base64, or any text of at least 32 characters, which is hashed to 256 bits: CloudFormation generates
secrets as text.
"""

import base64
import binascii
import hashlib
import time
from collections.abc import Callable
from typing import Any, Final

import msgspec

_KEY_BYTES: Final = 32  # AES-256, HS256
_MIN_TEXT: Final = 32
_REREAD: Final = 300.0  # seconds after which an unknown kid makes us look for new keys


class KeyringError(Exception):
    """The deployment secret is unusable, or a key that is needed is not in it (any more)."""


class NamedKey(msgspec.Struct, frozen=True):
    """A key and the name under which what it made refers to it."""

    kid: str
    key: str

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


class _Keys(msgspec.Struct, frozen=True):
    jwt: list[NamedKey]
    master: list[NamedKey]


class Keyring:
    """The keys of the deployment, read at first use. ``client`` gives a Secrets Manager client."""

    def __init__(self, client: Callable[[], Any], secret_id: str) -> None:
        self._client = client
        self._secret_id = secret_id
        self._keys: _Keys | None = None
        self._read_at = 0.0

    def signing(self) -> NamedKey:
        """The key that signs new tokens."""
        return self._load().jwt[0]

    def verifying(self, kid: str | None) -> NamedKey | None:
        """The signing key of that name, old ones included."""
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

    def _named(self, purpose: Callable[[_Keys], list[NamedKey]], kid: str | None) -> NamedKey | None:
        for again in (False, True):
            if again:
                if time.monotonic() - self._read_at < _REREAD:
                    break
                self._keys = None  # it may have been put there since
            found = next((each for each in purpose(self._load()) if each.kid == kid), None)
            if found is not None:
                return found
        return None

    def _load(self) -> _Keys:
        if self._keys is None:
            text = self._client().get_secret_value(SecretId=self._secret_id)["SecretString"]
            try:
                keys = msgspec.json.decode(text, type=_Keys)
            except msgspec.MsgspecError:
                # What the text says must not get into a log.
                raise KeyringError(f"secret {self._secret_id} is not the JSON that the keyring expects") from None
            if not keys.jwt or not keys.master:
                raise KeyringError(f"secret {self._secret_id} names no current key")
            self._keys = keys
            self._read_at = time.monotonic()
        return self._keys
