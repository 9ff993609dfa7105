"""The one table of routes: path, permission, shapes and handler of each, declared side by side.

    @ROUTES.get("/api/v1/packs/{ref}", needs=readable("packs"), returns=Data[PackResponse], tag="packs", errors=(404,))
    def get_pack(call: Call, ref: str) -> Data[PackResponse]: ...

The adapter dispatches by it, the permission check reads it, and the OpenAPI document is made from it. A path parameter
whose annotation is ``int`` arrives as one; what is not an integer is 400.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote

from chalicelib.api import access
from chalicelib.api.errors import BadRequest, Forbidden, MethodNotAllowed, NotFound
from chalicelib.api.views import MAX_NUMBER, MAX_TEXT
from chalicelib.domain.entities import Pack

if TYPE_CHECKING:
    from chalicelib.domain.permissions import Access, Context
    from chalicelib.security.tokens import Principal, TokenType
    from chalicelib.services import Services
    from chalicelib.store.activity import Activity
    from chalicelib.store.blobs import Blobs
    from chalicelib.store.registry import Registry
    from chalicelib.store.snapshot import Snapshot

Handler = TypeVar("Handler", bound=Callable[..., Any])
Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class Requirement:
    """What a caller must be to get an answer; ``docs/access.md`` prints it.

    ``by_row``: the grant is asked of each row, not at the door, and what belongs to a standard pack needs none.
    ``unless`` says who needs no grant, or more than one: the handler asks. ``tokens``: only these types of tokens; none
    named means any. In every case the handler holds the grant against the row at hand (:meth:`Call.require`).
    """

    signed_in: bool = True
    resource: str | None = None
    action: str | None = None
    by_row: bool = False
    unless: str | None = None
    tokens: "tuple[TokenType, ...]" = ()

    @property
    def at_the_door(self) -> tuple[str, str] | None:
        """The resource and action that some grant of the caller must give, whatever its constraints."""
        if self.resource is None or self.action is None or self.by_row or self.unless is not None:
            return None
        return self.resource, self.action


PUBLIC = Requirement(signed_in=False)
SIGNED_IN = Requirement()
OWN_ACCOUNT = Requirement(tokens=("access",))


def grant(
    resource: str, action: str, *, unless: str | None = None, tokens: "tuple[TokenType, ...]" = ()
) -> Requirement:
    """Some grant of the caller gives ``action`` on ``resource``, whatever its constraints."""
    return Requirement(resource=resource, action=action, unless=unless, tokens=tokens)


def readable(resource: str) -> Requirement:
    """Lists are for everybody, and hold what the caller may read; a single thing must be among that."""
    return Requirement(resource=resource, action="read", by_row=True)


def tokens_of(*types: "TokenType") -> Requirement:
    """A token of one of these types."""
    return Requirement(tokens=types)


@dataclass(frozen=True, slots=True)
class Route:
    """``body`` is a struct type, or ``X | None`` where it may be missing; ``multipart`` routes take a form as well
    (``call.form``) and ``raw`` ones read ``call.raw_body`` whatever its content type."""

    method: str
    path: str
    handler: Callable[..., Any]
    needs: Requirement
    returns: Any
    query: Any
    body: Any
    multipart: bool
    raw: bool
    status: int
    tag: str
    errors: tuple[int, ...]
    parameters: tuple[tuple[str, bool], ...]  # name, is an integer
    media_type: str = "application/json"  # of a success

    @property
    def name(self) -> str:
        return self.handler.__name__


@dataclass(slots=True)
class _Node:
    literals: "dict[str, _Node]" = field(default_factory=dict)
    parameter: "_Node | None" = None
    methods: dict[str, Route] = field(default_factory=dict)


class Routes:
    """The table. Finding a route costs the number of the path's segments, not of the routes."""

    def __init__(self) -> None:
        self._root = _Node()
        self._all: list[Route] = []

    def __iter__(self) -> Iterator[Route]:
        return iter(self._all)

    def get(self, path: str, **options: Any) -> Callable[[Handler], Handler]:
        return self.route("GET", path, **options)

    def post(self, path: str, **options: Any) -> Callable[[Handler], Handler]:
        return self.route("POST", path, **options)

    def put(self, path: str, **options: Any) -> Callable[[Handler], Handler]:
        return self.route("PUT", path, **options)

    def patch(self, path: str, **options: Any) -> Callable[[Handler], Handler]:
        return self.route("PATCH", path, **options)

    def delete(self, path: str, **options: Any) -> Callable[[Handler], Handler]:
        return self.route("DELETE", path, **options)

    def route(
        self,
        method: str,
        path: str,
        *,
        needs: Requirement,
        returns: Any,
        tag: str,
        query: Any = None,
        body: Any = None,
        multipart: bool = False,
        raw: bool = False,
        status: int = 200,
        errors: Iterable[int] = (),
        media_type: str = "application/json",
    ) -> Callable[[Handler], Handler]:
        """Declare a route. ``errors`` are the statuses it may answer besides those of the frame (400, 401, 403, 415,
        422), for the documentation."""

        def declare(handler: Handler) -> Handler:
            names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
            self._add(
                Route(
                    method=method,
                    path=path,
                    handler=handler,
                    needs=needs,
                    returns=returns,
                    query=query,
                    body=body,
                    multipart=multipart,
                    raw=raw,
                    status=status,
                    tag=tag,
                    errors=tuple(errors),
                    parameters=tuple((name, handler.__annotations__.get(name) in (int, "int")) for name in names),
                    media_type=media_type,
                )
            )
            return handler

        return declare

    def _add(self, route: Route) -> None:
        node = self._root
        for part in _segments(route.path):
            if part.startswith("{"):
                node.parameter = node.parameter or _Node()
                node = node.parameter
            else:
                node = node.literals.setdefault(part, _Node())
        if route.method in node.methods:
            raise ValueError(f"{route.method} {route.path} is declared twice")
        node.methods[route.method] = route
        self._all.append(route)

    def find(self, method: str, path: str) -> tuple[Route, dict[str, Any]]:
        """The route and its decoded path parameters. A literal segment wins over a parameter.

        Raises NotFound, MethodNotAllowed (with ``Allow``), or BadRequest for an ill-typed parameter.
        """
        parts = _segments(path)
        allowed: set[str] = set()
        for node, values in _matches(self._root, parts, 0, ()):
            route = node.methods.get(method)
            if route is not None:
                return route, dict(_arguments(route, values))
            allowed |= set(node.methods)
        if not allowed:
            raise NotFound(f"No route for {path}")
        raise MethodNotAllowed(f"{method} is not allowed here", headers={"Allow": ", ".join(sorted(allowed))})

    def methods_of(self, path: str) -> list[str]:
        """The methods that ``path`` answers to, for a CORS preflight; raises NotFound."""
        found = {method for node, _ in _matches(self._root, _segments(path), 0, ()) for method in node.methods}
        if not found:
            raise NotFound(f"No route for {path}")
        return sorted(found)


def _segments(path: str) -> list[str]:
    return path.split("/")[1:]


def _matches(
    node: _Node, parts: list[str], at: int, values: tuple[str, ...]
) -> Iterator[tuple[_Node, tuple[str, ...]]]:
    if at == len(parts):
        if node.methods:
            yield node, values
        return
    part = parts[at]
    literal = node.literals.get(part)
    if literal is not None:
        yield from _matches(literal, parts, at + 1, values)
    if node.parameter is not None and part:
        yield from _matches(node.parameter, parts, at + 1, (*values, part))


def _arguments(route: Route, values: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    for (name, is_int), value in zip(route.parameters, values, strict=True):
        if not is_int:
            text = unquote(value)
            if len(text) > MAX_TEXT:  # no ref is longer, and DynamoDB refuses to look
                raise NotFound(f"There is no {name} of more than {MAX_TEXT} characters")
            yield name, text
        elif value.isascii() and value.isdigit() and len(value) < 20 and int(value) <= MAX_NUMBER:
            yield name, int(value)
        else:
            raise BadRequest(f"Path parameter '{name}' must be an integer, got '{value}'")


ROUTES = Routes()


@dataclass(frozen=True, slots=True)
class Request:
    """An HTTP request, whoever received it. Header names are lower-case; ``path`` has no stage in front."""

    method: str
    path: str
    query: Mapping[str, Sequence[str]]
    headers: Mapping[str, str]
    body: bytes
    client_ip: str
    request_id: str
    base_path: str = ""  # what stood before ``path``: a stage, or the base path of a domain


@dataclass(frozen=True, slots=True)
class Response:
    """``cookies`` are ``Set-Cookie`` values: the one header that comes more than once."""

    status: int
    headers: dict[str, str]
    body: bytes
    cookies: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Upload:
    """A file of a multipart form."""

    filename: str
    content_type: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Form:
    """A decoded multipart form. Of a repeated name the last counts; ``uploads`` has every file, in order."""

    fields: Mapping[str, str]
    files: Mapping[str, Upload]
    uploads: Sequence[Upload] = ()

    def flag(self, name: str) -> bool:
        """A boolean field: true, 1, yes or on, in any case."""
        return self.fields.get(name, "").strip().lower() in ("true", "1", "yes", "on")


class Call:
    """One request on its way through a handler, with everything the handler may use."""

    def __init__(
        self,
        request: Request,
        services: "Services",
        *,
        principal: "Principal | None" = None,
        access: "Access | None" = None,
        query: Any = None,
        body: Any = None,
        form: Form | None = None,
    ) -> None:
        self.request = request
        self.services = services
        self.query = query
        self.body = body
        self.form = form
        self.headers = request.headers
        self.raw_body = request.body
        self.request_id = request.request_id
        self.client_ip = request.client_ip
        self.now: datetime = services.clock()
        self.cookies: list[str] = []  # ``Set-Cookie`` values of the answer
        self.revealed: list[dict[str, Any]] = []  # for the audit log
        self.account: Principal | None = None  # for it, too: who is known on a public route
        self._principal = principal
        self._access = access
        self._packs: dict[str, Pack | None] = {}

    @property
    def user_agent(self) -> str | None:
        return self.headers.get("user-agent")

    @property
    def principal(self) -> "Principal":
        """Who calls. Only a PUBLIC route has none, and must not ask."""
        if self._principal is None:
            raise LookupError("a public route has no principal")
        return self._principal

    @property
    def access(self) -> "Access":
        """What the caller may do. Only a PUBLIC route has none, and must not ask."""
        if self._access is None:
            raise LookupError("a public route has no access")
        return self._access

    @cached_property
    def tenant(self) -> str:
        """The caller's tenant; on public routes the deployment's default one."""
        return self._principal.tenant if self._principal else self.services.settings.default_tenant

    @cached_property
    def registry(self) -> "Registry":
        return self.services.store.tenant(self.tenant).registry

    @cached_property
    def activity(self) -> "Activity":
        return self.services.store.tenant(self.tenant).activity

    @cached_property
    def blobs(self) -> "Blobs":
        return self.services.store.tenant(self.tenant).blobs

    @cached_property
    def snapshot(self) -> "Snapshot":
        """The cached view of the tenant's registry: at most a second or two old."""
        return self.services.snapshots.of(self.tenant)

    def allows(self, resource: str, action: str, context: "Context | None" = None) -> bool:
        return self.access.allows(resource, action, context)

    def require(self, resource: str, action: str, context: "Context | None" = None) -> None:
        """Raise Forbidden unless a grant of the caller gives ``action`` on that very row."""
        if not self.allows(resource, action, context):
            raise Forbidden.lacking(resource, action)

    def reveals(self, kind: str, ref: str) -> None:
        """Note for the audit log that the answer shows a secret value of the thing of this kind and ref."""
        self.revealed.append({"kind": kind, "ref": ref})

    def context_of(self, row: Any) -> "Context":
        """What the constraints of a grant are held against for ``row``, an entity."""
        return access.context_of(row, self.principal)

    def pack(self, ref: str | None) -> Pack | None:
        """The pack ``ref`` of the tenant or the system, cached; a new one is found at once."""
        if ref is None:
            return None
        if ref not in self._packs:
            self._packs[ref] = self.snapshot.pack(ref) or self.registry.packs.find(ref)
        return self._packs[ref]

    def may_read(self, resource: str, row: Any) -> bool:
        """Whether the caller may see ``row`` (README 2 and 3): what belongs to a standard pack always, what belongs to
        somebody's private pack only through grants that name it, anything else by its grants."""
        pack = self._owner(row)
        if pack is None:
            return self.allows(resource, "read", self.context_of(row))
        if pack.is_standard:
            return True
        if pack is row:
            return self.access.sees_pack(pack)
        return not self._hidden(row) and self.allows(resource, "read", self.context_of(row))

    def readable(self, resource: str, rows: Iterable[Row]) -> list[Row]:
        """The rows that the caller may see; filter before paging, so that totals are right."""
        return [row for row in rows if self.may_read(resource, row)]

    def to_read(self, resource: str, kind: str, ref: object, row: Row | None) -> Row:
        """``row`` if the caller may read it. Raises NotFound (absent, or in a pack that is hidden from the caller) or
        Forbidden. ``kind`` and ``ref`` go into the message.
        """
        if row is None:
            raise NotFound.of(kind, ref)
        if not self.may_read(resource, row):
            if self._hidden(row):
                raise NotFound.of(kind, ref)
            raise Forbidden.lacking(resource, "read")
        return row

    def to_write(self, resource: str, action: str, kind: str, ref: object, row: Row | None) -> Row:
        """``row`` if the caller may do ``action`` to it. Raises NotFound, or Forbidden: also for what belongs to a
        standard pack, which no tenant may write, and for a hidden pack's (http-api 1.4)."""
        if row is None:
            raise NotFound.of(kind, ref)
        if self._standard(row):
            raise Forbidden(f"{kind} '{ref}' belongs to a standard pack and cannot be changed")
        if self._hidden(row):
            raise Forbidden.lacking(resource, action)
        self.require(resource, action, self.context_of(row))
        return row

    def _standard(self, row: Any) -> bool:
        pack = self._owner(row)
        return pack is not None and pack.is_standard

    def _hidden(self, row: Any) -> bool:
        pack = self._owner(row)
        return pack is not None and pack.visibility == "private" and not self.access.sees_pack(pack)

    def _owner(self, row: Any) -> Pack | None:
        if isinstance(row, Pack):
            return row
        return self.pack(row.pack_ref) if isinstance(row, access.COMPONENTS) else None
