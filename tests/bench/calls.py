"""The SDK hook: every AWS call of a process, and what DynamoDB says it consumed.

Handlers are added to botocore's own list, so that every session made afterwards has them, whoever makes it. Sends to
queues and invocations of functions are counted and kept instead of sent: the benchmark carries them to their receiver
itself, in the batches it wants to measure.
"""

import io
import json
import math
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec
from botocore import handlers
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from urllib3 import HTTPResponse

Json = Any

READ_BLOCK = 4096
WRITES = frozenset({"PutItem", "UpdateItem", "DeleteItem", "BatchWriteItem", "TransactWriteItems"})


class Call(msgspec.Struct, kw_only=True):
    """One request on the wire. Units are DynamoDB's, indexes included."""

    service: str
    operation: str
    read_units: float = 0
    write_units: float = 0


class Recorder:
    """Collects calls until :meth:`take`."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.messages: list[str] = []
        self.runs: list[str] = []
        self._asked: Mapping[str, Json] = {}

    def install(self) -> None:
        """Must come before the first session is made."""
        added: list[tuple[str, Callable[..., Any]]] = [
            ("before-parameter-build.dynamodb", self._ask_for_capacity),
            ("before-send", self._sending),
            ("after-call.dynamodb", self._answered),
        ]
        builtin: list[Any] = handlers.BUILTIN_HANDLERS
        builtin.extend(added)

    def take(self) -> tuple[list[Call], list[str], list[str]]:
        """Calls, messages sent to queues, and payloads of invocations since the last time."""
        taken = self.calls, self.messages, self.runs
        self.calls, self.messages, self.runs = [], [], []
        return taken

    def _ask_for_capacity(self, params: dict[str, Json], model: Any, **_: object) -> None:
        if "ReturnConsumedCapacity" in model.input_shape.members:
            params["ReturnConsumedCapacity"] = "INDEXES"
        self._asked = params

    def _sending(self, request: AWSPreparedRequest, event_name: str, **_: object) -> AWSResponse | None:
        service, operation = event_name.split(".")[1:3]
        self.calls.append(Call(service=service, operation=operation))
        body = request.body.decode() if isinstance(request.body, bytes) else request.body
        if service == "sqs" and operation == "SendMessage":
            self.messages.append(json.loads(body)["MessageBody"])
            return _answer(request, 200, {"MessageId": "kept"})
        if service == "sqs" and operation == "SendMessageBatch":
            entries = json.loads(body)["Entries"]
            self.messages.extend(entry["MessageBody"] for entry in entries)
            sent = [{"Id": entry["Id"], "MessageId": "kept"} for entry in entries]
            return _answer(request, 200, {"Successful": sent, "Failed": []})
        if service == "lambda" and operation == "Invoke":
            self.runs.append(body)
            return _answer(request, 202, None)
        return None

    def _answered(self, parsed: Mapping[str, Json], model: Any, **_: object) -> None:
        consumed = parsed.get("ConsumedCapacity") or []
        units = sum(each["CapacityUnits"] for each in (consumed if isinstance(consumed, list) else [consumed]))
        call = self.calls[-1]
        if model.name in WRITES:
            call.write_units = units
        elif model.name == "BatchGetItem" and not consumed:
            call.read_units = _batch_read_units(self._asked["RequestItems"], parsed["Responses"])
        else:
            call.read_units = units


def _batch_read_units(asked: Mapping[str, Json], found: Mapping[str, list[Json]]) -> float:
    """For emulators that do not say: per item one unit for each 4 KB begun, half of it when eventually consistent (AWS:
    "DynamoDB read and write operations"). JSON is longer than what DynamoDB measures, so this is no less than that."""
    units = 0.0
    for table, request in asked.items():
        items = found.get(table, [])
        blocks = sum(math.ceil(len(json.dumps(item)) / READ_BLOCK) for item in items)
        units += (blocks + len(request["Keys"]) - len(items)) * (1 if request.get("ConsistentRead") else 0.5)
    return units


def _answer(request: AWSPreparedRequest, status: int, body: Json) -> AWSResponse:
    content = b"" if body is None else json.dumps(body).encode()
    raw = HTTPResponse(body=io.BytesIO(content), preload_content=False, status=status)
    headers = {"content-type": "application/x-amz-json-1.0", "host": urlsplit(request.url).netloc}
    return AWSResponse(request.url, status, headers, raw)
