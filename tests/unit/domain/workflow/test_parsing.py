"""What users write, by what comes of it: the graph, the order in which a run goes through it, or what is wrong."""

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from unit.domain.workflow.runs import Run, task_of

from chalicelib.domain.entities import Execution, ExecutionStatus, Json
from chalicelib.domain.workflow.definition import Definition, Retry, Task, Transition
from chalicelib.domain.workflow.graph import Graph
from chalicelib.domain.workflow.parsing import (
    MAX_BYTES,
    Parsed,
    actions_of,
    check_actions,
    parse,
    permission_sets_of,
)


def read(text: str) -> Parsed:
    return parse(yaml.safe_load(text))


def definition(text: str) -> Definition:
    parsed = read(text)
    assert parsed.problems == []
    assert parsed.definition is not None
    return parsed.definition


def task(text: str) -> Task:
    """The one task of a workflow, ``text`` being its keys besides name and action."""
    given = {"name": "a", "action": "my.act"} | (yaml.safe_load(text) or {})
    parsed = parse({"tasks": [given]})
    assert (parsed.problems, parsed.definition is not None) == ([], True)
    assert parsed.definition is not None
    return parsed.definition.tasks[0]


def order(text: str, *failing: str, **parameters: Json) -> list[str]:
    """The tasks that run, in their order; ``failing`` fail. Whether the run succeeds is its last word."""

    def answer(execution: Execution) -> tuple[ExecutionStatus, Json]:
        failed = task_of(execution) in failing
        return ("failed" if failed else "completed"), {"succeeded": not failed, "of": task_of(execution)}

    run = Run(definition(text), **parameters).begin().play(answer)
    return [*run.order, run.over.status]


def problems(text: str) -> list[tuple[str, str]]:
    return [(each.path, each.message) for each in read(text).problems]


def warnings(text: str) -> list[tuple[str, str]]:
    return [(each.path, each.message) for each in read(text).warnings]


# Transitions


def test_a_transition_says_when_what_and_where() -> None:
    first = definition("""
        version: 1.0.0
        tasks:
          - name: a
            action: my.act
            next:
              - when: "{{ succeeded() }}"
                publish: [{x: "{{ result().x }}", y: 1}, last]
                do: [b]
              - {when: failed(), do: "b, c"}
              - do: c
          - {name: b, action: my.act}
          - {name: c, action: my.act}
    """).tasks[0]
    assert first.next == [
        Transition(
            when="{{ succeeded() }}",
            publish=[("x", "{{ result().x }}"), ("y", 1), ("last", "{{ result() }}")],
            do=["b"],
        ),
        Transition(when="failed()", do=["b", "c"]),
        Transition(do=["c"]),
    ]


@pytest.mark.parametrize("written", ["b", "[b]", "[{do: b}]", "{do: [b]}"])
def test_short_ways_to_write_a_transition(written: str) -> None:
    text = f"tasks: {{a: {{action: my.act, next: {written}}}, b: {{action: my.act}}}}"
    assert definition(text).tasks[0].next == [Transition(do=["b"])]


def test_the_older_keys_are_transitions() -> None:
    first = definition("""
        tasks:
          - name: a
            action: my.act
            publish: [{x: "{{ result().x }}"}]
            on_success: b
            on_failure: c
            on_complete: [d, e]
            on_timeout: c
            decision:
              - {when: result().n > 1, next: b}
              - {next: c, default: true}
          - {name: b, action: my.act}
          - {name: c, action: my.act}
          - {name: d, action: my.act}
          - {name: e, action: my.act}
    """).tasks[0]
    assert first.next == [
        Transition(when="succeeded()", publish=[("x", "{{ result().x }}")]),
        Transition(when="result().n > 1", do=["b"]),
        Transition(when="succeeded() and not (result().n > 1)", do=["c"]),
        Transition(when="succeeded()", do=["b"]),
        Transition(when="failed()", do=["c"]),
        Transition(when="timed_out()", do=["c"]),
        Transition(do=["d", "e"]),
    ]


def test_beside_next_the_older_keys_are_ignored_and_that_is_said() -> None:
    text = """
        tasks:
          - {name: a, action: my.act, next: [{do: b}], on_failure: b, publish: x}
          - {name: b, action: my.act}
    """
    assert definition(text).tasks[0].next == [Transition(do=["b"])]
    assert [path for path, _ in warnings(text)] == ["$.tasks[0].publish", "$.tasks[0].on_failure"]


def test_all_keys_of_a_task() -> None:
    assert task("""
        input: {x: "{{ item }}"}
        with_items: "{{ parameters.list }}"
        concurrency: 5
        batch_size: "10"
        retry: {count: 3, delay: 0.5, backoff: exponential, max_delay: 60, jitter: true, on_error: result().code == 5}
        timeout: 30
        delay: "{{ parameters.wait }}"
        when: true
        max_iterations: 7
        permission_set_ref: core.viewer
        worker_selector: {zone: "{{ item.zone }}"}
    """) == Task(
        name="a",
        action="my.act",
        input={"x": "{{ item }}"},
        with_items="{{ parameters.list }}",
        concurrency=5,
        batch_size=10,
        retry=Retry(count=3, delay=0.5, backoff="exponential", max_delay=60, jitter=0.5, on_error="result().code == 5"),
        timeout=30,
        delay="{{ parameters.wait }}",
        when="true",
        max_iterations=7,
        permission_set_refs="core.viewer",
        worker_selector={"zone": "{{ item.zone }}"},
    )
    assert task("permission_set_refs: []").permission_set_refs == []
    assert task("permission_set_refs: ''").permission_set_refs == ""
    assert task("with_items: [1, 2]").with_items == [1, 2]
    spread = task("with: {items: '{{ parameters.list }}', concurrency: 3}")
    assert (spread.with_items, spread.concurrency) == ("{{ parameters.list }}", 3)
    assert task("with: '{{ parameters.list }}'").with_items == "{{ parameters.list }}"
    assert task("retry: 3").retry == Retry(count=3)
    assert task("parameters: {x: 1}").input == {"x": 1}
    assert task("delay: 5").delay == 5
    assert task("type: workflow").action == "my.act"
    assert task("if: parameters.go").when == "parameters.go"


def test_all_keys_of_a_definition() -> None:
    read = definition("""
        ref: my.flow
        label: Flow
        parameters: {x: {type: string}}
        output: {y: {type: string}}
        vars: [{seen: []}, {count: 0}]
        output_map: {y: "{{ count }}"}
        cancellation_policy: cancel_running
        timeout: 600
        max_iterations: 1000
        tasks: {a: {action: my.act}}
    """)
    assert (read.vars, read.output_map) == ({"seen": [], "count": 0}, {"y": "{{ count }}"})
    assert (read.cancellation_policy, read.timeout, read.max_iterations) == ("cancel_running", 600, 1000)


def test_a_map_of_tasks_keeps_its_order() -> None:
    read = definition("tasks: {z: {action: my.act, join: all}, a: {action: my.act, next: z}}")
    assert [task.name for task in read.tasks] == ["z", "a"]
    assert read.tasks[0].join == "all"


def test_plain_tasks_without_transitions_begin_together() -> None:
    read = definition("tasks: [{name: a, action: my.act}, {name: b, action: my.act}]")
    assert Graph(read).entries == ("a", "b")


# Dependencies


def test_a_task_begins_when_all_that_it_depends_on_have_succeeded() -> None:
    text = """
        tasks:
          - {name: c, action: my.act, depends_on: [a, b]}
          - {name: a, action: my.act}
          - {name: b, action: my.act, depends_on: a}
    """
    assert order(text) == ["a", "b", "c", "completed"]
    assert order(text, "b") == ["a", "b", "failed"]


def test_to_depend_on_a_block_is_to_wait_for_its_end() -> None:
    text = """
        tasks:
          - {name: last, action: my.act, depends_on: [fan]}
          - name: fan
            parallel: [{name: a, action: my.act}, [{name: b, action: my.act}, {name: c, action: my.act}]]
    """
    assert order(text) == ["a", "b", "c", "last", "completed"]


def test_a_block_can_depend_on_a_task() -> None:
    text = """
        tasks:
          - {name: fan, depends_on: first, parallel: {a: {action: my.act}, b: {action: my.act}}}
          - {name: first, action: my.act}
    """
    assert order(text) == ["first", "a", "b", "completed"]


# Blocks

BRANCHES = """
    tasks:
      - {name: first, action: my.act}
      - name: check
        if: parameters.n > 3
        then:
          - {name: big, action: my.act}
          - {name: bigger, action: my.act}
        else:
          - {name: small, action: my.act}
      - {name: last, action: my.act}
"""


def test_one_branch_runs_and_what_follows_begins_after_it() -> None:
    assert order(BRANCHES, n=4) == ["first", "big", "bigger", "last", "completed"]
    assert order(BRANCHES, n=1) == ["first", "small", "last", "completed"]


def test_a_branch_that_fails_ends_the_run() -> None:
    assert order(BRANCHES, "big", n=4) == ["first", "big", "failed"]


def test_a_condition_that_cannot_be_evaluated_takes_no_branch() -> None:
    assert order(BRANCHES, n="text") == ["first", "failed"]


def test_without_else_the_run_goes_on() -> None:
    text = """
        tasks:
          - {if: parameters.go, then: {action: my.act, name: a}}
          - {name: b, action: my.act}
    """
    assert order(text, go=True) == ["a", "b", "completed"]
    assert order(text, go=False) == ["b", "completed"]


def test_a_condition_sees_the_result_of_the_task_before() -> None:
    text = """
        tasks:
          - {name: a, action: my.act}
          - {name: check, if: "{{ result().of == 'a' }}", then: [my.act], else: [my.other]}
          - {name: b, action: my.act, input: {after: "{{ result().of }}"}}
    """
    run = Run(definition(text)).begin().play(lambda each: ("completed", {"of": task_of(each)}))
    assert run.order == ["a", "check.then.1", "b"]
    assert run.started[-1].config == {"after": "check.then.1"}


def test_branches_may_name_tasks_that_stand_elsewhere() -> None:
    text = """
        tasks:
          - {name: check, type: if, condition: parameters.go, then: a, else: b}
          - {name: a, action: my.act, next: c}
          - {name: b, action: my.act, next: c}
          - {name: c, action: my.act}
    """
    assert order(text, go=True) == ["a", "c", "completed"]
    assert order(text, go=False) == ["b", "c", "completed"]


def test_after_named_tasks_the_block_goes_on() -> None:
    text = """
        tasks:
          - {name: check, if: parameters.go, then: a, else: [b]}
          - {name: a, action: my.act}
          - {name: b, action: my.act}
          - {name: fan, depends_on: check, parallel: [c, d], next: last}
          - {name: c, action: my.act}
          - {name: d, action: my.act}
          - {name: last, action: my.act}
    """
    assert order(text, go=True) == ["a", "c", "d", "last", "completed"]
    assert order(text, go=False) == ["b", "c", "d", "last", "completed"]
    assert order(text, "c", go=True) == ["a", "c", "d", "failed"]


def test_a_branch_may_lead_back() -> None:
    text = """
        vars: {n: 0}
        tasks:
          - {name: again, action: my.act, publish: [{n: "{{ n + 1 }}"}]}
          - {name: check, depends_on: again, if: n < 3, then: again, else: {name: last, action: my.act}}
    """
    assert order(text) == ["again", "again", "again", "last", "completed"]


def test_parallel_branches_meet() -> None:
    text = """
        tasks:
          - name: fan
            parallel:
              - {name: a, action: my.act}
              - [{name: b, action: my.act}, {name: c, action: my.act}]
              - {if: parameters.go, then: {name: d, action: my.act}, else: {name: e, action: my.act}}
              - my.act
          - {name: last, action: my.act}
    """
    assert order(text, go=True) == ["a", "fan.4", "b", "d", "c", "last", "completed"]
    assert order(text, "c", go=True) == ["a", "fan.4", "b", "d", "c", "failed"]


@pytest.mark.parametrize(
    "written",
    [
        "{type: parallel, tasks: [{name: a, action: my.act}, {name: b, action: my.act}]}",
        "{parallel: {branches: [{name: a, action: my.act}, {name: b, action: my.act}]}}",
        "{parallel: {a: {action: my.act}, b: {action: my.act}}}",
        "{parallel: {tasks: [{tasks: [{name: a, action: my.act}]}, {name: b, action: my.act}]}}",
    ],
)
def test_ways_to_write_parallel_branches(written: str) -> None:
    *first, last, end = order(f"tasks: [{written}, {{name: last, action: my.act}}]")
    assert (set(first), last, end) == ({"a", "b"}, "last", "completed")


def test_a_list_in_a_block_is_a_sequence_unless_its_tasks_say_otherwise() -> None:
    text = """
        tasks:
          - name: check
            if: true
            then:
              - {name: a, action: my.act}
              - {name: b, action: my.act}
              - {name: c, action: my.act, depends_on: a}
          - {name: last, action: my.act}
    """
    assert order(text) == ["a", "b", "c", "last", "completed"]
    assert order(text, "b") == ["a", "b", "c", "failed"]


def test_blocks_nest() -> None:
    text = """
        tasks:
          - name: outer
            parallel:
              - if: parameters.n > 1
                then:
                  - if: parameters.n > 2
                    then: {name: a, action: my.act}
                  - parallel: [{name: b, action: my.act}, {name: c, action: my.act}]
              - {name: d, action: my.act}
          - {name: last, action: my.act}
    """
    assert order(text, n=3) == ["d", "a", "b", "c", "last", "completed"]
    assert order(text, n=2) == ["d", "b", "c", "last", "completed"]
    assert order(text, n=1) == ["d", "last", "completed"]


def test_a_block_with_a_condition_is_left_out_whole() -> None:
    text = """
        tasks:
          - {name: fan, when: parameters.go, parallel: [{name: a, action: my.act}, {name: b, action: my.act}]}
          - {name: last, action: my.act}
    """
    assert order(text, go=True) == ["a", "b", "last", "completed"]
    assert order(text, go=False) == ["last", "completed"]


RECOVERY = """
    tasks:
      - name: steps
        tasks:
          - name: a
            action: my.act
            on_failure:
              - {name: sorry, action: my.act}
          - {name: b, action: my.act}
"""


def test_after_a_handled_failure_the_steps_go_on() -> None:
    assert order(RECOVERY) == ["a", "b", "completed"]
    assert order(RECOVERY, "a") == ["a", "sorry", "b", "completed"]
    assert order(RECOVERY, "a", "sorry") == ["a", "sorry", "failed"]


def test_outcomes_have_blocks() -> None:
    text = """
        tasks:
          - name: a
            action: my.act
            on_success: {name: good, action: my.act}
            on_failure: {name: bad, action: my.act}
            on_timeout: {name: late, action: my.act}
    """
    assert order(text) == ["a", "good", "completed"]
    assert order(text, "a") == ["a", "bad", "completed"]
    run = Run(definition(text)).begin()
    run.answer(run.id_of("a"), "failed", timed_out=True)
    assert run.play().order == ["a", "late"]
    text = "tasks: [{name: a, action: my.act, on_complete: [my.log]}]"
    assert order(text) == order(text, "a") == ["a", "a.on_complete.1", "completed"]


CAUGHT = """
    tasks:
      - name: fan
        parallel:
          - {name: a, action: my.act, on_failure: {name: own, action: my.act}}
          - {name: b, action: my.act}
        on_failure: {name: sorry, action: my.act}
        next: [{when: succeeded(), do: good}, {when: failed(), publish: [{bad: "{{ result().of }}"}]}]
      - {name: good, action: my.act}
"""


def test_a_block_handles_what_its_tasks_do_not() -> None:
    assert order(CAUGHT) == ["a", "b", "good", "completed"]
    assert order(CAUGHT, "a") == ["a", "b", "own", "good", "completed"]
    assert order(CAUGHT, "b") == ["a", "b", "sorry", "completed"]


def test_derived_tasks_stay_out_of_the_way_of_users_names() -> None:
    names = [task.name for task in definition(BRANCHES).tasks]
    assert names == ["first", "check", "big", "bigger", "small", "check.end", "last"]


def test_a_loop_within_a_branch() -> None:
    text = """
        vars: {n: 0}
        tasks:
          - name: check
            if: true
            then:
              - name: again
                action: my.act
                next:
                  - {publish: [{n: "{{ n + 1 }}"}]}
                  - {when: n < 2, do: again}
                  - {when: n >= 2, do: done}
              - {name: done, action: my.act}
          - {name: last, action: my.act}
    """
    assert order(text) == ["again", "again", "again", "done", "last", "completed"]


# What is wrong

A, B = "{name: a, action: my.act}", "{name: b, action: my.act}"


@pytest.mark.parametrize(
    ("tasks", "path", "said"),
    [
        ("[{name: a, action: my.act, next: [{do: bb}]}, {name: bbb, action: my.act}]", "[0].next[0].do", "'bbb'"),
        ("[{name: a, action: my.act, depends_on: [b]}]", "[0].depends_on", "no task 'b'"),
        ("[{name: a, action: my.act, on_failure: b}]", "[0].on_failure", "no task 'b'"),
        ("[{name: a, action: my.act, decision: [{when: x, next: b}]}]", "[0].decision[0].next", "no task 'b'"),
        ("[{if: true, then: b}]", "[0].then", "no task 'b'"),
        (f"[{A}, {A}]", "[1].name", "taken by $.tasks[0]"),
        (f"[{A}, {{if: true, then: [{A}]}}]", "[1].then[0].name", "taken"),
        ("[{action: my.act}]", "[0].name", "missing"),
        ("[{name: task, action: my.act}]", "[0].name", "another name"),
        ("[{name: a.b, action: my.act}]", "[0].name", "letters"),
        ("[{name: 7, action: my.act}]", "[0].name", "letters"),
        ("[{name: a}]", "[0].action", "missing"),
        ("[{name: a, action: noop}]", "[0].action", "pack.name"),
        ("[{name: a, action: my.a.b}]", "[0].action", "one dot"),
        ("[{name: a, action: my.act, type: loop}]", "[0].type", "'loop'"),
        (f"[{A}, {{name: b, action: my.act, next: b}}]", "[1]", "cannot be reached"),
        (f"[{A}, {{name: b, action: my.act, depends_on: c}}, {{name: c, action: my.act, depends_on: b}}]",
         "[1].depends_on", "b, c"),
        ("[{name: a, action: my.act, depends_on: a}]", "[0].depends_on", "wait for each other"),
        ("[{name: a, if: true, then: {name: b, action: my.act, depends_on: a}}]", "[0].then.depends_on", "in"),
        ("[{name: a, action: my.act, next: b}, {name: b, action: my.act, join: 2}]", "[1].join", "1 lead"),
        ("[{name: a, action: my.act, join: some}]", "[0].join", "'all'"),
        ("[{name: a, action: my.act, when: 'x ='}]", "[0].when", "expression"),
        ("[{name: a, action: my.act, when: paramters.x}]", "[0].when", "'parameters'"),
        ("[{name: a, action: my.act, input: {x: ['{{ 1 + }}']}}]", "[0].input.x[0]", "1 +"),
        ("[{name: a, action: my.act, input: {x: '{{ item }}'}}]", "[0].input.x", "with_items"),
        ("[{name: a, action: my.act, input: {x: '{{ env() }}'}}]", "[0].input.x", "function 'env'"),
        ("[{name: a, action: my.act, input: {x: '{{ lenght([]) }}'}}]", "[0].input.x", "'length'"),
        ("[{name: a, action: my.act, input: [1]}]", "[0].input", "map"),
        ("[{name: a, action: my.act, with_items: 5}]", "[0].with_items", "list"),
        ("[{name: a, action: my.act, with: 'i in {{ x }}'}]", "[0].with", "{{ item }}"),
        ("[{name: a, action: my.act, when: '<% succeeded() %>'}]", "[0].when", "without <% %>"),
        ("[{name: a, action: my.act, concurrency: 0}]", "[0].concurrency", "from 1"),
        ("[{name: a, action: my.act, batch_size: 1.5}]", "[0].batch_size", "whole"),
        ("[{name: a, action: my.act, timeout: true}]", "[0].timeout", "not true"),
        ("[{name: a, action: my.act, delay: soon}]", "[0].delay", "'soon'"),
        ("[{name: a, action: my.act, retry: {delay: 1}}]", "[0].retry.count", "nothing"),
        ("[{name: a, action: my.act, retry: {count: 101}}]", "[0].retry.count", "100"),
        ("[{name: a, action: my.act, retry: {count: 1, backoff: slow}}]", "[0].retry.backoff", "linear"),
        ("[{name: a, action: my.act, retry: {count: 1, jitter: 2}}]", "[0].retry.jitter", "to 1"),
        ("[{name: a, action: my.act, retry: {count: 1, on_error: '('}}]", "[0].retry.on_error", "expression"),
        ("[{name: a, action: my.act, permission_set_refs: {x: 1}}]", "[0].permission_set_refs", "list"),
        ("[{name: a, action: my.act, next: 5}]", "[0].next", "transition"),
        ("[{name: a, action: my.act, next: [{publish: 'x = 1'}]}]", "[0].next[0].publish", "name: value"),
        ("[{name: a, action: my.act, next: [{do: [5]}]}]", "[0].next[0].do", "list of names"),
        ("[{name: a, parallel: []}]", "[0].parallel", "empty"),
        ("[{name: a, if: true}]", "[0].then", "missing"),
        (f"[{{name: a, then: {B}}}]", "[0].condition", "missing"),
        (f"[{{name: a, if: '{{{{ x }}}} y', then: {B}}}]", "[0].if", "one expression"),
        (f"[{{name: a, action: my.act, then: {B}, if: true}}]", "[0].action", "two tasks"),
        (f"[{{name: a, parallel: [{B}], retry: 3}}]", "[0].retry", "inside"),
        ("[{if: true, then: x, else: x, next: d}, {name: d, action: my.act}, {name: x, action: my.act, next: x}]",
         "[0]", "say in their next"),
        ("[5]", "[0]", "must be a task"),
        ("7", "", "list of tasks"),
        ("[]", "", "at least one"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_its_path_and_what_to_change(tasks: str, path: str, said: str) -> None:
    told = problems(f"vars: {{x: 1}}\ntasks: {tasks}")
    assert [where for where, _ in told] == [f"$.tasks{path}"]
    assert said in told[0][1]


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("5", "$"),
        ("{}", "$.tasks"),
        ("{tasks: {a: {action: my.act}}, vars: 5}", "$.vars"),
        ("{tasks: {a: {action: my.act}}, output_map: {x: '{{ y }}'}}", "$.output_map.x"),
        ("{tasks: {a: {action: my.act}}, output: [{x: '{{ y }}'}]}", "$.output.x"),
        ("{tasks: {a: {action: my.act}}, timeout: 0}", "$.timeout"),
        ("{tasks: {a: {action: my.act}}, max_iterations: -1}", "$.max_iterations"),
        ("{tasks: {a: {action: my.act}}, cancellation_policy: wait}", "$.cancellation_policy"),
        ("{tasks: {a: {action: my.act, next: b}}}", "$.tasks.a.next"),
    ],
)
def test_what_is_wrong_with_a_definition(text: str, path: str) -> None:
    assert [where for where, _ in problems(text)] == [path]
    assert read(text).definition is None


def test_every_problem_is_listed() -> None:
    told = problems("""
        tasks:
          - {name: a, action: nothing, next: [{when: "(", do: [b, c]}]}
          - {name: a, action: my.act, timeout: 0, input: {x: "{{ nobody }}"}}
    """)
    assert {path for path, _ in told} == {
        "$.tasks[0].action",
        "$.tasks[0].next[0].do",
        "$.tasks[0].next[0].when",
        "$.tasks[1].name",
        "$.tasks[1].timeout",
        "$.tasks[1].input.x",
    }


@pytest.mark.parametrize(
    ("tasks", "path", "said"),
    [
        ("[{name: a, action: my.act, with_item: '{{ [1] }}'}]", "[0].with_item", "'with_items'"),
        ("[{name: a, action: my.act, next: [{publishes: x}]}]", "[0].next[0].publishes", "'publish'"),
        ("[{name: a, action: my.act, retry: {count: 1, delays: 5}}]", "[0].retry.delays", "'delay'"),
        ("[{name: a, action: my.act, with_items: parameters.x}]", "[0].with_items", "{{ parameters.x }}"),
        ("[{name: a, action: my.act, when: '{{ parameters.x }} == 1'}]", "[0].when", "one {{ }}"),
        ("[{name: a, action: my.act, input: {x: '<% ctx(y) %>'}}]", "[0].input.x", "{{ }}"),
        ("[{name: a, action: my.act, join: all}]", "[0].join", "no effect"),
        ("[{name: a, action: my.act, publish: [{config: 1}]}]", "[0].publish", "vars.config"),
        (f"[{{name: a, if: failed(), then: {B}}}]", "[0].if", "on_failure"),
        ("[{name: one, action: my.act, when: task.ones.x == 1}]", "[0].when", "'one'"),
        ("[{name: a, action: my.act, input: {x: 'task.c {{ task.a.x + tasks.b.y }}'}}]", "[0].input.x", "task 'b'"),
    ],
)
def test_what_is_doubtful_is_told_and_taken(tasks: str, path: str, said: str) -> None:
    text = f"tasks: {tasks}"
    assert problems(text) == []
    [(where, message)] = warnings(text)
    assert where == f"$.tasks{path}"
    assert said in message


def test_somebodys_own_keys_are_left_alone() -> None:
    text = (
        "{author: me, tasks: {a: {action: my.act, note: x, next: [{do: b, __chart_meta__: {}}]}, b: {action: my.act}}}"
    )
    assert (problems(text), warnings(text)) == ([], [])


def test_variables_are_known_wherever_they_are_set() -> None:
    definition("""
        vars: {seed: 1}
        tasks:
          - {name: a, action: my.act, input: {x: "{{ later + seed }}"}, next: [{publish: [{later: 2}]}]}
    """)


def test_actions_and_permission_sets() -> None:
    parsed = read("""
        tasks:
          - {name: a, action: my.one, permission_set_refs: [core.viewer, "{{ parameters.set }}", ""]}
          - {name: b, action: my.two, permission_set_refs: core.editor}
          - {name: c, action: my.one}
    """)
    assert parsed.definition is not None
    assert actions_of(parsed.definition) == ["my.one", "my.two"]
    assert permission_sets_of(parsed.definition) == ["core.viewer", "core.editor"]
    assert [each.path for each in check_actions(parsed, lambda ref: ref == "my.one")] == ["$.tasks[1].action"]
    assert [each.path for each in check_actions(parsed, lambda _: False)] == ["$.tasks[0].action", "$.tasks[1].action"]
    assert check_actions(read("tasks: []"), lambda _: False) == []


# Bounds


def test_what_is_too_large_is_refused_at_once() -> None:
    assert "bytes" in parse({"tasks": [], "x": "x" * MAX_BYTES}).problems[0].message
    assert "JSON" in parse({"tasks": object()}).problems[0].message
    tasks = [{"name": f"t{number}", "action": "my.act"} for number in range(1001)]
    assert [each.path for each in parse({"tasks": tasks}).problems] == ["$.tasks"]
    assert parse({"tasks": tasks[:1000]}).problems == []
    dense = [{**task, "next": [{"do": [each["name"] for each in tasks[:150]]}]} for task in tasks[:150]]
    assert [each.path for each in parse({"tasks": dense}).problems] == ["$.tasks"]


@pytest.mark.parametrize(
    "given",
    [
        [{}] * 100_000,
        [{"name": f"t{number}", "action": "act", "next": f"tt{number}"} for number in range(10_000)],
        [{"name": "a", "action": "my.act", **{f"actio{number}": 1 for number in range(30_000)}}],
        [{"name": "a", "action": "my.act", "next": [f"x{number}" for number in range(50_000)]}],
        [{"name": f"t{number}", "action": "my.act", "depends_on": "x" * 8_000} for number in range(120)],
    ],
)
def test_what_is_wrong_many_times_is_told_some_times_and_soon(given: Json) -> None:
    parsed = parse({"tasks": given})
    assert 100 <= len(parsed.problems) + len(parsed.warnings) <= 501
    assert max(len(each.message) for each in (*parsed.problems, *parsed.warnings)) <= 1_000


def test_blocks_nest_only_so_deep() -> None:
    nested: Any = {"name": "a", "action": "my.act"}
    for _ in range(20):
        nested = {"if": True, "then": [nested]}
    [told] = parse({"tasks": [nested]}).problems
    assert "nested" in told.message
    assert told.path.count("then") == 13


def test_a_chain_of_a_thousand_tasks() -> None:
    tasks = [{"name": f"t{number}", "action": "my.act", "next": f"t{number + 1}"} for number in range(999)]
    parsed = parse({"tasks": [*tasks, {"name": "t999", "action": "my.act"}]})
    assert (parsed.problems, parsed.warnings) == ([], [])


# Whatever comes in

_names = st.sampled_from(["a", "b", "c", "d", "core.x", "a, b", "", "x y"])
_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 10**6) | st.floats(allow_nan=False, allow_infinity=False) | _names
    | st.sampled_from(["{{ result() }}", "{{ 1 + }}", "succeeded()", "all", "core.echo", "{% if %}", "3"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_names, inner, max_size=3),
    max_leaves=4,
)  # fmt: skip
_tasks = st.recursive(
    st.fixed_dictionaries(
        {},
        optional={
            "name": _names,
            "action": st.sampled_from(["core.echo", "core.fail", "x"]),
            "next": st.lists(
                st.fixed_dictionaries({}, optional={"when": _values, "do": _names, "publish": _values}), max_size=2
            ),
            "on_failure": _names,
            "depends_on": _names | st.lists(_names, max_size=2),
            "join": st.sampled_from(["all", 1, 2, 0, "x"]),
            "when": _values,
            "with_items": _values,
            "retry": _values,
            "type": st.sampled_from(["action", "parallel", "if", "x"]),
        },
    ),
    lambda inner: st.fixed_dictionaries(
        {},
        optional={
            "name": _names,
            "if": _values,
            "then": st.lists(inner, max_size=2) | _names | inner,
            "else": inner | _values,
            "parallel": st.lists(inner, max_size=3) | st.dictionaries(_names, inner, max_size=2),
            "tasks": st.lists(inner, max_size=2),
            "on_failure": inner | st.lists(inner, max_size=2),
            "depends_on": _names,
            "when": _values,
            "next": _names,
        },
    ),
    max_leaves=6,
)  # fmt: skip


@given(
    st.fixed_dictionaries({}, optional={"tasks": st.lists(_tasks, max_size=4) | _values, "vars": _values, "x": _values})
    | _values
)
def test_anything_is_either_told_off_or_sound(given: Json) -> None:
    parsed = parse(given)
    assert bool(parsed.problems) == (parsed.definition is None)
    assert all(each.path.startswith("$") and each.message for each in (*parsed.problems, *parsed.warnings))
    if parsed.definition is None:
        return
    tasks = parsed.definition.tasks
    names = {task.name for task in tasks}
    assert len(names) == len(tasks) > 0
    assert all(name in names for task in tasks for transition in task.next for name in transition.do)
    graph = Graph(parsed.definition)
    assert graph.reachable_from(graph.entries) == names
    assert all(task.join in (None, "all") or task.join <= len(graph.inbound(task.name)) for task in tasks)  # type: ignore[operator]
    # What is taken by the door can be run, whatever comes of it.
    assert Run(parsed.definition).begin().play().end is not None
