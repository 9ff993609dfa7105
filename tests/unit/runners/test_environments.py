"""Environments, built by real installers under the real sandbox, and run with."""

import ensurepip
import gzip
import hashlib
import importlib.util
import io
import json
import os
import re
import shutil
import tarfile
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from helpers import wheels
from helpers.fixtures import pack_archive
from helpers.wheels import npm_tarball, wheel, wheel_name

from chalicelib.protocol import Build, EnvironmentBuilt, Pack, Run, RunFinished, Upload
from runners import presigned
from runners.handler import Runner

pytestmark = pytest.mark.slow

with_npm = pytest.mark.skipif(
    not (shutil.which("node") and shutil.which("npm")), reason="there is no node and npm here"
)


class _Bucket(BaseHTTPRequestHandler):
    """As much of S3 as a runner sees: objects to get, and a form to post."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.server.objects[self.path])  # type: ignore[attr-defined]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        status = self.server.statuses.pop(0) if self.server.statuses else 204  # type: ignore[attr-defined]
        if status == 204:
            boundary = re.search("boundary=(.+)", self.headers["Content-Type"]).group(1)  # type: ignore[union-attr]
            form = {}
            for part in body.split(f"--{boundary}".encode())[1:-1]:
                head, _, content = part.partition(b"\r\n\r\n")
                name = re.search(rb'name="([^"]+)"', head).group(1)  # type: ignore[union-attr]
                form[name.decode()] = content[:-2]
            self.server.objects["/" + form["key"].decode()] = form["file"]  # type: ignore[attr-defined]
        self.send_response(status)
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


class Platform:
    """A bucket, and a runner that builds from it and runs with what was built."""

    def __init__(self, runner: Runner, server: ThreadingHTTPServer) -> None:
        self.runner = runner
        self.url = f"http://127.0.0.1:{server.server_port}"
        self.objects: dict[str, bytes] = {}
        self.statuses: list[int] = []
        server.objects, server.statuses = self.objects, self.statuses  # type: ignore[attr-defined]

    def pack(self, files: Mapping[str, str | bytes]) -> Pack:
        content = pack_archive({"pack.yaml": "ref: demo", **files})
        digest = hashlib.sha256(content).hexdigest()
        self.objects[f"/{digest}"] = content
        return Pack(ref="demo", content=digest, url=f"{self.url}/{digest}")

    def build(self, pack: Pack, *, runtime: Any = "python", most: int = 1 << 20, timeout: float = 60) -> Any:
        order = Build(
            tenant="acme",
            environment="env",
            attempt=1,
            token="one-time",
            runtime=runtime,
            manifest={"python": "requirements.txt", "node": "package.json"}[runtime],
            pack=pack,
            upload=Upload(url=f"{self.url}/bucket", fields={"key": f"env-{pack.content}"}, most=most),
            timeout=timeout,
        )
        return self.runner.build(order)

    def libraries(self, pack: Pack, built: EnvironmentBuilt) -> Pack:
        return Pack(ref="env", content=built.content, url=f"{self.url}/env-{pack.content}")

    def run(self, pack: Pack, built: EnvironmentBuilt | None, entrypoint: str, runner: Any = "python") -> RunFinished:
        run = Run(
            tenant="acme",
            execution=7,
            attempt=1,
            token="one-time",
            action_ref="demo.it",
            runner=runner,
            entrypoint=entrypoint,
            pack=pack,
            libraries=None if built is None else self.libraries(pack, built),
            timeout=20,
        )
        return self.runner.carry_out(run)


@pytest.fixture
def platform(runner: Runner) -> Iterator[Platform]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Bucket) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield Platform(runner, server)
        server.shutdown()
        thread.join()


SHOW = "import colorlib, sys; print(colorlib.VERSION, colorlib.__file__.startswith(sys.path[-1]))"


def wants(version: str, **more: str) -> dict[str, str | bytes]:
    return {
        "requirements.txt": f"--no-index\n--find-links ./wheels\ncolorlib=={version}\n",
        f"wheels/{wheel_name('colorlib', version)}": wheel("colorlib", version),
        "actions/show.py": SHOW,
        **more,
    }


def test_two_versions_of_one_library_take_turns(platform: Platform) -> None:
    one, two = platform.pack(wants("1.0")), platform.pack(wants("2.0"))
    built = {pack.content: platform.build(pack) for pack in (one, two)}
    assert all(each.ready for each in built.values()), built

    for pack, version in ((one, "1.0"), (two, "2.0"), (one, "1.0"), (two, "2.0")):
        finished = platform.run(pack, built[pack.content], "show.py")
        assert finished.result.get("stdout") == f"{version} True\n", finished.result


def test_what_is_built_holds_compiled_modules_and_nothing_of_time_or_place(platform: Platform) -> None:
    pack = platform.pack(wants("1.0"))
    first, second = platform.build(pack), platform.build(pack)
    assert first.content == second.content, "the same manifest gives the same bytes"
    assert first.runtime_version.startswith("Python 3.")
    stored = platform.objects[f"/env-{pack.content}"]
    assert (hashlib.sha256(stored).hexdigest(), len(stored)) == (first.content, first.size)
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(stored))) as archive:
        compiled = next(name for name in archive.getnames() if name.endswith(".pyc"))
        flags = archive.extractfile(compiled).read()[4:8]  # type: ignore[union-attr]
    assert flags == b"\x01\0\0\0", "unchecked: it counts whatever the source's time is (PEP 552)"


def test_an_environment_comes_behind_the_standard_library(platform: Platform) -> None:
    shadow = {f"wheels/{wheel_name('json', '1.0')}": wheel("json", "1.0")}
    files: dict[str, str | bytes] = {
        "requirements.txt": "--no-index\n-f wheels\njson==1.0\n",
        "actions/show.py": "import json; print(json.dumps(1))",
        **shadow,
    }
    pack = platform.pack(files)
    assert platform.run(pack, platform.build(pack), "show.py").result.get("stdout") == "1\n"


def test_interpreters_that_an_action_starts_find_its_libraries(platform: Platform) -> None:
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import colorlib; print(colorlib.VERSION)'])"
    pack = platform.pack(wants("1.0", **{"actions/show.py": code}))
    assert platform.run(pack, platform.build(pack), "show.py").result.get("stdout") == "1.0\n"


def test_a_library_that_nobody_asked_for_is_an_execution_that_failed(platform: Platform) -> None:
    pack = platform.pack({"actions/show.py": "import colorlib"})
    finished = platform.run(pack, None, "show.py")
    assert finished.status == "failed"
    assert "ModuleNotFoundError: No module named 'colorlib'" in finished.result["error"]


def test_an_installer_that_fails_says_why(platform: Platform) -> None:
    pack = platform.pack({"requirements.txt": "--no-index\n--find-links ./wheels\nnosuch==1.0\n"})
    built = platform.build(pack)
    assert not built.ready
    assert "No matching distribution found for nosuch==1.0" in built.log
    assert "the installer ended with code 1" in built.log
    assert f"/env-{pack.content}" not in platform.objects


def test_wheels_of_the_pack_come_before_any_index(platform: Platform) -> None:
    files = wants("1.0")
    files["requirements.txt"] = "--index-url http://127.0.0.1:9/\n--find-links ./wheels\ncolorlib>=0.1\n"
    assert platform.build(platform.pack(files)).ready, "nothing listens there, and nothing is asked"


def test_a_local_package_is_built_by_what_it_brings_along(platform: Platform) -> None:
    backend = """
import os, sys
sys.path.insert(0, os.path.dirname(__file__))
import wheel_for_tests
def build_wheel(folder, settings=None, metadata=None):
    name = wheel_for_tests.wheel_name("own", "1.0")
    open(os.path.join(folder, name), "wb").write(wheel_for_tests.wheel("own", "1.0"))
    return name
"""
    files: dict[str, str | bytes] = {
        "requirements.txt": "--no-index\n./own\n",
        "own/pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
        "own/backend.py": backend,
        "own/wheel_for_tests.py": Path(wheels.__file__).read_text("utf-8"),
        "actions/show.py": "import own; print(own.VERSION)",
    }
    pack = platform.pack(files)
    built = platform.build(pack)
    assert built.ready, built.log
    assert platform.run(pack, built, "show.py").result.get("stdout") == "1.0\n"


def test_a_build_is_confined_like_an_action(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary-4711")
    backend = """
import os, pathlib
def build_wheel(folder, settings=None, metadata=None):
    seen = dict(os.environ)
    for path in pathlib.Path("/proc").glob("[0-9]*/environ"):
        try:
            seen[str(path)] = path.read_text()
        except OSError:
            pass
    raise SystemExit("found the canary" if "canary-4711" in repr(seen) else f"nothing found as user {os.getuid()}")
"""
    files: dict[str, str | bytes] = {
        "requirements.txt": "--no-index\n./own\n",
        "own/pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
        "own/backend.py": backend,
    }
    built = platform.build(platform.pack(files))
    assert "nothing found as user" in built.log, built.log
    if os.geteuid() == 0:
        assert "as user 0" not in built.log


def test_a_build_that_takes_too_long_is_stopped(platform: Platform) -> None:
    files: dict[str, str | bytes] = {
        "requirements.txt": "--no-index\n./own\n",
        "own/pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
        "own/backend.py": "import time\ntime.sleep(600)\n",
    }
    built = platform.build(platform.pack(files), timeout=3)
    assert not built.ready
    assert "stopped after 3 seconds" in built.log


def test_an_environment_that_is_too_large_is_refused(platform: Platform) -> None:
    noise = {f"big{n}.py": f"X = '{os.urandom(60_000).hex()}'" for n in range(10)}
    files: dict[str, str | bytes] = {
        "requirements.txt": "--no-index\n-f wheels\nbig==1.0\n",
        f"wheels/{wheel_name('big', '1.0')}": wheel("big", "1.0", noise),
    }
    built = platform.build(platform.pack(files), most=1 << 18)
    assert not built.ready
    assert "takes more than 0 MB packed" in built.log


def test_storing_survives_a_hiccup_and_gives_up(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runners.presigned.time.sleep", lambda _: None)
    target = Upload(url=f"{platform.url}/bucket", fields={"key": "it"}, most=100)
    platform.statuses[:] = [503]
    presigned.upload(target, io.BytesIO(b"bytes"), 5)
    assert platform.objects["/it"] == b"bytes"
    platform.statuses[:] = [403] * 3
    with pytest.raises(OSError, match="status 403"):
        presigned.upload(target, io.BytesIO(b"bytes"), 5)


def test_the_pip_that_python_brings_will_do(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "pip" else found(name))
    if not [*Path(ensurepip.__file__).with_name("_bundled").glob("pip-*.whl")]:
        pytest.skip("this Python brings none")
    built = platform.build(platform.pack(wants("1.0")))
    assert built.ready, built.log


def test_no_pip_is_a_failure_that_says_so(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    built = platform.build(platform.pack(wants("1.0")))
    assert (built.ready, built.log) == (False, "there is no `pip` where environments are built")


def node_pack(version: str, **more: str | bytes) -> dict[str, str | bytes]:
    return {
        "package.json": json.dumps({"name": "demo", "dependencies": {"colorlib": "file:vendor/colorlib.tgz"}}),
        "vendor/colorlib.tgz": npm_tarball("colorlib", version),
        "actions/show.js": "console.log(require('colorlib').version)",
        "actions/show.mjs": "import colorlib from 'colorlib'; console.log(colorlib.version)",
        **more,
    }


@with_npm
@pytest.mark.parametrize("entrypoint", ["show.js", "show.mjs"])
def test_node_packs_have_versions_of_their_own(platform: Platform, entrypoint: str) -> None:
    one, two = platform.pack(node_pack("1.0.0")), platform.pack(node_pack("2.0.0"))
    built = {pack.content: platform.build(pack, runtime="node") for pack in (one, two)}
    assert all(each.ready for each in built.values()), built
    for pack, version in ((one, "1.0.0"), (two, "2.0.0"), (one, "1.0.0")):
        finished = platform.run(pack, built[pack.content], entrypoint, "node")
        assert finished.result.get("stdout") == f"{version}\n", finished.result


@with_npm
def test_a_folder_of_the_pack_can_be_a_node_module(platform: Platform) -> None:
    files = node_pack("1.0.0")
    files["package.json"] = json.dumps({"name": "demo", "dependencies": {"colorlib": "file:local"}})
    files["local/package.json"] = json.dumps({"name": "colorlib", "version": "3.0.0"})
    files["local/index.js"] = "exports.version = 'local'"
    pack = platform.pack(files)
    built = platform.build(pack, runtime="node")
    assert built.ready, built.log
    assert platform.run(pack, built, "show.js", "node").result.get("stdout") == "local\n"


@with_npm
def test_npm_that_fails_says_why(platform: Platform) -> None:
    files: dict[str, str | bytes] = {"package.json": json.dumps({"dependencies": {"x": "file:vendor/none.tgz"}})}
    built = platform.build(platform.pack(files), runtime="node")
    assert not built.ready
    assert "none.tgz" in built.log
