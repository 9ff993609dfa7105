"""When timers fire: the four schedules, what they refuse, and what changes of the clock do to them."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from dateutil import rrule
from hypothesis import given, settings
from hypothesis import strategies as st

from chalicelib.domain import schedules
from chalicelib.domain.schedules import CRON, DATETIME, INTERVAL, RRULE, ScheduleError

NEW_YORK = {"timezone": "America/New_York"}  # 2026: forward on 8 March at 07:00Z, back on 1 November at 06:00Z
GAP = datetime(2026, 3, 8, 4, tzinfo=UTC)
FOLD = datetime(2026, 11, 1, 3, tzinfo=UTC)


def fires(trigger_ref: str, params: Any, since: datetime, count: int = 3) -> list[str]:
    schedules.validate(trigger_ref, params)
    schedule = schedules.parse(trigger_ref, params)
    return [f"{at:%m-%d %H:%M:%S}" for at in schedules.fires(schedule, since, after=since, limit=count)]


@pytest.mark.parametrize(
    ("params", "seconds"),
    [
        ({"interval": 5}, 5),
        ({"interval": 2, "unit": "minutes"}, 120),
        ({"interval": 1, "unit": "hours"}, 3600),
        ({"interval": 400, "unit": "days"}, 400 * 86400),
    ],
)
def test_intervals_count_from_the_anchor(params: Any, seconds: int) -> None:
    schedule = schedules.parse(INTERVAL, params)
    step = timedelta(seconds=seconds)
    assert schedule.after(GAP, GAP) == GAP + step
    assert schedule.after(GAP + step, GAP) == GAP + 2 * step
    assert schedule.after(GAP + 2.5 * step, GAP) == GAP + 3 * step
    assert schedule.after(GAP - step, GAP) == GAP + step


@pytest.mark.parametrize(
    ("expression", "since", "expected"),
    [
        ("*/15 * * * *", GAP, ["03-08 04:15:00", "03-08 04:30:00", "03-08 04:45:00"]),
        ("*/20 * * * * *", GAP, ["03-08 04:00:20", "03-08 04:00:40", "03-08 04:01:00"]),
        ("0 9 * * MON-FRI", GAP, ["03-09 13:00:00", "03-10 13:00:00", "03-11 13:00:00"]),
        ("0 9 1 JAN,JUL *", GAP, ["07-01 13:00:00", "01-01 14:00:00", "07-01 13:00:00"]),
        # A time that the change of the clock leaves out comes right after it, one that comes twice counts once.
        ("30 2 * * *", GAP, ["03-08 07:00:00", "03-09 06:30:00", "03-10 06:30:00"]),
        ("0 30 2 * * *", GAP, ["03-08 07:00:00", "03-09 06:30:00", "03-10 06:30:00"]),
        ("30 1 * * *", FOLD, ["11-01 05:30:00", "11-02 06:30:00", "11-03 06:30:00"]),
        ("0 30 1 * * *", FOLD, ["11-01 05:30:00", "11-02 06:30:00", "11-03 06:30:00"]),
        # What runs every hour runs in every hour that there is.
        ("30 * * * *", GAP + timedelta(hours=2), ["03-08 06:30:00", "03-08 07:30:00", "03-08 08:30:00"]),
        ("30 * * * *", FOLD + timedelta(hours=2), ["11-01 05:30:00", "11-01 06:30:00", "11-01 07:30:00"]),
    ],
)
def test_cron(expression: str, since: datetime, expected: list[str]) -> None:
    assert fires(CRON, {"expression": expression, **NEW_YORK}, since) == expected


def test_cron_is_utc_unless_told_otherwise() -> None:
    assert fires(CRON, {"expression": "0 12 * * *"}, GAP, 1) == ["03-08 12:00:00"]


@pytest.mark.parametrize(
    ("fire_at", "zone", "expected"),
    [
        ("2026-06-01T12:00:00Z", "UTC", "06-01 12:00:00"),
        ("2026-06-01T12:00:00+05:30", "UTC", "06-01 06:30:00"),
        ("2026-06-01T12:00:00", "Europe/Berlin", "06-01 10:00:00"),
        ("2026-06-01 12:00", "Asia/Tokyo", "06-01 03:00:00"),
    ],
)
def test_moments_take_any_offset(fire_at: str, zone: str, expected: str) -> None:
    assert fires(DATETIME, {"fire_at": fire_at, "timezone": zone}, GAP) == [expected]


@pytest.mark.parametrize(
    ("params", "since", "expected"),
    [
        ({"freq": "WEEKLY", "by_day": ["MO", "FR"]}, GAP, ["03-09 06:30:00", "03-13 06:30:00", "03-16 06:30:00"]),
        ({"rule": "RRULE:FREQ=MONTHLY;BYDAY=-1FR"}, GAP, ["03-27 06:30:00", "04-24 06:30:00", "05-29 06:30:00"]),
        ({"freq": "YEARLY", "by_month": 2, "by_month_day": 29}, GAP, ["02-29 07:30:00"] * 3),
        # RFC 5545 §3.3.5: a time left out is read with the offset before the change.
        ({"freq": "DAILY"}, GAP, ["03-08 07:30:00", "03-09 06:30:00", "03-10 06:30:00"]),
        ({"freq": "HOURLY"}, GAP + timedelta(hours=2), ["03-08 06:30:00", "03-08 07:30:00", "03-08 08:30:00"]),
        ({"freq": "HOURLY"}, FOLD + timedelta(hours=2), ["11-01 05:30:00", "11-01 06:30:00", "11-01 07:30:00"]),
        (
            {"freq": "DAILY", "count": 3},
            datetime(2020, 1, 1, tzinfo=UTC),
            ["01-01 07:30:00", "01-02 07:30:00", "01-03 07:30:00"],
        ),
        (
            {"freq": "DAILY", "until": "2020-01-02T07:30:00Z"},
            datetime(2020, 1, 1, tzinfo=UTC),
            ["01-01 07:30:00", "01-02 07:30:00"],
        ),
    ],
)
def test_recurrences(params: Any, since: datetime, expected: list[str]) -> None:
    assert fires(RRULE, {"dtstart": "2020-01-01T02:30:00", **NEW_YORK, **params}, since) == expected


def test_a_recurrence_that_is_over_is_no_mistake() -> None:
    assert fires(RRULE, {"dtstart": "2020-01-01T00:00:00Z", "freq": "DAILY", "count": 3}, GAP) == []


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(
        [(rrule.WEEKLY, "WEEKLY"), (rrule.DAILY, "DAILY"), (rrule.HOURLY, "HOURLY"), (rrule.MINUTELY, "MINUTELY")]
    ),
    st.integers(1, 50),
    st.sampled_from([{}, {"by_day": ["TU", "SU"]}, {"by_hour": [3, 17]}, {"by_month": [2, 7]}]),
    st.integers(0, 300_000),
)
def test_searching_from_near_the_goal_finds_what_counting_from_the_start_finds(
    freq: tuple[int, str], interval: int, by: Any, minutes: int
) -> None:
    params = {"dtstart": "2026-01-07T00:00:00Z", "freq": freq[1], "interval": interval, **by}
    names = {"by_day": "byweekday", "by_hour": "byhour", "by_month": "bymonth"}
    plain = {names[key]: [rrule.TU, rrule.SU] if key == "by_day" else value for key, value in by.items()}
    start = datetime(2026, 1, 7)  # noqa: DTZ001  # dateutil's are the zone's readings
    try:
        schedule = schedules.parse(RRULE, params)
    except ScheduleError:
        return  # an interval that never meets the hours
    since = start + timedelta(minutes=minutes)
    found = schedule.after(since.replace(tzinfo=UTC), GAP)
    expected = next(rrule.rrule(freq[0], dtstart=start, interval=interval, **plain).xafter(since), None)
    assert (found and found.replace(tzinfo=None)) == expected


CRONS = st.sampled_from(["30 2 * * *", "*/20 * * * * *", "0 */2 * * *", "5 0 0 * * SUN", "0 1,2,3 * * *"])
ZONES = st.sampled_from(["UTC", "America/New_York", "Europe/Berlin", "Australia/Lord_Howe", "Asia/Kathmandu"])


@settings(max_examples=60, deadline=None)
@given(CRONS, ZONES, st.integers(0, 365 * 86400))
def test_firings_only_go_forward_and_do_not_depend_on_where_one_looks_from(expr: str, zone: str, second: int) -> None:
    schedule = schedules.parse(CRON, {"expression": expr, "timezone": zone})
    since = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=second)
    first, second_, third = schedules.fires(schedule, since, after=since, limit=3)
    assert since < first < second_ < third
    assert schedule.after(first - timedelta(microseconds=1), since) == first
    assert schedules.latest(schedule, since, after=since, until=third) == third
    assert schedules.latest(schedule, since, after=since, until=third - timedelta(microseconds=1)) == second_


@pytest.mark.parametrize(
    ("trigger_ref", "params", "reason"),
    [
        (INTERVAL, {}, "interval"),
        (INTERVAL, {"interval": 0}, "whole number from 1"),
        (INTERVAL, {"interval": -5}, "whole number from 1"),
        (INTERVAL, {"interval": 1.5}, "whole number from 1"),
        (INTERVAL, {"interval": True}, "whole number from 1"),
        (INTERVAL, {"interval": 1, "unit": "fortnights"}, "unit"),
        (INTERVAL, {"interval": 10**8, "unit": "days"}, "hundred years"),
        (CRON, {}, "expression: is required"),
        (CRON, {"expression": ""}, "expression"),
        (CRON, {"expression": "61 * * * *"}, "minute"),
        (CRON, {"expression": "* * * *"}, "fields"),
        (CRON, {"expression": "0 0 31 2 *"}, "day-of-month"),
        (CRON, {"expression": "0 0 * * *", "timezone": "Mars/Olympus"}, "timezone"),
        (CRON, {"expression": "0 0 * * *", "timezone": "../etc/passwd"}, "timezone"),
        (CRON, {"expression": "0 0 * * *", "timezone": 3}, "timezone"),
        (DATETIME, {}, "fire_at: is required"),
        (DATETIME, {"fire_at": "tomorrow"}, "not a date"),
        (DATETIME, {"fire_at": "2026-02-30T00:00:00Z"}, "not a date"),
        (DATETIME, {"fire_at": 17}, "must be a text"),
        (RRULE, {"freq": "DAILY"}, "dtstart: is required"),
        (RRULE, {"dtstart": "2026-01-01"}, "freq"),
        (RRULE, {"dtstart": "2026-01-01", "freq": "FORTNIGHTLY"}, "freq"),
        (RRULE, {"dtstart": "2026-01-01", "rule": "FREQ=DAILY;NONSENSE"}, "NONSENSE"),
        (RRULE, {"dtstart": "2026-01-01", "freq": "DAILY", "interval": 0}, "interval"),
        (RRULE, {"dtstart": "2026-01-01", "freq": "DAILY", "by_hour": [24]}, "by_hour"),
        (RRULE, {"dtstart": "2026-01-01", "freq": "DAILY", "by_day": ["XX"]}, "by_day"),
        (RRULE, {"dtstart": "2026-01-01", "freq": "DAILY", "by_day": ["2MO"]}, "MONTHLY and YEARLY"),
        (RRULE, {"dtstart": "2026-01-01", "freq": "DAILY", "by_set_pos": 1}, "by_set_pos"),
        (RRULE, {"dtstart": "2026-01-01", "freq": "DAILY", "count": 10**6}, "count"),
        (RRULE, {"dtstart": "2026-01-01", "freq": "DAILY", "count": 2, "until": "2027-01-01"}, "exclude"),
        # Never, which is found out within a moment and not in the year 9999.
        (RRULE, {"dtstart": "2026-01-01", "rule": "FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30"}, "never fires"),
        (RRULE, {"dtstart": "2026-01-01", "rule": "FREQ=SECONDLY;INTERVAL=60;BYSECOND=3"}, "empty set"),
    ],
)
def test_what_is_no_schedule_is_refused_with_the_reason(trigger_ref: str, params: Any, reason: str) -> None:
    with pytest.raises(ScheduleError, match=reason):
        schedules.validate(trigger_ref, params)


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from([INTERVAL, CRON, DATETIME, RRULE]),
    st.dictionaries(
        st.sampled_from(
            ["interval", "unit", "expression", "fire_at", "timezone", "dtstart", "rule", "freq", "by_day", "until"]
        ),
        st.one_of(st.none(), st.integers(), st.text(max_size=20), st.booleans(), st.lists(st.integers(), max_size=3)),
    ),
)
def test_any_parameters_are_a_schedule_or_an_explained_mistake(trigger_ref: str, params: Any) -> None:
    try:
        schedules.validate(trigger_ref, params)
    except ScheduleError as error:
        told = str(error)
    else:
        told = "fine"
    assert told


def test_payloads_have_the_contracts_fields() -> None:
    """Semantics §2.5, with the time zone honoured (README 8)."""
    fire, fired_at = datetime(2026, 3, 9, 13, tzinfo=UTC), datetime(2026, 3, 9, 13, 0, 0, 250_000, tzinfo=UTC)
    assert schedules.parse(INTERVAL, {"interval": 2, "unit": "hours"}).payload(fire, fired_at, 4) == {
        "type": "interval",
        "interval_seconds": 7200,
        "fired_at": "2026-03-09T13:00:00.250Z",
        "execution_count": 4,
        "sensor_ref": "core.intervaltimer_sensor",
    }
    assert schedules.parse(CRON, {"expression": "0 9 * * *", **NEW_YORK}).payload(fire, fired_at, 4) == {
        "type": "cron",
        "fired_at": "2026-03-09T13:00:00.250Z",
        "scheduled_at": "2026-03-09T13:00:00Z",
        "expression": "0 9 * * *",
        "timezone": "America/New_York",
        "next_fire_at": "2026-03-10T13:00:00Z",
        "execution_count": 4,
        "sensor_ref": "core.crontimer_sensor",
    }
    assert schedules.parse(DATETIME, {"fire_at": "2026-03-09T13:00:00Z"}).payload(fire, fired_at, 1) == {
        "type": "one_shot",
        "fire_at": "2026-03-09T13:00:00Z",
        "fired_at": "2026-03-09T13:00:00.250Z",
        "timezone": "UTC",
        "delay_ms": 250,
        "sensor_ref": "core.datetimetimer_sensor",
    }
    assert schedules.parse(RRULE, {"dtstart": "2026-03-09T13:00:00Z", "freq": "DAILY"}).payload(fire, fired_at, 1) == {
        "type": "rrule",
        "fired_at": "2026-03-09T13:00:00.250Z",
        "scheduled_at": "2026-03-09T13:00:00Z",
        "delay_ms": 250,
        "execution_count": 1,
        "sensor_ref": "core.rruletimer_sensor",
    }
