"""Whether an execution is still going on, as often as anybody asks: its token is dead when it has ended."""

from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from chalicelib.domain.executions import TERMINAL

if TYPE_CHECKING:
    from chalicelib.store.opening import Store

TTL: Final = 1.0  # seconds that a look at a live execution is good for
_KEPT: Final = 1_000  # executions remembered per process


class Liveness:
    """What this process knows of executions. ``clock`` counts seconds and never goes back (``time.monotonic``)."""

    def __init__(self, store: "Store", clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._looked: OrderedDict[tuple[str, int], tuple[bool, float]] = OrderedDict()

    def is_live(self, tenant: str, execution_id: int) -> bool:
        """Whether the execution exists and has not ended, as of a second ago at most. One small read, or none."""
        key, now = (tenant, execution_id), self._clock()
        known = self._looked.get(key)
        if known is not None and (not known[0] or now - known[1] < TTL):
            return known[0]
        status = self._store.tenant(tenant).activity.execution_status(execution_id)
        live = status is not None and status not in TERMINAL
        self._looked[key] = (live, now)
        self._looked.move_to_end(key)
        if len(self._looked) > _KEPT:
            self._looked.popitem(last=False)
        return live
