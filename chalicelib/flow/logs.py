"""What an execution printed: in its result when that holds it whole, else in S3 (T3.21, docs/architecture.md).

The runner uploads nothing for a run that is short and says little: its result shows all of it. What lasts longer or
writes more goes to S3 in parts while it runs, each stream below a prefix of its attempt:

    {tenant}/logs/{execution}/{attempt}/stdout/000000

Either way a log is the same bytes: UTF-8, printable, without secrets. Offsets count those.
"""

import json
from typing import Final, Literal, Protocol

from chalicelib.domain.entities import Action, Execution, Json
from chalicelib.domain.executions import DEFAULT_TIMEOUT, LEASE_GRACE, TERMINAL
from chalicelib.domain.retention import log_days, log_kind
from chalicelib.protocol import Logs
from chalicelib.store.blobs import Blobs, MissingBlobError

Stream = Literal["stdout", "stderr"]

MAX_PART: Final = 16 * 1024 * 1024  # bytes; a stream has at most 10 MB (semantics §2.6), a few more once printable
_MARGIN: Final = 120  # seconds that a run may wait for its runner
_TAIL_STEP: Final = 64 * 1024  # bytes that are looked at first for the last lines


class Log(Protocol):
    """One stream of one execution."""

    def size(self) -> int:
        """Bytes there are by now."""

    def read(self, start: int, stop: int) -> bytes:
        """The bytes from ``start`` up to ``stop``, as far as there are any."""


def upload_form(blobs: Blobs, execution: Execution, action: Action) -> Logs:
    """What lets a runner put the logs of this attempt where :func:`log_of` looks, and nothing else. No AWS call."""
    kind = log_kind(log_days(action.log_retention_policy, action.log_retention_limit))
    seconds = (execution.timeout or DEFAULT_TIMEOUT) + _MARGIN + int(LEASE_GRACE.total_seconds())
    form = blobs.presigned_post(_prefix(execution) + "${filename}", MAX_PART, seconds, kind=kind)
    return Logs(url=form["url"], fields=form["fields"])


def log_of(blobs: Blobs, execution: Execution, stream: Stream) -> Log:
    """The log of the current attempt: of one that runs, what has arrived."""
    if execution.status in TERMINAL:
        shown = _shown(execution, stream)
        if shown is not None:
            return _Text(shown)
    if not execution.attempt:
        return _Text(_instead(execution.result, stream))
    stored = _Stored(blobs, f"{_prefix(execution)}{stream}/")
    if execution.status in TERMINAL and not stored.size():
        return _Text(_instead(execution.result, stream))
    return stored


def last_lines(log: Log, count: int, *, start: int, most: int) -> int:
    """Where the last ``count`` lines begin; not before ``start``, and not more than ``most`` bytes from the end."""
    end = log.size()
    floor = max(start, end - most)
    step = _TAIL_STEP
    while True:
        begin = max(floor, end - step)
        text = log.read(begin, end)
        at = _nth_last_line(text, count)
        if at is not None or begin == floor:
            return begin + (at or 0)
        step *= 4


def _nth_last_line(text: bytes, count: int) -> int | None:
    """Where the ``count``-th line from the end begins, or None when that is not in ``text``."""
    at = len(text) - 1 if text.endswith(b"\n") else len(text)
    for _ in range(count):
        at = text.rfind(b"\n", 0, at)
        if at < 0:
            return None
    return at + 1


def _prefix(execution: Execution) -> str:
    return f"logs/{execution.id}/{execution.attempt}/"


def _shown(execution: Execution, stream: Stream) -> str | None:
    """The stream, when it came with the result and whole (semantics §2.6); None: it must be looked for."""
    if stream == "stdout" and execution.printed is not None:
        return execution.printed
    result = execution.result
    if not isinstance(result, dict) or result.get(f"{stream}_truncated"):
        return None
    shown = result.get(stream)
    if isinstance(shown, str):
        return shown
    # A result without an exit code is of a run whose end nobody saw, and says nothing of what it printed; nor does that
    # of one that was stopped.
    return "" if stream == "stderr" and "exit_code" in result and not result.get("cancelled") else None


def _instead(result: Json, stream: Stream) -> str:
    """What a result says of a stream that is not in S3: the part it shows, or the value that was parsed from it."""
    if not isinstance(result, dict):
        return ""
    shown = result.get(stream)
    if isinstance(shown, str):
        return shown
    if stream == "stdout" and "data" in result:
        return json.dumps(result["data"]) + "\n"  # what printed otherwise is `printed`
    return ""


class _Text:
    """A log that is at hand."""

    def __init__(self, text: str) -> None:
        self._content = text.encode()

    def size(self) -> int:
        return len(self._content)

    def read(self, start: int, stop: int) -> bytes:
        return self._content[start:stop]


class _Stored:
    """A log in S3. What there is of it is looked up once, so that all reads see the same."""

    def __init__(self, blobs: Blobs, prefix: str) -> None:
        self._blobs = blobs
        self._parts = list(blobs.sizes(prefix).items())

    def size(self) -> int:
        return sum(size for _, size in self._parts)

    def read(self, start: int, stop: int) -> bytes:
        found: list[bytes] = []
        at = 0  # where the part begins
        for name, size in self._parts:
            first, last = max(0, start - at), min(size, stop - at)
            if first < last:
                try:
                    found.append(self._blobs.get_part(name, first, last))
                except MissingBlobError:  # its time was over just now
                    break
            at += size
        return b"".join(found)
