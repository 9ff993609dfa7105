"""Being woken at a moment: how an open execution is looked at again when one of its deadlines comes (design §5).

Within fifteen minutes a delayed message does it, to the second. Beyond, the row stands in the index of what is due at a
moment before the deadline, and whoever looks at it then sends the message.
"""

from datetime import datetime, timedelta
from typing import Final

from chalicelib.protocol import Wake
from chalicelib.services import Services

_AHEAD: Final = timedelta(minutes=5)  # more than a late tick, less than a message can be delayed
_WITHIN: Final = timedelta(minutes=14)


def delay_until(moment: datetime, now: datetime) -> int | None:
    """Seconds that a message is delayed to come at ``moment``; None if that is further off than a message can wait.

    A second is the grain of SQS: rounded up, so that nothing comes early.
    """
    return None if moment - now > _WITHIN else max(0, -((now - moment) // timedelta(seconds=1)))


def wake_at(services: Services, tenant: str, id_: int, moment: datetime) -> None:
    """Have the execution looked at (``flow.sweeper.look_at``) at ``moment``, at once if that is past.

    A wake may come twice or when nothing is due any more: looking finds out. If the message is lost, the sweeper looks
    within a quarter of an hour.
    """
    delay = delay_until(moment, services.clock())
    if delay is not None:
        services.queues.wake(Wake(tenant=tenant, id=id_), delay=delay)
    else:
        services.store.tenant(tenant).activity.look_again(id_, moment - _AHEAD)
