"""One poll of a sensor: the process it runs in, and what its output reports (docs/sensors.md).

On standard output, a line that is a JSON object with one of these keys is a report::

    {"event": {"trigger_ref": …, "payload": …, "rule": …, "key": …}}
    {"state": {…}}
    {"next_poll": seconds}

Every other line, and standard error, is its log.
"""

from pathlib import Path
from typing import Any, Final

import msgspec

from chalicelib.protocol import Poll, SensorPolled
from runners.child import FOLDER
from runners.output import NotStructuredError, decode_json, printable, result_of
from runners.redaction import Redactor
from runners.sandbox import Ended, Job

Json = Any

MAX_EVENTS: Final = 500  # of one poll
MAX_STATE: Final = 64 * 1024  # bytes as JSON
MAX_REPORT: Final = 900_000  # bytes; SQS takes 1 MiB
MAX_LOG: Final = 16 * 1024  # characters of each stream that a poll may log

_DRIVER: Final = "sensor_driver.py"
_REPORTS: Final = frozenset({"event", "state", "next_poll"})
_encode = msgspec.json.Encoder().encode


class _RefusedError(Exception):
    """What the sensor printed cannot be taken."""


def adapted(job: Job, pack: Path | None, libraries: Path | None) -> Job:
    """The job; that of a Python sensor which can import attune-sdk, from its libraries or from beside its own file,
    runs under the driver."""
    importable = [libraries] if libraries else []
    if pack is not None:
        importable.append(Path(job.command[0]).parent)
    if not job.in_process or not any((folder / "attune" / "sensor.py").is_file() for folder in importable):
        return job
    text = Path(__file__).with_name(_DRIVER).read_text()
    return msgspec.structs.replace(
        job, command=[f"{FOLDER}/{_DRIVER}", *job.command], files={**job.files, _DRIVER: text}
    )


def could_not_start(order: Poll, reason: str) -> SensorPolled:
    """The report of a poll that never had a process."""
    return _report(order, error=reason)


def report_of(order: Poll, ended: Ended, redactor: Redactor) -> SensorPolled:
    """What became of the poll, with nothing of a secret left in it."""
    status, result = result_of(ended, "text", order.run.timeout, redactor)
    reports, log = _split(ended)
    said: dict[str, Json] = {
        "exit_code": result.get("exit_code"),
        "duration_ms": ended.duration_ms,
        "stdout": _cut(printable(redactor.text(log))),
        "stderr": _cut(str(result.get("stderr", ""))),
    }
    if status == "failed":
        return _report(order, error=str(result.get("error")), **said)
    try:
        report = _report(order, **_read(redactor.json(reports)), **said)
    except _RefusedError as error:
        return _report(order, error=str(error), **said)
    size = len(_encode(report))
    if size > MAX_REPORT:
        return _report(order, error=f"the events take {size} bytes; a poll may report {MAX_REPORT}", **said)
    return report


def _report(order: Poll, **fields: Json) -> SensorPolled:
    run = order.run
    return SensorPolled(
        tenant=run.tenant, ref=run.action_ref, id=run.execution, turn=run.attempt, token=run.token, **fields
    )


def _split(ended: Ended) -> tuple[list[dict[str, Json]], str]:
    """Reports, and the lines that are none."""
    reports: list[dict[str, Json]] = []
    log: list[str] = []
    for line in ended.stdout.head.splitlines():
        report = _parsed(line)
        if report is None:
            log.append(line.decode("utf-8", "replace") + "\n")
        else:
            reports.append(report)
    return reports, "".join(log)


def _parsed(line: bytes) -> dict[str, Json] | None:
    if not line.lstrip().startswith(b"{"):
        return None
    try:
        value = decode_json(line)
    except NotStructuredError:
        return None
    return value if isinstance(value, dict) and not _REPORTS.isdisjoint(value) else None


def _read(reports: list[dict[str, Json]]) -> dict[str, Json]:
    """The fields of :class:`SensorPolled`. Of several states, or times, the last counts."""
    events = [report["event"] for report in reports if "event" in report]
    if len(events) > MAX_EVENTS:
        raise _RefusedError(f"the sensor printed {len(events)} events; a poll may report {MAX_EVENTS}")
    fields: dict[str, Json] = {"events": events}
    for report in reports:
        fields |= {name: report[name] for name in ("state", "next_poll") if name in report}
    state, wanted = fields.get("state"), fields.get("next_poll")
    if state is not None and not isinstance(state, dict):
        raise _RefusedError("the state must be a JSON object")
    if state is not None and len(_encode(state)) > MAX_STATE:
        raise _RefusedError(f"the state takes {len(_encode(state))} bytes; it may take {MAX_STATE}")
    if wanted is not None and (isinstance(wanted, bool) or not isinstance(wanted, (int, float)) or wanted > 31_536_000):
        raise _RefusedError("next_poll must be a number of seconds")
    return fields


def _cut(text: str) -> str:
    return text if len(text) <= MAX_LOG else f"{text[:MAX_LOG]}\n[... {len(text) - MAX_LOG} characters left out ...]\n"
