"""T3.19: every pack runs with its own versions of its libraries.

What a pack's manifest asks for is installed once, when the pack arrives, into an environment that is known by the
manifest's content. The tests make their own wheels: no package registry takes part.
"""

import os
import secrets
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import wheels
from helpers.client import ApiError, AttuneClient
from helpers.fixtures import unique_ref
from helpers.narration import step, summary, title
from helpers.packs import (
    BUILD_TIMEOUT,
    Files,
    environment_of,
    pack_of_actions,
    python_wants,
    wait_for_environment,
)
from helpers.polling import wait_for, wait_for_execution_status
from helpers.stack import Stack
from helpers.wheels import wheel

SHOW = "import colorlib\nprint(colorlib.VERSION)\n"

# A package that takes its time to be built: pip runs this, not a wheel that lies ready.
SLOW_BACKEND = """
import os, time, wheels
def build_wheel(folder, settings=None, metadata=None):
    time.sleep({seconds})
    name = wheels.wheel_name("colorlib", {version!r})
    with open(os.path.join(folder, name), "wb") as file:
        file.write(wheels.wheel("colorlib", {version!r}))
    return name
"""


def slow_to_build(version: str, seconds: float) -> Files:
    """A manifest whose library lies in the pack as source, and is built in so many seconds."""
    return {
        "requirements.txt": "--no-index\n./slow\n",
        "slow/pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
        "slow/backend.py": SLOW_BACKEND.format(version=version, seconds=seconds),
        "slow/wheels.py": Path(wheels.__file__).read_text("utf-8"),
    }


@pytest.fixture
def refs(client: AttuneClient) -> Iterator[list[str]]:
    """Three pack refs of the test's own; the packs go with it."""
    made = [unique_ref("deps") for _ in range(3)]
    yield made
    for ref in made:
        client.request("DELETE", f"packs/{ref}")


def upload(client: AttuneClient, ref: str, files: Files, version: str = "1.0.0", code: str = SHOW) -> None:
    archive = pack_of_actions(ref, version, {"show": ("python", code)}, files)
    client.upload_pack(archive, force=True, strict=True)


def shown_by(client: AttuneClient, ref: str) -> str:
    """What the pack's action prints."""
    started = client.execute(f"{ref}.show")
    ended = wait_for_execution_status(client, started["id"], "succeeded", timeout=BUILD_TIMEOUT)
    printed: str = ended["result"]["stdout"]
    return printed.strip()


@pytest.mark.tier3
@pytest.mark.dependencies
@pytest.mark.packs
def test_dependency_conflict_isolation(client: AttuneClient, refs: list[str]) -> None:
    """Two packs that need different versions of one library run side by side, each with its own."""
    title("T3.19: Dependency Conflict Isolation")
    old, new, plain = refs

    step(1, "Uploading two packs that want colorlib 1.0 and 2.0, and one that wants nothing")
    upload(client, old, python_wants("colorlib", "1.0"))
    upload(client, new, python_wants("colorlib", "2.0"))
    upload(client, plain, {}, code="import sys\nprint(sorted(name for name in sys.modules if name == 'colorlib'))\n")
    environments = [wait_for_environment(client, ref, "ready") for ref in (old, new)]

    step(2, "Running both, interleaved and at the same time")
    started = [(ref, client.execute(f"{ref}.show")["id"]) for _ in range(6) for ref in (old, new, plain)]
    printed: dict[str, set[str]] = {}
    for ref, id_ in started:
        ended = wait_for_execution_status(client, id_, "succeeded", timeout=60)
        printed.setdefault(ref, set()).add(ended["result"]["stdout"].strip())

    summary(*(f"{environment['key']}: {environment['size']} bytes" for environment in environments), str(printed))
    assert printed == {old: {"1.0"}, new: {"2.0"}, plain: {"[]"}}
    assert environments[0]["key"] != environments[1]["key"]
    assert "environments" not in client.get_pack(plain)


@pytest.mark.tier3
@pytest.mark.dependencies
@pytest.mark.packs
def test_two_versions_of_one_pack(client: AttuneClient, refs: list[str]) -> None:
    """A new version of a pack does not change the libraries of a run that is under way; going back is at once."""
    title("T3.19: Two Versions of One Pack")
    ref = refs[0]
    late = "import time\nprint('begun', flush=True)\ntime.sleep(4)\n" + SHOW

    step(1, "Uploading version 1 and starting a run that imports its library only later")
    upload(client, ref, python_wants("colorlib", "1.0"), "1.0.0", code=late)
    first = wait_for_environment(client, ref, "ready")
    running = client.execute(f"{ref}.show")["id"]
    wait_for_execution_status(client, running, "running")

    step(2, "Uploading version 2 meanwhile and running it")
    upload(client, ref, python_wants("colorlib", "2.0"), "2.0.0")
    second = shown_by(client, ref)

    step(3, "Looking at what version 1 found")
    ended = wait_for_execution_status(client, running, "succeeded", timeout=30)

    step(4, "Going back to version 1")
    upload(client, ref, python_wants("colorlib", "1.0"), "1.0.0")
    again = environment_of(client, ref)

    summary(f"version 2 found {second}, version 1 {ended['result']['stdout'].split()[-1]}")
    assert second == "2.0"
    assert ended["result"]["stdout"].split() == ["begun", "1.0"]
    assert (again["key"], again["state"]) == (first["key"], "ready"), "nothing had to be installed again"
    assert shown_by(client, ref) == "1.0"


@pytest.mark.tier3
@pytest.mark.dependencies
@pytest.mark.packs
def test_same_manifest_is_built_once(client: AttuneClient, refs: list[str]) -> None:
    """Packs whose manifests have the same content share an environment, and one more word makes another."""
    title("T3.19: One Environment per Manifest")
    one, two, other = refs
    wanted = python_wants("colorlib", "1.0")

    step(1, "Uploading two packs with one manifest")
    upload(client, one, wanted)
    first = wait_for_environment(client, one, "ready")
    upload(client, two, wanted, code=SHOW + "# another pack\n")
    second = environment_of(client, two)

    step(2, "Uploading a third whose wheel of the same name and version has other content")
    changed = dict(wanted)
    (path,) = (name for name in wanted if name.endswith(".whl"))
    changed[path] = wheel("colorlib", "1.0", {"colorlib.py": "VERSION = '1.0 of another kind'\n"})
    upload(client, other, changed)

    summary(f"{first['key']} built at {first['updated']}")
    assert second == first, "the same one, ready before the second pack arrived"
    assert (shown_by(client, one), shown_by(client, two)) == ("1.0", "1.0")
    assert shown_by(client, other) == "1.0 of another kind"


@pytest.mark.tier3
@pytest.mark.dependencies
@pytest.mark.packs
def test_missing_dependency_is_a_clear_failure(client: AttuneClient, refs: list[str]) -> None:
    """A library that no manifest asks for, or only another pack's: the execution fails and says which."""
    title("T3.19: Missing Dependency")
    without, with_it, _ = refs

    step(1, "Uploading a pack with the library, and one that imports it without asking for it")
    upload(client, with_it, python_wants("colorlib", "1.0"))
    upload(client, without, {})
    assert shown_by(client, with_it) == "1.0"

    step(2, "Running the one without")
    failed = wait_for_execution_status(client, client.execute(f"{without}.show")["id"], "failed")

    summary(failed["result"]["error"])
    assert "ModuleNotFoundError: No module named 'colorlib'" in failed["result"]["error"]


@pytest.mark.tier3
@pytest.mark.dependencies
@pytest.mark.packs
def test_failed_installation_is_told(client: AttuneClient, refs: list[str]) -> None:
    """What cannot be installed is `failed` on the pack with the installer's words, fails executions with them, and is
    tried anew when the pack comes again, or on request."""
    title("T3.19: Failed Installation")
    ref = refs[0]

    step(1, "Uploading a pack that wants a version which is not there")
    upload(client, ref, python_wants("colorlib", "1.0", wanted="9.9"))
    failed = wait_for_environment(client, ref, "failed")

    step(2, "Running it")
    execution = wait_for_execution_status(client, client.execute(f"{ref}.show")["id"], "failed")

    step(3, "Asking for another attempt, which fails as well")
    (pending,) = client.data("POST", f"packs/{ref}/environments")
    again = wait_for_environment(client, ref, "failed")

    step(4, "Uploading a manifest that can be satisfied")
    upload(client, ref, python_wants("colorlib", "1.0"))

    summary(failed["log"], execution["result"]["error"])
    assert "No matching distribution found for colorlib==9.9" in failed["log"]
    assert "No matching distribution found for colorlib==9.9" in execution["result"]["error"]
    assert ref in execution["result"]["error"]
    assert execution.get("started_at") is None, "it never ran"
    assert pending["key"] == failed["key"]
    assert again["updated"] > failed["updated"]
    assert shown_by(client, ref) == "1.0"


@pytest.mark.tier3
@pytest.mark.dependencies
@pytest.mark.packs
def test_executions_wait_for_their_environment(client: AttuneClient, refs: list[str]) -> None:
    """An execution that comes while the libraries are being installed waits, and then runs."""
    title("T3.19: Waiting for an Environment")
    ref = refs[0]
    step(1, "Uploading a pack whose library takes seconds to build, and running it at once")
    upload(client, ref, slow_to_build("1.0", seconds=4))
    waiting = client.execute(f"{ref}.show")
    doomed = client.execute(f"{ref}.show")
    pending = environment_of(client, ref)

    step(2, "Cancelling one of two that wait")
    client.cancel_execution(doomed["id"])
    meanwhile = client.get_execution(waiting["id"])

    step(3, "Waiting for the other")
    ended = wait_for_execution_status(client, waiting["id"], "succeeded", timeout=BUILD_TIMEOUT)
    ready = environment_of(client, ref)

    summary(f"pending at {pending['updated']}, ready at {ready['updated']}, run at {ended['started_at']}")
    assert pending["state"] == "pending"
    assert meanwhile["status"] == "requested"
    assert ended["result"]["stdout"].strip() == "1.0"
    assert ended["started_at"] >= ready["updated"]
    assert client.get_execution(doomed["id"])["status"] == "cancelled"


@pytest.mark.tier3
@pytest.mark.dependencies
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="processes are found in /proc")
def test_build_that_dies_is_repeated_once(client: AttuneClient, refs: list[str], stack: Stack) -> None:
    """A runner that is killed while it builds: another does it. A second one that is killed: that was it."""
    if not stack.is_local:
        pytest.skip("runners can be killed only where they are processes of this machine")
    title("T3.19: Lost Build")
    lucky, unlucky, _ = refs
    once, twice = (f"1.{secrets.randbits(40)}" for _ in range(2))  # no other stack of this machine builds those

    step(1, "Killing the runner of a build once")
    upload(client, lucky, slow_to_build(once, seconds=3))
    first = client.execute(f"{lucky}.show")["id"]
    kill_runner_of_build(once)
    completed = wait_for_execution_status(client, first, "succeeded", timeout=BUILD_TIMEOUT)

    step(2, "Killing the runner of a build, and the one that repeats it")
    upload(client, unlucky, slow_to_build(twice, seconds=3))
    second = client.execute(f"{unlucky}.show")["id"]
    kill_runner_of_build(twice)
    kill_runner_of_build(twice)
    failed = wait_for_execution_status(client, second, "failed", timeout=BUILD_TIMEOUT)

    summary(completed["result"]["stdout"], failed["result"]["error"])
    assert completed["result"]["stdout"].strip() == once
    assert "the build was lost" in failed["result"]["error"]
    assert environment_of(client, unlucky)["state"] == "failed"


def kill_runner_of_build(version: str) -> None:
    """Wait until somebody builds that version of the slow library, and kill the function that does. Returns when what
    it had started is gone too."""
    building = SLOW_BACKEND.format(version=version, seconds=3)

    def backends() -> list[Path]:
        return [each for each in Path("/proc").glob("[0-9]*") if read(each / "cwd" / "backend.py") == building]

    process = wait_for(backends, timeout=BUILD_TIMEOUT, what=f"somebody to build {version}")[0]
    while "runners.zygote" not in read(process / "cmdline"):
        process = parent(process)
    os.kill(int(parent(process).name), signal.SIGKILL)
    wait_for(lambda: not backends(), timeout=10, what="what was being built to be gone")


def parent(process: Path) -> Path:
    return process.with_name(read(process / "stat").rpartition(")")[2].split()[1])


def read(path: Path) -> str:
    """What is in a file of `/proc`; nothing where the process is gone or somebody else's."""
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""


@pytest.mark.tier3
@pytest.mark.dependencies
@pytest.mark.security
def test_environments_are_of_one_tenant(client: AttuneClient, refs: list[str], anonymous: AttuneClient) -> None:
    """Nobody sees the libraries of a pack without being signed in, and an unknown pack has none."""
    title("T3.19: Whose Environments")
    ref = refs[0]
    upload(client, ref, python_wants("colorlib", "1.0"))
    wait_for_environment(client, ref, "ready")

    with pytest.raises(ApiError) as nobody:
        anonymous.data("GET", f"packs/{ref}/environments")
    with pytest.raises(ApiError) as unknown:
        client.data("GET", f"packs/{refs[1]}/environments")

    (listed,) = client.data("GET", f"packs/{ref}/environments")
    assert (nobody.value.status, unknown.value.status) == (401, 404)
    assert listed == environment_of(client, ref)
