"""Cancelling an execution (semantics §2.7): at once while it waits, by way of ``canceling`` once it runs."""

from chalicelib.domain.entities import Execution
from chalicelib.domain.executions import CANCELING, RUNNING, TERMINAL, WAITING
from chalicelib.domain.inquiries import ASK
from chalicelib.flow import endings, inquiries, stopping, workflows
from chalicelib.services import Services

BEFORE_START = "Cancelled by user before execution started"


class NotCancellableError(Exception):
    """The execution has ended already."""


def cancel(services: Services, tenant: str, id_: int) -> Execution | None:
    """The execution as it stands after the request; None when there is none.

    Repeating it is harmless: an execution that is ``canceling`` comes back unchanged. Raises
    :class:`NotCancellableError` for one that has ended.
    """
    activity = services.store.tenant(tenant).activity
    now = services.clock()
    result = {"succeeded": False, "error": BEFORE_START}
    cancelled = activity.transition(id_, from_=WAITING, to="cancelled", result=result, now=now)
    if cancelled is not None:
        endings.ended(services, tenant, [cancelled])
        return cancelled
    run = workflows.run_of(services, tenant, id_)
    if run is not None and not run.state.over:
        endings.carry_out(services, tenant, workflows.cancel(services, tenant, id_))
        return activity.get_execution(id_)
    execution = activity.transition(id_, from_=RUNNING, to="canceling", now=now) or activity.get_execution(id_)
    if execution is not None and execution.status in CANCELING:
        if execution.action_ref == ASK:
            return inquiries.cancel(services, tenant, execution)
        stopping.stop(services, tenant, execution)  # again, if whoever asked before died before this
        return execution
    if execution is not None and execution.status in TERMINAL:
        raise NotCancellableError(f"execution {id_} is {execution.status} already")
    return execution
