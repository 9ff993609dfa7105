"""What Lambda is sent of a run with a secret, and keeps of it when its runner dies: nothing that can be read."""

import contextlib
import json
import os
import signal
from collections.abc import Callable, Iterator

import pytest
from helpers.client import AttuneClient, Json
from helpers.fixtures import create_python_action, unique_ref
from helpers.footprint import Footprint, places_of
from helpers.polling import wait_for, wait_for_execution_status
from helpers.stack import Stack, runners_of

pytestmark = [pytest.mark.tier3, pytest.mark.security, pytest.mark.secrets]

CODE = """import json, sys, time
given = json.load(sys.stdin)
print(given["token"], flush=True)
time.sleep(6)
"""


class Failures:
    """Lambda's records of the runs that failed: they rest in a queue instead of going to their function."""

    def __init__(self, stack: Stack) -> None:
        self._lambda, self._sqs = stack.aws_client("lambda"), stack.aws_client("sqs")
        names = [each["FunctionName"] for each in self._lambda.list_functions()["Functions"]]
        (self._runner,) = [name for name in names if "Runner" in name]
        (self._lost,) = [name for name in names if "Lost" in name]
        self._queue = ""

    @contextlib.contextmanager
    def kept(self) -> Iterator[Callable[[], str | None]]:
        """A function that says what was recorded, if anything was."""
        before = self._lambda.get_function_event_invoke_config(FunctionName=self._runner, Qualifier="$LATEST")
        self._queue = self._sqs.create_queue(QueueName=unique_ref("failures").replace(".", "-"))["QueueUrl"]
        attributes = self._sqs.get_queue_attributes(QueueUrl=self._queue, AttributeNames=["QueueArn"])["Attributes"]
        self._configure(before, {"OnFailure": {"Destination": attributes["QueueArn"]}})
        try:
            yield self._next
        finally:
            self._configure(before, before["DestinationConfig"])
            self._sqs.delete_queue(QueueUrl=self._queue)

    def hand_on(self, record: str) -> None:
        """Bring ``record`` where it would have gone."""
        self._lambda.invoke(FunctionName=self._lost, InvocationType="Event", Payload=record.encode())

    def _configure(self, before: dict[str, Json], destinations: Json) -> None:
        names = ("MaximumRetryAttempts", "MaximumEventAgeInSeconds")
        same = {name: before[name] for name in names if name in before}
        self._lambda.put_function_event_invoke_config(FunctionName=self._runner, DestinationConfig=destinations, **same)

    def _next(self) -> str | None:
        received = self._sqs.receive_message(QueueUrl=self._queue, VisibilityTimeout=0).get("Messages", [])
        return str(received[0]["Body"]) if received else None


@pytest.mark.parametrize("way", ["key", "parameter"])
def test_a_lost_runs_record_gives_nothing_away(
    client: AttuneClient, stack: Stack, test_pack: dict[str, Json], way: str
) -> None:
    if not stack.is_local or stack.state is None:
        pytest.skip("kills runners and reads all that there is, which is for stacks on this machine")
    canary = unique_ref("CaNaRy")
    schema = {"token": {"type": "string", "secret": True}}
    action = create_python_action(client, test_pack["ref"], "linger", CODE, schema if way == "parameter" else None)
    if way == "key":
        owner = {"owner_type": "pack", "owner_pack_ref": test_pack["ref"]}
        client.create_secret(f"{test_pack['ref']}.token", canary, **owner)
    failures, footprint = Failures(stack), Footprint(stack)
    with failures.kept() as recorded:
        id_ = client.execute(action, {"token": canary} if way == "parameter" else None)["id"]
        log = f"executions/{id_}/logs/stdout"
        wait_for(lambda: "********" in client.request("GET", log).text, timeout=30, what="the action to print")
        for runner in runners_of(stack):
            os.kill(runner, signal.SIGKILL)
        record = wait_for(recorded, timeout=30, what="Lambda to record the failure")
        assert record is not None
        found = places_of(canary, footprint.places())

    lost = json.loads(record)["requestPayload"]
    assert (lost["execution"], lost["attempt"]) == (id_, 1)
    assert lost["sealed"]["content"]
    assert places_of(canary, iter([("record", record)])) == []
    assert found == []
    failures.hand_on(record)
    execution = wait_for_execution_status(client, id_, "succeeded", timeout=60)
    assert execution["result"]["stdout"] == "********\n"
