"""The folder that runs share, with real processes and S3's part played by a dictionary."""

import gzip
import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest

from chalicelib.protocol import Artifacts, RunFinished, Upload
from runners import artifacts, presigned
from runners.artifacts import ArtifactsError, SharedFolder
from runners.sandbox import Sandbox

Carry = Callable[..., RunFinished]


class Bucket:
    """What has been stored, in order; a number is its URL."""

    def __init__(self) -> None:
        self.archives: list[bytes] = []
        self.gets = 0
        self.room = 10_000_000

    def given(self, *numbers: int) -> Artifacts:
        chosen = numbers or range(len(self.archives))
        return Artifacts(archives=[str(n) for n in chosen], upload=Upload(url="up", fields={}, most=self.room))

    def get(self, url: str, most: int) -> bytes | None:
        self.gets += 1
        return self.archives[int(url)] if int(url) < len(self.archives) else None

    def put(self, target: Upload, file: IO[bytes], size: int) -> None:
        self.archives.append(file.read())
        assert len(self.archives[-1]) == size

    def members(self, number: int = -1) -> list[str]:
        with tarfile.open(fileobj=io.BytesIO(self.archives[number])) as archive:
            return [("-" if member.ischr() else "") + member.name for member in archive]


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Bucket:
    bucket = Bucket()
    monkeypatch.setattr(presigned, "get", bucket.get)
    monkeypatch.setattr(presigned, "upload", bucket.put)
    return bucket


@pytest.fixture
def sh(carry_out: Carry, bucket: Bucket) -> Carry:
    def sh(code: str, *numbers: int, **fields: object) -> RunFinished:
        return carry_out("shell", f"cd $ATTUNE_ARTIFACTS_DIR\n{code}", artifacts=bucket.given(*numbers), **fields)

    return sh


def test_one_leaves_what_the_next_finds(sh: Carry, carry_out: Carry, bucket: Bucket) -> None:
    first = sh("mkdir -p a/b; echo one > a/b/file; echo '#!/bin/sh' > run; chmod +x run")
    code = """
import os
os.chdir(os.environ['ATTUNE_ARTIFACTS_DIR'])
print(open('a/b/file').read().strip(), os.access('run', os.X_OK), sorted(os.listdir()))
open('a/b/more', 'w').write('two')
"""
    second = carry_out("python", code, artifacts=bucket.given())
    third = sh("cat a/b/*")

    assert second.result["stdout"] == "one True ['a', 'run']\n"
    assert third.result["stdout"] == "one\ntwo"
    assert bucket.members(1) == ["a/b/more"], "only the difference travels"
    assert [first.artifacts, second.artifacts, third.artifacts] == [*map(len, bucket.archives), 0]


def test_who_changes_nothing_makes_no_call(sh: Carry, bucket: Bucket) -> None:
    assert sh("ls").artifacts == 0
    assert (bucket.gets, bucket.archives) == (0, [])


def test_runs_side_by_side_merge_and_the_last_writer_wins(sh: Carry, bucket: Bucket) -> None:
    sh("echo 0 > kept; echo 0 > both")
    sh("echo 1 > one; echo 1 > both", 0)
    sh("echo 2 > two; echo 2 > both", 0)

    assert sh("grep . *").result["stdout"].split() == ["both:2", "kept:0", "one:1", "two:2"]


def test_what_is_removed_is_gone(sh: Carry, bucket: Bucket) -> None:
    sh("mkdir d; echo 1 > d/x; echo 1 > d/y; echo 1 > z")
    sh("rm -r d; rm z; echo 2 > d", 0)

    assert sorted(bucket.members()) == ["-d/x", "-d/y", "-z", "d"]
    assert sh("cat d; ls").result["stdout"] == "2\nd\n"


def test_a_change_that_keeps_the_size_counts(sh: Carry) -> None:
    sh("printf aa > f")
    sh("printf bb > f")

    assert sh("cat f").result["stdout"] == "bb"


def test_several_archives_in_one_are_read(sh: Carry, bucket: Bucket) -> None:
    sh("echo 1 > a; echo 1 > gone")
    sh("echo 2 > a; rm gone")
    bucket.archives = [bucket.archives[0] + bucket.archives[1]]

    assert sh("cat a; ls").result["stdout"] == "2\na\n"


def test_links_devices_and_pipes_stay_behind(sh: Carry, bucket: Bucket) -> None:
    sh("echo x > file; ln -s /etc/passwd link; ln -s /etc out; mkfifo pipe; mkdir d; ln -s ../file d/in")

    assert sorted(bucket.members()) == ["d", "file"]


def test_what_it_has_shut_itself_out_of_is_no_obstacle(sh: Carry, bucket: Bucket) -> None:
    sh("mkdir d; echo x > d/f; chmod 000 d/f d")

    assert sh("cat d/f").result["stdout"] == "x\n"


def test_a_failed_run_leaves_its_part_and_one_that_was_cut_off_does_not(sh: Carry, bucket: Bucket) -> None:
    failed = sh("echo x > f; exit 3")
    late = sh("echo y > g; sleep 30", timeout=0.5)

    assert (failed.status, bool(failed.artifacts)) == ("failed", True)
    assert (late.timed_out, late.artifacts) == (True, 0)
    assert bucket.members() == ["f"]


def test_too_much_is_a_failure_that_says_so(sh: Carry, bucket: Bucket) -> None:
    bucket.room = 10_000

    result = sh("head -c 50000 /dev/urandom > f; echo done").result

    assert (result["succeeded"], result["stdout"]) == (False, "done\n")
    assert "has room for 10000 more" in result["error"]
    assert bucket.archives == []


def test_too_many_files_are_a_failure_that_says_so(sh: Carry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifacts, "MAX_FILES", 5)

    assert sh("touch 1 2 3 4 5 6").result["error"] == "the artifacts are more than 5 files"


def test_the_disk_is_not_filled_by_way_of_it(sh: Carry, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runners.confinement.DISK", 1024 * 1024)

    result = sh("head -c 3000000 /dev/zero > f; sleep 30").result

    assert "filled its disk" in result["error"]


def test_what_has_expired_is_a_failure_that_says_so(sh: Carry) -> None:
    assert "have expired" in sh("ls", 5).result["error"]


def test_s3_out_of_reach_costs_the_result_its_success(sh: Carry, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("no route")

    monkeypatch.setattr(presigned, "upload", fail)

    result = sh("echo x > f").result

    assert (result["succeeded"], result["error"]) == (False, "the artifacts could not be stored")


def test_nothing_of_it_stays_on_the_machine(sh: Carry, sandbox: Sandbox) -> None:
    before = set(sandbox.base.iterdir())

    sh("mkdir d; echo x > d/f; chmod 000 d")

    assert set(sandbox.base.iterdir()) == before


def test_another_run_cannot_look_into_it(carry_out: Carry, bucket: Bucket, sandbox: Sandbox) -> None:
    bucket.archives.append(archive_of({"secret": b"x"}))
    elsewhere = SharedFolder(sandbox.base, bucket.given(), bucket.get, bucket.put)
    try:
        tried = carry_out("shell", f"cat {elsewhere.path}/secret || ls {elsewhere.path} || true")
        assert tried.result["stdout"] == ""
    finally:
        elsewhere.remove()


@pytest.mark.parametrize("name", ["../out", "/tmp/out", "a/../../out", "."])
def test_no_archive_leads_out(tmp_path: Path, bucket: Bucket, name: str) -> None:
    bucket.archives.append(archive_of({name: b"x"}))

    with pytest.raises(ArtifactsError, match="does not lie in the folder"):
        SharedFolder(tmp_path, bucket.given(), bucket.get, bucket.put)

    assert list(tmp_path.iterdir()) == []


def test_no_archive_goes_through_a_link(tmp_path: Path, bucket: Bucket) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    link = tarfile.TarInfo("way")
    link.type, link.linkname = tarfile.SYMTYPE, str(outside)
    bucket.archives.append(archive_of({"way/in": b"x"}, link))

    folder = SharedFolder(tmp_path, bucket.given(), bucket.get, bucket.put)

    assert list(outside.iterdir()) == []
    assert (folder.path / "way" / "in").read_bytes() == b"x"


@pytest.mark.parametrize("content", [b"", b"no gzip", gzip.compress(b"x" * 20, mtime=0)[:-4]])
def test_what_is_no_archive_is_a_clear_failure(tmp_path: Path, bucket: Bucket, content: bytes) -> None:
    bucket.archives.append(content)

    with pytest.raises(ArtifactsError, match="cannot be read"):
        SharedFolder(tmp_path, bucket.given(), bucket.get, bucket.put)


def test_a_bomb_is_not_unpacked(tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifacts, "MAX_CONTENT", 1_000_000)
    bucket.archives.append(archive_of({"bomb": b"\0" * 2_000_000}))

    with pytest.raises(ArtifactsError, match="more than 0 MB or 10000 files"):
        SharedFolder(tmp_path, bucket.given(), bucket.get, bucket.put)


def archive_of(files: dict[str, bytes], *first: tarfile.TarInfo) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for member in first:
            archive.addfile(member)
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()
