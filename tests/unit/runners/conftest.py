"""Real processes under the real sandbox: one zygote for the session, as one environment keeps one."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from chalicelib.protocol import Run, RunFinished
from runners.handler import Runner
from runners.sandbox import Sandbox

Carry = Callable[..., RunFinished]


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    sandbox = Sandbox()
    sandbox.wait_until_ready()
    yield sandbox
    sandbox.close()


@pytest.fixture(scope="session")
def runner(sandbox: Sandbox) -> Runner:
    return Runner(sandbox)


@pytest.fixture
def carry_out(runner: Runner) -> Carry:
    """Run inline code with the defaults of a run, of which any may be given otherwise."""

    def carry_out(kind: str, code: str, **fields: Any) -> RunFinished:
        given = {"tenant": "acme", "execution": 7, "attempt": 1, "token": "one-time-token", "action_ref": "demo.it"}
        return runner.carry_out(Run(**given | {"runner": kind, "entrypoint": code, "timeout": 20.0} | fields))

    return carry_out
