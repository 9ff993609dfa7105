import pytest

from chalicelib.security import rates
from chalicelib.security.rates import Rates


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def taken(limited: Rates, caller: str, times: int) -> int:
    return sum(1 for _ in range(times) if limited.wait(caller) == 0)


def test_a_burst_and_then_the_rate(clock: Clock) -> None:
    limited = Rates(clock, rate=2, burst=10)
    assert taken(limited, "a", 30) == 10
    clock.now += 3
    assert taken(limited, "a", 30) == 6
    clock.now += 3600
    assert taken(limited, "a", 30) == 10


def test_callers_have_buckets_of_their_own(clock: Clock) -> None:
    limited = Rates(clock, rate=2, burst=10)
    taken(limited, "a", 30)
    assert taken(limited, "b", 30) == 10


def test_it_is_said_how_long_to_wait(clock: Clock) -> None:
    limited = Rates(clock, rate=0.1, burst=1)
    assert limited.wait("a") == 0
    assert limited.wait("a") == 10
    clock.now += 9
    assert limited.wait("a") == 1
    clock.now += 1
    assert limited.wait("a") == 0


def test_callers_are_forgotten_the_longest_silent_first(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "_CALLERS", 2)
    limited = Rates(clock, rate=2, burst=1)
    assert [limited.wait(caller) for caller in ("a", "b", "a", "c", "a", "b")] == [0, 0, 1, 0, 1, 0]
