"""Logs over the adapter: as text, and as server-sent events."""

import secrets
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from unit.api.resources import make_action, make_pack

from chalicelib.api import logs
from chalicelib.domain import ids
from chalicelib.domain.entities import Execution, Grant


@pytest.fixture(autouse=True)
def action(api):
    make_pack(api)
    return make_action(api)


def store(api, status="completed", result=None, *, attempt=1):
    at = api.services.clock() - timedelta(seconds=5)
    id_ = ids.derive(int(at.timestamp() * 1000), secrets.token_hex(8))
    row = Execution(
        id=id_, created=at, updated=at, action_ref="mine.greet", status=status, result=result, attempt=attempt
    )
    return api.activity.create_execution(row)


def ended(api, stdout="", stderr=""):
    return store(api, "completed", {"exit_code": 0, "stdout": stdout, "stderr": stderr})


def upload(api, execution, *parts, stream="stdout", first=0):
    for number, part in enumerate(parts, first):
        name = f"logs/{execution.id}/{execution.attempt}/{stream}/{number:06d}"
        api.services.store.tenant(api.tenant).blobs.put(name, part)


def read(api, execution, stream="stdout", **query: Any):
    return api.get(f"/api/v1/executions/{execution.id}/logs/{stream}", params=query)


def events(api, execution, stream="stdout", *, last=None, **query: Any):
    """The answer's events: (name, id, data)."""
    headers = {} if last is None else {"Last-Event-ID": last}
    answer = api.get(f"/api/v1/executions/{execution.id}/logs/{stream}/stream", params=query, headers=headers)
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    retry, *blocks = answer.body.decode().removesuffix("\n\n").split("\n\n")
    assert retry == "retry: 500"
    return [_event(block) for block in blocks if not block.startswith(":")]


def _event(block):
    fields = [line.partition(": ")[::2] for line in block.split("\n")]
    named = dict(fields)
    return named["event"], named.get("id"), "\n".join(value for name, value in fields if name.startswith("data"))


def test_a_log_is_text_and_says_where_it_ends(api):
    execution = ended(api, "one\ntwö\n", "aside\n")
    answer = read(api, execution)
    assert (answer.status, answer.body.decode()) == (200, "one\ntwö\n")
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert answer.headers["X-Log-Offset"] == "0"
    assert answer.headers["X-Log-Next-Offset"] == "9"
    assert answer.headers["X-Log-Complete"] == "true"
    assert read(api, execution, "stderr").body == b"aside\n"


def test_a_log_that_grows_is_read_piece_by_piece(api):
    execution = store(api, "running")
    empty = read(api, execution)
    assert (empty.status, empty.body, empty.headers["X-Log-Complete"]) == (200, b"", "false")
    upload(api, execution, b"one\n")
    assert read(api, execution).headers["X-Log-Next-Offset"] == "4"
    upload(api, execution, b"two\n", first=1)
    assert read(api, execution, offset=4).body == b"two\n"
    assert read(api, execution, offset=8).body == b""
    assert read(api, execution, offset=99).headers["X-Log-Next-Offset"] == "99"


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ({"offset": 4}, "two\nthree\n"),
        ({"tail": 1}, "three\n"),
        ({"tail": 2}, "two\nthree\n"),
        ({"tail": 99}, "one\ntwo\nthree\n"),
        ({"tail": 99, "offset": 5}, "wo\nthree\n"),
    ],
)
def test_a_part_of_it(api, query, text):
    answer = read(api, ended(api, "one\ntwo\nthree\n"), **query)
    assert answer.body.decode() == text
    assert answer.headers["X-Log-Offset"] == str(14 - len(text))


def test_an_offset_within_a_character_begins_with_the_next(api):
    answer = read(api, ended(api, "äöü"), offset=1)
    assert (answer.body.decode(), answer.headers["X-Log-Offset"]) == ("öü", "2")


def test_what_does_not_fit_comes_with_the_next_request(api, monkeypatch):
    monkeypatch.setattr(logs, "MOST_SENT", 1000)
    text = "line\x1b[0m ä\ufffd\n" * 300
    execution = ended(api, text)
    got, at, requests = "", 0, 0
    while True:
        answer = read(api, execution, offset=at)
        assert len(msgspec.json.encode(answer.body.decode())) <= 1000
        got += answer.body.decode()
        requests += 1
        at = int(answer.headers["X-Log-Next-Offset"])
        if answer.headers["X-Log-Complete"] == "true":
            break
    assert got == text
    assert requests > 3


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("{id}/logs/stdin", 422),
        ("{id}/logs/stdin/stream", 422),
        ("{id}/logs/stdout?offset=-1", 400),
        ("{id}/logs/stdout?offset=x", 400),
        ("{id}/logs/stdout?tail=0", 400),
        ("1/logs/stdout", 404),
        ("1/logs/stdout/stream", 404),
    ],
)
def test_a_bad_request_says_so(api, path, status):
    execution = ended(api)
    assert api.get(f"/api/v1/executions/{path.format(id=execution.id)}").status == status


@pytest.mark.parametrize("end", ["", "/stream"])
def test_a_log_is_for_those_who_may_read_the_execution(api, end):
    path = f"/api/v1/executions/{ended(api, 'x').id}/logs/stdout{end}"
    own = Grant(resource="executions", actions=["read"], constraints={"pack_refs": ["other"]})
    assert api.get(path).status == 200
    assert api.anonymous().get(path).status == 401
    assert api.as_role().get(path).status == 403
    assert api.with_grants(own).get(path).status == 403
    assert api.as_role("core.admin", tenant="stranger").get(path).status == 404


def test_events_of_a_run_from_before_its_start_to_its_end(api):
    waiting = store(api, "requested", attempt=0)
    assert [name for name, _, _ in events(api, waiting)] == ["waiting"]
    execution = store(api, "running")
    assert events(api, execution) == [("waiting", None, "The execution has printed nothing yet")]
    upload(api, execution, b"one\n")
    assert events(api, execution) == [("content", "4", "one\n")]
    assert events(api, execution, last="4") == []
    upload(api, execution, b"two\nthr", first=1)
    assert events(api, execution, last="4") == [("append", "11", "two\nthr")]
    assert events(api, execution, offset=4) == [("content", "11", "two\nthr")]
    assert events(api, execution, offset=4, last="8") == [("append", "11", "thr")]
    now = api.services.clock()
    result = {"exit_code": 0, "stdout": "one\ntwo\nthree\n", "stderr": ""}
    api.activity.transition(execution.id, from_=("running",), to="completed", result=result, now=now)
    assert events(api, execution, last="11") == [("append", "14", "ee\n"), ("done", None, "completed")]
    assert events(api, execution, last="14") == [("done", None, "completed")]


def test_a_long_log_comes_in_several_events_and_answers(api, monkeypatch):
    monkeypatch.setattr(logs, "MOST_STREAMED", 200_000)
    text = "".join(f"{number}\r\n" for number in range(60_000))
    execution = ended(api, text)
    got, at, ids_ = "", "0", []
    while True:
        for name, id_, data in events(api, execution, last=at):
            if name == "done":
                break
            got += data
            at = id_ or at
            ids_.append(int(at))
        else:
            continue
        break
    assert got == text.replace("\r\n", "\n")
    assert ids_ == sorted(set(ids_))
    assert ids_[-1] == len(text)


def test_a_next_attempt_is_seen_from_its_beginning(api):
    execution = store(api, "running", attempt=2)
    upload(api, execution, b"again\n")
    assert events(api, execution, last="5000") == [("content", "6", "again\n")]


@pytest.mark.parametrize("last", ["", "x", "-4", "9" * 30])
def test_an_id_that_is_none_of_ours_is_as_none(api, last):
    assert events(api, ended(api, "one\n"), last=last) == [("content", "4", "one\n"), ("done", None, "completed")]


def test_a_carriage_return_waits_for_what_follows(api):
    execution = store(api, "running")
    upload(api, execution, b"10%\r")
    assert events(api, execution) == [("content", "3", "10%")]
    assert events(api, execution, last="3") == []
    upload(api, execution, b"\ndone", first=1)
    assert events(api, execution, last="3") == [("append", "9", "\ndone")]
