"""The way back: a message on the results queue, and the one line that an invocation logs."""

import contextlib
import logging
import os
import sys
import threading
from functools import cache
from typing import Any, Final

import msgspec

from chalicelib.protocol import EnvironmentBuilt, Logs, RunFinished, SensorPolled, StoredResult
from runners.presigned import post_form

MAX_MESSAGE: Final = 1_000_000  # bytes; SQS takes 1 MiB with attributes
# Bytes that go by S3. Lambda answers the client who reads them with at most 6 MB, in which each quote counts twice.
MAX_RESULT: Final = 4 * 1024 * 1024
STORED_AS: Final = "result"  # the name of that below the attempt's prefix
_UPLOAD_ATTEMPTS: Final = 3

_encode = msgspec.json.Encoder().encode


def encoded(finished: RunFinished | EnvironmentBuilt | SensorPolled, most: int = MAX_MESSAGE) -> str:
    """The message. A result that does not fit into ``most`` bytes becomes a failure that says so."""
    body = _encode(finished)
    if len(body) > most and isinstance(finished, RunFinished):
        body = _encode(_cut(finished, most))
    # SQS refuses these two characters, which JSON allows: as escapes they pass.
    return body.decode().replace("\ufffe", "\\ufffe").replace("\uffff", "\\uffff")


def _cut(finished: RunFinished, most: int, why: str = "") -> RunFinished:
    """The report without what makes it large."""
    result = dict(finished.result)
    size = len(_encode(result))
    for name in ("data", "body", "json"):
        result.pop(name, None)
    result |= {"succeeded": False, "error": why or f"the result takes {size} bytes; the most is {most}"}
    cut = msgspec.structs.replace(finished, status="failed", result=result, printed=None)
    if len(_encode(cut)) > most:  # which what it printed cannot do, except in escapes
        cut = msgspec.structs.replace(cut, result={"succeeded": False, "error": result["error"]})
    return cut


def put_away(finished: RunFinished, form: Logs) -> RunFinished:
    """The report of a run whose result is too large for a message: it goes to S3, by the form that the logs have, up to
    :data:`MAX_RESULT` bytes."""
    content = _encode(StoredResult(result=finished.result, printed=finished.printed))
    if len(content) > MAX_RESULT:
        return _cut(finished, MAX_RESULT)
    key = form.fields["key"].replace("${filename}", STORED_AS)
    for _ in range(_UPLOAD_ATTEMPTS):
        with contextlib.suppress(OSError):
            post_form(form.url, {**form.fields, "key": key, "file": (STORED_AS, content)})
            return msgspec.structs.replace(finished, result=None, printed=None, stored=True)
    return _cut(finished, MAX_MESSAGE, f"the result, which takes {len(content)} bytes, could not be stored")


def send(finished: RunFinished | EnvironmentBuilt | SensorPolled, form: Logs | None = None) -> None:
    """Report to the conductor; ``form`` is for what no message can hold. Raises botocore's errors after its retries:
    Lambda then reports the run as lost."""
    if form is not None and isinstance(finished, RunFinished) and len(_encode(finished)) > MAX_MESSAGE:
        finished = put_away(finished, form)
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
