"""Waiting on conditions, with deadlines. Nothing here sleeps for a fixed time and hopes.

``succeeded``, the guide's word, is accepted for ``completed``, the wire's (contract README 12).
"""

import time
from collections.abc import Callable
from typing import Any, Literal, TypeVar

from helpers.client import AttuneClient, Json

TERMINAL = frozenset({"completed", "failed", "timeout", "cancelled", "abandoned"})
FIRST_PAUSE = 0.02
LONGEST_PAUSE = 0.25
T = TypeVar("T")
Match = Literal["exactly", "at least"]


def wait_for(look: Callable[[], T], *, timeout: float, what: str) -> T:
    """The first truthy answer of ``look``; asks less and less often; fails after ``timeout`` seconds, saying ``what``
    was awaited and what was seen last."""
    deadline = time.monotonic() + timeout
    pause = FIRST_PAUSE
    while True:
        seen = look()
        if seen:
            return seen
        if time.monotonic() >= deadline:
            raise AssertionError(f"waited {timeout} s for {what}; last seen: {seen!r}")
        time.sleep(pause)
        pause = min(pause * 1.5, LONGEST_PAUSE)


def wait_for_execution_status(
    client: AttuneClient, execution_id: int, expected_status: str, timeout: float = 20
) -> dict[str, Json]:
    """The execution once it has the status; fails at once when it ends in another."""
    expected = on_the_wire(expected_status)

    def look() -> dict[str, Json] | None:
        execution = client.get_execution(execution_id)
        if execution["status"] == expected:
            return execution
        if execution["status"] in TERMINAL:
            raise AssertionError(
                f"execution {execution_id} is {execution['status']}, not {expected}: {execution['result']}"
            )
        return None

    found = wait_for(look, timeout=timeout, what=f"execution {execution_id} to be {expected}")
    assert found is not None
    return found


def wait_for_execution_completion(client: AttuneClient, execution_id: int, timeout: float = 20) -> dict[str, Json]:
    """The execution once it has ended, however it ended."""

    def look() -> dict[str, Json] | None:
        execution = client.get_execution(execution_id)
        return execution if execution["status"] in TERMINAL else None

    found = wait_for(look, timeout=timeout, what=f"execution {execution_id} to end")
    assert found is not None
    return found


def wait_for_execution_count(
    client: AttuneClient,
    expected_count: int,
    *,
    status: str | None = "succeeded",
    match: Match = "exactly",
    timeout: float = 30,
    **filters: Any,
) -> list[dict[str, Json]]:
    """The executions that match ``filters`` (those of ``GET /executions``) once there are so many.

    More than ``exactly`` that many fail at once: too many never becomes right.
    """
    if status is not None:
        filters["status"] = on_the_wire(status)
    return _wait_for_count(client.list_executions, "executions", expected_count, match, timeout, filters)


def wait_for_event_count(
    client: AttuneClient, expected_count: int, *, match: Match = "exactly", timeout: float = 20, **filters: Any
) -> list[dict[str, Json]]:
    """The events that match ``filters`` (those of ``GET /events``) once there are so many."""
    return _wait_for_count(client.list_events, "events", expected_count, match, timeout, filters)


def wait_for_enforcement_count(
    client: AttuneClient, expected_count: int, *, match: Match = "exactly", timeout: float = 20, **filters: Any
) -> list[dict[str, Json]]:
    """The enforcements that match ``filters`` (those of ``GET /enforcements``) once there are so many."""
    return _wait_for_count(client.list_enforcements, "enforcements", expected_count, match, timeout, filters)


def on_the_wire(status: str) -> str:
    """The contract's name of a status."""
    return "completed" if status == "succeeded" else status


def _wait_for_count(
    listed: Callable[..., list[dict[str, Json]]],
    things: str,
    expected: int,
    match: Match,
    timeout: float,
    filters: dict[str, Any],
) -> list[dict[str, Json]]:
    rows: list[dict[str, Json]] = []

    def look() -> bool:
        nonlocal rows
        rows = listed(**filters)
        if match == "exactly" and len(rows) > expected:
            raise AssertionError(f"{len(rows)} {things} with {filters}, expected {expected}: {rows}")
        return len(rows) >= expected

    try:
        wait_for(look, timeout=timeout, what=f"{expected} {things} with {filters}")
    except AssertionError as error:
        raise AssertionError(f"{error}; there are {len(rows)}: {rows}") from None
    return rows
