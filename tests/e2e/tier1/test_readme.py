"""What a newcomer pastes first works as the README says."""

import re
import subprocess
from pathlib import Path

import pytest
from helpers.client import AttuneClient
from helpers.fixtures import unique_ref
from helpers.stack import ADMIN_LOGIN, ADMIN_PASSWORD, Stack

pytestmark = pytest.mark.tier1

README = Path(__file__).resolve().parents[3] / "README.md"


def test_first_example(stack: Stack, client: AttuneClient) -> None:
    """Pasted into a shell, with a pack of this test's own."""
    example = next(block for block in re.findall(r"```sh\n(.*?)```", README.read_text(), re.DOTALL) if "API=" in block)
    pack = unique_ref("readme")
    script = re.sub(r"\bdemo\b", pack, example)
    script = script.replace("http://localhost:8080", stack.url)
    script = script.replace("test@attune.local", ADMIN_LOGIN).replace("TestPass123!", ADMIN_PASSWORD)

    done = subprocess.run(["bash"], input=script, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 0, done.stderr
    assert r"'stdout': 'Paging on-call: db1 is in trouble\n'" in done.stdout.splitlines()[-1]
    client.delete_pack(pack)
