"""The scheduler under a virtual clock: whole years with every accident that the platform can have.

The simulation uses the very functions that the flow uses, and a row that takes writes as ``store.timers`` does.
"""

import heapq
import random
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chalicelib.domain import schedules, timers
from chalicelib.domain.schedules import CRON, DATETIME, INTERVAL, RRULE
from chalicelib.domain.timers import Firing, Timer

pytestmark = pytest.mark.slow

MINUTE = timedelta(minutes=1)
START = datetime(2026, 1, 1, tzinfo=UTC)  # America/New_York moves its clock on 8 March and 1 November


@dataclass
class Accidents:
    """How much goes wrong: probabilities, and the longest outage."""

    lost: float = 0.0
    twice: float = 0.0
    late: float = 0.0
    skipped_tick: float = 0.0
    double_tick: float = 0.0
    crash: float = 0.0  # between sending and writing down what was sent
    race: float = 0.0  # a claim between a look's reading and its writing
    outage: timedelta = timedelta(0)


@dataclass
class World:
    """A row, a queue, a clock. ``fired`` has (arming, due time) of every firing that was claimed."""

    chance: random.Random
    accidents: Accidents
    now: datetime = START
    row: Timer | None = None
    queue: list[tuple[datetime, int, Firing]] = field(default_factory=list)
    fired: list[tuple[int, datetime, datetime]] = field(default_factory=list)
    numbers: Any = field(default_factory=lambda: count(1))
    down_until: datetime = START

    def happens(self, probability: float) -> bool:
        return self.chance.random() < probability

    def arm(self, trigger_ref: str, params: Any, policy: Any) -> Timer:
        self.row, firings = timers.arm(
            rule=1,
            rule_ref="p.r",
            version=next(self.numbers),
            trigger_ref=trigger_ref,
            params=params,
            missed_runs=policy,
            now=self.now,
        )
        self.send(firings)
        return self.row

    def disarm(self) -> None:
        self.row = None

    def send(self, firings: list[Firing]) -> None:
        for firing in firings:
            if self.happens(self.accidents.lost):
                continue
            for _ in range(2 if self.happens(self.accidents.twice) else 1):
                delay = timedelta(seconds=self.chance.uniform(0, 0.5))
                if self.happens(self.accidents.late):
                    delay = timedelta(seconds=self.chance.uniform(0, 900))
                heapq.heappush(self.queue, (max(firing.at, self.now) + delay, next(self.numbers), firing))

    def tick(self) -> None:
        before = self.row
        if before is None or before.look is None or before.look > self.now:
            return
        after, firings = timers.look(before, self.now)
        self.send(firings)
        if self.happens(self.accidents.crash):
            return
        if self.queue and self.queue[0][2].at <= self.now and self.happens(self.accidents.race):
            self.deliver(self.queue[0][2])
        self.save(before, after)

    def save(self, before: Timer, after: Timer) -> None:
        row = self.row
        unchanged = row and (row.version, row.done, row.sent) == (before.version, before.done, before.sent)
        if row is not None and unchanged:
            claimed = row.claimed - (before.claimed - after.claimed)
            self.row = msgspec.structs.replace(after, claimed=claimed)

    def deliver(self, firing: Firing) -> None:
        row = self.row
        if row is None or timers.is_missed(row.schedule, row.missed_runs, firing, self.now):
            return
        claimed = timers.claim(row, firing)
        if claimed is not None:
            self.row = claimed
            self.fired.append((firing.version, firing.at, self.now))

    def run(self, until: datetime) -> None:
        """Let time pass, from event to event: ticks in which nothing is due are left out."""
        while self.now < until:
            look = self.row.look if self.row is not None else None
            tick = until if look is None else max(self.now, look).replace(second=0, microsecond=0) + MINUTE
            message = self.queue[0][0] if self.queue else until
            self.now = max(self.now, self.down_until, min(tick, message, until))
            if self.now >= until:
                break
            if message <= tick:
                self.deliver(heapq.heappop(self.queue)[2])
                continue
            if self.accidents.outage and self.happens(0.002):
                self.down_until = self.now + self.chance.random() * self.accidents.outage
            elif not self.happens(self.accidents.skipped_tick):
                self.tick()
                if self.happens(self.accidents.double_tick):
                    self.tick()
            self.now += timedelta(microseconds=1)


def due(timer: Timer, since: datetime, until: datetime) -> list[datetime]:
    return schedules.fires(timer.schedule, timer.anchor, after=since, until=until, limit=100_000)


CALM = Accidents()
ROUGH = Accidents(
    lost=0.05,
    twice=0.1,
    late=0.05,
    skipped_tick=0.1,
    double_tick=0.1,
    crash=0.05,
    race=0.1,
    outage=timedelta(days=3),
)
YEARLY = st.sampled_from(
    [
        (CRON, {"expression": "30 2 * * *", "timezone": "America/New_York"}),
        (CRON, {"expression": "0 0 */5 * * *", "timezone": "Europe/Berlin"}),
        (CRON, {"expression": "15 30 1 * * MON-FRI", "timezone": "Australia/Lord_Howe"}),
        (INTERVAL, {"interval": 7, "unit": "hours"}),
        (INTERVAL, {"interval": 3, "unit": "days"}),
        (DATETIME, {"fire_at": "2026-11-01T01:30:00", "timezone": "America/New_York"}),
        (RRULE, {"dtstart": "2026-01-01T02:30:00", "freq": "DAILY", "timezone": "America/New_York"}),
        (RRULE, {"dtstart": "2025-12-01T09:00:00", "rule": "FREQ=WEEKLY;BYDAY=MO,TH;COUNT=50"}),
    ]
)
DENSE = st.sampled_from(
    [
        (INTERVAL, {"interval": 1}),
        (INTERVAL, {"interval": 7}),
        (INTERVAL, {"interval": 90}),
        (CRON, {"expression": "*/2 * * * * *"}),
        (CRON, {"expression": "0,1,2 */3 * * * *"}),
        (RRULE, {"dtstart": "2026-01-01T00:00:00Z", "rule": "FREQ=MINUTELY;INTERVAL=2;BYSECOND=5,6"}),
    ]
)
POLICIES = st.sampled_from(["skip", "fire_once", "fire_all"])
SEEDS = st.integers(min_value=0, max_value=2**32)
THOROUGH = settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def assert_never_twice(world: World) -> None:
    twice = {key: n for key, n in Counter((version, at) for version, at, _ in world.fired).items() if n > 1}
    assert not twice


@THOROUGH
@given(YEARLY, SEEDS)
def test_a_year_of_accidents_loses_and_repeats_nothing_under_fire_all(what: Any, seed: int) -> None:
    world = World(random.Random(seed), ROUGH)
    timer = world.arm(*what, "fire_all")
    world.run(START + timedelta(days=365))
    world.accidents = CALM
    world.run(START + timedelta(days=370))
    assert_never_twice(world)
    fired = {at for _, at, _ in world.fired}
    assert set(due(timer, START, START + timedelta(days=369))) <= fired
    assert fired <= set(due(timer, START, START + timedelta(days=370)))
    assert all(claimed >= at for _, at, claimed in world.fired)


@THOROUGH
@given(DENSE, SEEDS)
def test_hours_of_accidents_lose_and_repeat_nothing_under_fire_all(what: Any, seed: int) -> None:
    rough = Accidents(**{**vars(ROUGH), "outage": timedelta(minutes=10)})
    world = World(random.Random(seed), rough)
    timer = world.arm(*what, "fire_all")
    end = START + timedelta(minutes=40)
    world.run(end)
    world.accidents = CALM
    world.run(end + timedelta(minutes=30))
    assert_never_twice(world)
    late = {at for _, at, _ in world.fired}
    assert set(due(timer, START, end)) <= late <= set(due(timer, START, end + timedelta(minutes=30)))


@THOROUGH
@given(st.one_of(YEARLY, DENSE), st.sampled_from(["skip", "fire_once"]), SEEDS)
def test_no_policy_fires_twice_or_what_was_not_due(what: Any, policy: str, seed: int) -> None:
    world = World(random.Random(seed), ROUGH)
    timer = world.arm(*what, policy)
    end = START + (timedelta(hours=1) if what in DENSE.elements else timedelta(days=365))
    world.run(end)
    assert_never_twice(world)
    assert {at for _, at, _ in world.fired} <= set(due(timer, START, end))
    if policy == "skip":
        assert all(claimed - at <= timedelta(seconds=60) for _, at, claimed in world.fired)


@THOROUGH
@given(st.one_of(YEARLY, DENSE), POLICIES, SEEDS)
def test_without_accidents_every_policy_fires_all_in_time(what: Any, policy: str, seed: int) -> None:
    world = World(random.Random(seed), CALM)
    timer = world.arm(*what, policy)
    end = START + (timedelta(hours=1) if what in DENSE.elements else timedelta(days=365))
    world.run(end)
    assert_never_twice(world)
    expected = due(timer, START, end - timedelta(seconds=1))
    assert [at for _, at, _ in sorted(world.fired, key=lambda each: each[1])][: len(expected)] == expected
    assert all(timedelta(0) <= claimed - at <= timedelta(seconds=0.5) for _, at, claimed in world.fired)


@THOROUGH
@given(DENSE, POLICIES, SEEDS, st.lists(st.integers(min_value=1, max_value=400), min_size=1, max_size=8))
def test_edits_at_any_moment_leave_nothing_of_what_was(what: Any, policy: str, seed: int, pauses: list[int]) -> None:
    """Between pauses the timer is switched off, on, or given another schedule."""
    world = World(random.Random(seed), Accidents(lost=0.02, twice=0.1, crash=0.1, race=0.1, double_tick=0.1))
    windows: dict[int, tuple[Timer, datetime, datetime]] = {}
    for pause in pauses:
        began = world.now
        timer = world.arm(*what, policy)
        world.run(world.now + timedelta(seconds=pause + world.chance.random()))
        windows[timer.version] = (timer, began, world.now)
        if world.happens(0.5):
            world.disarm()
            world.run(world.now + timedelta(seconds=world.chance.uniform(0, 200)))
    world.disarm()
    world.run(world.now + timedelta(minutes=20))
    assert_never_twice(world)
    for version, at, claimed in world.fired:
        timer, began, ended = windows[version]
        assert at in due(timer, began, ended)
        assert claimed <= ended


def armed(policy: str = "skip", trigger_ref: str = INTERVAL, **params: Any) -> tuple[World, Timer]:
    world = World(random.Random(0), Accidents())
    return world, world.arm(trigger_ref, params or {"interval": 60}, policy)


def sleep(world: World, seconds: float) -> None:
    """The platform is down, and with it the queue."""
    world.now += timedelta(seconds=seconds)
    world.down_until = world.now


def test_an_interval_first_fires_after_one_interval_from_the_next_second() -> None:
    world = World(random.Random(0), CALM, now=START + timedelta(seconds=0.4))
    world.arm(INTERVAL, {"interval": 5}, "skip")
    world.run(START + timedelta(seconds=12))
    assert [at for _, at, _ in world.fired] == [START + timedelta(seconds=6), START + timedelta(seconds=11)]


@pytest.mark.parametrize(("policy", "made_up"), [("skip", []), ("fire_once", [10]), ("fire_all", list(range(1, 11)))])
def test_what_an_outage_missed_is_made_up_for_as_the_policy_says(policy: str, made_up: list[int]) -> None:
    world, _ = armed(policy, interval=10, unit="minutes")
    world.run(START + timedelta(seconds=30))
    sleep(world, 105 * 60)
    began = world.now
    world.run(START + timedelta(minutes=119))
    assert sorted(at for _, at, _ in world.fired if at < began) == [START + timedelta(minutes=10 * n) for n in made_up]
    assert START + timedelta(minutes=110) in {at for _, at, _ in world.fired}


def test_numbers_count_on_without_gaps_while_all_is_well() -> None:
    world, _ = armed("skip", interval=1)
    seen: list[int] = []
    deliver = world.deliver
    world.deliver = lambda firing: (seen.append(firing.count), deliver(firing))  # type: ignore[assignment]
    world.run(START + timedelta(minutes=10))
    assert sorted(seen) == list(range(1, len(seen) + 1))


def test_a_moment_in_the_past_never_fires_and_says_why() -> None:
    timer, firings = timers.arm(
        rule=1,
        rule_ref="p.r",
        version=1,
        trigger_ref=DATETIME,
        params={"fire_at": "2020-01-01T00:00:00Z"},
        missed_runs="fire_all",
        now=START,
    )
    assert (firings, timer.look) == ([], None)
    assert "in the past" in str(timers.why_silent(timer, START, None))
    assert timers.upcoming(timer, START, 5) == []


def test_a_moment_says_afterwards_that_it_is_over() -> None:
    world, timer = armed("skip", DATETIME, fire_at="2026-01-01T00:05:00Z")
    assert timers.why_silent(timer, world.now, None) is None
    world.run(START + timedelta(minutes=10))
    assert world.row is not None
    assert world.row.look is None
    assert "last fired at" in str(timers.why_silent(world.row, world.now, world.fired[0][2]))


def test_a_slow_timer_is_looked_at_once_for_each_firing() -> None:
    world, _ = armed("skip", interval=1, unit="days")
    looks = []
    look = timers.look
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timers, "look", lambda *given: (looks.append(given), look(*given))[1])
        world.run(START + timedelta(days=10, hours=1))
    assert len(world.fired) == len(looks) == 10
