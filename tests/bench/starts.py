"""How long one start takes: warm, of every kind of action, one after the other; and a pack with libraries, cold.

*Inside* is what the runner says of the run (``duration_ms``: the process, or the HTTP exchange); *whole* is from the
request to the first look that finds it completed. CPU is that of the whole stack, as in :mod:`bench.throughput`, but
without the looks, which take as much: they are counted, and what one costs is measured apart.
"""

import random
import statistics
import time
from collections.abc import Callable

import msgspec
from helpers.client import AttuneClient, Json
from helpers.fixtures import unique_ref
from helpers.packs import Files, pack_of_actions, python_wants, wait_for_environment
from helpers.polling import TERMINAL, wait_for
from helpers.stack import Stack
from helpers.wheels import wheel, wheel_name

from bench.throughput import cpu_seconds

STARTS = 60
LOOKS = 100  # to know what one costs
MODULES = 1000  # of the large library, of some 8 KB each
ACTION = "import colorlib\nprint(colorlib.VERSION)\n"


class Start(msgspec.Struct, kw_only=True):
    """Warm starts of one kind of action, in milliseconds. ``cpu_ms`` is null when the stack's processes are not ours to
    look at."""

    kind: str
    starts: int
    inside_median_ms: float
    inside_p95_ms: float
    whole_median_ms: float
    whole_p95_ms: float
    cpu_ms: float | None


class ColdPack(msgspec.Struct, kw_only=True):
    """A pack with libraries: seconds from the upload until they are installed, and milliseconds of its first run."""

    libraries: str
    packed_bytes: int
    ready_s: float
    first_run_ms: float


def measure(client: AttuneClient, stack: Stack) -> tuple[list[Start], list[ColdPack]]:
    plain, small, large = (unique_ref("bench") for _ in range(3))
    actions = {"python": ("python", "print(1)\n"), "shell": ("shell", "echo 1\n")}
    client.upload_pack(pack_of_actions(plain, "1.0.0", actions))
    cold = [_cold(client, small, "one module", python_wants("colorlib", f"1.{random.randrange(10**9)}"))]
    cold.append(_cold(client, large, f"{MODULES} modules", _large()))
    started = {
        "python": lambda: client.execute(f"{plain}.python"),
        "python with libraries": lambda: client.execute(f"{small}.show"),
        "shell": lambda: client.execute(f"{plain}.shell"),
        "http": lambda: client.execute("core.http_request", {"url": f"{stack.url}/health"}),
    }
    warm = [_warm(client, kind, start, stack.pid) for kind, start in started.items()]
    for ref in (plain, small, large):
        client.delete_pack(ref)
    return warm, cold


def _warm(client: AttuneClient, kind: str, start: Callable[[], dict[str, Json]], pid: int | None) -> Start:
    _run(client, start)
    inside: list[float] = []
    whole: list[float] = []
    before, looks = cpu_seconds(pid), 0
    for _ in range(STARTS):
        run = _run(client, start)
        whole.append(run.took_ms)
        result = run.ended["result"]
        inside.append(result["elapsed_ms"] if "elapsed_ms" in result else result["duration_ms"])
        looks += run.looks
    after = cpu_seconds(pid)
    for _ in range(LOOKS):
        client.get_execution(run.ended["id"])
    rest = cpu_seconds(pid)
    cpu = None
    if before is not None and after is not None and rest is not None:
        cpu = (after - before - looks * (rest - after) / LOOKS) / STARTS * 1000
    return Start(
        kind=kind,
        starts=STARTS,
        inside_median_ms=statistics.median(inside),
        inside_p95_ms=statistics.quantiles(inside, n=20)[-1],
        whole_median_ms=statistics.median(whole),
        whole_p95_ms=statistics.quantiles(whole, n=20)[-1],
        cpu_ms=cpu,
    )


def _cold(client: AttuneClient, ref: str, libraries: str, files: Files) -> ColdPack:
    began = time.monotonic()
    client.upload_pack(pack_of_actions(ref, "1.0.0", {"show": ("python", ACTION)}, files))
    environment = wait_for_environment(client, ref, "ready")
    ready = time.monotonic() - began
    first = _run(client, lambda: client.execute(f"{ref}.show"))
    return ColdPack(libraries=libraries, packed_bytes=environment["size"], ready_s=ready, first_run_ms=first.took_ms)


class _Ran(msgspec.Struct):
    ended: dict[str, Json]
    took_ms: float
    looks: int


def _run(client: AttuneClient, start: Callable[[], dict[str, Json]]) -> _Ran:
    looks = 0

    def look() -> dict[str, Json] | None:
        nonlocal looks
        looks += 1
        execution = client.get_execution(started["id"])
        return execution if execution["status"] in TERMINAL else None

    began = time.perf_counter()
    started = start()
    ended = wait_for(look, timeout=60, what="the execution to end")
    took = (time.perf_counter() - began) * 1000
    if ended is None or ended["status"] != "completed":
        raise AssertionError(f"an execution of the benchmark ended as {ended}")
    return _Ran(ended, took, looks)


def _large() -> Files:
    """A manifest that asks for a library of many modules which do not compress well."""
    seed = random.Random(time.time_ns())  # another environment each time
    modules = {f"colorlib/m{number}.py": f"DATA = '{seed.randbytes(4000).hex()}'\n" for number in range(MODULES)}
    modules["colorlib/__init__.py"] = "VERSION = '1.0'\n"
    return {
        "requirements.txt": "--no-index\n--find-links ./wheels\ncolorlib==1.0\n",
        f"wheels/{wheel_name('colorlib', '1.0')}": wheel("colorlib", "1.0", modules),
    }
