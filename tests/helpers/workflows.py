"""Workflows made by API, their runs, and the tasks of a run."""

from collections import defaultdict

from helpers.client import AttuneClient, Json
from helpers.polling import wait_for_execution_status

RUN_TIMEOUT = 90  # seconds: on a busy machine a chain of ten tasks takes its time


def create_workflow(client: AttuneClient, pack_ref: str, name: str, definition: Json, **fields: Json) -> str:
    """A workflow of ``definition``, or of a list of tasks; returns its ref."""
    if isinstance(definition, list):
        definition = {"tasks": definition}
    ref = f"{pack_ref}.{name}"
    body = {"ref": ref, "pack_ref": pack_ref, "label": name, "version": "1.0.0", "definition": definition, **fields}
    client.data("POST", "workflows", json=body)
    return ref


def run(
    client: AttuneClient,
    ref: str,
    parameters: Json = None,
    *,
    expected: str = "succeeded",
    timeout: float = RUN_TIMEOUT,
) -> dict[str, Json]:
    """The execution of a workflow, once it has ended as ``expected``."""
    execution = client.execute(ref, parameters)
    return wait_for_execution_status(client, execution["id"], expected, timeout=timeout)


def tasks_of(client: AttuneClient, execution_id: int) -> dict[str, list[dict[str, Json]]]:
    """The executions that a run has started, in the order of their making, by the name of their task."""
    found: dict[str, list[dict[str, Json]]] = defaultdict(list)
    for row in reversed(client.list_executions(parent=execution_id)):
        found[row["workflow_task"]["task_name"]].append(row)
    return dict(found)


def task_of(client: AttuneClient, execution_id: int, name: str) -> dict[str, Json]:
    """The one execution of a task, with its parameters and result."""
    (row,) = tasks_of(client, execution_id)[name]
    return client.get_execution(row["id"])
