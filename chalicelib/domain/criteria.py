"""When a rule fires (README 4 and 5, ``semantics.md`` §2.2)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from chalicelib.domain.entities import Json


class CriteriaError(Exception):
    """Conditions that no event could be held against; the message says where and what to write instead."""


@dataclass(frozen=True, slots=True)
class Clause:
    """One condition: what it says, whether it held (None: not evaluated or failed), the value it looked at."""

    source: str
    matched: bool | None
    value: Json
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """Whether the rule fires; ``error`` is why it could not be told."""

    matched: bool
    error: str | None = None
    clauses: list[Clause] = field(default_factory=list)


class Criteria:
    """Compiled conditions."""

    def evaluate(self, scope: Mapping[str, Any]) -> Outcome:
        """Hold them against the scope of one event (:func:`templates.rule_scope`). Never raises."""
        return Outcome(matched=True)


def compile_criteria(conditions: Json) -> Criteria:
    """The compiled conditions, or :class:`CriteriaError`."""
    return Criteria()
