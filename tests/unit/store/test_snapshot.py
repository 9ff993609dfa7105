import pytest
from unit.store.builders import NOW, a_key, a_pack, a_rule, a_trigger, an_action, new_id
from unit.store.conftest import Calls, Clock

from chalicelib.domain.entities import SYSTEM_TENANT, Identity, PermissionSet
from chalicelib.store.opening import Store
from chalicelib.store.registry import Delete, Put
from chalicelib.store.snapshot import TTL, Snapshots


@pytest.fixture
def two_rules(store: Store) -> None:
    store.tenant("acme").registry.commit(
        Put(a_rule("demo.on"), new=True), Put(a_rule("demo.off", enabled=False), new=True), Put(an_action(), new=True)
    )


@pytest.mark.usefixtures("two_rules")
def test_only_enabled_rules_of_the_trigger(snapshots: Snapshots) -> None:
    assert [each.ref for each in snapshots.of("acme").rules_for("demo.hook")] == ["demo.on"]
    assert snapshots.of("acme").rules_for("demo.other") == []


@pytest.mark.usefixtures("two_rules")
def test_what_was_read_is_not_read_again(snapshots: Snapshots, calls: Calls, clock: Clock) -> None:
    def look() -> None:
        snapshot = snapshots.of("acme")
        snapshot.rules_for("demo.hook")
        snapshot.action("demo.act")
        snapshot.action("demo.none")
        snapshot.keys_of_action("demo.act", "demo")

    look()
    assert calls.during(look) == []
    clock.passes(TTL)
    assert calls.during(look) == ["BatchGetItem"]


@pytest.mark.usefixtures("two_rules")
def test_changes_made_elsewhere_are_seen_within_a_second(snapshots: Snapshots, elsewhere: Store, clock: Clock) -> None:
    before = snapshots.of("acme")
    assert before.rules_for("demo.hook")
    elsewhere.tenant("acme").registry.commit(Delete("rule", "demo.on"))
    clock.passes(TTL / 2)
    assert snapshots.of("acme") is before
    clock.passes(TTL / 2)
    after = snapshots.of("acme")
    assert after.rules_for("demo.hook") == []
    assert after.version > before.version


@pytest.mark.usefixtures("two_rules")
def test_own_changes_are_seen_at_once(snapshots: Snapshots, store: Store) -> None:
    assert snapshots.of("acme").rules_for("demo.hook")
    store.tenant("acme").registry.commit(Delete("rule", "demo.on"))
    assert snapshots.of("acme").rules_for("demo.hook") == []


@pytest.mark.usefixtures("two_rules")
def test_a_message_that_knows_more_makes_us_look(snapshots: Snapshots, elsewhere: Store) -> None:
    version = snapshots.of("acme").version
    elsewhere.tenant("acme").registry.commit(Delete("rule", "demo.on"))
    assert snapshots.of("acme", at_least=version + 1).rules_for("demo.hook") == []


@pytest.mark.usefixtures("two_rules")
def test_the_senders_look_is_as_good_as_ones_own(snapshots: Snapshots, calls: Calls, clock: Clock) -> None:
    version = snapshots.of("acme").version
    clock.passes(60)
    assert calls.during(lambda: snapshots.of("acme", at_least=version, age=0.1)) == []
    assert calls.during(lambda: snapshots.of("acme")) == []
    clock.passes(0.95)
    assert calls.during(lambda: snapshots.of("acme")) == ["BatchGetItem"]


@pytest.mark.usefixtures("two_rules")
def test_an_old_message_vouches_for_nothing(snapshots: Snapshots, elsewhere: Store, clock: Clock) -> None:
    version = snapshots.of("acme").version
    elsewhere.tenant("acme").registry.commit(Delete("rule", "demo.on"))
    clock.passes(60)
    assert snapshots.of("acme", at_least=version, age=50.0).rules_for("demo.hook") == []


def test_system_things_behind_own_ones(snapshots: Snapshots, store: Store) -> None:
    system = store.tenant(SYSTEM_TENANT).registry
    system.commit(Put(a_pack("core"), new=True), Put(an_action("core.echo", label="system's"), new=True))
    assert snapshots.of("acme").action("core.echo").label == "system's"
    assert snapshots.of(SYSTEM_TENANT).action("core.echo").label == "system's"
    store.tenant("acme").registry.commit(Put(an_action("core.echo", label="own"), new=True))
    assert snapshots.of("acme").action("core.echo").label == "own"
    assert snapshots.of("other").action("core.echo").label == "system's"
    system.commit(Delete("action", "core.echo"))
    assert snapshots.of("other").action("core.echo") is None


def test_identities_and_keys_are_the_tenants_own(snapshots: Snapshots, store: Store) -> None:
    root = Identity(id=new_id(), ref="root", created=NOW, updated=NOW)
    store.tenant(SYSTEM_TENANT).registry.commit(Put(root, new=True), Put(a_key("token"), new=True))
    assert snapshots.of("acme").identity("root") is None
    assert snapshots.of("acme").key("token") is None
    assert snapshots.of(SYSTEM_TENANT).identity("root") is not None


def test_keys_of_an_action_come_after_its_packs(snapshots: Snapshots, store: Store) -> None:
    store.tenant("acme").registry.commit(
        Put(a_key("a.of-action", owner_type="action", owner_action_ref="demo.act"), new=True),
        Put(a_key("b.of-pack", owner_type="pack", owner_pack_ref="demo"), new=True),
        Put(a_key("c.of-other", owner_type="action", owner_action_ref="demo.other"), new=True),
        Put(a_key("d.of-system"), new=True),
    )
    keys = snapshots.of("acme").keys_of_action("demo.act", "demo")
    assert [each.ref for each in keys] == ["b.of-pack", "a.of-action"]


def test_permission_sets_of_both(snapshots: Snapshots, store: Store) -> None:
    for tenant, ref in ((SYSTEM_TENANT, "core.viewer"), ("acme", "demo.special"), ("other", "demo.foreign")):
        one = PermissionSet(id=new_id(), ref=ref, created=NOW, updated=NOW)
        store.tenant(tenant).registry.commit(Put(one, new=True))
    assert [each.ref for each in snapshots.of("acme").permission_sets()] == ["core.viewer", "demo.special"]


@pytest.mark.usefixtures("two_rules")
def test_memos_live_as_long_as_the_version(snapshots: Snapshots, store: Store, clock: Clock) -> None:
    made = []

    def make() -> int:
        made.append(1)
        return len(made)

    assert [snapshots.of("acme").memo("m", make) for _ in range(3)] == [1, 1, 1]
    clock.passes(TTL)
    assert snapshots.of("acme").memo("m", make) == 1
    store.tenant("acme").registry.commit(Delete("rule", "demo.on"))
    assert snapshots.of("acme").memo("m", make) == 2


def test_webhook_keys(snapshots: Snapshots, store: Store, elsewhere: Store, calls: Calls, clock: Clock) -> None:
    store.tenant("acme").registry.commit(Put(a_trigger(webhook_key="wh_one"), new=True))
    assert snapshots.webhook("wh_one") == ("acme", "demo.hook")
    assert calls.during(lambda: snapshots.webhook("wh_one")) == []
    trigger = elsewhere.tenant("acme").registry.triggers.get("demo.hook")
    elsewhere.tenant("acme").registry.commit(Put(a_trigger(id=trigger.id, revision=1, webhook_key="wh_two")))
    clock.passes(TTL)
    assert snapshots.webhook("wh_one") is None
    assert snapshots.webhook("wh_two") == ("acme", "demo.hook")


def test_unknown_webhook_keys_cost_one_read_a_second(snapshots: Snapshots, calls: Calls, clock: Clock) -> None:
    assert snapshots.webhook("wh_none") is None
    assert calls.during(lambda: snapshots.webhook("wh_none")) == []
    clock.passes(TTL)
    assert calls.during(lambda: snapshots.webhook("wh_none")) == ["GetItem"]
