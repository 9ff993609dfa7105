from collections.abc import Iterator

import pytest
from moto import mock_aws

from chalicelib import clients


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    monkeypatch.delenv("AWS_REGION", raising=False)
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    clients.forget()
    with mock_aws():
        yield
    clients.forget()


@pytest.mark.usefixtures("aws")
def test_a_client_is_made_once_and_for_the_region_around() -> None:
    assert clients.sqs() is clients.sqs()
    assert clients.sqs().meta.region_name == "eu-central-1"


@pytest.mark.usefixtures("aws")
def test_the_endpoint_is_the_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://localhost:4566")
    clients.forget()
    assert clients.s3().meta.endpoint_url == "http://localhost:4566"
    assert clients.s3().meta.config.s3 == {"addressing_style": "path"}


@pytest.mark.usefixtures("aws")
def test_handlers_hear_clients_made_before_and_after() -> None:
    heard: list[str] = []

    def handler(model: object, **_: object) -> None:
        heard.append(getattr(model, "name", ""))

    clients.sqs().list_queues()
    clients.on_event("before-call.*.*", handler)
    clients.sqs().list_queues()
    clients.s3().list_buckets()
    clients.off_event("before-call.*.*", handler)
    clients.s3().list_buckets()
    assert heard == ["ListQueues", "ListBuckets"]


@pytest.mark.usefixtures("aws")
def test_presigned_urls_name_the_regions_host() -> None:
    wanted = {"Bucket": "bucket", "Key": "k"}
    assert (
        clients.s3()
        .generate_presigned_url("get_object", Params=wanted)
        .startswith("https://bucket.s3.eu-central-1.amazonaws.com/k?")
    )
    assert clients.s3().generate_presigned_post(**wanted)["url"] == "https://bucket.s3.eu-central-1.amazonaws.com/"
