"""What the planes rely on Lambda for: partial batches, and that an asynchronous run that fails is told of (design §3).

On MiniStack only: moto runs functions in Docker.
"""

import io
import json
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest
from contract.conftest import ClientFactory
from helpers.polling import wait_for

# Tells every record on a queue of its own, fails those that say so, and dies or raises on demand.
CODE = """
import os
import botocore.session

client = botocore.session.get_session().create_client("sqs", region_name="us-east-1")

def handle(event, context):
    if event.get("die"):
        os._exit(1)
    if event.get("raise"):
        raise ValueError("asked to")
    failures = []
    for record in event["Records"]:
        client.send_message(QueueUrl=os.environ["SEEN"], MessageBody=record["body"])
        if record["body"].startswith("bad"):
            failures.append({"itemIdentifier": record["messageId"]})
    return {"batchItemFailures": failures}
"""


@dataclass(frozen=True)
class Deployed:
    function: str
    source: str  # queue URLs
    seen: str
    dead: str
    lost: str


@pytest.fixture
def deployed(ministack: ClientFactory) -> Iterator[Deployed]:
    sqs, lambda_ = ministack("sqs"), ministack("lambda")
    name = f"f{uuid4().hex}"

    def queue(role: str, **attributes: str) -> tuple[str, str]:
        url = sqs.create_queue(QueueName=f"{name}-{role}", Attributes=attributes)["QueueUrl"]
        arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        return url, arn

    (seen, _), (dead, dead_arn), (lost, lost_arn) = queue("seen"), queue("dead"), queue("lost")
    redrive = json.dumps({"deadLetterTargetArn": dead_arn, "maxReceiveCount": 2})
    source, source_arn = queue("source", VisibilityTimeout="3", RedrivePolicy=redrive)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.writestr("index.py", CODE)
    lambda_.create_function(
        FunctionName=name,
        Runtime="python3.11",
        Role="arn:aws:iam::000000000000:role/any",
        Handler="index.handle",
        Timeout=10,
        Code={"ZipFile": archive.getvalue()},
        Environment={"Variables": {"SEEN": seen}},
    )
    lambda_.put_function_event_invoke_config(
        FunctionName=name, MaximumRetryAttempts=0, DestinationConfig={"OnFailure": {"Destination": lost_arn}}
    )
    # A cold start must not outlast the visibility timeout: messages that were taken well would come again.
    lambda_.invoke(FunctionName=name, Payload=b'{"Records": []}')
    mapping = lambda_.create_event_source_mapping(
        FunctionName=name,
        EventSourceArn=source_arn,
        BatchSize=10,
        FunctionResponseTypes=["ReportBatchItemFailures"],
    )
    yield Deployed(name, source, seen, dead, lost)
    lambda_.delete_event_source_mapping(UUID=mapping["UUID"])
    lambda_.delete_function(FunctionName=name)


def _bodies(ministack: ClientFactory, url: str) -> list[str]:
    """Takes the messages that are there."""
    sqs = ministack("sqs")
    messages = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", [])
    for message in messages:
        sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    return [message["Body"] for message in messages]


def _left(ministack: ClientFactory, url: str) -> int:
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    found = ministack("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
    return sum(int(found[name]) for name in names)


def test_of_a_batch_only_the_failed_messages_come_again(ministack: ClientFactory, deployed: Deployed) -> None:
    bodies = ["good 1", "bad", "good 2"]
    ministack("sqs").send_message_batch(
        QueueUrl=deployed.source,
        Entries=[{"Id": str(place), "MessageBody": body} for place, body in enumerate(bodies)],
    )

    dead = wait_for(lambda: _bodies(ministack, deployed.dead), timeout=30, what="the failed message to be set aside")

    assert dead == ["bad"]
    assert _left(ministack, deployed.source) == 0
    seen: list[str] = []
    while taken := _bodies(ministack, deployed.seen):
        seen += taken
    assert sorted(seen) == ["bad", "bad", "good 1", "good 2"]


@pytest.mark.parametrize("cause", ["die", "raise"])
def test_an_asynchronous_run_that_fails_reaches_the_failure_destination(
    ministack: ClientFactory, deployed: Deployed, cause: str
) -> None:
    began = time.monotonic()
    payload = {cause: True, "token": "abc"}
    accepted = ministack("lambda").invoke(
        FunctionName=deployed.function, InvocationType="Event", Payload=json.dumps(payload).encode()
    )
    assert accepted["StatusCode"] == 202

    record = json.loads(wait_for(lambda: _bodies(ministack, deployed.lost), timeout=15, what="the lost run")[0])

    assert record["requestPayload"] == payload
    assert record["responseContext"]["functionError"] == "Unhandled"
    assert record["requestContext"]["functionArn"].endswith(deployed.function)
    assert time.monotonic() - began < 10  # no retry came in between


def test_an_asynchronous_run_without_room_reaches_the_failure_destination(
    ministack: ClientFactory, deployed: Deployed
) -> None:
    lambda_ = ministack("lambda")
    lambda_.put_function_concurrency(FunctionName=deployed.function, ReservedConcurrentExecutions=0)

    lambda_.invoke(FunctionName=deployed.function, InvocationType="Event", Payload=b'{"Records": []}')

    record: dict[str, Any] = json.loads(
        wait_for(lambda: _bodies(ministack, deployed.lost), timeout=15, what="the run that found no room")[0]
    )
    assert record["requestPayload"] == {"Records": []}
    assert record["responsePayload"]["__type"] == "TooManyRequestsException"
