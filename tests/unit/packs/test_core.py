"""The core pack's actions as the runner starts them: a script, parameters as JSON on stdin."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ACTIONS = Path(__file__).parents[3] / "packs" / "core" / "actions"


def run(action: str, **parameters: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ACTIONS / f"{action}.py")],
        input=json.dumps(parameters),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_echo_prints_its_message() -> None:
    done = run("echo", message="Grüße, Welt")
    assert (done.returncode, done.stdout, done.stderr) == (0, "Grüße, Welt\n", "")


def test_fail_fails_as_told() -> None:
    done = run("fail", message="no luck", exit_code=3)
    assert (done.returncode, done.stdout, done.stderr) == (3, "", "no luck\n")


def test_sleep_takes_its_time() -> None:
    started = time.monotonic()
    done = run("sleep", seconds=0.2, message="awake")
    assert time.monotonic() - started >= 0.2
    assert (done.returncode, done.stdout) == (0, "awake\n")
    assert run("sleep", seconds=0).stdout == ""
