import time
from collections.abc import Callable

import msgspec
import pytest
from pynamodb.exceptions import TransactWriteError
from unit.store.builders import NOW, a_key, a_pack, a_rule, a_trigger, an_action, new_id
from unit.store.conftest import Refusals

from chalicelib.domain.entities import SYSTEM_TENANT, Identity
from chalicelib.store.opening import Store
from chalicelib.store.registry import Conflict, Delete, Put, Registry


@pytest.fixture
def registry(store: Store) -> Registry:
    return store.tenant("acme").registry


def version(store: Store, tenant: str = "acme") -> int:
    return store.versions(tenant, consistent=True)[0]


def test_what_is_put_comes_back_whole(registry: Registry) -> None:
    action = an_action(param_schema={"n": {"type": "integer", "default": 2**60}}, timeout=7)
    registry.commit(Put(action, new=True))
    stored = registry.actions.get("demo.act")
    assert stored == msgspec.structs.replace(action, revision=1)


def test_new_refuses_what_exists_and_changes_nothing(registry: Registry, store: Store) -> None:
    registry.commit(Put(a_pack(label="first"), new=True))
    with pytest.raises(Conflict) as conflict:
        registry.commit(Put(an_action(), new=True), Put(a_pack(label="second"), new=True))
    assert (conflict.value.what, conflict.value.exists) == ("pack demo", True)
    assert registry.actions.get("demo.act") is None
    assert registry.packs.get("demo").label == "first"
    assert version(store) == 1


def test_the_second_of_two_writers_is_refused(registry: Registry) -> None:
    registry.commit(Put(a_rule(), new=True))
    read_by_both = registry.rules.get("demo.rule")
    registry.commit(Put(read_by_both))
    with pytest.raises(Conflict) as conflict:
        registry.commit(Put(read_by_both))
    assert not conflict.value.exists
    assert registry.rules.get("demo.rule").revision == 2


def test_a_put_does_not_bring_back_what_was_deleted(registry: Registry) -> None:
    registry.commit(Put(a_rule(), new=True))
    rule = registry.rules.get("demo.rule")
    registry.commit(Delete("rule", "demo.rule"))
    with pytest.raises(Conflict):
        registry.commit(Put(rule))
    assert registry.rules.get("demo.rule") is None


def test_a_put_does_not_overwrite_what_was_made_anew(registry: Registry) -> None:
    registry.commit(Put(a_rule(label="first"), new=True))
    first = registry.rules.get("demo.rule")
    registry.commit(Delete("rule", "demo.rule"))
    registry.commit(Put(a_rule(label="second"), new=True))
    with pytest.raises(Conflict):
        registry.commit(Put(first))
    assert registry.rules.get("demo.rule").label == "second"


def test_deleting_what_is_not_there_is_fine(registry: Registry) -> None:
    registry.commit(Delete("rule", "demo.none"))


def test_every_commit_bumps_the_version_once(registry: Registry, store: Store) -> None:
    registry.commit(Put(a_pack(), new=True), Put(an_action(), new=True))
    registry.commit(Delete("action", "demo.act"))
    assert version(store) == 2
    assert store.versions("other", consistent=True) == (0, 0)


def test_more_than_a_transaction_holds_is_written_in_order(registry: Registry, store: Store) -> None:
    actions = [an_action(f"demo.a{number:03}") for number in range(150)]
    registry.commit(*(Put(each, new=True) for each in actions))
    assert [each.ref for each in registry.actions.list()] == [each.ref for each in actions]
    assert version(store) == 2


def test_bodies_too_big_for_a_row(registry: Registry) -> None:
    script = "x" * 500_000
    registry.commit(Put(an_action(entrypoint=script), new=True))
    assert registry.actions.get("demo.act").entrypoint == script
    assert registry.actions.list()[0].entrypoint == script


def test_own_things_hide_the_systems(store: Store) -> None:
    store.tenant(SYSTEM_TENANT).registry.commit(
        Put(a_pack("core", label="system's"), new=True), Put(a_pack("demo", label="system's"), new=True)
    )
    registry = store.tenant("acme").registry
    registry.commit(Put(a_pack("demo", label="own"), new=True), Put(a_pack("zoo", label="own"), new=True))
    assert registry.packs.get("core") is None
    assert registry.packs.find("core").label == "system's"
    assert registry.packs.find("demo").label == "own"
    assert [(each.ref, each.label) for each in registry.packs.visible()] == [
        ("core", "system's"),
        ("demo", "own"),
        ("zoo", "own"),
    ]
    assert [each.ref for each in registry.packs.list()] == ["demo", "zoo"]


def test_by_id(store: Store) -> None:
    system, own, foreign = a_pack("core"), a_pack("demo"), a_pack("demo")
    store.tenant(SYSTEM_TENANT).registry.commit(Put(system, new=True))
    store.tenant("other").registry.commit(Put(foreign, new=True))
    registry = store.tenant("acme").registry
    registry.commit(Put(own, new=True))
    assert registry.packs.by_id(own.id).ref == "demo"
    assert registry.packs.by_id(system.id).ref == "core"
    assert registry.packs.by_id(foreign.id) is None
    assert registry.actions.by_id(own.id) is None


def test_tenants_see_nothing_of_each_other(store: Store) -> None:
    store.tenant("acme").registry.commit(Put(a_rule(), new=True), Put(a_key(), new=True))
    other = store.tenant("other").registry
    assert other.rules.get("demo.rule") is None
    assert other.rules_by_trigger("demo.hook") == []
    assert other.keys.visible() == []
    other.commit(Delete("rule", "demo.rule"))
    assert store.tenant("acme").registry.rules.get("demo.rule") is not None


def test_rules_by_trigger_follow_the_rule(registry: Registry) -> None:
    registry.commit(
        Put(a_rule("demo.b"), new=True),
        Put(a_rule("demo.a"), new=True),
        Put(a_rule("demo.c", trigger_ref="x.y"), new=True),
    )
    assert [each.ref for each in registry.rules_by_trigger("demo.hook")] == ["demo.a", "demo.b"]
    moved = registry.rules.get("demo.a")
    registry.commit(Put(a_rule("demo.a", id=moved.id, revision=moved.revision, trigger_ref="x.y")))
    assert [each.ref for each in registry.rules_by_trigger("demo.hook")] == ["demo.b"]
    assert [each.ref for each in registry.rules_by_trigger("x.y")] == ["demo.a", "demo.c"]


def test_keys_by_owner(registry: Registry) -> None:
    registry.commit(
        Put(a_key("a"), new=True),
        Put(a_key("b", owner_type="pack", owner_pack_ref="demo"), new=True),
        Put(a_key("c", owner_type="action", owner_action_ref="demo.act"), new=True),
        Put(a_key("d", owner_type="identity", owner_identity=17), new=True),
        Put(a_key("e", owner_type="sensor", owner_sensor_ref="demo.act"), new=True),
    )
    assert [each.ref for each in registry.keys_of("system", None)] == ["a"]
    assert [each.ref for each in registry.keys_of("pack", "demo")] == ["b"]
    assert [each.ref for each in registry.keys_of("action", "demo.act")] == ["c"]
    assert [each.ref for each in registry.keys_of("identity", 17)] == ["d"]
    assert registry.keys_of("pack", "dem") == []


def test_webhook_keys_lead_to_their_trigger_for_as_long_as_it_has_them(registry: Registry, store: Store) -> None:
    registry.commit(Put(a_trigger(webhook_key="wh_one"), new=True))
    assert store.webhook_target("wh_one") == ("acme", "demo.hook")
    trigger = registry.triggers.get("demo.hook")
    registry.commit(Put(a_trigger(id=trigger.id, revision=1, webhook_key="wh_two")))
    assert store.webhook_target("wh_one") is None
    assert store.webhook_target("wh_two") == ("acme", "demo.hook")
    registry.commit(Put(a_trigger(id=trigger.id, revision=2, webhook_key="wh_two", label="other")))
    assert store.webhook_target("wh_two") == ("acme", "demo.hook")
    registry.commit(Delete("trigger", "demo.hook"))
    assert store.webhook_target("wh_two") is None


def test_logins_are_unique_per_tenant(store: Store) -> None:
    def register(tenant: str) -> None:
        someone = Identity(id=new_id(), ref="ann@example.org", created=NOW, updated=NOW)
        store.tenant(tenant).registry.commit(Put(someone, new=True))

    register("acme")
    register("other")
    with pytest.raises(Conflict):
        register("acme")


def test_writers_that_meet_at_the_version_try_again(registry: Registry, refuse: Callable[[int], Refusals]) -> None:
    refusals = refuse(3)
    registry.commit(Put(a_rule(), new=True))
    assert refusals.left == 0
    assert registry.rules.get("demo.rule") is not None


def test_not_forever(registry: Registry, refuse: Callable[[int], Refusals], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    refuse(1000)
    with pytest.raises(TransactWriteError):
        registry.commit(Put(a_rule(), new=True))
