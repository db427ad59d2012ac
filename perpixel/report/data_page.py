"""The findings of `perpixel data check` as one HTML file, with pictures of the first files of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jinja2 import Environment
from markupsafe import Markup
from numpy.typing import NDArray

from perpixel.data.decoding import image_head, read_color_mask, read_mask, read_pixels
from perpixel.data.inspection.finding import Finding
from perpixel.data.inspection.inspect import Inspection
from perpixel.data.inspection.pairing import Pair
from perpixel.data.picture import Picture, PixelSource
from perpixel.errors import DataError, RunError
from perpixel.labels import LabelSpace
from perpixel.report.page_environment import page_environment
from perpixel.report.pictures import flat_uri, photo_uri

__all__ = ["write_data_page"]

_HERE = Path(__file__).parent
_PICTURES = 3
_LISTED = 200
_MOST_PIXELS = 40_000_000
"""Larger images are not shown: a page of thumbnails is not worth their memory."""


@dataclass(frozen=True, kw_only=True)
class Shot:
    """One file of a finding, with its pair."""

    name: str
    image: str | None
    mask: str | None
    overlay: str | None
    problems: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One finding as the page shows it."""

    finding: Finding
    shots: tuple[Shot, ...]
    files: tuple[str, ...]
    more: int


def write_data_page(found: Inspection, path: str | Path) -> Path:
    """Writes the page of an inspection, without any outside part; the first files of each finding are read again.

    Returns:
        The path of the file.

    Raises:
        RunError: the file cannot be written.
    """
    path = Path(path)
    by_file = _by_file(found)
    page = (
        _environment()
        .get_template("data.html")
        .render(
            found=found,
            entries=[_entry(one, by_file, found.labels) for one in found.findings],
            counts=[(severity, found.count(severity)) for severity in ("error", "warning", "note")],
            legend=[] if found.labels is None else _legend(found.labels),
            style=Markup((_HERE / "style.css").read_text(encoding="utf-8")),  # the package's own file
        )
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page, encoding="utf-8", errors="replace")
    except OSError as error:
        raise RunError(f"cannot write the page to {path}: {error}; give another file") from error
    return path


def _entry(one: Finding, by_file: Mapping[str, Pair], labels: LabelSpace | None) -> Entry:
    pairs: dict[str, Pair] = {}
    for file in one.files:
        if file in by_file and len(pairs) < _PICTURES:
            pairs.setdefault(by_file[file].image_file, by_file[file])
    return Entry(
        finding=one,
        shots=tuple(_shot(pair, labels) for pair in pairs.values()),
        files=tuple(_printable(file) for file in one.files[:_LISTED]),
        more=max(0, len(one.files) - _LISTED),
    )


def _by_file(found: Inspection) -> Mapping[str, Pair]:
    files = {pair.mask_file: pair for pair in found.pairs if pair.mask_file is not None}
    return {**files, **{pair.image_file: pair for pair in found.pairs}}


def _shot(pair: Pair, labels: LabelSpace | None) -> Shot:
    problems: list[str] = []
    image = None if pair.image is None else _image(pair.image, problems)
    mask = None if pair.mask is None else _painted(pair.mask, labels, problems)
    overlay = None
    if image is not None and mask is not None and image.shape == mask.shape:
        overlay = photo_uri((image // 2 + mask // 2).astype(np.uint8))
    return Shot(
        name=_printable(pair.image_file),
        image=None if image is None else photo_uri(image),
        mask=None if mask is None else flat_uri(mask),
        overlay=overlay,
        problems=tuple(_printable(problem) for problem in problems),
    )


def _image(source: PixelSource, problems: list[str]) -> NDArray[np.uint8] | None:
    try:
        pixels = read_pixels(source, max_pixels=_MOST_PIXELS)
    except DataError as error:
        problems.append(str(error))
        return None
    if pixels.dtype != np.uint8:
        pixels = (pixels // 256).astype(np.uint8)
    return np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else pixels


def _painted(source: PixelSource, labels: LabelSpace | None, problems: list[str]) -> NDArray[np.uint8] | None:
    """Paints a mask: classes in their colours, ids that are none in grey by their number, colours as they are."""
    try:
        ids = read_mask(source, max_pixels=_MOST_PIXELS)
    except DataError as error:
        return _as_picture(source, problems, error)
    shown = np.repeat(np.minimum(ids, 255).astype(np.uint8)[..., None], 3, axis=2)
    if labels is None:
        return shown
    for stored, train in labels.stored_to_train.items():
        color = labels.ignore_color if train == labels.ignore_index else labels.colors[train]
        shown[ids == stored] = color
    return shown


def _as_picture(source: PixelSource, problems: list[str], error: DataError) -> NDArray[np.uint8] | None:
    """Shows a mask that holds no ids as the picture that it is."""
    problems.append(str(error))
    if isinstance(source, Picture):
        return None
    try:
        if image_head(source).format == "JPEG":
            return _image(source, [])
        return read_color_mask(source, max_pixels=_MOST_PIXELS)
    except DataError:
        return None


def _legend(labels: LabelSpace) -> list[tuple[str, str]]:
    return [(name, "rgb({}, {}, {})".format(*color)) for name, color in zip(labels.names, labels.colors, strict=True)]


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def _environment() -> Environment:
    return page_environment(printable=_printable)
