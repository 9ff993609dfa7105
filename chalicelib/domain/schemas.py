"""Schemas that tenants write, made safe to check values against.

Whatever form a schema comes in, flat or JSON Schema, it is rebuilt as one JSON Schema of draft 2020-12 that holds only
keywords we know, with its local references put in place. So what is compiled is bounded in size and depth and refers
to nothing, and its patterns run on RE2. It is then interpreted, not turned into code: validators that generate Python
would run a tenant's text in the control plane (design §1).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

import msgspec

from chalicelib.domain.caching import compiled_once
from chalicelib.domain.entities import Json
from chalicelib.domain.patterns import PatternError, compile_pattern

MAX_BYTES = 65_536
MAX_DEPTH = 24
MAX_NODES = 2_000  # subschemas, with every local reference put in place

TYPES: Final = ("string", "integer", "number", "boolean", "array", "object", "null")

_SCHEMAS: Final = frozenset({
    "items", "contains", "additionalProperties", "propertyNames", "not", "if", "then", "else", "unevaluatedItems",
    "unevaluatedProperties",
})  # fmt: skip
_LISTS: Final = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_MAPS: Final = frozenset({"properties", "patternProperties", "dependentSchemas"})
_PLAIN: Final = frozenset({
    "enum", "const", "multipleOf", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minLength",
    "maxLength", "pattern", "minItems", "maxItems", "uniqueItems", "minContains", "maxContains", "minProperties",
    "maxProperties", "dependentRequired", "default", "secret",
})  # fmt: skip


class SchemaError(ValueError):
    """A schema that cannot be used; the message has the path in it and says what to change."""


@dataclass(slots=True)
class CompiledSchema:
    """A bounded JSON Schema and what it says at its top: which names are secret, which may be null."""

    schema: dict[str, Any]
    nodes: int
    secrets: frozenset[str]
    nullable: frozenset[str]
    _validator: Any = field(default=None, repr=False)

    @property
    def allows_everything(self) -> bool:
        return not self.schema

    def errors(self, value: Json) -> Iterator[Any]:
        """What the validator finds wrong with ``value``: ``jsonschema.ValidationError`` objects."""
        if self._validator is None:
            self._validator = _validator_class()(self.schema)
        errors: Iterator[Any] = self._validator.iter_errors(value)
        return errors


def compile_schema(schema: Json) -> CompiledSchema:
    """The schema, ready for use and cached; or :class:`SchemaError`. None and ``{}`` allow everything."""
    if schema is None or schema == {}:
        return _EVERYTHING
    if not isinstance(schema, dict):
        raise SchemaError(f"a schema must be an object, not {type_name(schema)}")
    try:
        text = msgspec.json.encode(schema)
    except (msgspec.MsgspecError, TypeError, RecursionError, OverflowError) as error:
        raise SchemaError(f"a schema must be JSON: {error}") from None
    if len(text) > MAX_BYTES:
        raise SchemaError(f"a schema may have at most {MAX_BYTES} bytes, this one has {len(text)}")
    return _compile(text)


def type_name(value: Json) -> str:
    """JSON Schema's name for the type of ``value``."""
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
    return "object"


@compiled_once
def _compile(text: bytes) -> CompiledSchema:
    schema = msgspec.json.decode(text)
    builder = _Builder(schema)
    whole = _flat_to_object(schema)
    try:
        built = builder.build(whole, "", 0, ())
    except SchemaError as error:
        raise SchemaError(str(error).removeprefix("" if whole is schema else "properties.")) from None
    errors = sorted(_validator_class()(_metaschema()).iter_errors(built), key=lambda error: len(error.absolute_path))
    if errors:
        where = ".".join(str(part) for part in errors[0].absolute_path)
        raise SchemaError(f"{where or 'the schema'}: {errors[0].message}")
    properties: Mapping[str, Any] = built.get("properties", {})
    return CompiledSchema(
        schema=built,
        nodes=builder.nodes,
        secrets=builder.secrets,
        nullable=frozenset(name for name, spec in properties.items() if _allows_null(spec)),
    )


_EVERYTHING: Final = CompiledSchema(schema={}, nodes=1, secrets=frozenset(), nullable=frozenset())


def _flat_to_object(schema: dict[str, Any]) -> dict[str, Any]:
    if _is_json_schema(schema):
        return schema
    for name, spec in schema.items():
        if not isinstance(spec, dict):
            raise SchemaError(f'{name}: a parameter must be an object such as {{"type": "string"}}')
    return {"type": "object", "properties": schema}


def _is_json_schema(schema: dict[str, Any]) -> bool:
    # A flat schema's values are all objects, so any keyword that holds something else gives a JSON Schema away.
    if isinstance(schema.get("type"), str | list) or isinstance(schema.get("required"), list):
        return True
    if any(isinstance(schema.get(keyword), str) for keyword in ("$schema", "$id", "$ref")):
        return True
    if any(isinstance(schema.get(keyword), list) for keyword in _LISTS):
        return True
    properties = schema.get("properties")
    return isinstance(properties, dict) and all(isinstance(spec, dict | bool) for spec in properties.values())


class _Builder:
    """Rebuilds one schema, counting as it goes."""

    def __init__(self, root: dict[str, Any]) -> None:
        self.nodes = 0
        self.secrets: frozenset[str] = frozenset()
        self._root = root

    def build(self, schema: Any, where: str, depth: int, open_refs: tuple[str, ...]) -> Any:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise SchemaError(f"a schema may have at most {MAX_NODES} parts, with its references put in place")
        if depth > MAX_DEPTH:
            raise SchemaError(f"{where}: a schema may be at most {MAX_DEPTH} levels deep")
        if isinstance(schema, bool):
            return schema
        if not isinstance(schema, dict):
            raise SchemaError(f"{where or 'the schema'}: must be an object, not {type_name(schema)}")
        built: dict[str, Any] = {}
        for keyword, value in schema.items():
            self._add(built, keyword, value, f"{where}.{keyword}" if where else keyword, depth, open_refs)
        if isinstance(schema.get("properties"), dict):
            self._lift_required(built, schema)
            if not depth:
                self.secrets = frozenset(
                    name
                    for name, spec in schema["properties"].items()
                    if isinstance(spec, dict) and spec.get("secret") is True
                )
        if isinstance(reference := schema.get("$ref"), str):
            target = self._resolve(reference, where, depth, open_refs)
            built = {**built, "allOf": [*built.get("allOf", []), target]} if built else target
        return built

    def _add(
        self, built: dict[str, Any], keyword: str, value: Any, where: str, depth: int, open_refs: tuple[str, ...]
    ) -> None:
        if keyword == "type":
            if types := self._types(value, where):
                built[keyword] = types
        elif keyword in _PLAIN or (keyword == "required" and isinstance(value, list)):
            if keyword == "pattern":
                _check_pattern(value, where)
            built[keyword] = value
        elif keyword in _SCHEMAS:
            built[keyword] = self.build(value, where, depth + 1, open_refs)
        elif keyword in _LISTS:
            built[keyword] = self._list(value, where, depth, open_refs)
        elif keyword in _MAPS:
            built[keyword] = self._map(keyword, value, where, depth, open_refs)
        elif keyword in ("$dynamicRef", "$recursiveRef"):
            raise SchemaError(f"{where}: only local references such as '#/$defs/name' are supported")

    def _list(self, value: Any, where: str, depth: int, open_refs: tuple[str, ...]) -> list[Any]:
        if not isinstance(value, list) or not value:
            raise SchemaError(f"{where}: must be a list of schemas")
        return [self.build(item, f"{where}[{index}]", depth + 1, open_refs) for index, item in enumerate(value)]

    def _map(self, keyword: str, value: Any, where: str, depth: int, open_refs: tuple[str, ...]) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise SchemaError(f"{where}: must be an object of schemas")
        if keyword == "patternProperties":
            for pattern in value:
                _check_pattern(pattern, where)
        return {name: self.build(item, f"{where}.{name}", depth + 1, open_refs) for name, item in value.items()}

    def _types(self, value: Any, where: str) -> Any:
        types = value if isinstance(value, list) else [value]
        for type_ in types:
            if type_ != "any" and type_ not in TYPES:
                raise SchemaError(f"{where}: {type_!r} is not a type; there are {', '.join(TYPES)} and any")
        return None if "any" in types or not types else value

    def _lift_required(self, built: dict[str, Any], schema: dict[str, Any]) -> None:
        # Flat schemas say it on the parameter (`required: true`), JSON Schema on the object around it.
        said = {
            name
            for name, spec in schema["properties"].items()
            if isinstance(spec, dict) and spec.get("required") is True
        }
        listed = schema.get("required")
        names = [
            *(listed if isinstance(listed, list) else []),
            *(name for name in schema["properties"] if name in said),
        ]
        if names:
            built["required"] = list(dict.fromkeys(names))

    def _resolve(self, reference: str, where: str, depth: int, open_refs: tuple[str, ...]) -> Any:
        if not reference.startswith("#/"):
            raise SchemaError(f"{where}.$ref: only local references such as '#/$defs/name' are supported")
        if reference in open_refs:
            raise SchemaError(f"{where}.$ref: {reference!r} refers to itself, which would have no end")
        target: Any = self._root
        for part in reference[2:].split("/"):
            name = part.replace("~1", "/").replace("~0", "~")
            if not isinstance(target, dict) or name not in target:
                raise SchemaError(f"{where}.$ref: there is no {reference!r} in this schema")
            target = target[name]
        return self.build(target, where, depth + 1, (*open_refs, reference))


def _check_pattern(pattern: Any, where: str) -> None:
    if not isinstance(pattern, str):
        raise SchemaError(f"{where}: a pattern must be a string")
    try:
        compile_pattern(pattern)
    except PatternError as error:
        raise SchemaError(f"{where}: {error}") from None


def _allows_null(spec: Any) -> bool:
    if not isinstance(spec, dict) or "default" in spec:
        return False
    types = spec.get("type")
    return types == "null" or (isinstance(types, list) and "null" in types)


@lru_cache(maxsize=1)
def _metaschema() -> Any:
    from jsonschema import Draft202012Validator

    return Draft202012Validator.META_SCHEMA


@lru_cache(maxsize=1)
def _validator_class() -> Any:
    # Loaded when the first schema is met: it takes a third of what a cold start may take.
    from jsonschema import Draft202012Validator, ValidationError
    from jsonschema.validators import extend

    def pattern(_: Any, source: str, instance: Json, __: Any) -> Iterator[Any]:
        if isinstance(instance, str) and not compile_pattern(source).found_in(instance):
            yield ValidationError("does not match")

    def pattern_properties(validator: Any, patterns: dict[str, Any], instance: Json, _: Any) -> Iterator[Any]:
        if isinstance(instance, dict):
            for source, subschema in patterns.items():
                compiled = compile_pattern(source)
                for name, item in instance.items():
                    if compiled.found_in(name):
                        yield from validator.descend(item, subschema, path=name, schema_path=source)

    def unique_items(_: Any, wanted: bool, instance: Json, __: Any) -> Iterator[Any]:  # noqa: FBT001 - jsonschema's
        # The library compares every two items when they cannot be sorted.
        if wanted and isinstance(instance, list) and len({_identity(item) for item in instance}) < len(instance):
            yield ValidationError("has non-unique elements")

    return extend(  # type: ignore[no-untyped-call]
        Draft202012Validator,
        {"pattern": pattern, "patternProperties": pattern_properties, "uniqueItems": unique_items},
    )


def _identity(value: Json) -> Any:
    if isinstance(value, dict | list):
        return msgspec.json.encode(value, order="sorted")
    return (isinstance(value, bool), value)
