"""Requests that the OpenAPI document allows, and some that it does not, sent to a running stack (schemathesis).

Random refs lead to 404 and no further, so half of the requests name something that is there: what the collections list
for whoever asks.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from random import Random
from typing import Any, Final

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import Case, CheckContext, GenerationMode, Response
from schemathesis.checks import load_all_checks
from schemathesis.core.result import Ok
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from helpers.client import AttuneClient

AnyOperation = APIOperation[Any, Any, Any, Any]
AnyCase = Case[AnyOperation]

_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")  # in this order, so that what is there is seen first
# What the document cannot say of a field: that it is a schema, a condition, a version, or whose the thing is.
_EMPTY: Final = ["param_schema", "out_schema", "conf_schema", "conditions", "trigger_params", "action_params"]
_NULL: Final = [
    "owner",
    "owner_identity",
    "owner_pack",
    "owner_pack_ref",
    "owner_action",
    "owner_action_ref",
    "owner_sensor",
    "owner_sensor_ref",
    "worker_selector",
    "worker_affinity",
    "worker_tolerations",
    "required_worker_runtimes",
    "runtime_version_constraint",
    "container",
    "env_vars",
    "secrets",
    "permission_set_refs",
    "default_execution_permission_set_refs",
]
_PLAIN: Final[Mapping[str, Any]] = {
    "version": "1.0.0",
    **{field: {} for field in _EMPTY},
    **dict.fromkeys(_NULL),
}
_PARAMETER: Final = re.compile(r"(?P<collection>/[^{}]*)/\{(?P<name>\w+)\}")


def no_server_error(_context: CheckContext, response: Response, _case: AnyCase) -> bool | None:
    """Nothing breaks. 501 and 503 are answers, if the document has them: the deployment does not offer this, or what it
    needs for it is away (http-api 1.2)."""
    assert response.status_code < 500 or response.status_code in (501, 503), response.text[:300]
    return None


CHECKS: Final = [
    no_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


class Fuzzer:
    """Sends ``examples`` requests to each operation in the name of ``client``, from ``address`` as far as the stack
    believes it. What it makes goes into ``pack`` where it can; None: it names nothing that is there."""

    def __init__(self, client: AttuneClient, *, examples: int, address: str, pack: str | None) -> None:
        load_all_checks()
        self._pack = pack
        self._client = client
        self._examples = examples
        document = client.call("GET", "/api-spec/openapi.json")
        self._schema = schemathesis.openapi.from_dict(document)
        self._session = requests.Session()
        self._session.headers.update({"Authorization": f"Bearer {client.token}", "X-Forwarded-For": address})
        self._there = dict(self._collections()) if pack else {}
        self.sent = 0
        self.statuses: dict[int, int] = {}

    def operations(self, wanted: Callable[[AnyOperation], bool] = lambda _: True) -> list[AnyOperation]:
        """The operations of the document, by method and path."""
        found = [result.ok() for result in self._schema.get_all_operations() if isinstance(result, Ok)]
        return sorted(filter(wanted, found), key=lambda each: (_METHODS.index(each.method.upper()), each.path))

    def try_out(self, operation: AnyOperation) -> list[str]:
        """What is wrong with the answers of one operation; the same requests with every call."""
        problems: dict[str, str] = {}

        @settings(
            max_examples=self._examples,
            derandomize=True,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=self._cases(operation))
        def send(case: AnyCase) -> None:
            response = case.call(base_url=self._client.base_url, session=self._session, timeout=60)
            self.sent += 1
            self.statuses[response.status_code] = self.statuses.get(response.status_code, 0) + 1
            try:
                case.validate_response(response, checks=CHECKS)
            except BaseExceptionGroup as found:
                for each in found.exceptions:
                    problems.setdefault(
                        f"{operation.label}: {type(each).__name__}", f"{each}\n{case.as_curl_command()}"
                    )
            except AssertionError as found:
                problems.setdefault(f"{operation.label}: {type(found).__name__}", f"{found}\n{case.as_curl_command()}")

        send()
        return [f"{name}: {text}"[:1_500] for name, text in problems.items()]

    def _cases(self, operation: AnyOperation) -> "st.SearchStrategy[AnyCase]":
        modes = (GenerationMode.POSITIVE, GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
        cases = st.one_of([operation.as_strategy(generation_mode=mode) for mode in modes])
        in_path = {name: st.sampled_from(values) for name, values in self._named_in(operation.path).items()}
        naming = st.fixed_dictionaries(in_path)
        return st.builds(self._naming, cases, st.one_of(naming, naming, st.none()), st.randoms(use_true_random=False))

    def _naming(self, case: AnyCase, in_path: Mapping[str, Any] | None, random: Random) -> AnyCase:
        """``case``, naming things that are there, and those that it makes in a way that a ref can have."""
        if in_path is None:
            return case
        if case.path_parameters is not None:
            case.path_parameters.update(in_path)
        if isinstance(case.body, dict):
            for field in case.body:
                there = self._there.get(f"/api/v1/{field.removesuffix('_ref')}s", ())
                if field == "ref" and self._pack:
                    name = f"x{random.randrange(10**9)}"
                    case.body[field] = name if case.path.endswith("/packs") else f"{self._pack}.{name}"
                elif field == "pack_ref" and self._pack:
                    case.body[field] = self._pack
                elif field.endswith("_ref") and there:
                    case.body[field] = random.choice(there)["ref"]
                elif field in _PLAIN:
                    case.body[field] = _PLAIN[field]
        return case

    def _named_in(self, path: str) -> dict[str, list[Any]]:
        """For the path's parameters, what there is that they may name."""
        found: dict[str, list[Any]] = {}
        for match in _PARAMETER.finditer(path):
            collection = path[: match.end("collection")]
            name = match["name"]
            field = "id" if name.endswith("id") else "ref"
            values = [row[key] for row in self._there.get(collection, ()) for key in (name, field) if row.get(key)]
            if values:
                found[name] = list(dict.fromkeys(values))
        return found

    def _collections(self) -> Iterator[tuple[str, list[dict[str, Any]]]]:
        """What the caller sees of every list, by its path."""
        for operation in self.operations(lambda each: each.method.upper() == "GET" and "{" not in each.path):
            answer = self._client.request("GET", operation.path)
            is_json = answer.content and answer.headers.get("content-type") == "application/json"
            body = answer.json() if is_json else None
            rows = body.get("items", body.get("data")) if isinstance(body, dict) else body
            if isinstance(rows, list):
                yield operation.path, [row for row in rows if isinstance(row, dict)]
