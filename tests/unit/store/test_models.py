"""The models and the stack's tables are said in two places: here they are held against each other."""

from typing import Any

import pytest

from chalicelib.store.models import ActivityRow, EnforcementRow, EventRow, ExecutionRow, NoteRow, RegistryRow
from infra import tables


def key_schemas(resource: dict[str, Any]) -> dict[str, list[tuple[str, str]]]:
    properties = resource["Properties"]
    indexes = properties.get("GlobalSecondaryIndexes", []) + properties.get("LocalSecondaryIndexes", [])
    named = {"": properties["KeySchema"]} | {index["IndexName"]: index["KeySchema"] for index in indexes}
    return {name: sorted((key["KeyType"], key["AttributeName"]) for key in keys) for name, keys in named.items()}


@pytest.mark.parametrize(
    ("model", "resource"),
    [
        (RegistryRow, tables.REGISTRY),
        (EventRow, tables.ACTIVITY),
        (EnforcementRow, tables.ACTIVITY),
        (ExecutionRow, tables.ACTIVITY),
        (NoteRow, tables.ACTIVITY),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_keys_are_the_tables(model: Any, resource: dict[str, Any]) -> None:
    schema = model._get_schema()
    indexes = schema["global_secondary_indexes"] + schema["local_secondary_indexes"]
    named = {"": schema["key_schema"]} | {index["index_name"]: index["key_schema"] for index in indexes}
    told = key_schemas(resource)
    for name, keys in named.items():
        assert sorted((key["KeyType"], key["AttributeName"]) for key in keys) == told[name]
    types = {each["AttributeName"]: each["AttributeType"] for each in resource["Properties"]["AttributeDefinitions"]}
    for attribute in schema["attribute_definitions"]:
        assert types[attribute["AttributeName"]] == attribute["AttributeType"]


def test_every_index_has_a_model_that_uses_it() -> None:
    used = {name for model in (RegistryRow, ExecutionRow) for name in model._indexes}
    assert used == {name for resource in tables.RESOURCES.values() for name in key_schemas(resource) if name}


def test_rows_of_one_table_agree_on_names() -> None:
    """A stream reader tells kinds by partition key; a name that means two types of value would still be a trap."""
    types: dict[str, set[str]] = {}
    for model in (ActivityRow, EventRow, EnforcementRow, ExecutionRow, NoteRow):
        for attribute in model.get_attributes().values():
            types.setdefault(attribute.attr_name, set()).add(attribute.attr_type)
    assert {name for name, seen in types.items() if len(seen) > 1} == set()
