"""The conductor: from where a workflow run is and what has happened, to where it is then and what is to be done.

``advance(graph, state, events, world) -> Step`` is pure and deterministic: time, ids, results and definitions come in
as arguments, so that a recorded history can be replayed (design §4). An event that comes twice, or too late, changes
nothing. The rules are those of ``workflow-language.md`` §4 and README 9; where they leave something open,
``docs/workflows.md`` says what happens.
"""

import hashlib
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

import msgspec

from chalicelib.domain import executions
from chalicelib.domain.entities import Action, Execution, Json
from chalicelib.domain.executions import OPEN
from chalicelib.domain.expressions import ExpressionError
from chalicelib.domain.parameters import misplaced_secrets
from chalicelib.domain.workflow.definition import Definition, Retry, Task, Transition
from chalicelib.domain.workflow.graph import Graph
from chalicelib.domain.workflow.scope import Outcome, Scope, result_view
from chalicelib.domain.workflow.state import Child, Items, State, TaskState
from chalicelib.domain.workflow.steps import (
    Cancelled,
    End,
    Ended,
    Event,
    Expired,
    Note,
    Paused,
    Resumed,
    Start,
    Step,
    Stop,
    World,
)

MAX_STARTS: Final = 90  # per step: a transaction holds 100 rows, some of them the conductor's own
MAX_BEGINNINGS: Final = 1000  # per step, of tasks that run nothing as well: a loop of those must not take all day
MAX_ITEMS: Final = 10_000  # of one with_items
MAX_DELAY: Final = 366 * 86_400  # seconds
KEPT_INLINE: Final = 4_000  # bytes of a list of items that the state itself holds; a longer one is stored apart

CANCELLED: Final = {"error": "Workflow cancelled", "succeeded": False}


def begin(graph: Graph, world: World) -> Step:
    """The first step of a run."""
    run = _Run(graph, State(), world)
    try:
        rendered = run.scope(Outcome()).render(graph.definition.vars)
        run.state.variables.update(rendered)
    except ExpressionError as error:
        return run.give_up(f"vars: {error}")
    for name in graph.entries:
        run.call(name, by=None, iteration=0)
    return run.finish()


def begin_again(graph: Graph, before: State, tasks: Sequence[str], world: World, *, reset: bool) -> Step:
    """The first step of a run that keeps what succeeded in an earlier one and runs ``tasks`` again, and what they lead
    to. Of a ``with_items`` only what failed is run again, unless ``reset``."""
    state = State(variables=dict(before.variables), last=before.last)
    anew = graph.reachable_from([each for name in tasks for each in graph.successors(name)]) | set(tasks)
    for name, task in before.tasks.items():
        if name not in anew and task.status in ("completed", "skipped", "failed"):
            state.tasks[name] = msgspec.structs.replace(task, children={}, came=[], called=None, arriving=-1)
    for name in (task.name for task in graph.definition.tasks if task.name in anew):
        if graph.task(name).join is not None:
            through = [each for each in sorted(graph.gathered(name) - anew) if each in state.tasks]
            state.tasks[name] = TaskState(came=[each for each in through if state.tasks[each].status != "failed"])
    run = _Run(graph, state, world)
    for name in tasks:
        earlier = before.tasks.get(name)
        fresh = run.task(name)
        fresh.triggered_by = earlier.triggered_by if earlier else None
        if earlier and earlier.items and not reset and earlier.items.failed and graph.task(name).with_items is not None:
            fresh.items = Items(total=0, only=earlier.items.failures)
        if not _waits_for(graph, name, tasks):
            run.call(name, by=fresh.triggered_by, iteration=0, at_once=True)
    return run.finish()


def _waits_for(graph: Graph, name: str, tasks: Sequence[str]) -> bool:
    """Whether a task's join has to wait for others of ``tasks``, or for what they lead to."""
    before = [other for other in tasks if not graph.same_loop(other, name)]
    return graph.task(name).join is not None and bool(graph.gathered(name) & graph.reachable_from(before))


def advance(graph: Graph, state: State, events: Sequence[Event], world: World) -> Step:
    """The next step: ``events`` in order, then whatever may start now. ``state`` itself is not changed."""
    copy = msgspec.msgpack.decode(msgspec.msgpack.encode(state), type=State)
    run = _Run(graph, copy, world)
    if copy.over:
        return Step(copy)
    for event in events:
        run.take(event)
    return run.finish()


def outstanding(state: State) -> dict[int, Child]:
    """The executions that a run waits for."""
    return {id_: child for task in state.tasks.values() for id_, child in task.children.items()}


class _Run:
    """One step under way."""

    def __init__(self, graph: Graph, state: State, world: World) -> None:
        self.graph = graph
        self.definition: Definition = graph.definition
        self.state = state
        self.world = world
        self.step = Step(state)
        self._results: dict[int, Json] = {}
        self._begun = 0

    # What has happened

    def take(self, event: Event) -> None:
        match event:
            case Ended():
                self._child_ended(event)
            case Paused() if not self.state.paused:
                self.state.paused = True
                self._note("paused")
            case Resumed() if self.state.paused:
                self.state.paused = False
                self._note("resumed")
            case Cancelled():
                self._cancel()
            case Expired() if not self.state.over:
                self._expire()

    def _child_ended(self, event: Ended) -> None:
        name = next((name for name, task in self.state.tasks.items() if event.child in task.children), None)
        if name is None:
            return  # told before, or of a run before this one
        task, definition = self.state.tasks[name], self.graph.task(name)
        child = task.children.pop(event.child)
        succeeded = event.status == "completed"
        self._note(event.status, name, child.index, event.child)
        if not succeeded and not self.state.canceling and self._retry(definition, task, child, event):
            return
        task.result, task.ended, task.timed_out = event.child, event.status, event.timed_out
        if task.items is not None:
            task.items.ended += 1
            if not succeeded:
                task.items.add_failure(child.index or 0)
            if task.items.ended < _parts_wanted(task.items):
                return
            if task.items.failed and succeeded:
                task.ended = "failed"  # the last item went well, the task did not
        self._task_ended(definition, task)

    def _retry(self, definition: Task, task: TaskState, child: Child, event: Ended) -> bool:
        retry = definition.retry
        if retry is None or event.status not in ("failed", "timeout") or child.attempt >= retry.count:
            return False
        if retry.on_error is not None:
            view = self._result(event.child)
            outcome = Outcome(event.status, event.timed_out, takes_timeouts=False, result=view)
            try:
                if not self.scope(outcome, self._item(task, child.index)).holds(retry.on_error):
                    return False
            except ExpressionError as error:
                self._note("not retried", definition.name, child.index, event.child, cause=f"retry.on_error: {error}")
                return False
        attempt = child.attempt + 1
        wait = _wait(retry, attempt, seed=f"{event.child}")
        again = Child(
            index=child.index,
            attempt=attempt,
            not_before=self.world.now + timedelta(seconds=wait) if wait else None,
            first=child.first or event.child,
        )
        try:
            self._start(definition, task, again)
        except ExpressionError as error:
            self._note("not retried", definition.name, child.index, event.child, cause=str(error))
            return False
        return True

    def _cancel(self) -> None:
        if not self.state.canceling:
            self.state.canceling = True
            self.state.ready.clear()
            self._note("canceling")
        # Again, if asked again: whoever asked first may have died before anything was stopped.
        waiting = list(outstanding(self.state))
        if waiting:
            self.step.stop = Stop(waiting, running=self.definition.cancellation_policy == "cancel_running")

    def _expire(self) -> None:
        waiting = list(outstanding(self.state))
        if waiting:
            self.step.stop = Stop(waiting, running=True)
        self._drop_children()
        error = f"Workflow timed out after {self.world.origin.timeout} seconds"
        self._end(End("failed", {"error": error, "succeeded": False}, timed_out=True))

    def _drop_children(self) -> None:
        for task in self.state.tasks.values():
            if task.status in ("running", "pending"):
                task.status = "cancelled"
            task.children.clear()
        self.state.ready.clear()

    # The end of a task and what follows

    def _task_ended(self, definition: Task, task: TaskState) -> None:
        """The task has run: its transitions are considered, and those who wait for it learn of it."""
        name = definition.name
        succeeded = task.ended == "completed"
        self.state.last = name
        if task.status != "skipped":
            task.status = "completed" if succeeded else "failed"
        if self.state.canceling:
            return
        outcome = self._outcome(name)
        fired = [transition for transition in definition.next if self._fires(definition, transition, outcome)]
        for transition in fired:
            self._publish(definition, transition, outcome)
        if not succeeded and any(transition.do for transition in fired):
            task.status = "completed"  # handled (§4.4)
        iteration = task.iteration
        targets = dict.fromkeys(target for transition in fired for target in transition.do)
        if task.status != "failed":
            for target in self.graph.successors(name):
                self._through(name, target, iteration)
        for target in targets:
            self._note("reached", target, cause=name)
            self.call(target, by=name, iteration=self._iteration_at(name, target, iteration))
        if task.called is not None and task.arriving > task.iteration:
            self._begin_if_joined(name)  # called again while it ran

    def _fires(self, definition: Task, transition: Transition, outcome: Outcome) -> bool:
        if transition.when is None:
            return True
        try:
            return self.scope(outcome).holds(transition.when)
        except ExpressionError as error:
            # §4.3: a condition that cannot be evaluated counts as "on success"; the history says so.
            self._note("condition failed", definition.name, cause=str(error), detail={"when": transition.when})
            return outcome.succeeded

    def _publish(self, definition: Task, transition: Transition, outcome: Outcome) -> None:
        published: list[str] = []
        for name, value in transition.publish:
            try:
                self.state.variables[name] = self.scope(outcome).render(value)
                published.append(name)
            except ExpressionError as error:
                self._note("not published", definition.name, cause=str(error), detail={"variable": name})
                self.state.variables[name] = None
        if published:
            self._note("published", definition.name, detail={"variables": published})

    def _iteration_at(self, source: str, target: str, iteration: int) -> int:
        """The iteration that a transition takes ``target`` to: the next one where it closes a loop."""
        if self.graph.is_back(source, target):
            return iteration + 1
        return iteration if self.graph.same_loop(source, target) else 0

    def _through(self, source: str, target: str, iteration: int) -> None:
        """``source`` is through: what joins at ``target`` counts it."""
        definition = self.graph.task(target)
        if definition.join is None or definition.gathers or self.graph.is_back(source, target):
            return
        waiting = self.task(target)
        if self._iteration_at(source, target, iteration) <= waiting.iteration:
            return
        if source not in waiting.came:
            waiting.came.append(source)
        if waiting.called is not None:
            self._begin_if_joined(target)

    def call(self, name: str, *, by: str | None, iteration: int, at_once: bool = False) -> None:
        """A transition leads to ``name``. It begins if its join is complete and it has not begun for this iteration."""
        task, definition = self.task(name), self.graph.task(name)
        if iteration <= task.iteration:
            return  # it had begun already, by another way
        task.called = by or ""
        task.arriving = max(task.arriving, iteration)
        if definition.gathers and by is not None and by not in task.came:
            task.came.append(by)
        if at_once or (by is not None and self.graph.is_back(by, name)):
            task.came = sorted(self.graph.gathered(name))  # around a loop nobody comes but one
        self._begin_if_joined(name)

    def _begin_if_joined(self, name: str) -> None:
        task, definition = self.task(name), self.graph.task(name)
        if task.status == "running" or name in self.state.ready:
            return  # when it has ended, it is asked again
        wanted = definition.join
        if wanted is not None and task.called != "":
            gathered = len(self.graph.gathered(name))
            needed = gathered if wanted == "all" else min(wanted, gathered)
            if len(task.came) < needed:
                return
        self._reset(task)
        self.state.ready.append(name)

    def _reset(self, task: TaskState) -> None:
        """Make ready for a run: what has arrived is used up."""
        task.status = "pending"
        task.iteration = max(task.arriving, 0)
        task.triggered_by = task.called or None
        task.arriving, task.called, task.came = -1, None, []
        task.ended, task.timed_out, task.result, task.error = None, False, None, None
        if task.items is not None and task.items.total:  # else: what a rerun is to take up
            task.items = None

    # The beginning of a task

    def finish(self) -> Step:
        """Start what may start, and see whether the run is over."""
        state, step = self.state, self.step
        if not state.over and not state.paused and not state.canceling:
            self._start_ready()
        if not state.over and not outstanding(state) and not step.more:
            self._conclude()
        step.changed = bool(step.notes or step.starts or step.end or step.stop)
        return step

    def _start_ready(self) -> None:
        """Ready tasks in their order, then the next items of those under way, as long as there is room."""
        while self.state.ready and not self.state.over:
            if self._full:
                return
            self._begin(self.state.ready.pop(0))
        for name in self.state.named("running"):
            if self.state.tasks[name].items is not None:
                self._continue_items(name)

    @property
    def _full(self) -> bool:
        if len(self.step.starts) >= MAX_STARTS or self._begun >= MAX_BEGINNINGS:
            self.step.more = True
        return self.step.more

    def _begin(self, name: str) -> None:
        task, definition = self.state.tasks[name], self.graph.task(name)
        limit = definition.max_iterations or self.definition.max_iterations
        task.runs += 1
        self._begun += 1
        if task.runs > limit:
            # Not a failure like others: whatever follows it may well be the loop.
            task.status = task.ended = "failed"
            task.error = f"it ran {limit} times; raise max_iterations if that is meant"
            return self._note("failed", name, cause=task.error)
        try:
            if definition.when is not None and not self._scope_of(task).holds(definition.when):
                return self._skip(definition, task)
            if definition.action is None:
                # Where branches part or meet nothing runs, so `result()` stays that of the task before.
                before = self.state.tasks.get(task.triggered_by or "")
                task.result = None if before is None else before.result
                task.status, task.ended = "running", "completed"
                return self._task_ended(definition, task)
            if definition.with_items is not None:
                self._begin_items(definition, task)
            else:
                self._start(definition, task, Child(not_before=self._delay(definition, task)))
        except ExpressionError as error:
            self._fail_to_begin(definition, task, str(error))
        return None

    def _skip(self, definition: Task, task: TaskState) -> None:
        """Its condition does not hold: what follows a success follows, as if there were no such task."""
        task.status, task.ended = "skipped", "completed"
        self._note("skipped", definition.name, cause=f"when: {definition.when}")
        self._task_ended(definition, task)

    def _fail_to_begin(self, definition: Task, task: TaskState, error: str) -> None:
        task.ended, task.error, task.status = "failed", error, "running"
        self._note("failed", definition.name, cause=error)
        self._task_ended(definition, task)

    def _begin_items(self, definition: Task, task: TaskState) -> None:
        value = self._scope_of(task).render(definition.with_items)
        values = value if isinstance(value, list) else [value]
        if len(values) > MAX_ITEMS:
            raise ExpressionError(f"with_items gives {len(values)} items; at most {MAX_ITEMS} are possible")
        if size := definition.batch_size:
            values = [values[start : start + size] for start in range(0, len(values), size)]
        only = task.items.only if task.items is not None else None
        if only is not None:
            only = [index for index in only if index < len(values)]
        inline = len(msgspec.json.encode(values)) <= KEPT_INLINE
        task.items = Items(
            total=len(values),
            values=values if inline else None,
            stored=None if inline else self.world.keep(values),
            only=only,
        )
        task.status = "running"
        if _parts_wanted(task.items) == 0:
            task.ended = "completed"
            self._task_ended(definition, task)
        else:
            self._continue_items(definition.name)

    def _continue_items(self, name: str) -> None:
        task, definition = self.state.tasks[name], self.graph.task(name)
        items = task.items
        if items is None:
            return
        while items.next < _parts_wanted(items) and len(task.children) < definition.concurrency:
            if self._full:
                return
            index = items.only[items.next] if items.only is not None else items.next
            items.next += 1
            try:
                self._start(definition, task, Child(index=index, not_before=self._delay(definition, task)))
            except ExpressionError as error:
                items.ended += 1
                items.add_failure(index)
                task.ended, task.error = "failed", str(error)
                self._note("failed", name, index, cause=str(error))
        if items.ended >= _parts_wanted(items) and task.status == "running":
            task.ended = "failed" if items.failed else task.ended or "completed"
            self._task_ended(definition, task)

    def _delay(self, definition: Task, task: TaskState) -> datetime | None:
        if definition.delay is None:
            return None
        seconds = (
            self._scope_of(task).render(definition.delay) if isinstance(definition.delay, str) else definition.delay
        )
        if isinstance(seconds, str):
            try:
                seconds = float(seconds)
            except ValueError:
                raise ExpressionError(f"delay is not a number of seconds: {seconds!r}") from None
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= MAX_DELAY:
            raise ExpressionError(f"delay must be a number of seconds from 0 to {MAX_DELAY}, not {seconds!r}")
        return self.world.now + timedelta(seconds=seconds) if seconds else None

    def _start(self, definition: Task, task: TaskState, child: Child) -> None:
        """Make the execution of one attempt. One that breaks its action's schema has ended as it begins."""
        ref = definition.action or ""
        action = self.world.action(ref)
        if action is None:
            raise ExpressionError(f"action {ref} does not exist")
        scope = self._scope_of(task, self._item(task, child.index))
        execution = self._execution(definition, task, child, action, scope)
        task.status = "running"
        task.children[execution.id] = child
        self.step.starts.append(Start(execution, child.not_before))
        what = "retrying" if child.attempt else "started"
        self._note(what, definition.name, child.index, execution.id, cause=task.triggered_by)
        if execution.status not in OPEN:
            self._results[execution.id] = result_view(execution.result)
            # Parameters that are wrong are wrong again: no use in trying.
            self._child_ended_for_good(definition, task, execution)

    def _child_ended_for_good(self, definition: Task, task: TaskState, execution: Execution) -> None:
        child = task.children.pop(execution.id)
        self._note(execution.status, definition.name, child.index, execution.id)
        task.result, task.ended, task.timed_out = execution.id, execution.status, False
        if task.items is None:
            self._task_ended(definition, task)
            return
        task.items.ended += 1
        task.items.add_failure(child.index or 0)

    def _execution(self, definition: Task, task: TaskState, child: Child, action: Action, scope: Scope) -> Execution:
        origin = self.world.origin
        if definition.input:
            rendered = scope.render_with_secrets(definition.input)
            given, secrets = rendered.value, rendered.secrets
        else:
            # §3: without input the child gets what the workflow itself was given.
            given, secrets = origin.parameters or {}, origin.secrets or {}
        if misplaced := misplaced_secrets(action.param_schema, secrets):
            raise ExpressionError("; ".join(misplaced))
        return executions.begin(
            id_=self.world.new_id(),
            action=action,
            given=given,
            secrets=secrets,
            now=self.world.now,
            parent=origin.execution,
            root=origin.root or origin.execution,
            enforcement=origin.enforcement,
            executor=origin.executor,
            rule_ref=origin.rule_ref,
            trigger_ref=origin.trigger_ref,
            env_vars=origin.env_vars,
            timeout=definition.timeout,
            permission_set_refs=self._permission_sets(definition, scope),
            original_execution=child.first,
            worker_selector=scope.render(definition.worker_selector),
            worker_tolerations=scope.render(definition.worker_tolerations),
            worker_affinity=scope.render(definition.worker_affinity),
            workflow_task=self._workflow_task(definition, task, child),
        )

    def _workflow_task(self, definition: Task, task: TaskState, child: Child) -> dict[str, Json]:
        """``WorkflowTaskMetadata`` as far as it is known at the start; the rest is what became of the execution."""
        said: dict[str, Json] = {
            "workflow_execution": self.world.origin.execution,
            "task_name": definition.name,
            "triggered_by": task.triggered_by,
            "task_index": None if definition.batch_size else child.index,
            "task_batch": child.index if definition.batch_size else None,
            "retry_count": child.attempt,
            "max_retries": definition.retry.count if definition.retry else 0,
            "next_retry_at": child.not_before and msgspec.to_builtins(child.not_before),
            "timeout_seconds": definition.timeout,
        }
        return {name: value for name, value in said.items() if value is not None}

    def _permission_sets(self, definition: Task, scope: Scope) -> list[str] | None:
        """The sets that the task's token holds. Literal ones were its author's to choose, and were checked as the
        workflow came in; of a template nobody knew, so now the executor must hold what it gives."""
        refs = definition.permission_set_refs
        if refs is None:
            return None
        rendered = scope.render(refs)
        sets = [rendered] if isinstance(rendered, str) else rendered
        if not isinstance(sets, list) or not all(isinstance(each, str) for each in sets):
            raise ExpressionError("permission_set_refs must be a list of refs of permission sets")
        sets = [each for each in sets if each]
        if rendered != refs and not self.world.may_hand_out(sets):
            raise ExpressionError(f"permission_set_refs: {', '.join(sets)} is more than the executor may hand out")
        return sets

    # What expressions see

    def scope(self, outcome: Outcome, extra: dict[str, Json] | None = None) -> Scope:
        return Scope(
            self.world.origin,
            self.state,
            outcome,
            self.world.config,
            result_of=self._result_of_task,
            read_key=self.world.read_key,
            extra=extra or {},
        )

    def _scope_of(self, task: TaskState, item: dict[str, Json] | None = None) -> Scope:
        """What a task sees as it begins: ``result()`` is that of the task that led to it."""
        return self.scope(self._outcome(task.triggered_by), item)

    def _outcome(self, name: str | None) -> Outcome:
        task = self.state.tasks.get(name) if name is not None else None
        if name is None or task is None:
            return Outcome()
        takes_timeouts = any("timed_out()" in (each.when or "") for each in self.graph.task(name).next)
        return Outcome(task.ended, task.timed_out, takes_timeouts, self._result_of_task(name))

    def _result_of_task(self, name: str) -> Json:
        task = self.state.tasks.get(name)
        if task is None:
            return None
        if task.error is not None:
            return {"error": task.error, "succeeded": False}
        return None if task.result is None else self._result(task.result)

    def _result(self, id_: int) -> Json:
        if id_ not in self._results:
            self._results[id_] = self.world.result(id_)
        return self._results[id_]

    def _item(self, task: TaskState, index: int | None) -> dict[str, Json]:
        if index is None or task.items is None:
            return {}
        items = task.items
        values = items.values if items.values is not None else self.world.kept(items.stored or "")
        return {"item": values[index], "batch": values[index], "index": index}

    # The end of the run

    def _conclude(self) -> None:
        """Nothing is under way: if nothing can follow either, the run is over."""
        state = self.state
        if state.canceling:
            self._drop_children()
            self._end(End("cancelled", dict(CANCELLED)))
            return
        if state.ready or state.named("running"):
            return  # held back: the run is paused
        for name, task in state.tasks.items():
            if task.status == "pending" and task.iteration < 0:
                self._left_out(name, task)
        failed = state.named("failed")
        if failed:
            reasons = [f"{name}: {task.error}" for name in failed if (task := state.tasks[name]).error]
            error = f"Workflow failed: {len(failed)} task(s) failed: {', '.join(failed)}"
            result: dict[str, Json] = {"error": error, "succeeded": False}
            if reasons:
                result["reasons"] = reasons
            self._end(End("failed", result))
            return
        try:
            output = self.scope(self._outcome(state.last)).render(self.definition.output_map or {})
        except ExpressionError as error:
            self.give_up(f"output_map: {error}")
            return
        self._end(End("completed", {**output, "succeeded": True}))

    def _left_out(self, name: str, task: TaskState) -> None:
        """It was waiting for tasks that will not come any more."""
        definition = self.graph.task(name)
        missing = sorted(self.graph.gathered(name) - set(task.came))
        if task.called is None or definition.gathers:
            task.status = "skipped"
            return
        task.status = "failed"
        task.error = f"its join waited for {definition.join}; {', '.join(missing) or 'nothing'} did not come"
        self._note("failed", name, cause=task.error)

    def give_up(self, error: str) -> Step:
        """The run cannot go on, whatever its tasks did."""
        self._end(End("failed", {"error": error, "succeeded": False}))
        self.step.changed = True
        return self.step

    def _end(self, end: End) -> None:
        self.state.over = True
        self.step.end = end
        self._note(end.status)

    def task(self, name: str) -> TaskState:
        """What is known of a task, which may be nothing yet."""
        return self.state.tasks.setdefault(name, TaskState())

    def _note(
        self,
        what: str,
        task: str | None = None,
        index: int | None = None,
        execution: int | None = None,
        *,
        cause: str | None = None,
        detail: Json = None,
    ) -> None:
        self.step.notes.append(Note(what=what, task=task, index=index, execution=execution, cause=cause, detail=detail))


def _parts_wanted(items: Items) -> int:
    return items.total if items.only is None else len(items.only)


def _wait(retry: Retry, number: int, seed: str) -> float:
    """Seconds before retry ``number``, from 1 on (§4.8). The jitter is drawn from the execution that failed."""
    match retry.backoff:
        case "linear":
            wait = retry.delay * number
        case "exponential":
            wait = retry.delay * 2 ** min(number - 1, 40)
        case _:
            wait = retry.delay
    wait = min(wait, MAX_DELAY if retry.max_delay is None else retry.max_delay)
    drawn = int.from_bytes(hashlib.blake2b(seed.encode(), digest_size=4).digest(), "big") / 2**32
    return wait * (1 - retry.jitter * drawn)
