"""Files inside uncompressed tar archives: listed once, then opened at their place without reading the archive again.

What is no plain file with a plain name is refused, and so is an archive that does not end as one ends: Python's own
reader takes a damaged header for the end, and the images behind it would be missing without a word. Source of the
layout: POSIX.1-2001, ustar and pax interchange formats.
"""

from __future__ import annotations

import io
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from perpixel.data.picture import FileInside
from perpixel.errors import DataError

__all__ = ["MAX_MEMBER_BYTES", "TarMember", "list_members"]

MAX_MEMBER_BYTES = 2**30
"""Larger files inside an archive are refused: no image or mask is as large."""

_BLOCK = 512
_MAX_HEADER = 2**20  # bytes that one header with its extensions may take
_PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_KINDS = {
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.LNKTYPE: "a hard link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a pipe",
    tarfile.GNUTYPE_SPARSE: "a sparse file",
}


@dataclass(frozen=True)
class TarMember(FileInside):
    """A file in an archive, by the place of its bytes."""

    archive: Path
    member: str
    offset: int
    """First byte of its content in the archive."""
    length: int
    """Bytes of its content."""
    header: int
    """CRC-32 of the header before the content, by which an archive that was rewritten since is noticed."""

    @property
    def path(self) -> Path:
        return self.archive

    @property
    def name(self) -> str:
        return self.member

    def open(self, mode: str = "rb") -> IO[bytes]:
        if mode != "rb":
            raise OSError(f"{self}: is only read, not opened with mode {mode!r}")
        file = self.archive.open("rb", buffering=0)
        try:
            file.seek(self.offset - _BLOCK)
            if zlib.crc32(file.read(_BLOCK)) != self.header:
                raise OSError(f"{self.archive} was changed after it was opened; open the data again")
        except BaseException:
            file.close()
            raise
        return io.BufferedReader(_Window(file, self.offset, self.length))

    def __str__(self) -> str:
        return f"{self.archive}: {self.member}"


class _Window(io.RawIOBase):
    """Part of an open file as a file of its own, which it closes."""

    def __init__(self, file: io.FileIO, start: int, length: int) -> None:
        self._file = file
        self._start = start
        self._length = length
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._length}[whence]
        if origin + offset < 0:
            raise OSError(f"cannot seek to {origin + offset}, before the start of the file")
        self._place = origin + offset
        return self._place

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        wanted = min(len(buffer), max(0, self._length - self._place))
        self._file.seek(self._start + self._place)
        count = self._file.readinto(memoryview(buffer)[:wanted]) if wanted else 0
        self._place += count
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


class _Headers(io.FileIO):
    """An archive of which only headers are read, none of them large."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= _MAX_HEADER:
            raise tarfile.ReadError(f"a header of {size} bytes is more than the limit of {_MAX_HEADER}")
        return super().read(size) or b""


def list_members(archive: Path) -> tuple[TarMember, ...]:
    """Lists the files of an archive in their order; folders are passed over.

    Raises:
        DataError: the archive is missing, compressed, damaged or cut short, or it holds a link, a device, a file above
            `MAX_MEMBER_BYTES`, a name twice, or a name that is absolute or leads out of the archive.
    """
    members: dict[str, TarMember] = {}
    try:
        with archive.open("rb") as file:
            _refuse_packed(archive, file.read(6))
            with _Headers(archive) as headers, tarfile.open(fileobj=headers, mode="r:") as opened:
                for member in _entries(archive, opened, file):
                    if member.member in members:
                        raise DataError(f"{archive}: the name {member.member!r} occurs twice; which one is meant?")
                    members[member.member] = member
                _require_end(archive, file, opened.offset)
    except FileNotFoundError as error:
        raise DataError(f"{archive}: there is no such file") from error
    except (tarfile.TarError, OSError, ValueError, EOFError) as error:
        raise DataError(f"{archive}: cannot be read as a tar file, damaged or cut short: {error}") from error
    return tuple(members.values())


def _refuse_packed(archive: Path, start: bytes) -> None:
    for magic, packing in _PACKED.items():
        if start.startswith(magic):
            raise DataError(
                f"{archive}: the archive is compressed ({packing}), so single files cannot be opened in it. Unpack it "
                "once to a plain .tar; JPEG and PNG files do not become smaller by it."
            )


def _entries(archive: Path, opened: tarfile.TarFile, file: IO[bytes]) -> Iterator[TarMember]:
    for info in opened:
        if info.isdir():
            continue
        if not info.isreg() or info.issparse():
            what = "a sparse file" if info.issparse() else _KINDS.get(info.type, f"of the unknown type {info.type!r}")
            raise DataError(f"{archive}: {info.name!r} is {what}; shards hold plain files only")
        if info.size > MAX_MEMBER_BYTES:
            raise DataError(
                f"{archive}: {info.name!r} states {info.size} bytes, more than the limit of {MAX_MEMBER_BYTES}; refused"
            )
        file.seek(info.offset_data - _BLOCK)
        yield TarMember(
            archive=archive,
            member=_plain_name(archive, info.name),
            offset=info.offset_data,
            length=info.size,
            header=zlib.crc32(file.read(_BLOCK)),
        )


def _plain_name(archive: Path, name: str) -> str:
    """Returns a name without a leading ``./``, or refuses it."""
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\\" in name or not name.isprintable():
        raise DataError(f"{archive}: the name {name!r} is absolute, leads out of the archive or is not printable")
    return "/".join(parts)


def _require_end(archive: Path, file: IO[bytes], place: int) -> None:
    """Makes sure that two blocks of zeros follow the last file, and nothing but zeros after them."""
    file.seek(place)
    end = file.read(2 * _BLOCK)
    if len(end) < 2 * _BLOCK and not end.strip(b"\0"):
        raise DataError(f"{archive}: the archive has no end mark at byte {place}, so it was cut short; fetch it again")
    if end.strip(b"\0"):
        raise DataError(f"{archive}: the header at byte {place} is damaged, so what follows is lost; fetch it again")
    while chunk := file.read(2**20):
        if chunk.strip(b"\0"):
            raise DataError(
                f"{archive}: there are more files behind the end mark at byte {place}, as when archives are joined "
                "with cat; unpack them and write one archive"
            )
