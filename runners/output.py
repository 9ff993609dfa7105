"""From a process that has ended to the result of its execution: ``semantics.md`` §2.6."""

import contextlib
import datetime
import re
import signal
from collections.abc import Callable
from itertools import pairwise
from typing import Any, Final, Literal

import msgspec

from runners.capture import Captured
from runners.redaction import Redactor
from runners.sandbox import Ended

Json = Any
Status = Literal["completed", "failed"]

SHOWN: Final = 64 * 1024  # bytes of a stream that a result carries whole
MAX_STRUCTURED: Final = 4 * 1024 * 1024  # bytes of output that are parsed
_MAX_VALUES: Final = 250_000  # in parsed YAML, aliases followed
_MAX_DEPTH: Final = 100
_ERROR_LINES: Final = 5
_NODE_CLOSES: Final = re.compile(r"Node\.js v[\d.]+\S*")
_NODE_ERROR: Final = re.compile(r"[\w.$]*(Error|Exception)( \[\w+\])?(: |$)")
_MAX_ERROR: Final = 8 * 1024  # characters

# C0 controls but for tab, newline, carriage return and escape (colours), and what no message may carry.
_UNPRINTABLE: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f\ufffe\uffff]")


class NotStructuredError(Exception):
    """The output is not of the format that the action promises."""


def could_not_start(reason: str) -> tuple[Status, Json]:
    """The result of an execution that never had a process."""
    return "failed", {"succeeded": False, "error": reason}


def cancelled(exit_code: int | None, duration_ms: int) -> tuple[Status, Json]:
    """The result of an execution that was stopped on request; without an exit code when it was killed."""
    told = {"succeeded": False, "cancelled": True, "error": "Execution cancelled by user"}
    return "failed", told | {"exit_code": -1 if exit_code is None else exit_code, "duration_ms": duration_ms}


def result_of(ended: Ended, output_format: str, timeout: float, redactor: Redactor) -> tuple[Status, Json]:
    """Status and result, with nothing of a secret left in it."""
    if ended.not_started is not None:
        return could_not_start(redactor.text(ended.not_started))
    if ended.cancelled:
        return cancelled(ended.exit_code, ended.duration_ms)
    stdout, stderr = _Stream(ended.stdout, redactor), _Stream(ended.stderr, redactor)
    error = _failure(ended, stderr, timeout)
    result: dict[str, Json] = {
        "succeeded": error is None,
        "exit_code": -1 if ended.exit_code is None or ended.timed_out else ended.exit_code,
        "duration_ms": ended.duration_ms,
    }
    said_all = False  # by the data
    try:
        data, said_all = _structured(ended.stdout, output_format)
        if data is not _NOTHING:
            result["data"] = redactor.json(data)
    except _TooMuchError as too_much:
        error = error or str(too_much)
        result["succeeded"] = False
    if error is not None:
        result["error"] = error[:_MAX_ERROR]
    if error is not None or not said_all:
        result |= stdout.shown("stdout")
    if stderr.text:
        result |= stderr.shown("stderr")
    return "completed" if error is None else "failed", result


class _Stream:
    """One captured stream as redacted, printable text."""

    def __init__(self, captured: Captured, redactor: Redactor) -> None:
        self._total = captured.total
        head = redactor.text(captured.head.decode("utf-8", "replace"))
        tail = redactor.text(captured.tail.decode("utf-8", "replace"))
        if captured.total > len(captured.head) and redactor.longest:
            # What is cut through the middle of a secret has no form to be known by.
            head, tail = head[: -redactor.longest], tail[redactor.longest :]
        self._head, self._tail = printable(head), printable(tail)
        self.text = self._head + self._tail

    def shown(self, name: str) -> dict[str, Json]:
        """Whole up to :data:`SHOWN` bytes; beyond, the first and the last half of that, and how much is missing."""
        raw = self.text.encode()
        if self._total <= SHOWN and len(raw) <= 3 * SHOWN:
            return {name: self.text}
        first = raw[: SHOWN // 2].decode("utf-8", "ignore")
        last = raw[max(SHOWN // 2, len(raw) - SHOWN // 2) :].decode("utf-8", "ignore")
        missing = max(0, self._total - SHOWN)
        return {
            name: f"{first}\n[... {missing} bytes left out ...]\n{last}",
            f"{name}_truncated": True,
            f"{name}_bytes": self._total,
            f"{name}_bytes_truncated": missing,
        }

    def last_lines(self) -> list[str]:
        """The lines of the stream if they are few; else the last one with something in it."""
        lines = self.text.rstrip().splitlines()
        return lines if len(lines) <= _ERROR_LINES else [_telling(lines)]


def _telling(lines: list[str]) -> str:
    """The last line; Node.js closes with its version, and says further up what was wrong."""
    if not _NODE_CLOSES.fullmatch(lines[-1]):
        return lines[-1]
    errors = [line for line in lines if _NODE_ERROR.match(line)]
    errors += [line for line, below in pairwise(lines) if below.startswith("    at ") and not line.startswith(" ")]
    return errors[0] if errors else lines[-1]


def printable(text: str) -> str:
    """The text with every character that would not show, or could not be sent, replaced."""
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def _failure(ended: Ended, stderr: _Stream, timeout: float) -> str | None:
    if ended.timed_out:
        return f"Execution timed out after {timeout:g} seconds"
    if ended.disk_full:
        return "Command was ended: it filled its disk space"
    if ended.failure is not None:
        return ended.failure
    if ended.exit_code == 0:
        return None
    if ended.signal is not None:
        return _killed(ended.signal)
    return "\n".join(stderr.last_lines()) or f"Command exited with code {ended.exit_code}"


def _killed(number: int) -> str:
    name = signal.Signals(number).name if number in set(signal.Signals) else "real-time"
    return f"Command was ended by signal {number} ({name}){_REASONS.get(number, '')}"


_REASONS: Final[dict[int, str]] = {
    signal.SIGXFSZ: ": it wrote a file larger than the limit",
    signal.SIGKILL: ": it may have run out of memory",
}
_NOTHING: Final = object()


class _TooMuchError(Exception):
    pass


def _structured(stdout: Captured, output_format: str) -> tuple[Json, bool]:
    """The parsed output, and whether that is all of the output.

    Of JSON, the last line is enough: scripts print before they answer. ``_NOTHING`` is parsed from what is not of the
    format, or from no output.
    """
    parse = _PARSERS.get(output_format)
    if parse is None or not stdout.head.strip():
        return _NOTHING, False
    if stdout.total <= MAX_STRUCTURED:
        with contextlib.suppress(NotStructuredError):
            return parse(stdout.head), True
    if output_format == "json":
        with contextlib.suppress(NotStructuredError):
            return decode_json((stdout.tail or stdout.head).rstrip().rpartition(b"\n")[2]), False
    if stdout.total > MAX_STRUCTURED:
        raise _TooMuchError(
            f"the action wrote {stdout.total} bytes of {output_format}; the most that is read is {MAX_STRUCTURED}"
        )
    return _NOTHING, False


def decode_json(text: bytes) -> Json:
    """A JSON value that is no deeper than what will read it can follow. Raises :class:`NotStructuredError`."""
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise NotStructuredError(str(error)) from error
    level = [value]
    for _ in range(_MAX_DEPTH):
        containers = [inner for inner in level if isinstance(inner, (dict, list))]
        if not containers:
            return value
        level = [element for inner in containers for element in (inner.values() if isinstance(inner, dict) else inner)]
    raise NotStructuredError(f"deeper than {_MAX_DEPTH} levels")


def _jsonl(text: bytes) -> Json:
    return [decode_json(line) for line in text.splitlines() if line.strip()]


def _yaml(text: bytes) -> Json:
    import yaml  # few actions write it, and it costs a cold start 15 ms

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        loaded = yaml.load(text, Loader=loader)  # noqa: S506  # both are safe loaders
        return _Plain().value(loaded, 0)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise NotStructuredError(str(error)) from error


class _Plain:
    """YAML knows more than JSON: dates, bytes, sets, keys of any type, aliases that grow without end."""

    def __init__(self) -> None:
        self._values = 0

    def value(self, value: Any, depth: int) -> Json:
        self._values += 1
        if self._values > _MAX_VALUES or depth > _MAX_DEPTH:
            raise NotStructuredError("too many values, or too deep")
        if isinstance(value, dict):
            return {self._key(key): self.value(inner, depth + 1) for key, inner in value.items()}
        if isinstance(value, (list, tuple, set)):
            return [self.value(inner, depth + 1) for inner in value]
        if isinstance(value, (datetime.date, datetime.datetime)):
            return value.isoformat()
        if isinstance(value, bytes):
            return value.decode("utf-8", "replace")
        return value

    @staticmethod
    def _key(key: Any) -> str:
        return key if isinstance(key, str) else msgspec.json.encode(key).decode()


_PARSERS: Final[dict[str, Callable[[bytes], Json]]] = {"json": decode_json, "jsonl": _jsonl, "yaml": _yaml}
