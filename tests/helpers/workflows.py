"""Workflows of a test's pack, their runs, and the tasks of a run."""

from helpers.client import AttuneClient, Json
from helpers.polling import wait_for_execution_status

RUN_TIMEOUT = 90  # seconds: on a busy machine a chain of ten tasks takes its time


def create_workflow(client: AttuneClient, pack_ref: str, name: str, definition: Json, **fields: Json) -> str:
    """A workflow of ``definition``, or of a list of tasks; returns its ref."""
    ref: str = client.create_workflow(f"{pack_ref}.{name}", definition, **fields)["ref"]
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


def task_of(client: AttuneClient, execution_id: int, name: str) -> dict[str, Json]:
    """The one execution of a task, with its parameters and result."""
    (row,) = client.children_of(execution_id)[name]
    return client.get_execution(row["id"])


def outputs_of(client: AttuneClient, execution_id: int, name: str) -> list[str]:
    """What each execution of a task printed, in the order in which they were started."""
    rows = client.children_of(execution_id)[name]
    return [(client.get_execution(row["id"])["result"].get("stdout") or "").strip() for row in rows]
