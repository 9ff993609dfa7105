"""What follows the end of an execution, whoever ended it: those who wait for it are told.

Everything here can be repeated: whoever ended an execution and died before this calls it again (design §2, rule 4).
"""

from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from chalicelib.domain.entities import Execution
from chalicelib.domain.executions import TERMINAL, WAITING
from chalicelib.domain.workflow.steps import Stop
from chalicelib.flow import cancel, gates, lanes, workflows
from chalicelib.flow.batches import each_or_all, one_by_one
from chalicelib.flow.workflows import Aftermath
from chalicelib.services import Services

M = TypeVar("M")

PARENT_CANCELLED: Final = "Cancelled: parent workflow execution was cancelled"  # semantics §2.7


def ended(services: Services, tenant: str, executions: Sequence[Execution]) -> None:
    """Tell whoever waits for these executions of ``tenant``, which have just ended, or ended some time ago."""
    waiting = deque([Aftermath(ended=list(executions))])
    while waiting:
        aftermath = waiting.popleft()
        by_parent: dict[int, list[Execution]] = defaultdict(list)
        for execution in aftermath.ended:
            gates.ended(services, tenant, execution)
            lanes.left(services, tenant, execution)
            if execution.parent is not None:
                by_parent[execution.parent].append(execution)
        # A run that has ended with its children may be a child itself.
        waiting.extend(workflows.take_in(services, tenant, parent, some) for parent, some in by_parent.items())
        for stop in aftermath.stop:
            _stop(services, tenant, stop)


def work_off(services: Services, messages: Sequence[M], take: Callable[[M], tuple[str, Execution] | None]) -> list[int]:
    """Work through a batch of messages, each of which may end an execution: ``take`` gives it with its tenant.

    Those who wait are told of all ends together, so that a workflow makes one step for many. Returns the positions of
    the messages to deliver again.
    """
    over: dict[str, dict[int, Execution]] = defaultdict(dict)

    def work(position: int) -> None:
        ended_by_it = take(messages[position])
        if ended_by_it is not None:
            over[ended_by_it[0]][position] = ended_by_it[1]

    failed = one_by_one(range(len(messages)), work)
    for tenant, executions in over.items():

        def tell(positions: Sequence[int], tenant: str = tenant, ends: dict[int, Execution] = executions) -> None:
            ended(services, tenant, [ends[position] for position in positions])

        failed += each_or_all(list(executions), tell)
    return failed


def told_again(services: Services, tenant: str, id_: int) -> Execution | None:
    """The execution ``id_`` if it has ended and somebody may still have to be told: for one that turns out to have been
    ended by an earlier delivery of the same message, which may have died before it told anybody."""
    execution = services.store.tenant(tenant).activity.get_execution(id_)
    if execution is None or execution.status not in TERMINAL:
        return None
    return execution if execution.parent is not None or execution.lane is not None else None


def carry_out(services: Services, tenant: str, aftermath: Aftermath) -> None:
    """Do what a step of a workflow run leaves to be done."""
    for stop in aftermath.stop:
        _stop(services, tenant, stop)
    if aftermath.ended:
        ended(services, tenant, aftermath.ended)


def _stop(services: Services, tenant: str, stop: Stop) -> None:
    activity = services.store.tenant(tenant).activity
    stopped: list[Execution] = []
    for id_ in stop.executions:
        result = {"succeeded": False, "error": PARENT_CANCELLED}
        cancelled = activity.transition(id_, from_=WAITING, to="cancelled", result=result, now=services.clock())
        if cancelled is not None:
            stopped.append(cancelled)
        elif stop.running or workflows.run_of(services, tenant, id_) is not None:
            try:
                cancel.cancel(services, tenant, id_)
            except cancel.NotCancellableError:
                continue  # it has ended meanwhile, and whoever ended it tells of it
    if stopped:
        ended(services, tenant, stopped)
