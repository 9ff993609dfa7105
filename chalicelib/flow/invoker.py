"""Handing one attempt to the execution plane: an asynchronous invocation of the runner function (design §3)."""

from collections.abc import Callable
from typing import Any, Final, Protocol

import msgspec

from chalicelib.protocol import Build, Poll, Run

_encode = msgspec.json.Encoder().encode

MAX_PAYLOAD: Final = 1_000_000  # Lambda: 1 MiB for an asynchronous invocation, less some room for headers


class LambdaClient(Protocol):
    """The call we make of boto3's Lambda client."""

    def invoke(self, **kwargs: Any) -> Any: ...


class RunTooLargeError(Exception):
    """The parameters do not fit one invocation. Trying again does not help."""


class Invoker:
    """Starts runs on the runner function.

    With ``isolated`` Lambda keeps a separate execution environment per tenant (tenant isolation mode); the emulator
    takes the tenant and does not isolate by it.
    """

    def __init__(self, client: Callable[[], LambdaClient], *, function: str, isolated: bool) -> None:
        self._client = client
        self._function = function
        self._isolated = isolated

    def start(self, run: Run) -> None:
        """Returns when Lambda has queued the run. Raises :class:`RunTooLargeError`, or botocore's errors."""
        payload = _encode(run)
        if len(payload) > MAX_PAYLOAD:
            raise RunTooLargeError(f"parameters and secrets take {len(payload)} bytes; a run takes {MAX_PAYLOAD}")
        self._invoke(run.tenant, payload)

    def poll(self, poll: Poll) -> None:
        """The same for a poll of a sensor."""
        payload = _encode(poll)
        if len(payload) > MAX_PAYLOAD:
            raise RunTooLargeError(f"the rules, state and keys take {len(payload)} bytes; a poll takes {MAX_PAYLOAD}")
        self._invoke(poll.run.tenant, payload)

    def build(self, build: Build) -> None:
        """The same for the building of an environment."""
        self._invoke(build.tenant, _encode(build))

    def _invoke(self, tenant: str, payload: bytes) -> None:
        isolation = {"TenantId": tenant} if self._isolated else {}
        self._client().invoke(FunctionName=self._function, InvocationType="Event", Payload=payload, **isolation)
