"""The API's port: the path API Gateway knows, and never more requests at once than there is room for."""

import asyncio
import base64
from typing import Any

import httpx
import pytest

from infra.local import front
from infra.local.front import Front

PORT = 8080


class Emulator:
    """Says which path it was asked for, once it is let."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.busy = 0
        self.busiest = 0
        self.go = asyncio.Event()
        self.go.set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.paths.append(scope["path"])
        self.busy += 1
        self.busiest = max(self.busiest, self.busy)
        await self.go.wait()
        self.busy -= 1
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": scope["raw_path"]})


def _client(front: Front, port: int = PORT) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(front), base_url=f"http://localhost:{port}")


def test_before_the_deployment_requests_are_told_to_come_back() -> None:
    async def scenario() -> None:
        emulator = Emulator()
        async with _client(Front(emulator, PORT, width=2)) as client:
            answer = await client.get("/health")
        assert answer.status_code == 503
        assert answer.json()["code"] == "SERVICE_UNAVAILABLE"
        assert emulator.paths == []

    asyncio.run(scenario())


def test_requests_reach_the_stage_with_their_path_as_it_was_sent() -> None:
    async def scenario() -> None:
        front = Front(Emulator(), PORT, width=2)
        front.rest_api = "abc"
        async with _client(front) as client:
            answer = await client.get("/api/v1/keys/a%2Fb?x=1")
        assert answer.text.startswith("/_aws/execute-api/abc/live/api/v1/keys/a%2Fb")

    asyncio.run(scenario())


def test_other_ports_are_the_emulators_own() -> None:
    async def scenario() -> None:
        emulator = Emulator()
        front = Front(emulator, PORT, width=2)
        front.rest_api = "abc"
        async with _client(front, port=4566) as client:
            await client.get("/_localstack/health")
        assert emulator.paths == ["/_localstack/health"]

    asyncio.run(scenario())


def test_a_burst_waits_for_its_turn() -> None:
    async def scenario() -> None:
        emulator = Emulator()
        emulator.go.clear()
        front = Front(emulator, PORT, width=2)
        front.rest_api = "abc"
        async with _client(front) as client:
            requests = [asyncio.create_task(client.get("/health")) for _ in range(6)]
            async with asyncio.timeout(5):
                while emulator.busy < 2:
                    await asyncio.sleep(0)
            emulator.go.set()
            answers = await asyncio.gather(*requests)
        assert [answer.status_code for answer in answers] == [200] * 6
        assert emulator.busiest == 2

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("authorization", "tenant"),
    [
        (b"Bearer x." + base64.urlsafe_b64encode(b'{"tenant": "acme"}').rstrip(b"=") + b".y", "acme"),
        (b"Bearer x." + base64.urlsafe_b64encode(b'{"tenant": 7}') + b".y", None),
        (b"Bearer x." + base64.urlsafe_b64encode(b"[]") + b".y", None),
        (b"Bearer attune_it_abc", None),
        (b"Basic \xff", None),
        (b"", None),
    ],
)
def test_whose_turn_it_is_by_a_token(authorization: bytes, tenant: str | None) -> None:
    assert front._tenant_of(authorization) == tenant
