"""Where a log is, and what of it is asked for."""

from datetime import timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.flow.world import World

from chalicelib.domain.entities import Execution
from chalicelib.flow import conductor, executor
from chalicelib.flow.intake import request_execution
from chalicelib.flow.logs import Log, last_lines, log_of, upload_form
from chalicelib.protocol import RunFinished


def execution(world: World, status: Any = "completed", result: Any = None, attempt: int = 1) -> Execution:
    now = world.clock()
    return Execution(
        id=7, created=now, updated=now, action_ref="p.act", status=status, result=result, attempt=attempt, timeout=60
    )


def put_parts(world: World, *parts: bytes, attempt: int = 1, stream: str = "stdout") -> None:
    for number, part in enumerate(parts):
        world.store.blobs.put(f"logs/7/{attempt}/{stream}/{number:06d}", part)


def whole(log: Log) -> str:
    content = log.read(0, log.size())
    assert len(content) == log.size()
    return content.decode()


class Text:
    def __init__(self, content: bytes) -> None:
        self.content = content

    def size(self) -> int:
        return len(self.content)

    def read(self, start: int, stop: int) -> bytes:
        return self.content[start:stop]


def test_a_result_that_shows_all_is_the_log(world: World) -> None:
    put_parts(world, b"older")
    ended = execution(world, result={"exit_code": 0, "stdout": "all of it\n", "stderr": "aside\n"})
    assert whole(log_of(world.store.blobs, ended, "stdout")) == "all of it\n"
    assert whole(log_of(world.store.blobs, ended, "stderr")) == "aside\n"


def test_a_run_that_ended_without_a_word_has_no_errors_log(world: World) -> None:
    put_parts(world, b"not looked at", stream="stderr")
    ended = execution(world, result={"exit_code": 0, "stdout": ""})
    assert whole(log_of(world.store.blobs, ended, "stderr")) == ""


def test_what_a_result_cuts_is_read_from_its_parts(world: World) -> None:
    put_parts(world, b"0123", b"456", b"789")
    ended = execution(world, result={"exit_code": 0, "stdout": "0[...]9", "stdout_truncated": True})
    log = log_of(world.store.blobs, ended, "stdout")
    assert whole(log) == "0123456789"
    assert [log.read(start, stop) for start, stop in [(3, 8), (4, 5), (9, 99), (10, 20), (50, 60)]] == [
        b"34567", b"4", b"9", b"", b"",
    ]  # fmt: skip


def test_a_log_that_did_not_arrive_is_what_the_result_shows(world: World) -> None:
    ended = execution(world, result={"exit_code": 0, "stdout": "0[...]9", "stdout_truncated": True})
    assert whole(log_of(world.store.blobs, ended, "stdout")) == "0[...]9"


def test_output_that_was_parsed_is_its_value(world: World) -> None:
    ended = execution(world, result={"exit_code": 0, "data": {"a": [1]}})
    assert whole(log_of(world.store.blobs, ended, "stdout")) == '{"a": [1]}\n'
    put_parts(world, b'before\n{"a": [1]}\n')
    assert whole(log_of(world.store.blobs, ended, "stdout")) == 'before\n{"a": [1]}\n'


def test_while_it_runs_a_log_is_what_has_arrived(world: World) -> None:
    running = execution(world, "running")
    assert log_of(world.store.blobs, running, "stdout").size() == 0
    put_parts(world, b"one")
    assert whole(log_of(world.store.blobs, running, "stdout")) == "one"


def test_each_attempt_has_its_own(world: World) -> None:
    put_parts(world, b"lost", attempt=1)
    put_parts(world, b"again", attempt=2)
    assert whole(log_of(world.store.blobs, execution(world, "running", attempt=2), "stdout")) == "again"


@pytest.mark.parametrize("result", [None, {"succeeded": False, "error": "lost"}])
def test_the_log_outlives_its_runner(world: World, result: Any) -> None:
    put_parts(world, b"before", stream="stderr")
    assert whole(log_of(world.store.blobs, execution(world, "abandoned", result), "stderr")) == "before"


@pytest.mark.parametrize(("status", "result"), [("requested", None), ("failed", {"error": "bad"})])
def test_what_never_ran_has_no_log(world: World, status: str, result: Any) -> None:
    assert whole(log_of(world.store.blobs, execution(world, status, result, attempt=0), "stdout")) == ""


@given(lines=st.lists(st.text("ab", max_size=9)), count=st.integers(1, 9), ended=st.booleans())
def test_the_last_lines_are_those_of_the_text(lines: list[str], count: int, *, ended: bool) -> None:
    text = "\n".join(lines) + ("\n" if ended and lines else "")
    log = Text(text.encode())
    at = last_lines(log, count, start=0, most=1000)
    assert text[at:] == "".join(text.splitlines(keepends=True)[-count:])


def test_the_last_lines_of_a_long_log_are_looked_for_from_its_end() -> None:
    content = b"".join(b"%06d\n" % number for number in range(200_000))
    log = Text(content)
    assert content[last_lines(log, 1, start=0, most=10**9) :] == b"199999\n"
    assert content[last_lines(log, 50_000, start=0, most=10**9) :].startswith(b"150000\n")
    assert last_lines(log, 10**6, start=0, most=10**9) == 0
    assert last_lines(log, 10**6, start=70, most=10**9) == 70
    assert last_lines(log, 10**6, start=0, most=100) == len(content) - 100


def test_the_form_is_for_the_attempts_own_logs(world: World) -> None:
    form = upload_form(world.store.blobs, execution(world, attempt=3), world.action)
    assert form.fields["key"] == f"{world.tenant}/logs/7/3/${{filename}}"


def test_a_run_brings_a_form_that_outlives_it(world: World) -> None:
    started = request_execution(world.services, world.tenant, world.action, parameters=None, timeout=60)
    assert executor.handle(world.services, world.requests) == []
    (run,) = world.runner.runs
    assert run.logs is not None
    assert run.logs.fields["key"].startswith(f"{world.tenant}/logs/{started.id}/1/")
    deadline = world.activity.get_execution(started.id).deadline
    assert deadline < world.clock() + timedelta(seconds=60 + 120 + 60)


def test_an_http_call_prints_nothing_and_needs_no_form(world: World) -> None:
    action = world.put_action("p.call", runtime_ref="core.http")
    request_execution(world.services, world.tenant, action, parameters=None)
    assert executor.handle(world.services, world.requests) == []
    assert world.runner.runs[0].logs is None


def test_what_was_printed_and_parsed_is_kept_as_it_was(world: World) -> None:
    started = request_execution(world.services, world.tenant, world.action, parameters=None)
    executor.handle(world.services, world.requests)
    (run,) = world.runner.runs
    report = RunFinished(
        tenant=run.tenant, execution=run.execution, attempt=run.attempt, token=run.token, status="completed",
        result={"exit_code": 0, "data": {"a": 1}}, printed='{\n  "a": 1\n}\n',
    )  # fmt: skip
    assert conductor.handle(world.services, [msgspec.json.encode(report).decode()]) == []
    ended = world.activity.get_execution(started.id)
    assert whole(log_of(world.store.blobs, ended, "stdout")) == '{\n  "a": 1\n}\n'


def test_the_form_tags_logs_by_how_long_their_action_keeps_them(world: World) -> None:
    kept = world.put_action("p.kept", log_retention_policy="days", log_retention_limit=20)

    forms = [upload_form(world.store.blobs, execution(world), action) for action in (world.action, kept)]

    assert [
        "<Value>log</Value>" in forms[0].fields["tagging"],
        "<Value>log-30</Value>" in forms[1].fields["tagging"],
    ] == [
        True,
        True,
    ]
