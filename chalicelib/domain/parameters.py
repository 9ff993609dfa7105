"""Parameters against their schema, before anything runs (README 6).

A schema is either *flat*, ``{name: {type, required, default, enum, minimum, …}}`` (``semantics.md`` §2.9), or a full
JSON Schema; :mod:`chalicelib.domain.schemas` makes one bounded JSON Schema of either. A null parameter counts as
absent, and one that the schema does not name is passed on unchecked.

Violations speak of types and limits, never of the value that was given: it may be a secret.
"""

import copy
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import msgspec

from chalicelib.domain.entities import Json
from chalicelib.domain.patterns import PatternError
from chalicelib.domain.schemas import CompiledSchema, compile_schema, type_name
from chalicelib.domain.schemas import SchemaError as SchemaError
from chalicelib.domain.templates import Kind, Part, check_templates, kind_of

MAX_VIOLATIONS = 100
MAX_WORK = 1_000_000  # schema nodes times value nodes: seconds in the worst case, and far above any sensible schema

Path = tuple[str | int, ...]
Place = tuple[str, ...]  # a path with its positions as text, as JSON pointers have them

_ALTERNATIVES: Final = frozenset({"anyOf", "oneOf", "not", "if", "then", "else", "enum", "const"})
_SENTENCES: Final = {
    "minimum": "must be at least {}",
    "maximum": "must be at most {}",
    "exclusiveMinimum": "must be more than {}",
    "exclusiveMaximum": "must be less than {}",
    "multipleOf": "must be a multiple of {}",
    "minLength": "must have at least {} characters",
    "maxLength": "must have at most {} characters",
    "minItems": "must have at least {} items",
    "maxItems": "must have at most {} items",
    "minProperties": "must have at least {} fields",
    "maxProperties": "must have at most {} fields",
    "pattern": "must match the pattern {}",
    "const": "must be {}",
    "uniqueItems": "must not have the same item twice",
    "additionalProperties": "has fields that the schema does not allow",
    "unevaluatedProperties": "has fields that the schema does not allow",
    "propertyNames": "has a field whose name the schema does not allow",
    "items": "has more items than the schema allows",
    "anyOf": "matches none of the forms that the schema allows",
    "oneOf": "must match exactly one of the forms that the schema allows",
    "not": "has a form that the schema forbids",
    "contains": "lacks an item that the schema asks for",
    "dependentRequired": "lacks fields that others of its fields ask for",
}


@dataclass(frozen=True, slots=True)
class Resolved:
    """Parameters with their defaults filled in, and all that is wrong with them (nothing: they may run)."""

    parameters: dict[str, Json]
    violations: list[str]


def check_schema(schema: Json) -> None:
    """Raise :class:`~chalicelib.domain.schemas.SchemaError` unless :func:`resolve` and :func:`validate` can use it."""
    compile_schema(schema)


def resolve(schema: Json, given: Json, secret_pointers: Collection[str] = ()) -> Resolved:
    """The parameters that an action gets: ``given``, with the schema's defaults where a value is absent or null.

    ``secret_pointers`` are JSON pointers (RFC 6901) into ``given`` of values that are put in only just before the run;
    they count as right.
    """
    if given is not None and not isinstance(given, dict):
        return Resolved({}, [f"parameters must be an object, got {type_name(given)}"])
    try:
        compiled = compile_schema(schema)
    except SchemaError as error:
        return Resolved(dict(given or {}), [f"the parameter schema is not usable: {error}"])
    parameters = _with_defaults(compiled.schema, dict(given or {}))
    unknown = [_place_of(pointer) for pointer in secret_pointers]
    return Resolved(parameters, _violations(compiled, _present(compiled, parameters), wildcards=unknown, extras=True))


def validate(schema: Json, value: Json) -> list[str]:
    """What is wrong with ``value``, one sentence each; empty when nothing is. An empty schema allows everything."""
    try:
        return _violations(compile_schema(schema), value)
    except SchemaError as error:
        return [f"the schema is not usable: {error}"]


def validate_templated(schema: Json, value: Json) -> list[str]:
    """As :func:`resolve`, for parameters that hold templates (``semantics.md`` §2.3).

    A string that is one template may become anything, and one with text around its templates some other string.
    """
    if value is not None and not isinstance(value, dict):
        return [f"parameters must be an object, got {type_name(value)}"]
    try:
        compiled = compile_schema(schema)
    except SchemaError as error:
        return [f"the parameter schema is not usable: {error}"]
    parameters = _with_defaults(compiled.schema, dict(value or {}))
    if broken := check_templates(parameters):
        return broken
    places: dict[Kind, list[Place]] = {"literal": [], "value": [], "text": []}
    for place, text in _texts(parameters, ()):
        places[kind_of(text)].append(place)
    present = _present(compiled, parameters)
    return _violations(compiled, present, wildcards=places["value"], some_strings=places["text"], extras=True)


def secret_names(schema: Json) -> frozenset[str]:
    """The names that the schema marks ``secret: true``; none if the schema is not usable."""
    try:
        return compile_schema(schema).secrets
    except SchemaError:
        return frozenset()


def misplaced_secrets(schema: Json, secrets: Mapping[str, Sequence[Part]]) -> list[str]:
    """Which of the ``secrets`` of rendered parameters go where they may not (``semantics.md`` §2.3).

    A secret of a pack's configuration may only go to a parameter that the schema marks secret. A key may go anywhere:
    who wrote the template asked for it by name.
    """
    allowed = secret_names(schema)
    return [
        f"{_name((name,))}a secret of the pack's configuration may only go to a parameter marked secret"
        for pointer, parts in secrets.items()
        if any(isinstance(part, dict) and "pack" in part for part in parts)
        and (name := next(iter(_place_of(pointer)), "")) not in allowed
    ]


def _with_defaults(schema: Json, value: Any) -> Any:
    if not isinstance(schema, dict):
        return value
    if isinstance(value, dict) and (properties := schema.get("properties")):
        filled = dict(value)
        for name, subschema in properties.items():
            current = filled.get(name)
            if current is None:
                if isinstance(subschema, dict) and "default" in subschema:
                    filled[name] = copy.deepcopy(subschema["default"])
            elif isinstance(current, dict | list):
                filled[name] = _with_defaults(subschema, current)
        return filled
    if isinstance(value, list) and (items := schema.get("items")):
        return [_with_defaults(items, item) for item in value]
    return value


def _present(compiled: CompiledSchema, parameters: dict[str, Json]) -> dict[str, Json]:
    return {name: value for name, value in parameters.items() if value is not None or name in compiled.nullable}


def _violations(
    compiled: CompiledSchema,
    value: Json,
    *,
    wildcards: Sequence[Place] = (),
    some_strings: Sequence[Place] = (),
    extras: bool = False,
) -> list[str]:
    if compiled.allows_everything:
        return []
    if _count_nodes(value, MAX_WORK // compiled.nodes) > MAX_WORK // compiled.nodes:
        return ["the value is too large to be checked against this schema"]
    found: dict[str, None] = {}
    try:
        for error in compiled.errors(value):
            path: Path = tuple(error.absolute_path)
            if _is_excused(tuple(map(str, path)), error.validator, wildcards, some_strings):
                continue
            if extras and not path and error.validator in ("additionalProperties", "unevaluatedProperties"):
                continue
            found.update(dict.fromkeys(_sentences(error, path)))
            if len(found) >= MAX_VIOLATIONS:
                return [*islice(found, MAX_VIOLATIONS), "and more"]
    except PatternError as error:
        found[str(error)] = None
    except (RecursionError, OverflowError, ValueError, TypeError, ArithmeticError):
        found["the value could not be checked against this schema"] = None
    return list(found)


def _is_excused(place: Place, keyword: str | None, wildcards: Sequence[Place], some_strings: Sequence[Place]) -> bool:
    return (
        any(place[: len(wild)] == wild for wild in wildcards)
        or (keyword != "type" and place in some_strings)
        # What an alternative above the unknown value says depends on what that value will be.
        or (keyword in _ALTERNATIVES and any(wild[: len(place)] == place for wild in (*wildcards, *some_strings)))
    )


def _sentences(error: Any, path: Path) -> Iterator[str]:
    keyword, limit = error.validator, error.validator_value
    if keyword == "required":
        yield from (f"{_name((*path, name))}is required" for name in limit if name not in error.instance)
    elif keyword == "type":
        wanted = " or ".join(limit) if isinstance(limit, list) else limit
        yield f"{_name(path)}must be {wanted}, got {type_name(error.instance)}"
    elif keyword == "enum":
        yield f"{_name(path)}must be one of {', '.join(_json(option) for option in limit)}"
    elif keyword in _SENTENCES:
        yield f"{_name(path)}{_SENTENCES[keyword].format(_json(limit))}"
    else:
        yield f"{_name(path)}is not allowed by the schema"


def _name(path: Path) -> str:
    name = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")
    return f"'{name}': " if path else "the value "


def _json(value: Json) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= 200 else text[:200] + "…"


def _place_of(pointer: str) -> Place:
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:])


def _texts(value: Json, place: Place) -> Iterator[tuple[Place, str]]:
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _texts(item, (*place, name))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _texts(item, (*place, str(index)))


def _count_nodes(value: Json, enough: int) -> int:
    count, waiting = 0, [value]
    while waiting and count <= enough:
        count += 1
        item = waiting.pop()
        if isinstance(item, dict):
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)
    return count
