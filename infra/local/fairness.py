"""What one machine has little of is shared: messages that are delivered, and requests that are worked on.

Fair queues on the embedded AWS, which takes a standard queue's message groups and does not go by them.

AWS (SQS, "Fair queues", July 2025): where one group has more than its part of the messages in flight, those of the
others are delivered first. Nothing is held back: who is alone gets everything.
"""

import asyncio
import contextlib
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Hashable, Sequence
from typing import Any

Message = dict[str, Any]
Collect = Callable[[dict[str, Any], int, int], list[Message]]


def fair(collect: Collect) -> Collect:
    """The emulator's ``collect`` (queue, most messages, visibility timeout), made to choose among groups."""

    def collect_fairly(queue: dict[str, Any], most: int, timeout: int) -> list[Message]:
        messages: list[Message] = queue["messages"]
        if queue["is_fifo"] or len(messages) <= most:
            return collect(queue, most, timeout)
        now = time.time()
        chosen = choose(messages, most, now)
        # What collect() sees is what was chosen; it marks those as received, and they are the queue's own.
        return collect({**queue, "messages": chosen}, most, timeout)

    return collect_fairly


def choose(messages: Sequence[Message], most: int, now: float) -> list[Message]:
    """Up to ``most`` that are visible: always the next of the group that has the fewest in flight, the earliest first
    among equals."""
    waiting: dict[str | None, deque[Message]] = {}
    flying: Counter[str | None] = Counter()
    for message in messages:
        group = message.get("group_id")
        if message["visible_at"] <= now:
            waiting.setdefault(group, deque()).append(message)
        elif message.get("receive_count"):
            flying[group] += 1
    chosen: list[Message] = []
    while waiting and len(chosen) < most:
        group = min(waiting, key=flying.__getitem__)  # of equals the first, whose message came first
        chosen.append(waiting[group].popleft())
        flying[group] += 1
        if not waiting[group]:
            del waiting[group]
    return chosen


class Turns:
    """At most ``width`` callers at once, the others wait: next is who has the fewest turns, then who waits longest."""

    def __init__(self, width: int) -> None:
        self._free = width
        self._working: Counter[Hashable] = Counter()
        self._waiting: dict[Hashable, deque[asyncio.Future[None]]] = {}

    @contextlib.asynccontextmanager
    async def of(self, caller: Hashable) -> AsyncIterator[None]:
        """One turn of ``caller``, for as long as the context lasts."""
        if self._free:
            self._free -= 1
            self._working[caller] += 1
        else:
            turn = asyncio.get_running_loop().create_future()
            self._waiting.setdefault(caller, deque()).append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                if not turn.cancelled():
                    self._pass_on(caller)
                raise
        try:
            yield
        finally:
            self._pass_on(caller)

    def _pass_on(self, caller: Hashable) -> None:
        self._working[caller] -= 1
        if not self._working[caller]:
            del self._working[caller]
        while self._waiting:
            following = min(self._waiting, key=self._working.__getitem__)
            turns = self._waiting.pop(following)
            turn = turns.popleft()
            if turns:
                self._waiting[following] = turns  # behind the others
            if not turn.cancelled():
                self._working[following] += 1
                turn.set_result(None)
                return
        self._free += 1
