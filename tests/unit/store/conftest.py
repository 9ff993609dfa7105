"""The store on moto: real tables made from the very resources that the stack deploys."""

import secrets
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.awsrequest import AWSResponse

from chalicelib import clients
from chalicelib.store.opening import Store
from chalicelib.store.snapshot import Snapshots
from infra import tables


@pytest.fixture
def bucket() -> str:
    return f"attune-{secrets.token_hex(6)}"


@pytest.fixture
def store(aws: None, bucket: str) -> Iterator[Store]:
    """The store over tables and a bucket of this test's own."""
    for name, resource in tables.RESOURCES.items():
        clients.dynamodb().create_table(**tables.create_request(resource, name))
    clients.s3().create_bucket(Bucket=bucket)
    yield Store("RegistryTable", "ActivityTable", bucket)
    for name in tables.RESOURCES:
        clients.dynamodb().delete_table(TableName=name)


class Calls:
    """Counts the AWS calls made while it listens."""

    def __init__(self) -> None:
        self.made: list[str] = []

    def __call__(self, model: Any, **_: Any) -> None:
        self.made.append(model.name)

    def during(self, work: Callable[[], Any]) -> list[str]:
        before = len(self.made)
        work()
        return self.made[before:]


@pytest.fixture
def calls(store: Store) -> Iterator[Calls]:
    counter = Calls()
    clients.on_event("before-call.*.*", counter)
    yield counter
    clients.off_event("before-call.*.*", counter)


class Refusals:
    """Stands in for DynamoDB where it answers what no emulator does: a transaction that met another one."""

    def __init__(self, times: int) -> None:
        self.left = times

    def __call__(self, **_: Any) -> tuple[Any, dict[str, Any]] | None:
        if self.left == 0:
            return None
        self.left -= 1
        refused = AWSResponse("https://dynamodb", 400, {}, None)
        reasons = [{"Code": "None"}, {"Code": "TransactionConflict", "Message": "Transaction is ongoing for the item"}]
        return refused, {"Error": {"Code": "TransactionCanceledException"}, "CancellationReasons": reasons}


@pytest.fixture
def refuse(store: Store) -> Iterator[Callable[[int], Refusals]]:
    """Has the next so many transactions refused."""
    refusals = Refusals(0)

    def start(times: int) -> Refusals:
        refusals.left = times
        return refusals

    clients.on_event("before-call.dynamodb.TransactWriteItems", refusals)
    yield start
    clients.off_event("before-call.dynamodb.TransactWriteItems", refusals)


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def passes(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def snapshots(store: Store, clock: Clock) -> Snapshots:
    return Snapshots(store, clock)


@pytest.fixture
def elsewhere(store: Store, bucket: str) -> Store:
    """The same tables, seen by another process: it hears nothing of what this one commits."""
    return Store("RegistryTable", "ActivityTable", bucket)
