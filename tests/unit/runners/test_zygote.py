"""What the zygote clears away."""

import os
from pathlib import Path

import pytest

from runners import confinement, zygote


def test_a_tree_is_removed_whatever_was_made_of_it(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    before = os.open(".", os.O_RDONLY)
    try:
        tree.mkdir()
        os.chdir(tree)
        for _ in range(60):
            Path("x" * 200).mkdir()  # longer together than a path may be: step by step it goes
            os.chdir("x" * 200)
    finally:
        os.fchdir(before)
        os.close(before)
    closed = tree / "closed"
    closed.mkdir()
    (closed / "file").touch()
    closed.chmod(0o000)
    target = tmp_path / "target"
    target.mkdir()
    (target / "file").touch()
    (tree / "link").symlink_to(target)

    zygote.remove_tree(str(tree))

    assert not tree.exists()
    assert (target / "file").exists()


def test_a_link_is_removed_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "target")

    zygote.remove_tree(str(tmp_path / "link"))
    zygote.remove_tree(str(tmp_path / "nothing"))

    assert [path.name for path in tmp_path.iterdir()] == ["target"]
    assert (tmp_path / "target" / "file").exists()


def test_scratch_is_emptied_but_for_our_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = tmp_path / "scratch"
    for path in ("attune-runner/packs", "left/behind"):
        (scratch / path).mkdir(parents=True)
    (scratch / ".hidden").touch()
    monkeypatch.setattr(confinement, "SCRATCH", (str(scratch), str(tmp_path / "none")))

    zygote.empty_scratch(str(scratch / "attune-runner"))

    assert [path.name for path in scratch.iterdir()] == ["attune-runner"]
    assert (scratch / "attune-runner" / "packs").is_dir()
