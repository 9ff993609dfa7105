"""How the keys that sign tokens are replaced without a token being refused (docs/operating.md, Keys).

A key goes through three states. To come: in front of the list with a ``since`` ahead, so that every process has read
it before the first token that it makes. Current: from ``since`` on. Old: behind a current one, until the last token
that it made has expired.
"""

from datetime import timedelta
from typing import Any, Final

import msgspec

from chalicelib.security.keyring import REREAD, NamedKey
from chalicelib.security.tokens import REFRESH_LIFE

LEAD: Final = timedelta(seconds=3 * REREAD)  # twice the time in which processes read the secret again would do
KEPT: Final = REFRESH_LIFE + timedelta(
    days=1
)  # no token lives longer than a refresh token; a day for clocks and retries


class Rotated(msgspec.Struct, kw_only=True, frozen=True):
    """The keys after a rotation, the names of those that were dropped, and the one that comes next."""

    keys: list[NamedKey]
    dropped: list[str]
    next: NamedKey
    added: bool  # whether ``next`` is new; else one was on its way already


def rotate(keys: list[NamedKey], fresh: NamedKey, now: int) -> Rotated:
    """``keys``, the newest first, with ``fresh`` to come in front, and without those that signed nothing that holds.

    ``now`` is in seconds since 1970. While a key is still to come no other is added: too many rotations in a row do no
    harm.
    """
    kept = [key for at, key in enumerate(keys) if not _forgotten(keys[:at], now)]
    dropped = [key.kid for key in keys if key not in kept]
    if kept[0].since > now:
        return Rotated(keys=kept, dropped=dropped, next=kept[0], added=False)
    coming = msgspec.structs.replace(fresh, since=now + int(LEAD.total_seconds()))
    return Rotated(keys=[coming, *kept], dropped=dropped, next=coming, added=True)


def _forgotten(newer: list[NamedKey], now: int) -> bool:
    """Whether a key behind ``newer`` ones has signed nothing for so long that nothing it signed still holds."""
    # A key that was put in front by hand has no ``since``: when it took over is not known.
    took_over = [key.since for key in newer if key.since]
    return bool(took_over) and min(took_over) + KEPT.total_seconds() <= now


def rotated(secret: str, fresh: NamedKey, now: int) -> tuple[str, Rotated]:
    """The deployment secret with its signing keys rotated; everything else in it stays as it is."""
    said: dict[str, Any] = msgspec.json.decode(secret)
    result = rotate(msgspec.convert(said["jwt"], list[NamedKey]), fresh, now)
    return msgspec.json.encode({**said, "jwt": result.keys}).decode(), result
