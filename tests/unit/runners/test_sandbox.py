"""The loop around a child: feeding, listening, ending."""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runners.capture import KEPT, TAIL
from runners.sandbox import FOLDER, UNNAMED, Job, Sandbox, SandboxBrokenError


def script(text: str) -> Job:
    return Job(command=["/bin/bash", UNNAMED], unnamed=text, environment={"PATH": os.defpath})


def python(text: str) -> Job:
    return Job(command=[f"{FOLDER}/it.py"], in_process=True, files={"it.py": text})


def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text(encoding="utf-8")


def test_long_input_and_output_pass_while_the_process_runs(sandbox: Sandbox) -> None:
    content = os.urandom(3 * 1024 * 1024)

    ended = sandbox.run(Job(command=["/bin/cat"]), content, timeout=20)

    assert ended.stdout.head == content


def test_input_that_nobody_reads_is_no_failure(sandbox: Sandbox) -> None:
    ended = sandbox.run(script("exit 0"), b"x" * 1024 * 1024, timeout=20)

    assert ended.exit_code == 0


def test_endless_output_is_counted_and_forgotten(sandbox: Sandbox) -> None:
    ended = sandbox.run(script("head -c 30000000 /dev/zero; echo end; echo aside >&2"), b"", timeout=20)

    assert ended.stdout.total == 30_000_004
    assert len(ended.stdout.head) == KEPT
    assert len(ended.stdout.tail) == TAIL
    assert ended.stdout.tail.endswith(b"end\n")
    assert ended.stderr.head == b"aside\n"


def test_sigterm_comes_first(sandbox: Sandbox) -> None:
    ended = sandbox.run(script("trap 'echo bye; exit 3' TERM; while :; do sleep 0.05; done"), b"", timeout=0.3)

    assert (ended.timed_out, ended.exit_code, ended.stdout.head) == (True, 3, b"bye\n")


def test_sigkill_follows_for_who_does_not_listen(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runners.sandbox.TERMINATION_GRACE", 0.3)

    ended = sandbox.run(script("trap '' TERM; while :; do sleep 0.05; done"), b"", timeout=0.2)

    assert (ended.timed_out, ended.signal) == (True, signal.SIGKILL)
    assert ended.duration_ms < 3000


@pytest.mark.parametrize(
    "daemon",
    [
        "sleep 300 & echo $!",
        "setsid sleep 300 >/dev/null 2>&1 < /dev/null & echo $!",
        "(setsid setsid sleep 300 & echo $!) 2>/dev/null",
        "trap '' TERM HUP; (trap '' TERM HUP; sleep 300) & echo $!",
    ],
)
def test_nothing_it_started_outlives_it(sandbox: Sandbox, daemon: str) -> None:
    ended = sandbox.run(script(daemon), b"", timeout=10)

    assert ended.exit_code == 0
    assert ended.duration_ms < 2000
    assert not alive(int(ended.stdout.head))


def test_a_tail_that_outlives_its_shell_may_finish(sandbox: Sandbox) -> None:
    ended = sandbox.run(script("exec > >(sleep 0.05; cat); echo through"), b"", timeout=10)

    assert ended.stdout.head == b"through\n"


def test_a_command_that_is_not_there_has_not_started(sandbox: Sandbox) -> None:
    ended = sandbox.run(Job(command=["/no/such/program"]), b"", timeout=10)

    assert ended.not_started is not None
    assert "No such file" in ended.not_started


def test_the_measures_are_of_the_child(sandbox: Sandbox) -> None:
    ended = sandbox.run(python("x = bytearray(60_000_000)\nfor _ in range(2_000_000): pass"), b"", timeout=20)

    assert ended.cpu_ms >= 10
    assert ended.peak_kb >= 60_000


def test_the_working_folder_is_where_it_was_asked_to_be(sandbox: Sandbox) -> None:
    ended = sandbox.run(Job(command=["/bin/pwd"], folder="/usr"), b"", timeout=10)

    assert ended.stdout.head == b"/usr\n"


@pytest.fixture
def own_sandbox() -> Iterator[Sandbox]:
    sandbox = Sandbox()
    yield sandbox
    sandbox.close()


def test_the_death_of_the_zygote_ends_the_run_and_not_the_runner(own_sandbox: Sandbox) -> None:
    own_sandbox.run(Job(command=["/bin/true"]), b"", timeout=10)
    os.kill(own_sandbox._zygote.pid, signal.SIGKILL)

    with pytest.raises(SandboxBrokenError):
        own_sandbox.run(Job(command=["/bin/sleep", "300"]), b"", timeout=10)

    assert own_sandbox.run(Job(command=["/bin/echo", "again"]), b"", timeout=10).stdout.head == b"again\n"


@pytest.mark.parametrize("ready", [True, False])
def test_when_the_runner_goes_everything_goes(*, ready: bool) -> None:
    sandbox = Sandbox()
    (sandbox.base / "packs").mkdir()
    if ready:
        sandbox.wait_until_ready()

    sandbox.close()

    assert sandbox._zygote.poll() == 0
    assert not sandbox.base.exists()


def test_a_child_that_runs_when_the_runner_dies_is_killed() -> None:
    """The runner's end closes while a child is asleep, as when Lambda kills the process."""
    sandbox = Sandbox()
    sandbox.wait_until_ready()
    runner = os.fork()
    if runner == 0:
        sandbox.run(Job(command=["/bin/sleep", "300"]), b"", timeout=60)
        os._exit(0)
    sandbox._control.close()
    sleeper = _sleeper_below(sandbox._zygote.pid)

    os.kill(runner, signal.SIGKILL)
    os.waitpid(runner, 0)

    until(lambda: not alive(sleeper))
    until(lambda: sandbox._zygote.poll() is not None)
    assert not sandbox.base.exists()


def _sleeper_below(zygote: int) -> int:
    found: list[int] = []

    def look() -> bool:
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                name, _, rest = stat.read_text(encoding="utf-8").partition("(")[2].rpartition(")")
                if name == "sleep" and int(rest.split()[1]) == zygote:
                    found.append(int(stat.parent.name))
        return bool(found)

    until(look)
    return found[0]
