"""The benchmarks' command line."""

import argparse
import os
import platform
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import psutil
from helpers.client import AttuneClient
from helpers.stack import Stack, running_stack

from bench import budgets, fairness, firing, report, starts, swarm, throughput, workflows
from bench.pipeline import open_pipeline
from bench.workload import Workload, create_workload

CONCURRENCIES = (1, 8, 32)
PARTS = ("budgets", "fairness", "starts", "swarm", "throughput", "timers", "workflows")


class Machine(msgspec.Struct, kw_only=True):
    """Where the timed part was measured."""

    processors: int | None = msgspec.field(default_factory=os.cpu_count)
    architecture: str = msgspec.field(default_factory=platform.machine)
    python: str = msgspec.field(default_factory=platform.python_version)
    memory_gb: float = msgspec.field(default_factory=lambda: round(psutil.virtual_memory().total / 2**30, 1))


class Results(msgspec.Struct, kw_only=True):
    """What ``--output`` holds."""

    machine: Machine
    counted: budgets.Counted | None = None
    timed: list[throughput.Measurement] = []
    warm: list[starts.Start] = []
    cold: list[starts.ColdPack] = []
    timers: list[firing.Firing] = []
    swarmed: swarm.Swarm | None = None
    conducted: list[workflows.Timed] = []
    fair: fairness.Fairness | None = None


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0 when every budget holds, else 1."""
    options = _parser().parse_args(arguments)
    results = Results(machine=Machine())
    print(
        "starting the platform" if not os.environ.get("ATTUNE_API_URL") else "using the platform that runs", flush=True
    )
    with running_stack() as stack, stack.sign_in() as client:
        workload = create_workload(client)
        if options.only in (None, "budgets"):
            results.counted = _count(stack, client, workload)
            print(f"\n{report.budgets(results.counted)}\n", flush=True)
        if options.only in (None, "starts"):
            results.warm, results.cold = starts.measure(client, stack)
            print(f"\n{report.starts(results.warm, results.cold)}\n", flush=True)
        if options.only in (None, "timers"):
            results.timers = firing.measure(client, workload.pack)
            print(f"\n{firing.table(results.timers)}\n", flush=True)
        if options.only == "swarm":  # ten minutes, which nobody wants to wait for every time
            results.swarmed = swarm.measure(stack, client, workload.pack)
            print(f"\n{swarm.table(results.swarmed)}\n", flush=True)
        if options.only in (None, "throughput"):
            results.timed = _time(stack, client, workload, options.posts)
            print(f"\n{report.throughput(results.timed)}\n", flush=True)
        if options.only in (None, "workflows"):
            results.conducted = workflows.measure(client, workload.pack)
            print(f"\n{workflows.report(results.conducted)}\n", flush=True)
        if options.only == "fairness":  # minutes, too
            results.fair = fairness.measure(stack, options.posts)
            print(f"\n{fairness.table(results.fair)}\n", flush=True)
        client.delete_pack(workload.pack)
    options.output.write_bytes(msgspec.json.format(msgspec.json.encode(results)) + b"\n")
    print(f"written to {options.output}")
    counted = results.counted is None or all(each.holds for each in results.counted.budgets)
    return 0 if counted and (results.fair is None or results.fair.holds) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Attune's benchmarks.")
    parser.add_argument("--only", choices=PARTS, help="one of the parts; swarm and fairness are in no other run")
    parser.add_argument("--output", type=Path, default=Path("bench.json"), help="where the JSON goes")
    parser.add_argument("--posts", type=int, help="posts per measurement, instead of the usual number")
    return parser


def _count(stack: Stack, client: AttuneClient, workload: Workload) -> budgets.Counted:
    with tempfile.TemporaryFile("w+") as log:
        try:
            with open_pipeline(stack, log) as pipeline:
                counted = budgets.measure(client, workload, pipeline)
                counted.budgets += workflows.count(client, workload.pack, pipeline)
                return counted
        except RuntimeError as error:
            raise SystemExit(f"{error}; the functions said:\n{_end_of(log)}") from error


def _end_of(log: Any) -> str:
    log.seek(0)
    return str(log.read()[-4000:])


def _time(stack: Stack, client: AttuneClient, workload: Workload, posts: int | None) -> list[throughput.Measurement]:
    measurements = []
    for line in workload.lines:
        throughput.measure(client, line, 8, None, 40)  # warm
        for concurrency in CONCURRENCIES:
            count = posts or throughput.POSTS[concurrency]
            measurements.append(throughput.measure(client, line, concurrency, stack.pid, count))
            print(f"  {line.kind}, {concurrency} at a time: {measurements[-1].per_second:.1f}/s", flush=True)
    return measurements
