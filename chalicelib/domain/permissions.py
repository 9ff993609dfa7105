"""Who may do what: grants, their constraints, and the default permission sets (``semantics.md`` §2.10).

A grant names a resource and actions, and may narrow them by constraints, all of which must hold for the thing at hand
(the :class:`Context`). Any one grant that allows is enough; a context that lacks what a constraint asks about fails it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from chalicelib.domain.entities import Grant, Json, Pack

RESOURCES: Final = (
    "packs", "actions", "queues", "rules", "triggers", "executions", "events", "enforcements", "inquiries", "keys",
    "artifacts", "runtimes", "workers", "retention", "identities", "permissions", "audit_log", "tenants",
)  # fmt: skip
ACTIONS: Final = (
    "read", "create", "install", "configure", "update", "delete", "execute", "cancel", "respond", "manage", "decrypt",
)  # fmt: skip
CONSTRAINTS: Final = (
    "pack_refs", "owner", "owner_types", "owner_refs", "visibility", "execution_scope", "refs", "ids", "encrypted",
    "attributes",
)  # fmt: skip
NAMING: Final = frozenset({"pack_refs", "refs", "ids"})  # README 2: what opens somebody else's private pack
OWNING: Final = frozenset({"owner", "owner_types", "owner_refs"})  # §2.10: what opens somebody else's keys

_CRUD = ["read", "create", "update", "delete"]


def _grants(actions: Mapping[str, Sequence[str]]) -> tuple[Grant, ...]:
    return tuple(Grant(resource=resource, actions=list(allowed)) for resource, allowed in actions.items())


DEFAULT_SETS: Final[Mapping[str, tuple[Grant, ...]]] = {
    "core.admin": _grants({
        "packs": ["read", "create", "install", "configure", "delete"],
        "actions": [*_CRUD, "execute"],
        "queues": _CRUD,
        "rules": _CRUD,
        "triggers": _CRUD,
        "executions": ["read", "update", "cancel"],
        "events": ["read"],
        "enforcements": ["read"],
        "inquiries": [*_CRUD, "respond"],
        "keys": [*_CRUD, "decrypt"],
        "artifacts": _CRUD,
        "runtimes": _CRUD,
        "identities": _CRUD,
        "workers": ["read", "manage"],
        "retention": ["read", "update"],
        "permissions": [*_CRUD, "manage"],
        "audit_log": ["read"],
    }),
    "core.editor": _grants({
        "packs": ["read", "create", "install", "configure"],
        "actions": ["read", "create", "update", "execute"],
        "queues": _CRUD,
        "rules": ["read", "create", "update"],
        "triggers": ["read"],
        "executions": ["read", "cancel"],
        "keys": ["read", "update", "decrypt"],
        "artifacts": ["read"],
        "runtimes": ["read", "create", "update"],
        "workers": ["read"],
    }),
    "core.executor": _grants({
        "packs": ["read"],
        "actions": ["read", "execute"],
        "rules": ["read"],
        "triggers": ["read"],
        "executions": ["read"],
        "keys": ["read"],
        "artifacts": ["read"],
        "runtimes": ["read"],
        "workers": ["read"],
    }),
    "core.viewer": _grants({
        "packs": ["read"],
        "actions": ["read"],
        "queues": ["read"],
        "rules": ["read"],
        "triggers": ["read"],
        "executions": ["read"],
        "keys": ["read"],
        "artifacts": ["read"],
        "runtimes": ["read"],
        "workers": ["read"],
    }),
    # Who runs the deployment, and gives tenants their room. Counts in the deployment's default tenant only.
    "core.platform_admin": _grants({"tenants": _CRUD}),
}  # fmt: skip


class GrantError(ValueError):
    """A grant that names what does not exist; the message says which."""


@dataclass(frozen=True, slots=True)
class Context:
    """What is known of the thing that someone wants to act on; None: not known or not applicable.

    ``owner_identity`` is the identity that owns it. ``execution_relation`` is how an execution stands to the execution
    whose token asks: itself, a descendant of it, or another.
    """

    pack_ref: str | None = None
    ref: str | None = None
    id: int | None = None
    owner_identity: int | None = None
    owner_type: str | None = None
    owner_ref: str | None = None
    visibility: str | None = None
    encrypted: bool | None = None
    execution_relation: Literal["self", "descendant", "other"] | None = None


class Access:
    """What one caller may do: the grants of all its permission sets, its identity and that identity's attributes.

    A grant for identities with other attributes is none of its: it neither allows anything nor can be handed on.
    """

    def __init__(
        self, grants: Iterable[Grant], identity_id: int | None = None, attributes: Mapping[str, Json] | None = None
    ) -> None:
        self.identity_id = identity_id
        self._attributes = attributes or {}
        self._grants: dict[tuple[str, str], list[Grant]] = {}
        for grant in grants:
            if self._is_addressed_by(grant):
                for action in grant.actions:
                    self._grants.setdefault((grant.resource, action), []).append(grant)

    def allows(self, resource: str, action: str, context: Context | None = None) -> bool:
        """Whether ``action`` on ``resource`` is allowed for the thing that ``context`` describes.

        Without a context: whether any grant gives it for anything at all, which decides whether a route may be entered.
        """
        grants = self._grants.get((resource, action), ())
        if context is None:
            return bool(grants)
        if resource == "keys" and self._is_of_somebody_else(context):
            grants = [grant for grant in grants if _is_narrowed_by(grant, OWNING)]
        return any(self._holds(grant.constraints, context) for grant in grants)

    def effective(self) -> dict[str, list[str]]:
        """The actions it has on something at least, by resource, both in the order of the contract's lists."""
        return {
            resource: actions
            for resource in RESOURCES
            if (actions := [action for action in ACTIONS if (resource, action) in self._grants])
        }

    def covers(self, grants: Iterable[Grant]) -> bool:
        """Whether every one of ``grants`` is within its own, so that it may hand them on (``can_delegate``).

        One grant is within another when that one has no constraint, or the same or wider ones. Who may change triggers
        may have their events reported, and so hands that on as well: by a sensor token, or by events:create, which no
        default set holds.
        """
        return all(
            any(_is_within(grant, mine) for mine in self._to_hand_on(grant.resource, action))
            for grant in grants
            for action in grant.actions
        )

    def _to_hand_on(self, resource: str, action: str) -> list[Grant]:
        own = self._grants.get((resource, action), [])
        if (resource, action) == ("events", "create"):
            return own + self._grants.get(("triggers", "update"), [])
        return own

    def covers_change(self, before: Iterable[Grant], after: Iterable[Grant]) -> bool:
        """Whether all that ``after`` gives and ``before`` did not is within its own."""
        had = list(before)
        return self.covers(
            one
            for one in _single(after)
            if not any(
                one.resource == each.resource and one.actions[0] in each.actions and _is_within(one, each)
                for each in had
            )
        )

    def sees_pack(self, pack: Pack, action: str = "read") -> bool:
        """Whether ``pack`` exists for this caller (README 2).

        Standard packs do for everybody (to read); private ones for who created them and for grants that name them.
        """
        if pack.visibility == "standard" and action == "read":
            return True
        context = Context(pack_ref=pack.ref, ref=pack.ref, id=pack.id, owner_identity=pack.installed_by)
        if pack.visibility != "private" or (pack.installed_by is not None and pack.installed_by == self.identity_id):
            return self.allows("packs", action, context)
        return any(
            _is_narrowed_by(grant, NAMING) and self._holds(grant.constraints, context)
            for grant in self._grants.get(("packs", action), ())
        )

    def _is_of_somebody_else(self, context: Context) -> bool:
        return context.owner_type == "identity" and context.owner_identity != self.identity_id

    def _holds(self, constraints: Json, context: Context) -> bool:
        return not constraints or all(
            self._constraint_holds(name, wanted, context) for name, wanted in constraints.items() if wanted is not None
        )

    def _constraint_holds(self, name: str, wanted: Json, context: Context) -> bool:
        match name:
            case "pack_refs":
                return context.pack_ref is not None and context.pack_ref in wanted
            case "refs":
                return context.ref is not None and context.ref in wanted
            case "ids":
                return context.id is not None and context.id in wanted
            case "owner_types":
                return context.owner_type is not None and context.owner_type in wanted
            case "owner_refs":
                return context.owner_ref is not None and context.owner_ref in wanted
            case "visibility":
                return context.visibility is not None and context.visibility in _listed(wanted)
            case "encrypted":
                return context.encrypted is not None and context.encrypted is wanted
            case "owner":
                return self._owner_holds(wanted, context)
            case "execution_scope":
                return _scope_holds(wanted, context)
            case "attributes":
                return True  # see `_is_addressed_by`
        return False  # a constraint that nobody here knows must narrow, not widen

    def _is_addressed_by(self, grant: Grant) -> bool:
        wanted = (grant.constraints or {}).get("attributes") or {}
        return all(
            attribute in self._attributes and _same(self._attributes[attribute], value)
            for attribute, value in wanted.items()
        )

    def _owner_holds(self, wanted: Json, context: Context) -> bool:
        match wanted:
            case "any":
                return True
            case "self":
                return context.owner_identity is not None and context.owner_identity == self.identity_id
            case "none":
                return context.owner_identity is None
        return False


def check_grants(grants: Json) -> list[Grant]:
    """The grants in JSON form (pack files, API), or :class:`GrantError` naming the first thing that is not right."""
    if not isinstance(grants, list):
        raise GrantError("grants must be a list")
    return [_check_grant(grant, f"grants[{index}]") for index, grant in enumerate(grants)]


def _check_grant(grant: Json, where: str) -> Grant:
    if not isinstance(grant, dict):
        raise GrantError(f"{where} must be an object with 'resource' and 'actions'")
    if grant.get("resource") not in RESOURCES:
        raise GrantError(f"{where}.resource must be one of {', '.join(RESOURCES)}")
    actions = grant.get("actions")
    if not isinstance(actions, list) or not all(action in ACTIONS for action in actions):
        raise GrantError(f"{where}.actions must be a list of {', '.join(ACTIONS)}")
    constraints = grant.get("constraints")
    _check_constraints(constraints, f"{where}.constraints")
    return Grant(resource=grant["resource"], actions=actions, constraints=constraints or None)


def _check_constraints(constraints: Json, where: str) -> None:
    if constraints is None:
        return
    if not isinstance(constraints, dict):
        raise GrantError(f"{where} must be an object")
    for name, wanted in constraints.items():
        if name not in CONSTRAINTS:
            raise GrantError(f"{where}.{name} is unknown; there are {', '.join(CONSTRAINTS)}")
        if wanted is not None and not _CONSTRAINT_SHAPES[name](wanted):
            raise GrantError(f"{where}.{name} has a value that this constraint cannot have")


def _strings(value: Json) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _integers(value: Json) -> bool:
    return isinstance(value, list) and all(type(item) is int for item in value)


_CONSTRAINT_SHAPES: Final[Mapping[str, Callable[[Json], bool]]] = {
    "pack_refs": _strings,
    "refs": _strings,
    "ids": _integers,
    "owner_types": _strings,
    "owner_refs": _strings,
    "visibility": lambda value: isinstance(value, str) or _strings(value),
    "encrypted": lambda value: isinstance(value, bool),
    "owner": lambda value: value in ("self", "any", "none"),
    "execution_scope": lambda value: value in ("self", "descendants", "any"),
    "attributes": lambda value: isinstance(value, dict),
}


def _scope_holds(wanted: Json, context: Context) -> bool:
    match wanted:
        case "any":
            return True
        case "self":
            return context.execution_relation == "self"
        case "descendants":
            return context.execution_relation in ("self", "descendant")
    return False


def _listed(value: Json) -> list[Json]:
    return value if isinstance(value, list) else [value]


def _same(one: Json, other: Json) -> bool:
    return type(one) is type(other) and bool(one == other)


def _is_narrowed_by(grant: Grant, constraints: frozenset[str]) -> bool:
    return any(wanted is not None and name in constraints for name, wanted in (grant.constraints or {}).items())


def _single(grants: Iterable[Grant]) -> Iterator[Grant]:
    """The same grants, each with one action."""
    for grant in grants:
        for action in grant.actions:
            yield Grant(resource=grant.resource, actions=[action], constraints=grant.constraints)


def _is_within(grant: Grant, mine: Grant) -> bool:
    theirs = grant.constraints or {}
    # An owner constraint on keys opens other people's keys, which a grant without one does not.
    if grant.resource == "keys" and _is_narrowed_by(grant, OWNING) and not _is_narrowed_by(mine, OWNING):
        owners = theirs.get("owner_types")
        if theirs.get("owner") != "self" and (owners is None or "identity" in owners):
            return False
    return all(
        _is_narrower(name, theirs.get(name), wanted)
        for name, wanted in (mine.constraints or {}).items()
        if wanted is not None
    )


def _is_narrower(name: str, theirs: Json, mine: Json) -> bool:
    if theirs is None:
        return False
    match name:
        case "owner":
            return mine in ("any", theirs)
        case "execution_scope":
            order = ("self", "descendants", "any")
            return theirs in order and mine in order and order.index(theirs) <= order.index(mine)
        case "attributes":
            return all(attribute in theirs and _same(theirs[attribute], value) for attribute, value in mine.items())
        case "encrypted":
            return theirs is mine
    return set(_listed(theirs)) <= set(_listed(mine))
