"""The HTTP runner: a request described by the action's parameters. No process, no code of a tenant's.

Parameters: ``url``; ``method`` (GET); ``headers``; ``query_params`` (or ``query``); one of ``json``, ``form``,
``body``; ``auth`` (``{"type": "basic", "username", "password"}``, ``{"type": "bearer", "token"}``,
``{"type": "api_key", "name": "X-API-Key", "value", "in": "header" | "query"}``; instead of the secret part,
``"key"``: the name under which the execution got a key); ``timeout`` in seconds (30);
``follow_redirects`` (true), ``max_redirects`` (10); ``retries`` (0) on 429, 503 and a connection that does not come
about; ``verify_ssl`` (true); ``fail_on_status`` (false).

Result: ``status_code``, ``success`` (below 400), ``headers``, ``body`` (text, at most :data:`MAX_BODY` bytes),
``json`` where the body is JSON, ``elapsed_ms``, ``url`` after redirects, beside what every result has. A status of 400
and more is a result like any other unless ``fail_on_status``.
"""

import contextlib
import os
import ssl
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from typing import Any, Final

import httpcore
import httpx
import msgspec

from runners.addresses import AddressGuard, AddressRefusedError
from runners.cancellation import Cancellation, never
from runners.output import NotStructuredError, Status, cancelled, decode_json
from runners.redaction import Redactor

Json = Any

MAX_BODY: Final = 400 * 1024  # bytes after decompression: text and JSON of it fit one message
MAX_RETRIES: Final = 10
MAX_REDIRECTS: Final = 20
_RETRIED: Final = frozenset({429, 503})
_FIRST_PAUSE: Final = 0.5  # seconds, doubled with every retry
_LONGEST_PAUSE: Final = 30.0
_CONFIDENTIAL: Final = ("authorization", "cookie", "proxy-authorization")


class ParameterError(Exception):
    """The parameters describe no request."""


class _CancelledError(Exception):
    pass


class _ActionParameters(msgspec.Struct, kw_only=True):
    url: str
    method: str = "GET"
    headers: dict[str, str | int | float | bool | None] = {}
    query_params: dict[str, Json] = {}
    query: dict[str, Json] = {}
    json: Json = None
    form: dict[str, Json] | None = None
    body: Json = None
    auth: dict[str, str] | None = None
    timeout: float = 30
    follow_redirects: bool = True
    max_redirects: int = 10
    retries: int = 0
    verify_ssl: bool = True
    fail_on_status: bool = False


def request(
    parameters: Mapping[str, Json],
    *,
    timeout: float,
    redactor: Redactor,
    guard: AddressGuard | None = None,
    cancellation: Cancellation | None = None,
) -> tuple[Status, Json, bool]:
    """Make the request. Returns status, result, and whether the time of the *execution* ran out.

    A cancellation is heard between two attempts.
    """
    started = time.monotonic()
    deadline = started + timeout
    try:
        wanted = _wanted(parameters)
        result = _Exchange(wanted, deadline, guard or _guard(), cancellation or never()).carry_out()
        error = f"HTTP status {result['status_code']}" if wanted.fail_on_status and not result["success"] else None
    except _CancelledError:
        return *cancelled(None, round((time.monotonic() - started) * 1000)), False
    except (ParameterError, AddressRefusedError) as refused:
        result, error = {}, str(refused)
    except httpx.TimeoutException as late:
        result, error = {}, f"the request timed out: {late}" if str(late) else "the request timed out"
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError, TypeError) as failure:
        result, error = {}, f"{type(failure).__name__}: {failure}"
    timed_out = error is not None and time.monotonic() >= deadline
    if timed_out:
        error = f"Execution timed out after {timeout:g} seconds"
    result = redactor.json(result) | {
        "succeeded": error is None,
        "exit_code": 0 if error is None else -1 if timed_out else 1,
        "duration_ms": round((time.monotonic() - started) * 1000),
    }
    if error is not None:
        result |= {"success": False, "error": redactor.text(error)}
    return "completed" if error is None else "failed", result, timed_out


def _wanted(parameters: Mapping[str, Json]) -> _ActionParameters:
    given = {name: value for name, value in parameters.items() if value is not None}
    try:
        wanted = msgspec.convert(given, _ActionParameters)
    except msgspec.ValidationError as error:
        raise ParameterError(str(error)) from error
    if sum(part is not None for part in (wanted.json, wanted.form, wanted.body)) > 1:
        raise ParameterError("only one of 'json', 'form' and 'body' can be sent")
    if wanted.auth is not None and "key" in wanted.auth:
        wanted.auth = _with_key(wanted.auth, parameters)
    return wanted


def _with_key(auth: dict[str, str], parameters: Mapping[str, Json]) -> dict[str, str]:
    """``auth`` with the value of the key that it names, which came as a parameter like all keys of an execution."""
    value = parameters.get(auth["key"])
    if not isinstance(value, str):
        raise ParameterError(f"auth names the key {auth['key']!r}: the execution has no text of that name in `secrets`")
    place = {"basic": "password", "bearer": "token", "api_key": "value"}.get(auth.get("type", "").lower(), "token")
    return {**auth, place: value}


@cache
def _guard() -> AddressGuard:
    return AddressGuard.from_environment()


class _Exchange:
    """One request, with its redirects and retries. Times are of the monotonic clock, in seconds."""

    def __init__(
        self, wanted: _ActionParameters, deadline: float, guard: AddressGuard, cancellation: Cancellation
    ) -> None:
        self._wanted = wanted
        self._deadline = deadline
        self._guard = guard
        self._cancellation = cancellation
        self._origin: tuple[str, str, int | None] | None = None
        self._confidential = set(_CONFIDENTIAL)

    def carry_out(self) -> dict[str, Json]:
        for attempt in range(max(0, min(self._wanted.retries, MAX_RETRIES)) + 1):
            last = attempt >= min(self._wanted.retries, MAX_RETRIES)
            pause = min(_FIRST_PAUSE * 2**attempt, _LONGEST_PAUSE)
            try:
                result, asked = self._attempt()
            except (httpx.ConnectError, httpx.ConnectTimeout):
                if last or not self._pause(pause):
                    raise
                continue
            if last or result["status_code"] not in _RETRIED or not self._pause(pause if asked is None else asked):
                break
        return result

    def _pause(self, seconds: float) -> bool:
        """Wait, if there is time for that and another attempt. Raises :class:`_CancelledError`."""
        until = time.monotonic() + seconds
        if until >= self._deadline:
            return False
        while (now := time.monotonic()) < until:
            time.sleep(max(0.0, min(until, self._cancellation.due) - now))
            if self._cancellation.heard():
                raise _CancelledError
        return True

    def _attempt(self) -> tuple[dict[str, Json], float | None]:
        started = time.monotonic()
        until = min(self._deadline, started + max(0.05, self._wanted.timeout))
        transport = httpx.HTTPTransport(verify=_tls(verify=self._wanted.verify_ssl), trust_env=False)
        # httpx has no public way to say who connects (httpx 0.28, httpcore 1.0).
        transport._pool = httpcore.ConnectionPool(
            ssl_context=_tls(verify=self._wanted.verify_ssl),
            network_backend=_CheckedNetwork(self._guard, until),
            max_keepalive_connections=0,
        )
        with httpx.Client(
            transport=transport,
            trust_env=False,
            timeout=max(0.01, until - time.monotonic()),
            follow_redirects=self._wanted.follow_redirects,
            max_redirects=max(0, min(self._wanted.max_redirects, MAX_REDIRECTS)),
            event_hooks={"request": [self._keep_secrets_at_home]},
        ) as client:
            outgoing = self._outgoing(client)
            self._origin = _origin(outgoing.url)
            answer = client.send(outgoing, stream=True)
            with contextlib.closing(answer):
                body, whole = _body(answer)
        result: dict[str, Json] = {
            "status_code": answer.status_code,
            "success": answer.status_code < 400,
            "headers": {name.lower(): value for name, value in answer.headers.items()},
            "body": body.decode(answer.charset_encoding or "utf-8", "replace"),
            "elapsed_ms": round((time.monotonic() - started) * 1000),
            "url": str(answer.url),
        }
        if not whole:
            result["body_truncated"] = True
        elif "json" in answer.headers.get("content-type", ""):
            with contextlib.suppress(NotStructuredError):
                result["json"] = decode_json(body)
        return result, _retry_after(answer.headers.get("retry-after"))

    def _outgoing(self, client: httpx.Client) -> httpx.Request:
        wanted = self._wanted
        headers = {"user-agent": "attune"} | {
            name.lower(): _header(value) for name, value in wanted.headers.items() if value is not None
        }
        query = {**wanted.query, **wanted.query_params}
        self._authenticate(headers, query)
        body = wanted.body
        if isinstance(body, (dict, list)):
            body = msgspec.json.encode(body).decode()
            headers.setdefault("content-type", "application/json")
        return client.build_request(
            wanted.method.upper(),
            wanted.url,
            headers=headers,
            params={name: value for name, value in query.items() if value is not None} or None,
            json=wanted.json,
            data=wanted.form,
            content=None if body is None else str(body),
        )

    def _authenticate(self, headers: dict[str, str], query: dict[str, Json]) -> None:
        auth = self._wanted.auth
        if auth is None:
            return
        try:
            match auth.get("type", "").lower():
                case "basic":
                    given = httpx.BasicAuth(auth["username"], auth["password"])
                    headers["authorization"] = next(given.auth_flow(httpx.Request("GET", "http://-"))).headers[
                        "authorization"
                    ]
                case "bearer":
                    headers["authorization"] = f"Bearer {auth['token']}"
                case "api_key" if auth.get("in", "header") == "query":
                    query[auth["name"]] = auth["value"]
                case "api_key":
                    name = auth.get("name", "x-api-key").lower()
                    headers[name] = auth["value"]
                    self._confidential.add(name)
                case other:
                    raise ParameterError(f"auth type {other!r} is none of basic, bearer, api_key")
        except KeyError as missing:
            raise ParameterError(f"auth of type {auth['type']} needs {missing}") from None

    def _keep_secrets_at_home(self, outgoing: httpx.Request) -> None:
        """A redirect to another origin does not take along what was meant for the first."""
        if _origin(outgoing.url) != self._origin:
            for name in self._confidential:
                outgoing.headers.pop(name, None)


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def _header(value: str | float | bool) -> str:  # noqa: FBT001  # a header's value, not a switch
    return str(value).lower() if isinstance(value, bool) else str(value)


def _body(answer: httpx.Response) -> tuple[bytes, bool]:
    """What there is of the body up to :data:`MAX_BODY`, and whether that is all of it."""
    body = bytearray()
    for block in answer.iter_bytes(1 << 16):
        body += block
        if len(body) > MAX_BODY:
            return bytes(body[:MAX_BODY]), False
    return bytes(body), True


def _retry_after(value: str | None) -> float | None:
    """Seconds that the server asks to wait (RFC 9110 §10.2.3), no more than the longest pause."""
    if value is None:
        return None
    try:
        at = None if value.isdigit() else parsedate_to_datetime(value)
        seconds = float(value) if at is None else (at - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError):
        return None
    return max(0.0, min(seconds, _LONGEST_PAUSE))


@cache
def _tls(*, verify: bool) -> ssl.SSLContext:
    if not verify:
        return httpx.create_ssl_context(verify=False, trust_env=False)
    context = httpx.create_ssl_context(trust_env=False)
    if "SSL_CERT_FILE" in os.environ:  # the operator's own authority
        context.load_verify_locations(os.environ["SSL_CERT_FILE"])
    return context


class _CheckedNetwork(httpcore.NetworkBackend):
    """Connects to an address that was checked, and to nothing else; gives up when the time is over, however slowly the
    other side drips."""

    def __init__(self, guard: AddressGuard, until: float) -> None:
        self._guard = guard
        self._until = until
        self._network = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        try:
            addresses = self._guard.addresses(host, port)
        except OSError as error:
            raise httpcore.ConnectError(f"{host}: {error.strerror or error}") from error
        for address in addresses:
            try:
                stream = self._network.connect_tcp(
                    address, port, _left(self._until, timeout), local_address, socket_options
                )
            except httpcore.ConnectError:
                if address == addresses[-1]:
                    raise
            else:
                return _TimedStream(stream, self._until)
        raise httpcore.ConnectError(f"{host} has no address")


class _TimedStream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream, until: float) -> None:
        self._stream = stream
        self._until = until

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _left(self._until, timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _left(self._until, timeout, httpcore.WriteTimeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        left = _left(self._until, timeout)
        return _TimedStream(self._stream.start_tls(ssl_context, server_hostname, left), self._until)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _left(until: float, timeout: float | None, over: type[Exception] = httpcore.ConnectTimeout) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise over("no time left")
    return left if timeout is None else min(left, timeout)
