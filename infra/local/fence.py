"""Who may speak to the embedded AWS: whoever signs with a key of this stack (:mod:`infra.local.keys`).

An action of a tenant can reach the emulator's port, and the emulator believes everybody. So every request is held to
Signature Version 4 before it gets there ("AWS API request signing", IAM User Guide), with one of

- an ``Authorization`` header, whose signature covers the path, the query, the named headers and the body;
- a presigned query of S3, which stands for one object: the emulator checks when it expires;
- a presigned form of S3, whose policy names the bucket: the emulator holds the rest to the policy.

What a signature does not cover must not lead elsewhere: a presigned request loses every header that could, and the
runner's key, which may only send to one queue, is held to exactly that request. Free for all are the health endpoints
and the APIs themselves (``execute-api``), which know their users on their own.
"""

import base64
import hashlib
import hmac
import json
import logging
import re
from collections.abc import Awaitable, Callable, MutableMapping
from types import SimpleNamespace
from typing import Any, Final
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape

from botocore.auth import UNSIGNED_PAYLOAD, SigV4Auth
from botocore.credentials import Credentials

from infra.local.keys import AccessKey, Keys

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

_HEALTH: Final = frozenset(("/health", "/_localstack/health", "/_ministack/health", "/_ministack/ready"))
_API: Final = re.compile(r"/_aws/execute-api/[^/]+/[^/]*(?:/(?!@connections/)|\Z)")
_AUTHORIZATION: Final = re.compile(
    r"AWS4-HMAC-SHA256 +Credential=([^/,\s]+)/(\d{8})/([^/,\s]+)/([^/,\s]+)/aws4_request, *"
    r"SignedHeaders=([a-z0-9;_-]+), *Signature=([0-9a-f]{64})"
)
_CREDENTIAL: Final = re.compile(r"([^/,\s]+)/(\d{8})/([^/,\s]+)/([^/,\s]+)/aws4_request")
_TIME: Final = re.compile(r"\d{8}T\d{6}Z")
_LARGEST: Final = 64 * 1024 * 1024  # bytes of a body that has to be read before it is believed
# What a request with an unsigned header part may say besides what is signed.
_HARMLESS: Final = frozenset(
    (
        *("accept", "accept-encoding", "cache-control", "connection", "content-length", "content-type", "expect"),
        *("if-match", "if-modified-since", "if-none-match", "if-unmodified-since", "origin", "range", "user-agent"),
        *("content-encoding", "content-disposition", "transfer-encoding"),
    )
)
_SENDING: Final = frozenset(("accept-encoding", "authorization", "content-length", "content-type", "x-amz-date"))
_SEND_MESSAGE: Final = "AmazonSQS.SendMessage"

_log = logging.getLogger("attune.fence")


class RefusedError(Exception):
    """Why a request goes no further: one of AWS's reasons."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


# AWS's names for a reason, by protocol: S3's, the query protocol's, and that of the JSON protocols.
_CODES: Final = {
    "missing": ("AccessDenied", "MissingAuthenticationToken", "MissingAuthenticationTokenException"),
    "unknown": ("InvalidAccessKeyId", "InvalidClientTokenId", "UnrecognizedClientException"),
    "signature": ("SignatureDoesNotMatch", "SignatureDoesNotMatch", "InvalidSignatureException"),
    "denied": ("AccessDenied", "AccessDenied", "AccessDeniedException"),
}


def _missing() -> RefusedError:
    return RefusedError("missing", "The request is not signed with Signature Version 4.")


def _unknown() -> RefusedError:
    return RefusedError("unknown", "The security token included in the request is invalid: it is not this stack's.")


def _mismatch() -> RefusedError:
    return RefusedError("signature", "The request signature we calculated does not match the signature you provided.")


class _Headers(dict[str, list[str]]):
    """The headers that a client has signed, as botocore asks for them."""

    def get_all(self, name: str) -> list[str]:
        return self[name]


class _Verifier(SigV4Auth):  # type: ignore[misc]  # botocore ships no type information
    """botocore's signer, for what a client has signed already: the headers it named, the hash that it took."""

    def __init__(self, key: AccessKey, region: str, service: str) -> None:
        super().__init__(Credentials(key.id, key.secret), service, region)

    def headers_to_sign(self, request: Any) -> Any:
        return request.signed

    def payload(self, request: Any) -> str:
        return str(request.payload)

    def _normalize_url_path(self, path: str) -> str:
        return path if self._service_name == "s3" else str(super()._normalize_url_path(path))

    def holds(self, request: Any, signature: str) -> bool:
        wanted = self.signature(self.string_to_sign(request, self.canonical_request(request)), request)
        return hmac.compare_digest(wanted, signature)


class Fence:
    """``application`` for those who hold one of ``keys``."""

    def __init__(self, application: Application, keys: Keys) -> None:
        self._application = application
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or _is_free(scope):
            await self._application(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})
        else:
            try:
                scope, receive = await self._checked(scope, receive)
            except RefusedError as refusal:
                _log.info("refused %s %s: %s", scope["method"], scope["path"], refusal)
                await _answer(scope, send, refusal)
            else:
                await self._application(scope, receive, send)

    async def _checked(self, scope: Scope, receive: Receive) -> tuple[Scope, Receive]:
        """The request as the emulator is to see it. Raises :class:`RefusedError`."""
        query = dict(_pairs(scope))
        if _header(scope, b"authorization") is not None:
            return await self._signed(scope, receive)
        if "X-Amz-Credential" in query:
            return self._presigned(scope, query), receive
        kind = _header(scope, b"content-type") or ""
        if scope["method"] == "POST" and kind.startswith("multipart/form-data") and not scope["query_string"]:
            body, receive = await _read(receive)
            return self._form(scope, _fields(kind, body)), receive
        raise _missing()

    async def _signed(self, scope: Scope, receive: Receive) -> tuple[Scope, Receive]:
        parts = _AUTHORIZATION.fullmatch(_header(scope, b"authorization") or "")
        time = _header(scope, b"x-amz-date") or ""
        if parts is None or not _TIME.fullmatch(time):
            raise _missing()
        identifier, _, region, service, names, signature = parts.groups()
        key, queue = self._key(identifier)
        body = b""
        claimed = _header(scope, b"x-amz-content-sha256") if "x-amz-content-sha256" in names.split(";") else None
        if queue is not None or claimed is None:
            body, receive = await _read(receive)
            claimed = claimed or hashlib.sha256(body).hexdigest()
        request = _request(scope, names, time, claimed, _pairs(scope))
        if not _Verifier(key, region, service).holds(request, signature):
            raise _mismatch()
        if queue is not None:
            scope = _sending(scope, service, body, queue)
        return scope, receive

    def _presigned(self, scope: Scope, query: dict[str, str]) -> Scope:
        parts = _CREDENTIAL.fullmatch(query["X-Amz-Credential"])
        names, time = query.get("X-Amz-SignedHeaders", ""), query.get("X-Amz-Date", "")
        if parts is None or parts[4] != "s3" or "host" not in names.split(";") or not _TIME.fullmatch(time):
            raise _missing()
        key, queue = self._key(parts[1])
        if queue is not None:
            raise RefusedError("denied", "This access key may only send messages.")
        pairs = [(name, value) for name, value in _pairs(scope) if name != "X-Amz-Signature"]
        request = _request(scope, names, time, UNSIGNED_PAYLOAD, pairs)
        if not _Verifier(key, parts[3], "s3").holds(request, query.get("X-Amz-Signature", "")):
            raise _mismatch()
        return {**scope, "headers": _only(scope, _HARMLESS | frozenset(names.split(";")))}

    def _form(self, scope: Scope, fields: dict[str, str]) -> Scope:
        parts = _CREDENTIAL.fullmatch(fields.get("x-amz-credential", ""))
        time = fields.get("x-amz-date", "")
        if parts is None or parts[4] != "s3" or not _TIME.fullmatch(time):
            raise _missing()
        key, queue = self._key(parts[1])
        if queue is not None:
            raise RefusedError("denied", "This access key may only send messages.")
        request = SimpleNamespace(context={"timestamp": time})
        wanted = _Verifier(key, parts[3], "s3").signature(fields.get("policy", ""), request)
        if not hmac.compare_digest(wanted.encode(), fields.get("x-amz-signature", "").encode()):
            raise _mismatch()
        # The policy is all that is signed: nothing else may say where the file goes.
        bucket = scope["path"].strip("/")
        if not bucket or {"bucket": bucket} not in json.loads(base64.b64decode(fields["policy"])).get("conditions", []):
            raise RefusedError("denied", "Invalid according to Policy: another bucket.")
        return {**scope, "headers": [*_only(scope, _HARMLESS), _here(scope)]}

    def _key(self, identifier: str) -> tuple[AccessKey, str | None]:
        found = self._keys.find(identifier)
        if found is None:
            raise _unknown()
        return found


def _is_free(scope: Scope) -> bool:
    if scope["type"] == "http" and scope["path"] in _HEALTH:
        return str(scope["method"]) in ("GET", "HEAD")
    return _API.match(scope["path"]) is not None


def _header(scope: Scope, name: bytes) -> str | None:
    """The header's value. A header given twice is refused, since others may read the other one."""
    values = [value for each, value in scope["headers"] if each.lower() == name]
    if len(values) > 1:
        raise RefusedError("denied", f"The header {name.decode()} is given twice.")
    return values[0].decode("latin-1") if values else None


def _pairs(scope: Scope) -> list[tuple[str, str]]:
    return parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)


def _request(scope: Scope, names: str, time: str, payload: str, query: list[tuple[str, str]]) -> Any:
    """The request as its signer saw it. ``names``: of the headers signed, joined by semicolons."""
    signed = _Headers()
    wanted = names.split(";")
    for name, value in scope["headers"]:
        lower = name.decode("latin-1").lower()
        if lower in wanted:
            signed.setdefault(lower, []).append(value.decode("utf-8", "replace"))
    path = (scope.get("raw_path") or scope["path"].encode()).decode("latin-1")
    return SimpleNamespace(
        method=scope["method"],
        url=f"http://aws{path}",
        params=query,
        headers={},
        signed=signed,
        payload=payload,
        context={"timestamp": time},
    )


def _sending(scope: Scope, service: str, body: bytes, queue: str) -> Scope:
    """The request, if it is SendMessage to ``queue`` by SQS's JSON protocol; of its headers, those that this takes."""
    try:
        asked = json.loads(body)
    except ValueError:
        asked = None
    if (
        (scope["method"], scope["path"], scope["query_string"], service) != ("POST", "/", b"", "sqs")
        or _header(scope, b"x-amz-target") != _SEND_MESSAGE
        or not isinstance(asked, dict)
        or asked.get("QueueUrl") != queue
    ):
        raise RefusedError("denied", "This access key may only send messages to the results queue.")
    headers = [*_only(scope, _SENDING), _here(scope), (b"x-amz-target", _SEND_MESSAGE.encode())]
    return {**scope, "headers": headers}


def _only(scope: Scope, names: frozenset[str]) -> list[tuple[bytes, bytes]]:
    return [(name, value) for name, value in scope["headers"] if name.decode("latin-1").lower() in names]


def _here(scope: Scope) -> tuple[bytes, bytes]:
    """A Host header that leads nowhere else (the emulator knows buckets, APIs and more by their names)."""
    return b"host", f"127.0.0.1:{scope['server'][1]}".encode()


async def _read(receive: Receive) -> tuple[bytes, Receive]:
    """The body, and a ``receive`` that gives it again. Raises :class:`RefusedError` when it is too large."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise RefusedError("denied", "The request's body did not arrive.")
        body += message.get("body", b"")
        if len(body) > _LARGEST:
            raise RefusedError("denied", f"The request's body is larger than {_LARGEST} bytes.")
        if not message.get("more_body"):
            break
    whole = bytes(body)
    given: list[Message] = [{"type": "http.request", "body": whole, "more_body": False}]

    async def again() -> Message:
        return given.pop() if given else await receive()

    return whole, again


def _fields(kind: str, body: bytes) -> dict[str, str]:
    """The form's fields by lower-case name, without the file, as the emulator reads it. Raises RefusedError."""
    from ministack.services import s3  # imports of the emulator are late: see emulator.load()

    fields: dict[str, str] = {}
    for name, _, _, value in s3._parse_multipart_form(kind, body):
        if name.lower() in fields:
            raise RefusedError("denied", f"The field {name} is given twice.")
        if name != "file":
            fields[name.lower()] = value.decode("latin-1")
    return fields


async def _answer(scope: Scope, send: Send, refusal: RefusedError) -> None:
    """Tells the client in the protocol it speaks, so that its SDK knows the error by name."""
    kind, content = _described(scope, refusal)
    headers = [(b"content-type", kind), (b"content-length", str(len(content)).encode())]
    if kind == b"application/x-amz-json-1.0":
        headers.append((b"x-amzn-errortype", _CODES[refusal.reason][2].encode()))
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else content})


def _described(scope: Scope, refusal: RefusedError) -> tuple[bytes, bytes]:
    given = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
    s3, query, other = _CODES[refusal.reason]
    message = escape(str(refusal))
    if given.get(b"content-type", "").startswith("application/x-www-form-urlencoded"):
        error = f"<Error><Type>Sender</Type><Code>{query}</Code><Message>{message}</Message></Error>"
        return b"text/xml", f"<ErrorResponse>{error}</ErrorResponse>".encode()
    scoped = _CREDENTIAL.search(given.get(b"authorization", ""))
    if (scoped and scoped[4] != "s3") or b"x-amz-target" in given:
        return b"application/x-amz-json-1.0", json.dumps({"__type": other, "message": str(refusal)}).encode()
    return b"application/xml", f"<Error><Code>{s3}</Code><Message>{message}</Message></Error>".encode()
