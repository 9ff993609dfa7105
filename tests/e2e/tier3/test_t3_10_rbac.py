"""T3.10: roles decide who may do what, on every kind of thing, over HTTP.

The four standard permission sets, assigned directly and by a role; the matrix of all routes is tests/unit/api's. Tokens
of programs and of running actions have the same rules, and end when what they stand for ends.
"""

import uuid
from collections.abc import Callable, Iterator

import pytest
from helpers.client import AttuneClient, Json
from helpers.fixtures import create_python_action, pack_archive
from helpers.narration import step, summary, title
from helpers.polling import wait_for, wait_for_execution_status
from helpers.stack import Stack
from helpers.tenants import PASSWORD, own_tenant, sign_in

pytestmark = [pytest.mark.tier3, pytest.mark.security, pytest.mark.rbac]

ROLES = ("admin", "editor", "executor", "viewer")
SOON = 10  # seconds; the platform promises two, the machine may be busy
Member = Callable[..., AttuneClient]


@pytest.fixture(scope="module")
def boss(stack: Stack) -> Iterator[AttuneClient]:
    """The administrator of a tenant of this module's own, with a pack `shop` that everybody in it sees."""
    with own_tenant(stack) as administrator:
        administrator.upload_pack(pack_archive({"pack.yaml": "ref: shop\nname: Shop\nversion: 1.0.0\n"}))
        administrator.create_action("shop.greet", "shop", entrypoint='echo "hello"')
        administrator.create_trigger("shop.opened", "shop")
        rule = {"trigger_ref": "shop.opened", "action_ref": "shop.greet", "enabled": False}
        administrator.create_rule("shop.greeting", "shop", **rule)
        administrator.create_secret("shop.till", "1234", encrypted=True)
        yield administrator


@pytest.fixture
def member(stack: Stack, boss: AttuneClient) -> Iterator[Member]:
    """Makes people with a standard role (none: no permissions) and signs them in."""
    made: list[AttuneClient] = []

    def make(role: str | None) -> AttuneClient:
        login = f"{role or 'nobody'}-{uuid.uuid4().hex[:8]}@example.test"
        identity = boss.data("POST", "identities", json={"login": login, "password": PASSWORD})
        if role is not None:
            assignment = {"identity_id": identity["id"], "permission_set_ref": f"core.{role}"}
            boss.data("POST", "permissions/assignments", json=assignment)
        made.append(sign_in(stack, boss.tenant or "", login))
        return made[-1]

    yield make
    for client in made:
        client.close()


def status(client: AttuneClient, method: str, path: str, json: Json = None) -> int:
    """What the API answers, an execute without a body of its own included."""
    return client.request(method, path, json=json).status_code


def new_ref() -> str:
    return f"shop.t{uuid.uuid4().hex[:8]}"


def attempts() -> dict[str, tuple[str, str, Json]]:
    """One request for each thing that a role may or may not do. Nothing that is refused leaves anything behind."""
    action = {"ref": new_ref(), "pack_ref": "shop", "label": "A", "entrypoint": "echo", "runtime_ref": "core.shell"}
    rule = {"ref": new_ref(), "pack_ref": "shop", "label": "R", "enabled": False}
    rule |= {"trigger_ref": "shop.opened", "action_ref": "shop.greet"}
    key = {"ref": new_ref(), "owner_type": "system", "name": "k", "value": "v"}
    pack = {"ref": f"pack_{uuid.uuid4().hex[:8]}", "label": "P", "version": "1.0.0"}
    person = {"login": f"{uuid.uuid4().hex[:8]}@example.test"}
    return {
        "list packs": ("GET", "packs", None),
        "read a pack": ("GET", "packs/shop", None),
        "list actions": ("GET", "actions", None),
        "read a rule": ("GET", "rules/shop.greeting", None),
        "list executions": ("GET", "executions", None),
        "list keys": ("GET", "keys", None),
        "execute an action": ("POST", "executions/execute", {"action_ref": "shop.greet", "parameters": {}}),
        "create a pack": ("POST", "packs", pack),
        "create an action": ("POST", "actions", action),
        "change an action": ("PUT", "actions/shop.greet", {"label": "Greet"}),
        "create a rule": ("POST", "rules", rule),
        "disable a rule": ("POST", "rules/shop.greeting/disable", None),
        "change a key": ("PUT", "keys/shop.till", {"value": "1234"}),
        "create a key": ("POST", "keys", key),
        "list identities": ("GET", "identities", None),
        "create an identity": ("POST", "identities", person),
        "read permission sets": ("GET", "permissions/sets", None),
        "list events": ("GET", "events", None),
    }


READS = {"list packs", "read a pack", "list actions", "read a rule", "list executions", "list keys"}
MAY: dict[str, set[str]] = {
    "viewer": READS,
    "executor": READS | {"execute an action"},
    "editor": READS
    | {"execute an action", "create a pack", "create an action", "change an action", "create a rule"}
    | {"disable a rule", "change a key"},
    "admin": set(attempts()),
}


def granted(client: AttuneClient) -> dict[str, bool]:
    """What of all attempts the client may do; everything else is 403 and nothing but 403."""
    answers = {name: status(client, *attempt) for name, attempt in attempts().items()}
    assert set(answers.values()) <= {200, 201, 403}, answers
    return {name: answer != 403 for name, answer in answers.items()}


def test_viewer_role_permissions(boss: AttuneClient, member: Member) -> None:
    title("A viewer reads, and changes nothing")
    viewer = member("viewer")
    step(1, "Reading is allowed, everything else is 403")
    assert {name for name, allowed in granted(viewer).items() if allowed} == MAY["viewer"]
    step(2, "A refusal says what is missing")
    refused = viewer.request("DELETE", "rules/shop.greeting")
    assert refused.json() == {"error": "Insufficient permissions: rules:delete", "code": "FORBIDDEN"}
    assert boss.call("GET", "rules/shop.greeting")["data"]["ref"] == "shop.greeting"
    step(3, "A secret's value stays hidden")
    assert viewer.get_secret("shop.till")["value"] is None
    summary("read-only access holds")


def test_admin_role_permissions(boss: AttuneClient, member: Member) -> None:
    title("An administrator creates, reads, changes and deletes")
    admin = member("admin")
    step(1, "Everything is allowed")
    assert all(granted(admin).values())
    step(2, "From creation to deletion")
    ref = new_ref()
    admin.create_action(ref, "shop", entrypoint="echo one")
    rule = new_ref()
    admin.create_rule(rule, "shop", trigger_ref="shop.opened", action_ref=ref, enabled=False)
    assert admin.update_rule(rule, label="Changed")["label"] == "Changed"
    admin.delete_rule(rule)
    assert status(admin, "DELETE", f"actions/{ref}") == 200
    assert status(admin, "GET", f"actions/{ref}") == 404
    assert admin.get_secret("shop.till")["value"] == "1234"
    step(3, "What is standard is nobody's to change, and a private pack is its creator's")
    assert status(admin, "DELETE", "packs/core") == 403
    private = f"priv_{uuid.uuid4().hex[:8]}"
    boss.create_pack(private)
    assert status(boss, "GET", f"packs/{private}") == 200
    assert status(admin, "GET", f"packs/{private}") == 404
    assert status(admin, "DELETE", f"packs/{private}") == 403
    assert private not in [pack["ref"] for pack in admin.items("packs", page_size=100)]
    step(4, "Oneself is neither frozen nor deleted")
    me = admin.me()["id"]
    assert status(admin, "POST", f"identities/{me}/freeze") == 400
    assert status(admin, "DELETE", f"identities/{me}") == 400
    summary("full access, within the tenant")


def test_executor_role_permissions(boss: AttuneClient, member: Member) -> None:
    title("An executor runs actions and reads")
    executor = member("executor")
    step(1, "Executing and reading is allowed, everything else is 403")
    assert {name for name, allowed in granted(executor).items() if allowed} == MAY["executor"]
    step(2, "The execution runs, and is the executor's to read and not to cancel")
    execution = executor.execute("shop.greet")
    done = wait_for_execution_status(executor, execution["id"], "succeeded")
    assert done["result"]["stdout"].strip() == "hello"
    assert status(executor, "POST", f"executions/{execution['id']}/cancel") == 403
    step(3, "Nobody hands on more than they have")
    body = {"action_ref": "shop.greet", "permission_set_refs": ["core.admin"]}
    assert status(executor, "POST", "executions/execute", body) == 403
    summary("execute and read only")


def test_role_permissions_summary(boss: AttuneClient, member: Member) -> None:
    title("Who may do what")
    clients = {role: member(role) for role in ROLES}
    rows = {role: granted(client) for role, client in clients.items()}
    width = max(map(len, attempts()))
    lines = [" " * width + "".join(f"{role:>10}" for role in ROLES)]
    lines += [
        f"{name:<{width}}" + "".join(f"{'yes' if rows[role][name] else '-':>10}" for role in ROLES)
        for name in attempts()
    ]
    summary(*lines)
    for role in ROLES:
        assert {name for name, allowed in rows[role].items() if allowed} == MAY[role]
    for less, more in zip(("viewer", "executor", "editor"), ("executor", "editor", "admin"), strict=True):
        assert MAY[less] < MAY[more], "each role may do what the one before it may"
    effective = {each["resource"]: each["actions"] for each in clients["viewer"].me()["effective_permissions"]}
    assert all(actions == ["read"] for actions in effective.values())


def test_a_role_gives_permissions_and_takes_them_back(boss: AttuneClient, member: Member) -> None:
    somebody = member(None)
    path = f"identities/{somebody.me()['id']}"
    assert not any(granted(somebody)[name] for name in ("read a pack", "list executions"))
    readers = {"ref": f"shop.r{uuid.uuid4().hex[:8]}", "grants": [{"resource": "executions", "actions": ["read"]}]}
    made = boss.data("POST", "permissions/sets", json=readers)
    boss.data("POST", f"permissions/sets/{made['id']}/roles", json={"role": "clerks"})
    assigned = boss.data("POST", f"{path}/roles", json={"role": "clerks"})

    def may() -> bool:
        return status(somebody, "GET", "executions") == 200

    wait_for(may, timeout=SOON, what="the role to take effect")
    assert somebody.me()["assigned_permission_set_refs"] == [readers["ref"]]
    boss.call("DELETE", f"identities/roles/{assigned['id']}")
    wait_for(lambda: not may(), timeout=SOON, what="the role to be gone")
    boss.call("DELETE", f"permissions/sets/{made['id']}")


def test_a_packs_permission_sets_come_and_go_with_it(boss: AttuneClient, member: Member) -> None:
    pack = f"sets_{uuid.uuid4().hex[:8]}"
    given = f"ref: {pack}.clerk\nlabel: Clerk\ngrants:\n  - resource: executions\n    actions: [read]\n"
    files = {"pack.yaml": f"ref: {pack}\nname: Sets\nversion: 1.0.0\n"}
    boss.upload_pack(pack_archive(files | {"permission_sets/clerk.yaml": given}))
    somebody = member(None)
    body = {"identity_id": somebody.me()["id"], "permission_set_ref": f"{pack}.clerk"}
    boss.data("POST", "permissions/assignments", json=body)
    wait_for(lambda: status(somebody, "GET", "executions") == 200, timeout=SOON, what="the set to take effect")
    (listed,) = boss.call("GET", "permissions/sets", params={"pack_ref": pack})
    assert status(boss, "DELETE", f"permissions/sets/{listed['id']}") == 403, "it goes with its pack"
    boss.upload_pack(pack_archive(files), force=True)
    wait_for(lambda: status(somebody, "GET", "executions") == 403, timeout=SOON, what="the set to be gone")
    assert boss.call("GET", "permissions/sets", params={"pack_ref": pack}) == []
    assert boss.call("GET", f"identities/{body['identity_id']}/permissions") == []


def test_a_frozen_identity_is_locked_out(stack: Stack, boss: AttuneClient, member: Member) -> None:
    viewer = member("viewer")
    me = viewer.me()
    boss.call("POST", f"identities/{me['id']}/freeze")
    wait_for(lambda: status(viewer, "GET", "packs") == 403, timeout=SOON, what="the token to be refused")
    refresh = viewer.request("POST", "/auth/refresh", json={"refresh_token": viewer.refresh_token})
    assert refresh.status_code == 403
    body = {"tenant": boss.tenant, "login": me["login"], "password": PASSWORD}
    assert viewer.request("POST", "/auth/login", json=body).status_code == 403
    boss.call("POST", f"identities/{me['id']}/unfreeze")
    wait_for(lambda: status(viewer, "GET", "packs") == 200, timeout=SOON, what="the token to work again")


def test_an_integration_token_from_making_to_revocation(stack: Stack, boss: AttuneClient, member: Member) -> None:
    viewer = member("viewer")
    path = f"identities/{viewer.me()['id']}/integration-tokens"
    made = boss.data("POST", path, json={"label": "ci"})
    with AttuneClient(stack.url) as program:
        program.token = program.data("POST", "/auth/token-login", json={"token": made["token"]})["access_token"]
        assert program.me()["login"] == viewer.me()["login"]
        assert status(program, "GET", "packs") == 200
        (listed,) = boss.data("GET", path)
        assert listed["active"] is True
        assert listed["last_used_at"] is not None
        assert made["token"] not in str(listed)
        boss.call("POST", f"{path}/{listed['id']}/revoke", json={"reason": "over"})
        wait_for(lambda: status(program, "GET", "packs") == 401, timeout=SOON, what="its tokens to be refused")
        assert program.request("POST", "/auth/token-login", json={"token": made["token"]}).status_code == 401


def test_a_refresh_token_works_once(boss: AttuneClient, member: Member) -> None:
    """Two tabs at once are forgiven; a token from further back ends the whole family."""
    viewer = member("viewer")

    def refresh(token: str | None) -> tuple[int, str | None]:
        answer = viewer.request("POST", "/auth/refresh", json={"refresh_token": token})
        return answer.status_code, answer.json()["data"]["refresh_token"] if answer.is_success else None

    first = viewer.refresh_token
    assert [refresh(first)[0], refresh(first)[0]] == [200, 200]
    second = refresh(first)[1]
    third = refresh(second)[1]
    assert refresh(first)[0] == 401
    assert refresh(third)[0] == 401


CALLER = """
import json, os, sys, urllib.request, urllib.error

def ask(method, path, body=None):
    request = urllib.request.Request(os.environ["ATTUNE_API_URL"] + path, method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": "Bearer " + os.environ["ATTUNE_API_TOKEN"], "Content-Type": "application/json"})
    try:
        return urllib.request.urlopen(request, timeout=20).status
    except urllib.error.HTTPError as error:
        return error.code

print(json.dumps({
    "token": ".".join(reversed(os.environ["ATTUNE_API_TOKEN"].split("."))),
    "read": ask("GET", "/api/v1/packs/shop"),
    "write": ask("POST", "/api/v1/packs", {"ref": "not_for_viewers", "label": "x", "version": "1.0.0"}),
    "people": ask("GET", "/api/v1/identities"),
}))
"""


def test_an_actions_token_has_its_executions_rights_and_ends_with_it(boss: AttuneClient) -> None:
    """An administrator runs an action as a viewer: the action reads and no more, and once it has ended, nothing."""
    ref = create_python_action(boss, "shop", f"caller_{uuid.uuid4().hex[:8]}", CALLER)
    boss.call("PUT", f"actions/{ref}", json={"output_format": "json"})
    execution = boss.execute(ref, permission_set_refs=["core.viewer"])
    told = wait_for_execution_status(boss, execution["id"], "succeeded", timeout=60)["result"]["data"]
    assert (told["read"], told["write"], told["people"]) == (200, 403, 403)
    with AttuneClient(boss.base_url, token=".".join(reversed(told["token"].split(".")))) as thief:
        wait_for(lambda: status(thief, "GET", "packs") == 401, timeout=SOON, what="the token to be dead")
        assert thief.request("GET", "packs").json()["error"]["message"] == "Authentication token expired"
