"""A transform of the user's own as the last step: any callable from image and mask to image and mask.

It is called in one of three ways. ``arrays``: ``f(image, mask)`` with (H, W, C) and (H, W) uint8 arrays returns the
pair. ``albumentations``: ``f(image=…, mask=…)`` returns a mapping with these keys. ``torchvision``: ``f(image, mask)``
with `tv_tensors.Image` (C, H, W) and `tv_tensors.Mask` (H, W).

Toolkits fill masks with 0 where a transform leaves the image, which would turn the outside into class 0. So the mask
that a toolkit gets holds each id plus one, and 0 means ignored: its fill comes back as 255. A fill of 255 that was
asked for comes back as 255 too, where the sample has no id 254.

The random generators of Python, NumPy and PyTorch are seeded per sample and put back afterwards; a transform with
generators of its own is seeded by its ``set_random_seed`` (as albumentations has), or must not have any.
"""

from __future__ import annotations

import importlib
import importlib.util
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision import tv_tensors

from perpixel.data.augment.settings import PluggedStyle
from perpixel.errors import DataError, InvalidValue

__all__ = ["PluggedByName", "call_plugged"]

_IGNORED = 255


class PluggedByName:
    """The callable ``module:name`` or ``path/file.py:name``, found when it is made; workers find it again.

    Raises:
        InvalidValue: there is no such module or name, or it cannot be called.
    """

    def __init__(self, spec: str) -> None:
        self.spec = spec
        self.callable = _find(spec)

    def __reduce__(self) -> tuple[type[PluggedByName], tuple[str]]:
        return PluggedByName, (self.spec,)

    def __repr__(self) -> str:
        return self.spec

    def __call__(self, *values: Any, **named: Any) -> Any:
        """Calls it."""
        return self.callable(*values, **named)


def call_plugged(
    transform: Callable[..., Any],
    style: PluggedStyle,
    pixels: NDArray[np.uint8],
    labels: NDArray[np.uint8],
    seed: int,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Returns what the transform makes of image (H, W, C) and labels (H, W), both new.

    Args:
        transform: The callable.
        style: How it is called.
        pixels: 8-bit image.
        labels: Train ids, 255 where ignored.
        seed: Of the random generators, in [0, 2^32).

    Raises:
        DataError: the result has another size, type or number of channels, or holds an id that was not there; or the
            image has 16 bits.
    """
    if pixels.dtype != np.uint8:
        raise DataError(f"{_named(transform)}: transforms of your own get 8-bit images, and these have 16 bits")
    inner = transform.callable if isinstance(transform, PluggedByName) else transform
    style = _style(inner) if style == "auto" else style
    call = {"arrays": _with_arrays, "albumentations": _as_albumentations, "torchvision": _as_torchvision}[style]
    shown = labels.copy() if style == "arrays" else labels + np.uint8(1)
    with _seeded(inner, seed):
        image, mask = call(transform, pixels.copy(), shown)
    _check(transform, image, mask, pixels)
    if style != "arrays":
        mask = mask - np.uint8(1)
        if not (labels == _IGNORED - 1).any():
            mask[mask == _IGNORED - 1] = _IGNORED
    new = set(np.unique(mask).tolist()) - set(np.unique(labels).tolist()) - {_IGNORED}
    if new:
        raise DataError(
            f"{_named(transform)} put ids {sorted(new)} into a mask that has only {np.unique(labels).tolist()}: masks "
            "are moved by nearest neighbour, never blended, and filled with 255"
        )
    return np.ascontiguousarray(image), np.ascontiguousarray(mask)


def _with_arrays(transform: Callable[..., Any], pixels: NDArray[np.uint8], labels: NDArray[np.uint8]) -> Any:
    return _pair(transform, transform(pixels, labels))


def _as_albumentations(transform: Callable[..., Any], pixels: NDArray[np.uint8], labels: NDArray[np.uint8]) -> Any:
    result = transform(image=pixels, mask=labels)
    if not isinstance(result, dict) or not {"image", "mask"} <= result.keys():
        raise DataError(f"{_named(transform)} returns {type(result).__name__}, not a mapping with image and mask")
    return result["image"], result["mask"]


def _as_torchvision(transform: Callable[..., Any], pixels: NDArray[np.uint8], labels: NDArray[np.uint8]) -> Any:
    image = tv_tensors.Image(torch.from_numpy(pixels).permute(2, 0, 1))
    result = transform(image, tv_tensors.Mask(torch.from_numpy(labels)))
    changed, mask = _pair(transform, result)
    if not isinstance(changed, torch.Tensor) or not isinstance(mask, torch.Tensor) or changed.ndim != 3:
        raise DataError(f"{_named(transform)} returns something other than image and mask tensors")
    return changed.as_subclass(torch.Tensor).permute(1, 2, 0).numpy(), mask.as_subclass(torch.Tensor).numpy()


def _pair(transform: Callable[..., Any], result: Any) -> tuple[Any, Any]:
    if not isinstance(result, tuple | list) or len(result) != 2:
        raise DataError(f"{_named(transform)} returns {type(result).__name__}, not the pair of image and mask")
    return result[0], result[1]


def _check(transform: Callable[..., Any], image: Any, mask: Any, pixels: NDArray[np.uint8]) -> None:
    for what, value, shape in (("image", image, pixels.shape), ("mask", mask, pixels.shape[:2])):
        if not isinstance(value, np.ndarray) or value.dtype != np.uint8 or value.shape != shape:
            found = f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
            raise DataError(
                f"{_named(transform)} returns {what} as {found}, and it must stay uint8 {shape}: crop and resize by "
                "data.crop_size and data.scales, normalise nothing"
            )


@contextmanager
def _seeded(transform: Any, seed: int) -> Iterator[None]:
    python, array, tensor = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)
    if hasattr(transform, "set_random_seed"):
        transform.set_random_seed(seed)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(array)  # noqa: NPY002
        torch.set_rng_state(tensor)


def _style(transform: Any) -> PluggedStyle:
    origin = type(transform).__module__.split(".")[0]
    if origin == "albumentations":
        return "albumentations"
    return "torchvision" if origin == "torchvision" else "arrays"


def _named(transform: Any) -> str:
    name = repr(transform) if isinstance(transform, PluggedByName) else getattr(transform, "__name__", None)
    return f"augment.plugged {name or type(transform).__name__}"


def _find(spec: str) -> Callable[..., Any]:
    place, _, name = spec.rpartition(":")
    if not place or not name.isidentifier():
        raise InvalidValue(f"augment.plugged is 'module:name' or 'path/file.py:name', got {spec!r}")
    module = _from_file(Path(place), spec) if place.endswith(".py") else _from_module(place, spec)
    found = getattr(module, name, None)
    if not callable(found):
        raise InvalidValue(f"augment.plugged {spec!r}: {place} has no callable {name!r}")
    return found  # type: ignore[no-any-return]


def _from_module(name: str, spec: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InvalidValue(
            f"augment.plugged {spec!r}: {error}; give a module that Python finds, or the path of a .py file"
        ) from error


def _from_file(path: Path, spec: str) -> ModuleType:
    if not path.is_file():
        raise InvalidValue(f"augment.plugged {spec!r}: there is no file {path}")
    name = f"perpixel_plugged_{path.stem}"
    found = importlib.util.spec_from_file_location(name, path)
    if found is None or found.loader is None:
        raise InvalidValue(f"augment.plugged {spec!r}: {path} cannot be loaded as Python")
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module
    found.loader.exec_module(module)
    return module
