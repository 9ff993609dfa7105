"""T3.3: several timers at once, each on its own time."""

from datetime import datetime, timedelta

import pytest
from helpers.client import AttuneClient, Json
from helpers.narration import step, summary, title
from helpers.timers import create_timer_rule, firings, wait_for_firings


def fired_at(event: dict[str, Json]) -> datetime:
    return datetime.fromisoformat(event["payload"]["fired_at"])


def grid_errors(client: AttuneClient, rule: dict[str, Json], interval: int) -> list[float]:
    """Seconds by which each firing came after its time. Each time has at most one firing, and none is left out."""
    numbered = {each["payload"]["execution_count"]: fired_at(each) for each in firings_in_full(client, rule)}
    first_due = datetime.fromisoformat(rule["next_fire_at"])
    assert sorted(numbered) == list(range(1, len(numbered) + 1)), "no firing twice, none left out"
    return [(at - first_due - timedelta(seconds=interval * (n - 1))).total_seconds() for n, at in numbered.items()]


def firings_in_full(client: AttuneClient, rule: dict[str, Json]) -> list[dict[str, Json]]:
    return [client.data("GET", f"events/{each['id']}") for each in firings(client, rule)]


def run_together(client: AttuneClient, pack: str, intervals: dict[str, int], seconds: int) -> dict[str, list[float]]:
    """Timers of these intervals for some seconds; how late each firing was."""
    rules = {
        name: create_timer_rule(client, pack, name, "core.intervaltimer", {"interval": interval})
        for name, interval in intervals.items()
    }
    for name, interval in intervals.items():
        wait_for_firings(client, rules[name], seconds // interval, timeout=seconds + 30)
    for rule in rules.values():
        client.disable_rule(rule["ref"])
    return {name: grid_errors(client, rules[name], interval) for name, interval in intervals.items()}


@pytest.mark.tier3
@pytest.mark.timer
@pytest.mark.performance
def test_multiple_concurrent_timers(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    """Three timers with different intervals."""
    title("T3.3: Multiple Concurrent Timers")
    step(1, "Running timers of 2, 3 and 5 seconds for 15 seconds")
    late = run_together(client, test_pack["ref"], {"two": 2, "three": 3, "five": 5}, 15)
    summary(*(f"{name}: {len(errors)} firings" for name, errors in late.items()))
    assert len(late["two"]) >= 7
    assert len(late["three"]) >= 5
    assert len(late["five"]) >= 3


@pytest.mark.tier3
@pytest.mark.timer
@pytest.mark.performance
def test_many_concurrent_timers(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    """Five timers at once, all at the same seconds."""
    title("T3.3: Many Concurrent Timers")
    step(1, "Running five timers of two seconds for 12 seconds")
    late = run_together(client, test_pack["ref"], {f"timer_{n}": 2 for n in range(5)}, 12)
    summary(*(f"{name}: {len(errors)} firings" for name, errors in late.items()))
    assert all(len(errors) >= 6 for errors in late.values())


@pytest.mark.tier3
@pytest.mark.timer
@pytest.mark.performance
def test_timer_precision_under_load(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    """Never early, and within two seconds (issue 4) while other timers fire, too."""
    title("T3.3: Timer Precision Under Load")
    step(1, "Running a timer of three seconds beside four of one second, for 12 seconds")
    load = {f"load_{n}": 1 for n in range(4)}
    late = run_together(client, test_pack["ref"], {"measured": 3, **load}, 12)["measured"]
    summary(f"late by {min(late):.2f} to {max(late):.2f} s")
    assert min(late) >= 0
    assert max(late) <= 2
