"""Timers from a rule's commit to its execution, against tables that keep their conditions."""

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from unit.flow.world import World

from chalicelib import clients
from chalicelib.domain.entities import Rule
from chalicelib.domain.schedules import DATETIME, INTERVAL
from chalicelib.flow import happenings, tick, timers
from chalicelib.protocol import Firing, TimersDue
from chalicelib.store.listing import EventFilter, Page
from chalicelib.store.models import partition
from chalicelib.store.registry import Conflict, Delete, Put
from chalicelib.store.rows import DUE_SHARDS
from chalicelib.store.timers import TIMER

pytestmark = pytest.mark.slow


class TimerWorld:
    """A world whose queue delivers timers' messages when their time has come."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.waiting: list[TimersDue] = []
        self.sends = 0
        world.queues.timers_due = self._take  # type: ignore[attr-defined]
        # Whole seconds make the arithmetic of these tests readable.
        world.clock.now = world.clock.now.replace(microsecond=0)
        self.began = world.clock.now

    def _take(self, messages: Sequence[tuple[TimersDue, int]]) -> None:
        assert all(0 <= delay <= 900 for _, delay in messages)
        self.sends += 1
        self.waiting += [message for message, _ in messages if message.tenant == self.world.tenant]

    def rule(self, ref: str = "p.timer", trigger_ref: str = INTERVAL, **fields: Any) -> Rule:
        self.commit(Put(self.drawn(ref, trigger_ref, **fields), new=True))
        return self.stored(ref)

    def drawn(self, ref: str, trigger_ref: str, **fields: Any) -> Rule:
        now = self.world.clock()
        fields = {"trigger": 1, "trigger_params": {"interval": 10}, "owner_identity": self.world.owner.id} | fields
        return Rule(
            id=self.world.services.new_id(),
            created=now,
            updated=now,
            ref=ref,
            pack=self.world.pack.id,
            pack_ref="p",
            label=ref,
            action_ref="p.act",
            trigger_ref=trigger_ref,
            **fields,
        )

    def stored(self, ref: str = "p.timer") -> Rule:
        found = self.world.store.registry.rules.get(ref)
        assert found is not None
        return found

    def commit(self, *changes: Any) -> None:
        timers.commit(self.world.services, self.world.tenant, *changes)

    def change(self, **fields: Any) -> None:
        self.commit(Put(msgspec.structs.replace(self.stored(), **fields)))

    def tick(self) -> None:
        due = self.world.services.store.due(self.world.clock())
        own = [each for each in due.timers if each[0] == self.world.tenant]
        timers.look_at(self.world.services, own, self.world.clock(), pause=lambda _: None)

    def deliver(self, *messages: TimersDue) -> None:
        assert happenings.handle(self.world.services, list(messages)) == []

    def pass_time(self, seconds: int, *, ticking: bool = True) -> None:
        """Second by second, with a tick on each whole minute since the beginning."""
        for _ in range(seconds):
            self.world.clock.advance(seconds=1)
            now = self.world.clock()
            if ticking and (now - self.began).seconds % 60 == 0:
                self.tick()
            ready = [message for message in self.waiting if message.at <= now]
            self.waiting = [message for message in self.waiting if message.at > now]
            self.deliver(*ready)

    @property
    def events(self) -> list[Any]:
        return self.world.activity.events(EventFilter(), Page(1, 1000)).items

    @property
    def seconds(self) -> list[int]:
        """Seconds since the beginning at which the timers fired."""
        return sorted(round((event.created - self.began).total_seconds()) for event in self.events)


@pytest.fixture
def timing(world: World) -> TimerWorld:
    return TimerWorld(world)


@pytest.fixture
def calls() -> Iterator[list[str]]:
    made: list[str] = []

    def note(model: Any, **_: Any) -> None:
        made.append(model.name)

    clients.on_event("before-call.*.*", note)
    yield made
    clients.off_event("before-call.*.*", note)


def test_an_interval_fires_once_per_interval_and_starts_executions(timing: TimerWorld) -> None:
    rule = timing.rule()
    timing.pass_time(305)
    assert timing.seconds == list(range(10, 301, 10))
    event = timing.events[0]
    assert (event.rule, event.rule_ref, event.payload["interval_seconds"]) == (rule.id, "p.timer", 10)
    assert sorted(each.payload["execution_count"] for each in timing.events) == list(range(1, 31))
    assert len({request.id for request in timing.world.requests}) == 30
    execution = timing.world.activity.get_execution(timing.world.requests[0].id)
    assert execution is not None
    assert (execution.rule_ref, execution.status) == ("p.timer", "requested")


def test_messages_that_come_twice_fire_once(timing: TimerWorld) -> None:
    timing.rule()
    message = timing.waiting[0]
    timing.world.clock.advance(seconds=10)
    timing.deliver(message)
    timing.deliver(message, message)
    assert len(timing.events) == 1
    assert len({request.id for request in timing.world.requests}) == 1


def test_a_crash_before_the_send_is_made_good_by_the_redelivery(timing: TimerWorld) -> None:
    timing.rule()
    timing.world.clock.advance(seconds=10)
    timing.world.queues.failing = True
    assert happenings.handle(timing.world.services, [timing.waiting[0]]) == [0]
    timing.world.queues.failing = False
    timing.deliver(timing.waiting[0])
    assert len(timing.events) == len(timing.world.requests) == 1


@pytest.mark.parametrize(
    "stop",
    [
        lambda timing: timing.change(enabled=False),
        lambda timing: timing.change(trigger_ref="p.hook", trigger_params={}),
        lambda timing: timing.commit(Delete("rule", "p.timer")),
        lambda timing: timing.change(trigger=None),
    ],
    ids=["disable", "another trigger", "delete", "trigger deleted"],
)
def test_nothing_fires_after_the_rule_was_stopped(timing: TimerWorld, stop: Any) -> None:
    timing.rule()
    timing.pass_time(35)
    stop(timing)
    # As from a process whose view of the rules is a moment old.
    timing.deliver(*[msgspec.structs.replace(message, registry=0) for message in timing.waiting[:1]])
    timing.pass_time(300)
    assert timing.seconds == [10, 20, 30]


def test_enabling_again_begins_anew_and_remembers_when_it_fired(timing: TimerWorld) -> None:
    timing.rule()
    timing.pass_time(15)
    timing.change(enabled=False)
    timing.pass_time(12)
    timing.change(enabled=True)
    stored = timing.world.store.timers.get("p.timer")
    assert stored is not None
    assert stored.last_fired_at == timing.began + timedelta(seconds=10)
    timing.pass_time(25)
    assert timing.seconds == [10, 37, 47]


def test_another_schedule_begins_anew_and_another_label_does_not(timing: TimerWorld) -> None:
    timing.rule()
    timing.pass_time(5)
    timing.change(label="Other")
    timing.pass_time(10)
    timing.change(trigger_params={"interval": 30})
    timing.pass_time(70)
    assert timing.seconds == [10, 45, 75]


def test_a_rule_deleted_and_made_again_is_another_timer(timing: TimerWorld) -> None:
    timing.rule()
    timing.commit(Delete("rule", "p.timer"))
    timing.world.clock.advance(seconds=3)
    timing.rule()
    timing.pass_time(25)
    assert timing.seconds == [13, 23]


@pytest.mark.parametrize(
    ("policy", "expected"), [("skip", []), ("fire_once", [400]), ("fire_all", [100, 200, 300, 400])]
)
def test_an_outage(timing: TimerWorld, policy: Any, expected: list[int]) -> None:
    timing.rule(trigger_params={"interval": 100}, missed_run_policy=policy)
    timing.waiting.clear()
    timing.world.clock.advance(seconds=460)
    timing.tick()
    timing.deliver(*[message for message in timing.waiting if message.at <= timing.world.clock()])
    late = [each for each in timing.events if each.created < timing.began + timedelta(seconds=461)]
    assert len(late) == len(expected)
    timing.waiting = [message for message in timing.waiting if message.at > timing.world.clock()]
    timing.pass_time(45)
    assert timing.seconds[-1] == 500


def test_a_message_that_comes_much_too_early_is_sent_again(timing: TimerWorld) -> None:
    timing.rule()
    message = timing.waiting.pop(0)
    timing.deliver(message)
    assert timing.events == []
    timing.pass_time(15)
    assert timing.seconds == [10]


def test_a_double_tick_changes_nothing(timing: TimerWorld) -> None:
    timing.rule()
    timing.world.clock.advance(seconds=60)
    timing.tick()
    timing.tick()
    timing.pass_time(140, ticking=False)
    fired = [each.payload["execution_count"] for each in timing.events]
    assert len(fired) == len(set(fired))


def test_a_moment_fires_once_and_one_in_the_past_never(timing: TimerWorld) -> None:
    soon = timing.began + timedelta(seconds=400)
    timing.rule("p.soon", DATETIME, trigger_params={"fire_at": soon.isoformat()})
    timing.rule("p.past", DATETIME, trigger_params={"fire_at": "2020-01-01T00:00:00Z"})
    timing.pass_time(700)
    assert timing.seconds == [400]


def test_what_does_not_match_is_an_event_and_no_execution(timing: TimerWorld) -> None:
    timing.rule(conditions=[{"field": "execution_count", "operator": "equals", "value": 2}])
    timing.pass_time(35)
    assert timing.seconds == [10, 20, 30]
    assert len(timing.world.requests) == 1


def test_the_calls_of_a_firing(timing: TimerWorld, calls: list[str]) -> None:
    """Issue 4: at most four until the execution exists, of a timer that fires alone and rarely."""
    timing.rule(trigger_params={"interval": 1, "unit": "hours"})
    timing.pass_time(3601, ticking=True)  # the first firing warms the caches
    del calls[:]
    timing.pass_time(3600, ticking=False)
    assert calls == []
    timing.world.clock.advance(seconds=-60)
    due = timing.world.services.store.due(timing.world.clock())
    own = [each for each in due.timers if each[0] == timing.world.tenant]
    del calls[:]
    sent = timers.look_at(timing.world.services, own, timing.world.clock(), pause=lambda _: None)
    assert (sent, calls) == (1, ["UpdateItem"])  # and one send, which the fake takes
    timing.world.clock.advance(seconds=60)
    timing.deliver(timing.waiting[-1])
    now_and_then = {"BatchGetItem", "GetItem"}  # looks at the registry's version, and for the tenant's gate
    assert [each for each in calls if each not in now_and_then] == ["UpdateItem", "TransactWriteItems"]
    assert len(timing.events) == 2


def multiply(timing: TimerWorld, rule: Rule, times: int) -> None:
    """So many more timers like that rule's, of rules that are not there: an idle tick asks for none."""
    key = partition(timing.world.tenant, TIMER, rule.ref)
    found = clients.dynamodb().get_item(TableName="activity", Key={"pk": {"S": key}, "id": {"N": "0"}})
    more = [{"PutRequest": {"Item": {**found["Item"], "pk": {"S": f"{key}{number}"}}}} for number in range(times)]
    for start in range(0, times, 25):
        clients.dynamodb().batch_write_item(RequestItems={"activity": more[start : start + 25]})


def test_the_calls_of_an_idle_minute_with_ten_thousand_timers(timing: TimerWorld, calls: list[str]) -> None:
    """Issue 4: at most five."""
    multiply(timing, timing.rule(trigger_params={"interval": 1, "unit": "days"}), 10_000)
    tick.handle(timing.world.services)
    del calls[:]
    tick.handle(timing.world.services)
    assert calls.count("Query") == len(calls) <= 5


def test_five_hundred_timers_of_one_second(
    timing: TimerWorld, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All fire, once, for a fraction of the calls that a lone one takes."""
    # Moto copies its tables before each transaction in case it fails. None does, and they are big here.
    monkeypatch.setattr("moto.dynamodb.models.copy", SimpleNamespace(deepcopy=lambda tables: tables))
    at = timing.began + timedelta(seconds=400)
    params = {"fire_at": at.isoformat()}
    timing.commit(
        *(Put(timing.drawn(f"p.r{n}", DATETIME, trigger_params=params), new=True) for n in range(500)),
    )
    assert timing.waiting == []
    timing.world.clock.advance(seconds=300)
    del calls[:]
    timing.tick()
    assert timing.sends == 2, "twenty messages of twenty-five, ten in one call"
    assert Counter(calls) == {"Query": DUE_SHARDS, "UpdateItem": 500}
    timing.world.clock.advance(seconds=100)
    del calls[:]
    timing.deliver(*timing.waiting[:10])
    timing.deliver(*timing.waiting[10:])
    assert calls.count("TransactWriteItems") == 20
    assert len(calls) <= 50
    assert Counter(event.rule_ref for event in timing.events) == {f"p.r{n}": 1 for n in range(500)}
    assert len({request.id for request in timing.world.requests}) == 500


def test_a_rule_is_never_written_without_its_timer(timing: TimerWorld) -> None:
    """Of more than one transaction takes, and of which a later one fails, what was written is armed and fires."""
    rules = [timing.rule(f"p.r{number}", enabled=False) for number in range(60)]
    changed = [Put(msgspec.structs.replace(rule, enabled=True, label="changed")) for rule in rules]
    timing.world.store.registry.commit(Put(rules[59]))  # somebody else was faster
    timing.waiting.clear()
    with pytest.raises(Conflict):
        timing.commit(*changed)
    written = {rule.ref for rule in timing.world.store.registry.rules.list() if rule.label == "changed"}
    stored = timing.world.store.timers.read(rule.ref for rule in rules)
    assert 1 <= len(written) < 59, "the 60 rules and their timers are more than one transaction"
    assert {ref for ref, timer in stored.items() if timer.armed} == written
    timing.pass_time(11)
    assert {event.rule_ref for event in timing.events} == written


def test_many_timers_of_one_second_go_together(timing: TimerWorld, calls: list[str]) -> None:
    for number in range(30):
        timing.rule(f"p.r{number}", trigger_params={"interval": 1, "unit": "minutes"})
    timing.world.clock.advance(seconds=60)
    messages = [TimersDue(tenant=m.tenant, firings=m.firings) for m in timing.waiting if m.at <= timing.world.clock()]
    firings: list[Firing] = [firing for message in messages for firing in message.firings]
    together = [TimersDue(tenant=messages[0].tenant, firings=firings[n : n + 25]) for n in range(0, 30, 25)]
    del calls[:]
    timing.deliver(*together)
    assert calls.count("TransactWriteItems") == 2
    assert len(timing.events) == len(timing.world.requests) == 30
