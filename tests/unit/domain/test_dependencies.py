"""What a pack asks for, known by its content."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.domain.dependencies import environment_ref, manifests

WHEEL = "wheels/colorlib-1.0-py3-none-any.whl"
PYTHON = {
    "requirements.txt": b"--find-links ./wheels\ncolorlib==1.0\n",
    WHEEL: b"one",
    "actions/a.py": b"import colorlib",
}
NODE = {
    "package.json": b'{"name": "p", "dependencies": {"colorlib": "file:vendor/colorlib.tgz"}}',
    "vendor/colorlib.tgz": b"one",
}


def test_a_pack_without_manifests_asks_for_nothing() -> None:
    assert manifests({"pack.yaml": b"ref: p", "actions/requirements.txt": b"x"}) == {}


@pytest.mark.parametrize("content", [b"", b"\n\n", b"# nothing\n   # yet\n"])
def test_requirements_without_any_ask_for_nothing(content: bytes) -> None:
    assert manifests({"requirements.txt": content}) == {}


@pytest.mark.parametrize("content", [b"{}", b'{"devDependencies": {"jest": "1"}}', b'{"dependencies": {}}'])
def test_a_package_without_dependencies_asks_for_nothing(content: bytes) -> None:
    assert manifests({"package.json": content}) == {}


def test_a_pack_that_brings_its_modules_asks_for_nothing() -> None:
    assert manifests({**NODE, "node_modules/colorlib/index.js": b""}) == {}


def test_what_cannot_be_read_is_the_installers_to_complain_about() -> None:
    assert set(manifests({"package.json": b"{", "requirements.txt": b"\xff\xfe"})) == {"node", "python"}


def test_a_pack_may_ask_for_both() -> None:
    found = manifests({**PYTHON, **NODE})
    assert set(found) == {"python", "node"}
    assert found["python"] == manifests(PYTHON)["python"]
    assert found["node"] == manifests(NODE)["node"]


def test_other_files_of_the_pack_do_not_matter() -> None:
    assert manifests({**PYTHON, "actions/a.py": b"changed", "pack.yaml": b"version: 2"}) == manifests(PYTHON)


@pytest.mark.parametrize("changed", ["requirements.txt", WHEEL])
def test_the_manifest_and_what_it_names_matter(changed: str) -> None:
    assert manifests({**PYTHON, changed: PYTHON[changed] + b" "}) != manifests(PYTHON)


def test_a_wheel_beside_the_others_matters() -> None:
    assert manifests({**PYTHON, "wheels/more.whl": b""}) != manifests(PYTHON)


@pytest.mark.parametrize(
    ("line", "file"),
    [
        ("-r more/base.txt", "more/base.txt"),
        ("--requirement=more/base.txt", "more/base.txt"),
        ("-c limits.txt", "limits.txt"),
        ("./local", "local/setup.py"),
        ("-e local", "local/deep/er/module.py"),
        ("colorlib @ file:./wheels/x.whl", "wheels/x.whl"),
        ("colorlib@file://wheels/x.whl", "wheels/x.whl"),
        ("colorlib[extra] @ wheels/x.whl ; python_version > '3'", "wheels/x.whl"),
        ("-f ./wheels/", "wheels/x.whl"),
        (".", "setup.py"),
    ],
)
def test_every_way_to_name_a_file_of_the_pack_counts(line: str, file: str) -> None:
    files = {"requirements.txt": line.encode(), file: b"one"}
    assert manifests({**files, file: b"two"}) != manifests(files)
    elsewhere = manifests({**files, "elsewhere/x.txt": b""})
    assert (elsewhere == manifests(files)) == (line not in (".", "./local"))


def test_a_package_that_is_built_may_read_the_whole_pack() -> None:
    files = {"requirements.txt": b"./own", "own/pyproject.toml": b"", "payload.py": b"one"}
    assert manifests({**files, "payload.py": b"two"}) != manifests(files)
    hooked = {"package.json": b'{"dependencies": {"a": "1"}, "scripts": {"postinstall": "node x"}}', "y.js": b"one"}
    assert manifests({**hooked, "y.js": b"two"}) != manifests(hooked)
    tested = {"package.json": b'{"dependencies": {"a": "1"}, "scripts": {"test": "node x"}}', "y.js": b"one"}
    assert manifests({**tested, "y.js": b"two"}) == manifests(tested)


def test_requirement_files_are_followed_from_where_they_lie() -> None:
    files = {
        "requirements.txt": b"-r more/base.txt",
        "more/base.txt": b"--find-links wheels",
        "more/wheels/x.whl": b"1",
    }
    assert manifests({**files, "more/wheels/x.whl": b"2"}) != manifests(files)


def test_files_that_name_each_other_come_to_an_end() -> None:
    assert manifests({"requirements.txt": b"-r a.txt", "a.txt": b"-r requirements.txt -r a.txt"})


@pytest.mark.parametrize("name", ["package-lock.json", "npm-shrinkwrap.json", ".npmrc"])
def test_what_npm_reads_beside_the_manifest_matters(name: str) -> None:
    assert manifests({**NODE, name: b"{}"}) != manifests(NODE)


def test_a_tarball_of_the_pack_matters() -> None:
    assert manifests({**NODE, "vendor/colorlib.tgz": b"two"}) != manifests(NODE)


def test_refs_tell_runtimes_and_platforms_apart() -> None:
    refs = {
        environment_ref("python", "d" * 64, "3.11-linux-x86_64"),
        environment_ref("python", "d" * 64, "3.12-linux-x86_64"),
        environment_ref("python", "d" * 64, "3.12-linux-aarch64"),
        environment_ref("node", "d" * 64, "linux-aarch64"),
    }
    assert len(refs) == 4


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_no_manifest_upsets_the_reading(requirements: bytes, package: bytes) -> None:
    files = {"requirements.txt": requirements, "package.json": package, "a/b.txt": requirements, "c": package}
    assert manifests(files) == manifests(dict(reversed(files.items())))
