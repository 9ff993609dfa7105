"""Polling sensors from the rule that wakes them to the events that they report, and through all that may go wrong."""

from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from unit.flow.world import World

from chalicelib.domain import sensors as core
from chalicelib.domain.entities import Sensor
from chalicelib.flow import conductor, executor, sensors
from chalicelib.protocol import Poll, SensorDue, SensorPolled
from chalicelib.services import Services
from chalicelib.store.registry import Delete, Put


@dataclass
class Sent:
    """The queues and the runner, as far as sensors use them."""

    due: list[tuple[SensorDue, int]] = field(default_factory=list)
    events: list[Any] = field(default_factory=list)
    polls: list[Poll] = field(default_factory=list)
    failing: bool = False

    def sensor_due(self, message: SensorDue, *, delay: int = 0) -> None:
        self.due.append((message, delay))

    def event_accepted(self, message: Any) -> None:
        self.events.append(message)

    def poll(self, poll: Poll) -> None:
        if self.failing:
            raise ConnectionError("lambda out of reach")
        self.polls.append(poll)


class Eye:
    """A sensor of the world's pack, on its trigger, and the ways that its messages go."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.sent = Sent()
        self.services: Services = replace(world.services, queues=self.sent, invoker=self.sent)  # type: ignore[arg-type]
        self.sensor: Sensor = world.put(
            Sensor, "p.eye", pack=world.pack.id, pack_ref="p", label="Eye", entrypoint="code", runtime=1,
            runtime_ref="core.python", trigger_refs=["p.hook"], poll_interval=10, config={"c": 1},
        )  # fmt: skip

    @property
    def stored(self) -> Any:
        return self.world.store.polls.get(self.sensor.id)

    @property
    def process(self) -> core.Process:
        process: core.Process = self.stored.process
        return process

    def listen(self, ref: str = "p.r", **fields: Any) -> Any:
        rule = self.world.put_rule(ref, **fields)
        sensors.arm_for_rule(self.services, self.world.tenant, rule)
        return rule

    def take(self) -> tuple[SensorDue, int]:
        """The message that was sent last, and the time passed that it was delayed by."""
        message, delay = self.sent.due.pop()
        self.world.clock.advance(seconds=delay)
        return message, delay

    def start(self, message: SensorDue | None = None) -> list[Poll]:
        """The polls that a message, the last one sent, leads to."""
        before = len(self.sent.polls)
        assert executor.handle(self.services, [message or self.take()[0]]) == []
        return self.sent.polls[before:]

    def report(self, poll: Poll, **fields: Any) -> SensorPolled:
        run = poll.run
        return SensorPolled(
            tenant=run.tenant, ref=run.action_ref, id=run.execution, turn=run.attempt, token=run.token, **fields
        )

    def finish(self, report: SensorPolled) -> None:
        assert conductor.handle(self.services, [msgspec.json.encode(report).decode()]) == []

    def look(self, **fields: Any) -> Poll:
        """One whole poll."""
        (poll,) = self.start()
        self.finish(self.report(poll, **fields))
        return poll

    def change(self, **fields: Any) -> None:
        registry = self.world.store.registry
        current = registry.sensors.get("p.eye")
        assert current is not None
        registry.commit(Put(msgspec.structs.replace(current, **fields)))


@pytest.fixture
def eye(world: World) -> Eye:
    return Eye(world)


def test_a_rule_wakes_it_and_its_reports_become_events(eye: Eye) -> None:
    rule = eye.listen(trigger_params={"where": "here"})
    (poll,) = eye.start()
    run = poll.run
    assert (run.runner, run.entrypoint, run.action_ref) == ("python", "code", "p.eye")
    assert run.parameters["rules"] == [
        {"id": rule.id, "ref": "p.r", "trigger_ref": "p.hook", "trigger_params": {"where": "here"}}
    ]
    assert (run.parameters["state"], run.parameters["sensor"]["config"]) == ({}, {"c": 1})
    principal = eye.services.tokens.verify(run.environment["ATTUNE_API_TOKEN"])
    assert (principal.token_type, principal.login, principal.served_triggers) == ("sensor", "p.eye", ["p.hook"])
    assert eye.process.status == "starting"

    eye.finish(eye.report(poll, events=[{"payload": {"n": 1}}, {"payload": {"n": 2}, "rule": "p.r"}], state={"n": 2}))
    assert [(event.payload["n"], event.rule_ref, event.source_ref) for event in eye.sent.events] == [
        (1, None, "p.eye"), (2, "p.r", "p.eye"),
    ]  # fmt: skip
    assert (eye.process.status, eye.process.state, eye.stored.events) == ("running", {"n": 2}, 2)
    assert eye.take()[1] == 10
    assert eye.start(SensorDue(tenant=eye.world.tenant, ref="p.eye", id=eye.sensor.id, turn=2))[0].run.parameters[
        "state"
    ] == {"n": 2}


def test_nobody_listens_nothing_runs(eye: Eye) -> None:
    sensors.arm(eye.services, eye.world.tenant, [eye.sensor])
    eye.listen("p.off", enabled=False)
    assert (eye.sent.due, eye.stored) == ([], None)


def test_no_message_starts_a_poll_twice(eye: Eye) -> None:
    eye.listen()
    message, _ = eye.take()
    (poll,) = eye.start(message)
    assert eye.start(message) == []
    eye.finish(eye.report(poll))
    assert eye.start(message) == []


def test_two_executors_that_meet_start_one(eye: Eye, monkeypatch: pytest.MonkeyPatch) -> None:
    eye.listen()
    message, _ = eye.take()
    before = eye.stored
    eye.start(message)
    reads = iter([before])  # what the slower one read, before the faster one wrote
    polls = eye.world.store.polls
    original = type(polls).get
    monkeypatch.setattr(type(polls), "get", lambda self, id_: next(reads, None) or original(self, id_))
    assert eye.start(message) == []


def test_a_report_that_comes_twice_counts_once(eye: Eye) -> None:
    eye.listen()
    (poll,) = eye.start()
    report = eye.report(poll, events=[{"payload": {"n": 1}}])
    eye.finish(report)
    eye.finish(report)
    assert (len(eye.sent.events), eye.process.polls, eye.stored.events) == (1, 1, 1)
    assert [message.turn for message, _ in eye.sent.due] == [2, 2]  # the first may not have got out


def test_events_of_a_report_that_died_half_way_have_the_same_ids(eye: Eye, monkeypatch: pytest.MonkeyPatch) -> None:
    eye.listen()
    (poll,) = eye.start()
    report = eye.report(poll, events=[{"payload": {"n": 1}}])
    with monkeypatch.context() as patch:
        patch.setattr(core, "polled", lambda *_, **__: 1 / 0)
        assert conductor.handle(eye.services, [msgspec.json.encode(report).decode()]) == [0]
    eye.world.clock.advance(seconds=30)
    eye.finish(report)
    first, second = eye.sent.events
    assert (first.id, first.key) == (second.id, second.key)


@pytest.mark.parametrize("forged", [{"token": "other"}, {"turn": 5}])
def test_a_forged_report_is_dropped(eye: Eye, forged: dict[str, Any]) -> None:
    eye.listen()
    (poll,) = eye.start()
    eye.finish(msgspec.structs.replace(eye.report(poll, events=[{"payload": 1}]), **forged))
    assert (eye.sent.events, eye.process.phase) == ([], "running")


def test_it_stops_when_the_last_rule_goes_and_wakes_with_the_next(eye: Eye) -> None:
    rule = eye.listen()
    eye.look(state={"n": 1})
    eye.world.store.registry.commit(Delete("rule", rule.ref))
    assert eye.start() == []
    assert (eye.process.status, eye.sent.due) == ("stopped", [])
    eye.listen("p.next")
    assert eye.start()[0].run.parameters["state"] == {"n": 1}


def test_a_rule_that_comes_while_it_stops_is_not_lost(eye: Eye, monkeypatch: pytest.MonkeyPatch) -> None:
    rule = eye.listen()
    eye.look()
    eye.world.store.registry.commit(Delete("rule", rule.ref))
    original = core.stopped

    def meanwhile(*arguments: Any) -> core.Process:
        monkeypatch.setattr(core, "stopped", original)
        eye.listen("p.next")
        return original(*arguments)

    monkeypatch.setattr(core, "stopped", meanwhile)
    (poll,) = eye.start()
    assert [each["ref"] for each in poll.run.parameters["rules"]] == ["p.next"]


def test_disabled_while_it_looks(eye: Eye) -> None:
    eye.listen()
    (poll,) = eye.start()
    eye.change(enabled=False)
    eye.finish(eye.report(poll, events=[{"payload": 1}]))
    assert eye.sent.events == []
    assert eye.start() == []
    assert eye.process.status == "stopped"


def test_deleted_while_it_looks(eye: Eye) -> None:
    eye.listen()
    (poll,) = eye.start()
    eye.world.store.registry.commit(Delete("sensor", "p.eye"))
    eye.finish(eye.report(poll, events=[{"payload": 1}]))
    assert (eye.sent.events, eye.sent.due, eye.stored) == ([], [], None)


def test_a_failed_poll_backs_off_and_says_why(eye: Eye) -> None:
    eye.listen()
    eye.look(error="no route", exit_code=1, stderr="trace\n", events=[{"payload": 1}])
    assert (eye.process.status, eye.process.last_error, eye.process.last_exit_code) == ("backoff", "no route", 1)
    assert eye.sent.events == []
    assert eye.take()[1] == 20
    log = sensors.read_log(eye.world.store.blobs, eye.sensor.id, "stderr")
    assert log.startswith("trace\n")
    assert log.endswith("Z no route\n")


def test_events_it_may_not_report_are_counted_and_told(eye: Eye) -> None:
    trigger = eye.world.store.registry.triggers.get("p.hook")
    assert trigger is not None
    schema = {"n": {"type": "integer", "required": True}}
    eye.world.store.registry.commit(Put(msgspec.structs.replace(trigger, out_schema=schema)))
    eye.listen()
    eye.look(events=[{"payload": {"n": "x"}}, {"trigger_ref": "core.alert"}, {"payload": {"n": 1}}])
    assert [event.payload for event in eye.sent.events] == [{"n": 1}]
    assert (eye.stored.events, eye.stored.refused, eye.process.failures) == (1, 2, 0)
    log = sensors.read_log(eye.world.store.blobs, eye.sensor.id, "stderr")
    assert "event 0 refused: Payload breaks the schema" in log
    assert "event 1 refused" in log
    refused = eye.world.store.refusals.of("p.hook")
    assert refused is not None
    assert refused["count"] == 1


def test_a_key_makes_an_event_happen_once_a_day(eye: Eye) -> None:
    eye.listen()
    for _ in range(2):
        eye.look(events=[{"payload": {"n": 1}, "key": "order-17"}])
    assert len({event.id for event in eye.sent.events}) == 1


def test_a_lost_runner_is_a_failure(eye: Eye) -> None:
    eye.listen()
    (poll,) = eye.start()
    record = {"requestPayload": msgspec.to_builtins(poll), "requestContext": {"condition": "RetriesExhausted"}}
    conductor.take_back(eye.services, record)
    assert (eye.process.status, eye.process.last_error) == ("backoff", sensors.LOST)
    assert eye.take()[0].turn == 2


def test_no_room_is_no_failure(eye: Eye) -> None:
    eye.listen()
    (poll,) = eye.start()
    record = {"requestPayload": msgspec.to_builtins(poll), "responsePayload": {"errorType": "TooManyRequestsException"}}
    conductor.take_back(eye.services, record)
    assert (eye.process.phase, eye.process.turn, eye.process.failures) == ("waiting", 1, 0)
    assert eye.take()[1] == 1


def test_a_claim_is_undone_when_lambda_is_out_of_reach(eye: Eye) -> None:
    eye.listen()
    message, _ = eye.take()
    eye.sent.failing = True
    assert executor.handle(eye.services, [message]) == [0]
    eye.sent.failing = False
    assert len(eye.start(message)) == 1


def test_a_message_that_comes_early_waits(eye: Eye) -> None:
    eye.listen()
    eye.look()
    message, _ = eye.sent.due.pop()
    assert eye.start(message) == []
    assert eye.sent.due.pop() == (message, 10)


# The tick


def test_a_lost_message_is_sent_again(eye: Eye) -> None:
    eye.listen()
    eye.sent.due.clear()
    assert sensors.watch(eye.services, eye.world.clock()) == 0
    eye.world.clock.advance(seconds=120)
    assert sensors.watch(eye.services, eye.world.clock()) == 1
    assert sensors.watch(eye.services, eye.world.clock()) == 0
    assert len(eye.start()) == 1


def test_what_is_far_away_is_sent_out_in_time(eye: Eye) -> None:
    eye.change(poll_interval=3600)
    eye.listen()
    eye.look()
    assert eye.sent.due == []
    eye.world.clock.advance(seconds=3400)
    assert sensors.watch(eye.services, eye.world.clock()) == 0
    eye.world.clock.advance(seconds=140)
    assert sensors.watch(eye.services, eye.world.clock()) == 1
    assert eye.take()[1] == 60


def test_a_poll_that_went_silent_is_given_up(eye: Eye) -> None:
    eye.listen()
    (poll,) = eye.start()
    eye.world.clock.advance(seconds=60)
    assert sensors.watch(eye.services, eye.world.clock()) == 0
    eye.world.clock.now += core.LEASE + timedelta(seconds=60)
    sensors.watch(eye.services, eye.world.clock())
    assert (eye.process.status, eye.process.last_error) == ("backoff", sensors.LOST)
    eye.finish(eye.report(poll, events=[{"payload": 1}]))  # too late: its turn is over
    assert eye.sent.events == []


def test_a_quick_sensor_seldom_writes_to_the_index(eye: Eye) -> None:
    eye.change(poll_interval=1)
    eye.listen()
    moments = set()
    for _ in range(30):
        eye.look()
        moments.add(eye.stored.due_at)
    assert len(moments) <= 3


# Keys and logs


def test_it_gets_its_own_keys_and_its_packs(eye: Eye) -> None:
    eye.world.put_key("p.shared", "for all", owner_type="pack", owner_pack_ref="p")
    eye.world.put_key("p.eye.token", "mine", owner_type="sensor", owner_sensor_ref="p.eye")
    eye.world.put_key("p.act.other", "no", owner_type="action", owner_action_ref="p.act")
    eye.listen()
    (poll,) = eye.start()
    assert poll.run.parameters["keys"] == {"shared": "for all", "token": "mine"}
    assert poll.run.secrets == ["for all", "mine"]


def test_the_log_keeps_its_end(eye: Eye, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sensors, "KEPT_LOG", 100)
    eye.listen()
    for number in range(20):
        eye.look(stdout=f"line {number:02}\n")
    log = sensors.read_log(eye.world.store.blobs, eye.sensor.id, "stdout")
    assert log.startswith("line ")
    assert log.endswith("line 18\nline 19\n")
    assert len(log) <= 100
