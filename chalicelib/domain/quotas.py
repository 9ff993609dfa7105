"""How much of a deployment one tenant may take (docs/decisions/021-quotas.md)."""

from collections.abc import Mapping
from typing import Final

import msgspec


class Quotas(msgspec.Struct, kw_only=True, frozen=True):
    """``executions_per_minute`` counts what is asked for at the door (executions, events, webhooks' deliveries) and,
    apart from that, what is started. ``storage`` is bytes in S3: packs, files, logs, values too big for a row."""

    executions_per_minute: int = 12_000
    running_at_once: int = 100
    waiting: int = 50_000  # executions that may wait for their turn before no more are taken in
    keys: int = 10_000
    packs: int = 1_000
    rules: int = 20_000
    storage: int = 10 * 2**30


NAMES: Final = tuple(Quotas.__struct_fields__)
COUNTED: Final = {"key": "keys", "pack": "packs", "rule": "rules"}  # kinds of definitions that are counted


class QuotaExceededError(Exception):
    """The tenant has as much as it may have; ``retry_after`` is in whole seconds."""

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


def quotas_of(settings: Mapping[str, int]) -> Quotas:
    """The quotas of a tenant with these settings; names that there are no more count for nothing."""
    return Quotas(**{name: value for name, value in settings.items() if name in NAMES})
