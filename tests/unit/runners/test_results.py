"""The message back."""

import json

import msgspec
import pytest

from chalicelib.protocol import RunFinished
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
