"""A workflow as the conductor runs it: one plain graph of tasks, whatever way it was written down.

``parsing`` makes it of what users write (``workflow-language.md`` §2-3, README 9, and the blocks that mean the same);
nothing here is a template that has been looked into, nothing is optional that has a default.
"""

from typing import Final, Literal

import msgspec

from chalicelib.domain.entities import Json

Backoff = Literal["constant", "linear", "exponential"]
CancellationPolicy = Literal["allow_finish", "cancel_running"]

MAX_ITERATIONS: Final = 100  # runs of one task in a loop, unless the definition says otherwise


class Transition(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """What follows a task: if ``when`` holds, the variables of ``publish`` are set and the tasks of ``do`` begin."""

    when: str | None = None
    publish: list[tuple[str, Json]] = []  # in order; a later one may read an earlier one
    do: list[str] = []


class Retry(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """``count`` further attempts after the first, ``delay`` seconds apart, grown by ``backoff`` up to ``max_delay``.

    ``jitter`` takes up to that fraction off each delay; with ``on_error`` only a failure for which it holds is retried.
    """

    count: int
    delay: float = 0
    backoff: Backoff = "constant"
    max_delay: float | None = None
    jitter: float = 0
    on_error: str | None = None


class Task(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """``action`` None: nothing is run, the task completes at once; branches and blocks need such places to meet.

    ``join``: how many of the tasks that lead here must be through before it begins, or all of them. ``gathers``: the
    join was made from a list of dependencies, so a dependency that does not come leaves the task out and is no error.
    """

    name: str
    action: str | None = None
    input: Json = {}
    next: list[Transition] = []
    join: int | Literal["all"] | None = None
    gathers: bool = False
    with_items: Json = None  # a template, or a literal list
    concurrency: int = 1  # items at a time
    batch_size: int | None = None  # items per execution
    retry: Retry | None = None
    timeout: int | None = None  # seconds
    delay: float | str | None = None  # seconds, or a template that gives them
    when: str | None = None
    max_iterations: int | None = None  # None: the definition's
    permission_set_refs: Json = None  # None: the action's own
    worker_selector: Json = None
    worker_tolerations: Json = None
    worker_affinity: Json = None


class Definition(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """A whole workflow; ``tasks`` in the order in which they are written."""

    tasks: list[Task]
    vars: dict[str, Json] = {}
    output_map: dict[str, Json] | None = None
    cancellation_policy: CancellationPolicy = "allow_finish"
    timeout: int | None = None  # seconds of the whole run
    max_iterations: int = MAX_ITERATIONS
