"""Between HTTP and the handlers: dispatch, authentication, decoding, encoding (contract: http-api 1.1-1.3).

:func:`handle` is the whole API, free of AWS and of Chalice; :func:`register` puts it behind a Chalice app.
"""

import re
import time
import types
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any, get_args

import msgspec
from chalice.app import Chalice
from chalice.app import Request as ChaliceRequest
from chalice.app import Response as ChaliceResponse

from chalicelib.api import (  # noqa: F401  # importing a resource puts its routes into the table
    access,
    action_files,
    actions,
    audit,
    auth,
    docs_page,
    enforcements,
    events,
    executions,
    health,
    identities,
    inquiries,
    integration_tokens,
    keys,
    logs,
    oidc,
    openapi,
    pack_workflows,
    packs,
    permission_sets,
    rule_trial,
    rules,
    runtimes,
    sensor_tokens,
    sensors,
    sessions,
    tenants,
    trail,
    triggers,
    webhooks,
    workflow_runs,
    workflows,
)
from chalicelib.api.errors import (
    ApiError,
    BadRequest,
    Conflict,
    Forbidden,
    HeadersTooLarge,
    PayloadTooLarge,
    TooMany,
    Unprocessable,
    UnsupportedMediaType,
    ValidationFailed,
)
from chalicelib.api.routing import ROUTES, Call, Form, Request, Requirement, Response, Route
from chalicelib.api.views import Raw, query_of
from chalicelib.domain.criteria import CriteriaError
from chalicelib.domain.expressions import ExpressionError
from chalicelib.domain.permissions import Access
from chalicelib.domain.quotas import QuotaExceededError
from chalicelib.domain.refs import RefError
from chalicelib.domain.schemas import SchemaError
from chalicelib.flow.intake import PayloadRefusedError
from chalicelib.log import logger
from chalicelib.security.tokens import Principal
from chalicelib.services import Services
from chalicelib.services import services as process_services
from chalicelib.store import journal
from chalicelib.store.registry import Conflict as StoreConflict

MAX_BODY = 10 * 1024 * 1024  # http-api 1.1; API Gateway's own cap too
MAX_HEADERS = 10_240  # API Gateway's own bound, for where there is none
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
PREFIXES = ("/", "/{proxy+}")
BINARY_TYPES = ("multipart/form-data", "application/octet-stream", "application/gzip")

SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",  # no page embeds what a cookie would show; CORS is another matter
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Strict-Transport-Security": "max-age=31536000",
    "Cache-Control": "no-store",
}

_encode = msgspec.json.Encoder().encode


def handle(request: Request, services: Services) -> Response:
    """Answer a request. Never raises: what a handler lets through becomes the contract's error body."""
    started = time.perf_counter()
    trace: dict[str, Any] = {"method": request.method, "request_id": request.request_id}
    with journal.opened() as kept:
        left = trail.Trail(kept)
        try:
            response = _preflight(request) if request.method == "OPTIONS" else _answer(request, services, trace, left)
        except Exception as error:
            left.error = _refusal(error)
            response = _failure(error, left.error, trace)
    trail.record(services, request, left, response.status, (time.perf_counter() - started) * 1000)
    response.headers.update(SECURITY_HEADERS | response.headers)
    response.headers.update(_cross_origin(request.headers.get("origin"), services.settings.cors_origins))
    response.headers["X-Request-Id"] = request.request_id
    if request.method == "HEAD":
        response = replace(response, body=b"")
    trace["status"] = response.status
    trace["duration_ms"] = round((time.perf_counter() - started) * 1000, 2)
    logger.info("request", extra=trace)
    return response


def _answer(request: Request, services: Services, trace: dict[str, Any], left: trail.Trail) -> Response:
    if sum(len(name) + len(value) for name, value in request.headers.items()) > MAX_HEADERS:
        raise HeadersTooLarge(f"Headers exceed {MAX_HEADERS} bytes")
    route, arguments = ROUTES.find("GET" if request.method == "HEAD" else request.method, request.path)
    trace["route"] = route.path  # not the path itself: a webhook's holds its key
    left.route, left.arguments = route, arguments
    principal, allowed = _admit(route.needs, request, services, left)
    if principal is not None:
        trace["tenant"] = principal.tenant
        trace["identity"] = principal.identity_id
    if len(request.body) > MAX_BODY:
        raise PayloadTooLarge(f"Body exceeds {MAX_BODY} bytes")
    body, form = _decode_body(route, request)
    call = Call(
        request,
        services,
        principal=principal,
        access=allowed,
        query=_decode_query(route, request),
        body=body,
        form=form,
    )
    left.call = call
    left.answer = route.handler(call, **arguments)
    response = _encode_answer(left.answer, route.status)
    response.cookies.extend(call.cookies)
    return response


def _admit(
    needs: Requirement, request: Request, services: Services, left: trail.Trail
) -> tuple[Principal | None, Access | None]:
    """The one check of the one table: who calls, and whether the route is theirs."""
    if not needs.signed_in:
        return None, None
    principal = left.principal = access.principal_of(request, services)
    if seconds := services.rates.wait((principal.tenant, principal.login)):
        raise TooMany("Too many requests", seconds)
    allowed = access.access_of(principal, services)
    if needs.tokens and principal.token_type not in needs.tokens:
        raise Forbidden(f"This takes a token of type {' or '.join(needs.tokens)}")
    if needs.at_the_door is not None and not allowed.allows(*needs.at_the_door):
        raise Forbidden.lacking(*needs.at_the_door)
    return principal, allowed


def _decode_query(route: Route, request: Request) -> Any:
    if route.query is None:
        return None
    try:
        return query_of(route.query, request.query)
    except msgspec.ValidationError as error:
        problem, path = explain(error)
        raise BadRequest(f"Query parameter '{path}': {problem}", {"path": path}) from error


def _decode_body(route: Route, request: Request) -> tuple[Any, Form | None]:
    if route.raw or (route.body is None and not route.multipart):
        return None, None
    content_type = request.headers.get("content-type", "")
    media_type = content_type.partition(";")[0].strip().lower()
    if route.multipart and media_type == "multipart/form-data":
        from chalicelib.api import forms  # only uploads pay for the parser

        return None, forms.parse(content_type, request.body)
    if route.body is None:
        raise UnsupportedMediaType("Expected a body with Content-Type: multipart/form-data")
    if not request.body.strip() and _may_be_missing(route.body):
        return None, None
    if not _JSON_TYPE.fullmatch(media_type):
        raise UnsupportedMediaType("Expected a body with Content-Type: application/json")
    return decode_json(request.body, route.body), None


_JSON_TYPE = re.compile(r"application/(json|[\w.+-]+\+json)")


def decode_json(body: bytes, kind: Any) -> Any:
    """Decode ``body`` into ``kind``; raises BadRequest if it is no JSON and ValidationFailed if it does not fit."""
    try:
        try:
            return _decoder(kind).decode(body)
        except msgspec.ValidationError as error:
            msgspec.json.decode(body)  # what is malformed further on is malformed, not ill-typed
            problem, path = explain(error)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequest(f"Malformed JSON: {error}") from error
    except RecursionError as error:
        raise BadRequest("Malformed JSON: nested too deeply") from error
    where = f"'{path}': " if path else ""
    raise ValidationFailed(f"{where}{problem}", {"path": path, "problem": problem})


@cache
def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind)


def _may_be_missing(kind: Any) -> bool:
    return isinstance(kind, types.UnionType) and type(None) in get_args(kind)


def explain(error: msgspec.ValidationError) -> tuple[str, str | None]:
    """Split "Expected `str`, got `int` - at `$.conditions[0]`" into problem and dotted path (None: the whole)."""
    problem, _, at = str(error).partition(" - at ")
    path = at.strip("`").removeprefix("key in `").removeprefix("$").removeprefix(".").rstrip("`")
    missing = re.search(r"missing required field `(\w+)`", problem)
    if missing:
        path = f"{path}.{missing[1]}" if path else missing[1]
        problem = "Missing required field"
    return problem.replace("`", "'"), path or None


def _encode_answer(answer: Any, status: int) -> Response:
    headers = {"Content-Type": "application/json"}
    if isinstance(answer, Raw):
        status = answer.status or status
        headers |= answer.headers
        answer = answer.value
    if answer is None:
        return Response(status, headers, b"")
    return Response(status, headers, answer if isinstance(answer, bytes) else _encode(answer))


def _failure(error: Exception, refused: ApiError, trace: dict[str, Any]) -> Response:
    trace["code"] = refused.code
    if refused.status >= 500:
        logger.error("request failed", exc_info=error, extra=trace)
    headers = {"Content-Type": "application/json", **refused.headers}
    return Response(refused.status, headers, _encode(refused.body()))


def _refusal(error: Exception) -> ApiError:
    """What the layers below raise, as the wire says it."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, StoreConflict):
        return Conflict(str(error))
    if isinstance(error, QuotaExceededError):
        return TooMany(str(error), retry_after=error.retry_after)
    if isinstance(error, PayloadRefusedError):
        return Unprocessable(str(error), details={"path": "payload", "violations": error.violations})
    if isinstance(error, (RefError, SchemaError, CriteriaError, ExpressionError)):
        return Unprocessable(str(error))
    return ApiError("Internal server error")


def _preflight(request: Request) -> Response:
    methods = ROUTES.methods_of(request.path)
    headers = {"Allow": ", ".join([*methods, "OPTIONS"])}
    if "origin" in request.headers:
        headers |= {
            "Access-Control-Allow-Methods": ", ".join(methods),
            "Access-Control-Allow-Headers": "Authorization, Content-Type, Accept, Idempotency-Key",
            "Access-Control-Max-Age": "600",
        }
    return Response(204, headers, b"")


def _cross_origin(origin: str | None, allowed: frozenset[str]) -> Mapping[str, str]:
    """CORS for the deployment's origins; credentials are allowed. Where there are any, caches must tell them apart."""
    if not allowed:
        return {}
    if origin is None or origin not in allowed:
        return {"Vary": "Origin"}
    return {
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Allow-Credentials": "true",
        "Access-Control-Expose-Headers": "X-Request-Id, Retry-After, X-Log-Offset, X-Log-Next-Offset, X-Log-Complete",
        "Vary": "Origin",
    }


def register(app: Chalice, services: Callable[[], Services] = process_services) -> None:
    """Put the API behind ``app``.

    API Gateway passes everything to one greedy resource, for :data:`ROUTES` is the only table there is: an unknown
    route, a wrong method and a wrong content type get the contract's error body rather than the gateway's, and the
    template does not grow with the API.
    """
    app.api.binary_types = list(BINARY_TYPES)

    def api() -> ChaliceResponse:
        incoming = app.current_request
        if incoming is None:
            raise LookupError("called outside of a request")
        response = handle(request_from(incoming), services())
        binary = response.headers.get("Content-Type") in BINARY_TYPES
        body = response.body if binary else response.body.decode()
        headers: dict[str, Any] = {**response.headers}
        if response.cookies:
            headers["Set-Cookie"] = response.cookies
        return ChaliceResponse(body=body, headers=headers, status_code=response.status)

    for prefix in PREFIXES:
        # An empty list switches Chalice's own content type check off.
        app.route(prefix, methods=list(METHODS), content_types=[], name="api")(api)


def request_from(incoming: ChaliceRequest) -> Request:
    """What API Gateway (REST, proxy integration) sent. The path comes from the resource and its parameters, because
    ``path`` may carry a stage or a base path."""
    parameters = incoming.uri_params or {}
    context = incoming.context
    query = incoming.to_original_event().get("multiValueQueryStringParameters") or {}
    body = incoming.raw_body
    path = "/" + parameters.get("proxy", "")
    full_path = context.get("path") or ""
    return Request(
        method=incoming.method,
        path=path,
        query=query,
        headers={name.lower(): value for name, value in incoming.headers.items()},
        body=body if isinstance(body, bytes) else body.encode(),
        client_ip=(context.get("identity") or {}).get("sourceIp") or "",
        request_id=context.get("requestId") or "",
        base_path=full_path.removesuffix(path) if full_path.endswith(path) else "",
    )
