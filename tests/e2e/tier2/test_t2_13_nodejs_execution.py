"""T2.13: Node.js actions, with and without modules from their pack's ``package.json``."""

import shutil

import pytest
from helpers.client import AttuneClient
from helpers.fixtures import unique_ref
from helpers.narration import step, summary, title
from helpers.packs import BUILD_TIMEOUT, environment_of, node_wants, pack_of_actions, wait_for_environment
from helpers.polling import wait_for_execution_status

pytestmark = pytest.mark.skipif(not (shutil.which("node") and shutil.which("npm")), reason="no node and npm here")

SHOW = "console.log(require('colorlib').version)\n"
READ = "let text = ''; process.stdin.on('data', d => text += d).on('end', () => console.log(JSON.parse(text).name))\n"


@pytest.mark.tier2
@pytest.mark.dependencies
@pytest.mark.runner
def test_node_packs_use_modules_of_their_own(client: AttuneClient) -> None:
    """Two packs need different versions of one module, a third brings its `node_modules` along."""
    title("T2.13: Node.js Dependencies")
    old, new, own = (unique_ref("node") for _ in range(3))

    step(1, "Uploading the packs")
    for ref, version in ((old, "1.0.0"), (new, "2.0.0")):
        files = node_wants("colorlib", version)
        client.upload_pack(pack_of_actions(ref, "1.0.0", {"show": ("nodejs", SHOW)}, files), strict=True)
    vendored = {
        "package.json": '{"dependencies": {"colorlib": "*"}}',
        "node_modules/colorlib/package.json": '{"name": "colorlib", "version": "3.0.0"}',
        "node_modules/colorlib/index.js": "exports.version = 'vendored'",
    }
    client.upload_pack(pack_of_actions(own, "1.0.0", {"show": ("nodejs", SHOW)}, vendored), strict=True)
    built = [wait_for_environment(client, ref, "ready") for ref in (old, new)]

    step(2, "Running them in turn")
    started = [(ref, client.execute(f"{ref}.show")["id"]) for ref in (old, new, own, old, new)]
    printed = [
        wait_for_execution_status(client, id_, "succeeded", timeout=BUILD_TIMEOUT)["result"]["stdout"].strip()
        for _, id_ in started
    ]

    summary(str(built), str(printed))
    assert printed == ["1.0.0", "2.0.0", "vendored", "1.0.0", "2.0.0"]
    assert all(each["runtime_version"].startswith("Node.js v") for each in built)
    assert "environments" not in client.get_pack(own), "nothing to install"
    for ref in (old, new, own):
        client.delete_pack(ref)


@pytest.mark.tier2
@pytest.mark.runner
def test_node_action_reads_parameters_and_misses_modules_clearly(client: AttuneClient) -> None:
    """Parameters come on stdin; a module that nobody asked for is a failure that names it."""
    title("T2.13: Node.js Execution")
    ref = unique_ref("node")
    actions = {"read": ("nodejs", READ), "show": ("nodejs", SHOW)}
    client.upload_pack(pack_of_actions(ref, "1.0.0", actions), strict=True)

    step(1, "Running an action that reads, and one that lacks a module")
    read = wait_for_execution_status(client, client.execute(f"{ref}.read", {"name": "world"})["id"], "succeeded")
    failed = wait_for_execution_status(client, client.execute(f"{ref}.show")["id"], "failed")

    summary(read["result"]["stdout"], failed["result"]["error"])
    assert read["result"]["stdout"] == "world\n"
    assert "Cannot find module 'colorlib'" in failed["result"]["error"]
    client.delete_pack(ref)


@pytest.mark.tier2
@pytest.mark.dependencies
def test_npm_that_fails_is_told(client: AttuneClient) -> None:
    """A tarball that is not there: `failed` on the pack, with npm's words."""
    title("T2.13: Failed npm Installation")
    ref = unique_ref("node")
    files = node_wants("colorlib", "1.0.0")
    del files["vendor/colorlib.tgz"]
    client.upload_pack(pack_of_actions(ref, "1.0.0", {"show": ("nodejs", SHOW)}, files), strict=True)
    failed = wait_for_environment(client, ref, "failed")
    execution = wait_for_execution_status(client, client.execute(f"{ref}.show")["id"], "failed")
    summary(failed["log"])
    assert "colorlib.tgz" in failed["log"]
    assert "colorlib.tgz" in execution["result"]["error"]
    assert environment_of(client, ref)["state"] == "failed"
    client.delete_pack(ref)
