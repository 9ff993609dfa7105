"""The way back: a message on the results queue, and the one line that an invocation logs."""

import logging
import os
import sys
import threading
from functools import cache
from typing import Any, Final

import msgspec

from chalicelib.protocol import EnvironmentBuilt, RunFinished, SensorPolled

MAX_MESSAGE: Final = 1_000_000  # bytes; SQS takes 1 MiB with attributes

_encode = msgspec.json.Encoder().encode


def encoded(finished: RunFinished | EnvironmentBuilt | SensorPolled) -> str:
    """The message. A result that does not fit becomes a failure that says so."""
    body = _encode(finished)
    if len(body) > MAX_MESSAGE and isinstance(finished, RunFinished):
        result = dict(finished.result)
        size = len(_encode(result))
        dropped = {name: result.pop(name) for name in ("data", "body", "json") if name in result}
        reason = f"the result takes {size} bytes; the most is {MAX_MESSAGE}" if dropped else "the result is too large"
        result |= {"succeeded": False, "error": reason}
        body = _encode(msgspec.structs.replace(finished, status="failed", result=result))
    # SQS refuses these two characters, which JSON allows: as escapes they pass.
    return body.decode().replace("\ufffe", "\\ufffe").replace("\uffff", "\\uffff")


def send(finished: RunFinished | EnvironmentBuilt | SensorPolled) -> None:
    """Report to the conductor. Raises botocore's errors after its retries: Lambda then reports the run as lost."""
    with _one_at_a_time:
        client = _sqs()
    client.send_message(QueueUrl=os.environ["ATTUNE_RESULTS_QUEUE"], MessageBody=encoded(finished))


def prepare() -> None:
    """Make the queue's client in the background: its 150 ms pass while the first action runs."""

    def make() -> None:
        with _one_at_a_time:
            _sqs()

    threading.Thread(target=make, name="results", daemon=True).start()


_one_at_a_time: Final = threading.Lock()


@cache
def _sqs() -> Any:
    # Only botocore, and not before the zygote is on its way, which is to stay lean.
    import botocore.session
    from botocore.config import Config

    config = Config(connect_timeout=3, read_timeout=10, retries={"mode": "standard", "total_max_attempts": 5})
    return botocore.session.get_session().create_client("sqs", config=config)


class _Lines(logging.Formatter):
    """One JSON object per record; the fields come in ``extra={"fields": …}``."""

    def format(self, record: logging.LogRecord) -> str:
        line = {"level": record.levelname, "message": record.getMessage(), **getattr(record, "fields", {})}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return _encode(line).decode()


def logger() -> logging.Logger:
    """The runner's log. Nothing of an action's goes into it: no parameter, no output, no error text."""
    log = logging.getLogger("attune.runner")
    if not log.handlers:
        lines = logging.StreamHandler(sys.stderr)
        lines.setFormatter(_Lines())
        log.addHandler(lines)
        log.setLevel(logging.INFO)
        log.propagate = False
    return log
