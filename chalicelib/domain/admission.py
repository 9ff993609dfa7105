"""Who may run now: at most N executions of an action at a time, the others in the order of their ids
(docs/decisions/026-concurrency-policies.md).

An action's executions meet at a lane, one for each combination of the values that its policy goes by. A lane is a row
with those who hold a slot of it, and a queue with those who wait for one. What has to be read and written is spelled
out here, step by step, as generators that yield it and are sent what came of it: so the very steps that run against
the tables are the ones that are tested against each other, in every order, and cut off anywhere.
"""

import hashlib
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Literal, TypeAlias

import msgspec

from chalicelib.domain.entities import Concurrency, Json
from chalicelib.domain.parameters import secret_names

LEASE: Final = timedelta(minutes=2)  # how long a slot is believed to be in use before somebody looks whether it is
BATCH: Final = 100  # of those who wait: as many as are looked at in one step

Holders = Mapping[int, datetime]  # an execution's id, and until when its slot is believed to be in use
Verdict = Literal["go", "wait", "refused"]


@dataclass(frozen=True, slots=True)
class ReadHolders:
    """Sent back: :data:`Holders`, as they are now."""


@dataclass(frozen=True, slots=True)
class ReadQueue:
    """Sent back: the ids of the first :data:`BATCH` that wait, in order."""


@dataclass(frozen=True, slots=True)
class Swap:
    """Put ``new`` in the place of ``old`` if that is what stands there. Sent back: whether it did."""

    old: Holders
    new: Holders


@dataclass(frozen=True, slots=True)
class Enqueue:
    id: int


@dataclass(frozen=True, slots=True)
class Dequeue:
    """Take these out of the queue, if they are in it."""

    ids: Sequence[int]


@dataclass(frozen=True, slots=True)
class AskEnded:
    """Sent back: those of ``ids`` that are over, or do not stand at this lane."""

    ids: Sequence[int]


@dataclass(frozen=True, slots=True)
class Start:
    """Request these executions again: their turn has come."""

    ids: Sequence[int]


Step: TypeAlias = ReadHolders | ReadQueue | Swap | Enqueue | Dequeue | AskEnded | Start
Steps: TypeAlias = Generator[Step, Any, Verdict]


def problem_of(policy: Concurrency, param_schema: Json) -> str | None:
    """Why executions cannot be told apart by the parameters that ``policy`` names; None: they can."""
    schema = param_schema if isinstance(param_schema, dict) else {}
    known = schema.get("properties", {}) if schema.get("type") == "object" else schema
    for name in policy.parameters:
        if isinstance(known, dict) and known and name not in known:
            return f"'{name}' is none of the action's parameters"
        if name in secret_names(param_schema):
            return f"'{name}' is secret, and all its values look the same"
    return None


def lane_of(policy: Concurrency, config: Json) -> int:
    """The number of the lane for an execution with these parameters; a parameter that it has not counts as null."""
    given = config if isinstance(config, dict) else {}
    return _shape(policy) << 64 | _digest({name: given.get(name) for name in policy.parameters})


def is_of(policy: Concurrency, lane: int) -> bool:
    """Whether the lane of that number goes by the parameters that ``policy`` names."""
    return lane >> 64 == _shape(policy)


def _shape(policy: Concurrency) -> int:
    return _digest(policy.parameters) >> 32


def _digest(value: Json) -> int:
    """64 bits. DynamoDB's numbers have room for 38 digits, and no client sees a lane's."""
    return int.from_bytes(hashlib.blake2b(msgspec.json.encode(value, order="deterministic"), digest_size=8).digest())


def arrive(id_: int, policy: Concurrency, now: datetime) -> Steps:
    """An execution wants to run: it goes at once, or waits until somebody starts it, or is refused.

    One that holds a slot already goes, so this can be repeated.
    """
    verdict = yield from _settle(policy, now, guest=id_)
    if verdict != "go" and policy.method == "cancel":
        return "refused"
    if verdict != "go":
        yield Enqueue(id_)
        # Whoever left before this saw no one in the queue, and whoever leaves after it does: so look once more.
        verdict = yield from _settle(policy, now, guest=id_)
    if verdict == "go" and (yield AskEnded([id_])):
        # It has run and ended by another delivery of its message, and whoever ended it may have left before this came.
        yield from leave(id_, policy, now)
        return "wait"
    return verdict


def leave(id_: int, policy: Concurrency, now: datetime) -> Steps:
    """An execution is over, whether it held a slot, waited for one or neither: the next ones start."""
    while True:
        holders = yield ReadHolders()
        if id_ not in holders:
            break
        remaining = {each: until for each, until in holders.items() if each != id_}
        if (yield Swap(holders, remaining)):
            holders = remaining
            break
    yield Dequeue([id_])
    return (yield from _settle(policy, now, holders))


def settle(policy: Concurrency, now: datetime) -> Steps:
    """Something may have changed, such as the policy: let in who can be let in."""
    return _settle(policy, now)


def drain() -> Steps:
    """Nobody waits here any more: all who do start, and find out for themselves what holds now."""
    while queue := (yield ReadQueue()):
        yield Start(queue)
        yield Dequeue(queue)
    return "go"


def dissolve() -> Steps:
    """The lane is no longer one: nobody waits in it, and nobody holds a slot of it."""
    yield from drain()
    while holders := (yield ReadHolders()):
        if (yield Swap(holders, {})):
            break
    return "go"


def _settle(policy: Concurrency, now: datetime, known: Holders | None = None, guest: int | None = None) -> Steps:
    """Give the free slots to those who wait longest; a ``guest`` who is not in the queue comes after them.

    "go" if the guest holds a slot in the end. A slot's new holder is started before it leaves the queue, so that
    nobody is forgotten if this ends in between: the next one who comes by finds it in both and starts it again.
    """
    while True:
        holders: Holders = (yield ReadHolders()) if known is None else known
        known = None
        present = holders if len(holders) < policy.threshold else (yield from _still_there(holders, now))
        queue: Sequence[int] = yield ReadQueue()
        waiting = [id_ for id_ in queue if id_ not in holders]
        if guest is not None and guest not in queue and guest not in holders and len(queue) < BATCH:
            waiting.append(guest)
        admitted = waiting[: max(0, policy.threshold - len(present))]
        after = {**present, **dict.fromkeys(admitted, now + LEASE)}
        if after != holders and not (yield Swap(holders, after)):
            continue
        seated = [id_ for id_ in queue if id_ in after]
        if started := [id_ for id_ in seated if id_ != guest]:
            yield Start(started)
        if seated:
            yield Dequeue(seated)
        # Whoever came to wait while slots became free may have seen none: look again after freeing one. And a queue
        # longer than what was looked at goes on.
        freed = any(id_ not in present for id_ in holders) and len(after) < policy.threshold
        if not freed and not (seated and len(after) < policy.threshold):
            return "go" if guest in after else "wait"


def _still_there(holders: Holders, now: datetime) -> Generator[Step, Any, Holders]:
    """The holders without those that are over although nobody said so: whoever was to tell has died."""
    doubted = [id_ for id_, until in holders.items() if until <= now]
    if not doubted:
        return holders
    gone = yield AskEnded(doubted)
    return {id_: now + LEASE if id_ in doubted else until for id_, until in holders.items() if id_ not in gone}
