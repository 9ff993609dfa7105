"""T1.8: an action that fails says how, and takes nothing else down with it."""

import pytest
from helpers.client import AttuneClient, Json
from helpers.fixtures import create_echo_action, create_failing_action, create_python_action, create_webhook_trigger
from helpers.polling import wait_for_execution_completion, wait_for_execution_count, wait_for_execution_status
from helpers.stack import Stack, free_ports

pytestmark = [pytest.mark.tier1, pytest.mark.runner]


def test_action_failure_handling(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    """Exit code, error text and duration are in the result; what came before is kept."""
    pack = test_pack["ref"]
    action = f"{pack}.broken"
    client.create_action(action, pack, entrypoint="echo started\necho 'disk is full' >&2\nexit 3")

    execution = wait_for_execution_status(client, client.execute(action)["id"], "failed")

    result = execution["result"]
    assert result["succeeded"] is False
    assert result["exit_code"] == 3
    assert "disk is full" in result["error"]
    assert result["stdout"].strip() == "started"
    assert result["duration_ms"] >= 0
    assert execution["started_at"] is not None


@pytest.mark.parametrize("code", [1, 2, 42, 255])
def test_exit_codes_are_reported(client: AttuneClient, test_pack: dict[str, Json], code: int) -> None:
    action = create_failing_action(client, test_pack["ref"], exit_code=code)

    execution = wait_for_execution_status(client, client.execute(action)["id"], "failed")

    assert execution["result"]["exit_code"] == code


def test_python_exception_is_the_error(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    action = create_python_action(client, test_pack["ref"], "raises", "raise ValueError('no such host')")

    execution = wait_for_execution_status(client, client.execute(action)["id"], "failed")

    assert "ValueError: no such host" in execution["result"]["error"]
    assert execution["result"]["exit_code"] == 1


def test_failure_leaves_other_rules_alone(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    """Two rules on one event, one action fails: the other completes, and the next event works as well."""
    pack = test_pack["ref"]
    trigger = create_webhook_trigger(client, pack)
    broken, fine = create_failing_action(client, pack), create_echo_action(client, pack)
    client.create_rule(f"{pack}.broken_rule", pack, trigger_ref=trigger.ref, action_ref=broken)
    client.create_rule(f"{pack}.fine_rule", pack, trigger_ref=trigger.ref, action_ref=fine)

    for _ in range(2):
        client.post_webhook(trigger.key, {})

    wait_for_execution_count(client, 2, action_ref=fine, status="succeeded")
    wait_for_execution_count(client, 2, action_ref=broken, status="failed")


def test_action_killed_by_a_signal_fails(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    """Whatever code does to its own process group, the runner goes on and the next action works."""
    pack = test_pack["ref"]
    suicide = f"{pack}.suicide"
    client.create_action(suicide, pack, entrypoint="kill -9 0")
    echo = create_echo_action(client, pack)

    killed = wait_for_execution_completion(client, client.execute(suicide)["id"])
    after = client.execute(echo, {"message": "alive"})

    assert killed["status"] == "failed"
    assert killed["result"]["succeeded"] is False
    assert wait_for_execution_status(client, after["id"], "succeeded")["result"]["stdout"].strip() == "alive"


def test_timeout_kills_and_says_so(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    """A process that ignores SIGTERM is killed; the execution is failed, not stuck (contract README 9)."""
    pack = test_pack["ref"]
    action = f"{pack}.slow"
    client.create_action(action, pack, entrypoint="echo begun\nsleep 120")

    execution = client.execute(action, timeout=1)

    ended = wait_for_execution_status(client, execution["id"], "failed", timeout=30)
    assert ended["result"]["error"] == "Execution timed out after 1 seconds"
    assert ended["result"]["exit_code"] == -1
    assert ended["result"]["duration_ms"] < 30_000


def test_action_that_is_gone_when_the_event_comes(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    """The rule outlives its action; its enforcement is disabled and starts nothing (semantics §2.1)."""
    pack = test_pack["ref"]
    trigger = create_webhook_trigger(client, pack)
    gone, echo = create_failing_action(client, pack), create_echo_action(client, pack)
    rule = client.create_rule(f"{pack}.orphan", pack, trigger_ref=trigger.ref, action_ref=gone)["ref"]
    witness = client.create_rule(f"{pack}.witness", pack, trigger_ref=trigger.ref, action_ref=echo)["ref"]
    client.call("DELETE", f"actions/{gone}")
    assert client.data("GET", f"rules/{rule}")["action"] is None

    client.post_webhook(trigger.key, {})

    wait_for_execution_count(client, 1, rule_ref=witness)
    (enforcement,) = client.list_enforcements(rule_ref=rule)
    assert enforcement["status"] == "disabled"
    assert client.list_executions(rule_ref=rule) == []


def test_core_actions(client: AttuneClient) -> None:
    """The core pack does what it says."""
    echo = client.execute("core.echo", {"message": "hello"})
    noop = client.execute("core.noop")
    fail = client.execute("core.fail", {"message": "on purpose"})
    sleep = client.execute("core.sleep", {"seconds": 0.1})

    assert wait_for_execution_status(client, echo["id"], "succeeded")["result"]["stdout"].strip() == "hello"
    wait_for_execution_status(client, noop["id"], "succeeded")
    failed = wait_for_execution_status(client, fail["id"], "failed")
    assert "on purpose" in failed["result"]["error"]
    wait_for_execution_status(client, sleep["id"], "succeeded")


@pytest.mark.http
def test_http_request(stack: Stack, client: AttuneClient) -> None:
    """The plain form: what came back, and an error where nobody answers."""
    reached = client.execute("core.http_request", {"url": f"{stack.url}/health"})
    (silent,) = free_ports(1)
    refused = client.execute("core.http_request", {"url": f"http://127.0.0.1:{silent}/"})

    result = wait_for_execution_status(client, reached["id"], "succeeded")["result"]
    assert result["status_code"] == 200
    assert result["json"] == {"status": "ok"}
    failed = wait_for_execution_status(client, refused["id"], "failed")["result"]
    assert failed["succeeded"] is False
    assert failed["error"]
