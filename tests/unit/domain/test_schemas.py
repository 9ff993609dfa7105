"""Schemas that tenants write: both forms, their bounds, and what is refused before anything is checked against them."""

from time import process_time
from typing import Any

import pytest

from chalicelib.domain.schemas import SchemaError, compile_schema, type_name


@pytest.mark.parametrize("schema", [None, {}])
def test_no_schema_allows_everything(schema: Any) -> None:
    assert compile_schema(schema).allows_everything


def test_a_flat_schema_becomes_an_object_schema() -> None:
    compiled = compile_schema(
        {
            "message": {"type": "string", "required": True, "description": "text", "position": 1},
            "count": {"type": "integer", "default": 1},
            "anything": {"type": "any"},
            "nested": {"type": "object", "properties": {"x": {"type": "string", "required": True}}},
        }
    )
    assert compiled.schema == {
        "type": "object",
        "properties": {
            "message": {"type": "string"},
            "count": {"type": "integer", "default": 1},
            "anything": {},
            "nested": {"type": "object", "properties": {"x": {"type": "string"}}, "required": ["x"]},
        },
        "required": ["message"],
    }


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"a": {"type": "string"}}},
        {"properties": {"a": {"type": "string"}}},
        {"$schema": "https://json-schema.org/draft/2020-12/schema", "properties": {"a": {"type": "string"}}},
        {"properties": {"a": {"type": "string"}}, "required": ["a"]},
    ],
)
def test_a_json_schema_is_known_by_its_keywords(schema: Any) -> None:
    assert compile_schema(schema).schema["properties"] == {"a": {"type": "string"}}


def test_parameters_may_be_called_like_keywords() -> None:
    compiled = compile_schema(
        {"type": {"type": "string"}, "properties": {"type": "object"}, "items": {"type": "array"}}
    )
    assert set(compiled.schema["properties"]) == {"type", "properties", "items"}


def test_local_references_are_put_in_place() -> None:
    compiled = compile_schema(
        {
            "type": "object",
            "$defs": {"name": {"type": "string", "maxLength": 3}, "a/b": {"$ref": "#/$defs/name"}},
            "properties": {"x": {"$ref": "#/$defs/a~1b"}, "y": {"$ref": "#/$defs/name", "minLength": 1}},
        }
    )
    name = {"type": "string", "maxLength": 3}
    assert compiled.schema == {"type": "object", "properties": {"x": name, "y": {"minLength": 1, "allOf": [name]}}}


def test_secrets_are_known_by_name() -> None:
    assert compile_schema({"a": {"type": "string", "secret": True}, "b": {"secret": False}}).secrets == {"a"}
    assert compile_schema({"type": "object", "properties": {"a": {"secret": True}}}).secrets == {"a"}


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ([], "a schema must be an object, not array"),
        ("string", "a schema must be an object, not string"),
        ({"a": 1}, "a: a parameter must be an object"),
        ({"a": {"type": "strng"}}, "^a.type: 'strng' is not a type; there are string"),
        ({"a": {"type": ["string", 5]}}, "a.type: 5 is not a type"),
        ({"a": {"minimum": "x"}}, "minimum: 'x' is not of type 'number'"),
        ({"a": {"enum": "x"}}, "enum: 'x' is not of type 'array'"),
        ({"a": {"type": "array", "items": 5}}, "a.items: must be an object, not integer"),
        ({"a": {"properties": []}}, "a.properties: must be an object of schemas"),
        ({"a": {"anyOf": []}}, "a.anyOf: must be a list of schemas"),
        ({"a": {"pattern": "(?=x)"}}, "a.pattern: pattern"),
        ({"a": {"pattern": 5}}, "a.pattern: a pattern must be a string"),
        ({"a": {"patternProperties": {"(": {}}}}, "a.patternProperties: pattern"),
        ({"a": {"$ref": "http://example.com/schema"}}, r"a.\$ref: only local references"),
        ({"a": {"$ref": "#/b"}}, r"a.\$ref: there is no '#/b'"),
        ({"a": {"$dynamicRef": "#x"}}, "only local references"),
        ({"type": "object", "properties": {"a": {"$ref": "#/properties/a"}}}, "refers to itself"),
        ({"a": {"description": "x" * 70_000}}, "at most 65536 bytes"),
        ({str(n): {} for n in range(2_001)}, "at most 2000 parts"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_place(schema: Any, message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        compile_schema(schema)


def test_a_schema_may_not_be_deep() -> None:
    schema: Any = {"type": "string"}
    for _ in range(30):
        schema = {"type": "array", "items": schema}
    with pytest.raises(SchemaError, match="levels deep"):
        compile_schema(schema)


def test_references_that_multiply_are_refused_at_once() -> None:
    definitions: dict[str, Any] = {"n0": {"type": "string"}}
    for n in range(1, 12):
        definitions[f"n{n}"] = {"allOf": [{"$ref": f"#/$defs/n{n - 1}"}] * 3}
    start = process_time()
    with pytest.raises(SchemaError, match="at most 2000 parts"):
        compile_schema({"type": "object", "$defs": definitions, "properties": {"a": {"$ref": "#/$defs/n11"}}})
    assert process_time() - start < 0.5


def test_nothing_of_a_schema_is_run_as_code() -> None:
    evil = "\"]); __import__('os').abort() #{variable}\\"
    schema = {evil: {"type": "string", "enum": [evil], "default": evil, "description": evil}}
    assert list(compile_schema(schema).errors({evil: evil})) == []
    assert len(list(compile_schema(schema).errors({evil: 5}))) == 2


def test_equal_items_are_found_without_comparing_every_two() -> None:
    compiled = compile_schema({"a": {"type": "array", "uniqueItems": True}})
    start = process_time()
    assert list(compiled.errors({"a": [{"n": n} for n in range(20_000)]})) == []
    assert process_time() - start < 1
    assert len(list(compiled.errors({"a": [{"x": 1, "y": 2}, {"y": 2, "x": 1}]}))) == 1
    assert len(list(compiled.errors({"a": [1, 1.0]}))) == 1
    assert list(compiled.errors({"a": [1, True, "1", [1]]})) == []


def test_names_types_as_json_schema_does() -> None:
    values: list[Any] = [None, True, 1, 1.5, "", [], {}]
    assert [type_name(value) for value in values] == [
        "null",
        "boolean",
        "integer",
        "number",
        "string",
        "array",
        "object",
    ]
