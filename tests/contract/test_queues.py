"""What the flow relies on SQS for (design §2, rules 2 and 4): nothing is lost, and time can be waited for in it."""

import json
import time
from typing import Any
from uuid import uuid4

from contract.conftest import ClientFactory
from helpers.polling import wait_for


def _queue(aws: ClientFactory, **attributes: str) -> str:
    url: str = aws("sqs").create_queue(QueueName=f"queue-{uuid4().hex}", Attributes=attributes)["QueueUrl"]
    return url


def _receive(aws: ClientFactory, url: str) -> list[dict[str, Any]]:
    answer = aws("sqs").receive_message(
        QueueUrl=url, MaxNumberOfMessages=10, AttributeNames=["ApproximateReceiveCount"], WaitTimeSeconds=0
    )
    messages: list[dict[str, Any]] = answer.get("Messages", [])
    return messages


def test_a_delayed_message_comes_at_its_second(aws: ClientFactory) -> None:
    url = _queue(aws)
    sent = time.monotonic()
    aws("sqs").send_message(QueueUrl=url, MessageBody="later", DelaySeconds=2)
    aws("sqs").send_message(QueueUrl=url, MessageBody="now")

    first = wait_for(lambda: _receive(aws, url), timeout=5, what="the message without delay")
    assert [message["Body"] for message in first] == ["now"]

    second = wait_for(lambda: _receive(aws, url), timeout=10, what="the delayed message")
    assert [message["Body"] for message in second] == ["later"]
    assert time.monotonic() - sent >= 1.9


def test_a_message_that_nobody_deleted_comes_again(aws: ClientFactory) -> None:
    url = _queue(aws, VisibilityTimeout="1")
    aws("sqs").send_message(QueueUrl=url, MessageBody="work")

    first = wait_for(lambda: _receive(aws, url), timeout=5, what="the message")
    assert _receive(aws, url) == []  # hidden meanwhile
    second = wait_for(lambda: _receive(aws, url), timeout=10, what="its second delivery")

    assert [message["MessageId"] for message in first] == [message["MessageId"] for message in second]
    assert second[0]["Attributes"]["ApproximateReceiveCount"] == "2"


def test_a_deleted_message_stays_away(aws: ClientFactory) -> None:
    url = _queue(aws, VisibilityTimeout="1")
    for body in ("done", "dropped"):
        aws("sqs").send_message(QueueUrl=url, MessageBody=body)
    first = wait_for(lambda: _receive(aws, url), timeout=5, what="the messages")
    while len(first) < 2:
        first += wait_for(lambda: _receive(aws, url), timeout=5, what="the other message")
    done = next(message for message in first if message["Body"] == "done")
    aws("sqs").delete_message(QueueUrl=url, ReceiptHandle=done["ReceiptHandle"])

    again = wait_for(lambda: _receive(aws, url), timeout=10, what="the message that was not deleted")
    assert [message["Body"] for message in again] == ["dropped"]


def test_a_message_that_fails_too_often_is_set_aside(aws: ClientFactory) -> None:
    dead = _queue(aws)
    arn = aws("sqs").get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": 2})
    url = _queue(aws, VisibilityTimeout="0", RedrivePolicy=policy)
    aws("sqs").send_message(QueueUrl=url, MessageBody="poison")

    def look() -> list[dict[str, Any]]:
        _receive(aws, url)
        return _receive(aws, dead)

    found = wait_for(look, timeout=10, what="the message among the dead letters")
    assert [message["Body"] for message in found] == ["poison"]


def test_ten_messages_go_in_one_call(aws: ClientFactory) -> None:
    url = _queue(aws)
    entries = [{"Id": str(number), "MessageBody": str(number)} for number in range(10)]

    answer = aws("sqs").send_message_batch(QueueUrl=url, Entries=entries)

    assert len(answer["Successful"]) == 10
    bodies: set[str] = set()
    while len(bodies) < 10:
        bodies |= {m["Body"] for m in wait_for(lambda: _receive(aws, url), timeout=5, what="the rest of the batch")}
    assert bodies == {str(number) for number in range(10)}
