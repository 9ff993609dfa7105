"""Templates: ``{{ expression }}`` inside the strings of a JSON value (README 4, ``workflow-language.md`` §5)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from chalicelib.domain.entities import Event, Json, Pack, Rule

Missing = Literal["error", "null"]


@dataclass(frozen=True, slots=True)
class Rendered:
    """A rendered value; ``secrets`` says by JSON pointer which strings of it are still to be put together."""

    value: Json
    secrets: dict[str, list[str | dict[str, str]]] = field(default_factory=dict)


def render(value: Json, scope: Mapping[str, Any], *, missing: Missing) -> Json:
    """``value`` with every template in it evaluated in ``scope``."""
    return value


def render_with_secrets(value: Json, scope: Mapping[str, Any], *, missing: Missing) -> Rendered:
    """As :func:`render`, but ``{{ keystore.<ref> }}`` is allowed and leaves a reference instead of a value."""
    return Rendered(value)


def rule_scope(event: Event, rule: Rule, pack: Pack | None, now: datetime) -> dict[str, Any]:
    """What a rule's ``action_params`` and conditions can read."""
    return {}
