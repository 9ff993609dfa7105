"""What runs is ended when its execution is cancelled (semantics §2.7), and what it printed is kept."""

import pytest
from helpers.client import AttuneClient, Json
from helpers.fixtures import unique_ref
from helpers.polling import wait_for, wait_for_execution_status

pytestmark = pytest.mark.tier1

# One that goes at the first word, and one that wants to be killed.
PROGRAMS = {
    "python": ("core.python", "import time\nprint('begun', flush=True)\ntime.sleep(60)"),
    "shell": ("core.shell", "echo begun; sleep 60"),
    "stubborn": ("core.shell", "trap '' TERM; echo begun; while :; do sleep 0.2; done"),
}


def test_a_running_action_is_ended(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    pack = test_pack["ref"]
    started = {}
    for name, (runtime, code) in PROGRAMS.items():
        ref = client.create_action(unique_ref(f"{pack}.{name}"), pack, entrypoint=code, runtime_ref=runtime)["ref"]
        started[name] = client.execute(ref)["id"]
    for id_ in started.values():
        log = f"executions/{id_}/logs/stdout"
        wait_for(lambda log=log: client.request("GET", log).text == "begun\n", timeout=60, what="it to begin")

    for id_ in started.values():
        assert client.cancel_execution(id_)["status"] == "canceling"

    for id_ in started.values():
        execution = wait_for_execution_status(client, id_, "cancelled", timeout=40)
        result = execution["result"]
        assert result.pop("duration_ms") < 59_000
        assert result == {
            "succeeded": False,
            "cancelled": True,
            "exit_code": -1,
            "error": "Execution cancelled by user",
        }
        assert client.request("GET", f"executions/{id_}/logs/stdout").text == "begun\n"
        assert client.request("GET", f"executions/{id_}/logs/stderr").text == ""
