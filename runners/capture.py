"""What is kept of a stream that may be endless."""

from collections import deque
from typing import Final

import msgspec

KEPT: Final = 10 * 1024 * 1024  # bytes from the beginning (semantics §2.6)
TAIL: Final = 64 * 1024  # bytes from the end, when there was more


class Captured(msgspec.Struct, frozen=True):
    """``head`` is everything if ``total`` is its length; else ``tail`` is the end of the rest."""

    head: bytes = b""
    tail: bytes = b""
    total: int = 0


class Capture:
    """Grows to :data:`KEPT` and :data:`TAIL` bytes, and counts what it forgets."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._tail: deque[bytes] = deque()
        self._in_tail = 0
        self._total = 0

    def add(self, block: bytes) -> None:
        self._total += len(block)
        room = KEPT - len(self._head)
        if room > 0:
            self._head += block[:room]
            block = block[room:]
        if not block:
            return
        self._tail.append(block)
        self._in_tail += len(block)
        while self._in_tail - len(self._tail[0]) >= TAIL:
            self._in_tail -= len(self._tail.popleft())

    @property
    def total(self) -> int:
        """Bytes that came, kept or not."""
        return self._total

    def since(self, start: int) -> bytes:
        """What is kept from the ``start``-th byte on, without the tail of an endless stream."""
        return bytes(self._head[start:])

    def captured(self) -> Captured:
        return Captured(bytes(self._head), b"".join(self._tail)[-TAIL:], self._total)
