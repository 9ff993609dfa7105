"""One function of the deployment in a process of its own, as on Lambda: warm, with caches that nobody else shares.

``python -m bench.function_host NAME`` reads a JSON event per line from stdin and answers an :class:`Invocation` per
line on its original stdout; whatever the function prints goes to stderr.
"""

import json
import os
import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from bench.calls import Call, Recorder

Json = Any
Handler = Callable[[Json, Any], Json]

API, RULES, EXECUTOR, RUNNER, CONDUCTOR = "api", "rules", "executor", "runner", "conductor"


class Invocation(msgspec.Struct, kw_only=True):
    """What one invocation answered, called, sent on, and cost in CPU (children included)."""

    response: Json
    calls: list[Call]
    messages: list[str]
    runs: list[str]
    cpu_seconds: float


@dataclass(frozen=True)
class Context:
    """Lambda's context, as far as handlers may look."""

    function_name: str
    aws_request_id: str = "00000000-0000-0000-0000-000000000000"
    memory_limit_in_mb: int = 512
    invoked_function_arn: str = "arn:aws:lambda:us-east-1:000000000000:function:bench"

    def get_remaining_time_in_millis(self) -> int:
        return 30_000


def main() -> None:
    name = sys.argv[1]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    recorder = Recorder()
    recorder.install()
    handler = _handler(name)
    for line in sys.stdin:
        before = _cpu_seconds()
        response = handler(json.loads(line), Context(name))
        spent = _cpu_seconds() - before
        calls, messages, runs = recorder.take()
        invocation = Invocation(response=response, calls=calls, messages=messages, runs=runs, cpu_seconds=spent)
        answers.write(msgspec.json.encode(invocation).decode() + "\n")
        answers.flush()


def _handler(name: str) -> Handler:
    # Imported here: a runner has no app.py, and the recorder must be there before any client.
    if name == RUNNER:
        from runners.handler import handle

        return handle
    import app

    if name != API:
        consumer: Handler = app.app.handler_map[name]
        return consumer
    return lambda event, context: app.app(_gateway_event(**event), context)


def _gateway_event(*, key: str, body: str) -> dict[str, Json]:
    """API Gateway's event for a POST to the webhook ``key`` (AWS: "Lambda proxy integration input format"). The API is
    one greedy resource."""
    resource, path = "/{proxy+}", f"/api/v1/webhooks/{key}"
    headers = {"content-type": "application/json", "user-agent": "bench"}
    return {
        "resource": resource,
        "path": path,
        "httpMethod": "POST",
        "headers": headers,
        "multiValueHeaders": {name: [value] for name, value in headers.items()},
        "queryStringParameters": None,
        "multiValueQueryStringParameters": None,
        "pathParameters": {"proxy": path[1:]},
        "stageVariables": None,
        "requestContext": {
            "resourcePath": resource,
            "httpMethod": "POST",
            "path": path,
            "requestId": "bench",
            "identity": {"sourceIp": "127.0.0.1", "userAgent": "bench"},
        },
        "body": body,
        "isBase64Encoded": False,
    }


def _cpu_seconds() -> float:
    used = (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in used)


if __name__ == "__main__":
    main()
