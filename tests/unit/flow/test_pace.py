"""Counts by the minute, leased in blocks."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from chalicelib import clients
from chalicelib.flow.pace import REQUESTS, STARTS, Pace, seconds_left
from chalicelib.services import Services

NOW = datetime(2026, 11, 22, 15, 34, 10, tzinfo=UTC)


@pytest.fixture
def pace(services: Services) -> Pace:
    return services.pace


def taken(pace: Pace, times: int, limit: int, now: datetime = NOW, tenant: str = "acme") -> int:
    return sum(pace.take(tenant, STARTS, 1, limit, now) for _ in range(times))


@pytest.mark.parametrize("limit", [0, 1, 5, 19, 100, 1000])
def test_nobody_gets_more_than_the_limit(pace: Pace, limit: int) -> None:
    assert taken(pace, limit + 50, limit) == limit
    assert taken(pace, limit + 50, limit, NOW + timedelta(minutes=1)) == limit


def test_what_is_usual_makes_no_call(pace: Pace) -> None:
    made: list[str] = []
    clients.on_event("before-call.dynamodb", listen := lambda model, **_: made.append(model.name))
    try:
        assert taken(pace, 60, 12_000) == 60
        assert made == []
        assert taken(pace, 500, 12_000) == 500
        assert len(made) <= 2
    finally:
        clients.off_event("before-call.dynamodb", listen)


def test_processes_share_one_count(pace: Pace, services: Services) -> None:
    other = Pace(services.store)
    granted = sum(one.take("acme", STARTS, 1, 100, NOW) for _ in range(200) for one in (pace, other))
    assert granted <= 100
    assert granted >= 90, "a block may be left with somebody"


def test_kinds_and_tenants_are_counted_apart(pace: Pace) -> None:
    assert taken(pace, 9, 5) == 5
    assert taken(pace, 9, 5, tenant="other") == 5
    assert pace.take("acme", REQUESTS, 3, 5, NOW) == 3


def test_several_at_once_get_what_is_there(pace: Pace) -> None:
    assert pace.take("acme", STARTS, 8, 5, NOW) == 5
    assert pace.take("acme", STARTS, 8, 5, NOW) == 0


def test_a_raised_limit_counts_from_the_next_minute_at_the_latest(pace: Pace) -> None:
    assert taken(pace, 9, 5) == 5
    assert taken(pace, 9, 50, NOW + timedelta(minutes=1)) == 9


def test_seconds_left() -> None:
    assert seconds_left(NOW) == 50
    assert seconds_left(NOW.replace(second=0)) == 60


def test_is_busy(pace: Pace) -> None:
    busy: Any = pace.is_busy
    pace.take("acme", STARTS, 1, 12_000, NOW)
    assert not busy("acme", STARTS, NOW)
    pace.take("acme", STARTS, 100, 12_000, NOW)
    assert busy("acme", STARTS, NOW)
    assert not busy("acme", STARTS, NOW + timedelta(minutes=1))
