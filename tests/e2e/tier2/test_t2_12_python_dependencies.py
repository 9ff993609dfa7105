"""T2.12: Python actions with libraries from their pack's ``requirements.txt``."""

import pytest
from helpers.client import AttuneClient
from helpers.fixtures import unique_ref
from helpers.narration import step, summary, title
from helpers.packs import BUILD_TIMEOUT, pack_of_actions, wait_for_environment
from helpers.polling import wait_for_execution_status
from helpers.wheels import wheel, wheel_name

# One library that needs another, a package of several modules, and data beside the code.
LIBRARY = {
    "greeting/__init__.py": "from greeting.words import greet\n",
    "greeting/words.py": (
        "import pathlib, colorlib\n"
        "WORD = pathlib.Path(__file__).with_name('word.txt').read_text()\n"
        "def greet(name): return f'{WORD} {name} in {colorlib.VERSION}'\n"
    ),
    "greeting/word.txt": "hello",
}
ACTION = """
import json, subprocess, sys
import greeting
parameters = json.load(sys.stdin)
child = subprocess.run([sys.executable, "-c", "import greeting; print(greeting.greet('child'))"], capture_output=True)
print(json.dumps({"said": greeting.greet(parameters["name"]), "child": child.stdout.decode().strip()}))
"""


@pytest.mark.tier2
@pytest.mark.dependencies
@pytest.mark.runner
def test_python_action_uses_its_requirements(client: AttuneClient) -> None:
    """Pinned libraries and what they need are there, for the action and for interpreters that it starts."""
    title("T2.12: Python Dependencies")
    ref = unique_ref("pydeps")

    step(1, "Uploading a pack with two wheels and a requirements.txt")
    offline = "# what the action needs\n--no-index\n--find-links ./wheels\n"
    files = {
        "requirements.txt": offline + "-r more.txt\ngreeting==1.0; python_version >= '3.8'\n",
        "more.txt": "colorlib>=1.0,<2.0\n",
        f"wheels/{wheel_name('greeting', '1.0')}": wheel("greeting", "1.0", LIBRARY),
        f"wheels/{wheel_name('colorlib', '1.5')}": wheel("colorlib", "1.5"),
        f"wheels/{wheel_name('colorlib', '2.5')}": wheel("colorlib", "2.5"),
    }
    client.upload_pack(pack_of_actions(ref, "1.0.0", {"greet": ("python", ACTION)}, files), strict=True)

    step(2, "Waiting for its environment")
    environment = wait_for_environment(client, ref, "ready")

    step(3, "Running the action")
    started = client.execute(f"{ref}.greet", {"name": "world"})
    ended = wait_for_execution_status(client, started["id"], "succeeded", timeout=BUILD_TIMEOUT)

    summary(str(environment), ended["result"]["stdout"])
    assert environment["runtime"] == "python"
    assert environment["manifest"] == "requirements.txt"
    assert environment["runtime_version"].startswith("Python 3.")
    assert '"said": "hello world in 1.5"' in ended["result"]["stdout"]
    assert '"child": "hello child in 1.5"' in ended["result"]["stdout"]
    client.delete_pack(ref)


@pytest.mark.tier2
@pytest.mark.dependencies
@pytest.mark.runner
def test_execution_env_vars_reach_the_action(client: AttuneClient) -> None:
    """`env_vars` of the request are the action's environment; the platform's own names are refused."""
    title("T2.12: Environment Variables of an Execution")
    ref = unique_ref("envvars")
    code = "import os\nprint(os.environ.get('GREETING'), os.environ.get('COUNT'), os.environ['ATTUNE_ACTION'])\n"
    client.upload_pack(pack_of_actions(ref, "1.0.0", {"show": ("python", code)}), strict=True)

    step(1, "Running with variables, and without")
    with_them = client.execute(f"{ref}.show", env_vars={"GREETING": "hello world", "COUNT": 3})
    without = client.execute(f"{ref}.show")
    printed = [
        wait_for_execution_status(client, e["id"], "succeeded")["result"]["stdout"] for e in (with_them, without)
    ]

    step(2, "Trying names that are not for requests to set")
    refused = [
        client.request("POST", "executions/execute", json={"action_ref": f"{ref}.show", "env_vars": {name: "x"}})
        for name in ("ATTUNE_API_TOKEN", "attune_action", "no name", "LD_PRELOAD")
    ]

    summary(*printed, *(answer.text for answer in refused))
    assert printed == [f"hello world 3 {ref}.show\n", f"None None {ref}.show\n"]
    assert [answer.status_code for answer in refused] == [422, 422, 422, 422]
    client.delete_pack(ref)
