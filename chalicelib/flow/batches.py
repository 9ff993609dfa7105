"""One way to work through an SQS batch: all together, and one by one where that fails."""

from collections.abc import Callable, Iterable, Sequence

from chalicelib.log import logger


def each_or_all(positions: Sequence[int], work: Callable[[Sequence[int]], None]) -> list[int]:
    """Call ``work`` on all positions at once; if it raises, once per position. Returns those that failed alone.

    Together is cheap, alone keeps one bad message from holding up its neighbours. Work must be idempotent, as
    everything behind a queue is.
    """
    try:
        work(positions)
    except Exception:
        return one_by_one(positions, lambda position: work([position]))
    return []


def one_by_one(positions: Iterable[int], work: Callable[[int], None]) -> list[int]:
    """Call ``work`` once per position. Returns those that raised."""
    failed = []
    for position in positions:
        try:
            work(position)
        except Exception:
            logger.exception("message failed and will be delivered again")
            failed.append(position)
    return failed


def partial_response(message_ids: Sequence[str], failed: Iterable[int]) -> dict[str, list[dict[str, str]]]:
    """Lambda's partial batch response (``ReportBatchItemFailures``): only these messages come again."""
    return {"batchItemFailures": [{"itemIdentifier": message_ids[position]} for position in failed]}
