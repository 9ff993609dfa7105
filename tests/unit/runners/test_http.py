"""The HTTP runner against a server of its own."""

import base64
import gzip
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from runners import http
from runners.addresses import AddressGuard
from runners.redaction import Redactor


class Peer(BaseHTTPRequestHandler):
    """Answers by path, and keeps what it was asked."""

    protocol_version = "HTTP/1.1"
    server: "Server"

    def handle_any(self) -> None:
        length = int(self.headers.get("content-length", 0))
        body = self.rfile.read(length).decode()
        self.server.asked.append(
            (self.command, self.path, {name.lower(): value for name, value in self.headers.items()}, body)
        )
        path = self.path.partition("?")[0]
        if path.startswith("/status/"):
            self.answer(int(path.rpartition("/")[2]), b"no such thing")
        elif path == "/flaky":
            count = sum(asked[1] == self.path for asked in self.server.asked)
            self.answer(200 if count > 2 else 503, b"{}", {"retry-after": "0"})
        elif path.startswith("/redirect"):
            self.answer(302, b"", {"location": self.path.partition("?to=")[2]})
        elif path == "/json":
            self.answer(200, b'{"a": [1, "hunter22"]}', {"content-type": "application/json; charset=utf-8"})
        elif path == "/big":
            self.answer(200, b"x" * (http.MAX_BODY + 1))
        elif path == "/bomb":
            self.answer(200, gzip.compress(b"x" * 50_000_000), {"content-encoding": "gzip"})
        elif path == "/latin":
            self.answer(200, "ü".encode("latin-1"), {"content-type": "text/plain; charset=latin-1"})
        elif path == "/drip":
            self.drip()
        else:
            self.answer(200, body.encode())

    do_GET = do_POST = handle_any  # noqa: N815  # the standard library's names

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"content-length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def drip(self) -> None:
        try:
            for _ in range(1000):
                self.wfile.write(b"H")
                self.wfile.flush()
                if self.server.stopping.wait(0.05):
                    return
        except OSError:
            pass

    def log_message(self, *_: object) -> None: ...


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Peer)
        self.asked: list[tuple[str, str, dict[str, str], str]] = []
        self.stopping = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@pytest.fixture
def peer() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.stopping.set()
        server.shutdown()
        thread.join()


def ask(
    peer: Server | None = None, path: str = "/", timeout: float = 20, secrets: tuple[str, ...] = (), **parameters: Any
) -> Any:
    guard = AddressGuard(["127.0.0.1"] if peer else [])
    given = {"url": f"{peer.url}{path}"} if peer else {}
    return http.request(given | parameters, timeout=timeout, redactor=Redactor(secrets), guard=guard)


def test_a_get_with_all_that_a_result_has(peer: Server) -> None:
    status, result, timed_out = ask(
        peer, "/json?a=1", query_params={"b": "two words", "none": None}, headers={"X-Count": 3}
    )

    assert (status, timed_out) == ("completed", False)
    assert (result["status_code"], result["success"], result["succeeded"]) == (200, True, True)
    assert result["json"] == {"a": [1, "hunter22"]}
    assert json.loads(result["body"]) == result["json"]
    assert result["headers"]["content-type"].startswith("application/json")
    assert result["elapsed_ms"] >= 0
    command, path, headers, _ = peer.asked[0]
    assert command == "GET"
    assert "b=two+words" in path or "b=two%20words" in path
    assert headers["x-count"] == "3"


@pytest.mark.parametrize(
    ("parameters", "body", "content_type"),
    [
        ({"json": {"a": 1}}, '{"a":1}', "application/json"),
        ({"form": {"a": "1 2"}}, "a=1+2", "application/x-www-form-urlencoded"),
        ({"body": "raw"}, "raw", None),
        ({"body": {"a": 1}}, '{"a":1}', "application/json"),
    ],
)
def test_bodies(peer: Server, parameters: dict[str, Any], body: str, content_type: str | None) -> None:
    _, result, _ = ask(peer, method="post", **parameters)

    command, _, headers, sent = peer.asked[0]
    assert (command, sent.replace(": ", ":"), result["body"].replace(": ", ":")) == ("POST", body, body)
    assert headers.get("content-type") == content_type


@pytest.mark.parametrize(
    ("auth", "name", "value"),
    [
        (
            {"type": "basic", "username": "me", "password": "hunter22"},
            "authorization",
            "Basic " + base64.b64encode(b"me:hunter22").decode(),
        ),
        ({"type": "bearer", "token": "hunter22"}, "authorization", "Bearer hunter22"),
        ({"type": "api_key", "name": "X-Key", "value": "hunter22"}, "x-key", "hunter22"),
    ],
)
def test_authentication(peer: Server, auth: dict[str, str], name: str, value: str) -> None:
    ask(peer, auth=auth)

    assert peer.asked[0][2][name] == value


@pytest.mark.parametrize(
    ("auth", "name", "value"),
    [
        ({"type": "bearer"}, "authorization", "Bearer hunter22"),
        ({"type": "basic", "username": "me"}, "authorization", "Basic bWU6aHVudGVyMjI="),
        ({"type": "api_key"}, "x-api-key", "hunter22"),
    ],
)
def test_authentication_by_the_name_of_a_key(peer: Server, auth: dict[str, str], name: str, value: str) -> None:
    ask(peer, auth={**auth, "key": "crm_token"}, crm_token="hunter22")

    assert peer.asked[0][2][name] == value


def test_a_key_that_did_not_come_is_said_so(peer: Server) -> None:
    status, result, _ = ask(peer, auth={"type": "bearer", "key": "crm_token"})

    assert (status, peer.asked) == ("failed", [])
    assert "'crm_token'" in result["error"]


def test_an_api_key_may_go_in_the_query(peer: Server) -> None:
    ask(peer, auth={"type": "api_key", "name": "key", "value": "v", "in": "query"})

    assert peer.asked[0][1] == "/?key=v"


@pytest.mark.parametrize("code", [400, 404, 500])
def test_an_error_status_is_a_result(peer: Server, code: int) -> None:
    status, result, _ = ask(peer, f"/status/{code}")

    assert (status, result["success"], result["succeeded"], result["status_code"]) == ("completed", False, True, code)
    assert result["body"] == "no such thing"

    status, result, _ = ask(peer, f"/status/{code}", fail_on_status=True)

    assert (status, result["succeeded"], result["status_code"], result["error"]) == (
        "failed",
        False,
        code,
        f"HTTP status {code}",
    )


def test_retries_until_it_works(peer: Server) -> None:
    status, result, _ = ask(peer, "/flaky", retries=5)

    assert (status, result["status_code"], len(peer.asked)) == ("completed", 200, 3)


def test_retries_have_an_end(peer: Server) -> None:
    _, result, _ = ask(peer, "/flaky", retries=1)

    assert (result["status_code"], len(peer.asked)) == (503, 2)


def test_a_redirect_is_followed_and_counted(peer: Server) -> None:
    _, result, _ = ask(peer, "/redirect?to=/json")
    assert (result["status_code"], result["url"]) == (200, f"{peer.url}/json")

    _, result, _ = ask(peer, "/redirect?to=/json", follow_redirects=False)
    assert (result["status_code"], result["headers"]["location"]) == (302, "/json")

    status, result, _ = ask(peer, "/redirect/loop?to=/redirect/loop", max_redirects=3)
    assert (status, len([1 for asked in peer.asked if "loop" in asked[1]])) == ("failed", 4)


def test_a_redirect_takes_no_secret_to_another_origin(peer: Server) -> None:
    with Server() as other:
        thread = threading.Thread(target=other.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        ask(
            peer,
            f"/redirect?to={other.url}/there",
            auth={"type": "api_key", "name": "X-Key", "value": "v"},
            headers={"Cookie": "c", "Authorization": "a", "X-Other": "o"},
        )
        other.shutdown()
        thread.join()

    sent = set(other.asked[0][2])
    assert not {"x-key", "cookie", "authorization"} & sent
    assert "x-other" in sent


@pytest.mark.parametrize("to", ["http://169.254.169.254/latest/meta-data/", "http://10.0.0.1/", "http://[::1]:1/"])
def test_a_redirect_is_checked_again(peer: Server, to: str) -> None:
    status, result, _ = ask(peer, f"/redirect?to={to}")

    assert status == "failed"
    assert "refused" in result["error"]


@pytest.mark.parametrize(
    "url",
    ["http://localhost:1/", "http://127.0.0.1/", "http://2130706433/", "http://0x7f.1/", "http://[::ffff:127.0.0.1]/"],
)
def test_this_machine_is_closed_however_it_is_spelled(url: str) -> None:
    status, result, _ = ask(url=url)

    assert status == "failed"
    assert "refused" in result["error"]


def test_the_address_that_was_checked_is_the_one_connected_to(peer: Server) -> None:
    """The name leads somewhere else every time it is asked for."""
    answers = iter([["127.0.0.1"], ["10.0.0.1"], ["169.254.169.254"]])
    guard = AddressGuard(["127.0.0.1"], resolve=lambda *_: next(answers))

    status, result, _ = http.request(
        {"url": f"http://rebinding.example:{peer.server_port}/x"}, timeout=20, redactor=Redactor([]), guard=guard
    )

    assert (status, result["status_code"]) == ("completed", 200)
    assert peer.asked[0][2]["host"] == f"rebinding.example:{peer.server_port}"


def test_a_big_body_is_cut(peer: Server) -> None:
    for path in ("/big", "/bomb"):
        _, result, _ = ask(peer, path)

        assert (len(result["body"]), result["body_truncated"]) == (http.MAX_BODY, True)


def test_text_is_decoded_as_it_says(peer: Server) -> None:
    assert ask(peer, "/latin")[1]["body"] == "ü"


@pytest.mark.parametrize("timeout", [{"timeout": 0.3}, {}])
def test_a_server_that_drips_does_not_hold_us(peer: Server, timeout: dict[str, float]) -> None:
    started = time.monotonic()
    given = {"url": f"{peer.url}/drip"} | timeout
    status, result, timed_out = http.request(
        given, timeout=20 if timeout else 0.4, redactor=Redactor([]), guard=AddressGuard(["127.0.0.1"])
    )

    assert status == "failed"
    assert "timed out" in result["error"]
    assert timed_out is not bool(timeout)
    assert time.monotonic() - started < 5


def test_nobody_there_is_a_clear_failure() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
    status, result, _ = http.request(
        {"url": f"http://127.0.0.1:{port}/"}, timeout=5, redactor=Redactor([]), guard=AddressGuard(["127.0.0.1"])
    )

    assert (status, result["success"], result["succeeded"]) == ("failed", False, False)
    assert "refused" in result["error"]


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({}, "url"),
        ({"url": "ftp://example.com/"}, "ftp"),
        ({"url": "nonsense"}, "protocol"),
        ({"url": "http://"}, ""),
        ({"url": 5}, "url"),
        ({"url": "http://example.com/", "json": {}, "body": "x"}, "only one"),
        ({"url": "http://example.com/", "auth": {"type": "magic"}}, "magic"),
        ({"url": "http://example.com/", "auth": {"type": "bearer"}}, "token"),
        ({"url": "http://1.1.1.1/", "headers": {"x": "a\r\nb: c"}}, ""),
        ({"url": "http://1.1.1.1/", "headers": {"x": "ü"}}, ""),
        ({"url": "http://1.1.1.1/", "method": "GET / HTTP/1.1\r\nx: y"}, ""),
        ({"url": "http://" + "a" * 300 + ".example/"}, ""),
    ],
)
def test_parameters_that_describe_no_request(
    parameters: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http.httpcore.SyncBackend, "connect_tcp", _no_network)
    status, result, _ = ask(**parameters)

    assert status == "failed"
    assert result["error"]
    assert said in result["error"]


def _no_network(*_: object, **__: object) -> Any:
    raise http.httpcore.ConnectError("no network in tests")


def test_secrets_do_not_come_back(peer: Server) -> None:
    _, result, _ = ask(peer, "/json", secrets=("hunter22",))

    assert "hunter22" not in json.dumps(result)
    assert result["json"] == {"a": [1, "********"]}
