"""Archives whose bytes depend on their content alone, and the careful reading of anybody's."""

from __future__ import annotations

import gzip
import os
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from perpixel.errors import DataError, RunError
from perpixel.inference.submissions.servers import ArchiveKind

__all__ = ["read_members", "unfinished", "write_archive"]

_EARLIEST = (1980, 1, 1, 0, 0, 0)
_FILE_MODE = 0o644
_LARGEST_MEMBER = 64 << 20
_READING_ERRORS = (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError)


@contextmanager
def unfinished(path: Path) -> Iterator[Path]:
    """Yields a temporary name that becomes ``path`` when the block ends well, and is removed when it raises."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_archive(path: Path, kind: ArchiveKind, folder: Path, members: list[str]) -> None:
    """Packs files of ``folder`` under their relative names, in order, without times or owners.

    Raises:
        RunError: the archive cannot be written.
    """
    try:
        if kind == "zip":
            _write_zip(path, folder, members)
        else:
            _write_tar(path, folder, members)
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error}. Check the folder's rights and the free space.") from error


def _write_zip(path: Path, folder: Path, members: list[str]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:  # PNG files are compressed already
        for member in members:
            entry = zipfile.ZipInfo(member, _EARLIEST)
            entry.external_attr = _FILE_MODE << 16
            archive.writestr(entry, (folder / member).read_bytes())


def _write_tar(path: Path, folder: Path, members: list[str]) -> None:
    with (
        path.open("wb") as raw,
        gzip.GzipFile(fileobj=raw, mode="wb", filename="", mtime=0, compresslevel=1) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for member in members:
            entry = tarfile.TarInfo(member)
            entry.size = (folder / member).stat().st_size
            entry.mode = _FILE_MODE
            with (folder / member).open("rb") as file:
                archive.addfile(entry, file)


def read_members(path: Path, kind: ArchiveKind) -> Iterator[tuple[str, bytes]]:
    """Yields name and content of every file of an archive; folders are passed over.

    Raises:
        DataError: there is no such archive, it is of another kind or damaged, holds a link, or a file that is too
            large for a mask.
    """
    if not path.is_file():
        raise DataError(f"{path}: there is no such archive")
    try:
        if kind == "zip":
            yield from _zip_members(path)
        else:
            yield from _tar_members(path)
    except _READING_ERRORS as error:
        raise DataError(f"{path}: cannot be read as {kind}: {error}; the server takes a {kind} archive") from error


def _zip_members(path: Path) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if entry.is_dir():
                continue
            _refuse_large(path, entry.filename, entry.file_size)
            if entry.flag_bits & 1:
                raise DataError(f"{path}: {entry.filename} is encrypted; pack it without a password")
            yield entry.filename, archive.read(entry)


def _tar_members(path: Path) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(path, "r:gz") as archive:
        for entry in archive:
            if entry.isdir():
                continue
            _refuse_large(path, entry.name, entry.size)
            file = archive.extractfile(entry) if entry.isfile() else None
            if file is None:
                raise DataError(f"{path}: {entry.name} is a link or a device; pack plain files")
            yield entry.name.removeprefix("./"), file.read()


def _refuse_large(path: Path, name: str, size: int) -> None:
    if size > _LARGEST_MEMBER:
        raise DataError(f"{path}: {name} has {size} bytes, more than any mask ({_LARGEST_MEMBER}); leave it out")
