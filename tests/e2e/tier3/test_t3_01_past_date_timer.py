"""T3.1: date timers whose date is over.

The rule is accepted, never fires, and says why.
"""

import pytest
from helpers.client import AttuneClient, Json
from helpers.narration import step, summary, title
from helpers.timers import create_timer_rule, from_now, stays_for


def assert_never_fires(client: AttuneClient, rule: dict[str, Json]) -> None:
    assert rule["enabled"] is True
    assert "in the past" in rule["timer_reason"]
    assert "next_fire_at" not in rule
    assert stays_for(client, rule, 5) == 0
    shown = client.data("GET", f"rules/{rule['ref']}")
    assert "in the past" in shown["timer_reason"]
    assert "last_fired_at" not in shown
    assert client.data("GET", f"rules/{rule['ref']}/schedule")["fires"] == []


@pytest.mark.tier3
@pytest.mark.timer
@pytest.mark.edge_case
def test_past_date_timer_immediate_execution(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    """One hour past: no execution, not even an immediate one."""
    title("T3.1: Date Timer One Hour in the Past")
    step(1, "Creating a rule on a date timer of an hour ago")
    rule = create_timer_rule(client, test_pack["ref"], "hour", "core.datetimetimer", {"fire_at": from_now(-3600)})
    step(2, "Watching that nothing happens")
    assert_never_fires(client, rule)
    summary(rule["timer_reason"])


@pytest.mark.tier3
@pytest.mark.timer
@pytest.mark.edge_case
def test_just_missed_date_timer(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    """Two seconds past is past."""
    title("T3.1: Date Timer Just Missed")
    step(1, "Creating a rule on a date timer of two seconds ago")
    rule = create_timer_rule(client, test_pack["ref"], "missed", "core.datetimetimer", {"fire_at": from_now(-2)})
    step(2, "Watching that nothing happens")
    assert_never_fires(client, rule)
    summary(rule["timer_reason"])


@pytest.mark.tier3
@pytest.mark.timer
@pytest.mark.edge_case
def test_far_past_date_timer(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    """A year past, and no date at all for comparison: that one is refused."""
    title("T3.1: Date Timer One Year in the Past")
    step(1, "Creating a rule on a date timer of a year ago")
    rule = create_timer_rule(
        client, test_pack["ref"], "year", "core.datetimetimer", {"fire_at": from_now(-365 * 86400)}
    )
    step(2, "Watching that nothing happens")
    assert_never_fires(client, rule)
    step(3, "A date that is none is refused")
    answer = client.request(
        "PUT", f"rules/{rule['ref']}", json={"trigger_params": {"fire_at": "the day before yesterday"}}
    )
    assert answer.status_code == 422
    assert "not a date and time" in answer.json()["error"]
    summary(rule["timer_reason"])
