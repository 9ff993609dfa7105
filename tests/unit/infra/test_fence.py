"""The embedded AWS's fence: botocore signs, the fence lets through or refuses, a recorder stands for the emulator."""

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import botocore.session
import httpx
import pytest
from botocore.config import Config

from infra.local import keys
from infra.local.fence import Fence

SESSION = botocore.session.Session()
URL = "http://127.0.0.1:4566"
QUEUE = f"{URL}/000000000000/results"


class Emulator:
    """Answers everything, and remembers what it was asked."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.bodies: list[bytes] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", scope["type"] == "http"
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        self.seen.append(scope)
        self.bodies.append(body)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})


class Place:
    """A fence with an emulator behind it, and clients that go through it without a network."""

    def __init__(self) -> None:
        self.emulator = Emulator()
        self.keys = keys.Keys(keys.draw())
        self.fence = Fence(self.emulator, self.keys)

    def ask(self, method: str, url: str, **options: Any) -> httpx.Response:
        async def asking() -> httpx.Response:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(self.fence), base_url=URL) as client:
                return await client.request(method, url, **options)

        return asyncio.run(asking())

    def client(self, service: str, key: keys.AccessKey | None = None) -> Any:
        key = key or self.keys.own
        client = SESSION.create_client(
            service,
            region_name="us-east-1",
            endpoint_url=URL,
            aws_access_key_id=key.id,
            aws_secret_access_key=key.secret,
            config=Config(retries={"total_max_attempts": 1}, signature_version="s3v4" if service == "s3" else None),
        )
        client.meta.events.register("before-send", self._send)
        return client

    def _send(self, request: Any, **_: Any) -> Any:
        headers = {
            name: value.decode() if isinstance(value, bytes) else value for name, value in request.headers.items()
        }
        body = request.body.read() if hasattr(request.body, "read") else request.body
        answer = self.ask(request.method, request.url, headers=headers, content=body)
        return SimpleNamespace(
            status_code=answer.status_code, headers=answer.headers, content=answer.content, text=answer.text
        )


@pytest.fixture
def place() -> Place:
    return Place()


CALLS: dict[str, Callable[[Any], Any]] = {
    "dynamodb": lambda client: client.list_tables(),
    "secretsmanager": lambda client: client.get_secret_value(SecretId="ü"),
    "lambda": lambda client: client.get_function(FunctionName="f:1"),
    "sqs": lambda client: client.send_message(QueueUrl=QUEUE, MessageBody="x"),
    "s3": lambda client: client.put_object(Bucket="b", Key="a b/ü+(~).txt", Body=b"content", Metadata={"a": "b  c"}),
    "apigatewaymanagementapi": lambda client: client.delete_connection(ConnectionId="abc=@/x"),
    "logs": lambda client: client.describe_log_groups(logGroupNamePrefix="/a"),
}


@pytest.mark.parametrize("service", CALLS)
def test_who_signs_with_the_stacks_key_gets_through_with_the_whole_request(place: Place, service: str) -> None:
    CALLS[service](place.client(service))
    assert len(place.emulator.seen) == 1
    if service == "s3":
        assert b"content" in place.emulator.bodies[0]


@pytest.mark.parametrize("service", CALLS)
@pytest.mark.parametrize("known", [False, True], ids=["made-up key", "right id, wrong secret"])
def test_whoever_else_signs_is_refused_by_the_service_s_own_name_for_it(
    place: Place, service: str, known: bool
) -> None:
    key = keys.AccessKey(place.keys.own.id if known else "000000000000", "test")
    client = place.client(service, key)
    with pytest.raises(client.exceptions.ClientError) as refused:
        CALLS[service](client)
    answer = refused.value.response
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 403
    expected = {
        (True, True): "SignatureDoesNotMatch",
        (True, False): "InvalidAccessKeyId",
        (False, True): "InvalidSignatureException",
        (False, False): "UnrecognizedClientException",
    }
    assert answer["Error"]["Code"] == expected[service == "s3", known]
    assert place.emulator.seen == []


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("POST", "/"),
        ("GET", "/bucket/key"),
        ("POST", "/_ministack/reset"),
        ("POST", "/_ministack/config"),
        ("POST", "/health"),
        ("GET", "/_aws/sqs/messages"),
        ("GET", "/2015-03-31/functions"),
        ("GET", "/?AWSAccessKeyId=test&Signature=x&Expires=9999999999"),
        ("POST", "/_aws/execute-api/abc/live/@connections/1"),
        ("POST", "/_aws/execute-api/abc//@connections/1"),
        ("GET", "/_aws/execute-api/abc"),
        ("GET", "/_aws/execute-api//live/x"),
    ],
)
def test_who_does_not_sign_is_refused(place: Place, method: str, path: str) -> None:
    answer = place.ask(method, path, headers={"X-Amz-Target": "secretsmanager.ListSecrets", "Host": "b.s3.localhost"})
    assert (answer.status_code, answer.json()["__type"]) == (403, "MissingAuthenticationTokenException")
    assert place.emulator.seen == []


@pytest.mark.parametrize(
    "path", ["/_ministack/health", "/_localstack/health", "/_aws/execute-api/abc/live/api/v1/packs"]
)
def test_health_and_the_apis_are_open_to_all(place: Place, path: str) -> None:
    assert place.ask("GET", path, headers={"Authorization": "Bearer x"}).status_code == 200
    assert [scope["path"] for scope in place.emulator.seen] == [path]


def test_a_signature_holds_for_its_request_only(place: Place) -> None:
    seen: list[Any] = []
    client = place.client("dynamodb")
    client.meta.events.register_first("before-send", lambda request, **_: seen.append(request))
    client.get_item(TableName="t", Key={"a": {"S": "b"}})
    headers = {n: v.decode() if isinstance(v, bytes) else v for n, v in seen[0].headers.items()}
    body = seen[0].body
    assert place.ask("POST", "/", headers=headers, content=body).status_code == 200
    target = {**headers, "X-Amz-Target": "DynamoDB_20120810.Scan"}
    assert place.ask("POST", "/", headers=target, content=body).status_code == 403
    assert place.ask("POST", "/", headers=headers, content=body.replace(b'"t"', b'"u"')).status_code == 403
    assert place.ask("POST", "/?x=1", headers=headers, content=body).status_code == 403
    assert place.ask("POST", "/x", headers=headers, content=body).status_code == 403
    twice = [*headers.items(), ("Authorization", "AWS4-HMAC-SHA256 Credential=x")]
    assert place.ask("POST", "/", headers=twice, content=body).status_code == 403


def test_a_presigned_url_opens_its_object_and_nothing_else(place: Place) -> None:
    url = place.client("s3").generate_presigned_url("get_object", Params={"Bucket": "b", "Key": "a b/ü.txt"})
    elsewhere = {"X-Amz-Target": "secretsmanager.ListSecrets", "X-Amz-Request-Route": "x", "Range": "bytes=0-1"}
    assert place.ask("GET", url, headers=elsewhere).status_code == 200
    arrived = {name for name, _ in place.emulator.seen[0]["headers"]}
    assert not {name for name in arrived if name.startswith(b"x-amz-")}
    assert {b"range", b"host"} <= arrived
    assert place.ask("GET", url.replace("/b/", "/c/")).status_code == 403
    assert place.ask("PUT", url).status_code == 403
    assert place.ask("GET", url, headers={"Host": "c.s3.localhost"}).status_code == 403
    assert place.ask("GET", url.replace("Expires=3600", "Expires=9999")).status_code == 403
    stranger = place.client("s3", keys.AccessKey("test", "test"))
    other = stranger.generate_presigned_url("get_object", Params={"Bucket": "b", "Key": "k"})
    assert place.ask("GET", other).status_code == 403
    assert len(place.emulator.seen) == 1


def test_a_presigned_form_fills_its_bucket_and_nothing_else(place: Place) -> None:
    form = place.client("s3").generate_presigned_post("b", "logs/${filename}", ExpiresIn=60)
    files = {"file": ("x.txt", b"content")}

    def post(path: str, fields: Any, **headers: str) -> int:
        return place.ask("POST", path, data=fields, files=files, headers=headers).status_code

    assert (
        post("/b", form["fields"], **{"X-Amz-Target": "Lambda.Invoke", "Host": "f.lambda-url.us-east-1.on.aws"}) == 200
    )
    arrived = dict(place.emulator.seen[0]["headers"])
    assert arrived[b"host"] == b"127.0.0.1:4566"
    assert b"x-amz-target" not in arrived
    assert b"content" in place.emulator.bodies[0]
    for path in ("/", "/c", "/_ministack/reset", "/2015-03-31/functions/f/invocations", "/b?Action=ListUsers"):
        assert post(path, form["fields"]) == 403, path
    later = (datetime.now(UTC) + timedelta(days=900)).isoformat()
    forged = {**form["fields"], "policy": json.dumps({"expiration": later, "conditions": [{"bucket": "b"}]})}
    assert post("/b", forged) == 403
    assert post("/b", {**form["fields"], "policy": [form["fields"]["policy"], "x"]}) == 403
    assert post("/b", {name: value for name, value in form["fields"].items() if name != "x-amz-signature"}) == 403
    stranger = place.client("s3", keys.AccessKey("test", "test")).generate_presigned_post("b", "k")
    assert post("/b", stranger["fields"]) == 403
    assert len(place.emulator.seen) == 1


def test_the_runners_key_sends_to_its_queue_and_nothing_else(place: Place) -> None:
    key = place.keys.sender(QUEUE)
    place.client("sqs", key).send_message(QueueUrl=QUEUE, MessageBody="done")
    assert json.loads(place.emulator.bodies[0])["MessageBody"] == "done"
    calls = {service: call for service, call in CALLS.items() if service != "sqs"}
    for service, call in calls.items():
        client = place.client(service, key)
        with pytest.raises(client.exceptions.ClientError, match="AccessDenied"):
            call(client)
    sqs = place.client("sqs", key)
    for refused in (
        lambda: sqs.send_message(QueueUrl=f"{URL}/000000000000/executions", MessageBody="x"),
        lambda: sqs.receive_message(QueueUrl=QUEUE),
        lambda: sqs.list_queues(),
        lambda: sqs.purge_queue(QueueUrl=QUEUE),
    ):
        with pytest.raises(sqs.exceptions.ClientError, match="AccessDenied"):
            refused()
    s3 = place.client("s3", key)
    url = s3.generate_presigned_url("get_object", Params={"Bucket": "b", "Key": "k"})
    assert place.ask("GET", url).status_code == 403
    form = s3.generate_presigned_post("b", "k")
    assert place.ask("POST", "/b", data=form["fields"], files={"file": b"x"}).status_code == 403
    assert len(place.emulator.seen) == 1


def test_a_socket_is_opened_to_an_api_only() -> None:
    async def closed(path: str) -> list[Any]:
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "websocket.connect"}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "websocket", "path": path, "headers": [], "query_string": b"", "server": ("127.0.0.1", 4566)}
        await Fence(Emulator(), keys.Keys(keys.draw()))(scope, receive, send)
        return sent

    assert asyncio.run(closed("/"))[0] == {"type": "websocket.close", "code": 1008}
    assert asyncio.run(closed("/_aws/execute-api/abc/live"))[0]["type"] == "http.response.start"
