"""From what an action asks for to a class of the bucket's."""

import pytest

from chalicelib.domain.entities import RetentionPolicy
from chalicelib.domain.retention import LOG_CLASSES, LOG_DAYS, log_days


@pytest.mark.parametrize(
    ("policy", "limit", "days"),
    [
        (None, None, LOG_DAYS),
        ("days", None, LOG_DAYS),
        (None, 3, LOG_DAYS),
        ("versions", 3, LOG_DAYS),
        ("minutes", 1, 1),
        ("hours", 24, 1),
        ("hours", 25, 3),
        ("days", 7, 7),
        ("days", 8, 14),
        ("days", 31, 90),
        ("days", 100_000, 365),
    ],
)
def test_nothing_is_forgotten_sooner_than_asked(policy: RetentionPolicy | None, limit: int | None, days: int) -> None:
    assert log_days(policy, limit) == days
    assert days in LOG_CLASSES
