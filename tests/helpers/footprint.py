"""All that a deployment keeps, read as its operator could: where a secret must not be found in clear.

For deployments on this machine only: everything is read whole.
"""

import base64
import contextlib
import gzip
import json
import zlib
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, quote_plus

from helpers.polling import wait_for
from helpers.stack import Stack

Json = Any

# What EventBridge sends (AWS: "Amazon EventBridge Scheduler").
_A_MINUTE = json.dumps(
    {"version": "0", "id": "test", "detail-type": "Scheduled Event", "source": "aws.events", "account": "", "time": "",
     "region": "us-east-1", "resources": [], "detail": {}}
).encode()  # fmt: skip


class Footprint:
    """Reads the AWS below ``stack``."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._clients: dict[str, Any] = {
            name: stack.aws_client(name) for name in ("cloudformation", "dynamodb", "s3", "sqs", "logs", "lambda")
        }

    def places(self) -> Iterator[tuple[str, str]]:
        """Every table item, object, waiting message, log line and function's configuration: where it is, and what it
        says."""
        yield from self.items()
        yield from self.objects()
        for queue in self.queues():
            yield from self.messages(queue)
        yield from self.log_lines()
        for function in self.functions():
            yield f"configuration of {function['FunctionName']}", json.dumps(function, default=str)

    def items(self) -> Iterator[tuple[str, str]]:
        for table in self._clients["dynamodb"].list_tables()["TableNames"]:
            for page in self._clients["dynamodb"].get_paginator("scan").paginate(TableName=table):
                for item in page["Items"]:
                    for name, value in item.items():
                        yield f"{table}: {item.get('pk')} {item.get('sk')}: {name}", _text(value)

    def objects(self) -> Iterator[tuple[str, str]]:
        s3 = self._clients["s3"]
        for bucket in s3.list_buckets()["Buckets"]:
            if bucket["Name"].startswith("attune-code-"):
                continue  # the functions' zips: our own code
            for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket["Name"]):
                for entry in page.get("Contents", ()):
                    content = s3.get_object(Bucket=bucket["Name"], Key=entry["Key"])["Body"].read()
                    with contextlib.suppress(OSError, EOFError, zlib.error):
                        content = gzip.decompress(content)
                    yield f"s3://{bucket['Name']}/{entry['Key']}", content.decode("utf-8", "replace")

    def queues(self) -> list[str]:
        urls: list[str] = self._clients["sqs"].list_queues().get("QueueUrls", [])
        return urls

    def messages(self, queue: str) -> Iterator[tuple[str, str]]:
        """What waits in ``queue``; it stays there."""
        received = self._clients["sqs"].receive_message(QueueUrl=queue, MaxNumberOfMessages=10, VisibilityTimeout=0)
        for message in received.get("Messages", ()):
            yield f"message in {queue.rpartition('/')[2]}", json.dumps(message)

    def functions(self) -> list[dict[str, Json]]:
        found: list[dict[str, Json]] = self._clients["lambda"].list_functions()["Functions"]
        return found

    def tick(self) -> None:
        """Does what a minute's passing does."""
        (function,) = [each["FunctionName"] for each in self.functions() if each["Handler"] == "app.on_minute"]
        self._clients["lambda"].invoke(FunctionName=function, Payload=_A_MINUTE)

    def log_lines(self) -> Iterator[tuple[str, str]]:
        logs = self._clients["logs"]
        for group in logs.describe_log_groups()["logGroups"]:
            name = group["logGroupName"]
            for page in logs.get_paginator("filter_log_events").paginate(logGroupName=name):
                for event in page["events"]:
                    yield f"log group {name}", event["message"]
        if self._stack.state is not None:
            for path in sorted(self._stack.state.glob("*.log")):
                yield str(path), path.read_text(errors="replace")

    @contextlib.contextmanager
    def held(self, queue: str) -> Iterator[str]:
        """``queue`` (part of its name), which nobody empties as long as the context lasts; its URL."""
        functions = self._clients["lambda"]
        (url,) = [each for each in self.queues() if queue in each.rpartition("/")[2]]
        (mapping,) = [
            each
            for each in functions.list_event_source_mappings()["EventSourceMappings"]
            if each["EventSourceArn"].rpartition(":")[2] == url.rpartition("/")[2]
        ]

        def switch(*, on: bool) -> None:
            functions.update_event_source_mapping(UUID=mapping["UUID"], Enabled=on)
            wanted = "Enabled" if on else "Disabled"
            wait_for(
                lambda: functions.get_event_source_mapping(UUID=mapping["UUID"])["State"] == wanted,
                timeout=30,
                what=f"{queue} to be {wanted}",
            )

        switch(on=False)
        try:
            yield url
        finally:
            switch(on=True)

    def wait_for_message(self, queue: str, containing: str, timeout: float = 30) -> str:
        """A message of ``queue`` (a URL) once there is one with that text."""

        def look() -> str | None:
            return next((text for _, text in self.messages(queue) if containing in text), None)

        found = wait_for(look, timeout=timeout, what=f"a message with {containing} in {queue}")
        assert found is not None
        return found


def forms_of(secret: str) -> set[str]:
    """How a secret may be written down and still be there for the taking."""
    raw = secret.encode()
    forms = {secret, json.dumps(secret)[1:-1], quote(secret, safe=""), quote_plus(secret), raw.hex()}
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + raw).decode()
        # The characters that depend on the secret alone, and not on what stands before or behind it.
        forms.add(encoded[(8 * before + 5) // 6 : 8 * (before + len(raw)) // 6])
    return forms


def places_of(secret: str, places: Iterator[tuple[str, str]]) -> list[str]:
    """Those of ``places`` where ``secret`` is found, in one form or another."""
    forms = forms_of(secret)
    return [place for place, text in places if any(form in text for form in forms)]


def _text(value: dict[str, Json]) -> str:
    """A DynamoDB attribute as text, bytes too."""

    def plain(inner: Json) -> str:
        if isinstance(inner, bytes):
            with contextlib.suppress(OSError, EOFError, zlib.error):
                inner = gzip.decompress(inner)
            return str(inner, "utf-8", "replace")
        return str(inner)

    return json.dumps(value, default=plain, ensure_ascii=False)
