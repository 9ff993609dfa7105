"""Files pass from task to task by ``ATTUNE_ARTIFACTS_DIR`` (issue 3), within one workflow run and not out of it."""

import pytest
from helpers.client import AttuneClient, Json
from helpers.fixtures import unique_ref
from helpers.polling import wait_for_execution_status

pytestmark = [pytest.mark.tier2, pytest.mark.workflow]

WRITE = 'cd "$ATTUNE_ARTIFACTS_DIR"; mkdir -p parts; echo "$name" > "parts/$name"; ls parts'
READ = (
    'import os\nfolder = os.path.join(os.environ["ATTUNE_ARTIFACTS_DIR"], "parts")\nprint(sorted(os.listdir(folder)))'
)
LOOK = 'ls -A "$ATTUNE_ARTIFACTS_DIR"'


def test_tasks_share_a_folder(client: AttuneClient, test_pack: dict[str, Json]) -> None:
    """Two tasks side by side leave a file each; the one behind them finds both, also in a nested workflow."""
    pack = test_pack["ref"]
    write = client.create_action(f"{pack}.write", pack, entrypoint=WRITE, runtime_ref="core.shell")["ref"]
    read = client.create_action(f"{pack}.read", pack, entrypoint=READ, runtime_ref="core.python")["ref"]
    look = client.create_action(f"{pack}.look", pack, entrypoint=LOOK, runtime_ref="core.shell")["ref"]
    inner, outer = unique_ref(f"{pack}.inner"), unique_ref(f"{pack}.outer")
    make(client, inner, [{"name": "read", "action": read, "next": []}])
    both = [{"when": "{{ succeeded() }}", "do": ["behind"]}]
    make(
        client,
        outer,
        [
            {"name": "one", "action": write, "input": {"name": "one"}, "next": both},
            {"name": "two", "action": write, "input": {"name": "two"}, "next": both},
            {"name": "behind", "action": inner, "join": 2},
        ],
    )

    run = client.execute(outer)["id"]
    wait_for_execution_status(client, run, "completed", timeout=90)

    nested = child(client, run, "behind")
    assert child(client, nested["id"], "read")["result"]["stdout"] == "['one', 'two']\n"
    alone = client.execute(look)["id"]
    assert wait_for_execution_status(client, alone, "completed", timeout=60)["result"]["stdout"] == ""


def make(client: AttuneClient, ref: str, tasks: list[Json]) -> None:
    pack = ref.partition(".")[0]
    definition = {"version": "1.0.0", "tasks": tasks}
    client.data(
        "POST",
        "workflows",
        json={"ref": ref, "pack_ref": pack, "label": ref, "version": "1.0.0", "definition": definition},
    )


def child(client: AttuneClient, parent: int, task: str) -> dict[str, Json]:
    (found,) = [each for each in client.list_executions(parent=parent) if each["workflow_task"]["task_name"] == task]
    return client.get_execution(found["id"])
