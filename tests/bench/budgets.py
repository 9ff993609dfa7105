"""The counted budgets of design §9: the same numbers on every machine."""

import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Sequence
from io import BytesIO
from typing import Any

import msgspec
from helpers.client import AttuneClient

from bench import prices
from bench.pipeline import ROOT, Costs, Pipeline
from bench.workload import Workload

BATCH = 10
IDLE_SECONDS = 1.2  # longer than a process trusts its view of the registry: what comes next has to look again
STARTS = 5
RUNS = 5
MEGABYTE = 1_000_000

Json = Any

# What Lambda does before the first request: the module, and the client that every request needs.
_IMPORT = (
    "import time; began = time.process_time(); import app; from chalicelib import clients; clients.dynamodb();"
    " print(time.process_time() - began)"
)


class Budget(msgspec.Struct, kw_only=True):
    """One line of the table; ``measured`` must not exceed ``limit``."""

    path: str
    what: str
    measured: float
    limit: float

    @property
    def holds(self) -> bool:
        return self.measured <= self.limit


class Counted(msgspec.Struct, kw_only=True):
    """The budgets, and behind them each call of the first path: function → calls in order."""

    budgets: list[Budget]
    calls: dict[str, list[str]]


def measure(client: AttuneClient, workload: Workload, pipeline: Pipeline) -> Counted:
    """Runs each path warm, and counts."""
    key, matching, other = workload.python.key, {"n": 7, "go": True}, {"n": 7, "go": False}
    for payload in (matching, other, matching):
        pipeline.run(key, [payload])
    alone = _repeated(pipeline, key, [matching], idle=IDLE_SECONDS)
    ten = _repeated(pipeline, key, [matching] * BATCH, idle=0)
    # Once a second somebody looks at the registry's version, a call more: not the one that this is about.
    nothing = min((pipeline.run(key, [other]) for _ in range(RUNS)), key=lambda costs: len(costs.all_calls))
    budgets = [
        *_costs("webhook to completed python action, warm, alone", alone, 1, {"calls": 9, "write": 14, "read": 2}),
        *_costs(f"the same, per execution, in batches of {BATCH}", ten, BATCH, {"calls": 6}),
        *_costs("event that matches no rule, in a stream", nothing, 1, {"calls": 2, "writes": 1}),
        _price("a million executions, each alone", alone, 1),
        _price(f"a million executions, in batches of {BATCH}", ten, BATCH),
        _start(),
        _size(),
    ]
    calls = {
        name: [f"{call.service}.{call.operation}" for call in of_function] for name, of_function in alone.calls.items()
    }
    return Counted(budgets=budgets, calls=calls)


def _repeated(pipeline: Pipeline, key: str, payloads: Sequence[Json], *, idle: float) -> Costs:
    """The costs of one of some runs, with the least CPU that any of them took per function."""
    runs = []
    for _ in range(RUNS):
        time.sleep(idle)
        runs.append(pipeline.run(key, payloads))
    costs = runs[-1]
    costs.cpu_seconds = {name: min(run.cpu_seconds[name] for run in runs) for name in costs.cpu_seconds}
    return costs


def _costs(path: str, costs: Costs, executions: int, limits: dict[str, float]) -> list[Budget]:
    readings: dict[str, tuple[str, Callable[[Costs], float]]] = {
        "calls": ("AWS calls", lambda each: len(each.all_calls)),
        "write": ("write units with indexes", lambda each: each.write_units),
        "writes": ("writes", lambda each: each.writes),
        "read": ("read units", lambda each: each.read_units),
    }
    return [
        Budget(path=path, what=readings[name][0], measured=readings[name][1](costs) / executions, limit=limit)
        for name, limit in limits.items()
    ]


def _price(path: str, costs: Costs, executions: int) -> Budget:
    return Budget(path=path, what="list price in $", measured=prices.per_million(costs, executions), limit=15)


def _start() -> Budget:
    """The quickest of some fresh processes, in CPU time: the machine's other work only ever adds."""
    seconds = min(float(_python("-c", _IMPORT)) for _ in range(STARTS))
    return Budget(path="api function", what="import and first client in ms of CPU", measured=seconds * 1000, limit=350)


def _python(*arguments: str) -> str:
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout


def _size() -> Budget:
    from infra import package

    zipped: Any = package.control_zip(package.host_architecture())
    with zipfile.ZipFile(BytesIO(zipped.content)) as archive:
        unzipped = sum(entry.file_size for entry in archive.infolist())
    return Budget(path="api function", what="unzipped package in MB", measured=unzipped / MEGABYTE, limit=40)
