"""A run that is told to stop, whatever it runs on."""

import math
import time
from collections.abc import Callable
from typing import Any

import pytest

from chalicelib.protocol import Logs, RunFinished
from runners import cancellation, http, logs
from runners.addresses import AddressGuard
from runners.cancellation import Cancellation
from runners.redaction import Redactor

Carry = Callable[..., RunFinished]
URL = "https://marks/7"


class Mark:
    """S3's end of the mark: there from the ``after``-th look on; ``None``: never."""

    def __init__(self) -> None:
        self.after: int | None = 1
        self.looks = 0
        self.out_of_reach = False

    def is_there(self, url: str) -> bool:
        assert url == URL
        self.looks += 1
        if self.out_of_reach:
            raise OSError("no route")
        return self.after is not None and self.looks >= self.after


@pytest.fixture
def mark(monkeypatch: pytest.MonkeyPatch) -> Mark:
    mark = Mark()
    monkeypatch.setattr(cancellation, "is_there", mark.is_there)
    monkeypatch.setattr(cancellation, "FIRST_LOOK", 0.2)
    monkeypatch.setattr(cancellation, "BETWEEN_LOOKS", 0.05)
    return mark


@pytest.mark.parametrize(
    ("kind", "code"), [("python", "import time\nprint('begun')\ntime.sleep(60)"), ("shell", "echo begun; sleep 60")]
)
def test_what_runs_is_ended(carry_out: Carry, mark: Mark, kind: str, code: str) -> None:
    mark.after = 3

    finished = carry_out(kind, code, stop_url=URL)

    assert finished.result.pop("duration_ms") < 10_000
    assert finished.result == {
        "succeeded": False,
        "cancelled": True,
        "exit_code": -1,
        "error": "Execution cancelled by user",
    }
    assert (mark.looks, finished.timed_out) == (3, False)


def test_it_may_clean_up_and_has_its_own_exit_code(carry_out: Carry, mark: Mark) -> None:
    code = "trap 'exit 3' TERM; while :; do sleep 0.05; done"

    result = carry_out("shell", code, stop_url=URL).result

    assert (result["cancelled"], result["exit_code"]) == (True, 3)


def test_who_does_not_listen_is_killed(carry_out: Carry, mark: Mark, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runners.sandbox.TERMINATION_GRACE", 0.3)

    result = carry_out("shell", "trap '' TERM; while :; do sleep 0.05; done", stop_url=URL).result

    assert (result["cancelled"], result["exit_code"]) == (True, -1)
    assert mark.looks == 1, "once is enough"


def test_a_short_run_is_not_looked_after(carry_out: Carry, mark: Mark, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cancellation, "FIRST_LOOK", 5.0)

    assert carry_out("shell", "echo done", stop_url=URL).result["stdout"] == "done\n"
    assert mark.looks == 0


def test_a_run_that_nobody_cancels_goes_on_to_its_end(carry_out: Carry, mark: Mark) -> None:
    mark.after = None

    assert carry_out("shell", "sleep 0.6; echo done", stop_url=URL).result["stdout"] == "done\n"
    assert mark.looks > 1


def test_s3_out_of_reach_stops_nothing(carry_out: Carry, mark: Mark) -> None:
    mark.out_of_reach = True

    assert carry_out("shell", "sleep 0.6; echo done", stop_url=URL).result["stdout"] == "done\n"
    assert mark.looks == 1, "and is left alone for a while"


def test_its_log_is_kept_although_the_result_does_not_show_it(
    carry_out: Carry, mark: Mark, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored: dict[str, bytes] = {}
    monkeypatch.setattr(logs, "post_form", lambda _, fields: stored.update({fields["key"]: fields["file"][1]}))
    form = Logs(url="http://bucket", fields={"key": "l/${filename}"})

    finished = carry_out("shell", "echo out; echo err >&2; sleep 60", stop_url=URL, logs=form)

    assert stored == {"l/stdout/000000": b"out\n", "l/stderr/000000": b"err\n"}
    assert finished.log_parts == {"stdout": 1, "stderr": 1}


def test_retries_of_a_request_end(mark: Mark) -> None:
    began = time.monotonic()

    status, result, timed_out = http.request(
        {"url": "http://127.0.0.1:9/", "retries": 10},
        timeout=60,
        redactor=Redactor([]),
        guard=AddressGuard(["127.0.0.1"]),
        cancellation=Cancellation(URL),
    )

    assert (status, timed_out, result["cancelled"], result["exit_code"]) == ("failed", False, True, -1)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("settle", [lambda: Cancellation(None), lambda: _settled()])
def test_nobody_looks_where_there_is_nothing_to_look_for(mark: Mark, settle: Callable[[], Any]) -> None:
    cancelled = settle()

    assert (cancelled.due, cancelled.heard(), mark.looks) == (math.inf, False, 0)


def _settled() -> Cancellation:
    cancelled = Cancellation(URL)
    cancelled.due = 0.0
    cancelled.settle()
    return cancelled
