"""Two tenants with one of everything, and a plausible request for any route of the table.

A route of a kind of thing that is here is asked for by itself. For a new kind of thing, put one into :func:`furnish`
and say in :data:`STANDS_FOR` after which part of a path it is named; a body's field whose value must mean something
goes into :meth:`World.value`.
"""

import copy
import io
import json
import re
import tarfile
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
from moto.core import DEFAULT_ACCOUNT_ID
from moto.dynamodb.models import dynamodb_backends
from unit.api.conftest import Answer, Api

from chalicelib.api.routing import Route
from chalicelib.domain.entities import SYSTEM_TENANT, Enforcement, Event, Execution, Identity, Pack, Runtime
from chalicelib.flow import packs
from chalicelib.flow.bootstrap import ensure_tenant
from chalicelib.security import passwords
from chalicelib.services import Services, open_services
from chalicelib.settings import Settings
from chalicelib.store.registry import Put

ROLES = ("core.admin", "core.editor", "core.executor", "core.viewer", "nobody")
PASSWORD = "correct horse battery"
CORE = Path(__file__).resolve().parents[3] / "packs" / "core"

# What a path's parameter stands for, by what comes before it; the longest wins.
STANDS_FOR = {
    "packs": "pack",
    "actions": "action",
    "triggers": "trigger",
    "sensors": "sensor",
    "rules": "rule",
    "runtimes": "runtime",
    "workflows": "workflow",
    "keys": "key",
    "identities": "identity",
    "identities/roles": "role_assignment",
    "integration-tokens": "integration_token",
    "permissions/sets": "permission_set",
    "permissions/sets/roles": "set_role",
    "permissions/assignments": "assignment",
    "events": "event",
    "enforcements": "enforcement",
    "executions": "execution",
    "inquiries": "inquiry",
    "tenants": "tenant",
    "webhooks": "webhook_key",
    "audit-events": "execution",  # whose start is in the audit log
}
# Parameters that name no thing of a tenant's.
PLAIN = {
    "executions/status": "completed",
    "inquiries/status": "pending",
    "logs": "stdout",
    "audit-events/by-request": "00000000-0000-0000-0000-000000000000",
}
WORKFLOW = {"version": "1.0.0", "tasks": [{"name": "one", "action": "core.noop"}]}


@dataclass
class World:
    """One tenant and what is in it. ``things`` are the refs and ids that paths name; every ref has ``mark`` in it."""

    tenant: str
    mark: str
    things: dict[str, Any] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)  # by role; and "expired", "frozen"

    def parameters(self, route: Route) -> dict[str, Any]:
        """The parameters of the route's path that name things of this world."""
        return {name: self.things[kind] for name, kind in kinds_of(route).items() if kind is not None}

    def path(self, route: Route) -> str:
        """The route's path with this world's things in it."""
        kinds = kinds_of(route)

        def value(match: re.Match[str]) -> str:
            kind = kinds[match[1]]
            return quote(str(plain_value(route.path, match[1]) if kind is None else self.things[kind]), safe="")

        return re.sub(r"\{(\w+)\}", value, route.path)

    def body(self, route: Route) -> Any:
        """A body that the route takes; None: it takes none."""
        kind = route.body
        arms = [arm for arm in typing.get_args(kind) if arm is not type(None)] if kind is not None else []
        if type(None) in typing.get_args(kind):
            kind = arms[0]
        if kind is None:
            return None
        if not (isinstance(kind, type) and issubclass(kind, msgspec.Struct)):
            return {}
        return self.struct(kind)

    def struct(self, kind: type[msgspec.Struct]) -> dict[str, Any]:
        """What a struct must have, and what is worth having."""
        made = {}
        for each in msgspec.inspect.type_info(kind).fields:
            known = self.value(kind.__name__, each.encode_name)
            if known is not None:
                made[each.encode_name] = known
            elif each.required:
                made[each.encode_name] = self.sample(each.type)
        return made

    def value(self, struct: str, name: str) -> Any:
        """What a field means, where its type does not say it. None: leave it to the type, or out."""
        things, mark = self.things, self.mark
        by_struct: dict[tuple[str, str], Any] = {
            ("CreatePackRequest", "ref"): f"{mark}_new",
            ("CreateKeyRequest", "ref"): f"{mark}.new",
            ("CreateKeyRequest", "owner_type"): "system",
            ("CreateWorkflowRequest", "definition"): WORKFLOW,
            ("SaveWorkflowFileRequest", "definition"): WORKFLOW,
            ("SaveWorkflowFileRequest", "name"): "new",
            ("CreatePermissionAssignmentRequest", "identity_id"): things.get("identity"),
            ("CreateEventRequest", "trigger_ref"): things.get("trigger"),
            ("CreateInquiryRequest", "execution"): things.get("execution"),
            ("LoginRequest", "tenant"): self.tenant,
            ("LoginRequest", "login"): f"viewer@{mark}",
            ("RefreshTokenRequest", "refresh_token"): self.tokens.get("refresh"),
            ("TokenLoginRequest", "token"): self.tokens.get("integration"),
            ("InquiryRespondRequest", "response"): {"answer": "yes"},
            ("RegisterPackRequest", "path"): "demo",
        }
        if (struct, name) in by_struct:
            return by_struct[struct, name]
        if not struct.startswith(("Create", "Save", "Execute")) and name.endswith("_ref"):
            return None
        return {
            "ref": f"{mark}.new",
            "pack_ref": things.get("pack"),
            "action_ref": things.get("action"),
            "trigger_ref": things.get("trigger"),
            "runtime_ref": "core.shell",
            "sensor_ref": things.get("sensor"),
            "trigger_types": [things.get("trigger")] if struct == "CreateSensorTokenRequest" else None,
            "permission_set_ref": "core.viewer",
            "grants": [{"resource": "packs", "actions": ["read"]}],
            "label": "Label",
            "version": "1.0.0",
            "entrypoint": "echo hello",
            "slug": f"{mark}-new",
            "role": "ops-new",
            "login": f"new@{mark}",
            "password": PASSWORD,
            "current_password": PASSWORD,
            "new_password": "another password",
        }.get(name)

    def sample(self, kind: Any) -> Any:
        """Some value of a type."""
        match type(kind).__name__:
            case "StrType":
                return "x" * max(kind.min_length or 0, 3)
            case "IntType" | "FloatType":
                return max(kind.ge or 0, 1)
            case "BoolType":
                return True
            case "ListType" | "CollectionType":
                return []
            case "LiteralType":
                return kind.values[0]
            case "UnionType":
                return self.sample(kind.types[0])
            case "StructType":
                return self.struct(kind.cls)
            case "AnyType":
                return {"any": "thing"}
        return {}

    def ask(
        self,
        services: Services,
        route: Route,
        token: str | None,
        *,
        of: "World | None" = None,
        more: Mapping[str, Any] | None = None,
        params: Mapping[str, str] | None = None,
    ) -> Answer:
        """Ask for the route with this world's body and, in the path, the things of the world ``of``. ``more`` and
        ``params`` go into the body and the query as they are."""
        client = Api(services, self.tenant, token)
        options: dict[str, Any] = {}
        if route.multipart:
            options["files"] = {"pack": ("pack.tar.gz", self.archive()), "file": ("a.sh", b"echo hello")}
        elif route.raw:
            options["json"] = {"payload": {}}
        elif (body := ((of or self) if route.path in OF_THE_PATH else self).body(route)) is not None:
            options["json"] = body | BODIES.get(route.path, {}) | dict(more or {})
        if route.query is not None:
            options["params"] = (
                {
                    each.encode_name: str(self.sample(each.type))
                    for each in msgspec.inspect.type_info(route.query).fields
                    if each.required
                }
                | QUERIES.get(route.path, {})
                | dict(params or {})
            )
        return client.request(route.method, (of or self).path(route), **options)

    def archive(self) -> bytes:
        """A pack to upload."""
        text = f"ref: {self.mark}_up\nname: Up\nversion: 1.0.0\n".encode()
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as archive:
            info = tarfile.TarInfo("pack.yaml")
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text))
        return packed.getvalue()


BODIES: dict[str, dict[str, Any]] = {"/api/v1/workflows/{ref}/file": {"name": "flow"}}
# Bodies that must say what the path says, or are refused unseen.
OF_THE_PATH = frozenset({"/api/v1/workflows/{ref}/file", "/api/v1/packs/{pack_ref}/workflow-files"})
QUERIES: dict[str, dict[str, str]] = {"/api/v1/actions/search": {"q": "a"}}


def kinds_of(route: Route) -> dict[str, str | None]:
    """What each parameter of the route's path stands for; None: nothing of a tenant's. Raises KeyError for a parameter
    that nobody has said it of."""
    return {name: _kind(route.path, name) for name, _ in route.parameters}


def _kind(path: str, name: str) -> str | None:
    before = _before(path, name)
    for parts in range(len(before), 0, -1):
        last = "/".join(before[-parts:])
        if last in PLAIN:
            return None
        if last in STANDS_FOR:
            return STANDS_FOR[last]
    raise KeyError(f"tests/unit/api/world.py does not know what {{{name}}} stands for in {path}")


def plain_value(path: str, name: str) -> str:
    before = _before(path, name)
    return next(PLAIN[last] for n in range(len(before), 0, -1) if (last := "/".join(before[-n:])) in PLAIN)


def _before(path: str, name: str) -> list[str]:
    """The fixed parts of a path right before a parameter."""
    parts = path[: path.index(f"/{{{name}}}")].split("/")
    fixed: list[str] = []
    while parts and not parts[-1].startswith("{") and parts[-1]:
        fixed.insert(0, parts.pop())
    return fixed


# Making it


class Stage:
    """The deployment in which the worlds ``mine`` and ``other`` are; :meth:`restored` is how it was at first."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        services = open_services(settings)
        core = packs.read_directory(CORE)
        packs.install(services, SYSTEM_TENANT, core, visibility="standard", force=True)
        self.mine = furnish(services, settings.default_tenant, "alpha")
        ensure_tenant(services, "t-beta")
        self.other = furnish(services, "t-beta", "beta")
        self._held = dynamodb_backends[DEFAULT_ACCOUNT_ID]["us-east-1"].tables
        self._kept = {name: copy.deepcopy(self._held[name].items) for name in ("registry", "activity")}
        self._rows = {world.tenant: self.rows_of(world.tenant) for world in (self.mine, self.other)}
        self._services: Services | None = None

    def services(self) -> Services:
        """Services over the tables as they are; none of their caches is from before the last :meth:`restore`."""
        if self._services is None:
            self._services = open_services(self._settings)
        return self._services

    def restore(self) -> None:
        """Put everything back to how it was at first."""
        for name, items in self._kept.items():
            self._held[name].items = copy.deepcopy(items)
            if (stream := self._held[name].stream_shard) is not None:
                stream.items.clear()
        self._services = None

    def changed(self, tenant: str) -> bool:
        """Whether what a tenant has stored is other than at first."""
        return self.rows_of(tenant) != self._rows[tenant]

    def rows_of(self, tenant: str) -> dict[tuple[str, str, str], str]:
        """Everything that a tenant has stored, to be compared; but for the audit log, which tells of all attempts."""
        return {
            (name, hash_key.value, str(range_key.value)): json.dumps(item.to_json(), sort_keys=True)
            for name in self._kept
            for hash_key, by_range in self._held[name].items.items()
            if hash_key.value.split("#")[0] == tenant and hash_key.value.split("#")[1:] != ["audit"]
            for range_key, item in by_range.items()
        }


def furnish(services: Services, tenant: str, mark: str) -> World:
    """A world in ``tenant``: identities of every role, and one of each kind of thing."""
    world = World(tenant, mark)
    hashed = passwords.hash_password(PASSWORD)
    root = Api(services, tenant).as_role("core.admin", login=f"root@{mark}", tenant=tenant)
    for role in ROLES:
        client = Api(services, tenant).as_role(
            *([] if role == "nobody" else [role]), login=f"{role.removeprefix('core.')}@{mark}", tenant=tenant
        )
        _set(client, password_hash=hashed)
        world.tokens[role] = client.token or ""
    frozen = Api(services, tenant).as_role("core.admin", login=f"frozen@{mark}", tenant=tenant)
    _set(frozen, frozen=True)
    world.tokens["frozen"] = frozen.token or ""
    hours_ago = services.clock() - timedelta(hours=2)
    world.tokens["expired"] = services.tokens.issue_access(tenant=tenant, identity=root.identity, now=hours_ago)
    _furnish_pack(root, world)
    _furnish_people(root, world)
    _furnish_past(root, world)
    return world


def _set(client: Api, **fields: Any) -> None:
    client.registry.commit(Put(msgspec.structs.replace(client.identity, **fields)))


def _made(client: Api, path: str, body: Mapping[str, Any]) -> Any:
    answer = client.post(path, json=body)
    assert answer.status in (200, 201), (path, answer.json)
    return answer.data


def _furnish_pack(root: Api, world: World) -> None:
    """A pack that everybody in the tenant sees, with components."""
    mark, now = world.mark, root.services.clock()

    def row(kind: Any, ref: str, **fields: Any) -> Any:
        return kind(id=root.services.new_id(), ref=ref, created=now, updated=now, **fields)

    pack = row(Pack, mark, label=mark, version="1.0.0")
    runtime = row(Runtime, f"{mark}.runtime", name="R", pack=pack.id, pack_ref=mark)
    root.registry.commit(Put(pack, new=True), Put(runtime, new=True))
    world.things |= {"tenant": world.tenant, "pack": mark, "runtime": runtime.ref}
    common = {"pack_ref": mark, "label": "L"}
    for kind in ("trigger", "action", "rule", "sensor"):
        ref = f"{mark}.{kind}"
        names = {"trigger_ref": f"{mark}.trigger", "action_ref": f"{mark}.action"} if kind == "rule" else {}
        if kind == "sensor":
            names = {"trigger_ref": f"{mark}.trigger", "enabled": False}
        more = {} if kind in ("trigger", "rule") else {"entrypoint": "a.sh", "runtime_ref": "core.shell"}
        _made(root, f"/api/v1/{kind}s", {"ref": ref, **common, **names, **more})
        world.things[kind] = ref
    _made(root, f"/api/v1/triggers/{mark}.trigger/webhooks/enable", {})
    world.things["webhook_key"] = root.registry.triggers.get(f"{mark}.trigger").webhook_key
    _made(root, "/api/v1/workflows", {"ref": f"{mark}.flow", **common, "version": "1.0.0", "definition": WORKFLOW})
    world.things["workflow"] = f"{mark}.flow"
    key = {"ref": f"{mark}.key", "owner_type": "pack", "owner_pack_ref": mark, "name": "key", "value": f"{mark} value"}
    _made(root, "/api/v1/keys", key)
    world.things["key"] = f"{mark}.key"


def _furnish_people(root: Api, world: World) -> None:
    """An identity with a role, a permission set and an integration token, and a permission set that a role gives."""
    mark = world.mark
    bob = _made(root, "/api/v1/identities", {"login": f"bob@{mark}", "password": PASSWORD})["id"]
    grants = [{"resource": "packs", "actions": ["read"]}]
    made = _made(root, "/api/v1/permissions/sets", {"ref": f"{mark}.set", "grants": grants})["id"]
    assigned = {"identity_id": bob, "permission_set_ref": "core.executor"}
    token = _made(root, f"/api/v1/identities/{bob}/integration-tokens", {"label": f"{mark} token"})
    world.things |= {
        "identity": bob,
        "permission_set": made,
        "role_assignment": _made(root, f"/api/v1/identities/{bob}/roles", {"role": "ops"})["id"],
        "set_role": _made(root, f"/api/v1/permissions/sets/{made}/roles", {"role": "ops"})["id"],
        "assignment": _made(root, "/api/v1/permissions/assignments", assigned)["id"],
        "integration_token": token["integration_token"]["id"],
        "identity_login": f"bob@{mark}",
        "permission_set_ref": f"{mark}.set",
    }
    world.tokens["integration"] = token["token"]
    world.tokens["refresh"] = root.services.tokens.issue_refresh(
        tenant=world.tenant, identity=_identity(root, f"bob@{mark}"), now=root.services.clock(), family="f"
    )


def _identity(client: Api, login: str) -> Identity:
    found: Identity = client.registry.identities.get(login)
    return found


def _furnish_past(root: Api, world: World) -> None:
    """An event, its enforcement with a running execution, and another execution that waits for an answer."""
    mark, services, now = world.mark, root.services, root.services.clock()
    refs = {"trigger_ref": f"{mark}.trigger", "rule_ref": f"{mark}.rule"}
    event = Event(id=services.new_id(), created=now, payload={"of": mark}, **refs)
    enforcement = Enforcement(
        id=services.new_id(), rule=1, event=event.id, status="processed", created=now, payload={"of": mark}, **refs
    )
    execution = Execution(
        id=enforcement.id,
        action_ref=f"{mark}.action",
        status="running",
        enforcement=enforcement.id,
        config={"of": mark},
        created=now,
        updated=now,
        started_at=now,
        **refs,
    )
    root.activity.record_events([(event, "key")])
    (started,) = root.activity.start([(enforcement, execution, "key")])
    asking = root.as_execution(action_ref=f"{mark}.action")
    inquiry = _made(root, "/api/v1/inquiries", {"execution": asking.execution_id, "prompt": f"{mark}?"})
    world.things |= {
        "event": event.id,
        "enforcement": started.id,
        "execution": started.id,
        "inquiry": inquiry["id"],
    }
