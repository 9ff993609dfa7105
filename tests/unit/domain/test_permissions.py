from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.domain.entities import Grant, Pack
from chalicelib.domain.permissions import (
    ACTIONS,
    DEFAULT_SETS,
    RESOURCES,
    Access,
    Context,
    GrantError,
    check_grants,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ME, SOMEBODY = 7, 8


def grant(resource: str, *actions: str, **constraints: Any) -> Grant:
    return Grant(resource=resource, actions=list(actions), constraints=constraints or None)


def access(*grants: Grant, **attributes: Any) -> Access:
    return Access(grants, ME, attributes)


def pack(visibility: Any, installed_by: int | None = None) -> Pack:
    return Pack(
        id=1,
        ref="mine",
        label="",
        version="1.0.0",
        visibility=visibility,
        installed_by=installed_by,
        created=NOW,
        updated=NOW,
    )


@pytest.mark.parametrize(
    ("constraints", "holding", "failing"),
    [
        ({"pack_refs": ["p"]}, Context(pack_ref="p"), Context(pack_ref="q")),
        ({"refs": ["p.a"]}, Context(ref="p.a"), Context(ref="p.b")),
        ({"ids": [3]}, Context(id=3), Context(id=4)),
        ({"owner_types": ["pack"]}, Context(owner_type="pack"), Context(owner_type="system")),
        ({"owner_refs": ["p"]}, Context(owner_ref="p"), Context(owner_ref="q")),
        ({"visibility": ["public"]}, Context(visibility="public"), Context(visibility="private")),
        ({"visibility": "public"}, Context(visibility="public"), Context(visibility="private")),
        ({"encrypted": False}, Context(encrypted=False), Context(encrypted=True)),
        ({"owner": "self"}, Context(owner_identity=ME), Context(owner_identity=SOMEBODY)),
        ({"owner": "none"}, Context(), Context(owner_identity=SOMEBODY)),
        ({"execution_scope": "self"}, Context(execution_relation="self"), Context(execution_relation="descendant")),
        (
            {"execution_scope": "descendants"},
            Context(execution_relation="descendant"),
            Context(execution_relation="other"),
        ),
        ({"pack_refs": ["p"], "ids": [3]}, Context(pack_ref="p", id=3), Context(pack_ref="p", id=4)),
    ],
)
def test_a_constraint_holds_for_what_it_names(constraints: dict[str, Any], holding: Context, failing: Context) -> None:
    mine = access(grant("artifacts", "read", **constraints))
    assert mine.allows("artifacts", "read", holding)
    assert not mine.allows("artifacts", "read", failing)


@pytest.mark.parametrize(
    "name", ["pack_refs", "refs", "ids", "owner_types", "owner_refs", "visibility", "encrypted", "execution_scope"]
)
def test_a_constraint_fails_where_the_context_does_not_say(name: str) -> None:
    wanted: Any = {"encrypted": True, "execution_scope": "self"}.get(name, ["x", 1])
    assert not access(grant("artifacts", "read", **{name: wanted})).allows("artifacts", "read", Context())


def test_an_unknown_constraint_allows_nothing() -> None:
    assert not access(grant("packs", "read", moon="full")).allows("packs", "read", Context(pack_ref="p"))


def test_attributes_of_the_identity_must_be_equal() -> None:
    constrained = grant("actions", "execute", attributes={"team": "blue", "level": 1})
    assert access(constrained, team="blue", level=1).allows("actions", "execute", Context())
    assert not access(constrained, team="blue", level=True).allows("actions", "execute", Context())
    assert not access(constrained, team="blue").allows("actions", "execute", Context())


def test_without_context_any_grant_opens_the_route() -> None:
    mine = access(grant("actions", "read", pack_refs=["p"]))
    assert mine.allows("actions", "read")
    assert not mine.allows("actions", "delete")


def test_keys_of_somebody_else_need_a_grant_about_owners() -> None:
    theirs = Context(owner_type="identity", owner_identity=SOMEBODY)
    mine = Context(owner_type="identity", owner_identity=ME)
    assert not access(grant("keys", "read")).allows("keys", "read", theirs)
    assert access(grant("keys", "read")).allows("keys", "read", mine)
    assert access(grant("keys", "read", owner="any")).allows("keys", "read", theirs)
    assert access(grant("keys", "read", owner_types=["identity"])).allows("keys", "read", theirs)
    assert not access(grant("keys", "read", refs=["x"])).allows("keys", "read", theirs)


def test_packs_are_seen_by_their_visibility() -> None:
    reader, named = access(grant("packs", "read")), access(grant("packs", "read", pack_refs=["mine"]))
    assert access().sees_pack(pack("standard"))
    assert not access().sees_pack(pack("tenant"))
    assert reader.sees_pack(pack("tenant"))
    assert reader.sees_pack(pack("private", installed_by=ME))
    assert not reader.sees_pack(pack("private", installed_by=SOMEBODY))
    assert named.sees_pack(pack("private", installed_by=SOMEBODY))
    assert not named.sees_pack(pack("private", installed_by=SOMEBODY), "delete")
    assert not reader.sees_pack(pack("private"))


def test_standard_packs_are_only_read_by_everybody() -> None:
    assert not access().sees_pack(pack("standard"), "configure")


def test_effective_lists_what_it_has_in_the_contracts_order() -> None:
    mine = access(grant("rules", "delete", "read"), grant("packs", "read"))
    assert mine.effective() == {"packs": ["read"], "rules": ["read", "delete"]}
    assert list(mine.effective()) == ["packs", "rules"]


def test_covers_only_what_it_may_hand_on() -> None:
    editor = access(*DEFAULT_SETS["core.editor"])
    assert editor.covers(DEFAULT_SETS["core.viewer"])
    assert not editor.covers(DEFAULT_SETS["core.admin"])
    narrow = access(grant("keys", "read", owner_types=["pack"], owner_refs=["p", "q"]))
    assert narrow.covers([grant("keys", "read", owner_types=["pack"], owner_refs=["p"])])
    assert not narrow.covers([grant("keys", "read")])
    assert not access(grant("keys", "read")).covers([grant("keys", "read", owner="any")])
    assert access(grant("keys", "read")).covers([grant("keys", "read", owner_types=["pack"])])
    assert access(grant("keys", "read")).covers([grant("keys", "read", owner="self")])
    changer = access(grant("triggers", "update", pack_refs=["p"]))
    assert changer.covers([grant("events", "create", pack_refs=["p"])])
    assert not changer.covers([grant("events", "create")])
    assert not changer.allows("events", "create")


def test_a_grant_for_other_attributes_is_not_had_at_all() -> None:
    red = grant("packs", "read", attributes={"team": "red"})
    blue = access(red, team="blue")
    assert not blue.allows("packs", "read")
    assert blue.effective() == {}
    assert not blue.covers([red])
    assert access(red, team="red").covers([red])


def test_the_default_sets_name_what_exists() -> None:
    for grants in DEFAULT_SETS.values():
        for each in grants:
            assert each.resource in RESOURCES
            assert set(each.actions) <= set(ACTIONS)
    assert list(DEFAULT_SETS) == ["core.admin", "core.editor", "core.executor", "core.viewer", "core.platform_admin"]


@pytest.mark.parametrize(
    ("grants", "message"),
    [
        ({}, "must be a list"),
        ([1], r"grants\[0\] must be an object"),
        ([{"resource": "moon", "actions": ["read"]}], "resource must be one of"),
        ([{"resource": "packs", "actions": ["fly"]}], "actions must be a list"),
        ([{"resource": "packs", "actions": ["read"], "constraints": []}], "constraints must be an object"),
        ([{"resource": "packs", "actions": ["read"], "constraints": {"moon": 1}}], "constraints.moon is unknown"),
        ([{"resource": "packs", "actions": ["read"], "constraints": {"ids": ["1"]}}], "constraints.ids has a value"),
    ],
)
def test_a_grant_that_names_what_does_not_exist_is_refused(grants: Any, message: str) -> None:
    with pytest.raises(GrantError, match=message):
        check_grants(grants)


def test_a_right_grant_is_taken() -> None:
    taken = check_grants([{"resource": "packs", "actions": ["read"], "constraints": {"owner": "self"}}])
    assert taken == [grant("packs", "read", owner="self")]


CONSTRAINTS = st.fixed_dictionaries(
    {},
    optional={
        "pack_refs": st.lists(st.sampled_from("pq"), max_size=2),
        "ids": st.lists(st.sampled_from([1, 2]), max_size=2),
        "owner": st.sampled_from(["self", "any", "none"]),
        "owner_types": st.lists(st.sampled_from(["pack", "identity"]), max_size=2),
        "encrypted": st.booleans(),
        "visibility": st.sampled_from(["public", "private"]),
        "execution_scope": st.sampled_from(["self", "descendants", "any"]),
        "attributes": st.dictionaries(st.just("team"), st.sampled_from(["blue", "red"])),
    },
)
GRANTS = st.lists(
    st.builds(
        lambda resource, action, constraints: Grant(
            resource=resource, actions=[action], constraints=constraints or None
        ),
        st.sampled_from(["keys", "actions"]),
        st.sampled_from(["read", "execute"]),
        CONSTRAINTS,
    ),
    max_size=4,
)
CONTEXTS = st.builds(
    Context,
    pack_ref=st.sampled_from([None, "p", "q"]),
    id=st.sampled_from([None, 1, 2]),
    owner_identity=st.sampled_from([None, ME, SOMEBODY]),
    owner_type=st.sampled_from([None, "pack", "identity"]),
    visibility=st.sampled_from([None, "public", "private"]),
    encrypted=st.sampled_from([None, True, False]),
    execution_relation=st.sampled_from([None, "self", "descendant", "other"]),
)
ASKED = st.tuples(st.sampled_from(["keys", "actions"]), st.sampled_from(["read", "execute"]), CONTEXTS)


@given(GRANTS, GRANTS, ASKED)
def test_one_more_grant_never_takes_access_away(some: list[Grant], more: list[Grant], asked: Any) -> None:
    if access(*some, team="blue").allows(*asked):
        assert access(*some, *more, team="blue").allows(*asked)


@given(GRANTS, GRANTS, ASKED, st.sampled_from(["blue", "red"]))
def test_what_is_handed_on_allows_nothing_more(mine: list[Grant], handed: list[Grant], asked: Any, team: str) -> None:
    """Whoever gets it: their attributes open nothing that the giver does not have."""
    giver = access(*mine, team="blue")
    if giver.covers(handed) and access(*handed, team=team).allows(*asked):
        assert giver.allows(*asked)


@given(GRANTS, GRANTS, GRANTS)
def test_what_is_handed_on_and_on_stays_within_the_first(
    mine: list[Grant], handed: list[Grant], further: list[Grant]
) -> None:
    giver = access(*mine, team="blue")
    if giver.covers(handed) and access(*handed, team="blue").covers(further):
        assert giver.covers(further)


@given(GRANTS, GRANTS, GRANTS, ASKED)
def test_a_set_that_is_changed_gives_nothing_that_is_new_to_both(
    mine: list[Grant], before: list[Grant], after: list[Grant], asked: Any
) -> None:
    editor = access(*mine, team="blue")
    if editor.covers_change(before, after) and access(*after, team="blue").allows(*asked):
        assert editor.allows(*asked) or access(*before, team="blue").allows(*asked)


@given(GRANTS, GRANTS)
def test_a_set_may_always_shrink(mine: list[Grant], before: list[Grant]) -> None:
    assert access(*mine).covers_change(before, before)
    assert access(*mine).covers_change(before, before[1:])


@given(GRANTS)
def test_what_one_has_one_may_hand_on(mine: list[Grant]) -> None:
    had = [each for each in mine if (each.constraints or {}).get("attributes", {}).get("team", "blue") == "blue"]
    assert access(*mine, team="blue").covers(had)


@given(CONSTRAINTS, CONSTRAINTS, ASKED)
def test_constraints_are_conjunctive(some: dict[str, Any], more: dict[str, Any], asked: Any) -> None:
    """A grant with the constraints of two allows what both allow, where they do not speak of the same."""
    resource, action, context = asked
    if some.keys() & more.keys() or (resource == "keys" and context.owner_type == "identity"):
        return
    both = access(grant(resource, action, **some, **more), team="blue").allows(*asked)
    each = [access(grant(resource, action, **one), team="blue").allows(*asked) for one in (some, more)]
    assert both == all(each)


@given(CONSTRAINTS, ASKED)
def test_a_constraint_taken_away_never_takes_access_away(constraints: dict[str, Any], asked: Any) -> None:
    resource, action, _ = asked
    if resource == "keys":  # there owner constraints open what is somebody else's
        return
    if access(grant(resource, action, **constraints), team="blue").allows(*asked):
        for name in constraints:
            fewer = {each: wanted for each, wanted in constraints.items() if each != name}
            assert access(grant(resource, action, **fewer), team="blue").allows(*asked)


@given(GRANTS, ASKED)
def test_what_is_allowed_is_among_the_effective(mine: list[Grant], asked: Any) -> None:
    resource, action, context = asked
    if access(*mine).allows(resource, action, context):
        assert action in access(*mine).effective()[resource]
