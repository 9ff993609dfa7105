"""The adapter behind Chalice, driven by the events that API Gateway sends (REST API, proxy integration)."""

import base64
import json

import pytest
from chalice.app import Chalice

from chalicelib.api import adapter
from tests.unit.api.conftest import multipart_body


@pytest.fixture
def app(services):
    made = Chalice(app_name="attune", configure_logs=False, env={})
    adapter.register(made, lambda: services)
    return made


def event(method, path, *, body=None, encoded=False, headers=None, query=None):
    proxy = path.lstrip("/")
    return {
        "resource": "/{proxy+}" if proxy else "/",
        "path": f"/stage{path}",
        "httpMethod": method,
        "headers": headers or {},
        "multiValueHeaders": {},
        "multiValueQueryStringParameters": query,
        "pathParameters": {"proxy": proxy} if proxy else None,
        "stageVariables": None,
        "requestContext": {
            "resourcePath": "/{proxy+}" if proxy else "/",
            "httpMethod": method,
            "requestId": "c6af9ac6-7b61-11e6-9a41-93e8deadbeef",
            "identity": {"sourceIp": "198.51.100.4"},
        },
        "body": body,
        "isBase64Encoded": encoded,
    }


def call(app, *arguments, **options):
    answer = app(event(*arguments, **options), None)
    return answer["statusCode"], answer["body"], answer["headers"]


def test_a_request_goes_through(app, api):
    headers = {"Authorization": f"Bearer {api.token}", "Content-Type": "application/json"}
    body = json.dumps({"ref": "accents", "owner_type": "system", "name": "Ünïcode", "value": "✓"})
    status, text, answered = call(app, "POST", "/api/v1/keys", body=body, headers=headers)
    assert status == 201
    assert json.loads(text)["data"]["name"] == "Ünïcode"
    assert answered["X-Request-Id"] == "c6af9ac6-7b61-11e6-9a41-93e8deadbeef"
    query = {"owner_type": ["system"], "per_page": ["1"]}
    status, text, _ = call(app, "GET", "/api/v1/keys", headers=headers, query=query)
    assert (status, json.loads(text)["pagination"]["page_size"]) == (200, 1)


def test_unknown_routes_and_methods_get_the_contracts_body(app):
    for method, path, status, code in (
        ("GET", "/", 404, "NOT_FOUND"),
        ("GET", "/api/v1/ghosts", 404, "NOT_FOUND"),
        ("DELETE", "/health", 405, "METHOD_NOT_ALLOWED"),
    ):
        answered, text, headers = call(app, method, path)
        assert (answered, json.loads(text)["code"]) == (status, code)
        assert headers["Content-Type"] == "application/json"


def test_a_content_type_that_chalice_would_refuse_reaches_the_route(app):
    status, text, _ = call(app, "POST", "/auth/login", body="x", headers={"Content-Type": "text/plain"})
    assert (status, json.loads(text)["code"]) == (415, "UNSUPPORTED_MEDIA_TYPE")


def test_binary_bodies_arrive_as_they_were(app, api):
    body = multipart_body("frontier", {"force": "false"}, {"pack": ("p.tar.gz", b"\x1f\x8b\x00not an archive")})
    headers = {
        "Authorization": f"Bearer {api.token}",
        "Content-Type": "multipart/form-data; boundary=frontier",
    }
    status, text, _ = call(
        app, "POST", "/api/v1/packs/upload", body=base64.b64encode(body).decode(), encoded=True, headers=headers
    )
    assert (status, json.loads(text)["code"]) == (400, "BAD_REQUEST")
    assert "multipart" not in json.loads(text)["error"].lower()


def test_empty_answers_and_preflights(app):
    assert call(app, "GET", "/health/live")[:2] == (200, "")
    assert call(app, "OPTIONS", "/auth/login")[0] == 204


def test_the_client_is_who_the_gateway_saw(app, api):
    incoming = {}

    def watch(request, services):
        incoming["ip"] = request.client_ip
        return adapter.Response(200, {}, b"")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adapter, "handle", watch)
        call(app, "GET", "/health", headers={"X-Forwarded-For": "10.0.0.1"})
    assert incoming["ip"] == "198.51.100.4"


def test_the_gateway_holds_two_resources_whatever_the_api_grows_to(app):
    assert sorted(app.routes) == ["/", "/{proxy+}"]
