"""For how long the whole output of an execution is kept (semantics §2.6: from the action, by default seven days).

S3 forgets by rules of the bucket about tags, which are made at deployment and count days. So a retention is one of a
few classes, and an action gets the shortest one that is not less than it asks for.
"""

from typing import Final

from chalicelib.domain.entities import RetentionPolicy

LOG_DAYS: Final = 7
LOG_CLASSES: Final = (1, 3, LOG_DAYS, 14, 30, 90, 180, 365)  # days
_PER_DAY: Final[dict[RetentionPolicy, int]] = {"days": 1, "hours": 24, "minutes": 24 * 60}


def log_days(policy: RetentionPolicy | None, limit: int | None) -> int:
    """The class for an action's ``log_retention_policy`` and ``log_retention_limit``.

    ``versions`` has no class of its own: each execution's log stands for itself, and the default holds.
    """
    if policy is None or limit is None or policy not in _PER_DAY:
        return LOG_DAYS
    wanted = -(-limit // _PER_DAY[policy])
    return next((days for days in LOG_CLASSES if days >= wanted), LOG_CLASSES[-1])


def log_kind(days: int) -> str:
    """The tag of logs in the class of ``days``."""
    return "log" if days == LOG_DAYS else f"log-{days}"
