"""The API without AWS: ``api`` is a signed-in client of the adapter, on services whose AWS is moto's.

Every test gets a tenant of its own, so that nothing it stores is seen by another.

    def test_a_pack_is_read_back(api):
        answer = api.post("/api/v1/packs", json={"ref": "mine", ...})
        assert answer.status == 201
        assert answer.data["ref"] == "mine"
        assert api.as_role("core.viewer").get("/api/v1/packs/mine").status == 404
"""

import json as jsonlib
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlencode
from uuid import uuid4

import msgspec
import pytest

from chalicelib import clients
from chalicelib.api import adapter
from chalicelib.api.routing import Request
from chalicelib.domain.entities import Execution, Grant, Identity, PermissionAssignment, PermissionSet
from chalicelib.flow.bootstrap import ensure_tenant
from chalicelib.services import Services
from chalicelib.store.registry import Put

QUEUES = ("events", "executions", "results")


@dataclass(frozen=True)
class Answer:
    """What came back. ``json`` is the decoded body, ``data`` and ``items`` its parts."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    cookies: Sequence[str] = ()  # as Set-Cookie has them

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    @property
    def data(self) -> Any:
        return self.json["data"]

    @property
    def items(self) -> list[Any]:
        return self.json["items"]

    @property
    def refs(self) -> list[str]:
        return [item["ref"] for item in self.items]


class Api:
    """A client of the adapter. ``token`` is sent as bearer; None: not signed in."""

    def __init__(self, services: Services, tenant: str, token: str | None = None, login: str = "") -> None:
        self.services = services
        self.tenant = tenant
        self.token = token
        self.login = login

    @property
    def registry(self) -> Any:
        return self.services.store.tenant(self.tenant).registry

    @property
    def activity(self) -> Any:
        return self.services.store.tenant(self.tenant).activity

    @property
    def identity(self) -> Identity:
        return self.registry.identities.get(self.login)

    def anonymous(self) -> "Api":
        return Api(self.services, self.tenant)

    def with_token(self, token: str) -> "Api":
        return Api(self.services, self.tenant, token)

    def as_role(self, *permission_set_refs: str, login: str | None = None, tenant: str | None = None) -> "Api":
        """A new identity that holds these permission sets (none: no permissions), signed in."""
        tenant = tenant or self.tenant
        if tenant != self.services.settings.default_tenant:
            ensure_tenant(self.services, tenant)
        registry = self.services.store.tenant(tenant).registry
        now = self.services.clock()
        identity = Identity(
            id=self.services.new_id(),
            ref=login or f"user-{secrets.token_hex(4)}@example.org",
            created=now,
            updated=now,
            assignments=[
                PermissionAssignment(id=self.services.new_id(), permission_set_ref=ref, created=now)
                for ref in permission_set_refs
            ],
        )
        registry.commit(Put(identity, new=True))
        token = self.services.tokens.issue_access(tenant=tenant, identity=identity, now=now)
        return Api(self.services, tenant, token, identity.login)

    def with_grants(self, *grants: Grant) -> "Api":
        """A new identity with exactly these grants, signed in."""
        now = self.services.clock()
        ref = f"test.set_{secrets.token_hex(4)}"
        granted = PermissionSet(id=self.services.new_id(), ref=ref, created=now, updated=now, grants=list(grants))
        self.registry.commit(Put(granted, new=True))
        return self.as_role(ref)

    def as_execution(self, *permission_set_refs: str, action_ref: str = "acme.do", **fields: Any) -> "Running":
        """The action of a new execution that runs with these permission sets, for the client's identity."""
        now = self.services.clock()
        given: dict[str, Any] = {"status": "running", "executor": self.identity.id} | fields
        execution = self.activity.create_execution(
            Execution(
                id=self.services.new_id(),
                action_ref=action_ref,
                permission_set_refs=list(permission_set_refs),
                created=now,
                updated=now,
                **given,
            )
        )
        token = self.services.tokens.issue_execution(
            tenant=self.tenant,
            execution=execution,
            action_ref=action_ref,
            pack_ref=action_ref.partition(".")[0],
            now=now,
        )
        return Running(self.services, self.tenant, token, execution.id)

    def sent(self, queue: str) -> list[Any]:
        """The messages of the client's tenant that wait in a queue of the deployment (events, executions, results),
        decoded. All that wait are taken out: the queues are shared, and other tests' messages are nobody's."""
        url = getattr(self.services.settings, f"{queue}_queue")
        taken: list[Any] = []
        while messages := clients.sqs().receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
            for message in messages:
                clients.sqs().delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
                taken.append(jsonlib.loads(message["Body"]))
        return [message for message in taken if message["tenant"] == self.tenant]

    def request(
        self,
        method: str,
        path: str,
        *,
        json: Any = ...,
        content: bytes = b"",
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        fields: Mapping[str, str] | None = None,
        files: Mapping[str, tuple[str, bytes]] | None = None,
    ) -> Answer:
        """``json`` is sent as the body; ``fields`` and ``files`` (name → filename, bytes) as a multipart form."""
        sent = {"content-type": "application/json", "user-agent": "pytest"} if json is not ... or content else {}
        if self.token is not None:
            sent["authorization"] = f"Bearer {self.token}"
        if fields is not None or files is not None:
            boundary = uuid4().hex
            sent["content-type"] = f"multipart/form-data; boundary={boundary}"
            content = multipart_body(boundary, fields or {}, files or {})
        sent |= {name.lower(): value for name, value in (headers or {}).items()}
        path, _, query = path.partition("?")
        query = "&".join(filter(None, [query, urlencode(params or {}, doseq=True)]))
        response = adapter.handle(
            Request(
                method=method,
                path=path,
                query=parse_qs(query, keep_blank_values=True),
                headers=sent,
                body=content if json is ... else msgspec.json.encode(json),
                client_ip="203.0.113.7",
                request_id=str(uuid4()),
            ),
            self.services,
        )
        return Answer(response.status, response.headers, response.body, response.cookies)

    def get(self, path: str, **options: Any) -> Answer:
        return self.request("GET", path, **options)

    def post(self, path: str, **options: Any) -> Answer:
        return self.request("POST", path, **options)

    def put(self, path: str, **options: Any) -> Answer:
        return self.request("PUT", path, **options)

    def delete(self, path: str, **options: Any) -> Answer:
        return self.request("DELETE", path, **options)


class Running(Api):
    """A client with the token of an execution."""

    def __init__(self, services: Services, tenant: str, token: str, execution_id: int) -> None:
        super().__init__(services, tenant, token)
        self.execution_id = execution_id

    def end(self, status: str = "completed") -> None:
        self.activity.transition(self.execution_id, from_=("running",), to=status, result={}, now=self.services.clock())


def multipart_body(boundary: str, fields: Mapping[str, str], files: Mapping[str, tuple[str, bytes]]) -> bytes:
    parts = [f'Content-Disposition: form-data; name="{name}"\r\n\r\n{value}'.encode() for name, value in fields.items()]
    parts += [
        f'Content-Disposition: form-data; name="{name}"; filename="{filename}"\r\n'
        f"Content-Type: application/octet-stream\r\n\r\n".encode()
        + data
        for name, (filename, data) in files.items()
    ]
    mark = f"--{boundary}".encode()
    return b"".join(mark + b"\r\n" + part + b"\r\n" for part in parts) + mark + b"--\r\n"


@pytest.fixture
def api(services: Services) -> Api:
    """Signed in as an administrator of the test's tenant."""
    return Api(services, services.settings.default_tenant).as_role("core.admin", login="admin@example.org")


@pytest.fixture
def roles(api: Api) -> Callable[[Sequence[str]], list[Api]]:
    """Clients for several permission sets at once."""
    return lambda refs: [api.as_role(ref) for ref in refs]
