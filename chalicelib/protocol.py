"""The messages between the boxes, and the one schema that the two planes share (design §1).

Everything that crosses a queue or an invocation is one of these structs as JSON. The runner's zip holds this file
and nothing else of ``chalicelib``.
"""

from typing import Any, Literal

import msgspec

Json = Any


class EventAccepted(msgspec.Struct, kw_only=True, frozen=True):
    """API, timers, sensors → rules. ``id`` is the event's and holds the time it was accepted."""

    tenant: str
    id: int
    trigger_ref: str
    payload: Json = None
    payload_blob: str | None = None  # S3 key, when the payload is too big for a message
    config: Json = None
    source_ref: str | None = None
    source: int | None = None
    rule_ref: str | None = None  # set for timers: only this rule is considered
    registry: int = 0  # registry version the sender saw: the reader's cache must be at least as new


class ExecutionRequested(msgspec.Struct, kw_only=True, frozen=True):
    """Rules, API, conductor → executor."""

    tenant: str
    id: int
    action_ref: str
    timeout: int | None = None  # seconds; None: the default
    registry: int = 0


class Pack(msgspec.Struct, kw_only=True, frozen=True):
    """Where the runner finds the files of a pack: a tar.gz, cached by its SHA-256."""

    ref: str
    content: str
    url: str


class Run(msgspec.Struct, kw_only=True, frozen=True):
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


class RunFinished(msgspec.Struct, kw_only=True, frozen=True):
    """Runner → conductor. ``result`` has the shape of ``semantics.md`` §2.6."""

    tenant: str
    execution: int
    attempt: int
    token: str
    status: Literal["completed", "failed", "cancelled"]
    result: Json = None
    timed_out: bool = False
    duration_ms: int = 0
