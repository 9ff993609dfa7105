"""How late timers fire: timers of 1, 2, 3, 5 and 7 seconds for a minute, over HTTP."""

from datetime import datetime, timedelta

import msgspec
from helpers.client import AttuneClient
from helpers.polling import wait_for_execution_count
from helpers.timers import create_timer_rule, firings

INTERVALS = (1, 2, 3, 5, 7)
SECONDS = 60


class Firing(msgspec.Struct, kw_only=True):
    """Seconds by which the firings of one interval came after their time; ``left_out`` and ``twice`` are to be zero."""

    interval: int
    firings: int
    left_out: int
    twice: int
    p50: float
    p95: float
    max: float


def measure(client: AttuneClient, pack: str, seconds: int = SECONDS) -> list[Firing]:
    """Run the timers side by side for ``seconds``."""
    rules = {
        interval: create_timer_rule(client, pack, f"every_{interval}", "core.intervaltimer", {"interval": interval})
        for interval in INTERVALS
    }
    for interval, rule in rules.items():
        wait_for_execution_count(
            client, seconds // interval, match="at least", rule_ref=rule["ref"], timeout=seconds + 60
        )
    for rule in rules.values():
        client.disable_rule(rule["ref"])
    return [_judge(client, rule, interval) for interval, rule in rules.items()]


def _judge(client: AttuneClient, rule: dict[str, object], interval: int) -> Firing:
    first = datetime.fromisoformat(str(rule["next_fire_at"]))
    numbers: list[int] = []
    late: list[float] = []
    for event in firings(client, rule):
        payload = client.data("GET", f"events/{event['id']}")["payload"]
        due = first + timedelta(seconds=interval * (payload["execution_count"] - 1))
        numbers.append(payload["execution_count"])
        late.append((datetime.fromisoformat(payload["fired_at"]) - due).total_seconds())
    late.sort()
    return Firing(
        interval=interval,
        firings=len(numbers),
        left_out=max(numbers) - len(set(numbers)),
        twice=len(numbers) - len(set(numbers)),
        p50=late[len(late) // 2],
        p95=late[int(len(late) * 0.95)],
        max=late[-1],
    )


def table(measured: list[Firing]) -> str:
    """The measurements as text."""
    lines = [f"{'timer':>8} {'firings':>8} {'left out':>9} {'twice':>6} {'p50 s':>7} {'p95 s':>7} {'max s':>7}"]
    lines += [
        f"{each.interval:>6} s {each.firings:>8} {each.left_out:>9} {each.twice:>6} "
        f"{each.p50:>7.2f} {each.p95:>7.2f} {each.max:>7.2f}"
        for each in measured
    ]
    return "\n".join(lines)
