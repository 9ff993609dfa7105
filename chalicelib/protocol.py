"""The messages between the boxes, and the one schema that the two planes share (design §1).

Everything that crosses a queue or an invocation is one of these structs as JSON. The runner's zip holds this file
and nothing else of ``chalicelib``.
"""

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec

Json = Any


class EventAccepted(msgspec.Struct, kw_only=True, frozen=True, tag_field="kind", tag="event"):
    """API, timers, sensors → rules. ``id`` is the event's and holds the time it was accepted; ``key`` tells this event
    from a stranger that drew the same id."""

    tenant: str
    id: int
    key: str
    trigger_ref: str
    payload: Json = None
    payload_blob: str | None = None  # S3 key, when the payload is too big for a message
    config: Json = None
    source_ref: str | None = None
    source: int | None = None
    rule_ref: str | None = None  # set for timers: only this rule is considered
    registry: int = 0  # registry version the sender saw: the reader's cache must be at least as new


class Firing(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """One firing of a timer that is sent out ahead of its time ``at``. ``version`` names the arming it belongs to and
    ``count`` numbers it. ``late``: the missed-run policy wants it although it was missed. ``only``: nothing else of its
    timer is outstanding, so that its claim settles the timer, which is then to be looked at ``then``."""

    rule_ref: str
    version: int
    at: datetime
    count: int
    late: bool = False
    only: bool = False
    then: datetime | None = None


class TimersDue(msgspec.Struct, kw_only=True, frozen=True, tag_field="kind", tag="timers"):
    """Tick, API → rules: firings of one moment, delayed until then."""

    tenant: str
    firings: list[Firing]
    registry: int = 0

    @property
    def at(self) -> datetime:
        return self.firings[0].at


class ExecutionRequested(msgspec.Struct, kw_only=True, frozen=True, tag_field="kind", tag="execution"):
    """Rules, API, conductor → executor."""

    tenant: str
    id: int
    action_ref: str
    timeout: int | None = None  # seconds; None: the default
    registry: int = 0
    seat: bool = False  # it was let through its tenant's gate (store.gates)


class Wake(msgspec.Struct, kw_only=True, frozen=True, tag_field="kind", tag="wake"):
    """Anybody → executor: a moment has come that the execution ``id`` waits for; look at it."""

    tenant: str
    id: int


class PolicyChanged(msgspec.Struct, kw_only=True, frozen=True, tag_field="kind", tag="policy"):
    """API → executor: the concurrency policy of an action is another one; look at who waits for a slot."""

    tenant: str
    action_ref: str
    registry: int = 0


class EnvironmentRequested(msgspec.Struct, kw_only=True, frozen=True, tag_field="kind", tag="environment"):
    """API, executor, conductor → executor: build the environment of that ref, unless it is built or being built."""

    tenant: str
    ref: str


class SensorDue(msgspec.Struct, kw_only=True, frozen=True, tag_field="kind", tag="sensor"):
    """API, tick, conductor → executor: the sensor's poll number ``turn`` is due."""

    tenant: str
    ref: str
    id: int
    turn: int


class Pack(msgspec.Struct, kw_only=True, frozen=True):
    """Where the runner finds the files of a pack, or an environment: a tar.gz, cached by its SHA-256."""

    ref: str
    content: str
    url: str


class Logs(msgspec.Struct, kw_only=True, frozen=True):
    """Where a run's whole output goes while it runs: a presigned form of S3 for the objects below one prefix.

    ``fields["key"]`` ends in ``${filename}``, for which the runner puts ``stdout/000000``, ``stdout/000001``, …
    """

    url: str
    fields: dict[str, str]


class Container(msgspec.Struct, kw_only=True, frozen=True):
    """What a container action runs, and what it may take: ``container`` in action.yaml and on the API.

    Without ``command`` the action's entry point is a script, given as the last argument to ``interpreter``; where there
    is neither, or ``command`` is empty, the image runs what it was made to run (docs/decisions/008-containers.md).
    """

    image: Annotated[str, msgspec.Meta(min_length=1, max_length=255, pattern=r"^[a-zA-Z0-9][a-zA-Z0-9._/:@-]*$")]
    command: Annotated[list[Annotated[str, msgspec.Meta(max_length=1024)]], msgspec.Meta(max_length=64)] | None = None
    interpreter: Annotated[list[str], msgspec.Meta(min_length=1, max_length=8)] | None = None  # None: /bin/sh -c
    memory: Annotated[int, msgspec.Meta(ge=16, le=8192)] = 256  # MiB
    cpu: Annotated[float, msgspec.Meta(ge=0.05, le=4)] = 0.5  # of a processor
    processes: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 64  # and threads
    scratch: Annotated[int, msgspec.Meta(ge=1, le=4096)] = 64  # MiB of /tmp, all that can be written to
    network: bool = False


class Upload(msgspec.Struct, kw_only=True, frozen=True):
    """A form that puts one file of at most ``most`` bytes where the control plane wants it (S3: presigned POST)."""

    url: str
    fields: dict[str, str]
    most: int


class Artifacts(msgspec.Struct, kw_only=True, frozen=True):
    """What the executions of one workflow run share: archives to be unpacked one over the other, in this order, and
    where to put one with what this run has changed (docs/decisions/014-artifacts.md)."""

    archives: list[str]  # presigned URLs of tar.gz files, each of which may be several put together
    upload: Upload


class Run(msgspec.Struct, kw_only=True, frozen=True, tag_field="kind", tag="run"):
    """Executor → runner: all that one attempt needs; the runner reads nothing else of the platform."""

    tenant: str
    execution: int
    attempt: int
    token: str  # one-time: the result must carry it
    action_ref: str
    runner: Literal["python", "shell", "node", "http", "container"]
    entrypoint: str  # a file of the pack, or the code itself when `pack` is None
    parameters: dict[str, Json] = {}  # secrets included
    secrets: list[str] = []  # values to redact from everything that leaves the runner
    parameter_delivery: Literal["stdin", "file"] = "stdin"
    parameter_format: Literal["json", "dotenv", "yaml"] = "json"
    output_format: Literal["text", "json", "yaml", "jsonl"] = "text"
    environment: dict[str, str] = {}  # ATTUNE_* and the runtime's env_vars
    timeout: float = 300
    pack: Pack | None = None
    logs: Logs | None = None
    libraries: Pack | None = None  # the environment built from the pack's manifest
    container: Container | None = None  # with the runner `container`, always
    artifacts: Artifacts | None = None  # None: the run shares its folder with nobody
    stop_url: str | None = None  # answers 200 once the execution is to be cancelled; None: too short to look


class TaskStopped(msgspec.Struct, kw_only=True, frozen=True, tag_field="kind", tag="stopped"):
    """EventBridge → conductor: what the stack's rule takes of ECS's "Task State Change"."""

    group: str  # tenant:…
    started_by: str  # execution/attempt
    stop_code: str = ""
    reason: str = ""


class Task(msgspec.Struct, kw_only=True, frozen=True):
    """What a task of ECS finds at its URL: the run, and the form to upload its :class:`RunFinished` with."""

    run: Run
    result: Logs


class RunFinished(msgspec.Struct, kw_only=True, frozen=True, tag_field="kind", tag="finished"):
    """Runner → conductor. ``result`` has the shape of ``semantics.md`` §2.6."""

    tenant: str
    execution: int
    attempt: int
    token: str
    status: Literal["completed", "failed", "cancelled"]
    result: Json = None
    timed_out: bool = False
    duration_ms: int = 0
    log_parts: dict[str, int] = {}  # uploaded per stream; none for a run whose result shows all of its output
    printed: str | None = None  # standard output that the result has only as `data`, unless it is that as JSON's text
    artifacts: int = 0  # bytes of the archive with what it has changed; none: nothing
    stored: bool = False  # `result` and `printed` are a StoredResult in S3


class StoredResult(msgspec.Struct, kw_only=True, frozen=True):
    """What a :class:`RunFinished` has no room for, at ``result`` below the prefix of the attempt's logs."""

    result: Json
    printed: str | None = None


class Poll(msgspec.Struct, kw_only=True, frozen=True, tag_field="kind", tag="poll"):
    """Executor → runner: let a sensor look once. In ``run``, ``execution`` is the sensor's id, ``attempt`` the turn,
    ``action_ref`` the sensor's ref, and ``parameters`` the document that it gets (``docs/sensors.md``)."""

    run: Run


class SensorPolled(msgspec.Struct, kw_only=True, frozen=True, tag_field="kind", tag="polled"):
    """Runner → conductor. Without ``error`` the poll counts as a whole: its events, its state. ``state`` None: as it
    was."""

    tenant: str
    ref: str
    id: int
    turn: int
    token: str
    error: str | None = None
    exit_code: int | None = None
    events: list[Json] = []
    state: dict[str, Json] | None = None
    next_poll: float | None = None  # seconds from now, when the sensor says so
    stdout: str = ""  # what it printed besides reports
    stderr: str = ""
    duration_ms: int = 0


class Build(msgspec.Struct, kw_only=True, frozen=True, tag_field="kind", tag="build"):
    """Executor → runner: install what a pack's manifest asks for, and upload the result."""

    tenant: str
    environment: str  # its ref
    attempt: int
    token: str  # one-time: the report must carry it
    runtime: Literal["python", "node"]
    manifest: str  # a file at the root of the pack
    pack: Pack
    upload: Upload
    timeout: float


class EnvironmentBuilt(msgspec.Struct, kw_only=True, frozen=True, tag_field="kind", tag="built"):
    """Runner → conductor. ``log`` holds the installer's last lines; ``content`` is the archive's SHA-256."""

    tenant: str
    environment: str
    attempt: int
    token: str
    ready: bool
    log: str = ""
    content: str = ""
    size: int = 0  # bytes of the archive
    runtime_version: str = ""  # what it was built with: "Python 3.12.4"
    duration_ms: int = 0
