"""The local stack's settings, its claim on ports and folder, and that it ends what it started."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.polling import wait_for

from infra.local import processes, reset, stack
from infra.local.stack import StartError, place_from


def test_defaults() -> None:
    place = place_from({})
    assert (place.port, place.aws_port, place.bind, place.endpoint) == (8080, 4566, "127.0.0.1", None)
    assert place.state == Path(".attune").resolve()


@pytest.mark.parametrize("given", ["http", "0", "65536", "-1"])
def test_a_port_that_is_none_is_named(given: str) -> None:
    with pytest.raises(StartError, match="ATTUNE_PORT must be a port number"):
        place_from({"ATTUNE_PORT": given})


def test_a_taken_port_is_named_with_the_way_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StartError, match=rf"Port {port} is taken .* ATTUNE_PORT"):
            stack._listen("127.0.0.1", port, "ATTUNE_PORT")


def test_a_state_folder_has_one_stack(tmp_path: Path) -> None:
    with (
        stack._claimed(tmp_path),
        pytest.raises(StartError, match="Another stack is running"),
        stack._claimed(tmp_path),
    ):
        pass
    with stack._claimed(tmp_path):  # and is free again afterwards
        pass


def test_reset_forgets_what_the_stack_wrote_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "aws").mkdir()
    (tmp_path / "aws" / "dynamodb.json").write_text("{}")
    (tmp_path / "lock").touch()
    (tmp_path / "precious").write_text("mine")

    reset.reset(tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


def test_reset_leaves_a_running_stack_alone(tmp_path: Path) -> None:
    (tmp_path / "outputs.json").touch()
    with stack._claimed(tmp_path), pytest.raises(RuntimeError, match="running"):
        reset.reset(tmp_path)
    assert (tmp_path / "outputs.json").exists()


def test_reset_knows_everything_the_stack_writes() -> None:
    source = Path(stack.__file__).read_text() + Path(stack.__file__).with_name("emulator.py").read_text()
    written = {part.partition('"')[0] for part in source.split('state / "')[1:]}
    assert written - {"workspace"} == set(reset.OWN)  # the workspace's note goes with the workspace


# Starts a child whose own child is orphaned and ignores SIGTERM, tells their ids, and ends them when told to.
FAMILY = """
import subprocess, sys
sys.path.insert(0, sys.argv[1])
from infra.local import processes
processes.adopt_orphans()
stubborn = "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
orphaning = "import os, subprocess, sys; "
orphaning += f"p = subprocess.Popen([sys.executable, '-c', {stubborn!r}], stdout=subprocess.PIPE)"
orphaning += "; p.stdout.readline(); print(p.pid, flush=True); os._exit(0)"
parent = subprocess.Popen([sys.executable, "-c", orphaning], stdout=subprocess.PIPE, text=True)
orphan = parent.stdout.readline().strip()
parent.wait()
print(orphan, flush=True)
sys.stdin.readline()
processes.end_descendants(0.2)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="orphans are adopted on Linux only")
def test_orphans_end_with_the_stack_and_strangers_do_not() -> None:
    root = str(Path(stack.__file__).parents[2])
    stranger = subprocess.Popen(["sleep", "600"])
    family = subprocess.Popen(
        [sys.executable, "-c", FAMILY, root], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert family.stdin
        assert family.stdout
        orphan = int(family.stdout.readline())
        assert orphan in processes.descendants(family.pid)
        family.stdin.write("now\n")
        family.stdin.flush()
        assert family.wait(20) == 0
        wait_for(lambda: not Path(f"/proc/{orphan}").exists(), timeout=5, what="the orphan to end")
        assert stranger.poll() is None
    finally:
        for process in (stranger, family):
            process.send_signal(signal.SIGKILL)
            process.wait(5)
            for pipe in (process.stdin, process.stdout):
                if pipe:
                    pipe.close()
    assert os.getpid() not in processes.descendants(os.getpid())
