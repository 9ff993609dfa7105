"""The OpenAPI 3.1 document, made from the table of routes and the structs that validate requests: it cannot drift."""

import inspect
import re
from functools import lru_cache
from typing import Any, Final

import msgspec

from chalicelib.api import cookies
from chalicelib.api.health import VERSION
from chalicelib.api.routing import PUBLIC, ROUTES, Call, Requirement, Route, Routes
from chalicelib.api.views import ErrorBody, Raw, TokenErrorBody

Schema = dict[str, Any]

_PREFIX: Final = "#/components/schemas/"
REF: Final = _PREFIX + "{name}"
REASONS: Final = {
    200: "Success",
    201: "Created",
    202: "Accepted",
    307: "Go on at the address in Location",
    400: "The request is malformed: JSON, a query parameter or a path parameter",
    401: "No bearer token, or one that is invalid or expired",
    403: "The caller lacks the permission",
    404: "There is no such thing, or none that exists for the caller",
    409: "It exists already, or was changed by somebody else, or its state forbids it",
    413: "The body is too large",
    415: "The body has another content type than the route takes",
    422: "The body does not fit, or asks for what cannot be",
    429: "Too many requests; see Retry-After",
    501: "Not offered by this deployment",
    503: "A part that the API needs does not answer",
}
INTRODUCTION: Final = """\
Events in, rules decide, actions run. Sign in with `POST /auth/login` and send the access token as
`Authorization: Bearer …`. Lists come in pages, errors as `{"error", "code", "details"?}`; unknown fields of a body are
ignored. Every operation names the permission that it needs in `x-permission`; rows that a
caller may not see are left out."""


@ROUTES.get("/api-spec/openapi.json", needs=PUBLIC, returns=Raw, tag="docs")
def openapi(call: Call) -> Raw:
    """This API, as an OpenAPI 3.1 document."""
    return Raw(encoded(call.services.settings.api_url), headers={"Cache-Control": "max-age=300"})


@lru_cache(maxsize=4)
def encoded(server: str) -> bytes:
    """The document of :data:`ROUTES` as JSON; made once, for the table does not change."""
    return msgspec.json.encode(document(ROUTES, server))


def document(routes: Routes, server: str) -> Schema:
    """The document of ``routes``, served at the base URL ``server``."""
    known = sorted(routes, key=lambda route: (route.path, route.method))
    kinds = _kinds(known)
    schemas, components = msgspec.json.schema_components(kinds, ref_template=REF)
    schema_of = {_key(kind): schema for kind, schema in zip(kinds, schemas, strict=True)}
    paths: dict[str, Schema] = {}
    for route in known:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schema_of, components)
    for query in {route.query.__name__ for route in known if route.query is not None}:
        components.pop(query, None)  # they are parameters, not bodies
    written: Schema = {
        "openapi": "3.1.0",
        "info": {
            "title": "Attune on serverless",
            "version": VERSION,
            "description": INTRODUCTION,
        },
        "servers": [{"url": server.rstrip("/") or "/"}],
        "tags": [{"name": tag} for tag in sorted({route.tag for route in known})],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                "cookie": {"type": "apiKey", "in": "cookie", "name": cookies.ACCESS},
            },
        },
    }
    written["components"]["schemas"] = {_name(title): schema for title, schema in components.items()}
    renamed: Schema = _renamed(written)
    return renamed


def _name(generated: str) -> str:
    """A name for a schema that reads well: ``Page_RuleSummary_`` is RuleSummaryPage, ``Data_...`` an Answer."""
    words = re.findall(r"[A-Za-z0-9]+", re.sub(r"typing\.|msgspec\.Meta", "", generated))
    for envelope, suffix in (("Page", "Page"), ("Data", "Answer")):
        if words[0] == envelope and len(words) > 1:
            words = [*words[1:], suffix]
    return "".join(word[0].upper() + word[1:] for word in words)


def _renamed(value: Any) -> Any:
    """``value`` with the references in it leading to the names of :func:`_name`."""
    if isinstance(value, dict):
        return {key: _renamed(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_renamed(each) for each in value]
    if isinstance(value, str) and value.startswith(_PREFIX):
        return _PREFIX + _name(value.removeprefix(_PREFIX))
    return value


def permission(needs: Requirement) -> str:
    """How the documentation names a requirement."""
    if not needs.signed_in:
        return "public"
    parts = [f"token: {' or '.join(needs.tokens)}"] if needs.tokens else []
    if needs.resource is not None:
        named = f"{needs.resource}:{needs.action}"
        if needs.by_row:
            named += " for what is not a standard pack's"
        parts.append(named if needs.unless is None else f"{named}, unless {needs.unless}")
    return "; ".join(parts) or "signed in"


def _kinds(routes: list[Route]) -> list[Any]:
    kinds: dict[str, Any] = {_key(each): each for each in (ErrorBody, TokenErrorBody)}
    for route in routes:
        for kind in (route.returns, route.body, route.query):
            if kind is not None and kind is not Raw:
                kinds.setdefault(_key(kind), kind)
    return list(kinds.values())


def _key(kind: Any) -> str:
    return repr(kind)  # generic aliases and unions are equal by what they say


def _operation(route: Route, schema_of: dict[str, Schema], components: dict[str, Schema]) -> Schema:
    text = inspect.getdoc(route.handler) or ""
    operation: Schema = {
        "operationId": route.name,
        "summary": text.partition("\n")[0].rstrip("."),
        "tags": [route.tag],
        "parameters": [*_path_parameters(route), *_query_parameters(route, schema_of, components)],
        "responses": _responses(route, schema_of),
        "security": [{"bearer": []}, {"cookie": []}] if route.needs.signed_in else [],
        "x-permission": permission(route.needs),
    }
    if "\n" in text:
        operation["description"] = text
    if content := _contents(route, schema_of):
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _path_parameters(route: Route) -> list[Schema]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "integer" if is_int else "string"}}
        for name, is_int in route.parameters
    ]


def _query_parameters(route: Route, schema_of: dict[str, Schema], components: dict[str, Schema]) -> list[Schema]:
    if route.query is None:
        return []
    struct = components[schema_of[_key(route.query)]["$ref"].rpartition("/")[2]]
    return [
        {"name": name, "in": "query", "required": name in struct.get("required", ()), "schema": schema}
        for name, schema in struct["properties"].items()
    ]


def _contents(route: Route, schema_of: dict[str, Schema]) -> Schema:
    content: Schema = {}
    if route.body is not None:
        content["application/json"] = {"schema": schema_of[_key(route.body)]}
    elif route.raw:
        content["application/json"] = {"schema": {}}
    if route.multipart:
        content["multipart/form-data"] = {"schema": {"type": "object"}}
    return content


def _responses(route: Route, schema_of: dict[str, Schema]) -> Schema:
    success: Schema = {"description": REASONS[route.status]}
    if route.returns is not None:
        schema = {} if route.returns is Raw else schema_of[_key(route.returns)]
        success["content"] = {route.media_type: {"schema": schema}}
    errors = set(route.errors)
    if route.needs.signed_in:
        errors |= {401, 403, 429}
    if route.query is not None or route.parameters:
        errors.add(400)
    if route.body is not None or route.multipart:
        errors |= {400, 413, 415, 422}
    return {
        str(route.status): success,
        **{
            str(status): {
                "description": REASONS[status],
                "content": {"application/json": {"schema": _error_schema(route, status)}},
            }
            for status in sorted(errors)
        },
    }


def _error_schema(route: Route, status: int) -> Schema:
    ordinary, refused = ({"$ref": REF.format(name=name)} for name in ("ErrorBody", "TokenErrorBody"))
    if status != 401 or not route.needs.signed_in:
        return ordinary
    return {"anyOf": [ordinary, refused]} if 401 in route.errors else refused
