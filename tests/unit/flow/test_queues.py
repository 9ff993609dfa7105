"""The sender against a fake SQS that refuses what SQS refuses."""

import json
from typing import Any

import pytest

from chalicelib.flow.queues import MAX_MESSAGE, Queues, SendError
from chalicelib.protocol import EventAccepted, ExecutionRequested


class FakeSqs:
    """Keeps what is sent; holds senders to SQS's limits on batches."""

    def __init__(self, refuse: str | None = None) -> None:
        self.sent: list[tuple[str, dict[str, Any], int]] = []
        self.groups: list[str] = []
        self.calls = 0
        self.refuse = refuse

    def send_message(self, **kwargs: Any) -> Any:
        self.calls += 1
        self._take(kwargs["QueueUrl"], kwargs["MessageBody"], kwargs["DelaySeconds"])
        self.groups.append(kwargs["MessageGroupId"])

    def send_message_batch(self, **kwargs: Any) -> Any:
        self.calls += 1
        entries = kwargs["Entries"]
        assert 1 <= len(entries) <= 10
        assert len({entry["Id"] for entry in entries}) == len(entries)
        assert sum(len(entry["MessageBody"]) for entry in entries) <= MAX_MESSAGE
        failed = [{"Id": e["Id"], "Message": "no"} for e in entries if self.refuse and self.refuse in e["MessageBody"]]
        for entry in entries:
            if entry["Id"] not in {each["Id"] for each in failed}:
                self._take(kwargs["QueueUrl"], entry["MessageBody"], entry["DelaySeconds"])
                self.groups.append(entry["MessageGroupId"])
        return {"Failed": failed} if failed else {}

    def _take(self, url: str, body: str, delay: int) -> None:
        assert len(body) <= MAX_MESSAGE
        self.sent.append((url, json.loads(body), delay))


def queues(sqs: FakeSqs) -> Queues:
    return Queues(lambda: sqs, events_url="events", executions_url="executions")


def requests(count: int, action_ref: str = "p.a") -> list[ExecutionRequested]:
    return [ExecutionRequested(tenant="t", id=number, action_ref=action_ref) for number in range(count)]


def test_an_event_goes_to_the_events_queue() -> None:
    sqs = FakeSqs()
    queues(sqs).event_accepted(EventAccepted(tenant="t", id=1, key="k", trigger_ref="p.t", payload={"a": 1}))
    ((url, body, _),) = sqs.sent
    assert url == "events"
    assert (body["id"], body["payload"]) == (1, {"a": 1})


@pytest.mark.parametrize(("count", "calls"), [(1, 1), (10, 1), (11, 2), (25, 3)])
def test_executions_go_out_in_as_few_calls_as_sqs_allows(count: int, calls: int) -> None:
    sqs = FakeSqs()
    queues(sqs).executions_requested(requests(count), delay=3)
    assert [body["id"] for _, body, _ in sqs.sent] == list(range(count))
    assert {delay for _, _, delay in sqs.sent} == {3}
    assert sqs.calls == calls


def test_messages_go_in_their_tenants_group() -> None:
    sqs = FakeSqs()
    queues(sqs).event_accepted(EventAccepted(tenant="one", id=1, key="k", trigger_ref="p.t"))
    queues(sqs).executions_requested([*requests(2), ExecutionRequested(tenant="other", id=9, action_ref="p.a")])
    assert sqs.groups == ["one", "t", "t", "other"]


def test_a_batch_stays_within_sqs_size() -> None:
    sqs = FakeSqs()
    queues(sqs).executions_requested(requests(10, "p." + "a" * 200_000))
    assert len(sqs.sent) == 10
    assert sqs.calls > 1


def test_a_refused_message_is_an_error() -> None:
    with pytest.raises(SendError, match="1 of 3"):
        queues(FakeSqs(refuse='"id":1,')).executions_requested(requests(3))
