"""A deployment on moto that the unit tests of the API and of the boxes share."""

import copy
import json
import secrets
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from moto import mock_aws
from moto.core import DEFAULT_ACCOUNT_ID
from moto.dynamodb.models import dynamodb_backends

from chalicelib import clients
from chalicelib.domain.entities import SYSTEM_TENANT, Pack, PermissionSet
from chalicelib.domain.permissions import DEFAULT_SETS
from chalicelib.services import Services, open_services
from chalicelib.settings import Settings
from chalicelib.store.registry import Put
from infra import tables

QUEUES = ("events", "executions", "results")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what works on a deployment, by whatever fixture."""
    for item in items:
        if "aws" in getattr(item, "fixturenames", ()):
            item.add_marker("aws")


@pytest.fixture(scope="session")
def aws() -> Iterator[None]:
    """Moto, nobody's credentials, and clients that last for the session: making them costs more than most tests."""
    with pytest.MonkeyPatch.context() as patch, mock_aws():
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.delenv("AWS_ENDPOINT_URL", raising=False)
        clients.forget()
        yield
        clients.forget()


@pytest.fixture(scope="session")
def settings(aws: None) -> Settings:
    """Queues and secret of a deployment."""
    queues = {name: clients.sqs().create_queue(QueueName=name)["QueueUrl"] for name in QUEUES}
    keys = {"jwt": [{"kid": "1", "key": key()}], "master": [{"kid": "1", "key": key()}]}
    clients.secretsmanager().create_secret(Name="attune", SecretString=json.dumps(keys))
    return Settings(
        registry_table="registry",
        activity_table="activity",
        events_queue=queues["events"],
        executions_queue=queues["executions"],
        results_queue=queues["results"],
        runner_function="runner",
        bucket="each test has its own",
        secret="attune",
        api_url="http://localhost:8080",
        self_registration=True,
    )


def key() -> str:
    return secrets.token_urlsafe(32)


def seed(services: Services) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)

    def row(type_: Callable[..., Any], ref: str, **fields: Any) -> Put:
        return Put(type_(id=services.new_id(), ref=ref, created=now, updated=now, **fields), new=True)

    sets = [row(PermissionSet, ref, pack_ref="core", grants=list(grants)) for ref, grants in DEFAULT_SETS.items()]
    core = row(Pack, "core", label="Core", version="1.0.0", visibility="standard")
    services.store.tenant(SYSTEM_TENANT).registry.commit(core, *sets)


@pytest.fixture(scope="session")
def fresh_tables(settings: Settings) -> Callable[[], None]:
    """Puts the tables back to what they hold in a new deployment: the default permission sets and a standard pack
    ``core``. Much cheaper than new tables, and moto copies all there is with every transaction, so they stay small."""
    for resource, name in ((tables.REGISTRY, "registry"), (tables.ACTIVITY, "activity")):
        clients.dynamodb().create_table(**tables.create_request(resource, name))
    seed(open_services(settings))
    held = dynamodb_backends[DEFAULT_ACCOUNT_ID]["us-east-1"].tables
    seeded = {name: copy.deepcopy(held[name].items) for name in ("registry", "activity")}

    def restore() -> None:
        for name, items in seeded.items():
            held[name].items = copy.deepcopy(items)
            if (stream := held[name].stream_shard) is not None:
                stream.items.clear()

    return restore


@pytest.fixture
def services(settings: Settings, fresh_tables: Callable[[], None]) -> Services:
    """The deployment as if new, with a bucket and a default tenant of this test's own."""
    tenant = f"t-{secrets.token_hex(6)}"
    fresh_tables()
    bucket = f"attune-{tenant}"
    clients.s3().create_bucket(Bucket=bucket)
    return open_services(msgspec.structs.replace(settings, default_tenant=tenant, bucket=bucket))
