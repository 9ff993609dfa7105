"""The access keys of the embedded AWS: one for the stack and its operator, one for what runs tenants' code.

The stack's key is drawn once per state folder and kept in ``aws.env`` there, a file that a shell can source. The
runner's key lives as long as the process: nobody but the runner function ever holds it.
"""

import os
import re
import secrets
import string
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

_ID_SYMBOLS: Final = string.ascii_uppercase + "234567"
_SETTING: Final = re.compile(r"^export (AWS_[A-Z_]+)=(\S+)$", re.MULTILINE)
_TEXT: Final = """\
# The access key of this folder's embedded AWS, which refuses every other. For an AWS tool: . <this file>
export AWS_ACCESS_KEY_ID={id}
export AWS_SECRET_ACCESS_KEY={secret}
export AWS_DEFAULT_REGION={region}
"""


@dataclass(frozen=True)
class AccessKey:
    """An access key as AWS makes them: a public id, and the secret that requests are signed with."""

    id: str
    secret: str = field(repr=False)


def draw() -> AccessKey:
    """A new key. The id is not of twelve digits, which the emulator would take for an account."""
    identifier = "AKIA" + "".join(secrets.choice(_ID_SYMBOLS) for _ in range(16))
    return AccessKey(identifier, secrets.token_urlsafe(30))


def kept_in(path: Path, region: str) -> AccessKey:
    """The key in the file ``path``, drawn and written (mode 0600) when there is none."""
    if path.exists():
        path.chmod(0o600)
        kept = dict(_SETTING.findall(path.read_text()))
        if "AWS_ACCESS_KEY_ID" in kept and "AWS_SECRET_ACCESS_KEY" in kept:
            return AccessKey(kept["AWS_ACCESS_KEY_ID"], kept["AWS_SECRET_ACCESS_KEY"])
        path.unlink()  # written half
    key = draw()
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(_TEXT.format(id=key.id, secret=key.secret, region=region))
    return key


class Keys:
    """Every key that the emulator knows: the stack's ``own``, which may do all, and those that may only send."""

    def __init__(self, own: AccessKey) -> None:
        self.own = own
        self._senders: dict[str, tuple[AccessKey, str]] = {}

    def sender(self, queue: str) -> AccessKey:
        """The key that may send messages to the queue with this URL, and nothing else."""
        for key, url in self._senders.values():
            if url == queue:
                return key
        key = draw()
        self._senders = {**self._senders, key.id: (key, queue)}  # read by another thread
        return key

    def find(self, identifier: str) -> tuple[AccessKey, str | None] | None:
        """The key of this id, and the URL of the only queue it may send to (None: it may do all)."""
        if secrets.compare_digest(identifier.encode(), self.own.id.encode()):
            return self.own, None
        return self._senders.get(identifier)
