"""Fair queues on the embedded AWS, which takes a standard queue's message groups and does not go by them.

AWS (SQS, "Fair queues", July 2025): where one group has more than its part of the messages in flight, those of the
others are delivered first. Nothing is held back: who is alone gets everything.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
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
