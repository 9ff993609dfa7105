"""T3.18: HTTP calls without a process: core.http_request, and actions of one's own with ``runner_type: http``.

The platform itself is the peer: what it answers is known, and no test needs the internet.
"""

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from helpers.client import AttuneClient, Json
from helpers.fixtures import create_webhook_trigger, pack_archive, unique_login, unique_ref
from helpers.narration import step, summary, title
from helpers.polling import wait_for_execution_count, wait_for_execution_status
from helpers.stack import ADMIN_LOGIN, ADMIN_PASSWORD, Stack

HTTP_REQUEST = "core.http_request"
PASSWORD = "Long enough, and 1 digit"


@pytest.fixture
def secret_refs(client: AttuneClient) -> Iterator[list[str]]:
    """Refs of keys that the test makes; they go with it."""
    refs: list[str] = []
    yield refs
    for ref in refs:
        client.delete_secret(ref)


def call_over_http(client: AttuneClient, parameters: dict[str, Json], **fields: Json) -> dict[str, Json]:
    """The result of ``core.http_request`` with ``parameters``, which must complete."""
    started = client.execute(HTTP_REQUEST, parameters, **fields)
    result: dict[str, Json] = wait_for_execution_status(client, started["id"], "succeeded")["result"]
    return result


@pytest.mark.tier3
@pytest.mark.runner
@pytest.mark.http
def test_http_runner_basic_get(client: AttuneClient) -> None:
    """A GET: status, headers, body as text and as JSON, the time it took; query parameters and headers arrive."""
    title("T3.18: HTTP Runner - Basic GET")
    url = client.base_url

    step(1, "Asking the platform how it is")
    health = call_over_http(client, {"url": f"{url}/health", "method": "GET"})

    step(2, "Sending query parameters and headers along")
    mine = "t318-get-0815"
    packs = call_over_http(
        client,
        {
            "url": f"{url}/api/v1/packs",
            "query_params": {"page": 1, "page_size": 1},
            "headers": {"Authorization": f"Bearer {client.token}", "X-Request-Id": mine, "Accept": "application/json"},
        },
    )

    summary(f"health: {health}", f"packs: {packs['status_code']} in {packs['elapsed_ms']} ms")
    assert (health["status_code"], health["success"], health["succeeded"]) == (200, True, True)
    assert health["json"] == {"status": "ok"}
    assert '"ok"' in health["body"]
    assert health["headers"]["content-type"].startswith("application/json")
    assert health["url"] == f"{url}/health"
    assert 0 <= health["elapsed_ms"] <= health["duration_ms"]
    assert packs["json"]["pagination"]["page_size"] == 1, "the query parameters arrived"
    assert len(packs["json"]["items"]) == 1


@pytest.mark.tier3
@pytest.mark.runner
@pytest.mark.http
def test_http_runner_post_with_json(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    """JSON, a raw body and a form are sent as what they are; an action of one's own has defaults for its call."""
    title("T3.18: HTTP Runner - POST with JSON")
    url, pack = client.base_url, test_pack["ref"]
    trigger = create_webhook_trigger(client, pack)
    payload = {"order": 17, "items": ["a", "ü"], "nested": {"deep": True, "nothing": None}}

    step(1, "Posting JSON to a webhook")
    posted = call_over_http(
        client, {"url": f"{url}/api/v1/webhooks/{trigger.key}", "method": "POST", "json": {"payload": payload}}
    )

    step(2, "Posting a raw body")
    raw = call_over_http(
        client,
        {
            "url": f"{url}/api/v1/webhooks/{trigger.key}",
            "method": "POST",
            "body": '{"raw": 1}',
            "headers": {"Content-Type": "application/json"},
        },
    )

    step(3, "Posting a form, which the API does not take")
    form = call_over_http(client, {"url": f"{url}/auth/login", "method": "POST", "form": {"login": "a", "b": "x y"}})

    step(4, "Posting from an action of one's own, in a pack and by API")
    own = unique_ref("http")
    schema = (
        f"parameters:\n  url: {{type: string, default: '{url}/api/v1/webhooks/{trigger.key}'}}\n"
        "  method: {type: string, default: POST}\n  json: {type: object}\n"
    )
    files = {
        "pack.yaml": f"ref: {own}\nlabel: Own\nversion: 1.0.0\n",
        "actions/order.yaml": f"ref: {own}.order\nlabel: Order\nrunner_type: http\n{schema}",
    }
    uploaded = client.upload_pack(pack_archive(files), strict=True)
    client.create_action(
        f"{pack}.order",
        pack,
        entrypoint="http",
        runtime_ref="core.http",
        param_schema={"url": {"type": "string", "default": f"{url}/health"}},
    )
    by_file = client.execute(f"{own}.order", {"json": {"from": "pack"}})
    by_api = client.execute(f"{pack}.order")
    from_pack = wait_for_execution_status(client, by_file["id"], "succeeded")["result"]
    from_api = wait_for_execution_status(client, by_api["id"], "succeeded")["result"]
    client.delete_pack(own)

    summary(f"posted: {posted['json']}", f"raw: {raw['json']}", f"form: {form['status_code']} {form['body']}")
    assert uploaded["warnings"] == []
    first = client.get_event(posted["json"]["data"]["event_id"])
    assert posted["status_code"] == 200
    assert first["payload"] == payload, "what arrived is what was sent"
    assert client.get_event(raw["json"]["data"]["event_id"])["payload"] == {"raw": 1}
    assert (form["status_code"], form["success"]) == (415, False), "a form is no JSON, and was sent as a form"
    assert client.get_event(from_pack["json"]["data"]["event_id"])["payload"] == {"from": "pack"}
    assert from_api["json"] == {"status": "ok"}


@pytest.mark.tier3
@pytest.mark.runner
@pytest.mark.http
@pytest.mark.secrets
def test_http_runner_authentication_header(
    client: AttuneClient, test_pack: dict[str, Json], secret_refs: list[str]
) -> None:
    """A token from a key: by ``secrets`` of the request, by the keystore in a rule, and given as a secret parameter. It
    reaches the peer, and nobody reads it from the execution."""
    title("T3.18: HTTP Runner - Authentication Header")
    url, pack = client.base_url, test_pack["ref"]
    with AttuneClient(url) as somebody:
        token = somebody.register(unique_login(), PASSWORD, "Caller")["access_token"]
    me = {"url": f"{url}/auth/me"}

    step(1, "Asking who one is, without a token")
    nobody = call_over_http(client, me)

    step(2, "With a key that holds the authentication")
    auth_key = f"{unique_ref('sys')}.auth"
    client.create_secret(auth_key, {"type": "bearer", "token": token})
    secret_refs.append(auth_key)
    by_key = client.create_execution({"action": HTTP_REQUEST, "parameters": me, "secrets": [auth_key]})
    by_key = wait_for_execution_status(client, by_key["id"], "succeeded")

    step(3, "With a token in the keystore, named by the request, and put in a header by a rule")
    token_key = f"{unique_ref('sys')}.token"
    client.create_secret(token_key, token)
    secret_refs.append(token_key)
    trigger = create_webhook_trigger(client, pack)
    client.create_rule(
        f"{pack}.rule",
        pack,
        trigger_ref=trigger.ref,
        action_ref=HTTP_REQUEST,
        action_params={**me, "headers": {"Authorization": f"Bearer {{{{ keystore.{token_key} }}}}"}},
    )
    named = {**me, "auth": {"type": "bearer", "key": "token"}}
    by_name = client.create_execution({"action": HTTP_REQUEST, "parameters": named, "secrets": [token_key]})
    by_name = wait_for_execution_status(client, by_name["id"], "succeeded")
    client.post_webhook(trigger.key, {})
    (row,) = wait_for_execution_count(client, 1, trigger_ref=trigger.ref)
    by_rule = client.get_execution(row["id"])

    step(4, "With the parameter auth, which is secret: bearer, basic and an API key")
    by_parameter = client.execute(HTTP_REQUEST, {**me, "auth": {"type": "bearer", "token": token}})
    by_parameter = wait_for_execution_status(client, by_parameter["id"], "succeeded")
    basic = call_over_http(client, {**me, "auth": {"type": "basic", "username": "who", "password": "s3cret-basic"}})
    api_key = {"type": "api_key", "name": "Authorization", "value": f"Bearer {token}"}
    by_api_key = call_over_http(client, {**me, "auth": api_key})

    summary(f"nobody: {nobody['status_code']}", f"by key: {by_key['result']['json']}", f"basic: {basic['status_code']}")
    assert nobody["status_code"] == 401
    for execution in (by_key, by_name, by_rule, by_parameter):
        assert execution["result"]["status_code"] == 200
        assert execution["result"]["json"]["data"]["display_name"] == "Caller"
        assert token not in str(execution), "the token stays between the platform and the peer"
    assert by_api_key["status_code"] == 200
    assert basic["status_code"] == 401, "the API takes no basic authentication"
    assert by_parameter["config"]["auth"] == {"$attune_secret": True, "redacted": True}


@pytest.mark.tier3
@pytest.mark.runner
@pytest.mark.http
def test_http_runner_error_handling(client: AttuneClient) -> None:
    """A status of 400 and more is a result; ``fail_on_status``, no connection, a URL that is none and forbidden
    addresses are failures with a reason."""
    title("T3.18: HTTP Runner - Error Handling")
    url = client.base_url

    step(1, "Provoking client and server errors")
    missing = call_over_http(client, {"url": f"{url}/api/v1/packs/no_such_pack_here", "auth": bearer(client)})
    wrong = {"login": ADMIN_LOGIN, "password": f"not {ADMIN_PASSWORD}"}
    denied = call_over_http(client, {"url": f"{url}/auth/login", "method": "POST", "json": wrong})
    not_json = {
        "url": f"{url}/auth/login",
        "method": "POST",
        "body": "{",
        "headers": {"content-type": "application/json"},
    }
    malformed = call_over_http(client, not_json)

    step(2, "Asking for a failure on such a status")
    strict = client.execute(HTTP_REQUEST, {"url": f"{url}/api/v1/nowhere", "fail_on_status": True})
    strict = wait_for_execution_status(client, strict["id"], "failed")

    step(3, "Calling where nobody answers, and where nobody may call")
    failures = {}
    for case, target in {
        "no such host": "http://no-such-host.invalid/",
        "no address": "not a url",
        "private": "http://127.0.0.1:1/",
        "metadata": "http://169.254.169.254/latest/meta-data/",
        "other scheme": "file:///etc/passwd",
    }.items():
        failed = client.execute(HTTP_REQUEST, {"url": target, "timeout": 5})
        failures[case] = wait_for_execution_status(client, failed["id"], "failed")["result"]

    summary(*(f"{case}: {result['error']}" for case, result in failures.items()))
    for answer, status in ((missing, 404), (denied, 401), (malformed, 400)):
        assert (answer["status_code"], answer["success"], answer["succeeded"]) == (status, False, True)
        assert answer["json"], "the body of an error is there to be read"
    assert strict["result"]["status_code"] in (401, 404)
    assert str(strict["result"]["status_code"]) in strict["result"]["error"]
    for case, result in failures.items():
        assert result["succeeded"] is False, case
        assert result["error"], case
    for case in ("private", "metadata"):
        assert "refused" in failures[case]["error"], case
    assert "root:" not in str(failures)


@pytest.mark.tier3
@pytest.mark.runner
@pytest.mark.http
def test_server_errors_are_results_and_are_retried(client: AttuneClient, stack: Stack) -> None:
    """500 is a result; 503 is tried again after what ``Retry-After`` says, as often as ``retries`` allows."""
    if stack.peer_port is None:
        pytest.skip("ATTUNE_PEER_PORT names no port of this machine that ATTUNE_HTTP_ALLOWED opens")
    peer = f"http://127.0.0.1:{stack.peer_port}"
    with answering(stack.peer_port, [500, 503, 503, 200, 503]) as asked:
        broken = call_over_http(client, {"url": f"{peer}/broken", "retries": 3})
        recovered = call_over_http(client, {"url": f"{peer}/busy", "retries": 3})
        busy = call_over_http(client, {"url": f"{peer}/once"})

    assert [broken["status_code"], broken["success"]] == [500, False]
    assert [recovered["status_code"], recovered["success"]] == [200, True]
    assert [busy["status_code"], busy["success"]] == [503, False]
    assert asked == ["/broken", "/busy", "/busy", "/busy", "/once"], "500 is final, 503 is not"


@contextlib.contextmanager
def answering(port: int, statuses: list[int]) -> Iterator[list[str]]:
    """A server that gives one status after the other, and the paths that it was asked for."""
    asked: list[str] = []
    left = iter(statuses)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(next(left))
            self.send_header("Retry-After", "0")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield asked
        finally:
            server.shutdown()
            thread.join()


def bearer(client: AttuneClient) -> dict[str, Json]:
    return {"type": "bearer", "token": client.token}
