import json
from typing import Any

import pytest

from chalicelib.flow.invoker import Invoker, RunTooLargeError
from chalicelib.protocol import Run


class FakeLambda:
    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    def invoke(self, **kwargs: Any) -> Any:
        self.calls.append(kwargs)


def run(**fields: Any) -> Run:
    return Run(
        tenant="acme", execution=1, attempt=1, token="t", action_ref="p.a", runner="shell", entrypoint="true", **fields
    )


def test_a_run_is_queued_for_its_tenant() -> None:
    client = FakeLambda()
    Invoker(lambda: client, function="runner", isolated=True).start(run(parameters={"a": 1}))
    (call,) = client.calls
    assert (call["FunctionName"], call["InvocationType"], call["TenantId"]) == ("runner", "Event", "acme")
    assert json.loads(call["Payload"])["parameters"] == {"a": 1}


def test_without_isolation_no_tenant_is_named() -> None:
    client = FakeLambda()
    Invoker(lambda: client, function="runner", isolated=False).start(run())
    assert "TenantId" not in client.calls[0]


def test_what_does_not_fit_an_invocation_is_refused_before_it_is_sent() -> None:
    client = FakeLambda()
    with pytest.raises(RunTooLargeError, match="bytes"):
        Invoker(lambda: client, function="runner", isolated=False).start(run(parameters={"a": "x" * 1_100_000}))
    assert client.calls == []
