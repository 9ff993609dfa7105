"""The API at its own port: requests for http://localhost:8080 reach API Gateway under the path it knows (design §7).

Two ASGI applications with one purpose. :class:`Front` sits before the embedded emulator in the same process, so that
a request costs no further hop. :class:`Relay` passes requests on to an emulator elsewhere.
"""

import base64
import contextlib
import json
from collections.abc import Awaitable, Callable, Hashable, MutableMapping
from typing import Any, Final

import httpx

from infra.local.fairness import Turns
from infra.template import STAGE

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

_STARTING: Final = b'{"error": "Attune is starting", "code": "SERVICE_UNAVAILABLE"}'
_WEBHOOKS: Final = "/api/v1/webhooks/"
_HOP_BY_HOP: Final = (b"connection", b"keep-alive", b"transfer-encoding", b"upgrade", b"content-length", b"host")


async def _refuse(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1013})
        return
    headers = [(b"content-type", b"application/json"), (b"retry-after", b"1")]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": _STARTING})


class Front:
    """Serves the API on ``port`` and the emulator itself on every other port this process listens on.

    At most ``width`` API requests are worked on at once, the others wait: each takes a process of its own, and a
    burst would otherwise start hundreds. Callers take turns, so that nobody waits behind another's burst.
    """

    def __init__(self, emulator: Application, port: int, width: int) -> None:
        self._emulator = emulator
        self._port = port
        self._turns = Turns(width)
        self.rest_api: str | None = None
        self.websocket_api: str | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or scope["server"][1] != self._port:
            await self._emulator(scope, receive, send)
        elif scope["type"] == "websocket":
            if self.websocket_api is None or scope["path"] != "/ws":
                await _refuse(scope, receive, send)
            else:
                await self._emulator(_prefixed(scope, self.websocket_api, path=""), receive, send)
        elif self.rest_api is None:
            await _refuse(scope, receive, send)
        else:
            async with self._turns.of(*_caller(scope)):
                await self._emulator(_prefixed(scope, self.rest_api, path=scope["path"]), receive, send)


def _caller(scope: Scope) -> tuple[Hashable, str | None]:
    """Who calls, as far as turns are concerned, and the tenant: that of a token, or a webhook's key, or an address."""
    path: str = scope["path"]
    for name, value in scope["headers"]:
        if name == b"authorization" and (tenant := _tenant_of(value)):
            return tenant, tenant
    client = scope.get("client") or ("",)
    return ((client[0], path) if path.startswith(_WEBHOOKS) else client[0]), None


def _tenant_of(authorization: bytes) -> str | None:
    """What a token says, true or not: it only decides whose turn it is."""
    claims = authorization.rpartition(b" ")[2].split(b".")[1:2]
    with contextlib.suppress(ValueError, AttributeError):
        tenant = json.loads(base64.urlsafe_b64decode(b"".join(claims) + b"==")).get("tenant")
        return tenant if isinstance(tenant, str) else None
    return None


def _prefixed(scope: Scope, api: str, path: str) -> Scope:
    prefix = f"/_aws/execute-api/{api}/{STAGE}"
    raw = prefix.encode() + (scope.get("raw_path") or path.encode()) if path else prefix.encode()
    return {**scope, "path": prefix + path, "raw_path": raw}


class Relay:
    """Passes API requests on to ``endpoint``, where an emulator serves them under its own path."""

    def __init__(self, endpoint: str) -> None:
        self._client = httpx.AsyncClient(base_url=endpoint, timeout=60, limits=httpx.Limits(max_connections=64))
        self.rest_api: str | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] != "http" or self.rest_api is None:
            await _refuse(scope, receive, send)
        else:
            await self._relay(_prefixed(scope, self.rest_api, path=scope["path"]), receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while (message := await receive())["type"] != "lifespan.shutdown":
            await send({"type": f"{message['type']}.complete"})
        await self._client.aclose()
        await send({"type": "lifespan.shutdown.complete"})

    async def _relay(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = bytearray()
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        url = httpx.URL(raw_path=scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b""))
        headers = [(name, value) for name, value in scope["headers"] if name not in _HOP_BY_HOP]
        try:
            answer = await self._client.request(scope["method"], url, headers=headers, content=bytes(body))
        except httpx.HTTPError:
            await _refuse(scope, receive, send)
            return
        kept = [(name.lower(), value) for name, value in answer.headers.raw if name.lower() not in _HOP_BY_HOP]
        # httpx has undone the content's encoding.
        kept = [(name, value) for name, value in kept if name != b"content-encoding"]
        await send({"type": "http.response.start", "status": answer.status_code, "headers": kept})
        await send({"type": "http.response.body", "body": answer.content})
