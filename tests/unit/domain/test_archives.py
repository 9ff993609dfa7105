import gzip
import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.domain import archives
from chalicelib.domain.archives import ArchiveError, Limits

MANIFEST = b"ref: demo\nversion: 1.0.0\n"


def member(name: str, content: bytes = b"", **attributes: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for attribute, value in attributes.items():
        setattr(info, attribute, value)
    return info, content


def tar_gz(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return gzip.compress(plain.getvalue(), mtime=0)


def test_manifest_at_the_top() -> None:
    data = tar_gz(member("pack.yaml", MANIFEST), member("actions/a.sh", b"echo"))
    assert archives.unpack(data) == {"pack.yaml": MANIFEST, "actions/a.sh": b"echo"}


def test_manifest_in_the_only_top_folder() -> None:
    data = tar_gz(
        member("./demo", type=tarfile.DIRTYPE),
        member("./demo/pack.yaml", MANIFEST),
        member("./demo/actions/a.sh", b"x"),
    )
    assert archives.unpack(data) == {"pack.yaml": MANIFEST, "actions/a.sh": b"x"}


def test_debris_of_macos_and_git_is_left_out() -> None:
    data = tar_gz(
        member("._demo", b"?"),
        member("demo/pack.yaml", MANIFEST),
        member("demo/._pack.yaml", b"?"),
        member("demo/.DS_Store", b"?"),
        member("demo/.git/config", b"?"),
        member("demo/actions/__pycache__/a.pyc", b"?"),
    )
    assert archives.unpack(data) == {"pack.yaml": MANIFEST}


@pytest.mark.parametrize(
    "name", ["../evil", "a/../../evil", "/etc/passwd", "a/..", "..", "a\\..\\evil", "a\nb", "x" * 300, "actions/\x01"]
)
def test_names_that_lead_elsewhere_are_refused(name: str) -> None:
    with pytest.raises(ArchiveError):
        archives.unpack(tar_gz(member("pack.yaml", MANIFEST), member(name, b"x")))


@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.GNUTYPE_SPARSE],
)
def test_only_plain_files_are_taken(kind: bytes) -> None:
    with pytest.raises(ArchiveError):
        archives.unpack(tar_gz(member("pack.yaml", MANIFEST), member("a", type=kind, linkname="pack.yaml")))


def test_a_folder_that_leads_out_is_refused() -> None:
    with pytest.raises(ArchiveError, match="leads out"):
        archives.unpack(tar_gz(member("../up", type=tarfile.DIRTYPE), member("pack.yaml", MANIFEST)))


def test_a_sparse_file_of_the_pax_format_is_refused() -> None:
    info, content = member("sparse", b"", pax_headers={"GNU.sparse.map": "0,1", "GNU.sparse.size": "99999999999"})
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(member("pack.yaml", MANIFEST)[0], io.BytesIO(MANIFEST))
        tar.addfile(info, io.BytesIO(content))
    with pytest.raises(ArchiveError, match="sparse"):
        archives.unpack(gzip.compress(plain.getvalue()))


def test_a_name_twice_is_refused() -> None:
    with pytest.raises(ArchiveError, match="twice"):
        archives.unpack(tar_gz(member("pack.yaml", MANIFEST), member("./pack.yaml", b"ref: other")))


def test_a_file_that_is_also_a_folder_is_refused() -> None:
    with pytest.raises(ArchiveError, match="both a file and a folder"):
        archives.unpack(tar_gz(member("pack.yaml", MANIFEST), member("a", b"x"), member("a/b", b"x")))


@pytest.mark.parametrize(
    "members",
    [
        [],
        [member("readme", b"x")],
        [member("a/pack.yaml", MANIFEST), member("b/readme", b"x")],
        [member("a/b/pack.yaml", MANIFEST)],
        [member("pack.yaml", type=tarfile.DIRTYPE)],
    ],
)
def test_without_a_manifest_in_place_it_is_no_pack(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    with pytest.raises(ArchiveError, match=r"no pack\.yaml"):
        archives.unpack(tar_gz(*members))


def test_a_bomb_is_stopped_by_its_ratio_before_its_size() -> None:
    bomb = tar_gz(member("pack.yaml", MANIFEST), member("zeros", bytes(20 << 20)))
    assert len(bomb) < 100_000
    with pytest.raises(ArchiveError, match="times its size"):
        archives.unpack(bomb)


def test_a_bomb_is_never_unpacked_beyond_the_limit() -> None:
    with pytest.raises(ArchiveError, match="unpacks to more than"):
        archives.unpack(tar_gz(member("zeros", bytes(3 << 20))), Limits(unpacked=1 << 20))


def test_sizes_and_counts_are_limited() -> None:
    data = tar_gz(member("pack.yaml", MANIFEST), member("a", b"12345"), member("b", b"1"))
    assert archives.unpack(data, Limits(file=30, files=3))
    with pytest.raises(ArchiveError, match="larger than 4"):
        archives.unpack(data, Limits(file=4))
    with pytest.raises(ArchiveError, match="more than 2 files"):
        archives.unpack(data, Limits(files=2))
    with pytest.raises(ArchiveError, match="larger than 10 bytes"):
        archives.unpack(data, Limits(packed=10))


GOOD = tar_gz(member("pack.yaml", MANIFEST), member("actions/a.py", bytes(range(256)) * 8))


@pytest.mark.parametrize(
    "data", [b"", b"PK\x03\x04", b"\x1f\x8b", GOOD[:-20], GOOD[: len(GOOD) // 2], gzip.compress(b"text", mtime=0)]
)
def test_what_is_no_tar_gz_is_refused(data: bytes) -> None:
    with pytest.raises(ArchiveError):
        archives.unpack(data)


@given(st.data())
def test_a_damaged_archive_is_refused_or_harmless(data: st.DataObject) -> None:
    plain = bytearray(gzip.decompress(GOOD))
    for _ in range(data.draw(st.integers(1, 4))):
        plain[data.draw(st.integers(0, 2047))] = data.draw(st.integers(0, 255))
    try:
        files = archives.unpack(gzip.compress(bytes(plain)))
    except ArchiveError:
        return
    assert all(not name.startswith("/") and ".." not in name.split("/") for name in files)


NAMES = st.lists(st.sampled_from(["a", "b", "actions", "ü", "x.py"]), min_size=1, max_size=3).map("/".join)


@given(st.dictionaries(NAMES, st.binary(max_size=64), max_size=6))
def test_what_is_packed_unpacks_to_the_same_files(files: dict[str, bytes]) -> None:
    tree = {
        name: content for name, content in files.items() if not any(other.startswith(f"{name}/") for other in files)
    }
    tree["pack.yaml"] = MANIFEST
    assert archives.unpack(archives.pack(tree)) == tree


def test_packing_does_not_depend_on_order_or_origin() -> None:
    one = archives.pack({"pack.yaml": MANIFEST, "a.sh": b"#!/bin/sh"})
    other = archives.pack(
        archives.unpack(tar_gz(member("x/a.sh", b"#!/bin/sh", mtime=5, uid=7), member("x/pack.yaml", MANIFEST)))
    )
    assert one == other
    assert archives.digest(one) == archives.digest(other)


def test_scripts_are_packed_executable() -> None:
    data = archives.pack({"a.sh": b"#!/bin/sh\n", "b.txt": b"text"})
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert {info.name: info.mode for info in tar} == {"a.sh": 0o755, "b.txt": 0o644}
