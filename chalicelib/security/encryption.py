"""Values at rest (contract README 11): AES-256-GCM under the tenant's data key, bound to tenant and ref.

A tenant's data key is made when it first seals something. It rests wrapped by the deployment's master key, in the
tenant's part of the registry.
"""

import base64
import os
from typing import Any, Final, Protocol

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from chalicelib.security.keyring import Keyring

Json = Any

_NONCE: Final = 12  # bytes; NIST SP 800-38D §8.2.2: random nonces, at most 2^32 under one key
_FORMAT: Final = "1"


class SealError(Exception):
    """A sealed value does not open: it was tampered with, or sealed for another tenant, ref or key."""


class DataKeys(Protocol):
    """Where wrapped data keys rest (the store)."""

    def data_key(self, tenant: str, wrapped: str | None = None) -> str | None: ...


class Cipher:
    """Seals and opens. Unwrapped data keys stay in the process's memory."""

    def __init__(self, store: DataKeys, keyring: Keyring) -> None:
        self._store = store
        self._keyring = keyring
        self._ciphers: dict[str, AESGCM] = {}

    def seal(self, tenant: str, ref: str, value: Json) -> str:
        """The ciphertext of a JSON value: it opens only for the same tenant and ref."""
        nonce = os.urandom(_NONCE)
        sealed = self._of(tenant, make=True).encrypt(nonce, msgspec.json.encode(value), _bound_to(tenant, ref))
        return f"{_FORMAT}.{base64.b64encode(nonce + sealed).decode()}"

    def open(self, tenant: str, ref: str, sealed: str) -> Json:
        """The value that was sealed. Raises :class:`SealError`."""
        format_, _, encoded = sealed.partition(".")
        if format_ != _FORMAT:
            raise SealError(f"{ref}: sealed in an unknown format")
        try:
            raw = base64.b64decode(encoded, validate=True)
            opened = self._of(tenant, make=False).decrypt(raw[:_NONCE], raw[_NONCE:], _bound_to(tenant, ref))
        except (InvalidTag, ValueError):
            raise SealError(f"{ref}: does not open") from None
        return msgspec.json.decode(opened)

    def forget(self) -> None:
        """Read data keys again: a tenant may have been deleted with its own, and its slug be somebody else's."""
        self._ciphers.clear()

    def _of(self, tenant: str, *, make: bool) -> AESGCM:
        cipher = self._ciphers.get(tenant)
        if cipher is None:
            wrapped = self._store.data_key(tenant)
            if wrapped is None:
                if not make:
                    raise SealError(f"tenant {tenant} has no data key")
                # Of two that make one at once, the store keeps the first, and both go on with that.
                wrapped = self._store.data_key(tenant, self._wrap(tenant, AESGCM.generate_key(bit_length=256)))
            cipher = self._ciphers[tenant] = AESGCM(self._unwrap(tenant, wrapped or ""))
        return cipher

    def _wrap(self, tenant: str, data_key: bytes) -> str:
        master = self._keyring.wrapping()
        nonce = os.urandom(_NONCE)
        wrapped = AESGCM(master.secret).encrypt(nonce, data_key, _bound_to(tenant, "datakey"))
        return f"{_FORMAT}.{master.kid}.{base64.b64encode(nonce + wrapped).decode()}"

    def _unwrap(self, tenant: str, wrapped: str) -> bytes:
        try:
            _, kid, encoded = wrapped.split(".")
            raw = base64.b64decode(encoded, validate=True)
            master = AESGCM(self._keyring.unwrapping(kid).secret)
            return master.decrypt(raw[:_NONCE], raw[_NONCE:], _bound_to(tenant, "datakey"))
        except (InvalidTag, ValueError):
            raise SealError(f"the data key of tenant {tenant} does not unwrap") from None


def _bound_to(tenant: str, ref: str) -> bytes:
    return f"{tenant}\x00{ref}".encode()
