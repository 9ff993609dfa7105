"""T3.5: rules fire only for events that meet their criteria.

Every test adds a rule without criteria on the same trigger. All rules meet an event in one step, so once that rule has
fired for every post, the others have had their say too: what has not fired by then does not fire.
"""

from collections import defaultdict
from dataclasses import dataclass

import pytest
from helpers.client import AttuneClient, Json
from helpers.fixtures import create_echo_action, create_webhook_trigger
from helpers.narration import step, summary, title
from helpers.polling import wait_for_execution_count


@dataclass(frozen=True)
class Bench:
    """A trigger with rules under test, and one rule that always fires."""

    client: AttuneClient
    pack: str
    trigger_ref: str
    key: str
    action: str

    @classmethod
    def set_up(cls, client: AttuneClient, pack: str) -> "Bench":
        trigger = create_webhook_trigger(client, pack)
        bench = cls(client, pack, trigger.ref, trigger.key, create_echo_action(client, pack))
        bench.rule("always", {})
        return bench

    def rule(self, name: str, conditions: Json) -> None:
        """A rule that echoes the ``name`` of the posts it fires for."""
        self.client.create_rule(
            f"{self.pack}.{name}",
            self.pack,
            trigger_ref=self.trigger_ref,
            action_ref=self.action,
            conditions=conditions,
            action_params={"message": "{{ event.payload.name }}"},
        )

    def fired(self, posts: dict[str, dict[str, Json]]) -> dict[str, set[str]]:
        """Which posts each rule fired for, as rule → names of posts."""
        for name, payload in posts.items():
            self.client.post_webhook(self.key, {"name": name, **payload})
        wait_for_execution_count(self.client, len(posts), rule_ref=f"{self.pack}.always")
        rules_that_fired = defaultdict(set)
        rows = self.client.list_executions(trigger_ref=self.trigger_ref)
        wait_for_execution_count(self.client, len(rows), trigger_ref=self.trigger_ref)
        for row in rows:
            name = self.client.get_execution(row["id"])["config"]["message"]
            rule = row["rule_ref"].removeprefix(f"{self.pack}.")
            assert name not in rules_that_fired[rule], f"{rule} fired twice for {name}"
            rules_that_fired[rule].add(name)
        assert rules_that_fired.pop("always") == set(posts)
        return dict(rules_that_fired)


@pytest.mark.tier3
@pytest.mark.webhook
@pytest.mark.criteria
@pytest.mark.rules
def test_rule_criteria_basic_filtering(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    """Equality, as an expression and as an operator list: only matching posts fire."""
    title("T3.5: Basic Criteria Filtering")

    step(1, "Creating rules for two levels, in both forms")
    bench = Bench.set_up(client, test_pack["ref"])
    bench.rule("info", {"expression": "{{ trigger.payload.level == 'info' }}"})
    bench.rule("error", {"expression": "event.payload.level == 'error'"})
    bench.rule("error_listed", [{"field": "level", "operator": "equals", "value": "error"}])
    bench.rule("not_info_listed", [{"field": "level", "operator": "neq", "value": "info"}])

    step(2, "Posting three levels")
    fired = bench.fired({"a": {"level": "info"}, "b": {"level": "error"}, "c": {"level": "debug"}})

    summary(*(f"{rule}: {sorted(names)}" for rule, names in fired.items()))
    assert fired == {"info": {"a"}, "error": {"b"}, "error_listed": {"b"}, "not_info_listed": {"b", "c"}}


@pytest.mark.tier3
@pytest.mark.webhook
@pytest.mark.criteria
@pytest.mark.rules
def test_rule_criteria_numeric_comparison(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    """>, >=, < and <= compare numbers as numbers; text is not a number."""
    title("T3.5: Numeric Comparison")

    step(1, "Creating rules around the threshold 80")
    bench = Bench.set_up(client, test_pack["ref"])
    for name, operator in {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}.items():
        bench.rule(name, {"expression": f"event.payload.cpu {operator} 80"})
    for name in ("gte", "lte"):
        bench.rule(f"listed_{name}", [{"field": "cpu", "operator": name, "value": 80}])

    step(2, "Posting below, at and above it, and a text")
    fired = bench.fired({"low": {"cpu": 9}, "at": {"cpu": 80}, "high": {"cpu": 80.5}, "text": {"cpu": "95"}})

    summary(*(f"{rule}: {sorted(names)}" for rule, names in fired.items()))
    assert fired == {
        "gt": {"high"},
        "ge": {"at", "high"},
        "lt": {"low"},
        "le": {"low", "at"},
        "listed_gte": {"at", "high"},
        "listed_lte": {"low", "at"},
    }


@pytest.mark.tier3
@pytest.mark.webhook
@pytest.mark.criteria
@pytest.mark.rules
def test_rule_criteria_complex_expressions(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    """and, or, not and nesting, as expressions and as any/all lists."""
    title("T3.5: Complex Expressions")

    step(1, "Creating rules with AND, OR and nested logic")
    bench = Bench.set_up(client, test_pack["ref"])
    critical = {"field": "level", "operator": "eq", "value": "critical"}
    prod = {"field": "env.name", "operator": "eq", "value": "prod"}
    many = {"field": "count", "operator": "gt", "value": 10}
    bench.rule("both", {"expression": "event.payload.level == 'critical' and event.payload.env.name == 'prod'"})
    bench.rule("either", {"expression": "event.payload.level == 'critical' or event.payload.env.name == 'prod'"})
    bench.rule(
        "nested",
        {
            "expression": "(event.payload.level == 'critical' or event.payload.count > 10)"
            " and not event.payload.env.name == 'dev'"
        },
    )
    bench.rule("both_listed", [critical, prod])
    bench.rule("either_listed", [{"any": [critical, prod]}])
    bench.rule("nested_listed", [{"any": [critical, many]}, {"all": [prod]}])

    step(2, "Posting four combinations")
    fired = bench.fired(
        {
            "critical_prod": {"level": "critical", "env": {"name": "prod"}, "count": 1},
            "critical_dev": {"level": "critical", "env": {"name": "dev"}, "count": 1},
            "many_prod": {"level": "info", "env": {"name": "prod"}, "count": 11},
            "calm_dev": {"level": "info", "env": {"name": "dev"}, "count": 0},
        }
    )

    summary(*(f"{rule}: {sorted(names)}" for rule, names in fired.items()))
    assert fired == {
        "both": {"critical_prod"},
        "either": {"critical_prod", "critical_dev", "many_prod"},
        "nested": {"critical_prod", "many_prod"},
        "both_listed": {"critical_prod"},
        "either_listed": {"critical_prod", "critical_dev", "many_prod"},
        "nested_listed": {"critical_prod", "many_prod"},
    }


@pytest.mark.tier3
@pytest.mark.webhook
@pytest.mark.criteria
@pytest.mark.rules
def test_rule_criteria_list_membership(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    """in and not in, over a list in the rule and over a list in the payload."""
    title("T3.5: List Membership")

    step(1, "Creating rules with in and not in")
    bench = Bench.set_up(client, test_pack["ref"])
    bench.rule("in_list", {"expression": "event.payload.status in ['open', 'reopened']"})
    bench.rule("not_in_list", {"expression": "event.payload.status not in ['open', 'reopened']"})
    bench.rule("has_tag", {"expression": "'urgent' in event.payload.tags"})
    bench.rule("in_listed", [{"field": "status", "operator": "in", "value": ["open", "reopened"]}])
    bench.rule("not_in_listed", [{"field": "status", "operator": "not_in", "value": ["open", "reopened"]}])
    bench.rule("has_tag_listed", [{"field": "tags", "operator": "contains", "value": "urgent"}])

    step(2, "Posting three states")
    fired = bench.fired(
        {
            "new": {"status": "open", "tags": ["urgent", "db"]},
            "again": {"status": "reopened", "tags": []},
            "done": {"status": "closed", "tags": ["urgent"]},
        }
    )

    summary(*(f"{rule}: {sorted(names)}" for rule, names in fired.items()))
    assert fired == {
        "in_list": {"new", "again"},
        "not_in_list": {"done"},
        "has_tag": {"new", "done"},
        "in_listed": {"new", "again"},
        "not_in_listed": {"done"},
        "has_tag_listed": {"new", "done"},
    }
