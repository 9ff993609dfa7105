"""A thousand posts, 32 at a time: a thousand executions, none twice (issue 2)."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from helpers.client import AttuneClient, Json
from helpers.fixtures import create_webhook_trigger
from helpers.polling import wait_for, wait_for_enforcement_count
from helpers.stack import Stack
from helpers.witness import Witness, listening

pytestmark = [pytest.mark.tier1, pytest.mark.webhook, pytest.mark.performance]

POSTS = 1000
CONCURRENCY = 32
DEADLINE = 240


@pytest.fixture
def witness() -> Iterator[Witness]:
    with listening() as there:
        yield there


def test_a_thousand_posts_run_once_each(
    stack: Stack, client: AttuneClient, test_pack: dict[str, Json], witness: Witness
) -> None:
    """Counted three ways: by rows, by what each execution was given, and by what really ran."""
    pack = test_pack["ref"]
    trigger = create_webhook_trigger(client, pack)
    action = f"{pack}.note"
    entrypoint = witness.shell_command if stack.is_local else 'echo "$n"'
    client.create_action(action, pack, entrypoint=entrypoint, param_schema={"n": {"type": "integer", "required": True}})
    rule = client.create_rule(
        f"{pack}.rule", pack, trigger_ref=trigger.ref, action_ref=action, action_params={"n": "{{ event.payload.n }}"}
    )["ref"]

    with ThreadPoolExecutor(CONCURRENCY) as pool:
        events = list(pool.map(lambda n: client.post_webhook(trigger.key, {"n": n})["event_id"], range(POSTS)))

    assert len(set(events)) == POSTS
    wait_for(
        lambda: client.count_executions(rule_ref=rule, status="completed") >= POSTS,
        timeout=DEADLINE,
        what=f"{POSTS} completed executions",
    )
    assert client.count_executions(rule_ref=rule) == POSTS, "not one more, in any status"
    enforcements = wait_for_enforcement_count(client, POSTS, rule_ref=rule)
    assert {row["event"] for row in enforcements} == set(events)
    executions = client.list_executions(rule_ref=rule)
    assert {row["enforcement"] for row in executions} == {row["id"] for row in enforcements}
    if stack.is_local:
        assert Counter(witness.told) == Counter(str(n) for n in range(POSTS)), "every post ran once"
