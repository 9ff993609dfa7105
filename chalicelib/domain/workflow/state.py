"""How far a workflow run has come: all that the conductor knows between two of its steps.

The state is small and does not grow with the work done: results stay with the executions that made them, the items of a
``with_items`` are counted, not listed.
"""

from datetime import datetime
from typing import Literal

import msgspec

from chalicelib.domain.entities import ExecutionStatus, Json

TaskStatus = Literal["pending", "running", "completed", "failed", "skipped", "cancelled"]


class Child(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """An execution that was started for a task and has not ended. ``index``: its item or batch. ``attempt``: how many
    came before it for the same item."""

    index: int | None = None
    attempt: int = 0
    not_before: datetime | None = None
    first: int | None = None  # the execution of attempt 0


class Items(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A ``with_items`` under way. ``values`` is the list itself, or ``stored`` names it; of its ``total`` parts those
    from ``next`` on wait to be started."""

    total: int
    next: int = 0
    ended: int = 0
    failed: str = ""  # those that failed, as a number in hexadecimal with one bit for each
    values: list[Json] | None = None
    stored: str | None = None
    only: list[int] | None = None  # after a rerun: the parts that are run again

    @property
    def failures(self) -> list[int]:
        """The indexes of the parts that failed."""
        bits = int(self.failed or "0", 16)
        return [index for index in range(bits.bit_length()) if bits >> index & 1]

    def add_failure(self, index: int) -> None:
        self.failed = f"{int(self.failed or '0', 16) | 1 << index:x}"


class TaskState(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A task that has been reached. ``pending``: called, or about to be; it waits for its join, or for room.

    ``iteration`` is that of the loops it is in, ``runs`` counts its runs. What has arrived for its next run stands in
    ``came`` and ``called``: tasks that are through, and the one whose transition led here last.
    """

    status: TaskStatus = "pending"
    iteration: int = -1
    runs: int = 0
    children: dict[int, Child] = {}
    items: Items | None = None
    ended: ExecutionStatus | None = None  # as its last run ended
    timed_out: bool = False
    result: int | None = None  # the execution whose result is the task's
    error: str | None = None  # why it failed without one
    triggered_by: str | None = None
    came: list[str] = []
    called: str | None = None
    arriving: int = -1  # the iteration that the next run will be of


class State(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A run. ``ready`` are tasks that may begin and have not: there was no room yet, or the run is paused."""

    variables: dict[str, Json] = {}
    tasks: dict[str, TaskState] = {}
    ready: list[str] = []
    last: str | None = None  # the task that ended last
    paused: bool = False
    canceling: bool = False
    over: bool = False

    def named(self, *statuses: TaskStatus) -> list[str]:
        """The tasks that are in one of ``statuses``, in the order in which they were reached."""
        return [name for name, task in self.tasks.items() if task.status in statuses]


class Again(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """What a run takes up: of the run of ``execution``, the ``tasks`` that are to run again. ``reset``: with all their
    items, not only with those that failed."""

    execution: int
    tasks: list[str]
    reset: bool = False


class Origin(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """What a run was started with, and hands on to its executions; never changes."""

    execution: int
    action_ref: str
    pack_ref: str
    definition: str  # name of the stored copy
    started_at: datetime
    workflow_def: int | None = None
    parameters: Json = {}
    secrets: Json = None  # as of an execution
    executor: int | None = None
    enforcement: int | None = None
    rule_ref: str | None = None
    trigger_ref: str | None = None
    env_vars: dict[str, str] | None = None
    root: int | None = None
    again: Again | None = None
    timeout: int | None = None  # seconds
    deadline: datetime | None = None
