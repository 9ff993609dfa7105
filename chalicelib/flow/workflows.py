"""Workflow runs on the store and the queues: each step is conducted, committed, and only then carried out (design §4).

Whoever is told of the same thing twice finds that nothing changes, and sends again what the first one may not have got
to send: a child that waits is requested again, a child that runs does not care.
"""

import random
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Final

import msgspec

from chalicelib.domain import templates
from chalicelib.domain.entities import Action, Execution, Json, WorkflowDefinition
from chalicelib.domain.executions import CANCELING, OPEN, RUNNING, TERMINAL, WAITING
from chalicelib.domain.workflow import conductor
from chalicelib.domain.workflow.conductor import outstanding
from chalicelib.domain.workflow.definition import Definition
from chalicelib.domain.workflow.graph import Graph
from chalicelib.domain.workflow.parsing import parse
from chalicelib.domain.workflow.scope import result_view
from chalicelib.domain.workflow.state import Again, Origin
from chalicelib.domain.workflow.steps import (
    Cancelled,
    Ended,
    Event,
    Expired,
    Paused,
    Resumed,
    Start,
    Step,
    Stop,
    World,
)
from chalicelib.flow.rules import request_for
from chalicelib.flow.secrets import read_key_for, seal
from chalicelib.flow.wakes import delay_until, wake_at
from chalicelib.protocol import ExecutionRequested
from chalicelib.security.access import access_of_identity, grants_of
from chalicelib.services import Services
from chalicelib.store.activity import BusyError, Move
from chalicelib.store.snapshot import Snapshot
from chalicelib.store.workflows import Run

_TRIES: Final = 25  # steps of one run that may come in between
_LONGEST_PAUSE: Final = 0.4  # seconds between two tries
_DEFINITIONS: Final = 200  # kept per process


class NotAWorkflowError(Exception):
    """The execution runs no workflow, or has not begun to."""


@dataclass(slots=True)
class Aftermath:
    """What a step leaves for others to do: ``ended`` runs whose own waiters are to be told, executions to ``stop``."""

    ended: list[Execution] = field(default_factory=list)
    stop: list[Stop] = field(default_factory=list)


def start(services: Services, snapshot: Snapshot, message: ExecutionRequested, action: Action) -> Aftermath:
    """Begin the run of a workflow's execution that is requested; again, if an earlier delivery got only so far."""
    tenant = message.tenant
    store = services.store.tenant(tenant)
    execution = store.activity.get_execution(message.id)
    if execution is None or execution.status in TERMINAL:
        return Aftermath()
    if execution.status not in WAITING:
        _send_again(services, snapshot, store.workflows.get(message.id))
        return Aftermath()
    workflow = snapshot.workflow(action.ref)
    graph, error = _graph_of(workflow)
    if workflow is None or graph is None:
        result = {"succeeded": False, "error": error}
        failed = store.activity.transition(message.id, from_=WAITING, to="failed", result=result, now=services.clock())
        return Aftermath([failed] if failed else [])
    kept = store.blobs.put_value(msgspec.json.encode(workflow.definition), folder="workflows")
    return _first_step(services, snapshot, graph, _origin(services, execution, action, kept, graph.definition))


def _origin(services: Services, execution: Execution, action: Action, kept: str, definition: Definition) -> Origin:
    now = services.clock()
    limit = execution.timeout or definition.timeout
    return Origin(
        execution=execution.id,
        action_ref=action.ref,
        pack_ref=action.pack_ref,
        definition=kept,
        started_at=now,
        workflow_def=action.workflow_def,
        parameters=execution.config,
        secrets=execution.secrets,
        executor=execution.executor,
        enforcement=execution.enforcement,
        rule_ref=execution.rule_ref,
        trigger_ref=execution.trigger_ref,
        env_vars=execution.env_vars,
        root=execution.root,
        timeout=limit,
        deadline=now + timedelta(seconds=limit) if limit else None,
        again=msgspec.convert(execution.rerun, Again) if execution.rerun else None,
    )


def _first_step(services: Services, snapshot: Snapshot, graph: Graph, origin: Origin) -> Aftermath:
    store = services.store.tenant(snapshot.tenant)
    before = None
    if origin.again is not None:
        before = store.workflows.get(origin.again.execution)
        if before is not None:
            graph = _kept_graph(services, snapshot.tenant, before.origin.definition)
            origin = msgspec.structs.replace(origin, definition=before.origin.definition)
    for attempt in range(_TRIES):
        world = _world(services, snapshot, origin, {})
        if before is None or origin.again is None:
            step = conductor.begin(graph, world)
        else:
            again = origin.again
            step = conductor.begin_again(graph, before.state, again.tasks, world, reset=again.reset)
        move = _move(services, snapshot.tenant, origin, step, world.now, begins=True)
        if _commit(services, snapshot, origin, step, move, world.now):
            if origin.deadline is not None and step.end is None:
                wake_at(services, snapshot.tenant, origin.execution, origin.deadline)
            return _carry_out(services, snapshot, origin, step)
        begun = store.workflows.get(origin.execution)
        if begun is not None:
            _send_again(services, snapshot, begun)
            return Aftermath()
        execution = store.activity.get_execution(origin.execution)
        if execution is None or execution.status not in WAITING:
            return Aftermath()
        _pause(attempt)
    raise BusyError(f"workflow {origin.execution} could not begin")


def take_in(services: Services, tenant: str, parent: int, children: Sequence[Execution]) -> Aftermath:
    """Advance the run of the execution ``parent`` by the end of ``children``."""
    events = [ending_of(child) for child in children]
    return _advance(services, tenant, parent, events, {child.id: child for child in children})


def ending_of(child: Execution) -> Ended:
    """What the conductor is told of an execution that is over."""
    task = child.workflow_task if isinstance(child.workflow_task, dict) else {}
    timed_out = child.timed_out or child.status == "timeout" or bool(task.get("timed_out"))
    return Ended(child=child.id, status=child.status, timed_out=timed_out)


def run_of(services: Services, tenant: str, id_: int) -> Run | None:
    """The run of an execution; None for one that runs no workflow, or has not begun to."""
    return services.store.tenant(tenant).workflows.get(id_)


def cancel(services: Services, tenant: str, id_: int) -> Aftermath:
    """Begin to end a run, by its ``cancellation_policy``; it is ``cancelled`` when nothing of it is left running."""
    return _advance(services, tenant, id_, [Cancelled()], {})


def pause(services: Services, tenant: str, id_: int) -> Aftermath:
    """Start nothing new in a run until it is resumed; what runs goes on. Raises :class:`NotAWorkflowError`."""
    return _told(services, tenant, id_, Paused())


def resume(services: Services, tenant: str, id_: int) -> Aftermath:
    """Start what was held back. Raises :class:`NotAWorkflowError`."""
    return _told(services, tenant, id_, Resumed())


class RerunError(Exception):
    """The execution cannot be run again like that; the message says why."""


def check_rerun(services: Services, tenant: str, id_: int, tasks: Sequence[str]) -> None:
    """Raises :class:`RerunError` unless ``tasks`` are of the run of the execution ``id_``, which reached them."""
    run = services.store.tenant(tenant).workflows.get(id_)
    if run is None:
        raise RerunError(f"execution {id_} ran no workflow, so it has no tasks: leave `tasks` out to run it again")
    unknown = [name for name in tasks if name not in run.state.tasks]
    if unknown:
        reached = ", ".join(run.state.tasks)
        raise RerunError(f"execution {id_} reached no task {', '.join(unknown)}; it reached {reached}")


def _told(services: Services, tenant: str, id_: int, event: Event) -> Aftermath:
    if run_of(services, tenant, id_) is None:
        raise NotAWorkflowError(f"execution {id_} runs no workflow")
    return _advance(services, tenant, id_, [event], {})


def look_at(services: Services, tenant: str, execution: Execution, now: datetime) -> Aftermath | None:
    """Find out what a run has missed: its deadline, or the end of an execution of its. None if it is no run."""
    store = services.store.tenant(tenant)
    run = store.workflows.get(execution.id)
    if run is None:
        return None
    deadline = run.origin.deadline
    if deadline is not None and deadline <= now:
        return _advance(services, tenant, execution.id, [Expired()], {})
    if deadline is not None and deadline - now < timedelta(hours=1):
        wake_at(services, tenant, execution.id, deadline)
    waited_for = list(outstanding(run.state))
    children = {each.id: each for id_ in waited_for if (each := store.activity.get_execution(id_)) is not None}
    over = [ending_of(child) for child in children.values() if child.status in TERMINAL]
    gone = [Ended(child=id_, status="abandoned") for id_ in waited_for if id_ not in children]
    again = [Cancelled()] if run.state.canceling else []
    return _advance(services, tenant, execution.id, [*over, *gone, *again], children)


def _advance(
    services: Services, tenant: str, id_: int, events: Sequence[Event], known: dict[int, Execution]
) -> Aftermath:
    store = services.store.tenant(tenant)
    snapshot = services.snapshots.of(tenant)
    for attempt in range(_TRIES):
        run = store.workflows.get(id_)
        if run is None or run.state.over:
            return Aftermath()
        graph = _kept_graph(services, tenant, run.origin.definition)
        world = _world(services, snapshot, run.origin, known)
        step = conductor.advance(graph, run.state, events, world)
        if not step.changed:
            _send_again(services, snapshot, run)
            return Aftermath()
        if _commit(services, snapshot, run, step, _move(services, tenant, run.origin, step, world.now), world.now):
            return _carry_out(services, snapshot, run.origin, step)
        _pause(attempt)
    raise BusyError(f"workflow {id_} is being advanced by others")


def _pause(attempt: int) -> None:
    """Let the others finish, the longer the more there seem to be."""
    most = min(_LONGEST_PAUSE, 0.005 * 2**attempt)
    time.sleep(random.uniform(0.001, most))  # noqa: S311  # jitter, not a secret


def _move(
    services: Services, tenant: str, origin: Origin, step: Step, now: datetime, *, begins: bool = False
) -> Move | None:
    """The transition of the run's own execution that belongs to a step, if it has one."""
    moving = services.store.tenant(tenant).activity.moving
    if step.end is not None:
        return moving(
            origin.execution,
            from_=WAITING if begins else (*RUNNING, *CANCELING),
            to=step.end.status,
            result=step.end.result,
            started_at=now if begins else None,
            timed_out=step.end.timed_out,
            now=now,
        )
    if begins:
        return moving(origin.execution, from_=WAITING, to="running", started_at=now, now=now)
    if any(note.what == "canceling" for note in step.notes):
        return moving(origin.execution, from_=(*RUNNING, *CANCELING), to="canceling", now=now)
    return None


def _commit(
    services: Services, snapshot: Snapshot, before: Run | Origin, step: Step, move: Move | None, now: datetime
) -> bool:
    run = before.origin.execution if isinstance(before, Run) else before.execution
    sealed: list[tuple[Execution, str]] = []
    for position, started in enumerate(step.starts):
        execution = started.execution
        action = snapshot.action(execution.action_ref)
        if action is not None:
            execution = seal(services, snapshot.tenant, execution, action)
        step.starts[position] = Start(execution, started.not_before)
        sealed.append((execution, _key(run, execution)))
    return services.store.tenant(snapshot.tenant).workflows.commit(
        before,
        step.state,
        now=now,
        starts=sealed,
        move=move,
        notes=[msgspec.to_builtins(note) for note in step.notes],
    )


def _key(run: int, execution: Execution) -> str:
    """What a task's execution exists once per (design §2): run, task, its run in a loop, item, attempt. The version of
    the state sees to that; the key says whose the row is."""
    task = execution.workflow_task
    return f"{run}/{task['task_name']}/{task.get('task_index')}/{task.get('retry_count')}/{execution.id}"


def _carry_out(services: Services, snapshot: Snapshot, origin: Origin, step: Step) -> Aftermath:
    """What follows a committed step."""
    _request(services, snapshot, [(start.execution, start.not_before) for start in step.starts])
    aftermath = Aftermath(stop=[step.stop] if step.stop is not None else [])
    if step.end is not None:
        own = services.store.tenant(snapshot.tenant).activity.get_execution(origin.execution)
        aftermath.ended += [own] if own is not None else []
    elif step.more:
        rest = _advance(services, snapshot.tenant, origin.execution, [], {})
        aftermath.ended += rest.ended
        aftermath.stop += rest.stop
    return aftermath


def _request(services: Services, snapshot: Snapshot, executions: Sequence[tuple[Execution, datetime | None]]) -> None:
    now = services.clock()
    by_delay: dict[int, list[ExecutionRequested]] = defaultdict(list)
    for execution, not_before in executions:
        if execution.status not in OPEN:
            continue
        begins = not_before or now
        delay = delay_until(begins, now)
        if delay is None:
            wake_at(services, snapshot.tenant, execution.id, begins)
        else:
            by_delay[delay].append(request_for(snapshot.tenant, execution, snapshot.version))
    for delay, messages in by_delay.items():
        services.queues.executions_requested(messages, delay=delay)


def _send_again(services: Services, snapshot: Snapshot, run: Run | None) -> None:
    """Request what a run waits for and what has not begun: whoever made the step may have died before that."""
    store = services.store.tenant(snapshot.tenant)
    if run is None or run.state.over:
        return
    children = outstanding(run.state)
    waiting = [each for each in map(store.activity.get_execution, children) if each and each.status in WAITING]
    _request(services, snapshot, [(each, children[each.id].not_before) for each in waiting])


# What the conductor asks of the world


def _world(services: Services, snapshot: Snapshot, origin: Origin, known: dict[int, Execution]) -> World:
    store = services.store.tenant(snapshot.tenant)
    pack = snapshot.pack(origin.pack_ref)

    def result(id_: int) -> Json:
        execution = known.get(id_) or store.activity.get_execution(id_)
        return None if execution is None else result_view(execution.result, execution.printed)

    return World(
        now=services.clock(),
        origin=origin,
        config=templates.pack_config(pack) if pack is not None else {},
        new_id=services.new_id,
        action=snapshot.action,
        result=result,
        read_key=lambda ref: read_key_for(services, snapshot, origin.executor, ref),
        may_hand_out=lambda refs: _may_hand_out(snapshot, origin.executor, refs),
        keep=lambda values: store.blobs.put_value(msgspec.json.encode(values), folder="items"),
        kept=_kept_items(services, snapshot.tenant),
    )


def _may_hand_out(snapshot: Snapshot, executor: int | None, refs: list[str]) -> bool:
    identity = None if executor is None else snapshot.identity_by_id(executor)
    return access_of_identity(snapshot, identity).covers(grants_of(snapshot, refs))


def _kept_items(services: Services, tenant: str) -> Callable[[str], list[Json]]:
    blobs = services.store.tenant(tenant).blobs
    return lambda name: _items(blobs.get, name)


@lru_cache(maxsize=50)
def _items(read: Callable[[str], bytes], name: str) -> list[Json]:
    """A list of items that was put away. Its name is its content, so it can be remembered."""
    return msgspec.json.decode(read(name), type=list[Json])


def _graph_of(workflow: WorkflowDefinition | None) -> tuple[Graph | None, str]:
    if workflow is None:
        return None, "the workflow's definition no longer exists"
    return _compiled(msgspec.json.encode(workflow.definition))


def _kept_graph(services: Services, tenant: str, name: str) -> Graph:
    """The definition that a run began with, whatever has become of the workflow since."""
    return _read_definition(services.store.tenant(tenant).blobs.get, name)


@lru_cache(maxsize=_DEFINITIONS)
def _read_definition(read: Callable[[str], bytes], name: str) -> Graph:
    graph, error = _compiled(read(name))
    if graph is None:
        raise RuntimeError(f"the workflow definition {name} cannot be read any more: {error}")
    return graph


@lru_cache(maxsize=_DEFINITIONS)
def _compiled(encoded: bytes) -> tuple[Graph | None, str]:
    parsed = parse(msgspec.json.decode(encoded))
    if parsed.definition is None:
        problems = "; ".join(f"{problem.path}: {problem.message}" for problem in parsed.problems)
        return None, f"the workflow's definition is not valid: {problems}"
    return Graph(parsed.definition), ""
