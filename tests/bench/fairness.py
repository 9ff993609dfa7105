"""One tenant asks for 2,000 executions at once, another for one every second: the other's median must not double."""

import time

import msgspec
from helpers.flood import Latencies, flood, steadily
from helpers.stack import Stack
from helpers.tenants import own_tenant

FLOOD = 2000
EVERY = 1.0  # seconds between two executions of the other tenant
ALONE = 20  # executions of the other tenant before the flood
LONGEST = 900.0  # seconds


class Fairness(msgspec.Struct, kw_only=True):
    """Latencies in milliseconds (asked for → completed) of the tenant that does not flood; ``asked_s`` and
    ``drained_s`` are seconds until the flood was asked for, and until it had run."""

    flood: int
    alone_median_ms: float
    during_median_ms: float
    during_worst_ms: float
    samples: int
    asked_s: float
    drained_s: float

    @property
    def holds(self) -> bool:
        return self.during_median_ms <= 2 * self.alone_median_ms


def measure(stack: Stack, count: int | None) -> Fairness:
    count = count or FLOOD
    with own_tenant(stack) as loud, own_tenant(stack) as steady:
        steadily(steady, every=0.2, go_on=lambda number: number < 5)  # warm
        alone = steadily(steady, every=EVERY, go_on=lambda number: number < ALONE)
        began = time.monotonic()
        asked = drained = 0.0
        with flood(loud, count) as asking:

            def go_on(_: int) -> bool:
                nonlocal asked, drained
                drained = time.monotonic() - began
                if asking.poll() is None:
                    asked = drained
                    return True
                return drained < LONGEST and loud.data("GET", "executions/stats")["completed"] < count

            during = steadily(steady, every=EVERY, go_on=go_on)
        after = steadily(steady, every=EVERY, go_on=lambda number: number < ALONE)
    # Before and after, for the machine has other work, too.
    alone = Latencies([*alone.seconds, *after.seconds])
    return Fairness(
        flood=count,
        alone_median_ms=alone.median * 1000,
        during_median_ms=during.median * 1000,
        during_worst_ms=during.worst * 1000,
        samples=len(during.seconds),
        asked_s=asked,
        drained_s=drained,
    )


def table(measured: Fairness) -> str:
    """The measurement as text."""
    verdict = "holds" if measured.holds else "OVER"
    return (
        f"flood of {measured.flood}: asked for in {measured.asked_s:.0f} s, run in {measured.drained_s:.0f} s\n"
        f"the other tenant, one every second: median {measured.alone_median_ms:.0f} ms alone, "
        f"{measured.during_median_ms:.0f} ms during the flood "
        f"({measured.samples} samples, worst {measured.during_worst_ms:.0f} ms): {verdict}"
    )
