"""What `make run` says when it cannot start."""

import os
import socket
import subprocess
from pathlib import Path

import pytest
from helpers.stack import ROOT, free_ports

pytestmark = pytest.mark.tier1


def test_a_taken_port_is_one_clear_sentence(tmp_path: Path) -> None:
    port, aws_port = free_ports(2)
    with socket.create_server(("127.0.0.1", port)):
        done = subprocess.run(
            ["make", "--silent", "run"],
            cwd=ROOT,
            env={
                **os.environ,
                "ATTUNE_PORT": str(port),
                "ATTUNE_AWS_PORT": str(aws_port),
                "ATTUNE_STATE_DIR": str(tmp_path),
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    assert done.returncode != 0
    (sentence,) = [line for line in done.stderr.splitlines() if str(port) in line]
    assert "ATTUNE_PORT" in sentence
    assert "Traceback" not in done.stderr
