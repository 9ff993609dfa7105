"""Workflow runs on tables and queues: what crashes, repetitions and crossing messages leave behind."""

from typing import Any

import msgspec
import pytest
from unit.flow.world import World

from chalicelib.domain.entities import Action, Execution, Json, WorkflowDefinition
from chalicelib.flow import conductor, executor, sweeper
from chalicelib.flow.cancel import cancel
from chalicelib.flow.intake import request_execution, run_again
from chalicelib.flow.workflows import RerunError
from chalicelib.protocol import ExecutionRequested, RunFinished, Wake
from chalicelib.store.registry import Delete


class Flow:
    """A workflow of ``tasks`` in a world, and its run. Tasks' actions are ``pk.act`` unless they say else."""

    def __init__(self, world: World, *tasks: dict[str, Json], **fields: Json) -> None:
        self.world = world
        definition = {"tasks": [{"action": "pk.act", **task} for task in tasks], **fields}
        if world.store.registry.actions.get("pk.act") is None:
            world.put_action("pk.act")
        self.said: dict[str, Any] = {"label": "Flow", "version": "1.0.0", "definition": definition}
        self.said |= {"pack": world.pack.id, "pack_ref": "p"}
        self.workflow = world.put(WorkflowDefinition, "pk.flow", **self.said)
        self.action: Action = world.put_action("pk.flow", workflow_def=self.workflow.id, runtime_ref=None)
        self.id = 0

    def begin(self, **parameters: Json) -> "Flow":
        execution = request_execution(
            self.world.services, self.world.tenant, self.action, parameters=parameters, executor=self.world.owner.id
        )
        self.id = execution.id
        return self.deliver()

    def deliver(self) -> "Flow":
        """Hand what is requested to the executor, as the queue does; what is to wait is not."""
        while waiting := [*self.world.queues.requested]:
            self.world.queues.requested.clear()
            due = [message for message, delay in waiting if delay == 0 and message.tenant == self.world.tenant]
            executor.handle(self.world.services, due)
        return self

    @property
    def own(self) -> Execution:
        return self.get(self.id)

    def get(self, id_: int) -> Execution:
        execution = self.world.activity.get_execution(id_)
        assert execution is not None
        return execution

    def run_of(self, task: str) -> Any:
        """The latest run of a task that was handed to the runner."""
        return [
            run
            for run in self.world.runner.runs
            if (self.get(run.execution).workflow_task or {}).get("task_name") == task
        ][-1]

    def report(self, task: str, status: str = "completed", **data: Json) -> str:
        """What the runner says at the end of a task's latest run."""
        run = self.run_of(task)
        return self.encode(
            RunFinished(
                tenant=run.tenant,
                execution=run.execution,
                attempt=run.attempt,
                token=run.token,
                status=status,  # type: ignore[arg-type]
                result={"succeeded": status == "completed", "data": data},
            )
        )

    def encode(self, message: Any) -> str:
        return msgspec.json.encode(message).decode()

    def take_in(self, *bodies: str) -> "Flow":
        assert conductor.handle(self.world.services, bodies) == []
        return self.deliver()

    @property
    def tasks(self) -> list[str]:
        """The tasks of everything handed to the runner, in order."""
        return [self.get(run.execution).workflow_task["task_name"] for run in self.world.runner.runs]


CHAIN: tuple[dict[str, Json], ...] = (
    {"name": "a", "next": [{"when": "succeeded()", "do": ["b"]}]},
    {"name": "b"},
)


def test_a_run_goes_from_task_to_task_to_its_end(world: World) -> None:
    flow = Flow(world, *CHAIN, output_map={"n": "{{ task.b.n }}"}).begin()
    assert flow.own.status == "running"
    flow.take_in(flow.report("a")).take_in(flow.report("b", n=3))
    assert flow.tasks == ["a", "b"]
    assert (flow.own.status, flow.own.result) == ("completed", {"n": 3, "succeeded": True})
    assert flow.get(flow.run_of("b").execution).root == flow.id


def test_reports_and_requests_that_come_twice_change_nothing(world: World) -> None:
    flow = Flow(world, *CHAIN).begin()
    request = ExecutionRequested(tenant=world.tenant, id=flow.id, action_ref="pk.flow")
    executor.handle(world.services, [request, request])
    flow.deliver()
    report = flow.report("a")
    flow.take_in(report, report).take_in(report)
    assert flow.tasks == ["a", "b"]


def test_a_crash_between_the_step_and_its_messages_loses_nothing(world: World) -> None:
    flow = Flow(world, *CHAIN).begin()
    report = flow.report("a")
    world.queues.failing = True
    assert conductor.handle(world.services, [report]) == [0]
    world.queues.failing = False
    flow.take_in(report)
    assert flow.tasks == ["a", "b"]


def test_a_crash_before_the_first_messages_loses_nothing(world: World) -> None:
    flow = Flow(world, *CHAIN)
    execution = request_execution(world.services, world.tenant, flow.action, parameters={})
    flow.id = execution.id
    [(request, _)] = world.queues.requested
    world.queues.failing = True
    assert executor.handle(world.services, [request]) == [0]
    assert flow.own.status == "running"
    world.queues.failing = False
    assert executor.handle(world.services, [request]) == []
    flow.deliver()
    assert flow.tasks == ["a"]


def test_a_crash_before_the_run_is_told_loses_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    flow = Flow(world, *CHAIN).begin()
    report = flow.report("a")
    with monkeypatch.context() as broken:
        broken.setattr("chalicelib.flow.workflows.take_in", _cut_off)
        assert conductor.handle(world.services, [report]) == [0]
    assert flow.get(flow.run_of("a").execution).status == "completed"
    flow.take_in(report)
    assert flow.tasks == ["a", "b"]


def _cut_off(*_: object) -> None:
    raise ConnectionError("cut off")


def test_the_sweeper_finds_an_end_that_nobody_told_of(world: World) -> None:
    flow = Flow(world, *CHAIN).begin()
    run = flow.run_of("a")
    now = world.clock()
    world.activity.transition(run.execution, from_=("running",), to="completed", result={}, now=now)
    sweeper.look_at(world.services, world.tenant, flow.id, now)
    flow.deliver()
    assert flow.tasks == ["a", "b"]


def test_ends_that_come_together_make_one_step(world: World) -> None:
    flow = Flow(world, {"name": "a"}, {"name": "b"}, {"name": "c"}).begin()
    before = world.store.workflows.get(flow.id)
    flow.take_in(flow.report("a"), flow.report("b"))
    after = world.store.workflows.get(flow.id)
    assert before
    assert after
    assert after.version == before.version + 1


def test_a_retry_waits_for_its_moment(world: World) -> None:
    flow = Flow(world, {"name": "a", "retry": {"count": 1, "delay": 30}}).begin()
    first = flow.run_of("a").execution
    conductor.handle(world.services, [flow.report("a", "failed")])
    [(request, delay)] = world.queues.requested
    assert delay == 30
    sweeper.look_at(world.services, world.tenant, request.id, world.clock())
    assert flow.tasks == ["a"]  # not before its time, whoever looks
    world.clock.advance(seconds=30)
    executor.handle(world.services, [request])
    assert flow.get(request.id).original_execution == first
    assert flow.get(request.id).workflow_task["retry_count"] == 1
    world.queues.requested.clear()
    flow.take_in(flow.report("a"))
    assert flow.own.status == "completed"


def test_a_long_delay_is_woken_up_from(world: World) -> None:
    flow = Flow(world, {"name": "a", "delay": 7200}).begin()
    assert world.queues.requested == []
    [child] = world.store.workflows.get(flow.id).state.tasks["a"].children  # type: ignore[union-attr]
    world.clock.advance(seconds=7000)
    sweeper.look_at(world.services, world.tenant, child, world.clock())
    [(wake, delay)] = world.queues.wakes
    assert (wake, delay) == (Wake(tenant=world.tenant, id=child), 200)
    world.clock.advance(seconds=200)
    executor.handle(world.services, [wake])
    world.queues.wakes.clear()
    flow.deliver()
    assert flow.tasks == ["a"]


def test_a_run_that_takes_too_long_ends_and_stops_what_runs(world: World) -> None:
    flow = Flow(world, *CHAIN, timeout=60).begin()
    assert [delay for _, delay in world.queues.wakes] == [60]
    world.clock.advance(seconds=60)
    executor.handle(world.services, [Wake(tenant=world.tenant, id=flow.id)])
    assert flow.own.status == "failed"
    assert flow.own.timed_out
    assert "timed out after 60 seconds" in flow.own.result["error"]
    assert flow.get(flow.run_of("a").execution).status == "canceling"


@pytest.mark.parametrize(("policy", "after"), [("allow_finish", "running"), ("cancel_running", "canceling")])
def test_a_cancelled_run_ends_with_the_last_of_its_tasks(world: World, policy: str, after: str) -> None:
    flow = Flow(world, *CHAIN, cancellation_policy=policy).begin()
    cancel(world.services, world.tenant, flow.id)
    assert flow.own.status == "canceling"
    assert flow.get(flow.run_of("a").execution).status == after
    flow.take_in(flow.report("a"))
    assert flow.tasks == ["a"]
    assert (flow.own.status, flow.own.result) == ("cancelled", {"error": "Workflow cancelled", "succeeded": False})


def test_what_was_to_be_stopped_is_stopped_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    flow = Flow(world, *CHAIN, cancellation_policy="cancel_running").begin()
    with monkeypatch.context() as broken:
        broken.setattr("chalicelib.flow.endings._stop", _cut_off)
        with pytest.raises(ConnectionError):
            cancel(world.services, world.tenant, flow.id)
    assert flow.get(flow.run_of("a").execution).status == "running"
    sweeper.look_at(world.services, world.tenant, flow.id, world.clock())
    assert flow.get(flow.run_of("a").execution).status == "canceling"


def test_a_nested_run_tells_the_one_around_it(world: World) -> None:
    inner = Flow(world, {"name": "leaf"})
    outer: dict[str, Json] = {"tasks": [{"name": "in", "action": "pk.flow"}, {"name": "x", "action": "pk.flow"}]}
    workflow = world.put(WorkflowDefinition, "pk.outer", **inner.said | {"definition": outer})
    action = world.put_action("pk.outer", workflow_def=workflow.id, runtime_ref=None)
    inner.id = request_execution(world.services, world.tenant, action, parameters={}).id
    inner.deliver()
    assert inner.tasks == ["leaf", "leaf"]
    for run in list(world.runner.runs):
        assert inner.get(run.execution).root == inner.id
        inner.take_in(
            inner.encode(
                RunFinished(tenant=run.tenant, execution=run.execution, attempt=1, token=run.token, status="completed")
            )
        )
    assert inner.own.status == "completed"


def test_an_invalid_definition_fails_the_run_and_says_why(world: World) -> None:
    flow = Flow(world, {"name": "a", "next": [{"do": ["nowhere"]}]}).begin()
    assert flow.own.status == "failed"
    assert "nowhere" in flow.own.result["error"]


def test_a_run_keeps_the_definition_that_it_began_with(world: World) -> None:
    flow = Flow(world, *CHAIN).begin()
    world.store.registry.commit(Delete("workflow", "pk.flow"), Delete("action", "pk.flow"))
    flow.take_in(flow.report("a")).take_in(flow.report("b"))
    assert flow.own.status == "completed"


def test_a_rerun_takes_up_what_failed(world: World) -> None:
    flow = Flow(world, *CHAIN, {"name": "c"}).begin(x=1)
    flow.take_in(flow.report("a"), flow.report("c")).take_in(flow.report("b", "failed"))
    before = flow.own
    assert before.status == "failed"
    with pytest.raises(RerunError, match="reached no task z; it reached a, c, b"):
        run_again(world.services, world.tenant, flow.action, before, ["z"], reset=False, executor=None)
    flow.id = run_again(world.services, world.tenant, flow.action, before, ["b"], reset=False, executor=None).id
    flow.deliver()
    assert flow.tasks == ["a", "c", "b", "b"]
    assert flow.own.original_execution == before.id
    flow.take_in(flow.report("b"))
    assert flow.own.status == "completed"


def test_a_secret_parameter_is_handed_on_sealed(world: World) -> None:
    flow = Flow(world, {"name": "a", "input": {"auth": "Bearer {{ parameters.token }}"}})
    schema = {"token": {"type": "string", "secret": True}}
    action = world.put_action("pk.secret", workflow_def=flow.workflow.id, param_schema=schema)
    world.put(WorkflowDefinition, "pk.secret", **flow.said)
    flow.id = request_execution(world.services, world.tenant, action, parameters={"token": "hunter2"}).id
    flow.deliver()
    run = flow.run_of("a")
    assert run.parameters["auth"] == "Bearer hunter2"
    assert "hunter2" in "".join(run.secrets)
    assert "hunter2" not in str(flow.get(run.execution)) + str(flow.own)
