"""Ten thousand timer rules, five hundred of them due in the same second (issue 4), made and read over HTTP."""

import json
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import msgspec
from helpers.client import AttuneClient, Json
from helpers.polling import wait_for
from helpers.stack import Stack
from helpers.timers import create_timer_rule, late_by

from bench.pipeline import deployed_handler

RULES = 10_000
TOGETHER = 500
AHEAD = 240  # seconds: they are due long enough after they were made for the tick to send them
CLIENTS = 8
TIMEOUT = 120

_MINUTE = {
    "version": "0",
    "id": "bench",
    "detail-type": "Scheduled Event",
    "source": "aws.events",
    "account": "000000000000",
    "time": "2026-01-01T00:00:00Z",
    "region": "us-east-1",
    "resources": [],
    "detail": {},
}


class Swarm(msgspec.Struct, kw_only=True):
    """``idle_tick_s``: how long a tick takes with all these rules and none due. ``p50`` and so on: seconds by which the
    firings of one second were taken up after it. ``there_s``: when all their executions could be seen, ``done_s``: when
    the last of them was done."""

    rules: int
    created_per_second: float
    idle_tick_s: float
    together: int
    fired: int
    twice: int
    p50: float
    p95: float
    max: float
    there_s: float
    done_s: float


def measure(stack: Stack, client: AttuneClient, pack: str, rules: int = RULES, together: int = TOGETHER) -> Swarm:
    """Makes the rules, lets those that are due together fire, and deletes nothing: that goes with the pack."""
    began = time.monotonic()
    idle: dict[str, Json] = {"interval": 1, "unit": "days"}
    _create(client, pack, ((f"idle_{n}", "core.intervaltimer", idle) for n in range(rules - together)))
    at = datetime.fromtimestamp(int(time.time()) + AHEAD, UTC)
    due: dict[str, Json] = {"fire_at": at.isoformat()}
    _create(client, pack, ((f"due_{n}", "core.datetimetimer", due) for n in range(together)))
    created_per_second = rules / (time.monotonic() - began)
    idle_tick = _tick_seconds(stack)
    prefix = f"{pack}.due_"

    def fired() -> list[dict[str, Json]]:
        events = client.list_events(trigger_ref="core.datetimetimer")
        return [event for event in events if str(event["rule_ref"]).startswith(prefix)]

    executions = {"trigger_ref": "core.datetimetimer", "action_ref": "core.noop"}
    time.sleep(max(0.0, at.timestamp() + 0.3 - time.time()))
    while client.count_executions(**executions) < together and time.time() < at.timestamp() + TIMEOUT:
        time.sleep(0.2)
    there = time.time() - at.timestamp()
    done = {**executions, "status": "completed"}
    wait_for(lambda: client.count_executions(**done) >= together, timeout=TIMEOUT, what="their executions")
    ended = max(datetime.fromisoformat(each["updated"]) for each in client.list_executions(**done))
    late = sorted(late_by(event) for event in fired())
    return Swarm(
        rules=rules,
        created_per_second=created_per_second,
        idle_tick_s=idle_tick,
        together=together,
        fired=len(late),
        twice=len(late) - len({event["rule_ref"] for event in fired()}),
        p50=late[len(late) // 2],
        p95=late[int(len(late) * 0.95)],
        max=late[-1],
        there_s=there,
        done_s=(ended - at).total_seconds(),
    )


def _create(client: AttuneClient, pack: str, timers: Iterable[tuple[str, str, dict[str, Json]]]) -> None:
    with ThreadPoolExecutor(CLIENTS) as pool:
        for _ in pool.map(lambda timer: create_timer_rule(client, pack, *timer, action_ref="core.noop"), timers):
            pass


def _tick_seconds(stack: Stack) -> float:
    """The quickest of some ticks: a minute's own may come in between."""
    function = deployed_handler(stack, "app.on_minute")["FunctionName"]
    seconds = []
    for _ in range(3):
        began = time.monotonic()
        stack.aws_client("lambda").invoke(FunctionName=function, Payload=json.dumps(_MINUTE).encode())
        seconds.append(time.monotonic() - began)
    return min(seconds)


def table(measured: Swarm) -> str:
    """The measurement as text."""
    return (
        f"{measured.rules:,} timer rules, made at {measured.created_per_second:.0f}/s; "
        f"an idle tick takes {measured.idle_tick_s:.2f} s\n"
        f"{measured.together} due in one second: {measured.fired} fired, {measured.twice} of them twice, late by "
        f"{measured.p50:.2f} s (p50), {measured.p95:.2f} s (p95), {measured.max:.2f} s (max); "
        f"their executions were there after {measured.there_s:.1f} s, done after {measured.done_s:.1f} s"
    )
