"""The whole output in S3, while it is written."""

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from chalicelib.protocol import Logs, RunFinished
from runners import logs
from runners.capture import KEPT, Capture
from runners.logs import LogUpload
from runners.output import SHOWN
from runners.redaction import MASK, Redactor

Carry = Callable[..., RunFinished]
FORM = Logs(url="http://bucket", fields={"key": "acme/logs/7/1/${filename}", "policy": "p"})


class Bucket:
    """S3's end of a presigned form."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.posts = 0
        self.refusals = 0
        self.uploaded = threading.Event()

    def post(self, url: str, fields: dict[str, Any]) -> None:
        if self.refusals:
            self.refusals -= 1
            raise OSError("no")
        assert (url, fields["policy"]) == (FORM.url, "p")
        self.posts += 1
        self.objects[fields["key"]] = fields["file"][1]
        self.uploaded.set()

    def stream(self, name: str) -> bytes:
        return b"".join(body for key, body in sorted(self.objects.items()) if f"/{name}/" in key)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Bucket:
    bucket = Bucket()
    monkeypatch.setattr(logs, "post_form", bucket.post)
    monkeypatch.setattr(logs, "INTERVAL", 0.01)
    monkeypatch.setattr(logs, "PATIENCE", 0.03)
    return bucket


def test_output_is_there_while_the_action_runs(carry_out: Carry, bucket: Bucket) -> None:
    finished: list[RunFinished] = []
    code = """
import os, sys, time
print('first')
print('aside', file=sys.stderr)
while True: time.sleep(0.01)
"""
    run = threading.Thread(target=lambda: finished.append(carry_out("python", code, logs=FORM, timeout=2.0)))
    run.start()

    assert bucket.uploaded.wait(1.5)
    deadline = time.monotonic() + 1.0
    while len(bucket.objects) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not finished
    assert bucket.objects == {
        "acme/logs/7/1/stdout/000000": b"first\n",
        "acme/logs/7/1/stderr/000000": b"aside\n",
    }
    run.join()
    assert finished[0].log_parts == {"stdout": 1, "stderr": 1}


def test_a_short_run_that_its_result_shows_whole_uploads_nothing(
    carry_out: Carry, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "PATIENCE", 60.0)
    finished = carry_out("shell", "echo hello", logs=FORM)

    assert finished.log_parts == {}
    assert bucket.objects == {}


def test_a_long_output_is_uploaded_whole(carry_out: Carry, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "PATIENCE", 60.0)
    finished = carry_out("python", "for n in range(10_000): print('line', n, 'ü' * 20)", logs=FORM)

    assert finished.result["stdout_truncated"] is True
    assert finished.log_parts == {"stdout": 1}
    lines = bucket.stream("stdout").decode().splitlines()
    assert (len(lines), lines[-1]) == (10_000, "line 9999 " + "ü" * 20)


def test_a_secret_that_comes_in_two_pieces_is_masked(bucket: Bucket) -> None:
    capture = Capture()
    with LogUpload(FORM, {"stdout": capture}, Redactor(["hunter2222"]), bucket.post):
        capture.add(b"a long beginning, so that there is something to show: hunter")
        assert bucket.uploaded.wait(5)
        capture.add(b"2222 end")

    assert bucket.stream("stdout").decode() == f"a long beginning, so that there is something to show: {MASK} end"
    assert bucket.posts >= 2


def test_a_character_that_comes_in_two_pieces_is_whole(bucket: Bucket) -> None:
    capture = Capture()
    with LogUpload(FORM, {"stdout": capture}, Redactor([]), bucket.post) as upload:
        capture.add(b"x" + "ü".encode()[:1])
        assert bucket.uploaded.wait(5)
        capture.add("ü".encode()[1:] + b"\x00\xff")

    assert bucket.stream("stdout").decode() == "xü\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}"
    assert upload.parts["stdout"] == len(bucket.objects)


def test_beyond_the_limit_there_is_a_notice(bucket: Bucket) -> None:
    capture = Capture()
    with LogUpload(FORM, {"stdout": capture}, Redactor(["a-secret"]), bucket.post):
        capture.add(b"." * (KEPT - 4) + b"a-secret" + b"." * 100)

    text = bucket.stream("stdout").decode()
    assert text.endswith("\n[... 104 bytes left out ...]\n")
    assert "a-se" not in text
    assert KEPT - 100 < len(text) < KEPT + 100


@pytest.mark.parametrize(("refusals", "kept"), [(1, True), (2, False)])
def test_a_lost_part_is_not_a_lost_execution(
    carry_out: Carry, bucket: Bucket, monkeypatch: pytest.MonkeyPatch, *, refusals: int, kept: bool
) -> None:
    monkeypatch.setattr(logs, "PATIENCE", 60.0)
    bucket.refusals = refusals
    finished = carry_out("shell", f"head -c {2 * SHOWN} /dev/zero", logs=FORM)

    assert finished.status == "completed"
    assert bool(finished.log_parts) is kept


def test_what_is_not_waited_for_is_not_uploaded(
    carry_out: Carry, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "PATIENCE", 60.0)
    finished = carry_out("shell", "echo hello; sleep 0.2; echo there", logs=FORM)

    assert (finished.log_parts, bucket.posts) == ({}, 0)


def test_a_log_is_few_objects_however_often_it_grows(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "PART", 10)
    capture = Capture()
    with LogUpload(FORM, {"stdout": capture}, Redactor([]), bucket.post) as upload:
        for piece in (b"012", b"345", b"6789abc", b"def"):
            bucket.uploaded.clear()
            capture.add(piece)
            assert bucket.uploaded.wait(5)

    assert {key[-6:]: body for key, body in bucket.objects.items()} == {"000000": b"0123456789", "000001": b"abcdef"}
    assert upload.parts == {"stdout": 2}


def test_what_could_not_be_uploaded_comes_with_the_next_attempt(bucket: Bucket) -> None:
    capture = Capture()
    bucket.refusals = 5
    with LogUpload(FORM, {"stdout": capture}, Redactor([]), bucket.post):
        capture.add(b"once")
        assert bucket.uploaded.wait(5)

    assert bucket.stream("stdout") == b"once"


def test_one_run_after_the_other_is_followed(bucket: Bucket) -> None:
    for number in range(3):
        capture = Capture()
        bucket.uploaded.clear()
        with LogUpload(FORM, {"stdout": capture}, Redactor([]), bucket.post) as upload:
            capture.add(b"%d" % number)
            assert bucket.uploaded.wait(5)
        upload.look()  # as a thread that was about to, when the run ended

        assert bucket.stream("stdout") == b"%d" % number


def test_a_run_whose_logs_cannot_be_uploaded_leaves_the_others_alone(bucket: Bucket) -> None:
    def broken(url: str, fields: dict[str, Any]) -> None:
        bucket.uploaded.set()
        raise KeyError(url)

    lost, capture = Capture(), Capture()
    streams = {"stdout": lost}
    lost.add(b"x")
    with LogUpload(FORM, streams, Redactor([]), broken) as upload:
        assert bucket.uploaded.wait(5)
        lost.add(b"." * 2 * SHOWN)
    assert upload.parts == {}
    bucket.uploaded.clear()
    with LogUpload(FORM, {"stdout": capture}, Redactor([]), bucket.post):
        capture.add(b"fine")
        assert bucket.uploaded.wait(5)


def test_the_last_uploads_have_an_end(bucket: Bucket) -> None:
    capture = Capture()
    with LogUpload(FORM, {"stdout": capture}, Redactor([]), bucket.post, until=time.monotonic() - 1) as upload:
        capture.add(b"." * (SHOWN + 1))

    assert (upload.parts, bucket.posts) == ({}, 0)


@pytest.mark.parametrize(
    ("code", "printed"),
    [
        ("import json; print(json.dumps({'a': [1, 'ü']}))", None),
        ("print('{\"a\":1}')", '{"a":1}\n'),
        ("print('{\\n  \"a\": 1\\n}')", '{\n  "a": 1\n}\n'),
        ("print('first'); print('{\"a\": 1}')", None),
        ("print('not structured')", None),
    ],
)
def test_output_that_is_only_a_value_in_the_result_is_kept_beside_it(
    carry_out: Carry, code: str, printed: str | None
) -> None:
    assert carry_out("python", code, output_format="json").printed == printed


def test_what_is_kept_beside_the_result_has_no_secrets(carry_out: Carry) -> None:
    finished = carry_out("python", "print('[\"hunter2222\",1]')", output_format="json", secrets=["hunter2222"])
    assert finished.printed == f'["{MASK}",1]\n'


class _Form(BaseHTTPRequestHandler):
    status = 204
    bodies: list[bytes] = []  # noqa: RUF012  # what came

    def do_POST(self) -> None:
        kind = self.headers["content-type"].encode()
        self.bodies.append(
            b"content-type: " + kind + b"\r\n\r\n" + self.rfile.read(int(self.headers["content-length"]))
        )
        self.send_response(self.status)
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def form() -> Iterator[str]:
    _Form.bodies.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), _Form) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/bucket"
        server.shutdown()
        thread.join()


def test_the_form_is_what_s3_wants_with_the_file_last(form: str) -> None:
    logs.post_form(form, {"policy": "p", "key": "k", "file": ("name", b"content")})

    parts: Any = message_from_bytes(_Form.bodies[0]).get_payload()
    names = [re.findall(r'name="(\w+)"', part["content-disposition"])[0] for part in parts]
    assert names == ["policy", "key", "file"]
    assert [part.get_payload() for part in parts] == ["p", "k", "content"]


def test_a_refused_form_is_an_error(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_Form, "status", 403)

    with pytest.raises(OSError, match="403"):
        logs.post_form(form, {"key": "k", "file": ("name", b"content")})
    with pytest.raises(OSError, match="refused"):
        logs.post_form("http://127.0.0.1:1/", json.loads('{"key": "k"}') | {"file": ("name", b"content")})
