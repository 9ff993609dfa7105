"""The tick: the one schedule of the platform, once a minute (design §5)."""

from chalicelib.flow import garbage, gates, sensors, tenants, timers
from chalicelib.flow.sweeper import sweep
from chalicelib.log import logger
from chalicelib.services import Services


def handle(services: Services) -> None:
    """Do what a minute's passing asks for. A tick that comes twice, or late, does no harm."""
    now = services.clock()
    due = services.store.due(now)
    # Timers first: the sweeper may have much to make up for, and they have their time.
    sent = timers.look_at(services, due.timers, now)
    polls = sensors.watch(services, now)
    looked_at = sweep(services, due.executions, now)
    held = gates.settle(services)
    gone = tenants.remove_some(services)
    let_go = garbage.collect(services, due.garbage, now)
    logger.info(
        "tick",
        timers=len(due.timers),
        sent=sent,
        polls=polls,
        looked_at=looked_at,
        gates=held,
        tenants_removed=gone,
        garbage=let_go,
    )
