"""What one machine has little of is shared: messages that are delivered, and requests that are worked on.

Fair queues on the embedded AWS, which takes a standard queue's message groups and does not go by them.

AWS (SQS, "Fair queues", July 2025): where one group has more than its part of the messages in flight, those of the
others are delivered first. Nothing is held back: who is alone gets everything.
"""

import asyncio
import contextlib
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Hashable, Sequence
from typing import Any, Final

_REMEMBERED: Final = 5.0  # seconds that a tenant counts as one that is there

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
    """At most ``width`` callers at once, the others wait: next is who has the fewest turns, then who waits longest.

    Where several tenants call, each caller gets one turn at a time, and whoever has more waiting rests for as long as
    its turn took: a machine whose every core works for one of them is slow for all.
    """

    def __init__(self, width: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._width = width
        self._clock = clock
        self._busy = 0
        self._working: Counter[Hashable] = Counter()
        self._waiting: dict[Hashable, deque[asyncio.Future[None]]] = {}
        self._seen: OrderedDict[str, float] = OrderedDict()
        self._rests: set[Hashable] = set()

    @contextlib.asynccontextmanager
    async def of(self, caller: Hashable, tenant: str | None = None) -> AsyncIterator[None]:
        """One turn of ``caller``, for as long as the context lasts. ``tenant``: whom it calls for, if that is known."""
        if tenant is not None:
            self._note(tenant)
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(caller, deque()).append(turn)
        self._next()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._end(caller)
            raise
        began = self._clock()
        try:
            yield
        finally:
            self._rest(caller, self._clock() - began)
            self._end(caller)

    def _rest(self, caller: Hashable, seconds: float) -> None:
        if self._is_shared() and caller in self._waiting:
            self._rests.add(caller)
            asyncio.get_running_loop().call_later(seconds, self._rested, caller)

    def _rested(self, caller: Hashable) -> None:
        self._rests.discard(caller)
        self._next()

    def _note(self, tenant: str) -> None:
        now = self._clock()
        self._seen[tenant] = now
        self._seen.move_to_end(tenant)
        while next(iter(self._seen.values())) < now - _REMEMBERED:
            self._seen.popitem(last=False)

    def _is_shared(self) -> bool:
        since = self._clock() - _REMEMBERED
        return sum(seen >= since for seen in self._seen.values()) > 1

    def _end(self, caller: Hashable) -> None:
        self._busy -= 1
        self._working[caller] -= 1
        if not self._working[caller]:
            del self._working[caller]
        self._next()

    def _next(self) -> None:
        most = 1 if self._is_shared() else self._width
        while self._busy < self._width:
            able = [each for each in self._waiting if each not in self._rests and self._working[each] < most]
            if not able:
                return
            following = min(able, key=self._working.__getitem__)
            turns = self._waiting.pop(following)
            turn = turns.popleft()
            if turns:
                self._waiting[following] = turns  # behind the others
            if not turn.cancelled():
                self._busy += 1
                self._working[following] += 1
                turn.set_result(None)


class Places:
    """At most ``width`` threads at once, of one caller at most ``most``: next is who has the fewest places, then who
    waits longest. So nobody fills all places with work that takes its time."""

    def __init__(self, width: int, most: int) -> None:
        self._free = width
        self._most = most
        self._working: Counter[Hashable] = Counter()
        self._waiting: dict[Hashable, int] = {}
        self._changed = threading.Condition()

    def take(self, caller: Hashable, timeout: float) -> bool:
        """A place, or False when there was none within ``timeout`` seconds."""
        with self._changed:
            self._waiting[caller] = self._waiting.get(caller, 0) + 1
            came = self._changed.wait_for(lambda: self._is_next(caller), timeout)
            left = self._waiting.pop(caller) - 1
            if left:
                self._waiting[caller] = left  # behind the others
            if came:
                self._free -= 1
                self._working[caller] += 1
            self._changed.notify_all()
            return came

    def waiting(self) -> int:
        """How many threads wait."""
        with self._changed:
            return sum(self._waiting.values())

    def give_back(self, caller: Hashable) -> None:
        with self._changed:
            self._free += 1
            self._working[caller] -= 1
            self._changed.notify_all()

    def _is_next(self, caller: Hashable) -> bool:
        able = [each for each in self._waiting if self._working[each] < self._most]
        return self._free > 0 and bool(able) and caller == min(able, key=self._working.__getitem__)
