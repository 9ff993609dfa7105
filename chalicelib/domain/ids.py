"""Integer ids below 2^53, ordered by time, drawn or derived.

Layout: 40 bits of milliseconds since 2025-01-01 (34 years), then 13 bits that tell apart what happened in one
millisecond. 53 bits in all, because JSON clients read numbers as doubles (contract: ids are integers).

An id that must be found again after a crash is *derived* from its idempotency key (design: rule 3); all others are
*drawn* from a :class:`Sequence`. Thirteen bits collide now and then, so whoever stores a row under an id also stores
the row's key, and on meeting a stranger's row tries the next ``salt``.
"""

import hashlib
from datetime import UTC, datetime, timedelta

EPOCH_MS = 1_735_689_600_000  # 2025-01-01T00:00:00Z
LOW_BITS = 13
LOW_MASK = (1 << LOW_BITS) - 1
MAX_ID = (1 << 53) - 1


def derive(at_ms: int, key: str, salt: int = 0) -> int:
    """The id that ``key`` has at ``at_ms`` (Unix milliseconds): the same arguments always give the same id."""
    digest = hashlib.blake2b(f"{key}\x00{salt}".encode(), digest_size=2).digest()
    return _compose(at_ms, int.from_bytes(digest, "big"))


def milliseconds_of(id_: int) -> int:
    """Unix milliseconds that an id was drawn or derived at."""
    return (id_ >> LOW_BITS) + EPOCH_MS


def time_of(id_: int) -> datetime:
    """The moment an id was drawn or derived at."""
    return datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=milliseconds_of(id_))


def same_millisecond(id_: int) -> tuple[int, int]:
    """The lowest and highest id of the millisecond of ``id_``: where rows derived from one event are found."""
    low = id_ & ~LOW_MASK
    return low, low | LOW_MASK


class Sequence:
    """Draws ids that never repeat within one process, whatever the clock does.

    Two processes that draw in one millisecond are kept apart by ``entropy``, a number each chooses at random.
    """

    def __init__(self, entropy: int) -> None:
        self._entropy = entropy
        self._last = 0

    def draw(self, now_ms: int) -> int:
        self._last = max(_compose(now_ms, self._entropy), self._last + 1)
        return self._last


def _compose(at_ms: int, low: int) -> int:
    return ((at_ms - EPOCH_MS) << LOW_BITS) | (low & LOW_MASK)
