"""When rules fire: both forms, every operator, and what happens to a clause that cannot be evaluated."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.domain.criteria import OPERATORS, Clause, CriteriaError, Outcome, compile_criteria
from chalicelib.domain.values import Keystore, Secret

PAYLOAD: dict[str, Any] = {
    "size": 5,
    "name": "Hello",
    "none": None,
    "yes": True,
    "tags": ["a", "B"],
    "user": {"name": "bob", "roles": [{"id": 7}]},
    "payload": {"inner": 1},
    "threshold": 3,
}


def scope(payload: Any = PAYLOAD, **more: Any) -> dict[str, Any]:
    return {
        "event": {"id": 1, "payload": payload},
        "trigger": {"payload": payload},
        "pack": {"config": {"limit": 4}},
        **more,
    }


def outcome(conditions: Any, payload: Any = PAYLOAD, **more: Any) -> Outcome:
    return compile_criteria(conditions).evaluate(scope(payload, **more))


def clause(field: str, operator: str, *value: Any) -> dict[str, Any]:
    return {"field": field, "operator": operator, **({"value": value[0]} if value else {})}


TRUE, FALSE, ERROR = clause("size", "eq", 5), clause("size", "eq", 6), clause("missing", "eq", 1)


@pytest.mark.parametrize("conditions", [None, {}, []])
@pytest.mark.parametrize("payload", [PAYLOAD, {}, None, [], "text"])
def test_no_conditions_match_every_event(conditions: Any, payload: Any) -> None:
    assert outcome(conditions, payload) == Outcome(matched=True)


@pytest.mark.parametrize(
    "conditions",
    [
        {"expression": "event.payload.size > 3"},
        {"expression": "{{ event.payload.size > 3 and event.payload.name == 'Hello' }}"},
        "event.payload.size == 5",
        "trigger.payload.size == 5",
        "event.payload.tags",
        "pack.config.limit < event.payload.size",
        ["event.payload.size > 3", {"expression": "event.payload.yes"}, TRUE],
    ],
)
def test_expressions_match_by_truth(conditions: Any) -> None:
    assert outcome(conditions).matched


@pytest.mark.parametrize(
    ("field", "operator", "value", "matched"),
    [
        ("size", "equals", 5, True),
        ("size", "eq", 5.0, True),
        ("size", "eq", "5", False),
        ("yes", "eq", 1, False),
        ("none", "eq", None, True),
        ("user", "eq", {"name": "bob", "roles": [{"id": 7}]}, True),
        ("size", "not_equals", 6, True),
        ("size", "neq", 5, False),
        ("size", "!=", "5", True),
        ("size", "gt", 4, True),
        ("size", "gt", 5, False),
        ("size", "gte", 5, True),
        ("size", "lt", 5, False),
        ("size", "lte", 5, True),
        ("name", "gt", "Ha", True),
        ("size", "in", [4, 5], True),
        ("size", "in", ["5"], False),
        ("name", "in", "Hello world", True),
        ("size", "not_in", [1], True),
        ("size", "not_in", [5], False),
        ("name", "contains", "ell", True),
        ("name", "contains", "ELL", False),
        ("tags", "contains", "a", True),
        ("user", "contains", "name", True),
        ("tags", "not_contains", "z", True),
        ("name", "startswith", "He", True),
        ("name", "starts_with", "he", False),
        ("name", "endswith", "lo", True),
        ("name", "ends_with", "LO", False),
        ("name", "matches", "^H.l+o$", True),
        ("name", "matches", "^h", False),
        ("name", "regex", "l{2}", True),
        ("name", "iequals", "hELLO", True),
        ("name", "ieq", "hell", False),
        ("size", "ieq", 5, True),
        ("name", "inot_equals", "HELLO", False),
        ("name", "ineq", "x", True),
        ("name", "icontains", "ELL", True),
        ("tags", "icontains", "b", True),
        ("name", "iin", ["HELLO"], True),
        ("name", "inot_in", ["HELLO"], False),
        ("name", "istartswith", "he", True),
        ("name", "iendswith", "LO", True),
        ("name", "imatches", "^h", True),
        ("name", "Starts-With", "He", True),
        ("name", " NOT EQUALS ", "x", True),
        ("user.name", "eq", "bob", True),
        ("user.roles.0.id", "eq", 7, True),
        ("tags.1", "eq", "B", True),
        ("payload.size", "eq", 5, True),
        ("trigger.payload.size", "eq", 5, True),
        ("event.payload.size", "eq", 5, True),
        ("trigger.data.size", "eq", 5, True),
        ("payload.inner", "eq", 1, True),
        ("size", "gt", "{{ event.payload.threshold }}", True),
        ("size", "gt", "{{ pack.config.limit }}", True),
        ("name", "eq", "{{ 'Hel' }}lo", True),
    ],
)
def test_operators(field: str, operator: str, value: Any, matched: bool) -> None:
    result = outcome([clause(field, operator, value)])
    assert result.error is None
    assert result.matched is matched


@pytest.mark.parametrize(
    ("conditions", "matched"),
    [
        (clause("size", "exists"), True),
        (clause("none", "exists"), True),
        (clause("missing", "exists"), False),
        (clause("user.missing", "exists"), False),
        (clause("missing", "not_exists"), True),
        (clause("size", "not_exists"), False),
        (clause("missing", "exists", False), True),
        (clause("size", "exists", False), False),
        (clause("size", "exists", True), True),
        (clause("name.deeper", "exists"), False),
    ],
)
def test_exists_asks_only_whether_there_is_one(conditions: Any, matched: bool) -> None:
    result = outcome([conditions])
    assert (result.matched, result.error) == (matched, None)


def test_a_clause_without_operator_means_equals() -> None:
    assert outcome([{"field": "size", "value": 5}]).matched


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ([TRUE, TRUE], True),
        ([TRUE, FALSE], False),
        ({"any": [FALSE, TRUE]}, True),
        ({"any": [FALSE, FALSE]}, False),
        ({"all": [TRUE, TRUE]}, True),
        ({"all": [TRUE, FALSE]}, False),
        ([TRUE, {"any": [FALSE, {"all": [TRUE, TRUE]}]}], True),
        ([TRUE, [TRUE, [FALSE]]], False),
        ({"all": []}, True),
        # a clause that cannot be evaluated decides only where nothing else does
        ([ERROR, FALSE], False),
        ([FALSE, ERROR], False),
        ([ERROR, TRUE], None),
        ({"any": [ERROR, TRUE]}, True),
        ({"any": [ERROR, FALSE]}, None),
        ([{"any": [ERROR, FALSE]}, FALSE], False),
    ],
)
def test_any_and_all_nest(conditions: Any, expected: bool | None) -> None:
    result = outcome(conditions)
    assert result.matched is (expected is True)
    assert (result.error is not None) is (expected is None)


@pytest.mark.parametrize(
    ("conditions", "payload", "message"),
    [
        ([ERROR], PAYLOAD, "there is no field 'missing' in the payload"),
        ([clause("user.age", "gt", 1)], PAYLOAD, "there is no field 'age' in user"),
        ([clause("name", "gt", 1)], PAYLOAD, "string and number have no order"),
        ([clause("size", "startswith", "a")], PAYLOAD, "the field must be a string, not number"),
        ([clause("size", "contains", 1)], PAYLOAD, "not number"),
        ([clause("size", "matches", "a")], PAYLOAD, "must be a string, not number"),
        ([clause("size", "in", 5)], PAYLOAD, "not number"),
        ([TRUE], {}, "there is no field 'size' in the payload"),
        ([TRUE], None, "null has no field 'size'"),
        ([TRUE], [], "array has no field 'size'"),
        ("event.payload.missing == 1", PAYLOAD, "there is no field 'missing'"),
        ("event.payload.size > 1", {}, "there is no field 'size'"),
        ("1 / 0", PAYLOAD, "division by zero"),
        ([clause("size", "eq", "{{ event.payload.nope }}")], PAYLOAD, "there is no field 'nope'"),
        ("range(10**9)", PAYLOAD, "too much work"),
        ([clause("name", "matches", "{{ '(' }}")], PAYLOAD, "not valid"),
    ],
)
def test_what_cannot_be_evaluated_does_not_fire_and_says_why(conditions: Any, payload: Any, message: str) -> None:
    result = outcome(conditions, payload)
    assert not result.matched
    assert result.error is not None
    assert message in result.error
    assert any(each.error == result.error and each.matched is None for each in result.clauses)


def test_every_clause_is_shown_with_its_value() -> None:
    result = outcome([clause("size", "gt", 3), {"any": [clause("missing", "eq", 1), "event.payload.tags | length"]}])
    assert result.clauses == [
        Clause("size gt 3", matched=True, value=5),
        Clause("missing eq 1", matched=None, value=None, error="there is no field 'missing' in the payload"),
        Clause("event.payload.tags | length", matched=True, value=2),
    ]


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        ([clause("size", "bogus", 1)], r"conditions\[0\].operator: 'bogus' is not an operator; there are equals"),
        ([{"field": "a", "operator": 5}], "is not an operator"),
        ({"foo": 1}, "conditions must be"),
        (5, "conditions must be"),
        (True, "conditions must be"),
        ([None], r"conditions\[0\] must be"),
        ({"any": []}, "could never hold"),
        ({"any": {}}, "must be"),
        ({"expression": 5}, "conditions.expression must be a string"),
        ({"expression": ""}, "must not be empty"),
        ("", "must not be empty"),
        ("a ==", "conditions: "),
        ("result()", "no function result"),
        ({"all": [{"any": ["("]}]}, r"conditions.all\[0\].any\[0\]: "),
        ([clause("", "eq", 1)], "must be a dotted path"),
        ([{"field": 5}], "must be a dotted path"),
        ([clause("a..b", "eq", 1)], "empty part"),
        ([clause("a", "matches", "(")], r"conditions\[0\].value: pattern"),
        ([clause("a", "matches", 5)], "must be a regular expression"),
        ([clause("a", "exists", "yes")], "must be true, false or absent"),
        ([clause("a", "eq", "{{ 1 +")], r"conditions\[0\].value: "),
        ([[[[[[[[[[[[1]]]]]]]]]]]], "at most 10 levels"),
        ([TRUE] * 201, "at most 200 conditions"),
    ],
)
def test_conditions_that_no_event_could_meet_are_refused(conditions: Any, message: str) -> None:
    with pytest.raises(CriteriaError, match=message):
        compile_criteria(conditions)


def test_are_compiled_once() -> None:
    assert compile_criteria([clause("a", "eq", 1)]) is compile_criteria([clause("a", "eq", 1)])


def test_name_what_they_read() -> None:
    assert compile_criteria(["event.id", clause("a", "eq", "{{ keystore.k }}")]).names == {"event", "keystore"}


def test_a_secret_does_not_decide_and_is_not_shown() -> None:
    config = {"pack": {"config": {"token": Secret(pack="p", config="token")}}}
    for conditions in (
        "pack.config.token",
        "pack.config.token == 'x'",
        [clause("name", "eq", "{{ pack.config.token }}")],
        [clause("name", "neq", "x{{ pack.config.token }}")],
    ):
        result = outcome(conditions, **config)
        assert not result.matched
        assert result.error is not None
        assert "ecret" in result.error


def test_a_keystore_that_gives_values_can_be_held_against() -> None:
    keystore = Keystore({"hook.token": "Hello"}.__getitem__)
    assert outcome([clause("name", "eq", "{{ keystore.hook.token }}")], keystore=keystore).matched
    assert outcome("event.payload.name == keystore.hook.token", keystore=keystore).matched


LEAVES = st.sampled_from([TRUE, FALSE, ERROR])
TREES = st.recursive(
    LEAVES,
    lambda inner: st.builds(
        lambda name, parts: {name: parts}, st.sampled_from(["any", "all"]), st.lists(inner, min_size=1, max_size=3)
    ),
    max_leaves=8,
)


def truth(tree: Any) -> bool | None:
    """Kleene's logic, spelled out."""
    if "field" in tree:
        return {5: True, 6: False, 1: None}[tree["value"]]
    ((name, parts),) = tree.items()
    values = [truth(part) for part in parts]
    decisive = name == "any"
    return decisive if decisive in values else None if None in values else not decisive


@given(TREES)
def test_an_unknown_clause_counts_as_unknown(tree: Any) -> None:
    result = outcome(tree)
    assert (result.matched, result.error is None) == (truth(tree) is True, truth(tree) is not None)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["field", "operator", "value", "any", "all", "expression", "x"]), inner, max_size=3
        )
    ),
    max_leaves=8,
)


@given(ANYTHING, ANYTHING)
def test_any_conditions_are_refused_or_evaluated(conditions: Any, payload: Any) -> None:
    try:
        criteria = compile_criteria(conditions)
    except CriteriaError:
        return
    criteria.evaluate(scope(payload))


@given(st.sampled_from(sorted(OPERATORS)), ANYTHING, ANYTHING)
def test_any_operator_takes_any_values(operator: str, value: Any, found: Any) -> None:
    try:
        criteria = compile_criteria([clause("x", operator, value)])
    except CriteriaError:
        return
    result = criteria.evaluate(scope({"x": found}))
    assert result.error is None or not result.matched
