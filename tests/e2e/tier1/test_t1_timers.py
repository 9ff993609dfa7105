"""Tier 1: interval, cron and date timers over HTTP (T1.1 to T1.3)."""

from datetime import UTC, datetime

import pytest
from helpers.client import AttuneClient, Json
from helpers.timers import create_timer_rule, firings, from_now, wait_for_firings


@pytest.mark.tier1
@pytest.mark.timer
def test_interval_timer_runs_an_action_again_and_again(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    rule = create_timer_rule(client, test_pack["ref"], "interval", "core.intervaltimer", {"interval": 2})
    wait_for_firings(client, rule, 3, timeout=20)
    client.disable_rule(rule["ref"])
    events = [client.data("GET", f"events/{each['id']}") for each in firings(client, rule)]
    assert [each["payload"]["execution_count"] for each in events] == list(range(1, len(events) + 1))
    assert {each["rule"] for each in events} == {rule["id"]}
    assert {each["payload"]["interval_seconds"] for each in events} == {2}


@pytest.mark.tier1
@pytest.mark.timer
def test_cron_timer_fires_on_its_seconds(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    params = {"expression": "*/3 * * * * *", "timezone": "Europe/Berlin"}
    rule = create_timer_rule(client, test_pack["ref"], "cron", "core.crontimer", params)
    schedule = client.data("GET", f"rules/{rule['ref']}/schedule", params={"count": 4})["fires"]
    assert len(schedule) == 4
    assert schedule == sorted(schedule)
    wait_for_firings(client, rule, 2, timeout=20)
    client.disable_rule(rule["ref"])
    for each in firings(client, rule):
        payload = client.data("GET", f"events/{each['id']}")["payload"]
        assert datetime.fromisoformat(payload["scheduled_at"]).second % 3 == 0
        assert payload["timezone"] == "Europe/Berlin"


@pytest.mark.tier1
@pytest.mark.timer
def test_date_timer_fires_once(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    rule = create_timer_rule(client, test_pack["ref"], "date", "core.datetimetimer", {"fire_at": from_now(3)})
    assert datetime.fromisoformat(rule["next_fire_at"]) > datetime.now(UTC)
    wait_for_firings(client, rule, 1, timeout=15)
    shown = client.data("GET", f"rules/{rule['ref']}")
    assert "next_fire_at" not in shown
    assert "last_fired_at" in shown
    assert "ended" in shown["timer_reason"]


@pytest.mark.tier1
@pytest.mark.timer
@pytest.mark.parametrize(
    ("trigger", "params", "reason"),
    [
        ("core.crontimer", {"expression": "61 * * * *"}, "minute"),
        ("core.crontimer", {"expression": "* * * * *", "timezone": "Mars/Olympus"}, "timezone"),
        ("core.intervaltimer", {"interval": 0}, "interval"),
        ("core.datetimetimer", {"fire_at": "soon"}, "not a date and time"),
        ("core.rruletimer", {"dtstart": "2026-01-01T00:00:00Z", "rule": "FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30"}, "never"),
    ],
)
def test_an_impossible_schedule_is_refused(
    client: AttuneClient, test_pack: dict[str, Json], trigger: str, params: dict[str, Json], reason: str
) -> None:
    body = {
        "ref": f"{test_pack['ref']}.bad",
        "pack_ref": test_pack["ref"],
        "label": "Bad",
        "trigger_ref": trigger,
        "action_ref": "core.echo",
        "trigger_params": params,
    }
    answer = client.request("POST", "rules", json=body)
    assert answer.status_code == 422
    assert reason in answer.json()["error"]
