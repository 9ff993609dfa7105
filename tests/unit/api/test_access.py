"""Which rows a caller sees: grants meet rows through :class:`Call` (README 2 and 3)."""

import re

import pytest

from chalicelib.api import adapter
from chalicelib.api.access import access_of, context_of, pack_ref_of, principal_of
from chalicelib.api.errors import Forbidden, NotFound, TokenRefused
from chalicelib.api.routing import Call, Request
from chalicelib.domain.entities import Action, Enforcement, Event, Execution, Grant, Key, Pack, Rule, Runtime, Trigger
from chalicelib.domain.permissions import ACTIONS, RESOURCES, Context
from chalicelib.security.tokens import Principal
from chalicelib.store.registry import Put

OPEN = {
    ("GET", "/health"),
    ("GET", "/health/live"),
    ("GET", "/health/ready"),
    ("GET", "/health/detailed"),
    ("GET", "/docs"),
    ("GET", "/api-spec/openapi.json"),
    ("GET", "/auth/logout"),
    ("GET", "/auth/oidc/login"),
    ("GET", "/auth/callback"),
    ("POST", "/auth/ldap/login"),
    ("GET", "/auth/settings"),
    ("POST", "/auth/login"),
    ("POST", "/auth/register"),
    ("POST", "/auth/refresh"),
    ("POST", "/auth/token-login"),
    ("POST", "/api/v1/webhooks/{key}"),
}


def test_what_is_open_to_everybody_is_a_short_list():
    assert {(route.method, route.path) for route in adapter.ROUTES if not route.needs.signed_in} == OPEN


def test_every_other_route_asks_who_calls_before_anything_else(api):
    for route in adapter.ROUTES:
        if (route.method, route.path) not in OPEN:
            path = re.sub(r"\{\w+\}", "1", route.path)
            answer = api.anonymous().request(route.method, path, content=b"{", headers={"content-type": "text/plain"})
            assert answer.status == 401, route.path
            assert answer.json == {"error": {"code": 401, "message": "Missing authentication token"}}


def test_every_grant_that_a_route_needs_is_one_that_roles_can_have():
    for route in adapter.ROUTES:
        if route.needs.resource is not None:
            assert route.needs.resource in RESOURCES
            assert route.needs.action in ACTIONS


def call_of(api):
    request = Request("GET", "/", {}, {"authorization": f"Bearer {api.token}"}, b"", "203.0.113.7", "r")
    principal = principal_of(request, api.services)
    return Call(request, api.services, principal=principal, access=access_of(principal, api.services))


def made(api, type_, ref, **fields):
    now = api.services.clock()
    return type_(id=api.services.new_id(), ref=ref, created=now, updated=now, **fields)


def pack(api, ref, **fields):
    entity = made(api, Pack, ref, label=ref, version="1.0.0", **fields)
    api.registry.commit(Put(entity, new=True))
    return entity


def runtime(api, ref, of):
    entity = made(api, Runtime, ref, name=ref, pack=of.id, pack_ref=of.ref)
    api.registry.commit(Put(entity, new=True))
    return entity


@pytest.fixture
def packs(api):
    return {
        "standard": api.services.store.tenant("system").registry.packs.get("core"),
        "tenant": pack(api, "shared"),
        "own": pack(api, "mine", visibility="private", installed_by=api.identity.id),
        "other": pack(api, "theirs", visibility="private", installed_by=4711),
    }


def seen(call, packs):
    return {name for name, each in packs.items() if call.may_read("packs", each)}


def test_packs_by_visibility(api, packs):
    assert seen(call_of(api), packs) == {"standard", "tenant", "own"}
    assert seen(call_of(api.as_role("core.admin")), packs) == {"standard", "tenant"}
    assert seen(call_of(api.as_role()), packs) == {"standard"}
    named = Grant(resource="packs", actions=["read"], constraints={"pack_refs": ["theirs", "mine"]})
    assert seen(call_of(api.with_grants(named)), packs) == {"standard", "own", "other"}


def test_components_follow_their_pack(api, packs):
    rows = [made(api, Runtime, f"{each.ref}.r", name="r", pack=each.id, pack_ref=each.ref) for each in packs.values()]
    assert [row.pack_ref for row in call_of(api).readable("runtimes", rows)] == ["core", "shared", "mine"]
    assert [row.pack_ref for row in call_of(api.as_role()).readable("runtimes", rows)] == ["core"]
    only_runtimes = api.with_grants(Grant(resource="runtimes", actions=["read"]))
    assert [row.pack_ref for row in call_of(only_runtimes).readable("runtimes", rows)] == ["core", "shared"]


def test_to_read_tells_absent_hidden_and_forbidden_apart(api, packs):
    call, nobody = call_of(api), call_of(api.as_role())
    shared, hidden = runtime(api, "shared.r", packs["tenant"]), runtime(api, "theirs.r", packs["other"])
    assert call.to_read("runtimes", "Runtime", "shared.r", shared) is shared
    for row in (None, hidden):
        with pytest.raises(NotFound, match=r"Runtime 'x' not found"):
            call.to_read("runtimes", "Runtime", "x", row)
    with pytest.raises(Forbidden, match="runtimes:read"):
        nobody.to_read("runtimes", "Runtime", "shared.r", shared)


def test_to_write_refuses_what_is_standard_hidden_or_not_granted(api, packs):
    call = call_of(api)
    assert call.to_write("packs", "configure", "Pack", "shared", packs["tenant"]) is packs["tenant"]
    with pytest.raises(NotFound):
        call.to_write("packs", "configure", "Pack", "ghost", None)
    with pytest.raises(Forbidden, match="standard pack"):
        call.to_write("packs", "delete", "Pack", "core", packs["standard"])
    with pytest.raises(Forbidden, match="packs:delete"):
        call.to_write("packs", "delete", "Pack", "theirs", packs["other"])
    with pytest.raises(Forbidden, match="packs:delete"):
        call_of(api.as_role("core.editor")).to_write("packs", "delete", "Pack", "shared", packs["tenant"])


def test_a_pack_that_the_snapshot_does_not_know_yet_is_found(api):
    before = call_of(api)
    assert before.snapshot.pack("fresh") is None
    pack(api, "fresh")
    assert before.pack("fresh").ref == "fresh"
    assert before.pack("ghost") is None
    assert before.pack(None) is None


def principal(execution_id=None):
    metadata = {} if execution_id is None else {"execution_id": execution_id}
    return Principal("t", 1, "l", "access", None, metadata)


def test_contexts(api):
    now = api.services.clock()
    component = {"pack": 1, "pack_ref": "acme", "label": "x"}
    rows = [
        (made(api, Action, "acme.a", entrypoint="a", **component), Context(pack_ref="acme", ref="acme.a")),
        (made(api, Trigger, "acme.t", **component), Context(pack_ref="acme", ref="acme.t")),
        (
            made(api, Rule, "acme.r", action_ref="acme.a", trigger_ref="acme.t", owner_identity=5, **component),
            Context(pack_ref="acme", ref="acme.r", owner_identity=5),
        ),
        (Event(id=7, trigger_ref="acme.t", created=now), Context(pack_ref="acme", ref="acme.t", id=7)),
        (
            Enforcement(id=8, rule=1, rule_ref="acme.r", trigger_ref="core.t", event=7, status="created", created=now),
            Context(pack_ref="acme", ref="acme.r", id=8),
        ),
        (
            Execution(id=9, action_ref="acme.a", status="running", executor=5, created=now, updated=now),
            Context(pack_ref="acme", ref="acme.a", id=9, owner_identity=5),
        ),
        (
            made(api, Key, "k", owner_type="action", owner_action_ref="acme.a", name="k", sealed="", encrypted=True),
            Context(pack_ref="acme", ref="k", owner_type="action", owner_ref="acme.a", encrypted=True),
        ),
    ]
    for row, expected in rows:
        context = context_of(row, principal())
        assert pack_ref_of(row) == "acme"
        assert (context.pack_ref, context.ref, context.owner_identity) == (
            expected.pack_ref,
            expected.ref,
            expected.owner_identity,
        )
        assert (context.owner_type, context.owner_ref, context.encrypted) == (
            expected.owner_type,
            expected.owner_ref,
            expected.encrypted,
        )
        assert context.id == row.id


@pytest.mark.parametrize(
    ("own", "parent", "relation"), [(None, None, None), (9, None, "self"), (3, 3, "descendant"), (3, 4, "other")]
)
def test_how_an_execution_stands_to_the_one_that_asks(api, own, parent, relation):
    now = api.services.clock()
    row = Execution(id=9, action_ref="acme.a", status="running", parent=parent, created=now, updated=now)
    assert context_of(row, principal(own)).execution_relation == relation


def test_an_execution_has_the_sets_of_its_token_and_not_its_executors(api):
    access = call_of(api.as_execution("core.viewer")).access
    assert access.allows("packs", "read")
    assert not access.allows("packs", "create")
    assert access.identity_id == api.identity.id


def test_a_permission_set_that_is_gone_gives_nothing(api):
    assert call_of(api.as_role("ghost.set")).access.effective() == {}


def test_a_public_call_has_no_principal(api):
    request = Request("GET", "/", {}, {}, b"", "", "r")
    call = Call(request, api.services)
    assert call.tenant == api.services.settings.default_tenant
    for attribute in ("principal", "access"):
        with pytest.raises(LookupError):
            getattr(call, attribute)
    with pytest.raises(TokenRefused):
        principal_of(request, api.services)
