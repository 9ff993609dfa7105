"""The zips: what is in them and what is not, and that the same source gives the same bytes."""

import io
import subprocess
import sys
import zipfile
from pathlib import Path

from infra import package


def _names(zipped: package.Zip) -> set[str]:
    with zipfile.ZipFile(io.BytesIO(zipped.content)) as archive:
        return set(archive.namelist())


def test_the_same_source_gives_the_same_zip() -> None:
    assert package.control_zip(None) == package.control_zip(None)
    assert package.control_zip(None).key.startswith("control-")


def test_the_execution_plane_holds_nothing_of_the_control_plane_but_the_messages() -> None:
    names = _names(package.runner_zip(None))
    assert {name for name in names if name.startswith("chalicelib/") and name.endswith(".py")} == {
        "chalicelib/__init__.py",
        "chalicelib/protocol.py",
    }
    assert "runners/handler.py" in names
    assert "app.py" not in names


def test_the_control_plane_holds_nothing_of_the_execution_plane() -> None:
    names = _names(package.control_zip(None))
    assert {"app.py", "chalicelib/services.py"} <= names
    assert not any(name.startswith("runners/") for name in names)


def test_the_bytecode_in_the_zip_is_what_python_runs(tmp_path: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(package.runner_zip(None).content)) as archive:
        archive.extractall(tmp_path)
    (tmp_path / "chalicelib" / "protocol.py").write_text("raise SystemExit('compiled again')")

    code = "import chalicelib.protocol; print(chalicelib.protocol.Run.__name__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)

    assert done.stdout == "Run\n"


def test_settings_change_the_fingerprint() -> None:
    assert package.fingerprint("a") == package.fingerprint("a")
    assert package.fingerprint("a") != package.fingerprint("b")
