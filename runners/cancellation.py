"""Hearing that the execution is to be cancelled: whoever waits for a run's end looks for a mark now and then."""

import math
import time
from typing import Final

from runners.presigned import is_there

FIRST_LOOK: Final = 2.0  # seconds after the beginning: what is shorter makes no call
BETWEEN_LOOKS: Final = 1.5
OUT_OF_REACH: Final = 10.0  # seconds until S3 is asked again when it does not answer


class Cancellation:
    """The mark of one run, from the moment this is made. Without ``url`` there is none, and nobody looks."""

    def __init__(self, url: str | None) -> None:
        self._url = url
        self.due = math.inf if url is None else time.monotonic() + FIRST_LOOK  # monotonic seconds of the next look

    def heard(self) -> bool:
        """Whether the run is to be stopped, if it is time to look. What keeps us from looking is no reason to stop."""
        if self._url is None or time.monotonic() < self.due:
            return False
        try:
            marked = is_there(self._url)
        except OSError:
            self.due = time.monotonic() + OUT_OF_REACH
            return False
        self.due = time.monotonic() + BETWEEN_LOOKS
        return marked

    def settle(self) -> None:
        """Look no more: the run is ending."""
        self._url, self.due = None, math.inf


def never() -> Cancellation:
    return Cancellation(None)
