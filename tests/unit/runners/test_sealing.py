"""What the executor seals, the runner opens: the two halves, which share only the messages, against each other."""

import base64
import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from chalicelib.protocol import Build, EnvironmentBuilt, Pack, Poll, Run, RunFinished, SensorPolled, Upload
from chalicelib.security.keyring import KeyringError
from chalicelib.security.sealing import Sealer
from runners import sealing
from runners.handler import Runner

CANARY = "CaNaRy-9a7b"
OLD, NEW = ({"kid": kid, "key": base64.b64encode(kid[:1].encode() * 32).decode()} for kid in ("old", "new"))


class SecretsManager:
    """Holds the keys, and counts who asks."""

    def __init__(self, *keys: dict[str, str]) -> None:
        self.keys = keys
        self.asked = 0

    def get_secret_value(self, **_: Any) -> Any:
        self.asked += 1
        return {"SecretString": json.dumps({"run": self.keys})}

    def sealer(self) -> Sealer:
        return Sealer(lambda: self, "keys")


@pytest.fixture
def manager(monkeypatch: pytest.MonkeyPatch) -> SecretsManager:
    """What the runner asks; a runner that has no key yet."""
    manager = SecretsManager(NEW, OLD)
    monkeypatch.setenv("ATTUNE_RUN_SECRET", "keys")
    monkeypatch.setattr(sealing, "_secrets_manager", lambda: manager)
    monkeypatch.setattr(sealing, "_ciphers", {})
    return manager


def run(**fields: Any) -> Run:
    given = {"tenant": "acme", "execution": 7, "attempt": 1, "token": "t", "action_ref": "p.a", "runner": "python"}
    return Run(**given | {"entrypoint": "import sys; print(sys.stdin.read())", "timeout": 20.0} | fields)


def secret_run() -> Run:
    archive = Pack(ref="p", content="c0ffee", url="http://s3/p")
    return run(parameters={"p": [CANARY, 1, None]}, secrets=[CANARY], environment={"A": "b"}, pack=archive)


def build() -> Build:
    archive, upload = Pack(ref="p", content="c0ffee", url="http://s3/p"), Upload(url="u", fields={"a": "b"}, most=5)
    what = {"runtime": "python", "manifest": "requirements.txt", "pack": archive, "upload": upload, "timeout": 9.0}
    return Build(tenant="acme", environment="py-1", attempt=2, token="t", **what)


def test_everything_comes_back_as_it_was(manager: SecretsManager) -> None:
    sealer = manager.sealer()
    assert sealing.opened(sealer.run(secret_run())) == secret_run()
    assert sealing.opened_poll(sealer.poll(Poll(run=secret_run()))) == Poll(run=secret_run())
    assert sealing.opened_build(sealer.build(build())) == build()
    assert manager.asked == 2, "each side reads the key once"


def test_over_the_wire_too(manager: SecretsManager) -> None:
    wire = msgspec.json.encode(manager.sealer().run(secret_run()))
    assert CANARY.encode() not in wire
    assert sealing.opened(msgspec.convert(json.loads(wire), Run)) == secret_run()


def test_what_is_not_sealed_needs_no_key(manager: SecretsManager) -> None:
    assert sealing.opened(secret_run()) == secret_run()
    assert sealing.opened_build(build()) == build()
    assert manager.asked == 0


def test_one_run_sealed_twice_looks_different(manager: SecretsManager) -> None:
    sealer = manager.sealer()
    assert sealer.run(secret_run()).sealed != sealer.run(secret_run()).sealed


def test_an_old_key_opens_what_it_sealed_and_a_new_one_is_looked_for(manager: SecretsManager) -> None:
    manager.keys = (OLD,)
    sealer = manager.sealer()
    before = sealer.run(secret_run())
    assert sealing.opened(before) == secret_run()
    manager.keys = (NEW, OLD)
    after = manager.sealer().run(secret_run())
    assert (before.sealed.kid, after.sealed.kid) == ("old", "new")
    assert sealing.opened(after) == sealing.opened(before) == secret_run()


@pytest.mark.parametrize("other", [{"tenant": "evil"}, {"execution": 8}, {"attempt": 2}])
def test_a_sealed_part_opens_in_no_other_run(manager: SecretsManager, other: dict[str, Any]) -> None:
    moved = msgspec.structs.replace(manager.sealer().run(secret_run()), **other)
    with pytest.raises(sealing.DoesNotOpenError, match="another run's"):
        sealing.opened(moved)


def test_nor_in_a_message_of_another_kind(manager: SecretsManager) -> None:
    with pytest.raises(sealing.DoesNotOpenError):
        sealing.opened(manager.sealer().poll(Poll(run=secret_run())).run)


@pytest.mark.parametrize("part", ["nonce", "content"])
def test_one_changed_bit_is_noticed(manager: SecretsManager, part: str) -> None:
    sealed = manager.sealer().run(secret_run())
    original = getattr(sealed.sealed, part)
    changed = msgspec.structs.replace(sealed.sealed, **{part: bytes([original[0] ^ 1]) + original[1:]})
    with pytest.raises(sealing.DoesNotOpenError):
        sealing.opened(msgspec.structs.replace(sealed, sealed=changed))


@pytest.mark.parametrize("part", ["nonce", "content"])
def test_one_cut_off_is_noticed(manager: SecretsManager, part: str) -> None:
    sealed = manager.sealer().run(secret_run())
    changed = msgspec.structs.replace(sealed.sealed, **{part: b""})
    with pytest.raises(sealing.DoesNotOpenError):
        sealing.opened(msgspec.structs.replace(sealed, sealed=changed))


def test_a_key_that_is_gone_is_named(manager: SecretsManager) -> None:
    sealed = manager.sealer().run(secret_run())
    manager.keys = (OLD,)
    with pytest.raises(sealing.DoesNotOpenError, match="key new"):
        sealing.opened(sealed)


@pytest.mark.parametrize("keys", [(), ({"kid": "1", "key": base64.b64encode(b"short").decode()},)])
def test_an_unusable_secret_is_not_repeated(manager: SecretsManager, keys: tuple[dict[str, str], ...]) -> None:
    sealed = manager.sealer().run(secret_run())
    manager.keys = keys
    with pytest.raises(KeyringError) as sealing_error:
        manager.sealer().run(secret_run())
    with pytest.raises(sealing.DoesNotOpenError) as opening_error:
        sealing.opened(sealed)
    for error in (sealing_error.value, opening_error.value):
        assert base64.b64encode(b"short").decode() not in str(error)
        assert error.__cause__ is None


def test_a_sealed_run_runs_and_its_secret_is_masked(manager: SecretsManager, runner: Runner) -> None:
    finished = runner.carry_out(manager.sealer().run(run(parameters={"p": CANARY, "q": "open"}, secrets=[CANARY])))
    assert finished.status == "completed"
    assert json.loads(finished.result["stdout"]) == {"p": "********", "q": "open"}


def changed(message: Any) -> Any:
    return msgspec.structs.replace(message, attempt=9)


@pytest.mark.parametrize(
    ("act", "says"),
    [
        (lambda runner, sealer: runner.carry_out(changed(sealer.run(secret_run()))), "error"),
        (lambda runner, sealer: runner.poll(Poll(run=changed(sealer.poll(Poll(run=secret_run())).run))), "error"),
        (lambda runner, sealer: runner.build(changed(sealer.build(build()))), "log"),
    ],
)
def test_tampering_is_reported_and_nothing_runs(
    manager: SecretsManager, runner: Runner, act: Callable[[Runner, Sealer], Any], says: str
) -> None:
    report: RunFinished | SensorPolled | EnvironmentBuilt = act(runner, manager.sealer())
    reason = report.result["error"] if isinstance(report, RunFinished) else getattr(report, says)
    assert "does not open" in reason
    assert not isinstance(report, RunFinished) or report.status == "failed"
    assert not isinstance(report, EnvironmentBuilt) or not report.ready


def test_a_run_without_secrets_loads_no_cryptography() -> None:
    code = """
import sys
from runners import sealing
from chalicelib.protocol import Run
run = Run(tenant="t", execution=1, attempt=1, token="t", action_ref="a", runner="shell", entrypoint="true")
assert sealing.opened(run) is run
print([name for name in sys.modules if name.startswith(("cryptography", "botocore"))])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
