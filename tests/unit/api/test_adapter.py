"""The frame as a client meets it: what every route has in common (http-api 1.1-1.3)."""

import dataclasses
from typing import Annotated

import msgspec
import pytest

from chalicelib.api import adapter
from chalicelib.api.errors import Forbidden, TooMany
from chalicelib.api.routing import PUBLIC, SIGNED_IN, Call, Routes, grant
from chalicelib.api.views import Body, Data, Query, Raw
from chalicelib.domain.refs import RefError
from chalicelib.security.rates import Rates
from chalicelib.store.registry import Conflict

FIELD = b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n'
JSON = {"content-type": "application/json"}


class Inner(Body, kw_only=True, frozen=True):
    number: int


class ThingBody(Body, kw_only=True, frozen=True):
    label: Annotated[str, msgspec.Meta(min_length=1, max_length=5)]
    inner: list[Inner] = []  # noqa: RUF012
    more: dict[str, int] = {}  # noqa: RUF012


class ThingQuery(Query, kw_only=True, frozen=True):
    count: int = 1
    flag: bool = False


@pytest.fixture(autouse=True)
def table(monkeypatch):  # noqa: C901  # many small routes, no branches
    routes = Routes()

    def route(method, path, **options):
        return routes.route(method, path, **{"needs": PUBLIC, "returns": Raw, "tag": "test", **options})

    @route("POST", "/echo", body=ThingBody, status=201)
    def echo(call: Call) -> Data[ThingBody]:
        return Data(call.body, "Made")

    @route("POST", "/maybe", body=ThingBody | None)
    def maybe(call: Call) -> Data[bool]:
        return Data(call.body is not None)

    @route("POST", "/raw", raw=True)
    def raw(call: Call) -> Raw:
        return Raw(call.raw_body, status=202, headers={"Content-Type": "text/plain"})

    @route("POST", "/form", multipart=True, body=ThingBody)
    def form(call: Call) -> Data[object]:
        if call.form is None:
            return Data("json")
        return Data({**call.form.fields, **{name: len(each.data) for name, each in call.form.files.items()}})

    @route("POST", "/form-only", multipart=True)
    def form_only(call: Call) -> Data[bool]:
        return Data(call.form is not None)

    @route("GET", "/query", query=ThingQuery)
    def query(call: Call) -> Data[ThingQuery]:
        return Data(call.query)

    @route("GET", "/things/{id}")
    def by_id(call: Call, id: int) -> Data[int]:  # noqa: A002
        return Data(id)

    @route("GET", "/empty", status=204)
    def empty(call: Call) -> None:
        return None

    @route("GET", "/who", needs=SIGNED_IN)
    def who(call: Call) -> Data[str]:
        return Data(call.tenant)

    @route("GET", "/admins", needs=grant("identities", "read"))
    def admins(call: Call) -> Data[str]:
        return Data(call.principal.login)

    problems = {
        "forbidden": Forbidden.lacking("packs", "read"),
        "many": TooMany("Slow down", retry_after=7),
        "store": Conflict("pack x", exists=True),
        "ref": RefError("bad ref"),
        "crash": RuntimeError("the password is hunter2"),
    }

    @route("GET", "/problem/{name}")
    def problem(call: Call, name: str) -> None:
        raise problems[name]

    monkeypatch.setattr(adapter, "ROUTES", routes)
    return routes


def test_answers_are_enveloped_json_with_the_routes_status(api):
    answer = api.post("/echo", json={"label": "x", "unknown": 1})
    assert answer.status == 201
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json == {"data": {"label": "x", "inner": [], "more": {}}, "message": "Made"}


@pytest.mark.parametrize("body", [b"{", b"", b"   ", b"{'a': 1}", b"\xff\xfe", b"nul", b"[" * 100_000, b'{"label": 1'])
def test_malformed_json_is_a_bad_request(api, body):
    answer = api.post("/echo", content=body, headers=JSON)
    assert (answer.status, answer.json["code"]) == (400, "BAD_REQUEST")
    assert answer.json["error"].startswith("Malformed JSON")


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({}, "label"),
        ({"label": None}, "label"),
        ({"label": 1}, "label"),
        ({"label": ""}, "label"),
        ({"label": "123456"}, "label"),
        ({"label": "x", "inner": [{"number": 1}, {"number": "2"}]}, "inner[1].number"),
        ({"label": "x", "inner": [{}]}, "inner[0].number"),
        ({"label": "x", "more": {"key": "no"}}, "more[...]"),
        ([], None),
        ("text", None),
    ],
)
def test_what_does_not_fit_names_the_path(api, body, path):
    answer = api.post("/echo", json=body)
    assert (answer.status, answer.json["code"]) == (422, "VALIDATION_ERROR")
    assert answer.json["details"]["path"] == path
    assert "`" not in answer.json["error"]


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "", "application/jsonp"])
def test_json_needs_its_content_type(api, kind):
    answer = api.post("/echo", content=b'{"label":"x"}', headers={"content-type": kind})
    assert (answer.status, answer.json["code"]) == (415, "UNSUPPORTED_MEDIA_TYPE")


@pytest.mark.parametrize(
    "kind", ["application/json; charset=utf-8", "APPLICATION/JSON", "application/merge-patch+json"]
)
def test_json_by_its_other_names(api, kind):
    assert api.post("/echo", content=b'{"label":"x"}', headers={"content-type": kind}).status == 201


def test_a_body_may_be_optional(api):
    assert api.post("/maybe").data is False
    assert api.post("/maybe", json={"label": "x"}).data is True
    assert api.post("/maybe", json={"label": 1}).status == 422


def test_a_raw_route_takes_any_content_and_answers_its_own(api):
    answer = api.post("/raw", content=b"\x00\xff", headers={"content-type": "image/png"})
    assert (answer.status, answer.body, answer.headers["Content-Type"]) == (202, b"\x00\xff", "text/plain")


def test_forms(api):
    answer = api.post("/form", fields={"force": "true"}, files={"pack": ("p.tgz", bytes(range(256)) * 300)})
    assert answer.json == {"data": {"force": "true", "pack": 76_800}}
    assert api.post("/form", json={"label": "x"}).data == "json"
    assert api.post("/form-only", json={"label": "x"}).status == 415


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data", b"x"),
        ("multipart/form-data; boundary=b", b"no parts"),
        ("multipart/form-data; boundary=b", FIELD + b"cut off"),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n\xff\r\n--b--\r\n',
        ),
        (
            "multipart/form-data; boundary=b",
            (FIELD + b"x\r\n") * 100 + b"--b--\r\n",
        ),
    ],
)
def test_malformed_forms_are_bad_requests(api, kind, body):
    assert api.post("/form", content=body, headers={"content-type": kind}).status == 400


def test_query_parameters_are_typed(api):
    assert api.get("/query?count=3&flag=true&other=1").data == {"count": 3, "flag": True}
    for bad in ("count=x", "count=", "flag=maybe", "count=1.5"):
        answer = api.get(f"/query?{bad}")
        assert (answer.status, answer.json["code"]) == (400, "BAD_REQUEST")
        assert bad.partition("=")[0] in answer.json["error"]


def test_path_parameters_are_typed(api):
    assert api.get("/things/12").data == 12
    assert api.get("/things/twelve").status == 400


def test_an_answer_may_be_empty(api):
    answer = api.get("/empty")
    assert (answer.status, answer.body) == (204, b"")


def test_unknown_routes_and_wrong_methods(api):
    missing, wrong = api.get("/nowhere"), api.delete("/echo")
    assert (missing.status, missing.json["code"]) == (404, "NOT_FOUND")
    assert (wrong.status, wrong.json["code"]) == (405, "METHOD_NOT_ALLOWED")
    assert wrong.headers["Allow"] == "POST"


def test_a_head_is_a_get_without_its_body(api):
    answer = api.request("HEAD", "/things/12")
    assert (answer.status, answer.body, answer.headers["Content-Type"]) == (200, b"", "application/json")
    assert api.request("HEAD", "/echo").status == 405


def test_a_body_has_a_limit(api):
    assert api.post("/raw", content=b"x" * (adapter.MAX_BODY + 1)).status == 413
    assert api.post("/raw", content=b"x" * adapter.MAX_BODY).status == 202


def test_routes_need_what_they_say(api):
    assert api.anonymous().get("/who").status == 401
    assert api.as_role().get("/who").data == api.tenant
    assert api.as_role("core.viewer").get("/admins").json == {
        "error": "Insufficient permissions: identities:read",
        "code": "FORBIDDEN",
    }
    assert api.get("/admins").status == 200


def test_who_calls_is_asked_before_what_is_sent(api, table):
    @table.post("/closed", needs=SIGNED_IN, returns=Raw, tag="test", body=ThingBody)
    def closed(call: Call) -> None: ...

    assert api.anonymous().post("/closed", content=b"{", headers=JSON).status == 401


@pytest.mark.parametrize(
    ("name", "status", "body"),
    [
        ("forbidden", 403, {"error": "Insufficient permissions: packs:read", "code": "FORBIDDEN"}),
        ("many", 429, {"error": "Slow down", "code": "TOO_MANY_REQUESTS"}),
        ("store", 409, {"error": "pack x exists already", "code": "CONFLICT"}),
        ("ref", 422, {"error": "bad ref", "code": "UNPROCESSABLE_ENTITY"}),
        ("crash", 500, {"error": "Internal server error", "code": "INTERNAL_SERVER_ERROR"}),
    ],
)
def test_what_handlers_raise_is_the_contracts_error_body(api, name, status, body):
    answer = api.get(f"/problem/{name}")
    assert (answer.status, answer.json) == (status, body)


def test_a_crash_is_logged_with_its_request_and_not_told(api, monkeypatch):
    logged = []
    monkeypatch.setattr(adapter.logger, "error", lambda text, **more: logged.append(more))
    answer = api.get("/problem/crash")
    assert b"hunter2" not in answer.body
    assert isinstance(logged[0]["exc_info"], RuntimeError)
    assert logged[0]["extra"]["request_id"] == answer.headers["X-Request-Id"]


def test_one_log_line_per_request_without_the_path(api, monkeypatch):
    lines = []
    monkeypatch.setattr(adapter.logger, "info", lambda text, **more: lines.append(more["extra"]))
    api.get("/things/4711")
    assert len(lines) == 1
    assert (lines[0]["route"], lines[0]["status"], lines[0]["method"]) == ("/things/{id}", 200, "GET")
    assert "4711" not in str(lines[0]["route"])


def test_rate_limits_say_when_to_come_back(api):
    assert api.get("/problem/many").headers["Retry-After"] == "7"


def test_every_answer_is_hardened(api):
    for answer in (api.get("/who"), api.get("/nowhere"), api.get("/problem/crash")):
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert len(answer.headers["X-Request-Id"]) == 36


def allow_origins(api, *origins):
    settings = msgspec.structs.replace(api.services.settings, cors_origins=frozenset(origins))
    api.services = dataclasses.replace(api.services, settings=settings)


def test_cross_origin_requests_need_a_configured_origin(api):
    origin = {"origin": "https://ui.example.org"}
    assert "Access-Control-Allow-Origin" not in api.get("/who", headers=origin).headers
    allow_origins(api, "https://other.example.org", "https://ui.example.org")
    headers = api.get("/nowhere", headers=origin).headers
    assert headers["Access-Control-Allow-Origin"] == "https://ui.example.org"
    assert headers["Access-Control-Allow-Credentials"] == "true"
    assert headers["Vary"] == "Origin"
    assert "Access-Control-Allow-Origin" not in api.get("/who", headers={"origin": "https://evil.example.org"}).headers


def test_preflights(api):
    allow_origins(api, "https://ui.example.org")
    answer = api.anonymous().request("OPTIONS", "/echo", headers={"origin": "https://ui.example.org"})
    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers["Access-Control-Allow-Methods"] == "POST"
    assert "Authorization" in answer.headers["Access-Control-Allow-Headers"]
    assert api.request("OPTIONS", "/nowhere").status == 404


def test_a_client_that_runs_wild_is_slowed_down_and_others_are_not(api):
    api.services = dataclasses.replace(api.services, rates=Rates(lambda: 0.0, rate=0.5, burst=3))
    assert [api.get("/who").status for _ in range(5)] == [200, 200, 200, 429, 429]
    assert api.get("/who").headers["Retry-After"] == "2"
    assert api.as_role("core.viewer").get("/who").status == 200


def test_headers_have_a_bound(api):
    assert api.get("/who", headers={"x-long": "x" * 9_000}).status == 200
    answer = api.get("/who", headers={"x-long": "x" * 11_000})
    assert (answer.status, answer.json["code"]) == (431, "REQUEST_HEADER_FIELDS_TOO_LARGE")
