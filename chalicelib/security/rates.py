"""How fast one caller may call one process: token buckets in memory, no call to anywhere.

A first line against a client that runs wild (docs/decisions/020-login-throttle.md). Each warm process counts for
itself, so the bound grows with the number of processes; API Gateway's throttling bounds those together, quotas the
tenant.
"""

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Final

RATE: Final = 50.0  # requests a second that one caller may go on making
BURST: Final = 500.0  # requests at once, after a pause
_CALLERS: Final = 10_000  # remembered per process; who is forgotten begins with a full bucket


class Rates:
    """The buckets of one process. ``clock`` counts seconds and never goes back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, rate: float = RATE, burst: float = BURST) -> None:
        self._clock = clock
        self._rate = rate
        self._burst = burst
        self._buckets: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()  # what is in it, and since when

    def wait(self, caller: Hashable) -> int:
        """Take one request out of the caller's bucket. 0: there was one; else the whole seconds until there is."""
        now = self._clock()
        left, since = self._buckets.pop(caller, (self._burst, now))
        left = min(self._burst, left + (now - since) * self._rate)
        allowed = left >= 1
        self._buckets[caller] = (left - 1 if allowed else left, now)
        if len(self._buckets) > _CALLERS:
            self._buckets.popitem(last=False)
        return 0 if allowed else math.ceil((1 - left) / self._rate)
