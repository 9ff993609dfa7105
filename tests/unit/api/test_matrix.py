"""Every route of the table, asked by everybody: the answer is the one that the table declares beside it.

Roles by tenants and by tokens: own and other tenant, no token, an expired one, that of a frozen identity, and such as
are for other doors. Nothing is listed here: a new route joins by itself (world.py says what a new kind of thing takes).
"""

import typing
from collections.abc import Iterator
from typing import Any, Final

import msgspec
import pytest
from unit.api.conftest import Answer
from unit.api.world import PASSWORD, ROLES, Stage, World, kinds_of

from chalicelib import clients
from chalicelib.api import adapter
from chalicelib.api.routing import Route
from chalicelib.domain.permissions import DEFAULT_SETS, Access
from chalicelib.store import snapshot

pytestmark = pytest.mark.slow  # two thousand requests

EVERY = sorted(adapter.ROUTES, key=lambda route: (route.path, route.method))
CLOSED = [route for route in EVERY if route.needs.signed_in]
OPEN = [route for route in EVERY if not route.needs.signed_in]

# Whoever is let in may still ask for what cannot be: the schedule of a rule without a timer, the end of what has ended.
LET_IN: Final = frozenset({400, 409, 422})
LISTS: Final = ("/actions", "/rules", "/triggers", "/sensors", "/runtimes", "/workflows")
DEAD_TOKENS: Final = {
    None: (401, "Missing authentication token"),
    "expired": (401, "Authentication token expired"),
    "refresh": (401, "Invalid authentication token"),
    "integration": (401, "Invalid authentication token"),
    "frozen": (403, "Identity is frozen"),
}


def every(routes: list[Route]) -> Any:
    return pytest.mark.parametrize("route", routes, ids=lambda route: f"{route.method} {route.path}")


@pytest.fixture(scope="module")
def stage(settings: Any, fresh_tables: Any) -> Iterator[Stage]:
    fresh_tables()
    clients.s3().create_bucket(Bucket="attune-worlds")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(snapshot, "TTL", 1e9)  # nobody else writes, and what is put back comes with new services
        yield Stage(msgspec.structs.replace(settings, default_tenant="t-alpha", bucket="attune-worlds"))
    fresh_tables()


def asked(
    stage: Stage, by: World, route: Route, token: str | None, of: World, more: dict[str, Any] | None = None
) -> tuple[Answer, bool]:
    """The answer, and whether anything of my world was changed by it; afterwards nothing is. ``more`` goes into the
    body."""
    if route.tag == "audit":
        stage.restore()  # what was asked for before is on record, refs of the other tenant's included
    answer = by.ask(stage.services(), route, None if token is None else by.tokens[token], of=of, more=more)
    changed = stage.changed(stage.mine.tenant)
    if changed or (answer.status < 400 and route.method != "GET"):
        stage.restore()
    return answer, changed


def holds(role: str, route: Route) -> bool:
    """Whether the grant that the table names is among the role's."""
    needs = route.needs
    if needs.resource is None or needs.action is None:
        return True
    return Access(DEFAULT_SETS.get(role, ())).allows(needs.resource, needs.action)


def declared(route: Route, role: str, *, own: bool) -> set[int]:
    """The statuses that the table allows for an answer to an access token of this role."""
    needs = route.needs
    if needs.tokens and "access" not in needs.tokens:
        return {403}
    if needs.resource == "tenants" and not own:  # the platform's alone (README 1)
        return {403}
    things = any(kinds_of(route).values())
    if not holds(role, route):
        if needs.by_row:
            return {200} if not things or (route.path.endswith(LISTS) and own) else {403} if own else {404}
        return {403} if own or not things or needs.at_the_door else {403, 404}
    return {404} if things and not own else {route.status, *LET_IN}


def told(role: object, answer: Answer, problem: str) -> str:
    return f"{role}: {problem}: {answer.status} {answer.body[:200]!r}"


@every(CLOSED)
def test_every_role_in_its_own_tenant(stage: Stage, route: Route) -> None:
    wrong = []
    for role in ROLES:
        answer, changed = asked(stage, stage.mine, route, role, stage.mine)
        if answer.status not in declared(route, role, own=True):
            wrong.append(told(role, answer, "not what the table declares"))
        if answer.status == 403 and changed:
            wrong.append(told(role, answer, "refused, and yet something changed"))
        if route.needs.by_row and not holds(role, route) and stage.mine.mark in answer.body.decode():
            wrong.append(told(role, answer, "shows what may not be read"))
        if answer.status == 403 and route.needs.at_the_door and not route.needs.tokens and not holds(role, route):
            resource, action = route.needs.at_the_door
            if answer.json["error"] != f"Insufficient permissions: {resource}:{action}":
                wrong.append(told(role, answer, "does not say what is missing"))
    assert not wrong, "\n".join(wrong)


@every(CLOSED)
def test_every_role_of_another_tenant(stage: Stage, route: Route) -> None:
    """With the things of this tenant in the path: they do not exist, and nothing of them is told or changed."""
    wrong = []
    for role in ROLES:
        answer, changed = asked(stage, stage.other, route, role, stage.mine)
        if answer.status not in declared(route, role, own=False):
            wrong.append(told(role, answer, "not what the table declares"))
        if changed:
            wrong.append(told(role, answer, "something of the other tenant's changed"))
        if found := [thing for thing in _untold(stage.mine, route) if thing in answer.body.decode()]:
            wrong.append(told(role, answer, f"tells of {found}"))
    assert not wrong, "\n".join(wrong)


@every(CLOSED)
def test_tokens_that_open_nothing(stage: Stage, route: Route) -> None:
    wrong = []
    for token, (status, error) in DEAD_TOKENS.items():
        answer, changed = asked(stage, stage.mine, route, token, stage.mine)
        expected = error if status == 403 else {"code": 401, "message": error}
        if changed or answer.status != status or answer.json["error"] != expected:
            wrong.append(told(token, answer, "opens something"))
    assert not wrong, "\n".join(wrong)


@every(OPEN)
def test_what_is_public_answers_alike_whoever_asks(stage: Stage, route: Route) -> None:
    tokens = (None, "core.viewer", "core.admin", "expired", "frozen")
    answers = [asked(stage, stage.mine, route, token, stage.mine)[0] for token in tokens]
    assert len({answer.status for answer in answers}) == 1, [told(None, each, "") for each in answers]
    assert answers[0].status in {route.status, *route.errors}


def test_the_requests_are_plausible(stage: Stage) -> None:
    """Most of what an administrator asks for here succeeds; a request that cannot would prove little."""
    may = [route for route in CLOSED if declared(route, "core.admin", own=True) != {403}]
    failed = []
    for route in may:
        answer, _ = asked(stage, stage.mine, route, "core.admin", stage.mine)
        if answer.status != route.status:
            failed.append(told(f"{route.method} {route.path}", answer, "fails"))
    assert len(failed) < len(may) / 10, "\n".join(failed)


def _untold(world: World, route: Route) -> list[str]:
    """What of a world nobody else gets to see; what was in the path may come back in an error."""
    named = [str(value) for value in world.parameters(route).values()]
    things = [str(value) for kind, value in world.things.items() if kind != "pack"]
    return [f"{world.mark} value", *(thing for thing in things if not any(thing in each for each in named))]


# What requests leave in the audit log

# An event is the record of a delivery, and nobody is known where nobody can sign in.
UNRECORDED: Final = frozenset({("POST", "/api/v1/webhooks/{key}"), ("POST", "/auth/ldap/login")})


@every([route for route in EVERY if route.method != "GET"])
def test_whatever_may_change_something_leaves_one_record(stage: Stage, route: Route) -> None:
    """Of who asked, what for, about which thing and how it ended; and without a secret."""
    stage.restore()
    mine, services = stage.mine, stage.services()
    token = mine.tokens["core.admin"] if route.needs.signed_in else None
    answer = mine.ask(services, route, token)
    records = services.store.tenant(mine.tenant).audit.of_request(answer.headers["X-Request-Id"])
    stage.restore()
    if (route.method, route.path) in UNRECORDED:
        assert records == []
        return
    (record,) = records
    assert (record.http_method, record.http_status) == (route.method, answer.status)
    assert record.outcome == ("success" if answer.status < 400 else "denied" if answer.status == 403 else "failure")
    assert record.actor_login is not None
    named = list(mine.parameters(route).values())
    if answer.status == 201 and isinstance(answer.data, dict):
        named.append(answer.data.get("id"))
    made = {change["id"] for change in (record.details or {}).get("changes", ())}
    assert not named or {record.resource_id, record.resource_ref} & {*named, *made}, record
    told_ = msgspec.json.encode(record).decode()
    secrets = [PASSWORD, "another password", f"{mine.mark} value", mine.things["webhook_key"], *mine.tokens.values()]
    assert not [secret for secret in secrets if secret in told_], told_


# By objects: another tenant's thing, wherever a request may name one


def named_by_body(route: Route, world: World) -> dict[str, Any]:
    """The fields of the route's body that may name a thing, with the thing of ``world``."""
    kind = next((arm for arm in (route.body, *typing.get_args(route.body)) if _is_struct(arm)), None)
    if kind is None:
        return {}
    fields = {each.encode_name for each in msgspec.inspect.type_info(kind).fields}
    return {name: world.things[thing] for name, thing in NAMES.items() if name in fields}


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


NAMES: Final = {
    "pack_ref": "pack",
    "action_ref": "action",
    "trigger_ref": "trigger",
    "trigger_type": "trigger",
    "runtime_ref": "runtime",
    "permission_set_ref": "permission_set_ref",
    "identity_id": "identity",
    "identity_login": "identity_login",
    "execution": "execution",
    "assigned_to": "identity",
    "owner_identity": "identity",
    "owner_identity_login": "identity_login",
    "owner_pack_ref": "pack",
    "owner_action_ref": "action",
    "owner_sensor_ref": "sensor",
}
LISTED: Final = {
    "permission_set_refs": "permission_set_ref",
    "default_execution_permission_set_refs": "permission_set_ref",
    "trigger_types": "trigger",
    "secrets": "key",
}
# What names may stand in before there is anything by that name: it leads to nothing, now or later.
LOOSE: Final = frozenset({"assigned_to", "secrets"})


@every([route for route in CLOSED if route.body is not None])
def test_a_body_names_another_tenants_thing(stage: Stage, route: Route) -> None:
    """An administrator's request that would do but for one name."""
    wrong = []
    fields = named_by_body(route, stage.mine)
    kind = next((arm for arm in (route.body, *typing.get_args(route.body)) if _is_struct(arm)), None)
    if kind is not None:
        encoded = {each.encode_name for each in msgspec.inspect.type_info(kind).fields}
        fields |= {name: [stage.mine.things[thing]] for name, thing in LISTED.items() if name in encoded}
    for name, thing in fields.items():
        more = {name: thing}
        if name.startswith("owner_"):
            more["owner_type"] = name.removeprefix("owner_").partition("_")[0]
        if name == "identity_login":
            more["identity_id"] = None  # which would count before it
        answer, changed = asked(stage, stage.other, route, "core.admin", stage.other, more)
        if changed or (answer.status < 400 and name not in LOOSE):
            wrong.append(told(f"{name}={thing}", answer, "takes what is another tenant's"))
        if found := [
            each for each in _untold(stage.mine, route) if each in answer.body.decode() and each not in str(thing)
        ]:
            wrong.append(told(name, answer, f"tells of {found}"))
    assert not wrong, "\n".join(wrong)


FILTERS: Final = NAMES | {
    "action": "action",
    "rule_ref": "rule",
    "rule": "rule",
    "parent": "execution",
    "enforcement": "enforcement",
    "event": "event",
    "trigger": "trigger",
    "pack_name": "pack",
    "executor": "identity",
    "packs": "pack",
    "owner": "pack",
}


@every([route for route in CLOSED if route.query is not None and route.method == "GET"])
def test_a_filter_names_another_tenants_thing(stage: Stage, route: Route) -> None:
    """It finds nothing."""
    wrong = []
    for each in msgspec.inspect.type_info(route.query).fields:
        thing = stage.mine.things.get(FILTERS.get(each.encode_name, ""))
        if thing is None:
            continue
        answer = stage.other.ask(
            stage.services(), route, stage.other.tokens["core.admin"], params={each.encode_name: str(thing)}
        )
        if answer.status == 200 and stage.mine.mark in answer.body.decode():
            wrong.append(told(f"?{each.encode_name}={thing}", answer, "finds something"))
        if found := [
            one for one in _untold(stage.mine, route) if one in answer.body.decode() and one not in str(thing)
        ]:
            wrong.append(told(each.encode_name, answer, f"tells of {found}"))
    assert not wrong, "\n".join(wrong)
