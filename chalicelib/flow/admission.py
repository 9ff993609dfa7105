"""Concurrency policies at the executor's door (docs/decisions/026-concurrency-policies.md)."""

from chalicelib.domain.admission import arrive, lane_of
from chalicelib.domain.entities import Action, Execution
from chalicelib.domain.executions import TERMINAL, WAITING
from chalicelib.flow import endings
from chalicelib.flow.lanes import Lane, leave, left, reconsider
from chalicelib.protocol import ExecutionRequested, PolicyChanged
from chalicelib.services import Services
from chalicelib.store.snapshot import Snapshot


def may_begin(services: Services, message: ExecutionRequested, action: Action) -> bool:
    """Whether a requested execution may begin now, as far as the policy of its action goes.

    If not, it is in the queue and will be requested again when its turn comes, or it is cancelled, if that is the
    policy's method. An execution that is no longer waiting may: whoever claims it finds out.
    """
    policy = action.concurrency
    if policy is None:
        return True
    activity = services.store.tenant(message.tenant).activity
    execution = activity.get_execution(message.id)
    if execution is None:
        return False
    if execution.status in TERMINAL:
        left(services, message.tenant, execution)  # it may have been given a slot too late
        return False
    if execution.status not in WAITING:
        return True
    number = lane_of(policy, execution.config)
    if execution.lane != number:
        leave(services, message.tenant, execution, policy)
        if activity.enter(message.id, number) is None:
            return True
    lane = Lane(services, message.tenant, action.ref, number, policy.parameters)
    verdict = lane.walk(arrive(message.id, policy, services.clock()))
    if verdict == "refused":
        _refuse(services, message.tenant, execution, policy.threshold)
    return verdict == "go"


def changed(services: Services, tenant: str, before: Action | None, after: Action | None) -> None:
    """An action has been written: if its policy is another, have those who wait for slots looked at."""
    old, new = (None if each is None else each.concurrency for each in (before, after))
    if before is None or old is None or (after is not None and old == new):
        return
    version = services.snapshots.of(tenant).version
    services.queues.policy_changed(PolicyChanged(tenant=tenant, action_ref=before.ref, registry=version))


def take_in(services: Services, message: PolicyChanged, snapshot: Snapshot) -> None:
    """Look at those who wait under the policy that was."""
    reconsider(services, message.tenant, message.action_ref, snapshot.action(message.action_ref))


def _refuse(services: Services, tenant: str, execution: Execution, threshold: int) -> None:
    error = (
        f"Cancelled: {execution.action_ref} runs {threshold} time(s) at once already, which is its concurrency policy"
    )
    cancelled = services.store.tenant(tenant).activity.transition(
        execution.id,
        from_=WAITING,
        to="cancelled",
        result={"succeeded": False, "error": error},
        now=services.clock(),
    )
    if cancelled is not None:
        endings.ended(services, tenant, [cancelled])
