"""Attune's control plane on AWS: the REST routes and the boxes behind the queues (docs/architecture.md).

Nothing is decided here. Each handler parses, calls one function, and answers.
"""

import gc
from typing import Any

# Nothing that a cold start makes becomes garbage: looking for some, again and again, takes a sixth of its time.
gc.disable()

import msgspec
from chalice import Chalice

from chalicelib.api import adapter
from chalicelib.flow import conductor, executor, happenings, tick
from chalicelib.flow.batches import partial_response
from chalicelib.protocol import (
    EnvironmentRequested,
    EventAccepted,
    ExecutionRequested,
    PolicyChanged,
    SensorDue,
    TimersDue,
    Wake,
)
from chalicelib.services import services

app = Chalice(app_name="attune")
adapter.register(app)
gc.freeze()
gc.enable()

_BATCH = 10

_decode_accepted = msgspec.json.Decoder(EventAccepted | TimersDue).decode
_decode_requested = msgspec.json.Decoder(
    ExecutionRequested | EnvironmentRequested | SensorDue | Wake | PolicyChanged
).decode


def _ids(event: Any) -> list[str]:
    return [record["messageId"] for record in event.to_dict()["Records"]]


@app.on_sqs_message(queue="attune-events", batch_size=_BATCH, name="rules")
def on_events(event: Any) -> dict[str, Any]:
    failed = happenings.handle(services(), [_decode_accepted(record.body) for record in event])
    return partial_response(_ids(event), failed)


@app.on_sqs_message(queue="attune-executions", batch_size=_BATCH, name="executor")
def on_executions(event: Any) -> dict[str, Any]:
    failed = executor.handle(services(), [_decode_requested(record.body) for record in event])
    return partial_response(_ids(event), failed)


@app.on_sqs_message(queue="attune-results", batch_size=_BATCH, name="conductor")
def on_results(event: Any) -> dict[str, Any]:
    failed = conductor.handle(services(), [record.body for record in event])
    return partial_response(_ids(event), failed)


@app.lambda_function(name="lost")
def on_lost(event: Any, _context: Any) -> None:
    conductor.take_back(services(), event)


@app.schedule("rate(1 minute)", name="tick")
def on_minute(_event: Any) -> None:
    tick.handle(services())
