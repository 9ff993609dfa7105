"""Webhook to completed execution on this machine, the emulator's work included: how many a second, at what CPU.

``concurrency`` clients post back to back; the clock runs from the first post to the last completion. CPU is that of
every process of the stack, those that have ended too, over the same time.
"""

import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import msgspec
import psutil
from helpers.client import AttuneClient
from helpers.polling import wait_for

from bench.workload import Line

POSTS = {1: 50, 8: 200, 32: 400}  # by concurrency
TIMEOUT = 300


class Measurement(msgspec.Struct, kw_only=True):
    """Rates are executions a second, CPU and latencies (post accepted → completed) milliseconds.

    ``cpu_ms`` is null when the stack's processes are not ours to look at.
    """

    kind: str
    concurrency: int
    executions: int
    per_second: float
    cpu_ms: float | None
    median_ms: float
    p95_ms: float


def measure(client: AttuneClient, line: Line, concurrency: int, stack_pid: int | None, posts: int) -> Measurement:
    done_before = client.count_executions(rule_ref=line.rule_ref)
    cpu_before = cpu_seconds(stack_pid)
    began, began_clock = time.time(), time.monotonic()
    with ThreadPoolExecutor(concurrency) as pool:
        payloads = [{"n": n, "go": True} for n in range(posts)]
        accepted = list(pool.map(lambda payload: client.post_webhook(line.key, payload), payloads))
    wait_for(
        lambda: client.count_executions(rule_ref=line.rule_ref, status="completed") >= done_before + posts,
        timeout=TIMEOUT,
        what=f"{posts} executions of {line.kind}",
    )
    cpu_after, ended_clock = cpu_seconds(stack_pid), time.monotonic()
    latencies, last = _latencies(client, line, {each["event_id"]: each["received_at"] for each in accepted})
    # The store knows when the last one ended, the poll only that it had.
    seconds = min(last - began, ended_clock - began_clock)
    cpu = None if cpu_before is None or cpu_after is None else (cpu_after - cpu_before) / posts * 1000
    return Measurement(
        kind=line.kind,
        concurrency=concurrency,
        executions=posts,
        per_second=posts / seconds,
        cpu_ms=cpu,
        median_ms=statistics.median(latencies) * 1000,
        p95_ms=statistics.quantiles(latencies, n=20)[-1] * 1000,
    )


def cpu_seconds(pid: int | None) -> float | None:
    """CPU used so far by ``pid`` and all it started, also by what has ended and was waited for."""
    if pid is None:
        return None
    root = psutil.Process(pid)
    total = 0.0
    for process in (root, *root.children(recursive=True)):
        try:
            used = process.cpu_times()
        except psutil.Error:
            continue  # ended just now; its parent has it
        total += used.user + used.system
        total += getattr(used, "children_user", 0.0) + getattr(used, "children_system", 0.0)
    return total


def _latencies(client: AttuneClient, line: Line, received: dict[int, str]) -> tuple[list[float], float]:
    """Seconds of each execution, and the Unix time of the last completion."""
    events = {row["id"]: row["event"] for row in client.list_enforcements(rule_ref=line.rule_ref)}
    latencies, last = [], 0.0
    for row in client.list_executions(rule_ref=line.rule_ref):
        event = events[row["enforcement"]]
        if event in received:
            completed = _seconds(row["updated"])
            latencies.append(completed - _seconds(received[event]))
            last = max(last, completed)
    return latencies, last


def _seconds(timestamp: str) -> float:
    return datetime.fromisoformat(timestamp).timestamp()
