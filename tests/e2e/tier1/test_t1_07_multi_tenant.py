"""T1.7: tenants find nothing of each other, and a tenant's life from its first day to its last.

Every path on which a thing could be met is walked from another tenant: lists, ids, refs, filters, webhook keys, tokens.
"""

import contextlib
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from helpers.client import ApiError, AttuneClient, Json
from helpers.fixtures import create_echo_action, create_webhook_trigger, unique_ref
from helpers.footprint import Footprint
from helpers.narration import step, title
from helpers.polling import wait_for, wait_for_execution_count, wait_for_execution_status
from helpers.stack import Stack
from helpers.tenants import create_tenant, own_tenant, sign_in

SECRET = "what-only-the-first-tenant-knows"


@dataclass(frozen=True)
class Owned:
    """What the first tenant has, by kind: the paths that lead to it."""

    client: AttuneClient
    pack: str
    webhook: str
    event: int
    enforcement: int
    execution: int
    identity: int
    key: str

    @property
    def paths(self) -> dict[str, str]:
        return {
            "pack": f"packs/{self.pack}",
            "pack's actions": f"packs/{self.pack}/actions",
            "action": f"actions/{self.pack}.echo",
            "trigger": f"triggers/{self.pack}.hook",
            "rule": f"rules/{self.pack}.rule",
            "key": f"keys/{self.key}",
            "event": f"events/{self.event}",
            "enforcement": f"enforcements/{self.enforcement}",
            "enforcement's executions": f"enforcements/{self.enforcement}/executions",
            "execution": f"executions/{self.execution}",
            "execution's log": f"executions/{self.execution}/logs/stdout",
            "identity": f"identities/{self.identity}",
        }


@pytest.fixture(scope="module")
def owned(stack: Stack) -> Iterator[Owned]:
    """A tenant in which one of everything is, and has happened."""
    with own_tenant(stack) as client:
        pack = client.create_pack(unique_ref())["ref"]
        echo = create_echo_action(client, pack)
        trigger = create_webhook_trigger(client, pack)
        key = f"{pack}.secret"
        client.create_secret(key, SECRET)
        client.create_rule(
            f"{pack}.rule", pack, trigger_ref=trigger.ref, action_ref=echo, action_params={"message": SECRET}
        )
        event = client.post_webhook(trigger.key, {"text": SECRET})["event_id"]
        (execution,) = wait_for_execution_count(client, 1, rule_ref=f"{pack}.rule")
        (enforcement,) = client.list_enforcements(rule_ref=f"{pack}.rule")
        me = client.me()
        yield Owned(client, pack, trigger.key, event, enforcement["id"], execution["id"], me["id"], key)


@pytest.fixture(scope="module")
def stranger(stack: Stack) -> Iterator[AttuneClient]:
    """The administrator of another tenant."""
    with own_tenant(stack) as client:
        yield client


@pytest.mark.tier1
@pytest.mark.multi_tenant
@pytest.mark.security
def test_nothing_of_another_tenant_is_found(owned: Owned, stranger: AttuneClient) -> None:
    """By id and ref, on every kind of thing: 404 with nothing of it in the text, and it is as it was."""
    title("T1.7.1: Nothing of Another Tenant Is Found")
    before = {what: owned.client.request("GET", path) for what, path in owned.paths.items()}
    assert {answer.status_code for answer in before.values()} == {200}, before
    for what, path in owned.paths.items():
        for method, body in (("GET", None), ("PUT", {"label": "mine", "value": "mine"}), ("DELETE", None)):
            answer = stranger.request(method, path, json=body)
            assert answer.status_code in (404, 405), f"{method} {what}: {answer.status_code} {answer.text}"
            assert SECRET not in answer.text
            assert str(owned.client.tenant) not in answer.text
    for path in (f"rules/{owned.pack}.rule/disable", f"triggers/{owned.pack}.hook/webhooks/regenerate"):
        assert stranger.request("POST", path).status_code == 404
    assert stranger.request("POST", f"executions/{owned.execution}/cancel").status_code == 404
    after = {what: owned.client.request("GET", path) for what, path in owned.paths.items()}
    assert {what: answer.text for what, answer in after.items()} == {
        what: answer.text for what, answer in before.items()
    }


@pytest.mark.tier1
@pytest.mark.multi_tenant
@pytest.mark.security
def test_no_list_and_no_filter_shows_another_tenants(owned: Owned, stranger: AttuneClient) -> None:
    """Lists, filters that name the other's things, and totals."""
    title("T1.7.2: No List Shows Another Tenant's")
    lists = ("packs", "actions", "triggers", "rules", "keys", "events", "enforcements", "executions", "identities")
    for path in lists:
        rows = list(stranger.items(path))
        assert owned.pack not in str(rows), path
        assert SECRET not in str(rows), path
    filters: dict[str, dict[str, Json]] = {
        "events": {"trigger_ref": f"{owned.pack}.hook"},
        "enforcements": {"event": owned.event},
        "executions": {"action_ref": f"{owned.pack}.echo"},
    }
    for path, wanted in filters.items():
        answer = stranger.call("GET", path, params={**wanted, "include_total": "true"})
        assert (answer["items"], answer["pagination"]["total_items"]) == ([], 0), path
    for wanted in ({"rule_ref": f"{owned.pack}.rule"}, {"enforcement": owned.enforcement}, {"result_contains": SECRET}):
        assert stranger.count_executions(**wanted) == 0
    stats = stranger.data("GET", "executions/stats")
    assert stats["total"] == 0


@pytest.mark.tier1
@pytest.mark.multi_tenant
@pytest.mark.security
def test_a_webhook_reaches_its_own_tenant_only(owned: Owned, stranger: AttuneClient) -> None:
    """Whoever posts, and whoever they are signed in as: the event is the owner's."""
    title("T1.7.3: A Webhook Reaches Its Own Tenant Only")
    event = stranger.post_webhook(owned.webhook, {"text": "from outside"})["event_id"]
    wait_for(
        lambda: owned.client.request("GET", f"events/{event}").status_code == 200, timeout=20, what="the owner's event"
    )
    assert stranger.request("GET", f"events/{event}").status_code == 404


@pytest.mark.tier1
@pytest.mark.multi_tenant
@pytest.mark.security
def test_logins_are_a_tenants_own(stack: Stack, anonymous: AttuneClient, stranger: AttuneClient) -> None:
    """One login name in two tenants is two people; the wrong tenant is the answer of the wrong password."""
    title("T1.7.4: Logins Are a Tenant's Own")
    with own_tenant(stack) as other:
        login = other.me()["login"]
        made = stranger.request("POST", "identities", json={"login": login, "password": "Another pass 1"})
        assert made.status_code == 201, made.text
        wrong = {"login": login, "password": "Another pass 1", "tenant": other.tenant}
        refused = anonymous.request("POST", "/auth/login", json=wrong)
        nowhere = anonymous.request("POST", "/auth/login", json={**wrong, "tenant": "nowhere"})
        assert (refused.status_code, refused.text) == (401, nowhere.text)
        with sign_in(stack, str(stranger.tenant), login, "Another pass 1") as theirs:
            assert theirs.me()["id"] != other.me()["id"]


@pytest.mark.tier1
@pytest.mark.multi_tenant
def test_a_tenant_is_suspended_and_resumed(stack: Stack, client: AttuneClient) -> None:
    """Suspended: nobody gets in, webhooks are refused, timers start nothing; what runs ends. Resumed: as before."""
    title("T1.7.5: A Tenant Is Suspended and Resumed")
    with own_tenant(stack) as tenant:
        pack = tenant.create_pack(unique_ref())["ref"]
        trigger = create_webhook_trigger(tenant, pack)
        timer = {"trigger_ref": "core.intervaltimer", "trigger_params": {"interval": 1, "unit": "seconds"}}
        tenant.create_rule(f"{pack}.ticking", pack, action_ref="core.noop", **timer)
        tenant.create_rule(f"{pack}.hooked", pack, trigger_ref=trigger.ref, action_ref="core.noop")
        wait_for_execution_count(tenant, 1, rule_ref=f"{pack}.ticking", match="at least")
        running = tenant.execute("core.sleep", {"seconds": 3})["id"]
        wait_for_execution_status(tenant, running, "running")

        step(1, "Suspending it")
        assert client.data("POST", f"tenants/{tenant.tenant}/suspend")["status"] == "suspended"
        # Other processes learn of it within a second.
        wait_for(lambda: tenant.request("GET", "packs").status_code == 403, timeout=10, what="the tenant to be closed")
        wait_for(
            lambda: tenant.request("POST", f"webhooks/{trigger.key}", json={}).status_code == 403,
            timeout=10,
            what="its webhook to be closed",
        )
        with pytest.raises(ApiError) as refused:
            sign_in(stack, str(tenant.tenant), "nobody@example.test")
        assert refused.value.status == 401, "a stranger does not learn that there is such a tenant"

        def used() -> Json:
            return client.data("GET", f"tenants/{tenant.tenant}")["use"]["running_at_once"]

        wait_for(lambda: used() == 0, timeout=30, what="what runs to end")

        step(2, "Resuming it")
        assert client.data("POST", f"tenants/{tenant.tenant}/resume")["status"] == "active"
        wait_for(lambda: tenant.request("GET", "packs").status_code == 200, timeout=10, what="the tenant to be open")
        assert tenant.get_execution(running)["status"] == "completed"
        fired = tenant.count_executions(rule_ref=f"{pack}.ticking")
        tenant.post_webhook(trigger.key, {})
        wait_for_execution_count(tenant, 1, rule_ref=f"{pack}.hooked")
        wait_for_execution_count(tenant, fired + 1, rule_ref=f"{pack}.ticking", match="at least", timeout=90)


@pytest.mark.tier1
@pytest.mark.multi_tenant
@pytest.mark.security
def test_a_deleted_tenant_leaves_nothing(stack: Stack, client: AttuneClient) -> None:
    """Its people are out at once, its data soon; and whoever gets the slug next is somebody else."""
    title("T1.7.6: A Deleted Tenant Leaves Nothing")
    slug = f"gone{uuid.uuid4().hex[:8]}"
    with create_tenant(stack, slug=slug) as first:
        pack = first.create_pack(unique_ref())["ref"]
        trigger = create_webhook_trigger(first, pack)
        first.create_secret(f"{pack}.secret", SECRET)
        step(1, "Deleting it")
        assert client.request("DELETE", f"tenants/{slug}").status_code == 202
        wait_for(lambda: first.request("GET", "packs").status_code == 401, timeout=10, what="its people to be out")
        wait_for(
            lambda: first.request("POST", f"webhooks/{trigger.key}", json={}).status_code == 404,
            timeout=10,
            what="its webhook to be gone",
        )
        step(2, "Waiting for the tick to take it away")
        wait_for(lambda: _gone(stack, client, slug), timeout=200, what="the tenant to be gone")
        step(3, "Giving the slug to somebody else")
        with create_tenant(stack, slug=slug) as second:
            assert [each["ref"] for each in second.items("packs")] == ["core"]
            assert list(second.items("keys")) == []
            assert first.request("GET", "packs").status_code == 401, "an old token opens nothing"
            refreshed = first.request("POST", "/auth/refresh", json={"refresh_token": first.refresh_token})
            assert refreshed.status_code == 401
            second.create_secret(f"{pack}.secret", "another")
            assert second.get_secret(f"{pack}.secret")["value"] == "another"
        client.request("DELETE", f"tenants/{slug}")


def _gone(stack: Stack, client: AttuneClient, slug: str) -> bool:
    if client.request("GET", f"tenants/{slug}").status_code == 404:
        return True
    with contextlib.suppress(Exception):  # where the AWS below is not ours to call, its own minute comes
        Footprint(stack).tick()
    return False


@pytest.mark.tier1
@pytest.mark.multi_tenant
@pytest.mark.security
def test_tenants_are_the_platforms_affair(client: AttuneClient, stranger: AttuneClient) -> None:
    """The administrator of a tenant neither sees nor makes tenants."""
    title("T1.7.7: Tenants Are the Platform's Affair")
    body = {
        "slug": f"more{uuid.uuid4().hex[:8]}",
        "administrator": {"login": "me@example.test", "password": "Pass 1 pass"},
    }
    assert stranger.request("GET", "tenants").status_code == 403
    assert stranger.request("POST", "tenants", json=body).status_code == 403
    assert stranger.request("GET", f"tenants/{stranger.tenant}").status_code == 403
    assert stranger.tenant in [row["slug"] for row in client.items("tenants", page_size=100)]
    for slug in ("a#b", "a/b", "A", "..", "a b", "", "x" * 64):
        answer = client.request("POST", "tenants", json={**body, "slug": slug})
        assert answer.status_code == 422, slug
