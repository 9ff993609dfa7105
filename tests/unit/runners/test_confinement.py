"""Escape attempts: each contained, each with a clear result."""

import contextlib
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from chalicelib.protocol import RunFinished
from runners import confinement, kernel
from runners.sandbox import FOLDER, Job, Sandbox

Carry = Callable[..., RunFinished]

ROOT = os.geteuid() == 0
linux = pytest.mark.skipif(not kernel.LINUX, reason="what is tested is Linux's")
CONFINED = ROOT or kernel.landlock_version() > 0
confined = pytest.mark.skipif(not CONFINED, reason="neither root nor Landlock: the process is all there is")


@linux
@pytest.mark.parametrize("what", ["environ", "mem", "maps", "fd/0", "cwd", "root", "auxv"])
def test_neither_the_runner_nor_the_zygote_can_be_read(carry_out: Carry, sandbox: Sandbox, what: str) -> None:
    kernel.set_dumpable(on=False)  # as the handler does when it is imported
    code = f"""
import os
def read(path):
    return open(path, 'rb').read(16)
for pid in ({os.getpid()}, {sandbox._zygote.pid}):
    path = f'/proc/{{pid}}/{what}'
    try:
        look = {{'fd/0': os.readlink, 'cwd': os.readlink, 'root': os.readlink}}.get('{what}', read)
        print('READ', path, look(path))
    except OSError:
        print('refused')
"""
    assert carry_out("python", code).result["stdout"] == "refused\nrefused\n"


@linux
def test_it_has_no_descriptor_but_its_own_streams(carry_out: Carry) -> None:
    code = """
import os
names = sorted(os.listdir('/proc/self/fd'))
print([os.readlink(f'/proc/self/fd/{name}').split(':')[0] for name in names[:3]], len(names))
"""
    # The fourth is the folder that is being read.
    assert carry_out("python", code).result["stdout"] == "['pipe', 'pipe', 'pipe'] 4\n"


SCAN = """
import re
found = set()
with open('/proc/self/mem', 'rb', 0) as memory:
    for line in open('/proc/self/maps'):
        area, rights = line.split()[:2]
        if rights[0] != 'r' or '[v' in line: continue
        start, end = (int(edge, 16) for edge in area.split('-'))
        memory.seek(start)
        try: found.update(re.findall(rb'canary-[0-9a-f]{16}', memory.read(end - start)))
        except OSError: continue
print(len(found))
"""


@linux
def test_its_memory_holds_nothing_of_the_execution_before(carry_out: Carry) -> None:
    canary = "canary-" + "7f3a" * 4
    with_it = {"parameters": {"key": canary}, "environment": {"KEY": canary}}

    assert carry_out("python", SCAN, **with_it).result["stdout"] == "1\n"
    assert carry_out("python", SCAN).result["stdout"] == "0\n"


@confined
def test_signals_do_not_reach_the_platform(carry_out: Carry, sandbox: Sandbox) -> None:
    code = f"""
import os
for pid in ({os.getpid()}, {sandbox._zygote.pid}):
    try: os.kill(pid, 0); print('REACHED', pid)
    except (PermissionError, ProcessLookupError): print('refused')
"""
    assert carry_out("python", code).result["stdout"] == "refused\nrefused\n"


@confined
def test_it_writes_in_its_own_folder_only(carry_out: Carry, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    places = [str(tmp_path), str(Path(__file__).parent), "/", "/etc", "/usr/local/bin", sys.base_prefix, "/var/lib"]
    code = f"""
import os
for place in {places!r}:
    try: open(os.path.join(place, 'attune-was-here'), 'w').close(); print('WROTE', place)
    except OSError: pass
open(os.path.join(os.environ['HOME'], 'mine'), 'w').write('x')
open(os.path.join(os.environ['ATTUNE_ARTIFACTS_DIR'], 'mine'), 'w').write('x')
print('done')
"""
    assert carry_out("python", code).result["stdout"] == "done\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not ROOT, reason="only root can have other users")
def test_executions_are_users_of_their_own(carry_out: Carry) -> None:
    first, second = (carry_out("shell", "id -u; id -g; id -G").result["stdout"].split() for _ in range(2))

    if first[0] == "0":
        pytest.skip("root may not mount here, and its Python is closed to others")
    assert first[0] != second[0]
    assert "0" not in first + second
    assert first[1] == second[1]
    assert carry_out("shell", "id -g", tenant="another").result["stdout"].strip() != first[1]


@pytest.mark.skipif(not ROOT, reason="only root has files to keep to itself")
def test_the_platforms_files_are_closed(carry_out: Carry, tmp_path: Path) -> None:
    secret = tmp_path / "state"
    secret.write_text("master key", encoding="utf-8")
    secret.chmod(0o600)

    finished = carry_out("shell", f"cat {shlex.quote(str(secret))} /etc/shadow /root/.aws/credentials 2>/dev/null")

    assert finished.result["stdout"] == ""
    assert finished.status == "failed"


@linux
def test_set_user_id_programs_give_nothing(carry_out: Carry) -> None:
    assert carry_out("shell", "grep NoNewPrivs /proc/self/status").result["stdout"].split() == ["NoNewPrivs:", "1"]


@linux
def test_it_has_no_capabilities(carry_out: Carry) -> None:
    lines = carry_out("shell", "grep -E 'Cap(Eff|Prm)' /proc/self/status").result["stdout"].splitlines()

    assert [int(line.split()[1], 16) for line in lines] == [0, 0]


@linux
def test_a_fork_bomb_ends_with_its_execution(carry_out: Carry, sandbox: Sandbox) -> None:
    finished = carry_out("shell", "bomb() { bomb | bomb & }; bomb 2>/dev/null; sleep 60", timeout=1.0)

    assert finished.timed_out or finished.status == "failed"
    assert finished.duration_ms < 10_000
    assert _children_of(sandbox._zygote.pid) == []
    assert carry_out("python", "print('well')").result["stdout"] == "well\n"


@linux
def test_a_family_that_leaves_its_group_is_found(carry_out: Carry, sandbox: Sandbox) -> None:
    code = """
import os, time
for _ in range(20):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.setsid()
            for n in range(3): os.close(n)
            time.sleep(300)
        os._exit(0)
"""
    assert carry_out("python", code).status == "completed"
    assert _children_of(sandbox._zygote.pid) == []


def _children_of(parent: int) -> list[str]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(stat.read_text(encoding="utf-8").rpartition(")")[2].split()[1]) == parent:
                found.append(stat.parent.name)
    return found


@linux
def test_the_disk_cannot_be_filled(carry_out: Carry) -> None:
    code = 'for i in $(seq 40); do head -c 20000000 /dev/zero > "$HOME/$i" || exit 5; sleep 0.02; done; echo all of it'
    finished = carry_out("shell", code, timeout=60.0)

    assert finished.status == "failed"
    error = finished.result["error"] + finished.result.get("stderr", "")
    assert "No space left on device" in error or "filled its disk space" in error


@linux
def test_memory_has_an_end(sandbox: Sandbox) -> None:
    code = {"a.py": "x = bytearray(400_000_000)"}
    job = Job(command=[f"{FOLDER}/a.py"], in_process=True, files=code, memory=200 * 1024 * 1024)
    ended = sandbox.run(job, b"", timeout=20)

    assert ended.exit_code == 1
    assert b"MemoryError" in ended.stderr.head


@linux
def test_a_folder_that_is_too_full_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confinement, "DISK", 100_000)
    monkeypatch.setattr(confinement, "FILES", 10)
    assert confinement.fits(tmp_path.as_posix())

    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "big").write_bytes(b"x" * 200_000)
    hidden.chmod(0o000)
    assert not confinement.fits(tmp_path.as_posix())

    (hidden / "big").unlink()
    assert confinement.fits(tmp_path.as_posix())
    for number in range(10):
        (hidden / str(number)).touch()
    assert not confinement.fits(tmp_path.as_posix())


def test_only_what_everybody_may_read_is_open_to_all(tmp_path: Path) -> None:
    for folder, mode in (("open", 0o755), ("mixed", 0o755), ("closed", 0o700)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "file").touch(0o644)
        (tmp_path / folder).chmod(mode)
    (tmp_path / "mixed" / "shadow").touch(0o640)
    (tmp_path / "link").symlink_to(tmp_path / "closed")
    tmp_path.chmod(0o755)

    found = confinement.open_to_all(str(tmp_path))

    assert sorted(Path(path).relative_to(tmp_path).as_posix() for path in found) == ["mixed/file", "open"]


def test_a_tenants_group_is_its_own_and_a_runners(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confinement, "own_ids", lambda: range(1 << 30, (1 << 31) - 1))

    groups = {confinement.group_of_tenant(runner, tenant) for runner in (1, 2, 4_194_303) for tenant in range(256)}

    assert len(groups) == 3 * 256
    assert max(group for group in groups if group is not None) < 1 << 31
