"""Sealing what travels to the execution plane (docs/decisions/014): AES-256-GCM, bound to tenant, subject and attempt.

The key lies in a Secrets Manager secret of its own, ``{"run": [{"kid", "key"}, ...]}``: the first key seals, all
of them open (``runners/sealing.py``). It is read when something is sealed for the first time.
"""

import os
from collections.abc import Callable
from typing import Any, Final

import msgspec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from chalicelib.protocol import Build, BuildContent, Pack, Poll, Run, RunContent, RunKeys, Sealed, Upload, bound_to
from chalicelib.security.keyring import KeyringError

_NONCE: Final = 12  # bytes; NIST SP 800-38D §8.2.2: random nonces, at most 2^32 under one key
_EMPTY: Final = RunContent()
_encode = msgspec.json.Encoder().encode


class Sealer:
    """Seals messages for the runner. ``client`` gives a Secrets Manager client.

    All methods raise :class:`KeyringError` if the secret is unusable, and botocore's errors.
    """

    def __init__(self, client: Callable[[], Any], secret_id: str) -> None:
        self._client = client
        self._secret_id = secret_id
        self._current: tuple[str, AESGCM] | None = None

    def run(self, run: Run) -> Run:
        """``run`` with what may hold secrets sealed."""
        return self._sealed(run, bound_to("run", run.tenant, run.execution, run.attempt))

    def poll(self, poll: Poll) -> Poll:
        """The same for the run of a sensor."""
        run = poll.run
        return Poll(run=self._sealed(run, bound_to("poll", run.tenant, run.execution, run.attempt)))

    def build(self, build: Build) -> Build:
        """``build`` with its URLs sealed."""
        content = BuildContent(pack=build.pack, upload=build.upload)
        return msgspec.structs.replace(
            build,
            pack=Pack(ref=build.pack.ref, content=build.pack.content, url=""),
            upload=Upload(url="", fields={}, most=build.upload.most),
            sealed=self._seal(content, bound_to("build", build.tenant, build.environment, build.attempt)),
        )

    def _sealed(self, run: Run, bound: bytes) -> Run:
        content = RunContent(**{name: getattr(run, name) for name in RunContent.__struct_fields__})
        return msgspec.structs.replace(run, **msgspec.structs.asdict(_EMPTY), sealed=self._seal(content, bound))

    def _seal(self, content: RunContent | BuildContent, bound: bytes) -> Sealed:
        kid, cipher = self._current or self._read()
        nonce = os.urandom(_NONCE)
        return Sealed(kid=kid, nonce=nonce, content=cipher.encrypt(nonce, _encode(content), bound))

    def _read(self) -> tuple[str, AESGCM]:
        text = self._client().get_secret_value(SecretId=self._secret_id)["SecretString"]
        try:
            first = msgspec.json.decode(text, type=RunKeys).run[0]
        except msgspec.MsgspecError:
            # What the text says must not get into a log.
            raise KeyringError(f"secret {self._secret_id} does not hold the keys of the execution plane") from None
        self._current = first.kid, AESGCM(first.key)
        return self._current
