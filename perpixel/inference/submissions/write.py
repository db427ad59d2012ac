"""Predicts test images and packs the masks as a test server takes them, then checks what was packed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from perpixel.data.image_files import ImageHead, image_head
from perpixel.errors import DataError, InvalidValue, RunError
from perpixel.inference.drawing import save_picture
from perpixel.inference.inputs import InputFile, find_inputs
from perpixel.inference.segmenter import Segmenter
from perpixel.inference.submissions.archives import unfinished, write_archive
from perpixel.inference.submissions.check import validate_submission
from perpixel.inference.submissions.membrane_stack import inside_class, read_slices, write_stack
from perpixel.inference.submissions.servers import MaskServer, MembraneStack, find_server, id_table, keys_of

__all__ = ["Submission", "write_submission"]

_NAMED = 20

Progress = Callable[[int, int, Path], None]


@dataclass(frozen=True, kw_only=True)
class Submission:
    """A submission that was written and found to be in order."""

    path: Path
    """What to upload: the archive, or the TIFF of a stack."""
    format: str
    images: int
    pixels: int
    seconds: float
    notes: tuple[str, ...]
    """What was decided on the way."""


def write_submission(
    segmenter: Segmenter,
    inputs: Iterable[str | Path],
    out: str | Path,
    format: str,  # noqa: A002 - what a user of servers calls it
    *,
    partial: bool = False,
    on_progress: Progress | None = None,
) -> Submission:
    """Predicts test images and writes ``out/<format>/`` and the archive beside it, which is checked before it appears.

    Names, sizes, count and classes are checked before the first image is predicted. Masks have the size of the image
    as stored in its file, whatever its EXIF orientation.

    Args:
        segmenter: Predicts; its dense CRF and post-processing apply.
        inputs: Files, folders (searched with their subfolders) and glob patterns; for ``isbi`` also stacks.
        out: Folder for the results, made when missing.
        format: A key of `SUBMISSIONS`.
        partial: Takes another number of images than the test set has, for a trial; the server will refuse it.
        on_progress: Called after each image with the number done, the number of all, and the image.

    Raises:
        DataError: the model or an image does not fit the server, an image cannot be read, or the check failed.
        InvalidValue: there is no such format, or post-processing leaves what the server cannot take.
        RunError: results cannot be written.
    """
    server = find_server(format)
    out = Path(out)
    started = time.perf_counter()
    try:
        if isinstance(server, MaskServer):
            path, images, pixels, notes = _write_masks(segmenter, inputs, out, server, partial, on_progress)
        else:
            path, images, pixels, notes = _write_slices(segmenter, inputs, out, server, partial, on_progress)
    except OSError as error:
        raise RunError(f"{out}: results cannot be written: {error}. Check rights and free space.") from error
    seconds = time.perf_counter() - started
    return Submission(path=path, format=format, images=images, pixels=pixels, seconds=seconds, notes=notes)


def _write_masks(
    segmenter: Segmenter,
    inputs: Iterable[str | Path],
    out: Path,
    server: MaskServer,
    partial: bool,
    on_progress: Progress | None,
) -> tuple[Path, int, int, tuple[str, ...]]:
    table, notes = id_table(segmenter.labels, server)
    _check_fallback(segmenter, server)
    files = find_inputs(inputs, out=out)
    keys = list(keys_of((str(file.path) for file in files), server))
    heads = _checked_heads(files, server)
    notes += _checked_count(len(files), server, partial)
    members = [server.member(key) for key in keys]
    folder = out / server.name
    _refuse_leftovers(folder, members, {file.path.resolve() for file in files})
    failures: list[str] = []
    for done, (file, head, member) in enumerate(zip(files, heads, members, strict=True), start=1):
        try:
            mask = _as_stored(segmenter(file.path).mask, head.orientation)
            _save_ids(folder / member, _ids(mask, table, file.path), server)
        except DataError as error:
            failures.append(str(error))
        if on_progress is not None:
            on_progress(done, len(files), file.path)
    if failures:
        listed = "\n".join(f"  {failure}" for failure in failures[:_NAMED])
        raise DataError(f"{len(failures)} of {len(files)} images could not be predicted, nothing is packed:\n{listed}")
    archive = out / f"{server.name}.{server.archive}"
    with unfinished(archive) as temporary:
        write_archive(temporary, server.archive, folder, sorted(members))
        sizes = {key: head.stored_size for key, head in zip(keys, heads, strict=True)}
        validate_submission(temporary, server.name, keys, expected_sizes=sizes)
    return archive, len(files), sum(head.size[0] * head.size[1] for head in heads), notes


def _check_fallback(segmenter: Segmenter, server: MaskServer) -> None:
    after = segmenter.postprocessing
    if server.unlabelled is None and after is not None and after.leaves_pixels_out:
        raise InvalidValue(
            f"{server.title} has no id for pixels without a class; give --fallback next or a class, such as background"
        )


def _checked_heads(files: list[InputFile], server: MaskServer) -> list[ImageHead]:
    heads = [image_head(file.path) for file in files]
    if server.size is not None:
        for file, head in zip(files, heads, strict=True):
            if head.stored_size != server.size:
                height, width = head.stored_size
                raise DataError(
                    f"{file.path}: {height} x {width} pixels, the test images of {server.title} have "
                    f"{server.size[0]} x {server.size[1]}; give the original images"
                )
    return heads


def _checked_count(count: int, server: MaskServer | MembraneStack, partial: bool) -> tuple[str, ...]:
    if count in server.counts:
        return ()
    what = f"{count} images, the test set of {server.title} has {' or '.join(str(n) for n in server.counts)}"
    if not partial:
        raise DataError(f"{what}; give all of them, or --partial for a trial that the server would refuse")
    return (f"{what}: a trial, which the server would refuse",)


def _refuse_leftovers(folder: Path, members: list[str], inputs: set[Path]) -> None:
    for member in members:
        if (folder / member).resolve() in inputs:
            raise DataError(f"{folder / member} is an input and would be replaced by its mask; give another out folder")
    wanted = set(members)
    for path in sorted(folder.rglob("*")) if folder.exists() else ():
        if path.is_file() and path.relative_to(folder).as_posix() not in wanted:
            raise DataError(f"{path}: left from something else and no mask of these images; give another out folder")


def _as_stored(mask: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Turns an upright mask (H, W) back to how the image's pixels lie in its file (EXIF 2.3, tag 0x0112)."""
    if orientation in (2, 3, 6, 7):
        mask = mask[:, ::-1]
    if orientation in (3, 4, 7, 8):
        mask = mask[::-1]
    return mask.swapaxes(0, 1) if orientation >= 5 else mask


def _ids(mask: NDArray[np.uint8], table: NDArray[np.int16], path: Path) -> NDArray[np.uint8]:
    ids = table[mask]
    if (ids < 0).any():
        raise DataError(f"{path}: {int((ids < 0).sum())} pixels have no class and the server has no id for such")
    return np.ascontiguousarray(ids.astype(np.uint8))


def _save_ids(path: Path, ids: NDArray[np.uint8], server: MaskServer) -> None:
    picture = Image.fromarray(ids)
    if server.palette:
        picture.putpalette(server.labels.palette())
    save_picture(path, picture)


def _write_slices(
    segmenter: Segmenter,
    inputs: Iterable[str | Path],
    out: Path,
    server: MembraneStack,
    partial: bool,
    on_progress: Progress | None,
) -> tuple[Path, int, int, tuple[str, ...]]:
    inside = inside_class(segmenter.labels)
    if segmenter.postprocessing is not None and not segmenter.postprocessing.is_empty:
        raise InvalidValue(f"{server.title} takes probabilities; leave --min-region and --thresholds away")
    files = find_inputs(inputs, out=out)
    count = _checked_slices(files, server)
    notes = _checked_count(count, server, partial)
    slices: list[NDArray[np.float32]] = []
    for file in files:
        for _, picture in read_slices(file.path):
            slices.append(segmenter(picture).probabilities[inside].clip(0, 1))
            if on_progress is not None:
                on_progress(len(slices), count, file.path)
    out.mkdir(parents=True, exist_ok=True)
    stack = out / f"{server.name}.tif"
    with unfinished(stack) as temporary:
        write_stack(temporary, slices)
        validate_submission(temporary, server.name, [str(number) for number in range(len(slices))])
    return stack, len(slices), sum(values.size for values in slices), notes


def _checked_slices(files: list[InputFile], server: MembraneStack) -> int:
    """Returns the number of slices, all of the server's size."""
    count = 0
    for file in files:
        for name, picture in read_slices(file.path):
            size = image_head(picture).size if isinstance(picture, Path) else picture.shape
            if tuple(size) != server.size:
                raise DataError(
                    f"{name}: {size[0]} x {size[1]} pixels, slices have {server.size[0]} x {server.size[1]}; "
                    "give the original slices"
                )
            count += 1
    return count
