"""Pictures of label maps: palette PNG masks, overlays and error maps, written whole or not at all.

Shapes: C image channels, H W image. Pictures are (H, W, 3) uint8 RGB arrays.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from perpixel.errors import InvalidValue, RunError
from perpixel.labels import LabelSpace

__all__ = ["display_image", "error_map", "overlay", "save_picture", "write_mask"]

_WRONG = (220, 30, 30)
_IGNORED = (38, 46, 66)
_DIM = 0.45
_LUMINANCE = np.array([0.299, 0.587, 0.114])
_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
_JPEG_QUALITY = 90


def write_mask(path: str | Path, train_ids: NDArray[np.uint8], labels: LabelSpace) -> Path:
    """Writes train ids (H, W) as PNG with the ids that ``labels`` stores: mode P with its palette, 16-bit over 255.

    Raises:
        InvalidValue: the name does not end in .png, or the array is not (H, W) uint8.
        RunError: the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise InvalidValue(f"{path}: masks are written as PNG, because it keeps ids exactly; end the name in .png")
    _check_map("train_ids", train_ids)
    stored = labels.decode(train_ids)
    picture = Image.fromarray(np.ascontiguousarray(stored))
    if stored.dtype == np.uint8:
        picture.putpalette(labels.palette())
    return save_picture(path, picture)


def save_picture(path: str | Path, picture: Image.Image) -> Path:
    """Writes a picture under a temporary name and renames it, making folders as needed; never leaves half a file.

    Raises:
        InvalidValue: the suffix is not .png, .jpg or .jpeg.
        RunError: the file cannot be written.
    """
    path = Path(path)
    file_format = _FORMATS.get(path.suffix.lower())
    if file_format is None:
        raise InvalidValue(f"{path}: pictures are written as {', '.join(_FORMATS)}, got suffix {path.suffix!r}")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    options: dict[str, Any] = {"quality": _JPEG_QUALITY} if file_format == "JPEG" else {}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            picture.save(temporary, format=file_format, **options)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error}. Check the folder's rights and the free space.") from error
    return path


def display_image(image: Tensor) -> NDArray[np.uint8]:
    """Returns raw pixels (C, H, W), uint8 or 16-bit int32, as a picture (H, W, 3) to look at.

    Fewer than three channels show the first as grey, more than three the first three as RGB; of 16 bits the upper 8.
    """
    pixels = image.cpu()
    pixels = pixels[:3] if pixels.shape[0] >= 3 else pixels[:1].expand(3, -1, -1)
    values = pixels.permute(1, 2, 0).numpy()
    return np.ascontiguousarray(values if values.dtype == np.uint8 else (values >> 8).astype(np.uint8))


def overlay(
    image: NDArray[np.uint8],
    train_ids: NDArray[np.uint8],
    labels: LabelSpace,
    alpha: float = 0.5,
    *,
    border: bool = True,
) -> NDArray[np.uint8]:
    """Mixes class colours into a picture; ignored pixels keep the picture's colour.

    Args:
        image: Picture (H, W, 3).
        train_ids: Classes (H, W), 255 where ignored.
        labels: Gives the colours.
        alpha: Weight of the colours in [0, 1].
        border: Draws pixels with a right or lower neighbour of another class in full colour.

    Raises:
        InvalidValue: ``alpha`` is outside [0, 1] or sizes differ.
    """
    if not 0 <= alpha <= 1:
        raise InvalidValue(f"alpha is the weight of the colours in [0, 1], got {alpha}")
    _check_picture(image, train_ids)
    weight = np.full(train_ids.shape, alpha, dtype=np.float32)
    if border:
        weight[:-1][train_ids[1:] != train_ids[:-1]] = 1
        weight[:, :-1][train_ids[:, 1:] != train_ids[:, :-1]] = 1
    weight[train_ids == labels.ignore_index] = 0
    weight = weight[..., None]
    mixed = image * (1 - weight) + labels.colorize(train_ids) * weight
    return np.rint(mixed).astype(np.uint8)


def error_map(
    prediction: NDArray[np.uint8],
    target: NDArray[np.uint8],
    labels: LabelSpace,
    image: NDArray[np.uint8] | None = None,
) -> NDArray[np.uint8]:
    """Shows where a prediction is wrong (red), right (dim grey) and not judged (blue-grey).

    Args:
        prediction: Predicted train ids (H, W).
        target: True train ids (H, W), 255 where ignored.
        labels: Gives the colours whose brightness stands for right pixels when there is no picture.
        image: Picture (H, W, 3) whose brightness right pixels show.

    Raises:
        InvalidValue: sizes differ.
    """
    if prediction.shape != target.shape:
        raise InvalidValue(f"prediction is {prediction.shape}, target {target.shape}; both must have one size")
    if image is not None:
        _check_picture(image, target)
    ground = labels.colorize(target) if image is None else image
    grey = np.rint(ground @ _LUMINANCE * _DIM).astype(np.uint8)
    picture = np.repeat(grey[..., None], 3, axis=2)
    ignored = target == labels.ignore_index
    picture[(prediction != target) & ~ignored] = _WRONG
    picture[ignored] = _IGNORED
    return picture


def _check_map(name: str, labels: NDArray[Any]) -> None:
    if labels.ndim != 2 or labels.dtype != np.uint8:
        raise InvalidValue(f"{name} must be (H, W) uint8, got {labels.shape} {labels.dtype}")


def _check_picture(image: NDArray[Any], train_ids: NDArray[Any]) -> None:
    _check_map("train_ids", train_ids)
    if image.shape != (*train_ids.shape, 3):
        raise InvalidValue(
            f"the picture must be (H, W, 3) = {(*train_ids.shape, 3)} like the classes, got {image.shape}"
        )
