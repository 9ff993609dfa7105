"""The message back."""

import json
import threading
from functools import cache
from typing import Any

import msgspec
import pytest

from chalicelib.protocol import RunFinished
from runners import results
from runners.results import MAX_MESSAGE, encoded


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
