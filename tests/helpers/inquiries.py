"""People, and what is asked of them."""

from dataclasses import dataclass

import httpx

from helpers.client import AttuneClient, Json
from helpers.fixtures import unique_login
from helpers.polling import wait_for

PASSWORD = "Correct horse 1 battery!"


@dataclass(frozen=True)
class Approver:
    """Somebody with an account and, at first, no permissions."""

    id: int
    login: str
    client: AttuneClient

    def answer(self, inquiry: Json, response: Json, key: str | None = None) -> httpx.Response:
        """The answer to an answer, as it came."""
        return answer(self.client, inquiry, response, key)


def sign_up(admin: AttuneClient, *roles: str) -> Approver:
    """A new person with these roles, signed in; the caller closes the client."""
    login = unique_login()
    identity = admin.data("POST", "identities", json={"login": login, "password": PASSWORD})
    for role in roles:
        admin.call("POST", f"identities/{identity['id']}/roles", json={"role": role})
    client = AttuneClient(admin.base_url)
    client.login(login, PASSWORD)
    return Approver(identity["id"], login, client)


def ask(client: AttuneClient, *, timeout: int | None = None, **parameters: Json) -> tuple[int, dict[str, Json]]:
    """Start ``core.ask``: the execution's id, and the inquiry once it is there."""
    fields: dict[str, Json] = {} if timeout is None else {"timeout": timeout}
    execution = client.create_execution({"action": "core.ask", "parameters": parameters, **fields})
    return execution["id"], inquiry_of(client, execution["id"])


def inquiry_of(client: AttuneClient, execution_id: int, timeout: float = 30) -> dict[str, Json]:
    """The inquiry of an execution, once it is there."""

    def look() -> dict[str, Json] | None:
        found = client.call("GET", f"executions/{execution_id}/inquiries")["items"]
        return get(client, found[0]) if found else None

    inquiry = wait_for(look, timeout=timeout, what=f"execution {execution_id} to ask")
    assert inquiry is not None
    return inquiry


def inquiry_of_task(client: AttuneClient, run_id: int, task: str, timeout: float = 30) -> dict[str, Json]:
    """The inquiry of a task of a workflow run, once it is there."""

    def look() -> dict[str, Json] | None:
        for child in client.list_executions(parent=run_id):
            if child.get("workflow_task", {}).get("task_name") == task and child["status"] != "requested":
                return inquiry_of(client, child["id"])
        return None

    inquiry = wait_for(look, timeout=timeout, what=f"task {task} of run {run_id} to ask")
    assert inquiry is not None
    return inquiry


def get(client: AttuneClient, inquiry: Json) -> dict[str, Json]:
    """The inquiry as it is now."""
    found: dict[str, Json] = client.data("GET", f"inquiries/{inquiry['id']}")
    return found


def wait_for_inquiry_status(client: AttuneClient, inquiry: Json, status: str, timeout: float = 30) -> dict[str, Json]:
    def look() -> dict[str, Json] | None:
        now = get(client, inquiry)
        return now if now["status"] == status else None

    found = wait_for(look, timeout=timeout, what=f"inquiry {inquiry['id']} to be {status}")
    assert found is not None
    return found


def answer(client: AttuneClient, inquiry: Json, response: Json, key: str | None = None) -> httpx.Response:
    headers = {} if key is None else {"Idempotency-Key": key}
    return client.request("POST", f"inquiries/{inquiry['id']}/respond", json={"response": response}, headers=headers)
