"""One tenant asks for very much at once, another goes on as always: how long does the other wait?"""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from helpers.client import AttuneClient
from helpers.polling import wait_for_execution_completion

ACTION = "core.echo"
AT_ONCE = 32  # requests in flight of whoever floods
TIMEOUT = 120.0
TESTS = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Latencies:
    """Seconds from before an execution is asked for until it has ended, for each of them."""

    seconds: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def worst(self) -> float:
        return max(self.seconds)


def steadily(client: AttuneClient, *, every: float, go_on: Callable[[int], bool]) -> Latencies:
    """Ask for one execution ``every`` so many seconds, whether those before have ended or not, for as long as
    ``go_on(number so far)``."""
    asked: list[tuple[float, int]] = []
    began = time.monotonic()
    while go_on(len(asked)):
        time.sleep(max(0.0, began + len(asked) * every - time.monotonic()))
        moment = time.time()
        asked.append((moment, client.execute(ACTION, {"message": "steady"})["id"]))
    ended = [(moment, wait_for_execution_completion(client, id_, timeout=TIMEOUT)) for moment, id_ in asked]
    return Latencies([datetime.fromisoformat(row["updated"]).timestamp() - moment for moment, row in ended])


@contextmanager
def flood(client: AttuneClient, count: int) -> Iterator[subprocess.Popen[bytes]]:
    """``client``'s tenant asks for ``count`` executions as fast as it can, from a process of its own."""
    arguments = [sys.executable, "-m", "helpers.flood", client.base_url, str(count)]
    process = subprocess.Popen(arguments, cwd=TESTS, stdin=subprocess.PIPE)
    try:
        assert process.stdin is not None
        process.stdin.write((client.token or "").encode())  # no secret in an argument
        process.stdin.close()
        yield process
    finally:
        process.kill()
        process.wait()


def ask(url: str, token: str, count: int) -> None:
    """What the process does."""
    with AttuneClient(url, token=token, timeout=120) as client, ThreadPoolExecutor(AT_ONCE) as pool:
        for _ in pool.map(lambda number: client.execute(ACTION, {"message": str(number)}), range(count)):
            pass


if __name__ == "__main__":
    ask(sys.argv[1], sys.stdin.read(), int(sys.argv[2]))
