"""The message back."""

import json
import threading
from functools import cache
from typing import Any

import msgspec
import pytest

from chalicelib.protocol import Logs, RunFinished, StoredResult
from runners import results
from runners.results import MAX_MESSAGE, MAX_RESULT, encoded, put_away


def finished(result: object) -> RunFinished:
    return RunFinished(tenant="t", execution=1, attempt=1, token="t", status="completed", result=result)


def test_the_message_is_the_struct() -> None:
    message = finished({"succeeded": True, "stdout": "ü\n"})

    assert msgspec.json.decode(encoded(message), type=RunFinished) == message


@pytest.mark.parametrize("name", ["data", "body", "json"])
def test_a_result_that_does_not_fit_is_a_failure_that_says_so(name: str) -> None:
    body = encoded(finished({"succeeded": True, name: "x" * MAX_MESSAGE, "duration_ms": 5}))
    message = msgspec.json.decode(body, type=RunFinished)

    assert len(body) < 1000
    assert (message.status, message.result["succeeded"], message.result["duration_ms"]) == ("failed", False, 5)
    assert str(MAX_MESSAGE) in message.result["error"]


FORM = Logs(url="http://bucket", fields={"key": "t/logs/1/1/${filename}", "policy": "p"})


def test_a_result_that_no_message_holds_goes_by_s3(monkeypatch: pytest.MonkeyPatch) -> None:
    stored: dict[str, bytes] = {}
    monkeypatch.setattr(results, "post_form", lambda _, fields: stored.update({fields["key"]: fields["file"][1]}))
    large = msgspec.structs.replace(finished({"succeeded": True, "data": "x" * MAX_MESSAGE}), printed="said")

    report = put_away(large, FORM)

    assert (report.status, report.result, report.printed, report.stored) == ("completed", None, None, True)
    kept = msgspec.json.decode(stored["t/logs/1/1/result"], type=StoredResult)
    assert (kept.result, kept.printed) == (large.result, "said")


def test_a_result_beyond_all_bounds_is_a_failure_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "post_form", lambda *_: pytest.fail("nothing is stored"))

    report = put_away(finished({"succeeded": True, "exit_code": 0, "data": "x" * MAX_RESULT}), FORM)

    assert (report.status, report.stored, report.result["exit_code"]) == ("failed", False, 0)
    assert f"the most is {MAX_RESULT}" in report.result["error"]


def test_a_result_that_cannot_be_stored_is_a_failure_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    def refuse(url: str, _: object) -> None:
        tried.append(url)
        raise OSError("no")

    monkeypatch.setattr(results, "post_form", refuse)

    report = put_away(finished({"succeeded": True, "data": "x" * MAX_MESSAGE}), FORM)

    assert (report.status, report.stored, len(tried)) == ("failed", False, 3)
    assert "could not be stored" in report.result["error"]


def test_output_in_escapes_does_not_make_a_message_too_large() -> None:
    body = encoded(finished({"succeeded": True, "stdout": "\x01" * MAX_MESSAGE, "exit_code": 0}))

    assert len(body) < 1000


def test_characters_that_sqs_refuses_go_as_escapes() -> None:
    body = encoded(finished({"stdout": "a\ufffe\uffffb"}))

    assert not {"\ufffe", "\uffff"} & set(body)
    assert json.loads(body)["result"]["stdout"] == "a\ufffe\uffffb"


def test_the_client_is_made_once_and_before_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    begun = threading.Event()

    class Client:
        def send_message(self, **message: str) -> None:
            sent.append(message)

    @cache
    def make() -> Client:
        begun.set()
        made.append(Client())
        return made[-1]

    sent: list[dict[str, str]] = []
    monkeypatch.setattr(results, "_sqs", make)
    monkeypatch.setenv("ATTUNE_RESULTS_QUEUE", "http://queue")

    results.prepare()
    assert begun.wait(5)
    results.send(finished({}))

    assert len(made) == 1
    assert [message["QueueUrl"] for message in sent] == ["http://queue"]
