"""The benchmarks' tables."""

from collections.abc import Sequence

from bench.budgets import Counted
from bench.starts import ColdPack, Start
from bench.throughput import Measurement


def budgets(counted: Counted) -> str:
    rows = [
        (each.path, each.what, f"{each.measured:.4g}", f"≤ {each.limit:g}", "ok" if each.holds else "OVER")
        for each in counted.budgets
    ]
    calls = "\n".join(f"  {name}: {', '.join(made)}" for name, made in counted.calls.items())
    return f"{table(('budget', 'counted', 'measured', 'limit', ''), rows)}\n\nCalls of the first path:\n{calls}"


def throughput(measurements: Sequence[Measurement]) -> str:
    head = ("action", "concurrency", "executions", "per second", "CPU ms each", "median ms", "p95 ms")
    rows = [
        (
            each.kind,
            str(each.concurrency),
            str(each.executions),
            f"{each.per_second:.1f}",
            "-" if each.cpu_ms is None else f"{each.cpu_ms:.1f}",
            f"{each.median_ms:.0f}",
            f"{each.p95_ms:.0f}",
        )
        for each in measurements
    ]
    return table(head, rows)


def starts(warm: Sequence[Start], cold: Sequence[ColdPack]) -> str:
    head = ("warm start", "starts", "inside ms", "p95", "whole ms", "p95", "CPU ms each")
    rows = [
        (
            each.kind,
            str(each.starts),
            f"{each.inside_median_ms:.1f}",
            f"{each.inside_p95_ms:.1f}",
            f"{each.whole_median_ms:.0f}",
            f"{each.whole_p95_ms:.0f}",
            "-" if each.cpu_ms is None else f"{each.cpu_ms:.1f}",
        )
        for each in warm
    ]
    packs = [
        (each.libraries, f"{each.packed_bytes:,}", f"{each.ready_s:.1f}", f"{each.first_run_ms:.0f}") for each in cold
    ]
    return f"{table(head, rows)}\n\n{table(('libraries, cold', 'bytes', 'ready after s', 'first run ms'), packs)}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    lines = [head, ["-" * width for width in widths], *rows]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
