"""Packs that bring libraries, with wheels and tarballs of the tests' own making."""

import json

from helpers.client import AttuneClient, Json
from helpers.fixtures import pack_archive
from helpers.polling import wait_for
from helpers.wheels import npm_tarball, wheel, wheel_name

BUILD_TIMEOUT = 90  # an installer on a busy machine

Files = dict[str, str | bytes]


def pack_of_actions(ref: str, version: str, actions: dict[str, tuple[str, str]], more: Files | None = None) -> bytes:
    """The archive of a pack; ``actions`` maps names to runner type and code."""
    files: Files = {"pack.yaml": f"ref: {ref}\nname: {ref}\nversion: {version}\n"}
    for name, (runner, code) in actions.items():
        file = f"{name}.{ {'python': 'py', 'shell': 'sh', 'nodejs': 'js'}[runner] }"
        files[f"actions/{name}.yaml"] = (
            f"ref: {ref}.{name}\nlabel: {name}\nrunner_type: {runner}\nentry_point: {file}\n"
        )
        files[f"actions/{file}"] = code
    return pack_archive(files | (more or {}))


def python_wants(library: str, *versions: str, wanted: str | None = None) -> Files:
    """A manifest that asks for one version of ``library``, and wheels of ``versions`` beside it."""
    files: Files = {f"wheels/{wheel_name(library, version)}": wheel(library, version) for version in versions}
    files["requirements.txt"] = f"--no-index\n--find-links ./wheels\n{library}=={wanted or versions[0]}\n"
    return files


def node_wants(library: str, version: str) -> Files:
    """The same for Node.js: a tarball of the library in the pack."""
    manifest = {"name": "pack", "private": True, "dependencies": {library: f"file:vendor/{library}.tgz"}}
    return {"package.json": json.dumps(manifest), f"vendor/{library}.tgz": npm_tarball(library, version)}


def environment_of(client: AttuneClient, pack_ref: str) -> dict[str, Json]:
    """The one environment of a pack, as ``GET /packs/{ref}`` shows it."""
    (environment,) = client.get_pack(pack_ref)["environments"]
    shown: dict[str, Json] = environment
    return shown


def wait_for_environment(client: AttuneClient, pack_ref: str, state: str) -> dict[str, Json]:
    """The one environment of a pack, once it is in ``state``; fails at once when it ends in another."""

    def look() -> dict[str, Json] | None:
        environment = environment_of(client, pack_ref)
        if environment["state"] not in ("pending", state):
            raise AssertionError(f"the environment of {pack_ref} is {environment['state']}: {environment.get('log')}")
        return environment if environment["state"] == state else None

    found = wait_for(look, timeout=BUILD_TIMEOUT, what=f"the environment of {pack_ref} to be {state}")
    assert found is not None
    return found
