"""Issue 4: timers for a minute, the platform stopped and started in the middle: none fires twice, none is left out."""

import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
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


@dataclass
class Seen:
    """The seconds in which the platform was up, and the firings (rule, second) that it says it was too slow for: a
    busy machine's, where two seconds are soon over."""

    up: list[range] = field(default_factory=list)
    too_late: set[tuple[str, int]] = field(default_factory=set)


@contextmanager
def platform(state: Path, seen: Seen) -> Iterator[AttuneClient]:
    """The platform on that state, for as long as the context lasts."""
    with own_stack(state) as stack, stack.sign_in() as client:
        began = int(time.time()) + 1
        yield client
        seen.up.append(range(began, int(time.time()) - MARGIN + 1))
    for line in (state / "functions.log").read_text().splitlines():
        if '"timer too late"' in line:
            told = json.loads(line[line.index("{") :])
            seen.too_late.add((told["rule"], int(datetime.fromisoformat(told["due"]).timestamp())))


def grid(rule: dict[str, Json], interval: int, end: int) -> set[int]:
    """The seconds before ``end`` at which the timer is due."""
    first = datetime.fromisoformat(rule["next_fire_at"]).timestamp()
    return set(range(int(first), end, interval))


@pytest.mark.tier3
@pytest.mark.timer
@pytest.mark.slow
def test_timers_over_a_restart(tmp_path: Path) -> None:
    """What was due while the platform was down: with ``skip`` it is left out, with ``fire_once`` the last of it fires,
    with ``fire_all`` all of it."""
    title("Timers over a restart")
    seen = Seen()
    with platform(tmp_path, seen) as client:
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
                action_ref="core.noop",
            )
            for policy in ("skip", "fire_once", "fire_all")
            for interval in INTERVALS
        }
        every_second = rules["skip", 1]["ref"]
        wait_for_event_count(client, SECONDS, match="at least", rule_ref=every_second, timeout=SECONDS + 60)
    with platform(tmp_path, seen) as client:
        outage = range(seen.up[0].stop, int(time.time()) + 1)
        step(2, f"Stopped and started; running them for another {SECONDS} seconds")
        before = len(client.list_events(rule_ref=every_second))
        wait_for_event_count(client, before + SECONDS, match="at least", rule_ref=every_second, timeout=SECONDS + 60)
        end = int(time.time()) - MARGIN
        events: dict[tuple[str, int], list[dict[str, Json]]] = {}

        def missed_runs_are_made_good() -> bool:
            for (policy, interval), rule in rules.items():
                events[policy, interval] = fired = client.list_events(rule_ref=rule["ref"])
                left = grid(rule, interval, end) & set(outage) - {due_second(event) for event in fired}
                missed = grid(rule, interval, end) & set(outage)
                if (policy == "fire_all" and left) or (policy == "fire_once" and missed and left == missed):
                    return False
            return True

        wait_for(missed_runs_are_made_good, timeout=200, what="fire_once and fire_all to make good what was missed")
        for rule in rules.values():
            client.disable_rule(rule["ref"])
    up = {second for uptime in seen.up for second in uptime if second < end}
    for (policy, interval), fired in events.items():
        times = Counter(due_second(event) for event in fired)
        assert set(times.values()) == {1}, f"{policy} {interval} s: fired twice: {times}"
        rule = rules[policy, interval]
        assert set(times) <= grid(rule, interval, int(time.time()))
        left = {second for second in grid(rule, interval, end) & up if second not in times}
        slow = {second for second in left if (rule["ref"], second) in seen.too_late and policy != "fire_all"}
        assert left == slow, f"{policy} {interval} s: missed {sorted(left - slow)}"
        assert len(slow) <= len(times), f"{policy} {interval} s: more than half came too late"
    late = sorted(late_by(event) for (policy, _), fired in events.items() if policy == "skip" for event in fired)
    assert late[0] >= 0
    summary(
        f"down for {len(outage)} s",
        f"{len(late)} firings with skip, late by {late[len(late) // 2]:.2f} s (median), {late[-1]:.2f} s (at most)",
    )
