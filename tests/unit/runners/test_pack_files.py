"""Packs on the runner's disk."""

import hashlib
import io
import os
import stat
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from chalicelib.protocol import Pack, RunFinished
from runners import pack_files
from runners.handler import Runner
from runners.pack_files import NoSuchFileError, PackFiles, PackUnavailableError, action_file

Carry = Callable[..., RunFinished]


def archive(**files: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(name.replace("__", "/").replace("_dot_", "."))
            member.size, member.mode = len(text), 0o755
            tar.addfile(member, io.BytesIO(text.encode()))
    return buffer.getvalue()


DEMO = archive(
    pack_dot_yaml="ref: demo",
    actions__greet_dot_py="import helper, os\nprint(helper.word, os.path.exists('pack.yaml'))",
    actions__helper_dot_py="word = 'hello'",
    actions__greet_dot_sh="pwd >/dev/null; cat; ls",
)


class Store:
    """Where presigned URLs point; the URL is the name."""

    def __init__(self, **archives: bytes) -> None:
        self.archives = archives
        self.asked: list[str] = []

    def __call__(self, url: str) -> bytes:
        self.asked.append(url)
        return self.archives[url]


def pack(content: bytes, url: str = "demo") -> Pack:
    return Pack(ref="demo", content=hashlib.sha256(content).hexdigest(), url=url)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    base = tmp_path / "runner"
    base.mkdir()
    return base


def test_a_pack_is_fetched_once_per_content_and_tenant(base: Path) -> None:
    store = Store(demo=DEMO)
    packs = PackFiles(base, store)

    first = packs.folder("acme", pack(DEMO))
    assert packs.folder("acme", pack(DEMO)) == first
    assert packs.folder("globex", pack(DEMO)) != first
    assert store.asked == ["demo", "demo"]


def test_another_archive_than_the_one_asked_for_is_refused(base: Path) -> None:
    with pytest.raises(PackUnavailableError, match="not the one"):
        PackFiles(base, Store(demo=DEMO + b" ")).folder("acme", pack(DEMO))


@pytest.mark.parametrize("name", ["../outside", "/etc/outside"])
def test_nothing_is_unpacked_outside(base: Path, name: str) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        tar.addfile(tarfile.TarInfo(name))
    content = buffer.getvalue()
    packs = PackFiles(base, Store(demo=content))

    with pytest.raises(PackUnavailableError, match="does not lie in the pack"):
        packs.folder("acme", pack(content))
    assert not Path("/etc/outside").exists()
    assert [path.name for path in base.iterdir()] == ["packs"]


def test_a_pack_that_is_no_archive_is_refused(base: Path) -> None:
    with pytest.raises(PackUnavailableError):
        PackFiles(base, Store(demo=b"hello")).folder("acme", pack(b"hello"))


def test_files_are_readable_for_the_tenant_and_writable_for_nobody(base: Path) -> None:
    packs = PackFiles(base, Store(demo=DEMO))
    folder = packs.folder("acme", pack(DEMO))
    group = packs.group("acme")

    for path in (folder, *folder.rglob("*")):
        status = path.stat()
        assert stat.S_IMODE(status.st_mode) in (0o550, 0o440)
        assert group is None or (status.st_uid, status.st_gid) == (0, group)


def test_the_oldest_pack_makes_room(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack_files, "MAX_KEPT", 2)
    contents = {str(n): archive(number=str(n)) for n in range(3)}
    packs = PackFiles(base, Store(**contents))
    folders = [packs.folder("acme", pack(content, url)) for url, content in contents.items()]

    assert [folder.exists() for folder in folders] == [False, True, True]


def test_the_oldest_tenant_makes_room_with_all_it_had(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack_files, "MAX_TENANTS", 2)
    packs = PackFiles(base, Store(demo=DEMO))
    folders = [packs.folder(tenant, pack(DEMO)) for tenant in ("a", "b", "c")]

    assert [folder.exists() for folder in folders] == [False, True, True]
    assert packs.group("b") != packs.group("c") or packs.group("b") is None


def test_a_pack_that_somebody_changed_is_fetched_again(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PackFiles, "group", lambda *_: None)  # as where executions run as our own user
    store = Store(demo=DEMO)
    packs = PackFiles(base, store)
    folder = packs.folder("acme", pack(DEMO))
    changed = folder / "actions" / "helper.py"
    times = changed.stat()
    changed.parent.chmod(0o700)
    changed.chmod(0o600)
    changed.write_text("word = 'owned'", encoding="utf-8")
    os.utime(changed, ns=(times.st_atime_ns, times.st_mtime_ns))

    again = packs.folder("acme", pack(DEMO))

    assert (again / "actions" / "helper.py").read_text(encoding="utf-8") == "word = 'hello'"
    assert len(store.asked) == 2


@pytest.mark.parametrize("entrypoint", ["greet.py", "actions/greet.py", "pack.yaml"])
def test_an_action_is_found_below_actions_or_from_the_root(base: Path, entrypoint: str) -> None:
    folder = PackFiles(base, Store(demo=DEMO)).folder("acme", pack(DEMO))

    assert action_file(folder, "demo", entrypoint).is_relative_to(folder)


@pytest.mark.parametrize(
    "entrypoint", ["nosuch.py", "../../etc/passwd", "/etc/passwd", "", ".", "actions", "a/../../../x"]
)
def test_no_action_is_found_elsewhere(base: Path, entrypoint: str) -> None:
    folder = PackFiles(base, Store(demo=DEMO)).folder("acme", pack(DEMO))

    with pytest.raises(NoSuchFileError, match="pack demo has no file"):
        action_file(folder, "demo", entrypoint)


class _Archives(BaseHTTPRequestHandler):
    statuses: list[int] = []  # noqa: RUF012  # to answer first
    content = DEMO

    def do_GET(self) -> None:
        status = self.statuses.pop(0) if self.statuses else 200
        self.send_response(status)
        self.end_headers()
        self.wfile.write(self.content if status == 200 else b"")

    def log_message(self, *_: object) -> None: ...


@contextmanager
def _served() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Archives) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/demo.tar.gz"
        server.shutdown()
        thread.join()


@pytest.fixture
def url() -> Iterator[str]:
    with _served() as url:
        yield url


def test_fetching_survives_a_hiccup(url: str) -> None:
    _Archives.statuses = [503, 500]

    assert pack_files.fetch_archive(url) == DEMO


def test_fetching_gives_up(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _Archives.statuses = [403] * 3
    monkeypatch.setattr("time.sleep", lambda _: None)

    with pytest.raises(PackUnavailableError, match="cannot be fetched"):
        pack_files.fetch_archive(url)


def test_actions_run_from_the_pack_with_its_modules(runner: Runner, carry_out: Carry, url: str) -> None:
    given = pack(DEMO, url)

    greeted = carry_out("python", "greet.py", pack=given)
    assert greeted.result.get("stdout") == "hello True\n", greeted.result

    shell = carry_out("shell", "greet.sh", pack=given, parameters={"a": 1})
    assert shell.result["stdout"] == '{"a":1}\nactions\npack.yaml\n'

    missing = carry_out("shell", "nosuch.sh", pack=given)
    assert missing.result == {"succeeded": False, "error": "pack demo has no file actions/nosuch.sh"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can keep tenants' files apart")
def test_the_packs_of_another_tenant_are_closed(runner: Runner, carry_out: Carry, url: str) -> None:
    theirs = runner._packs.folder("globex", pack(DEMO, url))
    code = f"cat {theirs}/actions/greet.py; ls {theirs} {theirs.parent}"

    finished = carry_out("shell", code)

    assert finished.result["stdout"] == ""
    assert finished.status == "failed"


def test_a_pack_cannot_be_changed_by_its_action(carry_out: Carry, monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        'chmod -R u+w .; for f in "$0" actions/new pack.yaml; do echo "echo changed" >> $f; done; rm -rf pack.yaml; ls'
    )
    content = archive(pack_dot_yaml="ref: demo", actions__change_dot_sh=code)
    monkeypatch.setattr(_Archives, "content", content)
    with _served() as url:
        said = [carry_out("shell", "change.sh", pack=pack(content, url)).result["stdout"] for _ in range(2)]

    # Where the action is our own user it can, for itself: the next one gets the pack as it was.
    assert said[0] == said[1]
    assert "changed" not in said[1]
