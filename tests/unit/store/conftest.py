"""The store on moto: real tables made from the very resources that the stack deploys."""

from collections.abc import Iterator

import boto3
import pytest
from moto import mock_aws

from chalicelib import clients
from chalicelib.store.opening import Store
from infra import tables

REGION = "us-east-1"


@pytest.fixture(scope="session")
def aws_environment() -> Iterator[None]:
    patch = pytest.MonkeyPatch()
    patch.setenv("AWS_ACCESS_KEY_ID", "test")
    patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    patch.setenv("AWS_DEFAULT_REGION", REGION)
    patch.delenv("AWS_ENDPOINT_URL", raising=False)
    yield
    patch.undo()


@pytest.fixture
def store(aws_environment: None) -> Iterator[Store]:
    with mock_aws():
        clients.forget()
        dynamodb = boto3.client("dynamodb", region_name=REGION)
        for name, resource in tables.RESOURCES.items():
            dynamodb.create_table(**tables.create_request(resource, name))
        boto3.client("s3", region_name=REGION).create_bucket(Bucket="attune")
        yield Store("RegistryTable", "ActivityTable", "attune")
        clients.forget()
