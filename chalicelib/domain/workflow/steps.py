"""What goes into a step of the conductor and what comes out of it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

import msgspec

from chalicelib.domain.entities import Action, Execution, ExecutionStatus, Json
from chalicelib.domain.workflow.state import Origin, State


class Ended(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True, tag="ended"):
    """The execution ``child`` is over."""

    child: int
    status: ExecutionStatus
    timed_out: bool = False


class Paused(msgspec.Struct, kw_only=True, frozen=True, tag="paused"):
    """Nothing new is to be started until further notice."""


class Resumed(msgspec.Struct, kw_only=True, frozen=True, tag="resumed"):
    """What was held back may start."""


class Cancelled(msgspec.Struct, kw_only=True, frozen=True, tag="cancelled"):
    """Somebody wants the run to end."""


class Expired(msgspec.Struct, kw_only=True, frozen=True, tag="expired"):
    """The run has taken as long as it may."""


Event = Ended | Paused | Resumed | Cancelled | Expired


@dataclass(frozen=True, slots=True)
class World:
    """What a step can ask for.

    ``result`` gives the result view of an execution, ``action`` what a ref names, ``may_hand_out`` whether the run's
    executor holds permission sets that a template names, ``keep`` puts a long list of items away and ``kept`` gets it
    back.
    """

    now: datetime
    origin: Origin
    config: Json
    new_id: Callable[[], int]
    action: Callable[[str], Action | None]
    result: Callable[[int], Json]
    read_key: Callable[[str], Json]
    may_hand_out: Callable[[list[str]], bool]
    keep: Callable[[list[Json]], str]
    kept: Callable[[str], list[Json]]


class Note(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """One line of the run's history: what happened to which task, and because of what."""

    what: str
    task: str | None = None
    index: int | None = None
    execution: int | None = None
    cause: str | None = None
    detail: Json = None


@dataclass(frozen=True, slots=True)
class Start:
    """An execution to be stored and requested, ``not_before`` a moment."""

    execution: Execution
    not_before: datetime | None = None


@dataclass(frozen=True, slots=True)
class Stop:
    """Executions to be cancelled. Without ``running`` only those that have not begun, and nested workflows, which know
    themselves what that means for theirs."""

    executions: list[int]
    running: bool


@dataclass(frozen=True, slots=True)
class End:
    """The run is over."""

    status: ExecutionStatus
    result: Json
    timed_out: bool = False


@dataclass(slots=True)
class Step:
    """The outcome of :func:`advance`. ``more``: there was no room to start all that may start; advance again."""

    state: State
    starts: list[Start] = field(default_factory=list)
    stop: Stop | None = None
    end: End | None = None
    notes: list[Note] = field(default_factory=list)
    changed: bool = False
    more: bool = False
