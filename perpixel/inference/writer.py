"""Predicts many files: finds them, writes masks, overlays and predictions.jsonl, and accounts for every single one.

``out/<name>.png`` is the mask and ``out/overlays/<name>.jpg`` the overlay of the input ``<name>.<suffix>``; folders are
kept as below the input that was named. ``out/predictions.jsonl`` holds one object per input: ``image, mask, overlay,
height, width, classes {name: share}, seconds``, or ``image, error``. What is segmented tile by tile (`large_images`)
has a mask ``.tif`` or ``.npy`` where the image is such a file, an overlay of at most 1024 pixels a side, and ``plan``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perpixel.errors import DataError, RunError
from perpixel.inference.drawing import save_picture
from perpixel.inference.inputs import InputFile, find_inputs, output_names
from perpixel.inference.large_images import LargeImages
from perpixel.inference.out_of_memory import explained_out_of_memory
from perpixel.inference.segmenter import Segmenter

__all__ = ["Failure", "PredictionReport", "predict_files"]

_MEMORY_WAY_OUT = "Give the memory that it may take, such as --memory 2GB, and it works in tiles; or --tile 512"

_RECORD = "predictions.jsonl"
_NAMED_FAILURES = 20


@dataclass(frozen=True, kw_only=True)
class Failure:
    """An input that could not be predicted, and why."""

    image: Path
    reason: str


@dataclass(frozen=True, kw_only=True)
class PredictionReport:
    """What a run of `predict_files` did."""

    out: Path
    images: int
    """Inputs predicted and written."""
    pixels: int
    seconds: float
    failures: tuple[Failure, ...]
    notes: tuple[str, ...]
    """What was decided on the way, such as names that had to change."""
    submission: Path | None = None
    """What to upload to the test server that was asked for, found to be in order."""


def predict_files(
    segmenter: Segmenter,
    inputs: Iterable[str | Path],
    out: str | Path,
    *,
    overlays: bool = True,
    skip_errors: bool = False,
    large: LargeImages | None = None,
    on_progress: Callable[[int, int, Path], None] | None = None,
) -> PredictionReport:
    """Writes a mask, and an overlay when wanted, for every image that the inputs name.

    An image that cannot be read does not stop the others. Its failure is written to predictions.jsonl and raised at the
    end, when everything else is written.

    Args:
        segmenter: Predicts.
        inputs: Files, folders (searched with their subfolders) and glob patterns.
        out: Folder for the results, made when missing; results of an earlier run are replaced.
        overlays: Writes overlays too.
        skip_errors: Returns the failures in the report instead of raising them.
        large: Takes the images that do not fit the memory; None takes 60 % of what is free (`LargeImages`).
        on_progress: Called after each image with the number done, the number of all, and the image.

    Raises:
        DataError: nothing was found, an output would replace an input, or images could not be read.
        RunError: results cannot be written.
    """
    out = Path(out)
    files = find_inputs(inputs, out=out)
    names, notes = output_names(files)
    _refuse_overwriting(files, names, out)
    started = time.perf_counter()
    failures: list[Failure] = []
    pixels = 0
    large = large or LargeImages(segmenter)
    with _record(out) as write_line:
        for done, (file, name) in enumerate(zip(files, names, strict=True), start=1):
            try:
                with explained_out_of_memory(segmenter.device, "prediction", _MEMORY_WAY_OUT):
                    line = _predict_large(segmenter, large, file, name, out, overlays)
                    line = line or _predict_one(segmenter, file, name, out, overlays)
                pixels += line["height"] * line["width"]
            except DataError as error:
                failures.append(Failure(image=file.path, reason=str(error)))
                line = {"image": file.path.as_posix(), "error": str(error)}
            except RunError as error:
                raise RunError(f"{file.path}: {error}") from error
            write_line(line)
            if on_progress is not None:
                on_progress(done, len(files), file.path)
    if failures and not skip_errors:
        raise DataError(_failure_message(failures, len(files), out))
    return PredictionReport(
        out=out,
        images=len(files) - len(failures),
        pixels=pixels,
        seconds=time.perf_counter() - started,
        failures=tuple(failures),
        notes=tuple(notes),
    )


def _predict_one(segmenter: Segmenter, file: InputFile, name: str, out: Path, overlays: bool) -> dict[str, Any]:
    started = time.perf_counter()
    segmentation = segmenter(file.path)
    mask = Path(f"{name}.png")
    segmentation.save(out / mask)
    overlay = Path("overlays") / f"{name}.jpg" if overlays else None
    if overlay is not None:
        save_picture(out / overlay, segmentation.overlay())
    height, width = segmentation.size
    return {
        "image": file.path.as_posix(),
        "mask": mask.as_posix(),
        "overlay": None if overlay is None else overlay.as_posix(),
        "height": height,
        "width": width,
        "classes": {label: round(share, 6) for label, share in segmentation.class_shares().items()},
        "seconds": round(time.perf_counter() - started, 6),
    }


def _predict_large(
    segmenter: Segmenter, large: LargeImages, file: InputFile, name: str, out: Path, overlays: bool
) -> dict[str, Any] | None:
    """Predicts tile by tile what is too large for the usual way; None where it is not."""
    started = time.perf_counter()
    result = large.segment(file.path, out / name)
    if result is None:
        return None
    overlay = Path("overlays") / f"{name}.jpg" if overlays else None
    if overlay is not None:
        save_picture(out / overlay, result.overlay)
    total = max(sum(result.counts), 1)
    shares = sorted(zip(segmenter.labels.names, result.counts, strict=True), key=lambda pair: -pair[1])
    return {
        "image": file.path.as_posix(),
        "mask": result.mask.relative_to(out).as_posix(),
        "overlay": None if overlay is None else overlay.as_posix(),
        "height": result.size[0],
        "width": result.size[1],
        "classes": {label: round(count / total, 6) for label, count in shares if count},
        "missing_pixels": result.missing,
        "plan": result.plan.text(),
        "seconds": round(time.perf_counter() - started, 6),
    }


@contextmanager
def _record(out: Path) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Yields a writer of lines; predictions.jsonl takes its name at the end, also when the run is broken off."""
    unfinished = out / f".{_RECORD}.tmp"
    try:
        out.mkdir(parents=True, exist_ok=True)
        try:
            with unfinished.open("w", encoding="utf-8") as file:

                def write_line(line: dict[str, Any]) -> None:
                    file.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
                    file.flush()

                yield write_line
        finally:
            if unfinished.exists():
                unfinished.replace(out / _RECORD)
    except OSError as error:
        raise RunError(f"{out}: results cannot be written: {error}. Check rights and free space.") from error


def _refuse_overwriting(files: list[InputFile], names: list[str], out: Path) -> None:
    inputs = {file.path.resolve() for file in files}
    for name in names:
        for target in (out / f"{name}.png", out / "overlays" / f"{name}.jpg"):
            if target.resolve() in inputs:
                raise DataError(
                    f"{target} is an input and would be replaced by its prediction; give another out folder"
                )


def _failure_message(failures: list[Failure], total: int, out: Path) -> str:
    listed = "\n".join(f"  {failure.reason}" for failure in failures[:_NAMED_FAILURES])
    more = f"\n  and {len(failures) - _NAMED_FAILURES} more" if len(failures) > _NAMED_FAILURES else ""
    return (
        f"{len(failures)} of {total} images could not be predicted; the other {total - len(failures)} are written to "
        f"{out}, and {_RECORD} there names every failure:\n{listed}{more}"
    )
