"""Executions over HTTP: started, found by every filter, counted, repeated safely, cancelled."""

import pytest
from helpers.client import ApiError, AttuneClient, Json
from helpers.fixtures import create_echo_action, create_failing_action, create_webhook_trigger, unique_ref
from helpers.polling import wait_for_execution_completion, wait_for_execution_count, wait_for_execution_status

pytestmark = pytest.mark.tier1


def test_execute_and_read_back(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    action = create_echo_action(client, test_pack["ref"])

    started = client.execute(action, {"message": "hi"})

    assert started["action_ref"] == action
    assert started["status"] == "requested"
    assert started["config"] == {"message": "hi"}
    assert (started["parent"], started["enforcement"], started["result"]) == (None, None, None)
    assert started["executor"] == client.me()["id"]
    ended = wait_for_execution_status(client, started["id"], "succeeded")
    assert ended["result"]["stdout"] == "hi\n"
    assert ended["started_at"] >= started["created"]


def test_idempotency_key_starts_once(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    """The same key within a day returns the first answer and starts nothing (contract README 13)."""
    action = create_echo_action(client, test_pack["ref"])
    key = {"Idempotency-Key": unique_ref("order")}

    first = client.execute(action, {"message": "1"}, headers=key)
    again = client.execute(action, {"message": "1"}, headers=key)
    other = client.execute(action, {"message": "1"})

    assert again["id"] == first["id"]
    assert other["id"] != first["id"]
    wait_for_execution_count(client, 2, action_ref=action)


def test_filters_find_what_they_name(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    """Each filter of the list, alone and together, and totals only where they are asked for."""
    pack = test_pack["ref"]
    trigger = create_webhook_trigger(client, pack)
    echo, broken = create_echo_action(client, pack), create_failing_action(client, pack)
    rule = client.create_rule(f"{pack}.rule", pack, trigger_ref=trigger.ref, action_ref=echo)["ref"]
    client.post_webhook(trigger.key, {})
    word = unique_ref("word")
    said = client.execute(echo, {"message": word})["id"]
    failed = client.execute(broken)["id"]
    (ruled,) = (row["id"] for row in wait_for_execution_count(client, 1, rule_ref=rule))
    wait_for_execution_status(client, said, "succeeded")
    wait_for_execution_status(client, failed, "failed")
    enforcement = client.get_execution(ruled)["enforcement"]

    def found(**filters: Json) -> set[int]:
        return {row["id"] for row in client.list_executions(**filters)}

    assert found(action_ref=echo) == {ruled, said}
    assert found(pack_name=pack) == {ruled, said, failed}
    assert found(pack_name=pack, status="failed") == {failed}
    assert found(pack_name=pack, status="succeeded") == found(pack_name=pack, status="completed") == {ruled, said}
    assert found(rule_ref=rule) == found(trigger_ref=trigger.ref) == {ruled}
    assert found(enforcement=enforcement) == {ruled}
    assert found(action_ref=echo, executor=client.me()["id"], top_level_only="true") == {ruled, said}
    assert found(action_ref=echo, result_contains=word) == {said}
    assert found(parent=said) == set()
    by_enforcement = client.call("GET", f"enforcements/{enforcement}/executions")
    assert [row["id"] for row in by_enforcement["items"]] == [ruled]
    assert by_enforcement["pagination"]["total_items"] == 1
    assert client.count_executions(action_ref=echo) == 2
    assert client.request("GET", "executions", params={"status": "nonsense"}).status_code == 400
    assert client.request("GET", "executions/status/nonsense").status_code == 400


def test_pages_are_newest_first_and_complete(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    action = create_echo_action(client, test_pack["ref"])
    ids = [client.execute(action)["id"] for _ in range(5)]
    wait_for_execution_count(client, 5, action_ref=action)

    pages = [
        client.call("GET", "executions", params={"action_ref": action, "page": page, "per_page": 2})
        for page in (1, 2, 3)
    ]

    assert [row["id"] for page in pages for row in page["items"]] == sorted(ids, reverse=True)
    first, second, last = (page["pagination"] for page in pages)
    assert first == {"page": 1, "page_size": 2, "has_previous": False, "has_next": True}
    assert (second["has_previous"], second["has_next"]) == (True, True)
    assert (last["has_previous"], last["has_next"]) == (True, False)


def test_stats_count_by_status(client: AttuneClient) -> None:
    stats = client.data("GET", "executions/stats")

    names = {"total", "completed", "failed", "running", "pending", "cancelled", "timeout", "abandoned"}
    assert set(stats) == names
    assert all(isinstance(count, int) for count in stats.values())


def test_cancel(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    """What has ended cannot be cancelled; what has not ends as cancelled or was faster."""
    action = create_echo_action(client, test_pack["ref"])
    ended = wait_for_execution_completion(client, client.execute(action)["id"])
    with pytest.raises(ApiError) as too_late:
        client.cancel_execution(ended["id"])
    assert too_late.value.status == 409
    with pytest.raises(ApiError) as unknown:
        client.cancel_execution(1)
    assert unknown.value.status == 404


def test_python_keeps_nothing_from_one_run_to_the_next(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    """Modules, globals, files in the working folder and environment of one execution are gone in the next."""
    pack = test_pack["ref"]
    action = f"{pack}.stateful"
    code = (
        "import builtins, os, pathlib, sys, json\n"
        "seen = [hasattr(builtins, 'mark'), hasattr(json, 'mark')]\n"
        "seen += ['MARK' in os.environ, pathlib.Path('mark').exists()]\n"
        "builtins.mark = json.mark = 1\n"
        "os.environ['MARK'] = '1'\n"
        "pathlib.Path('mark').write_text('x')\n"
        "print(seen)"
    )
    client.create_action(action, pack, entrypoint=code, runtime_ref="core.python")

    for _ in range(3):
        execution = wait_for_execution_status(client, client.execute(action)["id"], "succeeded")
        assert execution["result"]["stdout"].strip() == "[False, False, False, False]"
