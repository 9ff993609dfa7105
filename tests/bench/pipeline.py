"""The way from a webhook to a completed execution, function by function, each invocation's costs recorded.

The functions are the deployed ones with their own environments, on the deployed tables; only the queues between them
are played by the benchmark, which decides how large their batches are.
"""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from helpers.stack import Stack

from bench.calls import WRITES, Call
from bench.function_host import API, CONDUCTOR, EXECUTOR, RULES, RUNNER, Invocation

Json = Any
ROOT = Path(__file__).resolve().parents[2]
REGION = "us-east-1"
HANDLERS = {  # how the template names them
    API: "app.app",
    RULES: "app.on_events",
    EXECUTOR: "app.on_executions",
    CONDUCTOR: "app.on_results",
    RUNNER: "runners.handler.handle",
}


@dataclass
class Costs:
    """What a run through the pipeline took, per function and in all."""

    calls: dict[str, list[Call]] = field(default_factory=dict)
    invocations: dict[str, int] = field(default_factory=dict)
    cpu_seconds: dict[str, float] = field(default_factory=dict)
    messages: int = 0  # sent to queues
    batches: int = 0  # received from queues

    def add(self, function: str, invocation: Invocation) -> None:
        self.calls.setdefault(function, []).extend(invocation.calls)
        self.invocations[function] = self.invocations.get(function, 0) + 1
        self.cpu_seconds[function] = self.cpu_seconds.get(function, 0) + invocation.cpu_seconds
        self.messages += len(invocation.messages)

    @property
    def all_calls(self) -> list[Call]:
        return [call for calls in self.calls.values() for call in calls]

    @property
    def read_units(self) -> float:
        return sum(call.read_units for call in self.all_calls)

    @property
    def write_units(self) -> float:
        return sum(call.write_units for call in self.all_calls)

    @property
    def writes(self) -> int:
        return sum(call.service == "dynamodb" and call.operation in WRITES for call in self.all_calls)

    @property
    def sends(self) -> int:
        """Requests to SQS that send (a batch is one)."""
        return sum(call.service == "sqs" for call in self.all_calls)


class FunctionProcess:
    """A :mod:`bench.function_host`."""

    def __init__(self, name: str, environment: dict[str, str], log: Any) -> None:
        self.name = name
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.function_host", name],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )

    def invoke(self, event: Json) -> Invocation:
        """Raises RuntimeError when the function died; its log has the reason."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(event) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the function {self.name} ended with code {self._process.wait()}")
        return msgspec.json.decode(answer, type=Invocation)

    def stop(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


class Pipeline:
    """The five functions."""

    def __init__(self, functions: dict[str, FunctionProcess]) -> None:
        self._functions = functions

    def run(self, key: str, payloads: Sequence[Json]) -> Costs:
        """Posts ``payloads`` one by one, and takes each following step with all messages in one batch."""
        costs = Costs()
        accepted: list[str] = []
        for payload in payloads:
            event = {"key": key, "body": json.dumps({"payload": payload})}
            answered = self._invoke(costs, API, event)
            if answered.response["statusCode"] != 200:
                raise RuntimeError(f"the webhook answered {answered.response}")
            accepted += answered.messages
        requested = self._consume(costs, RULES, accepted).messages
        if not requested:
            return costs
        runs = self._consume(costs, EXECUTOR, requested).runs
        finished: list[str] = []
        for run in runs:
            finished += self._invoke(costs, RUNNER, json.loads(run)).messages
        if len(finished) != len(payloads):
            raise RuntimeError(f"{len(finished)} of {len(payloads)} executions came to an end")
        self._consume(costs, CONDUCTOR, finished)
        return costs

    def conduct(self, key: str, payload: Json, batch: int = 10) -> list[Costs]:
        """Posts ``payload``, whose rule starts a workflow that runs nothing in the execution plane, and follows it to
        its end: the costs of each batch that the executor takes, in order."""
        start = Costs()
        event = {"key": key, "body": json.dumps({"payload": payload})}
        accepted = self._invoke(start, API, event).messages
        waiting = list(self._consume(start, RULES, accepted).messages)
        batches: list[Costs] = []
        while waiting:
            taken, waiting = waiting[:batch], waiting[batch:]
            batches.append(Costs())
            waiting += self._consume(batches[-1], EXECUTOR, taken).messages
        return batches

    def _consume(self, costs: Costs, function: str, bodies: Sequence[str]) -> Invocation:
        costs.batches += 1
        invocation = self._invoke(costs, function, _sqs_event(bodies))
        if invocation.response["batchItemFailures"]:
            raise RuntimeError(f"the function {function} failed on {invocation.response}")
        return invocation

    def _invoke(self, costs: Costs, function: str, event: Json) -> Invocation:
        invocation = self._functions[function].invoke(event)
        costs.add(function, invocation)
        return invocation


@contextlib.contextmanager
def open_pipeline(stack: Stack, log: Any) -> Iterator[Pipeline]:
    """The functions below ``stack``, each in a process here. ``log`` takes what they print."""
    with contextlib.ExitStack() as running:
        functions = {}
        for name, environment in _environments(stack).items():
            functions[name] = FunctionProcess(name, environment, log)
            running.callback(functions[name].stop)
        yield Pipeline(functions)


def deployed_functions(stack: Stack) -> dict[str, dict[str, Json]]:
    """The configuration of each function of the deployment, by our names."""
    return {name: deployed_handler(stack, handler) for name, handler in HANDLERS.items()}


def deployed_handler(stack: Stack, handler: str) -> dict[str, Json]:
    """The configuration of the deployed function that begins with this handler."""
    pages = stack.aws_client("lambda").get_paginator("list_functions").paginate()
    functions = (function for page in pages for function in page["Functions"])
    found: dict[str, Json] = next(each for each in functions if each["Handler"] == handler)
    return found


def _environments(stack: Stack) -> dict[str, dict[str, str]]:
    common = {
        **{name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ},
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests"))),
        **stack.aws,
        "AWS_REGION": stack.aws["AWS_DEFAULT_REGION"],
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    return {
        # Without the share that a tenant has of one machine: on AWS there is none.
        name: {**common, **function.get("Environment", {}).get("Variables", {}), "ATTUNE_TENANT_SHARE": ""}
        for name, function in deployed_functions(stack).items()
    }


def _sqs_event(bodies: Sequence[str]) -> dict[str, Json]:
    """A batch as Lambda gets it from SQS (AWS: "Using Lambda with Amazon SQS")."""
    return {
        "Records": [
            {
                "messageId": str(position),
                "receiptHandle": str(position),
                "body": body,
                "attributes": {"ApproximateReceiveCount": "1"},
                "messageAttributes": {},
                "md5OfBody": "",
                "eventSource": "aws:sqs",
                "eventSourceARN": f"arn:aws:sqs:{REGION}:000000000000:bench",
                "awsRegion": REGION,
            }
            for position, body in enumerate(bodies)
        ]
    }
