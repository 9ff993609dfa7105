import base64
import json
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from chalicelib.flow.invoker import Invoker, RunTooLargeError
from chalicelib.protocol import Build, Pack, Poll, Run, Upload
from chalicelib.security.sealing import Sealer

CANARY = "CaNaRy-5f1c"


@dataclass
class FakeAws:
    """A Lambda that keeps what it is sent, and a Secrets Manager."""

    calls: list[dict[str, Any]] = field(default_factory=list)
    asked: int = 0

    def invoke(self, **kwargs: Any) -> Any:
        self.calls.append(kwargs)

    def get_secret_value(self, **_: Any) -> Any:
        self.asked += 1
        keys = [{"kid": "new", "key": base64.b64encode(b"n" * 32).decode()}]
        return {"SecretString": json.dumps({"run": keys})}

    @property
    def sent(self) -> Any:
        return json.loads(self.calls[-1]["Payload"])

    def invoker(self, *, isolated: bool = False) -> Invoker:
        return Invoker(lambda: self, Sealer(lambda: self, "keys"), function="runner", isolated=isolated)


def run(**fields: Any) -> Run:
    return Run(
        tenant="acme", execution=1, attempt=1, token="t", action_ref="p.a", runner="shell", entrypoint="true", **fields
    )


def test_a_run_is_queued_for_its_tenant() -> None:
    aws = FakeAws()
    aws.invoker(isolated=True).start(run(parameters={"a": 1}), confidential=False)
    (call,) = aws.calls
    assert (call["FunctionName"], call["InvocationType"], call["TenantId"]) == ("runner", "Event", "acme")
    assert aws.sent["parameters"] == {"a": 1}
    assert aws.asked == 0, "what holds no secret needs no key"


def test_without_isolation_no_tenant_is_named() -> None:
    aws = FakeAws()
    aws.invoker().start(run(), confidential=False)
    assert "TenantId" not in aws.calls[0]


@pytest.mark.parametrize("confidential", [True, False])
def test_what_does_not_fit_an_invocation_is_refused_before_it_is_sent(*, confidential: bool) -> None:
    aws = FakeAws()
    with pytest.raises(RunTooLargeError, match="bytes"):
        aws.invoker().start(run(parameters={"a": "x" * 1_100_000}), confidential=confidential)
    assert aws.calls == []


def test_what_is_confidential_is_not_in_what_lambda_is_sent() -> None:
    aws = FakeAws()
    invoker = aws.invoker()
    archive = Pack(ref="p", content="c0ffee", url=f"http://s3/p?signature={CANARY}")
    secret = run(parameters={"p": CANARY}, secrets=[CANARY], environment={"ATTUNE_API_TOKEN": CANARY}, pack=archive)
    invoker.start(secret, confidential=True)
    invoker.poll(Poll(run=secret))
    upload = Upload(url="http://s3", fields={"x-amz-signature": CANARY}, most=1)
    build = {"runtime": "python", "manifest": "requirements.txt", "pack": archive, "upload": upload, "timeout": 1}
    invoker.build(Build(tenant="acme", environment="e", attempt=2, token="t", **build))
    assert [msgspec.json.decode(call["Payload"])["kind"] for call in aws.calls] == ["run", "poll", "build"]
    for call in aws.calls:
        assert CANARY.encode() not in call["Payload"]
    assert aws.asked == 1, "the key is read once"


def test_whose_run_it_is_stays_readable() -> None:
    aws = FakeAws()
    aws.invoker().start(run(parameters={"p": CANARY}), confidential=True)
    assert {name: aws.sent[name] for name in ("tenant", "execution", "attempt", "token", "parameters")} == {
        "tenant": "acme",
        "execution": 1,
        "attempt": 1,
        "token": "t",
        "parameters": {},
    }
