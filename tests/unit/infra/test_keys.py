"""The embedded AWS's access keys: drawn once, kept closed, printed nowhere."""

import re
import subprocess
from pathlib import Path

import pytest

from infra.local import keys, stack
from infra.local.stack import StartError


def test_a_folder_keeps_its_key_to_itself(tmp_path: Path) -> None:
    first = keys.kept_in(tmp_path / "aws.env", "us-east-1")
    assert keys.kept_in(tmp_path / "aws.env", "us-east-1") == first
    assert (tmp_path / "aws.env").stat().st_mode & 0o777 == 0o600
    assert keys.kept_in(tmp_path / "other.env", "us-east-1").id != first.id


def test_an_opened_file_is_closed_again_and_half_a_file_is_written_anew(tmp_path: Path) -> None:
    path = tmp_path / "aws.env"
    first = keys.kept_in(tmp_path / "aws.env", "us-east-1")
    path.chmod(0o644)
    keys.kept_in(tmp_path / "aws.env", "us-east-1")
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_text("export AWS_ACCESS_KEY_ID=")
    assert keys.kept_in(tmp_path / "aws.env", "us-east-1") != first


def test_a_shell_can_source_the_file(tmp_path: Path) -> None:
    key = keys.kept_in(tmp_path / "aws.env", "eu-central-1")
    said = subprocess.run(
        ["sh", "-c", '. "$0" && env', tmp_path / "aws.env"], capture_output=True, text=True, check=True, env={}
    ).stdout.splitlines()
    assert f"AWS_ACCESS_KEY_ID={key.id}" in said
    assert f"AWS_SECRET_ACCESS_KEY={key.secret}" in said
    assert "AWS_DEFAULT_REGION=eu-central-1" in said


def test_a_key_looks_like_awss_and_shows_no_secret() -> None:
    key = keys.draw()
    assert re.fullmatch(r"AKIA[A-Z2-7]{16}", key.id)
    assert len(key.secret) == 40
    assert key.secret not in repr(key)


def test_a_sender_has_one_key_per_queue() -> None:
    known = keys.Keys(keys.draw())
    key = known.sender("http://q/1")
    assert known.sender("http://q/1") == key != known.sender("http://q/2")
    assert known.find(key.id) == (key, "http://q/1")
    assert known.find(known.own.id) == (known.own, None)
    assert known.find("000000000000") is None


def test_the_state_folder_is_closed_to_others(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir(mode=0o755)
    with stack._claimed(folder):
        assert folder.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_everybody_uses_is_no_state_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    with pytest.raises(StartError, match="not this user's alone"), stack._claimed(tmp_path):
        pass
    assert tmp_path.stat().st_mode & 0o7777 == 0o1777
