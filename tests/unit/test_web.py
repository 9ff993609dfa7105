"""Calls to servers that the operator names: what is not as it should be is refused, in one way."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from chalicelib import web


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        status, body, headers = {
            "/good": (200, b'{"a": 1}', {}),
            "/text": (200, b"not JSON", {}),
            "/huge": (200, b'"' + b"x" * 1_000_001 + b'"', {}),
            "/elsewhere": (302, b"", {"Location": "/good"}),
        }.get(self.path, (404, b"{}", {}))
        self._answer(status, body, headers)

    def do_POST(self) -> None:
        sent = self.rfile.read(int(self.headers["Content-Length"]))
        kind = self.headers["Content-Type"].encode()
        self._answer(200, b'{"sent": "%b", "kind": "%b", "auth": "%b"}' % (sent, kind, self._authorization()), {})

    def _authorization(self) -> bytes:
        return (self.headers["Authorization"] or "").encode()

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    serving = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    serving.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    serving.join(10)


def test_json_comes_back(url: str) -> None:
    assert web.get_json(f"{url}/good") == {"a": 1}


def test_forms_are_sent(url: str) -> None:
    assert web.post_form(f"{url}/", {"a": "b c", "d": "&"}, headers={"Authorization": "Basic x"}) == {
        "sent": "a=b+c&d=%26",
        "kind": "application/x-www-form-urlencoded",
        "auth": "Basic x",
    }


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/text", "not JSON"),
        ("/huge", "more than 1000000 bytes"),
        ("/elsewhere", "status 302"),  # what is asked for is not somewhere else
        ("/nowhere", "status 404"),
    ],
)
def test_anything_else_is_refused(url: str, path: str, reason: str) -> None:
    with pytest.raises(web.WebError, match=reason):
        web.get_json(f"{url}{path}")


def test_nobody_there() -> None:
    with pytest.raises(web.WebError, match="does not answer"):
        web.get_json("http://127.0.0.1:9/")
