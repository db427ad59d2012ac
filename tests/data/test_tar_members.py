"""Files inside tar archives: opened at their place, and every kind of hostile or damaged archive refused."""

from __future__ import annotations

import io
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from perpixel.data.decoding import image_size, read_mask
from perpixel.data.formats import tar_members
from perpixel.data.formats.tar_members import TarMember, list_members
from perpixel.errors import DataError


def archive(path: Path, files: dict[str, bytes], *, kind: int = tarfile.USTAR_FORMAT, **changes: Any) -> Path:
    with tarfile.open(path, "w", format=kind) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for key, value in changes.items():
                setattr(info, key, value)
            tar.addfile(info, io.BytesIO(content))
    return path


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


LONG = "a/" * 60 + "long name.png"
FILES = {"b.png": b"0123456789" * 100, "./a.txt": b"", LONG: b"xyz" * 300, "über.png": b"u"}


@pytest.mark.parametrize("kind", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_list_members_contents_equal_those_of_the_plain_reader(tmp_path: Path, kind: int) -> None:
    file = archive(tmp_path / "a.tar", FILES, kind=kind)
    members = pickle.loads(pickle.dumps(list_members(file)))
    assert [member.name for member in members] == ["b.png", "a.txt", LONG, "über.png"]
    with tarfile.open(file) as plain:
        for member, info in zip(members, plain, strict=True):
            with member.open() as opened:
                expected = plain.extractfile(info)
                assert expected is not None
                assert opened.read() == expected.read()
    assert str(members[0]) == f"{file}: b.png"
    assert members[0].path == file


@given(moves=st.lists(st.tuples(st.integers(0, 2), st.integers(-5, 40), st.integers(0, 30)), max_size=8))
@settings(deadline=None)
def test_tar_member_reads_and_seeks_as_a_file_of_its_own(
    tmp_path_factory: Any, moves: list[tuple[int, int, int]]
) -> None:
    content = bytes(range(33))
    file = archive(tmp_path_factory.mktemp("t") / "a.tar", {"a": b"before", "b": content, "c": b"after"})
    plain = io.BytesIO(content)
    with list_members(file)[1].open() as opened:
        for whence, offset, count in moves:
            if (plain.tell(), 0, len(content))[(1, 0, 2).index(whence)] * (whence > 0) + offset < 0:
                continue
            assert opened.seek(offset, whence) == plain.seek(offset, whence)
            assert opened.read(count) == plain.read(count)
        opened.seek(0)
        assert opened.read() == content


def test_tar_member_seek_before_the_start_is_refused(tmp_path: Path) -> None:
    with (
        list_members(archive(tmp_path / "a.tar", {"a": b"abc"}))[0].open() as opened,
        pytest.raises(OSError, match="cannot seek to -1, before the start"),
    ):
        opened.seek(-1)


def test_tar_member_is_an_image_like_any_other(tmp_path: Path) -> None:
    ids = (np.arange(20, dtype=np.uint8) % 7).reshape(4, 5)
    member = list_members(archive(tmp_path / "a.tar", {"0.png": b"x" * 999, "a.png": png(ids)}))[1]
    assert image_size(member) == (4, 5)
    np.testing.assert_array_equal(read_mask(member), ids)


def test_tar_member_is_opened_without_scanning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    member = list_members(archive(tmp_path / "a.tar", {"a": b"abc"}))[0]
    monkeypatch.setattr(tarfile, "open", None)
    with member.open() as opened:
        assert opened.read() == b"abc"
    with pytest.raises(OSError, match="is only read, not opened with mode 'wb'"):
        member.open("wb")


def test_tar_member_of_an_archive_that_was_rewritten_is_refused(tmp_path: Path) -> None:
    ids = np.zeros((4, 5), np.uint8)
    member = list_members(archive(tmp_path / "a.tar", {"a.png": png(ids), "b.png": png(ids)}))[1]
    archive(tmp_path / "a.tar", {"b.png": png(ids), "a.png": png(ids)})
    with pytest.raises(DataError, match=r"a\.tar was changed after it was opened; open the data again"):
        read_mask(member)
    (tmp_path / "a.tar").unlink()
    with pytest.raises(DataError, match=r"a\.tar: b\.png: there is no such file"):
        read_mask(member)


@pytest.mark.parametrize("name", ["/etc/passwd", "../a.png", "a/../../b.png", "a\\b.png", "a\nb.png", "."])
def test_list_members_name_that_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"a\.tar: the name '.*' is absolute, leads out of the archive or is not print"):
        list_members(archive(tmp_path / "a.tar", {name: b"x"}))


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        (tarfile.SYMTYPE, "a symbolic link"),
        (tarfile.LNKTYPE, "a hard link"),
        (tarfile.CHRTYPE, "a device"),
        (tarfile.BLKTYPE, "a device"),
        (tarfile.FIFOTYPE, "a pipe"),
    ],
)
def test_list_members_what_is_no_plain_file_is_refused(tmp_path: Path, kind: bytes, what: str) -> None:
    with pytest.raises(DataError, match=rf"a\.tar: 'a\.png' is {what}; shards hold plain files only"):
        list_members(archive(tmp_path / "a.tar", {"a.png": b""}, type=kind, linkname="/etc/passwd"))


def test_list_members_sparse_file_is_refused(tmp_path: Path) -> None:
    file = archive(
        tmp_path / "a.tar", {"a.png": b"abc"}, kind=tarfile.PAX_FORMAT, pax_headers={"GNU.sparse.map": "0,1"}
    )
    with pytest.raises(DataError, match=r"'a\.png' is a sparse file"):
        list_members(file)


def test_list_members_folders_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/a.png").write_bytes(b"x")
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(tmp_path / "d", "d")
    assert [member.name for member in list_members(tmp_path / "a.tar")] == ["d/a.png"]


def test_list_members_huge_member_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = archive(tmp_path / "a.tar", {"a.png": b"x" * 101})
    monkeypatch.setattr(tar_members, "MAX_MEMBER_BYTES", 100)
    with pytest.raises(DataError, match=r"'a\.png' states 101 bytes, more than the limit of 100; refused"):
        list_members(file)


def test_list_members_huge_header_is_refused(tmp_path: Path) -> None:
    file = archive(tmp_path / "a.tar", {"a": b"x"}, kind=tarfile.PAX_FORMAT, pax_headers={"comment": "x" * 2**21})
    with pytest.raises(DataError, match=r"a\.tar: cannot be read as a tar file.*more than the limit of 1048576"):
        list_members(file)


def test_list_members_name_twice_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for _ in range(2):
            tar.addfile(tarfile.TarInfo("a.png"))
    with pytest.raises(DataError, match=r"the name 'a\.png' occurs twice"):
        list_members(tmp_path / "a.tar")


def test_list_members_compressed_archive_is_refused(tmp_path: Path) -> None:
    for packing, name in (("gz", "gzip"), ("bz2", "bzip2"), ("xz", "xz")):
        with tarfile.open(tmp_path / "a.tar", f"w:{packing}") as tar:
            tar.addfile(tarfile.TarInfo("a.png"))
        with pytest.raises(DataError, match=rf"the archive is compressed \({name}\).*Unpack it once"):
            list_members(tmp_path / "a.tar")


def test_list_members_cut_archive_is_refused_at_every_length(tmp_path: Path) -> None:
    whole = archive(tmp_path / "a.tar", {"a": b"x" * 700, "b": b"y"}).read_bytes()
    end = 512 * 5  # two headers, three blocks of content; then zeros
    for length in range(0, end + 1024, 100):
        (tmp_path / "b.tar").write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"b\.tar: "):
            list_members(tmp_path / "b.tar")
    (tmp_path / "b.tar").write_bytes(whole[: end + 1024])
    assert len(list_members(tmp_path / "b.tar")) == 2
    (tmp_path / "b.tar").write_bytes(whole[:end])
    with pytest.raises(DataError, match=r"no end mark at byte 2560, so it was cut short; fetch it again"):
        list_members(tmp_path / "b.tar")


def test_list_members_damaged_header_is_never_the_end(tmp_path: Path) -> None:
    file = archive(tmp_path / "a.tar", {"a": b"x", "b": b"y", "c": b"z"})
    content = bytearray(file.read_bytes())
    content[1024 + 3] ^= 1  # in the name of b
    file.write_bytes(content)
    with tarfile.open(file) as plain:
        assert plain.getnames() == ["a"]  # what makes this dangerous
    with pytest.raises(DataError, match=r"a\.tar: the header at byte 1024 is damaged, so what follows is lost"):
        list_members(file)


def test_list_members_joined_archives_are_refused(tmp_path: Path) -> None:
    one = archive(tmp_path / "a.tar", {"a": b"x"}).read_bytes()
    (tmp_path / "a.tar").write_bytes(one + one)
    with pytest.raises(DataError, match=r"more files behind the end mark at byte 1024, as when archives are joined"):
        list_members(tmp_path / "a.tar")


def test_list_members_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.tar: there is no such file"):
        list_members(tmp_path / "gone.tar")
    with pytest.raises(DataError, match="cannot be read as a tar file"):
        list_members(tmp_path)


@settings(max_examples=60, deadline=None)
@given(place=st.integers(0, 3071), value=st.integers(0, 255))
def test_list_members_damaged_byte_loses_no_file_in_silence(tmp_path_factory: Any, place: int, value: int) -> None:
    file = archive(tmp_path_factory.mktemp("t") / "a.tar", {"a": b"x", "b": b"y", "c": b"z"})
    content = bytearray(file.read_bytes())
    content[place] = value
    file.write_bytes(content)
    try:
        found = list_members(file)
    except DataError:
        return
    assert [(member.name, member.length) for member in found] == [("a", 1), ("b", 1), ("c", 1)]
    assert all(isinstance(member, TarMember) for member in found)
