"""What holds for any workflow, whatever happens to its messages and to the processes that take its steps."""

from itertools import count
from random import Random
from zlib import crc32

import msgspec
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from unit.domain.workflow.chaos import Outcome, Plan, Platform

from chalicelib.domain.entities import Json
from chalicelib.domain.workflow.definition import Definition, Retry, Task, Transition
from chalicelib.domain.workflow.graph import Graph
from chalicelib.domain.workflow.parsing import parse

OUTCOMES: list[Outcome] = [("completed", False), ("failed", False), ("failed", True), ("timeout", True)]
USUAL = [None, "succeeded()", "{{ not failed() }}", "1 == 1"]
CONDITIONS = [*USUAL, "failed()", "timed_out()", "false", "1 + ''"]


@st.composite
def definitions(draw: st.DrawFn, *, loops: bool = True, plain: bool = False) -> Definition:
    """Graphs of a few tasks; without ``loops`` each leads only to later ones, ``plain`` ones have no items, attempts
    or conditions of their own."""
    count = draw(st.integers(1, 7))
    names = [f"t{number}" for number in range(count)]
    tasks = []
    for number, name in enumerate(names):
        targets = names if loops and draw(st.booleans()) else names[number + 1 :]
        transitions = [
            Transition(
                when=draw(st.sampled_from(USUAL) | st.sampled_from(CONDITIONS)),
                do=draw(st.lists(st.sampled_from(targets), unique=True, min_size=1, max_size=3)) if targets else [],
            )
            for _ in range(draw(st.integers(0, 3)))
        ]
        fields = {} if plain else draw(_extras())
        tasks.append(
            Task(
                name=name,
                action=draw(st.sampled_from(["my.act", "my.act", "my.act", None])),
                next=transitions,
                **fields,
            )
        )
    graph = Graph(Definition(tasks=tasks))
    for number, task in enumerate(tasks):
        inbound = len(graph.inbound(task.name))
        if inbound and draw(st.booleans()):
            join = draw(st.just("all") | st.integers(1, inbound))
            gathers = join == "all" and not plain and draw(st.booleans())
            tasks[number] = msgspec.structs.replace(task, join=join, gathers=gathers)
    return Definition(tasks=tasks, max_iterations=draw(st.integers(1, 4)))


@st.composite
def _extras(draw: st.DrawFn) -> dict[str, object]:
    fields: dict[str, object] = {}
    if draw(st.integers(0, 2)) == 0:
        fields["with_items"] = draw(st.lists(st.integers(0, 9), max_size=5))
        fields["concurrency"] = draw(st.integers(1, 3))
        fields["batch_size"] = draw(st.none() | st.integers(1, 3))
    if draw(st.integers(0, 2)) == 0:
        on_error = draw(st.sampled_from([None, None, "true", "false", "result().nothing"]))
        fields["retry"] = Retry(
            count=draw(st.integers(1, 3)), delay=draw(st.sampled_from([0, 1, 700])), jitter=0.5, on_error=on_error
        )
    if draw(st.integers(0, 3)) == 0:
        fields["delay"] = draw(st.sampled_from([0, 3, "{{ 2 * 3 }}", "{{ 'soon' }}"]))
    if draw(st.integers(0, 3)) == 0:
        fields["when"] = draw(st.sampled_from(["true", "false", "parameters.nothing"]))
    return fields


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Outcomes that depend on nothing but task, item and attempt."""
    seed = draw(st.integers(0, 2**16))
    good = draw(st.sampled_from([1.0, 0.9, 0.6]))

    def plan(task: str, item: int, attempt: int) -> Outcome:
        random = Random(crc32(f"{seed} {task} {item} {attempt}".encode()))
        return OUTCOMES[0] if random.random() < good else random.choice(OUTCOMES[1:])

    return plan


seeds = st.integers(0, 2**32)
thorough = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # these take minutes to shrink
)


@thorough
@given(definitions(), plans(), seeds)
def test_whatever_happens_each_attempt_is_made_once_and_the_run_ends(
    definition: Definition, plan: Plan, seed: int
) -> None:
    Platform(definition, plan, Random(seed)).play()


@thorough
@given(definitions(), plans(), seeds)
def test_people_may_meddle_and_the_run_ends(definition: Definition, plan: Plan, seed: int) -> None:
    platform = Platform(definition, plan, Random(seed), meddling=True).play()
    assert platform.end is not None
    if platform.end.status == "cancelled":
        assert platform.state.canceling


@thorough
@given(definitions(loops=False, plain=True), plans(), seeds)
def test_the_tasks_that_run_are_those_that_the_rules_name(definition: Definition, plan: Plan, seed: int) -> None:
    """Without loops, order decides nothing: what runs follows from the outcomes alone."""
    platform = Platform(definition, plan, Random(seed)).play()
    runs = {name for name, _ in platform.begun}
    assert len(platform.begun) == len(runs), "a task begins once"
    expected, failed = what_must_run(definition, plan)
    assert runs == {name for name in expected if platform.run.graph.task(name).action is not None}
    assert platform.end is not None
    assert platform.end.status == ("failed" if failed else "completed")
    assert set(platform.state.named("failed")) == failed


@thorough
@given(definitions(), plans(), plans(), seeds)
def test_a_rerun_keeps_what_succeeded_and_ends(definition: Definition, plan: Plan, then: Plan, seed: int) -> None:
    first = Platform(definition, plan, Random(seed)).play()
    failed = first.state.named("failed")
    if not failed:
        return
    second = Platform(definition, then, Random(seed), after=first).play()
    anew = second.run.graph.reachable_from(failed)
    assert {name for name, _ in second.begun} <= anew
    kept = {name: task for name, task in first.state.tasks.items() if name not in anew and task.status == "completed"}
    assert {name: second.state.tasks[name].result for name in kept} == {n: task.result for n, task in kept.items()}


@st.composite
def blocks(draw: st.DrawFn) -> list[dict[str, Json]]:
    """Steps as users nest them: tasks, branches, parallel parts, each perhaps with something for its failure."""
    numbers = count()

    def steps(depth: int) -> list[dict[str, Json]]:
        return [step(depth) for _ in range(draw(st.integers(1, 3 if depth < 2 else 1)))]

    def step(depth: int) -> dict[str, Json]:
        said: dict[str, Json] = {"name": f"s{next(numbers)}"}
        kinds = ["task", "if", "parallel", "tasks"] if depth < 3 else ["task"]
        match draw(st.sampled_from(kinds)):
            case "if":
                said |= {"if": draw(st.booleans()), "then": steps(depth + 1)}
                if draw(st.booleans()):
                    said["else"] = steps(depth + 1)
            case "parallel":
                parts = range(draw(st.integers(1, 3)))
                said["parallel"] = [draw(st.sampled_from([steps, step]))(depth + 1) for _ in parts]
            case "tasks":
                said["tasks"] = steps(depth + 1)
            case _:
                said["action"] = "my.act"
        if depth < 3 and draw(st.integers(0, 3)) == 0:
            said["on_failure"] = steps(depth + 1)
        if draw(st.integers(0, 5)) == 0:
            said["when"] = draw(st.booleans())
        return said

    return [{"name": "first", "tasks": steps(0)}, *steps(0)]


@thorough
@given(blocks(), plans(), seeds)
def test_blocks_run_as_they_are_nested(steps: list[dict[str, Json]], plan: Plan, seed: int) -> None:
    parsed = parse({"tasks": steps})
    assert parsed.problems == []
    assert parsed.definition is not None
    platform = Platform(parsed.definition, plan, Random(seed)).play()
    ran: set[str] = set()
    succeeded = walk(steps, plan, ran)
    assert {name for name, _ in platform.begun} == ran
    assert platform.end is not None
    assert platform.end.status == ("completed" if succeeded else "failed")


def walk(steps: Json, plan: Plan, ran: set[str]) -> bool:
    """Run ``steps`` one after the other, as anybody would who reads them; whether they succeed."""
    return all(step_succeeds(step, plan, ran) for step in steps)


def step_succeeds(step: dict[str, Json], plan: Plan, ran: set[str]) -> bool:
    if step.get("when") is False:
        return True
    if "action" in step:
        ran.add(step["name"])
        fine = plan(step["name"], 0, 0)[0] == "completed"
    elif "if" in step:
        fine = walk(step["then"] if step["if"] else step.get("else", []), plan, ran)
    elif "parallel" in step:
        parts = [walk(each if isinstance(each, list) else [each], plan, ran) for each in step["parallel"]]
        fine = all(parts)
    else:
        fine = walk(step["tasks"], plan, ran)
    return fine or ("on_failure" in step and walk(step["on_failure"], plan, ran))


def what_must_run(definition: Definition, plan: Plan) -> tuple[set[str], set[str]]:
    """The tasks that begin, and those that count as failed, by the rules of workflow-language §4.3 to §4.6 applied to
    whole sets instead of single events."""
    graph = Graph(definition)
    begun, through, called = set(graph.entries), set(), set()
    failed: set[str] = set()
    todo = list(begun)
    while True:
        while todo:
            task = graph.task(todo.pop())
            status, timed_out = plan(task.name, 0, 0) if task.action is not None else ("completed", False)
            fired = [each for each in task.next if holds(task, each.when, status, timed_out=timed_out)]
            called |= {name for each in fired for name in each.do}
            if status == "completed" or any(each.do for each in fired):
                through.add(task.name)
            else:
                failed.add(task.name)
        for name in called - begun:
            join, inbound = graph.task(name).join, graph.inbound(name)
            if join is None or len(inbound & through) >= (len(inbound) if join == "all" else join):
                begun.add(name)
                todo.append(name)
        if not todo:
            return begun, failed | (called - begun)


def holds(task: Task, when: str | None, status: str, *, timed_out: bool) -> bool:
    succeeded = status == "completed"
    own_way = any("timed_out()" in (each.when or "") for each in task.next)
    failed = not succeeded and not (timed_out and own_way)
    return {
        None: True,
        "succeeded()": succeeded,
        "failed()": failed,
        "timed_out()": timed_out,
        "{{ not failed() }}": not failed,
        "1 == 1": True,
        "false": False,
        "1 + ''": succeeded,
    }[when]
