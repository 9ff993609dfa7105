"""Parameters against their schema (README 6)."""

from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.domain.parameters import (
    Resolved,
    SchemaError,
    check_schema,
    misplaced_secrets,
    resolve,
    secret_names,
    validate,
    validate_templated,
)
from chalicelib.domain.templates import REDACTED

SCHEMA: dict[str, Any] = {
    "message": {"type": "string", "required": True, "minLength": 2},
    "count": {"type": "integer", "default": 3, "minimum": 1, "maximum": 10},
    "level": {"type": "string", "enum": ["low", "high"]},
    "ratio": {"type": "number"},
    "flag": {"type": "boolean", "default": False},
    "tags": {"type": "array", "items": {"type": "string"}},
    "password": {"type": "string", "secret": True},
    "options": {"type": "object", "properties": {"x": {"type": "string", "required": True}, "y": {"default": [1]}}},
}


def test_defaults_are_filled_in_and_the_rest_is_passed_on() -> None:
    given = {"message": "hi", "extra": {"any": "thing"}, "ratio": 1, "options": {"x": "1"}}
    assert resolve(SCHEMA, given) == Resolved(
        {**given, "count": 3, "flag": False, "options": {"x": "1", "y": [1]}},
        [],
    )
    assert given == {"message": "hi", "extra": {"any": "thing"}, "ratio": 1, "options": {"x": "1"}}


def test_a_default_is_not_shared_between_executions() -> None:
    first = resolve({"a": {"default": [1]}}, {})
    first.parameters["a"].append(2)
    assert resolve({"a": {"default": [1]}}, {}).parameters == {"a": [1]}


def test_null_counts_as_absent() -> None:
    assert resolve(SCHEMA, {"message": "hi", "count": None, "level": None}).violations == []
    assert resolve(SCHEMA, {"message": "hi", "count": None}).parameters["count"] == 3
    assert resolve(SCHEMA, {"message": None}).violations == ["'message': is required"]
    assert resolve({"a": {"type": ["string", "null"], "required": True}}, {"a": None}).violations == []


@pytest.mark.parametrize("given", [None, {}])
def test_nothing_given_is_an_empty_object(given: Any) -> None:
    assert resolve({"a": {"default": 1}}, given) == Resolved({"a": 1}, [])
    assert resolve(None, given) == Resolved({}, [])


def test_parameters_are_an_object() -> None:
    assert resolve(SCHEMA, [1]) == Resolved({}, ["parameters must be an object, got array"])
    assert validate_templated(SCHEMA, "x") == ["parameters must be an object, got string"]


def test_every_violation_is_named() -> None:
    given = {"count": "many", "level": "middle", "ratio": "x", "flag": 1, "tags": ["a", 2], "options": {}}
    assert sorted(resolve(SCHEMA, given).violations) == [
        "'count': must be integer, got string",
        "'flag': must be boolean, got integer",
        '\'level\': must be one of "low", "high"',
        "'message': is required",
        "'options.x': is required",
        "'ratio': must be number, got string",
        "'tags[1]': must be string, got integer",
    ]


@pytest.mark.parametrize(
    ("spec", "value", "violation"),
    [
        ({"minimum": 1}, 0, "must be at least 1"),
        ({"maximum": 1}, 2, "must be at most 1"),
        ({"exclusiveMinimum": 1}, 1, "must be more than 1"),
        ({"exclusiveMaximum": 1}, 1, "must be less than 1"),
        ({"multipleOf": 2}, 3, "must be a multiple of 2"),
        ({"minLength": 2}, "a", "must have at least 2 characters"),
        ({"maxLength": 1}, "ab", "must have at most 1 characters"),
        ({"pattern": "^a+$"}, "b", 'must match the pattern "^a+$"'),
        ({"minItems": 1}, [], "must have at least 1 items"),
        ({"maxItems": 0}, [1], "must have at most 0 items"),
        ({"uniqueItems": True}, [1, 1], "must not have the same item twice"),
        ({"minProperties": 1}, {}, "must have at least 1 fields"),
        ({"maxProperties": 0}, {"a": 1}, "must have at most 0 fields"),
        ({"properties": {}, "additionalProperties": False}, {"a": 1}, "has fields that the schema does not allow"),
        ({"const": "x"}, "y", 'must be "x"'),
        ({"type": ["string", "integer"]}, [], "must be string or integer, got array"),
        ({"anyOf": [{"type": "string"}, {"minimum": 3}]}, 1, "matches none of the forms that the schema allows"),
        ({"oneOf": [{"minimum": 1}, {"minimum": 2}]}, 3, "must match exactly one of the forms that the schema allows"),
        ({"not": {"const": 1}}, 1, "has a form that the schema forbids"),
        ({"type": "array", "contains": {"const": 1}}, [2], "lacks an item that the schema asks for"),
        ({"patternProperties": {"^n_": {"type": "integer"}}}, {"n_a": "x"}, None),
        ({"type": "integer"}, True, "must be integer, got boolean"),
        ({"type": "integer"}, 1.5, "must be integer, got number"),
    ],
)
def test_says_what_is_wrong(spec: dict[str, Any], value: Any, violation: str | None) -> None:
    expected = [f"'p': {violation}"] if violation else ["'p.n_a': must be integer, got string"]
    assert resolve({"p": spec}, {"p": value}).violations == expected


def test_a_whole_number_is_an_integer() -> None:
    assert resolve({"p": {"type": "integer"}}, {"p": 5.0}).violations == []


def test_no_violation_gives_a_value_away() -> None:
    schema = {"p": {"type": "string", "enum": ["a"], "pattern": "^x", "maxLength": 3, "secret": True}}
    for value in ("hunter2-hunter2", ["hunter2"], {"hunter2": "hunter2"}):
        assert "hunter2" not in str(resolve(schema, {"p": value}).violations)


def test_extras_are_ignored_even_where_a_schema_forbids_them() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": False}
    assert resolve(schema, {"b": 1}) == Resolved({"b": 1}, [])
    assert validate(schema, {"b": 1}) == ["the value has fields that the schema does not allow"]


def test_values_that_are_put_in_later_count_as_right() -> None:
    schema = {**SCHEMA, "headers": {"type": "object", "properties": {"a/b": {"type": "string", "maxLength": 1}}}}
    given = {"message": REDACTED, "level": REDACTED, "headers": {"a/b": REDACTED}, "tags": [REDACTED, 2]}
    assert resolve(schema, given, ["/message", "/level", "/headers/a~1b", "/tags/0"]).violations == [
        "'tags[1]': must be string, got integer"
    ]
    assert len(resolve(schema, given).violations) == 6


def test_alternatives_above_a_later_value_are_not_judged() -> None:
    schema = {"p": {"anyOf": [{"properties": {"k": {"const": 1}}, "required": ["k"]}]}}
    assert resolve(schema, {"p": {"k": REDACTED}}, ["/p/k"]).violations == []


def test_templates_stand_for_what_they_may_become() -> None:
    given = {
        "message": "{{ event.payload.m }}",
        "count": "{{ 1 + 1 }}",
        "level": "l{{ x }}",
        "tags": ["{{ a }}{{ b }}"],
    }
    assert validate_templated(SCHEMA, given) == []
    assert validate_templated(SCHEMA, {**given, "options": "{{ event.payload }}"}) == []


def test_a_text_with_templates_is_still_a_text() -> None:
    assert validate_templated(SCHEMA, {"message": "{{ a }}", "count": "{{ a }} times"}) == [
        "'count': must be integer, got string"
    ]


def test_what_is_no_template_is_validated_as_it_is() -> None:
    assert sorted(validate_templated(SCHEMA, {"count": 99, "extra": 1})) == [
        "'count': must be at most 10",
        "'message': is required",
    ]


def test_templates_that_do_not_compile_are_violations() -> None:
    (violation,) = validate_templated(SCHEMA, {"message": "{{ 1 +", "extra": "{{ fine }}"})
    assert violation.startswith("'message': ")


def test_secret_names() -> None:
    assert secret_names(SCHEMA) == {"password"}
    assert secret_names(None) == frozenset()
    assert secret_names({"a": "broken"}) == frozenset()


def test_secrets_of_configuration_go_to_secret_parameters_only() -> None:
    secrets: Any = {
        "/password": [{"pack": "p", "config": "token"}],
        "/message": ["x", {"pack": "p", "config": "token"}],
        "/options/x": [{"key": "k"}],
    }
    assert misplaced_secrets(SCHEMA, secrets) == [
        "'message': a secret of the pack's configuration may only go to a parameter marked secret"
    ]


def test_plain_validation_speaks_of_the_value() -> None:
    assert validate({"type": "object", "properties": {}}, [1]) == ["the value must be object, got array"]
    assert validate({"type": "array", "items": {"type": "integer"}}, [1, "a"]) == ["'[1]': must be integer, got string"]
    assert validate(None, object) == []


def test_a_schema_that_cannot_be_used_is_a_violation_and_not_a_crash() -> None:
    (violation,) = resolve({"a": {"type": "moon"}}, {"a": 1}).violations
    assert violation.startswith("the parameter schema is not usable: a.type: 'moon' is not a type")
    assert validate({"a": {"type": "moon"}}, {})[0].startswith("the schema is not usable")
    with pytest.raises(SchemaError):
        check_schema({"a": {"type": "moon"}})
    check_schema(SCHEMA)


def test_a_value_too_large_for_its_schema_is_refused() -> None:
    schema = {"p": {"type": "array", "items": {"anyOf": [{"minLength": n} for n in range(100)]}}}
    assert resolve(schema, {"p": ["x"] * 20_000}).violations == [
        "the value is too large to be checked against this schema"
    ]


def test_a_flood_of_violations_is_cut_off() -> None:
    violations = resolve({"p": {"type": "array", "items": {"type": "string"}}}, {"p": [1] * 500}).violations
    assert len(violations) == 101
    assert violations[-1] == "and more"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 12) | st.sampled_from([0.5, 2.0]) | st.text("ab", max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "x"]), inner, max_size=3),
    max_leaves=5,
)
SPECS = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["string", "integer", "number", "boolean", "array", "object", ["string", "null"]]),
        "enum": st.lists(JSON, min_size=1, max_size=2),
        "minimum": st.integers(-2, 5),
        "maxLength": st.integers(0, 3),
        "pattern": st.sampled_from(["^a", "b$"]),
        "items": st.fixed_dictionaries({"type": st.sampled_from(["string", "integer"])}),
        "uniqueItems": st.booleans(),
    },
)


@given(
    st.dictionaries(st.sampled_from(["a", "b"]), SPECS, max_size=2),
    st.dictionaries(st.sampled_from(["a", "b", "c"]), JSON, max_size=3),
)
def test_agrees_with_the_validator_it_stands_on(properties: Any, value: Any) -> None:
    schema = {"type": "object", "properties": properties}
    assert (validate(schema, value) == []) is jsonschema.Draft202012Validator(schema).is_valid(value)


@given(st.dictionaries(st.sampled_from(["a", "b"]), SPECS, max_size=2), JSON)
def test_what_resolves_without_violation_stays_right(properties: Any, value: Any) -> None:
    resolved = resolve(properties, {"a": value, "c": 1})
    assert resolved.parameters["c"] == 1
    assert resolve(properties, resolved.parameters) == resolved


@given(JSON, JSON)
def test_any_schema_is_refused_or_used(schema: Any, value: Any) -> None:
    assert all(isinstance(violation, str) for violation in validate(schema, value))
