"""Who may start now: a tenant that asks for more than its share waits, so that the others go on as before.

A process lets a tenant start some executions without asking. Then it looks how many of the tenant's are open, and goes
on like that while they are few; when there are more than the tenant may run at once, or it starts more in a minute than
it may, it gets a gate (``store.gates``). Behind the gate executions rest as ``requested`` rows, which cost nothing, and
each that ends lets the next ones through:

    message ─► executor ─► free: start ────────────────────► runner ─► conductor
                  │                                             ▲          │ a seat is free
                  └─► gate: beyond `admitted`, the row waits    └── pull ◄─┘ next rows in the order of their ids

Why so: docs/decisions/022-fair-queueing.md. What is lost on the way (a message, a seat) the tick puts right.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Final, Literal, TypeVar

import msgspec

from chalicelib.domain.entities import SYSTEM_TENANT, Execution
from chalicelib.domain.executions import CANCELING, RUNNING, WAITING, begins_at
from chalicelib.domain.runtimes import NATIVE
from chalicelib.flow.pace import STARTS
from chalicelib.flow.rules import request_for, seen_by_sender
from chalicelib.log import logger
from chalicelib.protocol import ExecutionRequested
from chalicelib.services import Services
from chalicelib.store.activity import Activity
from chalicelib.store.gates import FREE_FOR, FREE_STARTS, LOOK_EVERY, Known

T = TypeVar("T")

Verdict = Literal["start", "seat", "wait"]

_LOOKS: Final = 5  # pages of open executions that are looked through for some that take a place
COUNTED: Final = 500  # admitted executions that the tick looks at, and requests again

# What ``waiting_for`` says of an execution.
TOO_MANY: Final = "a free place: the tenant runs as many executions at once as it may"
TOO_FAST: Final = "the next minute: the tenant has started as many executions in this one as it may"
HELD_UP: Final = "its turn: the tenant was suspended, and what waited starts by and by"


def through(services: Services, message: ExecutionRequested, start: Callable[[ExecutionRequested], T]) -> T | None:
    """``start`` what ``message`` asks for, if it may start now. Otherwise its row waits, and the message is over."""
    tenant, now = message.tenant, services.clock()
    action = seen_by_sender(services, tenant, message, now).action(message.action_ref)
    if tenant != SYSTEM_TENANT:
        services.gates.see(tenant, now)
    if not _is_open(services, tenant):
        return _finishing(services, message, start)
    runs = action is not None and action.workflow_def is None and action.runtime_ref != NATIVE
    verdict = enter(services, tenant, message.id, seat=message.seat, runs=runs)
    if verdict == "wait":
        return None
    began = start(msgspec.structs.replace(message, seat=verdict == "seat"))
    if verdict == "seat":
        execution = services.store.tenant(tenant).activity.get_execution(message.id)
        if execution is None or (execution.status != "requested" and not execution.seat):
            pull(services, tenant, freed=1)  # it needs no runner, or has ended before it came to one
    return began


def _finishing(services: Services, message: ExecutionRequested, start: Callable[[ExecutionRequested], T]) -> T | None:
    """The same for a tenant that is suspended: what runs may end, so the tasks of its workflows start. What waits is
    requested again when the tenant is resumed."""
    if services.tenants.standing(message.tenant, default=services.settings.default_tenant) == "gone":
        return None
    execution = services.store.tenant(message.tenant).activity.get_execution(message.id)
    return start(message) if execution is not None and execution.parent is not None else None


def enter(services: Services, tenant: str, id_: int, *, seat: bool, runs: bool = True) -> Verdict:
    """Whether the execution may start now. ``seat``: it may, and gives its seat back when it ends (:func:`ended`);
    ``wait``: its row stays as it is, and somebody will request it. One that ``runs`` on no runner (a workflow, a
    question) takes no place of another's, so it need not wait for one: its tasks could not get past it."""
    if seat or tenant == SYSTEM_TENANT:
        return "seat" if seat else "start"
    now = services.clock()
    known = services.gates.of(tenant, now, free := _free(services, tenant))
    known.left = min(known.left, free)
    if not runs and (known.gate is None or known.gate.reason == TOO_MANY) and _in_pace(services, tenant, now):
        return "start"
    if known.gate is None:
        if known.left > 0 and now < known.until and _in_pace(services, tenant, now):
            known.left -= 1
            return "start"
        _look(services, tenant, known, id_, now)
    elif known.looked is None or now - known.looked >= LOOK_EVERY:
        known.gate, known.looked = services.store.tenant(tenant).gates.get(), now
        if known.gate is not None and known.gate.seats < share_of(services, tenant):
            pull(services, tenant)
    if known.gate is None:
        known.left, known.until = free, now + FREE_FOR
        return "start"
    if id_ < known.gate.start:
        return "start"
    if id_ <= known.gate.admitted:
        return "seat"
    if services.store.tenant(tenant).gates.turn_away(id_):
        return "wait"
    # What is known of the gate is a moment old: since then it was taken away, or went on.
    known.gate, known.looked = services.store.tenant(tenant).gates.get(), now
    return "start" if known.gate is None else "seat"


def _look(services: Services, tenant: str, known: Known, id_: int, now: datetime) -> None:
    """Find the tenant's gate, or out whether it needs one."""
    opened, most = services.store.tenant(tenant), _most_without_gate(services, tenant, now)
    known.gate, known.looked = opened.gates.get(), now
    if known.gate is not None:
        return
    rows = _taking_place(opened.activity, most + 1)
    reason = TOO_MANY if len(rows) > most else None
    if reason is None and not _in_pace(services, tenant, now):
        reason = TOO_FAST
    if reason is not None:
        start = min([id_, *(each.id for each in rows if each.status == "requested")])
        opened.gates.open(start, reason, now)
        for each in rows:
            # What runs already takes a seat, too; a workflow, or a question, runs on no runner and takes none. It may
            # end at this very moment, and give its seat back before it is counted: the sum is right all the same.
            if each.attempt > 0 and opened.activity.take_seat(each.id):
                opened.gates.take_seat()
        pull(services, tenant)
        known.gate = opened.gates.get()


def _taking_place(activity: Activity, most: int) -> list[Execution]:
    """The first executions, up to about ``most``, that run on a runner or may be about to."""
    found: list[Execution] = []
    after = 0
    for _ in range(_LOOKS):
        ids = activity.open_ids(after, most)
        if not ids:
            break
        # A workflow that runs, or a question that waits for its answer, was never handed to a runner.
        found += [each for each in activity.read(ids) if each.attempt > 0 or each.status in WAITING]
        if len(found) >= most or len(ids) < most:
            break
        after = ids[-1]
    return found


def _most_without_gate(services: Services, tenant: str, now: datetime) -> int:
    """How many may take a place before the tenant gets a gate: more than pass it while others are at work, so that
    whoever asks for a few things at once has no gate to wait at."""
    quota, share = services.tenants.quotas(tenant).running_at_once, services.settings.tenant_share
    return quota if share is None or services.gates.is_alone(tenant, now) else min(quota, share)


def _free(services: Services, tenant: str) -> int:
    """How many executions of the tenant a process starts before it looks: none where each counts, few where others are
    at work and what runs at once is bounded."""
    free = min(FREE_STARTS, services.tenants.quotas(tenant).running_at_once // 4)
    share = services.settings.tenant_share
    return free if share is None or services.gates.is_alone(tenant, services.clock()) else min(free, share)


def _in_pace(services: Services, tenant: str, now: datetime) -> bool:
    limit = services.tenants.quotas(tenant).executions_per_minute
    return services.pace.take(tenant, STARTS, 1, limit, now) == 1


def share_of(services: Services, tenant: str) -> int:
    """How many executions of the tenant may run at once. Where what runs at once is bounded, these are few while others
    are at work, who shall find a machine that is not busy with one tenant only."""
    quota = services.tenants.quotas(tenant).running_at_once
    share = services.settings.tenant_share
    if share is None or services.gates.is_alone(tenant, services.clock()):
        return quota
    return min(quota, max(1, share // 4))


def ended(services: Services, tenant: str, execution: Execution | None) -> None:
    """An execution has ended, or came to nothing: whoever waits for its seat is next."""
    if tenant != SYSTEM_TENANT:
        services.gates.see(tenant, services.clock())
    if execution is not None and execution.seat:
        pull(services, tenant, freed=1)


def pull(services: Services, tenant: str, *, freed: int = 0) -> None:
    """Let through the tenant's gate as many as there are seats, after ``freed`` have become free.

    Not for each single seat while others are taken: half of them at once costs half as many calls.
    """
    opened, share, now = services.store.tenant(tenant), share_of(services, tenant), services.clock()
    gate, again = opened.gates.give_back(freed) if freed else opened.gates.get(), False
    while gate is not None:
        room = share - max(gate.seats, 0)
        if room <= 0 or (freed and gate.seats > 0 and room < share // 2) or not _is_open(services, tenant):
            return
        looked = opened.activity.open_ids(gate.admitted, room + 5)
        if not looked:
            if gate.seats > 0 or again or opened.gates.close(gate):
                return
            # Somebody was told to wait meanwhile: look for them, and leave the rest to the tick.
            gate, again = opened.gates.get(), True
            continue
        waiting = [each for each in opened.activity.read(looked) if each.status == "requested"]
        limit = services.tenants.quotas(tenant).executions_per_minute
        wanted = waiting[:room]
        allowed = wanted[: services.pace.take(tenant, STARTS, len(wanted), limit, now)]
        up_to = allowed[-1].id if allowed else gate.admitted
        if len(allowed) == len(waiting):
            up_to = looked[-1]
        reason = TOO_FAST if len(allowed) < len(wanted) else TOO_MANY if gate.reason == TOO_FAST else gate.reason
        if (up_to, reason) == (gate.admitted, gate.reason) or not opened.gates.admit(gate, up_to, len(allowed), reason):
            return
        _request(services, tenant, allowed)
        if allowed or reason == TOO_FAST:
            return
        gate = opened.gates.get()  # what was looked at runs already: look further


def _request(services: Services, tenant: str, executions: list[Execution]) -> None:
    now = services.clock()
    # A retry that waits for its moment has a message under way that comes then.
    due = [each for each in executions if (begins_at(each) or now) <= now]
    if due:
        version = services.snapshots.of(tenant).version
        services.queues.executions_requested([request_for(tenant, each, version, seat=True) for each in due])


def _is_open(services: Services, tenant: str) -> bool:
    return services.tenants.is_open(tenant, default=services.settings.default_tenant)


def hold_up(services: Services, tenant: str) -> None:
    """Let what waits of the tenant, since whenever, start by and by."""
    services.store.tenant(tenant).gates.open(1, HELD_UP, services.clock())
    pull(services, tenant)


def settle(services: Services) -> int:
    """Count again what stands at gates, request again what was let through and has not begun, and let through whoever
    can go: the tick's part. Returns how many gates there are."""
    tenants = services.store.gated()
    for tenant in tenants:
        try:
            _settle(services, tenant)
            pull(services, tenant)
        except Exception:  # the next tick looks again, and the others must not wait for it
            logger.exception("gate could not be looked at", tenant=tenant)
    return len(tenants)


def _settle(services: Services, tenant: str) -> None:
    opened = services.store.tenant(tenant)
    gate = opened.gates.get()
    if gate is None:
        return
    admitted = [id_ for id_ in opened.activity.open_ids(gate.start - 1, COUNTED) if id_ <= gate.admitted]
    rows = opened.activity.read(admitted)
    taken = [each for each in rows if each.seat and each.status in (*RUNNING, *CANCELING)]
    lost = [each for each in rows if each.status == "requested"]
    if opened.gates.settle(
        gate, seats=len(taken) + len(lost), waiting=opened.activity.count_open(gate.admitted)
    ) and _is_open(services, tenant):
        _request(services, tenant, lost)


def reason_to_wait(services: Services, tenant: str, execution: Execution) -> str | None:
    """Why an execution that is ``requested`` has not begun, if it is for its tenant's gate."""
    if execution.status != "requested":
        return None
    gate = services.store.tenant(tenant).gates.get()
    if gate is None or execution.id < gate.start or execution.id <= gate.admitted:
        return None
    return gate.reason
