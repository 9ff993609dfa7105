"""When sensors look, and what they may report."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.domain import sensors
from chalicelib.domain.entities import Rule, Sensor
from chalicelib.domain.sensors import Process, ReportError

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
DUE = Process(sensor=7, ref="p.eye", phase="waiting", turn=3, armed=5, next_poll=NOW, state={"seen": 1})
SENSOR = Sensor(
    id=7, ref="p.eye", created=NOW, updated=NOW, label="Eye", entrypoint="eye.py", runtime=1, runtime_ref="core.python",
    trigger_refs=["p.seen"],
)  # fmt: skip


def rule(ref: str = "p.r", id_: int = 1, trigger_ref: str = "p.seen") -> Rule:
    return Rule(
        id=id_, ref=ref, created=NOW, updated=NOW, pack=1, pack_ref="p", label=ref, action_ref="p.a",
        trigger_ref=trigger_ref,
    )  # fmt: skip


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("late", "expected"),
    [(0, 10), (3, 10), (4.9, 10), (5.1, 20), (10, 20), (94, 100), (96, 110)],
)
def test_the_rhythm_does_not_drift(late: float, expected: float) -> None:
    polled = sensors.polled(DUE, interval=10, now=after(late))
    assert polled.next_poll == after(expected)
    assert (polled.turn, polled.phase, polled.polls, polled.failures) == (4, "waiting", 1, 0)


@given(interval=st.floats(1, 1e7), late=st.floats(0, 1e7))
def test_the_next_poll_is_always_to_come(interval: float, late: float) -> None:
    polled = sensors.polled(DUE, interval=interval, now=after(late))
    assert polled.next_poll is not None
    gap = (polled.next_poll - after(late)).total_seconds()
    assert interval / 2 - 0.01 <= gap <= interval * 1.5 + 0.01


def test_a_sensor_may_say_when_it_looks_again() -> None:
    assert sensors.polled(DUE, interval=10, now=NOW, wanted=3.5).next_poll == after(3.5)
    assert sensors.polled(DUE, interval=10, now=NOW, wanted=-1).next_poll == after(1)


def test_failures_back_off_and_keep_the_state() -> None:
    process, gaps = DUE, []
    for _ in range(9):
        process = sensors.polled(process, interval=2, now=NOW, error="no", state={"seen": 2})
        assert process.next_poll is not None
        gaps.append((process.next_poll - NOW).total_seconds())
    assert gaps == [4, 8, 16, 32, 64, 128, 256, 300, 300]
    assert (process.status, process.state, process.failed, process.last_error) == ("backoff", {"seen": 1}, 9, "no")
    well = sensors.polled(process, interval=2, now=NOW, state={"seen": 3})
    assert (well.status, well.state, well.failures, well.failed, well.last_error) == (
        "running",
        {"seen": 3},
        0,
        9,
        None,
    )


def test_an_hourly_sensor_does_not_fail_more_often() -> None:
    assert sensors.polled(DUE, interval=3600, now=NOW, error="no").next_poll == after(3600)


def test_state_stays_when_nothing_is_said_of_it() -> None:
    assert sensors.polled(DUE, interval=1, now=NOW).state == {"seen": 1}
    assert sensors.polled(DUE, interval=1, now=NOW, state={}).state == {}


def test_what_is_far_away_is_sent_by_the_tick() -> None:
    near, far = (sensors.waiting(DUE, after(seconds), NOW) for seconds in (900, 901))
    assert near.look == after(900) + sensors.SAFETY
    assert far.look == after(901) - sensors.LEAD


def test_arming() -> None:
    first = sensors.armed(None, SENSOR, 9, NOW, anew=False)
    assert (first.phase, first.turn, first.next_poll, first.armed, first.status) == ("waiting", 1, NOW, 9, "starting")
    later = sensors.armed(DUE, SENSOR, 9, after(5), anew=False)
    assert (later.turn, later.next_poll, later.armed) == (3, NOW, 9)
    anew = sensors.armed(DUE, SENSOR, 9, after(5), anew=True)
    assert (anew.turn, anew.next_poll, anew.state) == (4, after(5), {"seen": 1})
    running = sensors.claimed(DUE, token="t", rules=1, now=NOW)
    assert sensors.armed(running, SENSOR, 9, NOW, anew=True) == sensors.armed(running, SENSOR, 9, NOW, anew=False)
    stopped = sensors.stopped(DUE, NOW)
    assert (stopped.status, stopped.look, stopped.turn) == ("stopped", None, 4)
    again = sensors.armed(stopped, SENSOR, 9, after(5), anew=False)
    assert (again.turn, again.next_poll, again.state) == (5, after(5), {"seen": 1})


@pytest.mark.parametrize("runtime", ["core.native", "core.http", "core.container", "p.ruby"])
def test_what_the_platform_does_not_run(runtime: str) -> None:
    assert sensors.is_polled(SENSOR)
    fields = {name: getattr(SENSOR, name) for name in SENSOR.__struct_fields__}
    assert not sensors.is_polled(Sensor(**{**fields, "runtime_ref": runtime}))


def test_the_document() -> None:
    document = sensors.document(SENSOR, DUE, [rule()], {"token": "x"}, NOW)
    assert document == {
        "sensor": {"id": 7, "ref": "p.eye", "config": {}},
        "triggers": ["p.seen"],
        "rules": [{"id": 1, "ref": "p.r", "trigger_ref": "p.seen", "trigger_params": {}}],
        "state": {"seen": 1},
        "keys": {"token": "x"},
        "now": "2026-11-22T12:00:00Z",
    }


def test_reports() -> None:
    mine = rule()
    assert sensors.report_of({"payload": {"n": 1}}, ["p.seen"], [mine]).trigger_ref == "p.seen"
    for name in ("p.r", 1):
        assert sensors.report_of({"rule": name, "key": "k"}, ["p.seen", "p.heard"], [mine]) == sensors.Report(
            "p.seen", None, mine, "k"
        )


@pytest.mark.parametrize(
    ("printed", "triggers", "reason"),
    [
        ([], ["p.seen"], "must be an object"),
        ({}, ["p.seen", "p.heard"], "none of p.seen, p.heard"),
        ({"trigger_ref": "p.other"}, ["p.seen"], "'p.other' is none of"),
        ({"trigger_ref": ["p.seen"]}, ["p.seen"], "none of"),
        ({"rule": "p.gone"}, ["p.seen"], "no enabled rule 'p.gone'"),
        ({"rule": "p.r", "trigger_ref": "p.heard"}, ["p.seen", "p.heard"], "not on trigger p.heard"),
        ({"key": ""}, ["p.seen"], "'key'"),
        ({"key": 7}, ["p.seen"], "'key'"),
    ],
)
def test_reports_that_are_refused(printed: object, triggers: list[str], reason: str) -> None:
    with pytest.raises(ReportError, match=reason):
        sensors.report_of(printed, triggers, [rule()])
