"""One rule of the language each (workflow-language §4, README 9)."""

from datetime import timedelta

import msgspec
import pytest
from unit.domain.workflow.runs import BEGAN, RUN, Answer, Run, definition_of, task_of

from chalicelib.domain.entities import Execution, ExecutionStatus, Json
from chalicelib.domain.workflow.steps import Cancelled, Ended, Expired, Paused, Resumed


def to(*names: str, when: str | None = None, **publish: Json) -> dict[str, Json]:
    said: dict[str, Json] = {"do": list(names), "publish": list(publish.items())}
    return said | ({"when": when} if when else {})


def failing(*names: str) -> Answer:
    def answer(execution: Execution) -> tuple[ExecutionStatus, Json]:
        failed = task_of(execution) in names
        return ("failed" if failed else "completed"), {"succeeded": not failed}

    return answer


def test_tasks_follow_each_other() -> None:
    run = Run(definition_of({"name": "a", "next": [to("b")]}, {"name": "b", "next": [to("c")]}, {"name": "c"})).begin()
    assert run.order == ["a"]
    run.play()
    assert run.order == ["a", "b", "c"]
    assert (run.over.status, run.over.result) == ("completed", {"succeeded": True})
    assert run.started[1].parent == RUN
    assert run.started[1].workflow_task["triggered_by"] == "a"


def test_all_entries_begin_at_once() -> None:
    assert Run(definition_of({"name": "a"}, {"name": "b"})).begin().order == ["a", "b"]


def test_results_and_variables_are_handed_on() -> None:
    run = Run(
        definition_of(
            {"name": "a", "input": {"n": "{{ parameters.n + seed }}"}, "next": [to("b", total="{{ result().sum }}")]},
            {
                "name": "b",
                "input": {"text": "{{ total }} {{ task.a.sum }} {{ vars.total }}", "whole": "{{ result() }}"},
            },
            vars={"seed": "{{ parameters.n }}"},
            output_map={"total": "{{ workflow.total }}", "said": "{{ task.b.said }}"},
        ),
        n=2,
    ).begin()
    assert run.started[0].config == {"n": 4}
    run.answer(run.id_of("a"), sum=9)
    assert run.started[1].config["text"] == "9 9 9"
    assert run.started[1].config["whole"]["sum"] == 9
    run.answer(run.id_of("b"), said="hi")
    assert run.over.result == {"total": 9, "said": "hi", "succeeded": True}


def test_without_input_a_task_gets_the_parameters() -> None:
    assert Run(definition_of({"name": "a"}), x=1).begin().started[0].config == {"x": 1}


@pytest.mark.parametrize(
    ("status", "timed_out", "took"),
    [
        ("completed", False, ["a", "good", "always"]),
        ("failed", False, ["a", "bad", "always"]),
        ("abandoned", False, ["a", "bad", "always"]),
        ("failed", True, ["a", "late", "always"]),
        ("timeout", True, ["a", "late", "always"]),
    ],
)
def test_transitions_by_how_a_task_ended(status: ExecutionStatus, timed_out: bool, took: list[str]) -> None:
    ways = [
        to("good", when="{{ succeeded() }}"),
        to("bad", when="failed()"),
        to("late", when="timed_out()"),
        to("always"),
    ]
    names = ["good", "bad", "late", "always"]
    run = Run(definition_of({"name": "a", "next": ways}, *({"name": name} for name in names))).begin()
    run.answer(run.id_of("a"), status, timed_out=timed_out).play()
    assert run.order == took
    assert run.over.status == "completed"  # what failed was handled


def test_a_timeout_that_has_no_way_of_its_own_is_a_failure() -> None:
    run = Run(definition_of({"name": "a", "next": [to("bad", when="failed()")]}, {"name": "bad"})).begin()
    run.answer(run.id_of("a"), "failed", timed_out=True)
    assert run.order == ["a", "bad"]


def test_a_custom_condition_decides_by_its_value() -> None:
    ways = [to("many", when="result().n > 2 and succeeded()"), to("few", when="{{ result().n <= 2 }}")]
    run = Run(definition_of({"name": "a", "next": ways}, {"name": "many"}, {"name": "few"})).begin()
    run.answer(run.id_of("a"), n=2)
    assert run.order == ["a", "few"]


def test_a_condition_that_cannot_be_evaluated_counts_as_on_success_and_is_told() -> None:
    definition = definition_of({"name": "a", "next": [to("b", when="result().nothing.here")]}, {"name": "b"})
    run = Run(definition).begin()
    run.answer(run.id_of("a"))
    assert run.order == ["a", "b"]
    assert "nothing" in next(note.cause or "" for note in run.notes if note.what == "condition failed")
    failed = Run(definition).begin()
    failed.answer(failed.id_of("a"), "failed")
    assert failed.order == ["a"]


def test_an_unhandled_failure_fails_the_run() -> None:
    run = Run(definition_of({"name": "a", "next": [to("b", when="succeeded()")]}, {"name": "b"})).begin()
    run.play(failing("a"))
    assert run.over.status == "failed"
    assert run.over.result == {"error": "Workflow failed: 1 task(s) failed: a", "succeeded": False}


def fan(join: Json, **fields: Json) -> Run:
    return Run(
        definition_of(
            {"name": "start", "next": [to("x", "y", "z")]},
            *({"name": name, "next": [to("end", **fields)]} for name in "xyz"),
            {"name": "end", "join": join},
        )
    ).begin()


@pytest.mark.parametrize(("join", "needed"), [(1, 1), (2, 2), (3, 3), ("all", 3)])
def test_a_join_waits_for_so_many_and_begins_once(join: Json, needed: int) -> None:
    run = fan(join)
    run.answer(run.id_of("start"))
    for number, name in enumerate("xyz", start=1):
        run.answer(run.id_of(name))
        assert run.order.count("end") == int(number >= needed)
    run.play()
    assert run.order.count("end") == 1
    assert run.over.status == "completed"


def test_without_a_join_the_first_one_to_come_counts() -> None:
    run = fan(None)
    run.play()
    assert run.order.count("end") == 1


def test_a_join_that_cannot_be_complete_any_more_fails_and_says_what_is_missing() -> None:
    run = fan("all", when="succeeded()")
    run.play(failing("y"))
    assert run.over.status == "failed"
    assert "y" in run.over.result["error"]
    assert "y did not come" in run.over.result["reasons"][0]


def test_a_task_that_depends_on_one_that_does_not_come_is_left_out() -> None:
    run = Run(
        definition_of(
            {"name": "a", "next": [to("c", when="succeeded()"), to("mend", when="failed()")]},
            {"name": "b", "next": [to("c", when="succeeded()")]},
            {"name": "mend"},
            {"name": "c", "join": "all", "gathers": True},
        )
    ).begin()
    run.play(failing("a"))
    assert "c" not in run.order
    assert run.state.tasks["c"].status == "skipped"
    assert run.over.status == "completed"


def test_a_result_that_comes_twice_changes_nothing() -> None:
    run = fan("all")
    start = run.id_of("start")
    run.answer(start).advance(Ended(child=start, status="failed"))
    assert run.order == ["start", "x", "y", "z"]
    run.play().advance(Ended(child=run.started[1].id, status="failed"))
    assert run.over.status == "completed"


def test_a_loop_iterates_until_its_condition_ends_it() -> None:
    run = Run(
        definition_of(
            {"name": "count", "next": [to("test", n="{{ n + 1 }}")]},
            {"name": "test", "next": [to("count", when="n < 5"), to("done", when="n >= 5")]},
            {"name": "done"},
            vars={"n": 0},
        )
    ).begin()
    run.play()
    assert run.order == ["count", "test"] * 5 + ["done"]
    assert run.over.status == "completed"


def test_a_loop_has_a_limit_that_a_definition_can_raise() -> None:
    def endless(**fields: Json) -> Run:
        return Run(definition_of({"name": "a", "next": [to("a")]}, **fields)).begin().play()

    run = endless()
    assert len(run.order) == 100
    assert run.over.status == "failed"
    assert "max_iterations" in run.over.result["reasons"][0]
    assert len(endless(max_iterations=150).order) == 150


def test_a_join_within_a_loop_fires_once_per_iteration() -> None:
    run = Run(
        definition_of(
            {"name": "a", "next": [to("x", "y")]},
            {"name": "x", "next": [to("j")]},
            {"name": "y", "next": [to("j")]},
            {"name": "j", "join": "all", "next": [to("a", when="n < 3", n="{{ n + 1 }}"), to("end", when="n >= 3")]},
            {"name": "end"},
            vars={"n": 1},
        )
    ).begin()
    run.play()
    assert run.order.count("j") == 3 or run.order.count("j") == 2
    assert run.order.count("x") == run.order.count("j")
    assert run.order[-1] == "end"


@pytest.mark.parametrize(
    ("backoff", "waits"),
    [("constant", [3, 3, 3]), ("linear", [3, 6, 9]), ("exponential", [3, 6, 10])],
)
def test_retries(backoff: str, waits: list[float]) -> None:
    retry = {"count": 3, "delay": 3, "backoff": backoff, "max_delay": 10}
    run = Run(definition_of({"name": "a", "retry": retry})).begin()
    first = run.started[0].id
    for number, wait in enumerate(waits, start=1):
        run.answer(run.id_of("a"), "failed")
        again = run.started[number]
        assert run.not_before[again.id] == BEGAN + timedelta(seconds=wait)
        assert again.workflow_task["retry_count"] == number
        assert again.original_execution == first
    run.answer(run.id_of("a"), "failed")
    assert len(run.started) == 4
    assert run.over.status == "failed"


def test_only_errors_of_a_kind_are_retried() -> None:
    def ended_after(code: int) -> int:
        run = Run(definition_of({"name": "a", "retry": {"count": 2, "on_error": "result().code == 503"}})).begin()
        run.answer(run.id_of("a"), "failed", code=code)
        return len(run.started)

    assert (ended_after(503), ended_after(400)) == (2, 1)


def test_jitter_takes_something_off_and_is_the_same_every_time() -> None:
    def wait() -> timedelta:
        run = Run(definition_of({"name": "a", "retry": {"count": 1, "delay": 100, "jitter": 0.5}})).begin()
        run.answer(run.id_of("a"), "failed")
        return (run.not_before[run.started[1].id] or BEGAN) - BEGAN

    assert timedelta(seconds=50) <= wait() == wait() < timedelta(seconds=100)


def items(**fields: Json) -> Run:
    task = {"name": "each", "with_items": "{{ parameters.list }}", "input": {"it": "{{ item }}", "at": "{{ index }}"}}
    after = {"name": "after", "input": {"last": "{{ task.each }}"}}
    return Run(
        definition_of({**task, "next": [to("after", when="succeeded()")], **fields}, after), list=[10, 20, 30, 40]
    )


def test_items_run_so_many_at_a_time() -> None:
    run = items(concurrency=2).begin()
    assert [each.config for each in run.started] == [{"it": 10, "at": 0}, {"it": 20, "at": 1}]
    run.answer(run.started[1].id)
    assert run.started[2].config == {"it": 30, "at": 2}
    run.play()
    assert run.order == ["each"] * 4 + ["after"]


def test_a_failed_item_fails_the_task_after_all_have_run() -> None:
    run = items().begin()
    for number in range(4):
        run.answer(run.started[number].id, "failed" if number == 1 else "completed")
    assert run.order == ["each"] * 4
    assert run.over.status == "failed"
    assert getattr(run.state.tasks["each"].items, "failures", None) == [1]


def test_items_in_batches() -> None:
    run = items(batch_size=3, concurrency=9).begin()
    assert [each.config["it"] for each in run.started] == [[10, 20, 30], [40]]
    assert run.started[1].workflow_task["task_batch"] == 1


@pytest.mark.parametrize(("given", "count"), [("[]", 0), ("5", 1), ("[[1], [2]]", 2)])
def test_what_is_no_list_is_a_list_of_one(given: str, count: int) -> None:
    run = Run(definition_of({"name": "a", "with_items": f"{{{{ {given} }}}}", "concurrency": 9})).begin()
    assert len(run.started) == count
    run.play()
    assert run.over.status == "completed"


def test_many_items_are_kept_apart_and_started_in_steps() -> None:
    run = Run(
        definition_of({"name": "a", "with_items": "{{ parameters.n }}", "concurrency": 1000}), n=list(range(5000, 6000))
    )
    run.begin()
    assert len(run.open) == 1000
    assert len(run.kept) == 1
    run.play()
    assert run.over.status == "completed"


def test_a_task_whose_condition_does_not_hold_is_passed_over() -> None:
    run = Run(definition_of({"name": "a", "when": "parameters.on", "next": [to("b")]}, {"name": "b"}), on=False).begin()
    assert run.order == ["b"]
    assert run.state.tasks["a"].status == "skipped"


def test_a_task_without_an_action_passes_at_once() -> None:
    run = Run(definition_of({"name": "gate", "action": None, "next": [to("b", seen=1)]}, {"name": "b"})).begin()
    assert run.order == ["b"]
    assert run.state.variables == {"seen": 1}


def test_a_delay_is_kept_even_if_computed() -> None:
    run = Run(definition_of({"name": "a", "delay": "{{ parameters.d * 2 }}"}), d=4).begin()
    assert run.not_before[run.started[0].id] == BEGAN + timedelta(seconds=8)


def test_what_cannot_be_rendered_fails_its_task_and_can_be_handled() -> None:
    run = Run(
        definition_of(
            {"name": "a", "input": {"x": "{{ nothing.here }}"}, "next": [to("mend", when="failed()")]},
            {"name": "mend", "input": {"why": "{{ result().error }}"}},
        )
    ).begin()
    assert run.order == ["mend"]
    assert "nothing" in run.started[0].config["why"]


def test_an_action_that_is_not_there_fails_its_task() -> None:
    run = Run(definition_of({"name": "a", "action": "gone.act"})).begin()
    assert "gone.act does not exist" in run.over.result["reasons"][0]


def test_parameters_that_break_the_schema_fail_the_task_without_a_retry() -> None:
    run = Run(definition_of({"name": "a", "input": {"n": "x"}, "retry": {"count": 3}}))
    needs = {"n": {"type": "integer"}}
    run.actions["p.act"] = run.world.action("p.other").__class__(
        id=7,
        ref="p.act",
        created=BEGAN,
        updated=BEGAN,
        pack=1,
        pack_ref="p",
        label="",
        entrypoint="",
        param_schema=needs,
    )
    run.begin()
    assert [each.status for each in run.started] == ["failed"]
    assert run.over.status == "failed"


def test_while_paused_nothing_begins_and_nothing_is_lost() -> None:
    run = fan("all")
    run.advance(Paused()).answer(run.id_of("start"))
    assert run.order == ["start"]
    assert run.end is None
    run.advance(Resumed()).play()
    assert run.over.status == "completed"


@pytest.mark.parametrize(("policy", "running"), [("allow_finish", False), ("cancel_running", True)])
def test_a_cancelled_run_ends_when_nothing_is_left_running(policy: str, running: bool) -> None:
    run = Run(definition_of({"name": "a", "next": [to("b")]}, {"name": "b"}, cancellation_policy=policy)).begin()
    run.advance(Cancelled())
    assert [(stop.executions, stop.running) for stop in run.stopped] == [([run.id_of("a")], running)]
    assert run.end is None
    run.answer(run.id_of("a"))
    assert run.order == ["a"]
    assert (run.over.status, run.over.result) == (
        "cancelled",
        {"error": "Workflow cancelled", "succeeded": False},
    )


def test_a_run_that_takes_too_long_ends_at_once() -> None:
    run = Run(definition_of({"name": "a"}))
    run.origin = msgspec.structs.replace(run.origin, timeout=60)
    run.begin()
    run.advance(Expired())
    assert run.stopped[0].running
    assert run.over.timed_out
    assert run.over.result["error"] == "Workflow timed out after 60 seconds"
    ended = run.end
    run.answer(run.started[0].id)
    assert run.end is ended


def test_a_rerun_keeps_what_succeeded() -> None:
    definition = definition_of(
        {"name": "a", "next": [to("b", "c")]},
        {"name": "b", "next": [to("j", when="succeeded()")]},
        {"name": "c", "next": [to("j", when="succeeded()")]},
        {"name": "j", "join": "all", "input": {"of": "{{ task.b.n }}{{ task.c.n }}"}},
    )
    run = Run(definition).begin()
    run.answer(run.id_of("a")).answer(run.id_of("b"), n=1).answer(run.id_of("c"), "failed")
    assert run.over.status == "failed"
    again = Run(definition)
    again.results = run.results
    again.again(run.state, "c")
    assert again.order == ["c"]
    again.answer(again.id_of("c"), n=2)
    assert again.order == ["c", "j"]
    assert again.started[1].config == {"of": "12"}


@pytest.mark.parametrize(("reset", "indexes"), [(False, [1]), (True, [0, 1, 2, 3])])
def test_a_rerun_of_items_takes_up_those_that_failed(reset: bool, indexes: list[int]) -> None:
    run = items(concurrency=9).begin()
    for number in range(4):
        run.answer(run.started[number].id, "failed" if number == 1 else "completed")
    again = items(concurrency=9).again(run.state, "each", reset=reset)
    assert [each.workflow_task["task_index"] for each in again.started] == indexes
    again.play()
    assert again.order[-1] == "after"


def test_secrets_are_handed_on_as_references() -> None:
    run = Run(
        definition_of({"name": "a", "input": {"auth": "Bearer {{ parameters.token }}", "key": "{{ keystore.x.y }}"}})
    )
    sealed = {"sealed": "c1pher", "of": "p.flow"}
    hidden = {"$attune_secret": True, "redacted": True}
    run.origin = run.origin.__class__(
        **{
            name: getattr(run.origin, name)
            for name in ("execution", "action_ref", "pack_ref", "definition", "started_at")
        },
        parameters={"token": hidden},
        secrets={"/token": [sealed]},
    )
    run.begin()
    assert run.started[0].config == {"auth": hidden, "key": hidden}
    assert run.started[0].secrets == {"/auth": ["Bearer ", sealed], "/key": [{"key": "x.y"}]}


def test_permission_sets_of_a_template_must_be_the_executors_to_give() -> None:
    def sets(given: Json) -> Run:
        return Run(
            definition_of({"name": "a", "permission_set_refs": given}), who="core.admin", me="core.viewer"
        ).begin()

    assert sets(["core.admin"]).started[0].permission_set_refs == ["core.admin"]
    assert sets("{{ parameters.me }}").started[0].permission_set_refs == ["core.viewer"]
    assert "core.admin" in sets(["{{ parameters.who }}"]).over.result["reasons"][0]
    assert sets("").started[0].permission_set_refs == []


def test_a_loop_that_nothing_ends_ends_at_its_limit() -> None:
    tasks = [{"name": "a", "next": [to("b")]}, {"name": "b", "next": [to("a")]}]
    run = Run(definition_of(*tasks, max_iterations=3)).begin().play()
    assert run.order == ["a", "b"] * 3
    assert run.over.result["error"] == "Workflow failed: 1 task(s) failed: a"


def test_a_join_after_a_rerun_waits_for_what_runs_again() -> None:
    tasks = [
        {"name": "a", "next": [to("x"), to("y", when="succeeded()")]},
        {"name": "b", "next": [to("x")]},
        {"name": "x", "join": "all", "next": [to("y", when="succeeded()")]},
        {"name": "y", "join": "all"},
    ]
    first = Run(definition_of(*tasks)).begin().play(failing("x"))
    assert first.over.status == "failed"
    again = Run(definition_of(*tasks)).again(first.state, "a")
    again.answer(again.id_of("a"))
    assert again.order == ["a", "x"]
    assert again.play().order == ["a", "x", "y"]


def test_a_key_decides_and_is_never_stored() -> None:
    kept = {"x": "{{ keystore.a.b }}", "y": "Bearer {{ keystore.a.b }}", "z": "fine"}
    tasks = [
        {"name": "a", "next": [to("b", when="keystore.a.b == 'hush'", **kept), to("c", when="{{ keystore.a.b }}!")]},
        {"name": "b"},
        {"name": "c"},
    ]
    run = Run(definition_of(*tasks, output_map={"x": "{{ vars.x }}"}))
    run.keys["a.b"] = "hush"
    run.begin().play()
    assert run.order == ["a", "b", "c"]
    assert run.state.variables == {"x": None, "y": None, "z": "fine"}
    assert "hush" not in f"{run.state}{run.notes}{run.over}"
    run = Run(definition_of({"name": "a"}, output_map={"x": "{{ keystore.a.b }}"}))
    run.keys["a.b"] = "hush"
    assert run.begin().play().over.result["error"] == "output_map: /x: a secret cannot be used here"


def test_a_join_that_is_run_again_waits_for_others_that_are() -> None:
    tasks = [{"name": "a", "next": [to("c")]}, {"name": "b", "next": [to("c", when="succeeded()")]}]
    definition = definition_of(*tasks, {"name": "c", "join": "all"})
    first = Run(definition).begin().play(failing("b"))
    assert first.state.named("failed") == ["b", "c"]
    again = Run(definition).again(first.state, "c", "b")
    assert again.order == ["b"]
    assert again.play().order == ["b", "c"]
    assert again.over.status == "completed"
    assert Run(definition).again(first.state, "c").order == ["c"]
