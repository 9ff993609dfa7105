"""Walking the steps of ``domain.admission`` on the tables: who may run now, and who comes next when one has ended."""

from typing import Any

from chalicelib.domain import admission
from chalicelib.domain.admission import AskEnded, Dequeue, Enqueue, ReadHolders, ReadQueue, Start, Step, Steps, Swap
from chalicelib.domain.entities import Action, Concurrency, Execution
from chalicelib.domain.executions import TERMINAL
from chalicelib.flow.rules import request_for
from chalicelib.services import Services
from chalicelib.store.activity import Activity


class Lane:
    """One lane of a tenant's action."""

    def __init__(self, services: Services, tenant: str, action_ref: str, number: int) -> None:
        self._services = services
        self._tenant = tenant
        self._action = action_ref
        self._number = number
        opened = services.store.tenant(tenant)
        self._lanes = opened.lanes
        self._activity: Activity = opened.activity

    def walk(self, steps: Steps) -> admission.Verdict:
        """What comes of ``steps``. Every one of them may be repeated, so whatever raises in between may be too."""
        answer = None
        while True:
            try:
                step = steps.send(answer)
            except StopIteration as end:
                verdict: admission.Verdict = end.value
                return verdict
            answer = self._take(step)

    def _take(self, step: Step) -> Any:
        match step:
            case ReadHolders():
                return self._lanes.holders(self._action, self._number)
            case ReadQueue():
                return self._lanes.queue(self._action, self._number)
            case Swap(old, new):
                return self._lanes.swap(self._action, self._number, old, new)
            case Enqueue(id_):
                self._lanes.enqueue(self._action, self._number, id_, self._services.clock())
            case Dequeue(ids):
                self._lanes.dequeue(self._action, self._number, ids)
            case AskEnded(ids):
                present = {each.id for each in self._activity.read(ids) if self._stands_here(each)}
                return [id_ for id_ in ids if id_ not in present]
            case Start(ids):
                version = self._services.snapshots.of(self._tenant).version
                started = [request_for(self._tenant, each, version) for each in self._activity.read(ids)]
                self._services.queues.executions_requested(started)
        return None

    def _stands_here(self, execution: Execution) -> bool:
        return execution.status not in TERMINAL and execution.lane == self._number


def left(services: Services, tenant: str, execution: Execution) -> None:
    """An execution that stood in a lane is over: whoever waits there may be next. Repeating it is harmless."""
    if execution.lane is None:
        return
    action = services.snapshots.of(tenant).action(execution.action_ref)
    policy = None if action is None else action.concurrency
    leave(services, tenant, execution, policy)


def leave(services: Services, tenant: str, execution: Execution, policy: Concurrency | None) -> None:
    """Take an execution out of the lane that it stands in; ``policy`` is its action's now."""
    if execution.lane is None:
        return
    if policy is None or not admission.is_of(policy, execution.lane):
        # The policy has changed since, so nobody need wait here any more.
        Lane(services, tenant, execution.action_ref, execution.lane).walk(admission.dissolve())
    else:
        lane = Lane(services, tenant, execution.action_ref, execution.lane)
        lane.walk(admission.leave(execution.id, policy, services.clock()))


def reconsider(services: Services, tenant: str, action_ref: str, action: Action | None) -> None:
    """The policy of an action has changed, or is gone: those who wait get what the new one gives them."""
    policy = None if action is None else action.concurrency
    for number in services.store.tenant(tenant).lanes.of_action(action_ref):
        lane = Lane(services, tenant, action_ref, number)
        if policy is None or not admission.is_of(policy, number):
            lane.walk(admission.dissolve())
        elif policy.method == "cancel":
            lane.walk(admission.drain())
        else:
            lane.walk(admission.settle(policy, services.clock()))
