"""The sweeper: moves on whatever has waited past its deadline, so that nothing is ever stuck (design §2, rule 5).

Every open row stands in the index by the time when somebody must look at it. Most rows have ended, and left the index,
long before.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from itertools import islice
from typing import Final

from chalicelib.domain.executions import WAITING, begins_at
from chalicelib.flow import endings, inquiries, workflows
from chalicelib.flow.conductor import lost, request_again
from chalicelib.flow.wakes import wake_at
from chalicelib.log import logger
from chalicelib.services import Services

LOOK_AGAIN: Final = timedelta(minutes=15)
ROWS_PER_SWEEP: Final = 2000  # after an outage: how much of what was missed one tick makes up for


def sweep(services: Services, due: Iterable[tuple[str, int]], now: datetime) -> int:
    """Look at the executions that are ``due`` (``Store.due``). Returns how many there were."""
    looked_at = 0
    for tenant, id_ in islice(due, ROWS_PER_SWEEP):
        looked_at += 1
        try:
            look_at(services, tenant, id_, now)
        except Exception:  # it stays due, and must not keep others from being looked at
            logger.exception("execution could not be looked at", tenant=tenant, execution=id_)
    return looked_at


def look_at(services: Services, tenant: str, id_: int, now: datetime) -> None:
    """Move on the execution ``id_`` if a deadline of its has come; whoever finds nothing to do does nothing."""
    activity = services.store.tenant(tenant).activity
    execution = activity.get_execution(id_)
    if execution is None:
        return
    inquiries.look_at(services, tenant, execution, now)
    if execution.status in WAITING and (begins := begins_at(execution)) is not None and begins > now:
        wake_at(services, tenant, id_, begins)
        return
    if execution.status in WAITING:
        logger.warning("execution still waiting, requested again", tenant=tenant, execution=id_)
        request_again(services, tenant, execution)
    elif execution.deadline is not None and execution.deadline <= now:
        logger.warning("execution silent past its deadline", tenant=tenant, execution=id_, attempt=execution.attempt)
        lost(services, tenant, id_, execution.attempt)
    elif execution.attempt == 0 and (missed := workflows.look_at(services, tenant, execution, now)) is not None:
        endings.carry_out(services, tenant, missed)
    activity.look_again(id_, max(execution.deadline or now, now + LOOK_AGAIN))
