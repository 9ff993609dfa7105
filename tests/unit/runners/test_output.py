"""Results of processes that ended in every way (semantics §2.6)."""

import signal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runners.capture import KEPT, Capture, Captured
from runners.output import MAX_STRUCTURED, SHOWN, could_not_start, result_of
from runners.redaction import MASK, Redactor
from runners.sandbox import Ended

NO_SECRETS = Redactor([])


def captured(content: bytes) -> Captured:
    capture = Capture()
    capture.add(content)
    return capture.captured()


def ended(stdout: bytes = b"", stderr: bytes = b"", **fields: Any) -> Ended:
    given = {"exit_code": 0, "duration_ms": 5, "stdout": captured(stdout), "stderr": captured(stderr)}
    return Ended(**given | fields)


def result(stdout: bytes = b"", stderr: bytes = b"", output_format: str = "text", **fields: Any) -> Any:
    return result_of(ended(stdout, stderr, **fields), output_format, 300, NO_SECRETS)[1]


def test_success_is_exactly_that() -> None:
    status, shown = result_of(ended(b"hello\n"), "text", 300, NO_SECRETS)

    assert status == "completed"
    assert shown == {"succeeded": True, "exit_code": 0, "duration_ms": 5, "stdout": "hello\n"}


@pytest.mark.parametrize(
    ("output_format", "stdout", "data"),
    [
        ("json", b'{"a": 1}', {"a": 1}),
        ("json", b"[1,\n2]\n", [1, 2]),
        ("json", b"null", None),
        ("jsonl", b'{"a": 1}\n\n2\n', [{"a": 1}, 2]),
        ("yaml", b"a: 2026-11-22\n1: [x, !!binary aGk=]\n", {"a": "2026-11-22", "1": ["x", "hi"]}),
    ],
)
def test_structured_output_is_data_and_not_stdout(output_format: str, stdout: bytes, data: Any) -> None:
    shown = result(stdout, output_format=output_format)

    assert shown["data"] == data
    assert "stdout" not in shown


def test_the_last_line_is_enough_and_the_others_are_not_lost() -> None:
    shown = result(b'log line\nanother\n{"a": 1}\n', output_format="json")

    assert shown["data"] == {"a": 1}
    assert shown["stdout"] == 'log line\nanother\n{"a": 1}\n'

    shown = result(b"log line\n" * 1_000_000 + b'{"a": 1}\n', output_format="json")

    assert (shown["data"], shown["stdout_truncated"]) == ({"a": 1}, True)


LAUGHS = b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (name, name, b",".join([b"*%c" % (name - 1)] * 9)) for name in range(98, 107)
)


@pytest.mark.parametrize(
    ("output_format", "stdout"),
    [
        ("json", b"just words"),
        ("json", b""),
        ("json", b"[" * 5000 + b"]" * 5000),
        ("json", b'{"a":' * 101 + b"1" + b"}" * 101),
        ("json", b"\xff\xfe"),
        ("jsonl", b'{"a": 1}\nwords\n'),
        ("yaml", b"a: [unclosed"),
        ("yaml", LAUGHS),
        ("yaml", b"a: &a [*a]"),
        ("yaml", b"!!python/object/apply:os.system [id]"),
    ],
)
def test_what_is_not_of_the_format_stays_text(output_format: str, stdout: bytes) -> None:
    shown = result(stdout, output_format=output_format)

    assert shown["succeeded"] is True
    assert "data" not in shown
    assert "stdout" in shown


def test_a_failure_shows_both_output_and_data() -> None:
    shown = result(b'{"a": 1}', b"", output_format="json", exit_code=4)

    assert shown == {
        "succeeded": False,
        "exit_code": 4,
        "duration_ms": 5,
        "data": {"a": 1},
        "error": "Command exited with code 4",
        "stdout": '{"a": 1}',
    }


@pytest.mark.parametrize(
    ("stderr", "error"),
    [
        (b"", "Command exited with code 1"),
        (b"\n \n", "Command exited with code 1"),
        (b"one\ntwo\n", "one\ntwo"),
        (b"1\n2\n3\n4\n5\n", "1\n2\n3\n4\n5"),
        (b"1\n2\n3\n4\n5\nthe last\n\n", "the last"),
    ],
)
def test_the_error_is_what_stderr_says_if_that_is_short(stderr: bytes, error: str) -> None:
    assert result(b"", stderr, exit_code=1)["error"] == error


def test_a_timeout_wins_over_everything_else() -> None:
    status, shown = result_of(ended(b"x", b"y", exit_code=0, timed_out=True), "json", 1.5, NO_SECRETS)

    assert status == "failed"
    assert (shown["exit_code"], shown["error"]) == (-1, "Execution timed out after 1.5 seconds")


@pytest.mark.parametrize(
    ("number", "said"),
    [(signal.SIGKILL, "SIGKILL"), (signal.SIGXFSZ, "larger than"), (signal.SIGSEGV, "SIGSEGV"), (63, "real-time")],
)
def test_a_signal_is_named(number: int, said: str) -> None:
    shown = result(b"", b"", exit_code=None, signal=int(number))

    assert shown["exit_code"] == -1
    assert said in shown["error"]


def test_what_never_started_has_only_a_reason() -> None:
    assert could_not_start("no bash") == ("failed", {"succeeded": False, "error": "no bash"})
    assert result(exit_code=127, not_started="no bash") == {"succeeded": False, "error": "no bash"}


def test_64_kilobytes_are_shown_whole_and_more_is_not() -> None:
    assert "stdout_truncated" not in result(b"x" * SHOWN)

    shown = result(b"a" * SHOWN + b"z" * SHOWN)

    assert shown["stdout_truncated"] is True
    assert (shown["stdout_bytes"], shown["stdout_bytes_truncated"]) == (2 * SHOWN, SHOWN)
    assert shown["stdout"].startswith("aaaa")
    assert shown["stdout"].endswith("zzzz")
    assert len(shown["stdout"]) < SHOWN + 100


def test_the_end_of_an_endless_stream_is_shown() -> None:
    shown = result(b"", b"x" * (KEPT + 1_000_000) + b"the end")

    assert shown["stderr"].endswith("the end")
    assert shown["stderr_bytes"] == KEPT + 1_000_007


def test_too_much_to_parse_is_a_failure_that_says_so() -> None:
    shown = result(b"x" * (MAX_STRUCTURED + 1), output_format="json")

    assert shown["succeeded"] is False
    assert "the most that is read" in shown["error"]


@given(st.binary(max_size=300), st.sampled_from(["text", "json", "jsonl", "yaml"]))
def test_any_bytes_become_printable_text(content: bytes, output_format: str) -> None:
    shown = result(content, content, output_format=output_format, exit_code=1)

    text = shown["stdout"] + shown.get("stderr", "")
    assert not set(text) & ({chr(n) for n in range(32)} - set("\t\n\r\x1b") | {"\x7f", "\ufffe", "\uffff"})


@pytest.mark.parametrize("before", [0, SHOWN // 2 - 10, KEPT - 10, KEPT - 3])
def test_no_cut_leaves_a_piece_of_a_secret(before: int) -> None:
    secret = "correct-horse-battery-staple"
    content = b"." * before + secret.encode() + b"." * (2 * SHOWN)
    _, shown = result_of(ended(content), "text", 300, Redactor([secret]))

    for piece in (secret[:4], secret[-4:], secret[10:14]):
        assert piece not in shown["stdout"]
    assert MASK in shown["stdout"] or before >= SHOWN // 2 - 10


@pytest.mark.parametrize(
    ("said", "telling"),
    [
        ("  throw err;\n\nError: no module 'x'\nStack:\n- /a.js\n    at f (node:x)\n", "Error: no module 'x'"),
        ("x:1\n\nError [ERR_X]: gone\n    at f (x)\n    at g (x) {\n  code: 'X'\n}\n", "Error [ERR_X]: gone"),
        ("/a.js:1\nthrow it\n^\n\nOops: nothing fits\n    at f (a.js)\n    at g (a.js)\n", "Oops: nothing fits"),
        ("/a.js:1\nthrow 'x'\n^\nx\n(Use `node --trace-uncaught`)\n", "Node.js v20.20.2"),
    ],
)
def test_the_error_of_node_is_not_its_version(said: str, telling: str) -> None:
    assert result(stderr=f"{said}\nNode.js v20.20.2\n".encode(), exit_code=1)["error"] == telling
