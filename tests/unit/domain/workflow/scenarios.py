"""The scripts of the recorded histories: for recording them anew, when the conductor is meant to behave differently."""

from collections.abc import Callable
from dataclasses import dataclass

from unit.domain.workflow.recording import Recorder, Script

from chalicelib.domain.entities import Json
from chalicelib.domain.workflow.steps import Cancelled, Ended, Expired, Paused, Resumed


@dataclass(frozen=True)
class Scenario:
    about: str
    written: str
    parameters: dict[str, Json]
    script: Script


SCENARIOS: dict[str, Scenario] = {}


def scenario(written: str, **parameters: Json) -> Callable[[Script], Script]:
    """Make a script of a function; its name is the history's, its docstring says what it is about."""

    def take(script: Script) -> Script:
        SCENARIOS[script.__name__] = Scenario(script.__doc__ or "", written, parameters, script)
        return script

    return take


def ends(run: Recorder, task: str, status: str = "completed", *, timed_out: bool = False, **data: Json) -> None:
    """The first execution of ``task`` that is open ends."""
    id_ = next(id_ for id_, each in run.open.items() if each.workflow_task["task_name"] == task)
    run.answer(id_, status, timed_out=timed_out, **data)  # type: ignore[arg-type]


@scenario(
    """
    vars: {greeting: Hello}
    tasks:
      - name: fetch
        action: my.fetch
        input: {id: "{{ parameters.id }}"}
        next:
          - {when: succeeded(), publish: [{user: "{{ result().name }}"}], do: greet}
          - {when: failed(), do: report}
      - name: greet
        action: my.greet
        input: {text: "{{ greeting }} {{ user }}, number {{ task.fetch.number }}"}
      - {name: report, action: my.report}
    output_map: {said: "{{ task.greet.said }}", user: "{{ user }}"}
    """,
    id=7,
)
def data_along_a_chain(run: Recorder) -> None:
    """Results and variables are handed on; an end that is told twice changes nothing."""
    run.begin()
    ends(run, "fetch", name="Ada", number=1)
    run.advance(Ended(child=100, status="failed"))
    ends(run, "greet", said="Hello Ada")


@scenario("""
    tasks:
      - {name: begin, action: my.act, next: [{do: [a, b, c]}]}
      - {name: a, action: my.act, next: [{do: all}, {do: two}]}
      - {name: b, action: my.act, next: [{do: all}, {do: two}]}
      - {name: c, action: my.act, next: [{when: succeeded(), do: "all, two"}, {when: failed(), do: repair}]}
      - {name: repair, action: my.act}
      - {name: all, action: my.act, join: all}
      - {name: two, action: my.act, join: 2}
""")
def fan_out_and_joins(run: Recorder) -> None:
    """A join of two begins with the second to come, one of all with the last, and a handled failure counts as well."""
    run.begin()
    ends(run, "begin")
    ends(run, "b")
    ends(run, "c", "failed")
    ends(run, "repair")
    ends(run, "a")
    ends(run, "two")
    ends(run, "all")


@scenario(
    """
    tasks:
      - name: each
        action: my.act
        with_items: "{{ parameters.hosts }}"
        concurrency: 2
        input: {host: "{{ item }}", position: "{{ index }}"}
        retry: {count: 1}
        next: [{when: failed(), publish: [{bad: "{{ result().why }}"}], do: report}]
      - {name: report, action: my.act, input: {why: "{{ bad }}"}}
    """,
    hosts=["a", "b", "c", "d"],
)
def items_two_at_a_time(run: Recorder) -> None:
    """Each item is retried by itself; one that fails for good fails the task when all have run."""
    run.begin()
    ends(run, "each")
    ends(run, "each", "failed", why="once")
    ends(run, "each")
    ends(run, "each", "failed", why="again")
    ends(run, "each")
    ends(run, "report")


@scenario("""
    tasks:
      - {name: each, action: my.act, with_items: [1, 2, 3, 4, 5], batch_size: 2, concurrency: 3, delay: 5,
         input: {numbers: "{{ batch }}"}}
      - {name: none, action: my.act, with_items: [], next: [{do: after}]}
      - {name: after, action: my.act, input: {x: 1}}
""")
def items_in_batches(run: Recorder) -> None:
    """Batches begin after a delay; a task without items is through at once."""
    run.begin()
    run.later(seconds=5)
    for task in ("each", "after", "each", "each"):
        ends(run, task)


@scenario("""
    tasks:
      - name: flaky
        action: my.act
        input: {x: 1}
        retry: {count: 5, delay: 10, backoff: exponential, max_delay: 30, jitter: 0.5, on_error: result().code == 503}
        next: [{when: failed(), do: report}]
      - {name: report, action: my.act, input: {code: "{{ result().code }}"}}
""")
def retries_of_some_errors(run: Recorder) -> None:
    """The waits grow up to their limit; an error of another kind is not retried."""
    run.begin()
    for code in (503, 503, 503, 500):
        ends(run, "flaky", "failed", code=code)
        run.later(seconds=30)
    ends(run, "report")


@scenario("""
    vars: {seen: []}
    max_iterations: 10
    tasks:
      - name: poll
        action: my.act
        input: {seen: "{{ length(seen) }}"}
        next:
          - {when: not result().ready, publish: [{seen: "{{ seen + [result().state] }}"}], do: pause}
          - {when: result().ready, do: done}
      - {name: pause, action: my.act, delay: 60, next: poll}
      - {name: done, action: my.act, input: {seen: "{{ seen }}"}}
    output_map: {seen: "{{ seen }}"}
""")
def a_polling_loop(run: Recorder) -> None:
    """A loop goes round until its condition ends it."""
    run.begin()
    for state in ("new", "building"):
        ends(run, "poll", ready=False, state=state)
        run.later(seconds=60)
        ends(run, "pause")
    ends(run, "poll", ready=True)
    ends(run, "done")


@scenario(
    """
    tasks:
      - {name: first, action: my.act}
      - name: check
        if: result().size > parameters.limit
        then:
          - name: fan
            parallel:
              - {name: left, action: my.act}
              - [{name: right, action: my.act}, {name: further, action: my.act}]
            on_failure: {name: sorry, action: my.act}
          - {name: big, action: my.act}
        else: {name: small, action: my.act}
      - {name: last, action: my.act, input: {after: "{{ result().of }}"}}
    """,
    limit=3,
)
def blocks(run: Recorder) -> None:
    """A branch with parallel tasks, of which one fails and is handled by their block."""
    run.begin()
    ends(run, "first", size=5)
    ends(run, "right", "failed")
    ends(run, "left")
    ends(run, "sorry")
    ends(run, "big", of="big")
    ends(run, "last")


@scenario(
    """
    tasks:
      - name: manager
        action: core.ask
        input: {prompt: "Deploy {{ parameters.what }}?"}
        timeout: 3600
        next:
          - {when: succeeded() and result().response.approved, do: deploy}
          - {when: succeeded() and not result().response.approved, do: denied}
          - {when: timed_out(), do: director}
      - name: director
        action: core.ask
        timeout: 60
        next: [{when: succeeded() and result().response.approved, do: deploy}]
      - {name: deploy, action: my.act}
      - {name: denied, action: my.act}
    """,
    what="it",
)
def approvals(run: Recorder) -> None:
    """The first does not answer in time, the second does."""
    run.begin()
    run.later(hours=1)
    ends(run, "manager", "timeout", timed_out=True)
    ends(run, "director", response={"approved": True})
    ends(run, "deploy")


@scenario("""
    cancellation_policy: cancel_running
    tasks:
      - {name: a, action: my.act, next: c}
      - {name: b, action: my.act, next: c}
      - {name: c, action: my.act, join: all}
""")
def pause_resume_cancel(run: Recorder) -> None:
    """While it is paused nothing begins; cancelled, it ends when nothing is left."""
    run.begin()
    run.advance(Paused())
    ends(run, "a")
    ends(run, "b")
    run.advance(Resumed())
    run.advance(Cancelled())
    run.advance(Resumed())
    ends(run, "c", "cancelled")


@scenario("""
    timeout: 60
    tasks:
      - {name: slow, action: my.act, next: [{when: failed(), do: never}]}
      - {name: never, action: my.act}
""")
def too_late(run: Recorder) -> None:
    """A run whose time is over ends at once, and what still comes is ignored."""
    run.begin()
    run.later(seconds=60)
    run.advance(Expired())
    run.advance(Ended(child=100, status="completed"))


@scenario("""
    tasks:
      - {name: last, action: my.act, depends_on: [test, lint]}
      - {name: build, action: my.act}
      - {name: test, action: my.act, depends_on: build}
      - {name: lint, action: my.act, depends_on: build}
      - {name: notes, action: my.act, depends_on: [build], when: parameters.nothing is defined}
""")
def a_rerun(run: Recorder) -> None:
    """What depends on a failed task is left out; run again from there, what succeeded is kept."""
    run.begin()
    ends(run, "build")
    ends(run, "lint")
    ends(run, "test", "failed")
    run.later(hours=1)
    run.again(run.state, "test")
    ends(run, "test")
    ends(run, "last")


@scenario(
    """
    tasks:
      - {name: gone, action: gone.act, next: [{when: failed(), do: wrong}]}
      - {name: wrong, action: my.act, input: {x: "{{ parameters.y }}"}, next: [{when: failed(), do: doubtful}]}
      - name: doubtful
        action: my.act
        next:
          - {when: result().nothing.at.all, publish: [{x: "{{ result().nothing }}"}], do: join}
          - {when: failed(), do: join}
      - {name: other, action: my.act, next: [{when: succeeded(), do: join}]}
      - {name: join, action: my.act, join: 2}
    """,
    x=1,
)
def what_goes_wrong_is_told(run: Recorder) -> None:
    """An action that is not there, a template and a condition that cannot be evaluated, a join that is never whole."""
    run.begin()
    ends(run, "doubtful")
    ends(run, "other", "failed")
