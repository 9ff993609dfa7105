import re

import msgspec
import pytest
from openapi_spec_validator import validate

from chalicelib.api import adapter, openapi
from chalicelib.api.routing import ROUTES


@pytest.fixture(scope="module")
def document():
    return openapi.document(ROUTES, "https://attune.example.org/")


def test_it_is_valid_openapi(document):
    assert document["openapi"] == "3.1.0"
    validate(document)


def test_it_holds_every_route(document):
    assert {(route.method.lower(), route.path) for route in ROUTES} == {
        (method, path) for path, item in document["paths"].items() for method in item
    }


def test_it_is_served_without_signing_in(api):
    answer = api.anonymous().get("/api-spec/openapi.json")
    assert answer.status == 200
    assert answer.json["servers"] == [{"url": "http://localhost:8080"}]
    assert "/api/v1/keys" in answer.json["paths"]


def test_every_operation_says_what_it_needs_and_does(document):
    identifiers = set()
    for item in document["paths"].values():
        for operation in item.values():
            identifiers.add(operation["operationId"])
            assert operation["summary"], operation["operationId"]
            assert re.fullmatch(
                r"public|signed in|token: [a-z ]+|(token: [a-z]+; )?[a-z_]+:[a-z]+( for what .+|, unless .+)?",
                operation["x-permission"],
            )
            assert bool(operation["security"]) == (operation["x-permission"] != "public")
    assert len(identifiers) == len(list(ROUTES))


def test_references_lead_somewhere_and_names_read_well(document):
    schemas = document["components"]["schemas"]
    referred = set(re.findall(rb"#/components/schemas/([^\"]+)", msgspec.json.encode(document)))
    assert {name.decode() for name in referred} <= set(schemas)
    assert all(name.isalnum() for name in schemas)
    assert "KeyResponseAnswer" in schemas
    assert "KeySummaryPage" in schemas


def test_a_body_is_described_as_it_is_checked(document):
    operation = document["paths"]["/api/v1/keys"]["post"]
    assert operation["requestBody"]["content"]["application/json"]["schema"] == {
        "$ref": "#/components/schemas/CreateKeyRequest"
    }
    schema = document["components"]["schemas"]["CreateKeyRequest"]
    assert schema["required"] == ["owner_type", "name", "value"]
    assert schema["properties"]["name"] == {"type": "string", "minLength": 1, "maxLength": 255}
    assert {"201", "400", "401", "403", "409", "413", "415", "422", "429"} == set(operation["responses"])


def test_queries_are_parameters_and_not_schemas(document):
    parameters = {each["name"]: each for each in document["paths"]["/api/v1/keys"]["get"]["parameters"]}
    assert parameters["per_page"]["schema"] == {"type": "integer", "minimum": 1, "default": 50}
    assert parameters["owner_type"]["required"] is False
    assert "KeyQuery" not in document["components"]["schemas"]


def test_path_parameters_have_their_types(document):
    operation = document["paths"]["/api/v1/executions/{execution_id}"]["get"]
    assert {"name": "execution_id", "in": "path", "required": True, "schema": {"type": "integer"}} in operation[
        "parameters"
    ]


def test_what_is_answered_fits_what_is_said(api, document):
    """One real answer against its schema, with a validator that is not ours."""
    from jsonschema import Draft202012Validator

    schema = {"$ref": "#/components/schemas/KeyResponseAnswer", "components": document["components"]}
    answer = api.post("/api/v1/keys", json={"ref": "a.b", "owner_type": "system", "name": "n", "value": 1})
    assert list(Draft202012Validator(schema).iter_errors(answer.json)) == []
    assert list(Draft202012Validator(schema).iter_errors({"data": {}})) != []


def test_the_document_is_made_once(monkeypatch):
    first = openapi.encoded("http://once.example.org")
    monkeypatch.setattr(openapi, "document", None)
    assert openapi.encoded("http://once.example.org") is first
    assert adapter.ROUTES is ROUTES
