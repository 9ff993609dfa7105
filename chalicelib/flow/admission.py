"""Concurrency policies at the executor's door (docs/decisions/026-concurrency-policies.md)."""

from dataclasses import dataclass
from typing import Final

from chalicelib.domain.admission import arrive, lane_of
from chalicelib.domain.entities import Action, Execution
from chalicelib.domain.executions import TERMINAL, WAITING
from chalicelib.flow.lanes import Lane, leave, left, reconsider
from chalicelib.protocol import ExecutionRequested, PolicyChanged
from chalicelib.services import Services


@dataclass(frozen=True, slots=True)
class Admission:
    """Whether an execution may begin, and itself if it has ended instead."""

    begins: bool
    over: Execution | None = None


_BEGINS: Final = Admission(begins=True)
_WAITS: Final = Admission(begins=False)


def admit(services: Services, message: ExecutionRequested, action: Action) -> Admission:
    """Whether a requested execution may begin now, as far as the policy of its action goes. Costs nothing without one.

    If not, it stands in a queue and is requested again when its turn comes, or it is cancelled, if that is the policy's
    method. One that no longer waits may begin: whoever claims it finds out.
    """
    policy = action.concurrency
    if policy is None:
        return _BEGINS
    activity = services.store.tenant(message.tenant).activity
    execution = activity.get_execution(message.id)
    if execution is None:
        return _WAITS
    if execution.status in TERMINAL:
        left(services, message.tenant, execution)  # its turn may have come just after it had ended
        return Admission(begins=False, over=execution)
    if execution.status not in WAITING:
        return _BEGINS
    number = lane_of(policy, execution.config)
    if execution.lane != number:
        leave(services, message.tenant, execution, policy)
        if activity.enter(message.id, number) is None:
            return _BEGINS
    lane = Lane(services, message.tenant, action.ref, number)
    verdict = lane.walk(arrive(message.id, policy, services.clock()))
    if verdict == "refused":
        error = (
            f"Cancelled: {action.ref} runs {policy.threshold} time(s) at once already, as its concurrency policy says"
        )
        result = {"succeeded": False, "error": error}
        over = activity.transition(message.id, from_=WAITING, to="cancelled", result=result, now=services.clock())
        return Admission(begins=False, over=over)
    return _BEGINS if verdict == "go" else _WAITS


def changed(services: Services, tenant: str, before: Action | None, after: Action | None) -> None:
    """An action has been written: if its policy is another, have those who wait for slots looked at."""
    if before is None or before.concurrency is None or (after is not None and after.concurrency == before.concurrency):
        return
    version = services.snapshots.of(tenant).version
    services.queues.policy_changed(PolicyChanged(tenant=tenant, action_ref=before.ref, registry=version))


def take_in(services: Services, message: PolicyChanged) -> None:
    """Look at those who wait under the policy that was."""
    snapshot = services.snapshots.of(message.tenant, at_least=message.registry)
    reconsider(services, message.tenant, message.action_ref, snapshot.action(message.action_ref))
