"""T3.4: one webhook, several rules.

One event reaches every rule of its trigger, each rule runs its own action on its own, and the number of executions is
posts x rules.
"""

import pytest
from helpers.client import AttuneClient, Json
from helpers.fixtures import create_echo_action, create_webhook_trigger
from helpers.narration import step, summary, title
from helpers.polling import wait_for_enforcement_count, wait_for_execution_count, wait_for_execution_status


@pytest.mark.tier3
@pytest.mark.webhook
@pytest.mark.rules
def test_webhook_fires_multiple_rules(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    """One post, three rules with three actions: one event, three enforcements, three executions."""
    title("T3.4: Webhook Fires Multiple Rules")
    pack = test_pack["ref"]

    step(1, "Creating a webhook trigger")
    trigger = create_webhook_trigger(client, pack)

    step(2, "Creating three actions and a rule for each")
    actions = {}
    for name in ("first", "second", "third"):
        actions[name] = create_echo_action(client, pack, f"echo_{name}")
        client.create_rule(
            f"{pack}.rule_{name}",
            pack,
            trigger_ref=trigger.ref,
            action_ref=actions[name],
            action_params={"message": f"{name}: {{{{ event.payload.text }}}}"},
        )

    step(3, "Posting to the webhook once")
    accepted = client.post_webhook(trigger.key, {"text": "hello"})
    print(f"event {accepted['event_id']} of {accepted['trigger_ref']} at {accepted['received_at']}")

    step(4, "Waiting for one execution per rule")
    executions = wait_for_execution_count(client, 3, trigger_ref=trigger.ref)

    step(5, "Looking at each of them")
    outputs = {}
    for row in executions:
        execution = wait_for_execution_status(client, row["id"], "succeeded")
        outputs[row["rule_ref"]] = execution["result"]["stdout"].strip()
        print(f"{row['rule_ref']} → {execution['action_ref']}: {outputs[row['rule_ref']]}")
    enforcements = wait_for_enforcement_count(client, 3, event=accepted["event_id"])

    summary("1 event", f"{len(enforcements)} enforcements", f"{len(executions)} executions")
    assert {row["rule_ref"]: row["action_ref"] for row in executions} == {
        f"{pack}.rule_{name}": action for name, action in actions.items()
    }, "each rule runs its own action"
    assert outputs == {f"{pack}.rule_{name}": f"{name}: hello" for name in actions}
    assert [event["id"] for event in client.list_events(trigger_ref=trigger.ref)] == [accepted["event_id"]]
    assert {row["rule_ref"] for row in enforcements} == set(outputs)
    assert {row["enforcement"] for row in executions} == {row["id"] for row in enforcements}
    assert all(row["status"] == "processed" for row in enforcements)


@pytest.mark.tier3
@pytest.mark.webhook
@pytest.mark.rules
def test_webhook_multiple_posts_multiple_rules(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    """Three posts, two rules: three events, six executions, every combination once."""
    title("T3.4: Multiple Posts, Multiple Rules")
    pack = test_pack["ref"]
    posts, rules = 3, 2

    step(1, "Creating a webhook trigger, an action and two rules")
    trigger = create_webhook_trigger(client, pack)
    action = create_echo_action(client, pack)
    for number in range(rules):
        client.create_rule(
            f"{pack}.rule_{number}",
            pack,
            trigger_ref=trigger.ref,
            action_ref=action,
            action_params={"message": f"rule {number} post {{{{ event.payload.number }}}}"},
        )

    step(2, f"Posting {posts} times")
    events = [client.post_webhook(trigger.key, {"number": number})["event_id"] for number in range(posts)]

    step(3, f"Waiting for {posts} x {rules} executions")
    executions = wait_for_execution_count(client, posts * rules, trigger_ref=trigger.ref)
    said = sorted(client.get_execution(row["id"])["result"]["stdout"].strip() for row in executions)

    summary(f"{posts} posts x {rules} rules = {len(executions)} executions")
    assert len(set(events)) == posts, "every post is an event of its own"
    assert said == sorted(f"rule {rule} post {post}" for rule in range(rules) for post in range(posts))
    per_rule = [row["rule_ref"] for row in executions]
    assert {ref: per_rule.count(ref) for ref in set(per_rule)} == {f"{pack}.rule_{n}": posts for n in range(rules)}
