"""The sweeper: moves on whatever has waited past its deadline, so that nothing is ever stuck (design §2, rule 5).

Every open row stands in the bucket of the minute when somebody must look at it. Most rows have ended, and left their
bucket, long before.
"""

from datetime import datetime, timedelta
from typing import Final

from chalicelib.domain.entities import Execution
from chalicelib.domain.executions import WAITING
from chalicelib.flow.conductor import lost
from chalicelib.flow.rules import request_for
from chalicelib.log import logger
from chalicelib.services import Services

LOOK_AGAIN: Final = timedelta(minutes=15)
MINUTES_PER_SWEEP: Final = 120  # after an outage: how much of what was missed one tick makes up for


def sweep(services: Services, now: datetime) -> int:
    """Look at every row that was due up to ``now``. Returns how many there were.

    The minute swept last is remembered, so that an outage leaves no bucket unread.
    """
    cursor = services.store.sweep_cursor()
    minute = max(cursor.get() or now - timedelta(minutes=1), now - timedelta(days=7))
    looked_at = 0
    for _ in range(MINUTES_PER_SWEEP):
        if minute > now:
            break
        for tenant, id_ in services.store.due(minute):
            _look_at(services, tenant, id_, now)
            looked_at += 1
        minute += timedelta(minutes=1)
    # The minute we are in is still being filled: read it again next time.
    cursor.set(min(minute, now) - timedelta(minutes=1))
    return looked_at


def _look_at(services: Services, tenant: str, id_: int, now: datetime) -> None:
    activity = services.store.tenant(tenant).activity
    execution = activity.get_execution(id_)
    if execution is None:
        return
    if execution.status in WAITING:
        logger.warning("execution still waiting, requested again", tenant=tenant, execution=id_)
        _request_again(services, tenant, execution)
    elif execution.deadline is not None and execution.deadline <= now:
        logger.warning("execution silent past its deadline", tenant=tenant, execution=id_, attempt=execution.attempt)
        lost(services, tenant, id_, execution.attempt)
    activity.look_again(id_, max(execution.deadline or now, now + LOOK_AGAIN))


def _request_again(services: Services, tenant: str, execution: Execution) -> None:
    version = services.snapshots.of(tenant).version
    services.queues.executions_requested([request_for(tenant, execution, version)])
