"""What workflows cost and how fast they go: long, wide, deep, and with many items (issue 5)."""

import time
from collections.abc import Sequence

import msgspec
from helpers.client import AttuneClient, Json
from helpers.fixtures import create_webhook_trigger, unique_ref
from helpers.polling import wait_for_execution_status

from bench.budgets import Budget
from bench.pipeline import Pipeline
from bench.report import table

ITEMS = 1000
AT_A_TIME = 50
CHAIN = 100
LEVELS = 10
BRANCHES = 50
TIMEOUT = 600  # seconds
COMPARED = 20  # batches at the beginning and at the end that are held against each other
OWN = 1  # call of a task's execution itself that is not the workflow's: its end


class Timed(msgspec.Struct, kw_only=True):
    """One run over HTTP, from the request to the end as it was recorded."""

    shape: str
    tasks: int
    seconds: float

    @property
    def per_second(self) -> float:
        return self.tasks / self.seconds


def create(client: AttuneClient, pack: str) -> dict[str, tuple[str, int]]:
    """The workflows that are measured: by shape, the ref and how many tasks it runs."""
    noop = {"action": "core.noop"}
    branches = [f"b{number}" for number in range(BRANCHES)]
    chain: list[Json] = [{"name": f"t{n}", **noop, "next": [{"do": [f"t{n + 1}"]}]} for n in range(CHAIN - 1)]
    fan: list[Json] = [{"name": name, **noop, "next": [{"do": ["meet"]}]} for name in branches]
    items = {"name": "each", **noop, "with_items": f"{{{{ range({ITEMS}) }}}}", "concurrency": AT_A_TIME}
    shapes: dict[str, tuple[list[Json], int]] = {
        f"{CHAIN} tasks in a row": ([*chain, {"name": f"t{CHAIN - 1}", **noop}], CHAIN),
        f"{BRANCHES} branches joined": (
            [{"name": "start", **noop, "next": [{"do": branches}]}, *fan, {"name": "meet", "join": "all", **noop}],
            BRANCHES + 2,
        ),
        f"{ITEMS} items, {AT_A_TIME} at a time": ([items], ITEMS),
    }
    made: dict[str, tuple[str, int]] = {}
    for shape, (tasks, count) in shapes.items():
        made[shape] = (client.create_workflow(unique_ref(f"{pack}.flow"), tasks)["ref"], count)
    inner = client.create_workflow(unique_ref(f"{pack}.level"), [{"name": "leaf", **noop}])["ref"]
    for _ in range(LEVELS - 1):
        inner = client.create_workflow(unique_ref(f"{pack}.level"), [{"name": "inner", "action": inner}])["ref"]
    made[f"{LEVELS} levels deep"] = (inner, LEVELS)
    return made


def count(client: AttuneClient, pack: str, pipeline: Pipeline) -> list[Budget]:
    """The calls of a task on top of its execution, and what the last items cost compared with the first."""
    made = create(client, pack)
    chain, items = (
        pipeline.conduct(_webhook(client, pack, made[shape][0]), {})
        for shape in (f"{CHAIN} tasks in a row", f"{ITEMS} items, {AT_A_TIME} at a time")
    )
    # The first batch begins the run, the last ends it; a task in between takes one.
    calls = sum(len(each.all_calls) for each in chain[1:-1]) / (CHAIN - 1) - OWN
    first, last = items[1 : 1 + COMPARED], items[-1 - COMPARED : -1]
    budgets = [Budget(path="a workflow's task, on top of its execution", what="AWS calls", measured=calls, limit=4)]
    path = f"the last of {ITEMS} items, compared with the first"
    units = _mean([each.write_units for each in last]) / _mean([each.write_units for each in first])
    ratio = _mean([len(each.all_calls) for each in last]) / _mean([len(each.all_calls) for each in first])
    budgets.append(Budget(path=path, what="AWS calls, times", measured=ratio, limit=1.5))
    budgets.append(Budget(path=path, what="write units, times", measured=units, limit=1.5))
    return budgets


def measure(client: AttuneClient, pack: str) -> list[Timed]:
    """Each shape once, after a warm-up."""
    measured: list[Timed] = []
    for shape, (ref, tasks) in create(client, pack).items():
        for warm in (True, False):
            if warm and tasks > CHAIN:
                continue
            run = client.execute(ref)["id"]
            began = time.monotonic()
            wait_for_execution_status(client, run, "completed", TIMEOUT)
            seconds = time.monotonic() - began
        measured.append(Timed(shape=shape, tasks=tasks, seconds=seconds))
        print(f"  {shape}: {measured[-1].per_second:.1f} tasks/s", flush=True)
    return measured


def report(measured: Sequence[Timed]) -> str:
    rows = [(each.shape, str(each.tasks), f"{each.seconds:.2f}", f"{each.per_second:.1f}") for each in measured]
    return table(("workflow", "tasks", "seconds", "tasks per second"), rows)


def _webhook(client: AttuneClient, pack: str, action: str) -> str:
    """The key of a webhook whose rule starts ``action``."""
    hook = create_webhook_trigger(client, pack, unique_ref("hook"))
    client.create_rule(unique_ref(f"{pack}.rule"), pack, trigger_ref=hook.ref, action_ref=action)
    return hook.key


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
