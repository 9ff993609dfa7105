"""Sending to the queues between the boxes. Every message may arrive twice; receivers are idempotent (design §2)."""

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import msgspec

from chalicelib.protocol import (
    EnvironmentRequested,
    EventAccepted,
    ExecutionRequested,
    PolicyChanged,
    SensorDue,
    TimersDue,
    Wake,
)

_encode = msgspec.json.Encoder().encode

Entry = dict[str, Any]

BATCH: Final = 10  # SQS: entries per SendMessageBatch
MAX_DELAY: Final = 900  # SQS: seconds a message can be delayed
MAX_MESSAGE: Final = 1_048_576  # SQS: bytes of a message, and of a whole batch
_BATCH_BYTES: Final = 900_000  # leaves room for the batch's envelope


class Message(Protocol):
    """What all messages between the boxes have."""

    @property
    def tenant(self) -> str: ...


class SqsClient(Protocol):
    """The two calls we make of boto3's SQS client."""

    def send_message(self, **kwargs: Any) -> Any: ...
    def send_message_batch(self, **kwargs: Any) -> Any: ...


class SendError(Exception):
    """SQS took a batch but refused some of its messages; the sender's own message must be delivered again."""


class Queues:
    """The queues of one deployment, by what goes into them.

    Each message carries its tenant as its message group, by which SQS lets tenants share a queue (fair queues): nobody
    waits behind another tenant's thousands. ``client`` is a function so that a process that sends nothing pays for no
    client.
    """

    def __init__(self, client: Callable[[], SqsClient], *, events_url: str, executions_url: str) -> None:
        self._client = client
        self._events = events_url
        self._executions = executions_url

    def event_accepted(self, message: EventAccepted) -> None:
        self._send_all(self._events, [(message, 0)])

    def timers_due(self, messages: Sequence[tuple[TimersDue, int]]) -> None:
        """Send firings, each after its seconds of delay (at most 900)."""
        self._send_all(self._events, messages)

    def executions_requested(self, messages: Sequence[ExecutionRequested], *, delay: int = 0) -> None:
        """Hand executions to the executor, after ``delay`` seconds (at most 900)."""
        self._send_all(self._executions, [(message, delay) for message in messages])

    def sensor_due(self, message: SensorDue, *, delay: int = 0) -> None:
        """Ask the executor for a poll, after ``delay`` seconds (at most 900)."""
        self._send_all(self._executions, [(message, delay)])

    def wake(self, message: Wake, *, delay: int = 0) -> None:
        """Have the executor look at an execution, after ``delay`` seconds (at most 900)."""
        self._send_all(self._executions, [(message, delay)])

    def policy_changed(self, message: PolicyChanged) -> None:
        """Have the executor look at those who wait for a slot of an action."""
        self._send_all(self._executions, [(message, 0)])

    def environment_requested(self, message: EnvironmentRequested, *, delay: int = 0) -> None:
        """Ask the executor for an environment, after ``delay`` seconds (at most 900)."""
        self._send_all(self._executions, [(message, delay)])

    def _send_all(self, url: str, messages: Sequence[tuple[Message, int]]) -> None:
        entries = [_entry(message, delay) for message, delay in messages]
        if len(entries) == 1:
            self._client().send_message(QueueUrl=url, **entries[0])
            return
        for batch in _batches(entries):
            numbered = [{"Id": str(position), **entry} for position, entry in enumerate(batch)]
            answer = self._client().send_message_batch(QueueUrl=url, Entries=numbered)
            if refused := answer.get("Failed"):
                raise SendError(f"{len(refused)} of {len(batch)} messages refused: {refused[0].get('Message')}")


def _entry(message: Message, delay: int) -> Entry:
    return {"MessageBody": _encode(message).decode(), "DelaySeconds": delay, "MessageGroupId": message.tenant}


def _batches(entries: Sequence[Entry]) -> list[list[Entry]]:
    """``entries`` in as few batches as SQS takes: at most ten, and within the size of one message together."""
    batches: list[list[Entry]] = []
    room = 0
    for entry in entries:
        size = len(entry["MessageBody"])
        if not batches or len(batches[-1]) == BATCH or size > room:
            batches.append([])
            room = _BATCH_BYTES
        batches[-1].append(entry)
        room -= size
    return batches
