"""T3.2: disabling or deleting a rule stops its timer at once, enabling it starts it again."""

import pytest
from helpers.client import AttuneClient, Json
from helpers.narration import step, summary, title
from helpers.polling import wait_for_execution_completion
from helpers.timers import create_timer_rule, execution_count, firings, stays_for, wait_for_firings


@pytest.mark.tier3
@pytest.mark.timer
def test_timer_cancellation_via_rule_disable(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    """Nothing fires after the disabling call has returned; what runs ends as it would have."""
    title("T3.2: Timer Cancellation via Rule Disable")
    step(1, "Creating a timer of one second")
    rule = create_timer_rule(client, test_pack["ref"], "tick", "core.intervaltimer", {"interval": 1})
    wait_for_firings(client, rule, 2, timeout=15)
    step(2, "Disabling its rule")
    client.disable_rule(rule["ref"])
    fired, started = len(firings(client, rule)), execution_count(client, rule)
    assert stays_for(client, rule, 4) == 0
    step(3, "What was in flight completes")
    ends = [wait_for_execution_completion(client, each["id"]) for each in client.list_executions(rule_ref=rule["ref"])]
    summary(f"{fired} events", f"{started} executions", "none after the rule was disabled")
    assert {each["status"] for each in ends} == {"completed"}
    assert fired == started == len(ends)


@pytest.mark.tier3
@pytest.mark.timer
def test_timer_resume_after_re_enable(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    """Enabled again, the timer counts from then."""
    title("T3.2: Timer Resume After Re-enable")
    step(1, "Creating a timer of two seconds, and disabling it once it has fired")
    rule = create_timer_rule(client, test_pack["ref"], "tick", "core.intervaltimer", {"interval": 2})
    wait_for_firings(client, rule, 1, timeout=15)
    client.disable_rule(rule["ref"])
    before = execution_count(client, rule)
    assert stays_for(client, rule, 4) == 0
    step(2, "Enabling it again")
    resumed = client.enable_rule(rule["ref"])
    assert resumed["next_fire_at"] > resumed["updated"]
    wait_for_firings(client, rule, before + 2, timeout=15)
    summary(f"{before} before", "fires again after")
    assert "last_fired_at" in client.data("GET", f"rules/{rule['ref']}")
    client.disable_rule(rule["ref"])


@pytest.mark.tier3
@pytest.mark.timer
def test_timer_delete_stops_executions(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    """A deleted rule fires no more, and one of the same name made later is another timer."""
    title("T3.2: Timer Delete Stops Executions")
    step(1, "Creating a timer of one second")
    rule = create_timer_rule(client, test_pack["ref"], "tick", "core.intervaltimer", {"interval": 1})
    wait_for_firings(client, rule, 2, timeout=15)
    step(2, "Deleting its rule")
    client.delete_rule(rule["ref"])
    assert stays_for(client, rule, 4) == 0
    step(3, "Making it again, with an interval of an hour")
    again = create_timer_rule(client, test_pack["ref"], "tick", "core.intervaltimer", {"interval": 1, "unit": "hours"})
    assert stays_for(client, again, 3) == 0
    summary("deleted", "stays silent")
