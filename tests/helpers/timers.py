"""Rules on timers, and what has come of them."""

import time
from datetime import UTC, datetime, timedelta

from chalicelib.domain import ids
from helpers.client import AttuneClient, Json
from helpers.polling import wait_for_execution_count


def create_timer_rule(
    client: AttuneClient, pack_ref: str, name: str, trigger_ref: str, params: dict[str, Json], **fields: Json
) -> dict[str, Json]:
    """A rule of that pack that echoes its own name whenever the timer fires."""
    return client.create_rule(
        f"{pack_ref}.{name}",
        pack_ref,
        trigger_ref=trigger_ref,
        trigger_params=params,
        **{"action_ref": "core.echo", "action_params": {"message": name}, **fields},
    )


def firings(client: AttuneClient, rule: dict[str, Json]) -> list[dict[str, Json]]:
    """The events of a timer's rule, oldest first."""
    events = [each for each in client.list_events(trigger_ref=rule["trigger_ref"]) if each["rule_ref"] == rule["ref"]]
    return sorted(events, key=lambda event: str(event["created"]))


def due_second(event: dict[str, Json]) -> int:
    """When a timer's event was due, in seconds since the epoch: its id is made of that (``store.timers.Shot``)."""
    return ids.milliseconds_of(int(event["id"])) // 1000


def late_by(event: dict[str, Json]) -> float:
    """Seconds by which a timer's event came after its time."""
    return datetime.fromisoformat(str(event["created"])).timestamp() - due_second(event)


def execution_count(client: AttuneClient, rule: dict[str, Json]) -> int:
    """How many executions the rule has started."""
    return len(client.list_executions(rule_ref=rule["ref"]))


def wait_for_firings(client: AttuneClient, rule: dict[str, Json], count: int, timeout: float) -> None:
    """Wait until the rule has started that many executions."""
    wait_for_execution_count(client, count, match="at least", rule_ref=rule["ref"], timeout=timeout)


def stays_for(client: AttuneClient, rule: dict[str, Json], seconds: float) -> int:
    """How many more events and executions there are after a while in which nothing is to happen: as soon as one comes,
    or when the time is over."""
    before = len(firings(client, rule)), execution_count(client, rule)
    deadline = time.monotonic() + seconds
    more = 0
    while not more and time.monotonic() < deadline:
        time.sleep(0.5)
        more = len(firings(client, rule)) + execution_count(client, rule) - sum(before)
    return more


def from_now(seconds: float) -> str:
    """That moment in ISO 8601."""
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()
