"""Opening what the executor sealed (docs/decisions/014).

The key is read at the first sealed message, and kept. Only this process ever has it: the zygote, of which actions are
copies, was started before.
"""

import os
from functools import cache
from typing import Any

import msgspec

from chalicelib.protocol import Build, BuildContent, Poll, Run, RunContent, RunKeys, Sealed, bound_to


class DoesNotOpenError(Exception):
    """The sealed part was changed, made for another attempt, or sealed with a key that is gone. Trying again does not
    help."""


_ciphers: dict[str, Any] = {}  # by kid


def opened(run: Run) -> Run:
    """``run`` as it was before it was sealed. Raises :class:`DoesNotOpenError`, and botocore's errors."""
    return run if run.sealed is None else _opened(run, run.sealed, "run")


def opened_poll(poll: Poll) -> Poll:
    """The same for a poll."""
    return poll if poll.run.sealed is None else Poll(run=_opened(poll.run, poll.run.sealed, "poll"))


def opened_build(build: Build) -> Build:
    """The same for a build."""
    if build.sealed is None:
        return build
    bound = bound_to("build", build.tenant, build.environment, build.attempt)
    content = msgspec.json.decode(_open(build.sealed, bound), type=BuildContent)
    return msgspec.structs.replace(build, sealed=None, pack=content.pack, upload=content.upload)


def _opened(run: Run, sealed: Sealed, kind: Any) -> Run:
    bound = bound_to(kind, run.tenant, run.execution, run.attempt)
    content = msgspec.json.decode(_open(sealed, bound), type=RunContent)
    return msgspec.structs.replace(run, sealed=None, **msgspec.structs.asdict(content))


def _open(sealed: Sealed, bound: bytes) -> bytes:
    # Not before something is sealed: 20 ms that other runs need not wait for.
    from cryptography.exceptions import InvalidTag

    if sealed.kid not in _ciphers:
        _read_keys()  # also a new key, put there since
    cipher = _ciphers.get(sealed.kid)
    if cipher is None:
        raise DoesNotOpenError(f"The run was sealed with the key {sealed.kid}, which the runner does not have")
    try:
        content: bytes = cipher.decrypt(sealed.nonce, sealed.content, bound)
    except (InvalidTag, ValueError):
        raise DoesNotOpenError(
            "The sealed part of the run does not open: it was changed, or is another run's"
        ) from None
    return content


def _read_keys() -> None:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    secret = os.environ["ATTUNE_RUN_SECRET"]
    text = _secrets_manager().get_secret_value(SecretId=secret)["SecretString"]
    try:
        keys = msgspec.json.decode(text, type=RunKeys).run
    except msgspec.MsgspecError:
        # What the text says must not get into a log.
        raise DoesNotOpenError("The secret of the execution plane does not hold its keys") from None
    _ciphers.clear()
    _ciphers.update({each.kid: AESGCM(each.key) for each in keys})


@cache
def _secrets_manager() -> Any:
    import botocore.session
    from botocore.config import Config

    config = Config(connect_timeout=3, read_timeout=5, retries={"mode": "standard", "total_max_attempts": 5})
    return botocore.session.get_session().create_client("secretsmanager", config=config)
