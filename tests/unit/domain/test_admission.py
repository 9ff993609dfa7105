"""Concurrency policies: the steps that the platform takes, taken here in every order and cut off anywhere."""

from collections.abc import Generator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chalicelib.domain import admission
from chalicelib.domain.admission import LEASE, AskEnded, Dequeue, Enqueue, ReadHolders, ReadQueue, Start, Swap
from chalicelib.domain.entities import Concurrency

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class Process:
    """Somebody on the way through the steps; ``message`` is delivered again if they die."""

    message: tuple[str, int]
    steps: Generator[Any, Any, Any]
    answer: Any = None


@dataclass
class World:
    """A lane, the executions that meet there, and the messages that are under way."""

    policy: Concurrency
    status: dict[int, str] = field(default_factory=dict)
    holders: dict[int, datetime] = field(default_factory=dict)
    queue: set[int] = field(default_factory=set)
    messages: list[tuple[str, int]] = field(default_factory=list)
    processes: list[Process] = field(default_factory=list)
    admitted: list[int] = field(default_factory=list)
    now: datetime = NOW

    def request(self, id_: int) -> None:
        self.status[id_] = "requested"
        self.messages.append(("start", id_))

    def end(self, id_: int) -> None:
        self.status[id_] = "ended"
        self.messages.append(("ended", id_))

    def with_status(self, status: str) -> list[int]:
        return sorted(id_ for id_, each in self.status.items() if each == status)

    def deliver(self, position: int) -> Process:
        message = self.messages.pop(position)
        process = Process(message, self._handle(*message))
        self.processes.append(process)
        return process

    def _handle(self, kind: str, id_: int) -> Generator[Any, Any, None]:
        if kind == "ended" or self.status[id_] == "ended":
            yield from admission.leave(id_, self.policy, self.now)
        elif self.status[id_] == "requested":
            verdict = yield from admission.arrive(id_, self.policy, self.now)
            if verdict == "go" and self.status[id_] == "requested":  # the claim: one conditional write
                self.status[id_] = "running"
            elif verdict == "refused" and self.status[id_] == "requested":
                self.end(id_)

    def advance(self, process: Process) -> None:
        try:
            process.answer = self._take(process.steps.send(process.answer))
        except StopIteration:
            self.processes.remove(process)
        assert len(self.with_status("running")) <= self.policy.threshold
        assert len(self.holders) <= self.policy.threshold

    def hasten(self, process: Process, steps: int) -> None:
        """So many steps of one process without anybody else's in between: some races need others to be quick."""
        for _ in range(steps):
            if process in self.processes:
                self.advance(process)

    def crash(self, process: Process) -> None:
        self.processes.remove(process)
        self.messages.append(process.message)

    def _take(self, step: Any) -> Any:
        match step:
            case ReadHolders():
                return dict(self.holders)
            case ReadQueue():
                return sorted(self.queue)[: admission.BATCH]
            case Swap(old, new):
                if self.holders != old:
                    return False
                self.admitted += [id_ for id_ in new if id_ not in self.holders]
                self.holders = dict(new)
                return True
            case Enqueue(id_):
                self.queue.add(id_)
            case Dequeue(ids):
                self.queue.difference_update(ids)
            case AskEnded(ids):
                return [id_ for id_ in ids if self.status[id_] == "ended"]
            case Start(ids):
                self.messages += [("start", id_) for id_ in ids]
        return None

    def run(self, choices: st.DataObject, steps: int, *, crashes: bool) -> None:
        """So many moves of whoever ``choices`` says."""
        for _ in range(steps):
            moves: list[Any] = [(self.deliver, at) for at in range(len(self.messages))]
            moves += [(self.hasten, process) for process in self.processes]
            moves += [(self.end, id_) for id_ in self.with_status("running")]
            if crashes:
                moves += [(self.crash, process) for process in self.processes]
                moves += [(self.end, id_) for id_ in self.with_status("requested")[:1]]  # cancelled while it waits
            if not moves:
                return
            move, argument = choices.draw(st.sampled_from(moves))
            move(argument) if move != self.hasten else self.hasten(argument, choices.draw(st.integers(1, 6)))

    def advance_all(self) -> None:
        """Let everything under way come to its end."""
        while self.messages or self.processes:
            process = self.processes[0] if self.processes else self.deliver(0)
            while process in self.processes:
                self.advance(process)

    def settle(self) -> None:
        """The same, and all that runs then ends."""
        while self.messages or self.processes or self.with_status("running"):
            self.advance_all()
            for id_ in self.with_status("running"):
                self.end(id_)

    def sweep(self) -> None:
        """Time passes, and what still waits is requested again."""
        self.now += 2 * LEASE
        self.messages += [("start", id_) for id_ in self.with_status("requested")]


worlds = st.builds(World, st.builds(Concurrency, threshold=st.integers(1, 3)))


@settings(max_examples=400, deadline=None)
@given(worlds, st.integers(1, 4), st.data())
def test_everybody_gets_their_turn_and_never_too_many_at_once(world: World, count: int, choices: st.DataObject) -> None:
    """No clock moves and nothing is swept: a wake-up that is lost would leave somebody waiting."""
    for id_ in range(count):
        world.request(id_)
    world.run(choices, 60, crashes=False)
    world.settle()
    assert world.with_status("ended") == list(range(count))
    assert (world.holders, world.queue) == ({}, set())


@settings(max_examples=200, deadline=None)
@given(worlds, st.integers(1, 7), st.data())
def test_whoever_dies_anywhere_is_made_up_for(world: World, count: int, choices: st.DataObject) -> None:
    """Their message is delivered again, and that is enough: no time passes, nothing is swept."""
    for id_ in range(count):
        world.request(id_)
    world.run(choices, 80, crashes=True)
    world.settle()
    assert world.with_status("ended") == list(range(count))
    assert (world.holders, world.queue) == ({}, set())


@settings(max_examples=100, deadline=None)
@given(worlds, st.data())
def test_a_message_that_is_lost_for_good_costs_a_slot_only_until_its_lease_is_over(
    world: World, choices: st.DataObject
) -> None:
    for id_ in range(5):
        world.request(id_)
    world.run(choices, 60, crashes=True)
    world.processes.clear()
    world.messages.clear()
    for id_ in world.with_status("running"):
        world.status[id_] = "ended"  # and nobody tells
    for _ in range(6):
        world.sweep()
        world.settle()
    assert world.with_status("ended") == list(range(5))


@settings(max_examples=100, deadline=None)
@given(worlds, st.integers(1, 6), st.data())
def test_those_who_wait_go_in_the_order_of_their_ids(world: World, waiting: int, choices: st.DataObject) -> None:
    threshold = world.policy.threshold
    for id_ in range(threshold):
        world.request(id_)
        world.advance_all()
    for id_ in choices.draw(st.permutations(range(threshold, threshold + waiting))):
        world.request(id_)
        world.advance_all()
    assert world.queue == set(range(threshold, threshold + waiting))
    world.run(choices, 100, crashes=False)
    world.settle()
    first_time = list(dict.fromkeys(world.admitted))  # one that has ended may be given a slot, and gives it back
    assert first_time == list(range(threshold + waiting))


def test_a_newcomer_does_not_overtake_those_who_wait() -> None:
    world = World(Concurrency(threshold=1))
    for id_ in (1, 2):
        world.request(id_)
        world.advance_all()
    world.end(1)
    leaver = world.deliver(0)
    while world.holders:
        world.advance(leaver)
    world.request(3)  # who finds a free slot, and somebody who waits for it
    world.hasten(world.deliver(0), 100)
    assert world.admitted == [1, 2]
    world.settle()
    assert world.admitted == [1, 2, 3]


def test_nor_those_who_are_too_many_to_be_looked_at_together() -> None:
    world = World(Concurrency(threshold=admission.BATCH + 1))
    for id_ in range(admission.BATCH + 1):
        world.status[id_] = "requested"
        world.queue.add(id_)
    world.request(1000)
    world.hasten(world.deliver(0), 3)
    assert len(world.holders) == admission.BATCH
    assert 1000 not in world.holders


def test_whoever_comes_while_a_lapsed_slot_is_freed_is_not_forgotten() -> None:
    """Two clocks: to one the slot is still leased while the other finds out that its owner has ended."""
    world = World(Concurrency(threshold=1))
    world.status[1] = "ended"
    world.holders[1] = NOW + LEASE
    world.now = NOW + 2 * LEASE
    looking = Process(("", 0), admission.settle(world.policy, world.now))
    world.processes.append(looking)
    world.hasten(looking, 3)  # up to the queue, in which nobody is
    world.now = NOW
    world.request(2)
    world.hasten(world.deliver(0), 100)
    assert world.queue == {2}
    world.settle()
    assert world.status[2] == "ended"


def test_a_slot_in_use_is_leased_anew_when_somebody_has_looked() -> None:
    world = World(Concurrency(threshold=1))
    for id_ in (1, 2):
        world.request(id_)
        world.advance_all()
        world.now += 2 * LEASE
    assert world.holders == {1: NOW + 3 * LEASE}


def test_more_than_one_batch_waits() -> None:
    world = World(Concurrency(threshold=1000))
    for id_ in range(250):
        world.status[id_] = "requested"
        world.queue.add(id_)
    steps = Process(("", 0), admission.settle(world.policy, NOW))
    world.processes.append(steps)
    while world.processes:
        world.advance(steps)
    assert world.admitted == list(range(250))
    assert not world.queue


def test_with_the_method_cancel_nobody_waits() -> None:
    world = World(Concurrency(threshold=1, method="cancel"))
    world.request(1)
    world.advance_all()
    world.request(2)
    world.advance_all()
    assert world.status == {1: "running", 2: "ended"}
    assert not world.queue


def test_a_lane_that_is_dissolved_starts_all_and_holds_nobody() -> None:
    world = World(Concurrency(threshold=1))
    for id_ in (1, 2, 3):
        world.request(id_)
        world.advance_all()
    process = Process(("", 0), admission.dissolve())
    world.processes.append(process)
    while process in world.processes:
        world.advance(process)
    assert world.messages == [("start", 2), ("start", 3)]
    assert (world.holders, world.queue) == ({}, set())


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({"env": "a"}, {"env": "a", "more": 1}, True),
        ({"env": "a"}, {"env": "b"}, False),
        ({}, None, True),
        ({"env": None}, {}, True),
        ({"env": 1}, {"env": "1"}, False),
        ({"env": {"x": 1, "y": 2}}, {"env": {"y": 2, "x": 1}}, True),
    ],
)
def test_a_lane_for_each_combination_of_values(one: Any, other: Any, same: bool) -> None:
    policy = Concurrency(threshold=1, parameters=["env"])
    numbers = admission.lane_of(policy, one), admission.lane_of(policy, other)
    assert (numbers[0] == numbers[1]) is same
    assert all(admission.is_of(policy, number) for number in numbers)
    assert not admission.is_of(Concurrency(threshold=1), numbers[0])


def test_whoever_comes_to_a_slot_too_late_gives_it_back() -> None:
    """Two deliveries of one message: by one the execution runs and ends while the other is on its way."""
    world = World(Concurrency(threshold=1))
    world.request(1)
    slow = world.deliver(0)
    world.hasten(slow, 2)  # up to the slot that it is about to take
    world.messages.append(("start", 1))
    world.hasten(world.deliver(0), 100)
    assert world.with_status("running") == [1]
    world.settle()
    assert world.holders == {}
