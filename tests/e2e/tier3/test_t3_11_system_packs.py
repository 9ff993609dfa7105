"""T3.11: system packs and users' packs.

The core pack is there for every tenant, to be read and executed and not to be changed. What a tenant makes is there for
that tenant alone.
"""

from collections.abc import Iterator

import pytest
from helpers.client import AttuneClient, Json
from helpers.fixtures import create_echo_action, unique_ref
from helpers.narration import step, summary, title
from helpers.polling import wait_for_execution_status
from helpers.stack import Stack
from helpers.tenants import own_tenant

SYSTEM_PACK = "core"


@pytest.fixture(scope="module")
def tenants(stack: Stack) -> Iterator[tuple[AttuneClient, AttuneClient]]:
    """Administrators of two tenants of this module's own."""
    with own_tenant(stack) as one, own_tenant(stack) as other:
        yield one, other


@pytest.mark.tier3
@pytest.mark.multi_tenant
@pytest.mark.packs
def test_system_pack_visible_to_all_tenants(tenants: tuple[AttuneClient, AttuneClient]) -> None:
    """Every tenant lists and reads the core pack and what is in it, and the very same one."""
    title("T3.11.1: System Pack Visible to All Tenants")
    seen: list[Json] = []
    for number, tenant in enumerate(tenants, 1):
        step(number, f"Looking from tenant {tenant.tenant}")
        listed = {pack["ref"]: pack for pack in tenant.items("packs")}
        assert list(listed) == [SYSTEM_PACK], "a new tenant has the system pack and nothing else"
        assert listed[SYSTEM_PACK]["is_standard"]
        seen.append(
            (
                tenant.get_pack(SYSTEM_PACK)["id"],
                sorted(action["ref"] for action in tenant.items(f"packs/{SYSTEM_PACK}/actions")),
                sorted(trigger["ref"] for trigger in tenant.items(f"packs/{SYSTEM_PACK}/triggers")),
                sorted(runtime["ref"] for runtime in tenant.items("runtimes")),
            )
        )
    summary(f"pack {seen[0][0]}, {len(seen[0][1])} actions, {len(seen[0][2])} triggers")
    assert seen[0] == seen[1]
    assert "core.echo" in seen[0][1]
    assert "core.crontimer" in seen[0][2]


@pytest.mark.tier3
@pytest.mark.multi_tenant
@pytest.mark.packs
@pytest.mark.security
def test_user_pack_isolation(tenants: tuple[AttuneClient, AttuneClient]) -> None:
    """Two tenants have a pack of one ref, with one action of one ref each; nobody finds or touches the other's."""
    title("T3.11.2: User Pack Isolation")
    one, other = tenants
    ref, alone = unique_ref("shared"), unique_ref("alone")

    step(1, "Making a pack and an action in the first tenant")
    for pack in (ref, alone):
        one.create_pack(pack, label="of the first")
        create_echo_action(one, pack)
    mine = one.get_pack(ref)

    step(2, "Looking for them from the second")
    for path in (f"packs/{alone}", f"packs/{alone}/actions", f"actions/{alone}.echo"):
        answer = other.request("GET", path)
        assert answer.status_code == 404, path
        assert "of the first" not in answer.text
    assert alone not in [pack["ref"] for pack in other.items("packs")]
    assert other.request("PUT", f"packs/{alone}", json={"label": "mine"}).status_code == 404
    assert other.request("DELETE", f"packs/{alone}").status_code == 404
    executed = other.request("POST", "executions/execute", json={"action_ref": f"{alone}.echo", "parameters": {}})
    assert executed.status_code == 404

    step(3, "Making a pack of the same ref in the second")
    theirs = other.create_pack(ref, label="of the second")
    assert theirs["id"] != mine["id"]
    other.delete_pack(ref)
    assert one.get_pack(ref) == mine, "nobody touched it"

    step(4, "Executing it where it is")
    started = one.execute(f"{ref}.echo", {"message": "here"})
    wait_for_execution_status(one, started["id"], "succeeded")
    assert other.request("GET", f"executions/{started['id']}").status_code == 404
    assert list(other.items("executions")) == []
    summary("every look from the other tenant was answered with 404")


@pytest.mark.tier3
@pytest.mark.multi_tenant
@pytest.mark.packs
def test_system_pack_actions_available_to_all(tenants: tuple[AttuneClient, AttuneClient]) -> None:
    """Every tenant executes the core pack's actions, by itself and by rules; each sees its own executions only."""
    title("T3.11.3: System Pack Actions Available to All")
    ran: list[int] = []
    for number, tenant in enumerate(tenants, 1):
        step(number, f"Executing core.echo in tenant {tenant.tenant}")
        started = tenant.execute("core.echo", {"message": f"from {tenant.tenant}"})
        ended = wait_for_execution_status(tenant, started["id"], "succeeded")
        assert ended["result"]["stdout"].strip() == f"from {tenant.tenant}"
        ran.append(started["id"])
    one, other = tenants
    assert one.request("GET", f"executions/{ran[1]}").status_code == 404
    assert other.request("GET", f"executions/{ran[0]}").status_code == 404
    assert ran[1] not in [row["id"] for row in one.list_executions(action_ref="core.echo")]


@pytest.mark.tier3
@pytest.mark.multi_tenant
@pytest.mark.packs
@pytest.mark.security
def test_system_pack_identification(tenants: tuple[AttuneClient, AttuneClient]) -> None:
    """How a system pack is told from a user's: ``is_standard``, and that no tenant may write it or into it."""
    title("T3.11.4: System Pack Identification")
    one, _ = tenants
    own = one.create_pack(unique_ref())["ref"]
    assert one.get_pack(SYSTEM_PACK)["is_standard"] is True
    assert one.get_pack(own)["is_standard"] is False

    step(1, "Trying to change what belongs to the system")
    action = {"label": "mine", "entrypoint": "echo", "runtime_ref": "core.shell"}
    tries = {
        "change the pack": ("PUT", f"packs/{SYSTEM_PACK}", {"label": "mine"}),
        "delete the pack": ("DELETE", f"packs/{SYSTEM_PACK}", None),
        "change an action": ("PUT", "actions/core.echo", {"label": "mine"}),
        "delete an action": ("DELETE", "actions/core.echo", None),
        "add an action": ("POST", "actions", {"ref": "core.mine", "pack_ref": SYSTEM_PACK, **action}),
        "change a trigger": ("PUT", "triggers/core.crontimer", {"label": "mine"}),
        "switch a trigger off": ("POST", "triggers/core.crontimer/disable", None),
    }
    refused = {}
    for what, (method, path, body) in tries.items():
        answer = one.request(method, path, json=body)
        refused[what] = answer.status_code
    summary(*(f"{what}: {status}" for what, status in refused.items()))
    assert set(refused.values()) <= {403, 409}, refused
    assert refused["change the pack"] == 403
    assert one.get_pack(SYSTEM_PACK)["label"] != "mine"
    one.delete_pack(own)
