"""T3.8: chained webhooks: a webhook starts a workflow whose HTTP call fires the next webhook, and so on."""

from dataclasses import dataclass

import pytest
from helpers.client import AttuneClient, Json
from helpers.fixtures import WebhookTrigger, create_echo_action, create_failing_action, create_webhook_trigger
from helpers.narration import step, summary, title
from helpers.polling import wait_for_event_count, wait_for_execution_count, wait_for_execution_status
from helpers.workflows import RUN_TIMEOUT, create_workflow

pytestmark = [pytest.mark.tier3, pytest.mark.webhook, pytest.mark.workflow, pytest.mark.orchestration]


@dataclass(frozen=True)
class Link:
    """A webhook whose rule runs ``action``."""

    webhook: WebhookTrigger
    action: str


def link(client: AttuneClient, pack: str, name: str, action: str, parameters: Json = None) -> Link:
    """A webhook of that name and the rule that runs ``action`` with ``parameters``, by default the whole payload."""
    webhook = create_webhook_trigger(client, pack, name)
    client.create_rule(
        f"{pack}.on_{name}",
        pack,
        trigger_ref=webhook.ref,
        action_ref=action,
        action_params={"payload": "{{ event.payload }}"} if parameters is None else parameters,
    )
    return Link(webhook, action)


def call_of(client: AttuneClient, target: WebhookTrigger, payload: Json) -> dict[str, Json]:
    """The task fields that post ``payload`` to a webhook."""
    return {
        "action": "core.http_request",
        "input": {
            "url": f"{client.base_url}/api/v1/webhooks/{target.key}",
            "method": "POST",
            "json": {"payload": payload},
            "fail_on_status": True,
        },
    }


def ended(client: AttuneClient, action: str, expected: str = "succeeded") -> dict[str, Json]:
    """The one execution of ``action``, once it has ended as expected."""
    (row,) = wait_for_execution_count(client, 1, status=None, action_ref=action, timeout=RUN_TIMEOUT)
    return wait_for_execution_status(client, row["id"], expected, timeout=RUN_TIMEOUT)


def test_webhook_triggers_workflow_triggers_webhook(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    """A → workflow → B: the workflow's HTTP call fires the second webhook, whose rule runs an action of its own."""
    title("T3.8: Webhook Triggers Workflow Triggers Webhook")
    pack = test_pack["ref"]

    step(1, "Creating webhook B with an action, and webhook A with a workflow that calls B")
    last = link(client, pack, "b", create_echo_action(client, pack), {"message": "B got {{ event.payload.from }}"})
    workflow = create_workflow(
        client,
        pack,
        "chain",
        [
            {"name": "prepare", "action": "core.noop", "next": [{"when": "{{ succeeded() }}", "do": ["call_b"]}]},
            {"name": "call_b", **call_of(client, last.webhook, {"from": "A"})},
        ],
    )
    first = link(client, pack, "a", workflow, {})

    step(2, "Posting to A")
    client.post_webhook(first.webhook.key, {"hello": "world"})

    step(3, "Waiting for the end of the chain")
    end = ended(client, last.action)
    run = ended(client, workflow)
    (call,) = client.children_of(run["id"])["call_b"]
    answered = client.get_execution(call["id"])["result"]

    summary(f"workflow {run['id']} completed", f"B: {end['result']['stdout'].strip()}")
    assert end["result"]["stdout"].strip() == "B got A"
    assert answered["status_code"] == 200
    for each in (first, last):
        assert len(wait_for_event_count(client, 1, trigger_ref=each.webhook.ref)) == 1
    assert run["enforcement"] is not None
    assert end["parent"] is None, "B is another event's doing"


def test_webhook_cascade_multiple_levels(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    """A → B → C: two workflows in a row; each level happens once, in order."""
    title("T3.8: Webhook Cascade Over Multiple Levels")
    pack = test_pack["ref"]

    step(1, "Creating the levels from the last to the first")
    level_c = link(client, pack, "c", create_echo_action(client, pack), {"message": "level {{ event.payload.level }}"})
    flow_b = create_workflow(client, pack, "flow_b", [{"name": "on", **call_of(client, level_c.webhook, {"level": 3})}])
    level_b = link(client, pack, "b", flow_b, {})
    flow_a = create_workflow(client, pack, "flow_a", [{"name": "on", **call_of(client, level_b.webhook, {"level": 2})}])
    level_a = link(client, pack, "a", flow_a, {})

    step(2, "Posting to A")
    client.post_webhook(level_a.webhook.key, {"level": 1})

    step(3, "Waiting for every level")
    executions = [ended(client, each.action) for each in (level_a, level_b, level_c)]

    summary(*(f"{each['action_ref']}: {each['status']}" for each in executions))
    assert executions[-1]["result"]["stdout"].strip() == "level 3"
    assert [each["id"] for each in executions] == sorted(each["id"] for each in executions)
    for each in (level_a, level_b, level_c):
        assert len(client.list_events(trigger_ref=each.webhook.ref)) == 1


def test_webhook_chain_with_data_passing(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    """What A was told reaches C changed by two workflows on its way, numbers as numbers and lists as lists."""
    title("T3.8: Webhook Chain With Data Passing")
    pack = test_pack["ref"]

    step(1, "Creating a chain in which each workflow adds something")
    said = "{{ event.payload.order }}: {{ event.payload.total }} for {{ event.payload.items | join('+') }}"
    level_c = link(client, pack, "c", create_echo_action(client, pack), {"message": said})
    passed_on = {
        "order": "{{ parameters.payload.order }}",
        "items": "{{ parameters.payload.items }}",
        "total": "{{ parameters.payload.price * length(parameters.payload.items) }}",
    }
    flow_b = create_workflow(client, pack, "flow_b", [{"name": "total", **call_of(client, level_c.webhook, passed_on)}])
    level_b = link(client, pack, "b", flow_b)
    enriched = {
        "order": "#{{ parameters.payload.order }}",
        "items": "{{ unique(parameters.payload.items) }}",
        "price": "{{ vars.price }}",
    }
    flow_a = create_workflow(
        client,
        pack,
        "flow_a",
        {"vars": {"price": 7}, "tasks": [{"name": "enrich", **call_of(client, level_b.webhook, enriched)}]},
    )
    level_a = link(client, pack, "a", flow_a)

    step(2, "Posting an order to A")
    client.post_webhook(level_a.webhook.key, {"order": 15, "items": ["tea", "milk", "tea"]})

    step(3, "Reading what arrived at C")
    end = ended(client, level_c.action)
    (event,) = client.list_events(trigger_ref=level_c.webhook.ref)
    payload = client.get_event(event["id"])["payload"]

    summary(end["result"]["stdout"].strip(), str(payload))
    assert end["result"]["stdout"].strip() == "#15: 14 for tea+milk"


def test_webhook_chain_error_propagation(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    """A link that fails ends its own chain and says so; another chain from the same webhook goes on."""
    title("T3.8: Webhook Chain Error Propagation")
    pack = test_pack["ref"]

    step(1, "Creating two chains from one webhook, one of which fails before its call")
    level_b = link(client, pack, "b", create_echo_action(client, pack, "echo_b"), {"message": "b"})
    level_c = link(client, pack, "c", create_echo_action(client, pack, "echo_c"), {"message": "c"})
    broken = create_failing_action(client, pack)
    failing = create_workflow(
        client,
        pack,
        "failing",
        [
            {"name": "work", "action": broken, "next": [{"when": "{{ succeeded() }}", "do": ["call_b"]}]},
            {"name": "call_b", **call_of(client, level_b.webhook, {})},
        ],
    )
    sound = create_workflow(client, pack, "sound", [{"name": "call_c", **call_of(client, level_c.webhook, {})}])
    webhook = create_webhook_trigger(client, pack, "a")
    for name, workflow in (("failing", failing), ("sound", sound)):
        client.create_rule(f"{pack}.on_a_{name}", pack, trigger_ref=webhook.ref, action_ref=workflow)

    step(2, "Posting once")
    client.post_webhook(webhook.key, {})

    step(3, "Waiting for both chains")
    failed = ended(client, failing, "failed")
    end = ended(client, level_c.action)

    step(4, "Calling a webhook that does not exist")
    nowhere = WebhookTrigger(ref="none", key="wh_0000000000000000000000000000000000")
    astray = create_workflow(client, pack, "astray", [{"name": "call", **call_of(client, nowhere, {})}])
    lost = wait_for_execution_status(client, client.execute(astray)["id"], "failed", timeout=RUN_TIMEOUT)

    summary(f"failing: {failed['result']['error']}", f"sound: {end['status']}", f"astray: {lost['result']['error']}")
    assert failed["result"] == {"error": "Workflow failed: 1 task(s) failed: work", "succeeded": False}
    assert set(client.children_of(failed["id"])) == {"work"}
    assert client.list_events(trigger_ref=level_b.webhook.ref) == []
    assert "call" in lost["result"]["error"]
