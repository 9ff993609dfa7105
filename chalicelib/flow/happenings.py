"""The events queue's consumer: what happened outside, and what time it is."""

from collections.abc import Sequence

from chalicelib.flow import rules, timers
from chalicelib.protocol import EventAccepted, TimersDue
from chalicelib.services import Services


def handle(services: Services, messages: Sequence[EventAccepted | TimersDue]) -> list[int]:
    """Work through a batch. Returns the positions of the messages to deliver again.

    Timers come last: they may wait for their second, and nobody shall wait with them.
    """
    events = {position: each for position, each in enumerate(messages) if isinstance(each, EventAccepted)}
    due = {position: each for position, each in enumerate(messages) if isinstance(each, TimersDue)}
    failed: list[int] = []
    if events:
        failed += [list(events)[each] for each in rules.handle(services, list(events.values()))]
    if due:
        failed += [list(due)[each] for each in timers.handle(services, list(due.values()))]
    return failed
