"""The two AWSes of the contract suite: moto in this process, MiniStack in another."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore.config import Config
from helpers.polling import wait_for
from moto import mock_aws

REGION = "us-east-1"
ClientFactory = Callable[[str], Any]


@pytest.fixture(scope="session")
def ministack_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("ministack")
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
        "GATEWAY_PORT": str(port),
        "BIND_HOST": "127.0.0.1",
        "PERSIST_STATE": "0",
        "STATE_DIR": str(folder / "state"),
        "S3_DATA_DIR": str(folder / "s3"),
        "TMPDIR": str(folder),
        "LOG_LEVEL": "WARNING",
        "SFTP_ENABLED": "0",
        "IOT_MTLS_ENABLED": "0",
        "LAMBDA_ASYNC_RETRY_BASE_SECONDS": "0.1",
    }
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "ministack.app"], env=environment, cwd=folder, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        wait_for(lambda: _answers(process, port, folder / "log"), timeout=30, what="MiniStack to answer")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


def _answers(process: subprocess.Popen[bytes], port: int, log: Path) -> bool:
    assert process.poll() is None, log.read_text()
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _client_factory(url: str | None) -> ClientFactory:
    session = botocore.session.get_session()

    def client(service: str) -> Any:
        return session.create_client(
            service,
            region_name=REGION,
            endpoint_url=url,
            aws_access_key_id="test",
            aws_secret_access_key="test",
            config=Config(retries={"total_max_attempts": 1}),
        )

    return client


@pytest.fixture(params=["moto", "ministack"])
def aws(request: pytest.FixtureRequest) -> Iterator[ClientFactory]:
    """Makes clients of either AWS; a test that takes it runs on both."""
    if request.param == "ministack":
        yield request.getfixturevalue("ministack")
    else:
        with mock_aws():
            yield _client_factory(None)


@pytest.fixture
def ministack(ministack_url: str) -> ClientFactory:
    """Makes clients of MiniStack, for what moto does only with Docker: running functions."""
    return _client_factory(ministack_url)
