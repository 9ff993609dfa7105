"""Following a run while it goes on: its output is stored as it comes, and becomes the result."""

import time
from collections.abc import Callable
from typing import Any, Final

import msgspec

from chalicelib.protocol import Run
from runners.capture import Capture
from runners.logs import LogUpload, unshown
from runners.output import Status, result_of
from runners.redaction import Redactor
from runners.sandbox import TERMINATION_GRACE, Ended

Json = Any

REPORTING: Final = 3.0  # seconds of the invocation that are kept for the last of the logs and the result
SENDING: Final = 1.0  # of those, for the result


class Outcome(msgspec.Struct, frozen=True):
    """What a runner makes of a run."""

    status: Status
    result: Json
    timed_out: bool = False
    log_parts: dict[str, int] = {}
    printed: str | None = None
    log: dict[str, Json] = {}
    artifacts: int = 0  # bytes of the archive with what it has changed


def followed(run: Run, start: Callable[[Capture, Capture], Ended], timeout: float, redactor: Redactor) -> Outcome:
    """What becomes of a process or container, whose output is stored while it runs."""
    streams = {"stdout": Capture(), "stderr": Capture()}
    log_parts: dict[str, int] = {}
    if run.logs is None:
        ended = start(streams["stdout"], streams["stderr"])
    else:
        until = time.monotonic() + timeout + TERMINATION_GRACE + REPORTING - SENDING
        with LogUpload(run.logs, streams, redactor, until=until) as upload:
            ended = start(streams["stdout"], streams["stderr"])
            upload.needed = ended.cancelled
        log_parts = upload.parts
    status, result = result_of(ended, run.output_format, timeout, redactor)
    log: dict[str, Json] = {"cpu_ms": ended.cpu_ms, "peak_kb": ended.peak_kb}
    printed = unshown(ended.stdout, result, redactor)
    return Outcome(status, result, ended.timed_out, log_parts, printed, log)
