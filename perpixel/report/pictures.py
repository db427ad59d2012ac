"""Image, truth, prediction and errors of a run's best, typical and worst images, as data URIs.

Shapes: H W image. Train ids are uint8, 255 is ignored.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import distance_transform_edt

from perpixel.data import read_color_mask, read_image, read_mask
from perpixel.data.image_files import ImageHead, image_head
from perpixel.errors import DataError
from perpixel.labels import LabelSpace
from perpixel.report.read_run import RunRecord, number

__all__ = [
    "BORDER_COLOR",
    "IGNORED_COLOR",
    "INSIDE_COLOR",
    "Card",
    "Group",
    "flat_uri",
    "load_image",
    "load_mask",
    "pale",
    "photo_uri",
    "picture_groups",
]

BORDER_COLOR = (228, 112, 0)
"""Wrong pixels near a true border in the error map."""
INSIDE_COLOR = (225, 29, 72)
"""Wrong pixels inside regions."""
IGNORED_COLOR = (120, 126, 138)
"""Pixels without a true class."""
_SIDE = 480  # the longer side of a thumbnail, pixels
_PER_GROUP = 3


@dataclass(frozen=True, kw_only=True)
class Card:
    """One image with its pictures; a picture that cannot be shown is None and ``problems`` says why."""

    name: str
    mean_iou: float | None
    pixel_accuracy: float | None
    image: str | None
    truth: str | None
    prediction: str | None
    errors: str | None
    problems: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Group:
    """Images of like score."""

    title: str
    cards: tuple[Card, ...]


def picture_groups(run: RunRecord, *, border_width_px: float) -> list[Group]:
    """Returns the best, the middle and the worst images by mean IoU; one group when there are few.

    Args:
        run: The run whose predictions/images.json names the files.
        border_width_px: Largest distance from a true border, in pixels, at which an error is shown as near.
    """
    if run.labels is None or not run.images:
        return []
    ranked = sorted(run.images, key=lambda entry: -(-1.0 if (s := number(entry.get("mean_iou"))) is None else s))
    if len(ranked) <= _PER_GROUP:
        chosen = {"All images": ranked}
    else:
        worst = ranked[max(_PER_GROUP, len(ranked) - _PER_GROUP) :]
        between = ranked[_PER_GROUP : len(ranked) - len(worst)]
        start = max((len(between) - _PER_GROUP) // 2, 0)
        chosen = {
            "Best": ranked[:_PER_GROUP],
            "Typical (around the median)": between[start : start + _PER_GROUP],
            "Worst": worst[::-1],
        }
    return [
        Group(title=title, cards=tuple(_card(run, run.labels, entry, border_width_px) for entry in entries))
        for title, entries in chosen.items()
        if entries
    ]


def _card(run: RunRecord, labels: LabelSpace, entry: Mapping[str, Any], width_px: float) -> Card:
    problems: list[str] = []
    image, head = load_image(run.path, entry, problems)
    truth = load_mask(run, labels, entry, "target", head, problems)
    prediction = load_mask(run, labels, entry, "prediction", None, problems)
    shapes = {part.shape[:2] for part in (image, truth, prediction) if part is not None}
    if len(shapes) > 1:
        problems.append(
            "image, truth and prediction have different sizes: " + ", ".join(map(str, sorted(shapes))) + "."
        )
    errors = None
    if truth is not None and prediction is not None and len(shapes) == 1:
        errors = _error_map(image, truth, prediction, width_px)
    return Card(
        name=str(entry.get("name", "unnamed")),
        mean_iou=number(entry.get("mean_iou")),
        pixel_accuracy=number(entry.get("pixel_accuracy")),
        image=None if image is None else photo_uri(image),
        truth=None if truth is None else flat_uri(labels.colorize(truth)),
        prediction=None if prediction is None else flat_uri(labels.colorize(prediction)),
        errors=None if errors is None else photo_uri(errors, enlarged=True),
        problems=tuple(problems),
    )


def _located(folder: Path, entry: Mapping[str, Any], key: str, problems: list[str]) -> Path | None:
    if not entry.get(key):
        problems.append(f"predictions/images.json names no {key}.")
        return None
    path = folder / str(entry[key])
    if not path.is_file():
        problems.append(f"The {key} is no longer at {entry[key]}.")
        return None
    return path


def load_image(
    folder: Path, entry: Mapping[str, Any], problems: list[str]
) -> tuple[NDArray[np.uint8] | None, ImageHead | None]:
    """Reads an image of predictions/images.json as (H, W, 3); None, and why in ``problems``, where that cannot be."""
    path = _located(folder, entry, "image", problems)
    if path is None:
        return None, None
    try:
        head, pixels = image_head(path), read_image(path).numpy()
    except DataError as error:
        problems.append(f"The image cannot be shown: {error}")
        return None, None
    if pixels.dtype != np.uint8:
        pixels = (pixels / 257).round().astype(np.uint8)
    return np.broadcast_to(pixels.transpose(1, 2, 0), (*pixels.shape[1:], 3)), head


def load_mask(
    run: RunRecord,
    labels: LabelSpace,
    entry: Mapping[str, Any],
    key: str,
    like: ImageHead | None,
    problems: list[str],
) -> NDArray[np.uint8] | None:
    """Reads train ids; of the data set's own mask in the encoding that the configuration states.

    None, and why in ``problems``, where that cannot be.
    """
    path = _located(run.path, entry, key, problems)
    if path is None:
        return None
    data = run.config.get("data")
    in_colors = key == "target" and isinstance(data, Mapping) and data.get("mask_encoding") == "colors"
    try:
        if in_colors:
            return labels.encode_colors(read_color_mask(path, like=like), source=path.name)
        stored = read_mask(path, like=like)
        if key == "prediction" and labels.train_to_stored is None:
            return _train_ids(stored, labels, path.name)
        return labels.encode(stored, source=path.name)
    except DataError as error:
        problems.append(f"The {key} cannot be shown: {error}")
        return None


def _train_ids(stored: NDArray[Any], labels: LabelSpace, name: str) -> NDArray[np.uint8]:
    """Checks a prediction that was written with train ids, because a class has several stored ids."""
    wrong = (stored >= labels.num_classes) & (stored != labels.ignore_index)
    if wrong.any():
        raise DataError(f"{name}: id {int(stored[wrong][0])} is no class of label space {labels.name!r}")
    return stored.astype(np.uint8)


def _error_map(
    image: NDArray[np.uint8] | None, truth: NDArray[np.uint8], prediction: NDArray[np.uint8], width_px: float
) -> NDArray[np.uint8]:
    """Paints wrong pixels over a pale grey image, those near a true border apart from those inside regions."""
    canvas = pale(image, truth.shape)
    valid = truth != LabelSpace.ignore_index
    wrong = valid & (prediction != truth)
    near = _near_border(truth, valid, width_px)
    canvas[~valid] = IGNORED_COLOR
    canvas[wrong & near] = BORDER_COLOR
    canvas[wrong & ~near] = INSIDE_COLOR
    return canvas


def pale(image: NDArray[np.uint8] | None, size: tuple[int, ...]) -> NDArray[np.uint8]:
    """Returns a pale grey copy (H, W, 3) of an image to paint on, plain grey without one."""
    grey = np.full(size, 200.0) if image is None else image.mean(axis=2)
    return np.repeat((165 + 0.33 * grey)[..., None], 3, axis=2).astype(np.uint8)


def _near_border(truth: NDArray[np.uint8], valid: NDArray[np.bool_], width_px: float) -> NDArray[np.bool_]:
    """Marks pixels within ``width_px`` of a change between valid classes, as the counts in metrics.json do."""
    border = np.zeros(truth.shape, dtype=bool)
    for first, second in (
        ((slice(1, None), slice(None)), (slice(None, -1), slice(None))),
        ((slice(None), slice(1, None)), (slice(None), slice(None, -1))),
    ):
        differs = (truth[first] != truth[second]) & valid[first] & valid[second]
        border[first] |= differs
        border[second] |= differs
    if not border.any():
        return border
    near: NDArray[np.bool_] = distance_transform_edt(~border) <= width_px
    return near


def _fitting(pixels: NDArray[np.uint8], how: Image.Resampling, *, enlarged: bool) -> Image.Image:
    """Scales a picture down to ``_SIDE``; a small one, where asked for, up by a whole factor, which keeps it sharp."""
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    longest = max(picture.size)
    if longest <= _SIDE:
        factor = _SIDE // longest if enlarged else 1
        return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    scale = _SIDE / longest
    return picture.resize((max(round(picture.width * scale), 1), max(round(picture.height * scale), 1)), how)


def photo_uri(pixels: NDArray[np.uint8], *, enlarged: bool = False) -> str:
    """Encodes a photograph, or a painting over one, as a data URI."""
    return _data_uri(_fitting(pixels, Image.Resampling.LANCZOS, enlarged=enlarged), "jpeg", quality=84, subsampling=0)


def flat_uri(pixels: NDArray[np.uint8]) -> str:
    """Encodes a painted label map: no colour between two classes may appear, so the nearest pixel is taken."""
    picture = _fitting(pixels, Image.Resampling.NEAREST, enlarged=True)
    return _data_uri(picture.quantize(256, dither=Image.Dither.NONE), "png", optimize=True)


def _data_uri(picture: Image.Image, kind: str, **options: Any) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
