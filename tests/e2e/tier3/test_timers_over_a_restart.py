"""Issue 4: timers for a minute, the platform stopped and started in the middle: none fires twice, none is left out."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import pytest
from helpers.client import AttuneClient, Json
from helpers.narration import step, summary, title
from helpers.polling import wait_for, wait_for_event_count
from helpers.stack import own_stack
from helpers.timers import create_timer_rule, due_second, late_by

INTERVALS = (1, 2, 3, 5, 7)
SECONDS = 30  # before the stop, and again after the start
# What is due in the last two seconds before the stop may still be on its way: a firing is late for that long before it
# counts as missed.
MARGIN = 2


@contextmanager
def platform(state: Path, uptimes: list[range]) -> Iterator[AttuneClient]:
    """The platform on that state; adds the seconds in which it is up."""
    with own_stack(state) as stack, stack.sign_in() as client:
        began = int(time.time()) + 1
        yield client
        uptimes.append(range(began, int(time.time()) - MARGIN + 1))


def grid(rule: dict[str, Json], interval: int, end: int) -> set[int]:
    """The seconds before ``end`` at which the timer is due."""
    first = datetime.fromisoformat(rule["next_fire_at"]).timestamp()
    return set(range(int(first), end, interval))


@pytest.mark.tier3
@pytest.mark.timer
@pytest.mark.slow
def test_timers_over_a_restart(tmp_path: Path) -> None:
    """With ``skip``, what was due while the platform was down is left out; with ``fire_all``, nothing is."""
    title("Timers over a restart")
    uptimes: list[range] = []
    with platform(tmp_path, uptimes) as client:
        step(1, f"Running timers of {INTERVALS} seconds for {SECONDS} seconds")
        client.create_pack("clock")
        rules = {
            (policy, interval): create_timer_rule(
                client,
                "clock",
                f"{policy}_{interval}",
                "core.intervaltimer",
                {"interval": interval},
                missed_run_policy=policy,
            )
            for policy in ("skip", "fire_all")
            for interval in INTERVALS
        }
        every_second = rules["skip", 1]["ref"]
        wait_for_event_count(client, SECONDS, match="at least", rule_ref=every_second, timeout=SECONDS + 60)
    with platform(tmp_path, uptimes) as client:
        step(2, f"Stopped and started; running them for another {SECONDS} seconds")
        seen = len(client.list_events(rule_ref=every_second))
        wait_for_event_count(client, seen + SECONDS, match="at least", rule_ref=every_second, timeout=SECONDS + 60)
        end = int(time.time()) - MARGIN
        events: dict[tuple[str, int], list[dict[str, Json]]] = {}

        def nothing_is_missing() -> bool:
            for (policy, interval), rule in rules.items():
                events[policy, interval] = client.list_events(rule_ref=rule["ref"])
            return all(
                grid(rules[key], key[1], end) <= {due_second(event) for event in fired}
                for key, fired in events.items()
                if key[0] == "fire_all"
            )

        wait_for(nothing_is_missing, timeout=200, what="fire_all to make good what was due meanwhile")
        for rule in rules.values():
            client.disable_rule(rule["ref"])
    up = {second for uptime in uptimes for second in uptime if second < end}
    for (policy, interval), fired in events.items():
        times = Counter(due_second(event) for event in fired)
        assert set(times.values()) == {1}, f"{policy} {interval} s: fired twice: {times}"
        expected = grid(rules[policy, interval], interval, end)
        assert expected & up <= set(times), f"{policy} {interval} s: missed {sorted((expected & up) - set(times))}"
        assert all(second in grid(rules[policy, interval], interval, int(time.time())) for second in times)
    outage = uptimes[1].start - uptimes[0].stop
    late = sorted(late_by(event) for (policy, _), fired in events.items() if policy == "skip" for event in fired)
    assert late[0] >= 0
    assert outage > MARGIN
    summary(
        f"down for {outage} s",
        f"{len(late)} firings with skip, late by {late[len(late) // 2]:.2f} s (median), {late[-1]:.2f} s (at most)",
    )
