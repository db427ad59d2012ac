"""Random geometry of training samples, on integers and window first.

A `Window` is drawn from numbers alone; `apply` then resizes only the source pixels that survive the crop. The result
is that of the plain way, "resize the whole image by the factor, crop, pad, flip": labels bit for bit, 8- and 16-bit
images to one grey level (the resize kernel chooses its integer weights' precision per call).

That is possible because the factor is a fraction q/p with q <= 32: output pixel x looks at source (x + 1/2) p/q, so
every q-th output pixel falls on the same spot of a source pixel, and a window that starts at a multiple of p has the
sampling grid of the whole image; a few output rows and columns are computed and dropped for it. A drawn factor moves
to the nearest such fraction: by 2 % at most up to factor 4, and not at all for the published lists (0.5, 0.75, 1, …).

Sizes are (height, width); C channels. Labels use nearest with half-pixel centres ("nearest-exact"), which is the grid
of the bilinear images; images use bilinear with antialiasing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from perpixel.data.augment.settings import Augment
from perpixel.errors import InvalidValue
from perpixel.ops.normalize import FULL_SCALE

__all__ = [
    "Augmentation",
    "Window",
    "apply",
    "check_sample",
    "draw",
    "draw_jitter",
    "labels_inside",
    "part_inside",
    "sample_rng",
]

Step: TypeAlias = tuple[int, int]
IGNORE_INDEX = 255
SCALE_LIMITS = (1 / 16, 16.0)
_MAX_PERIOD = 32  # largest q: output pixels after which the sampling grid repeats


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What may happen to a training sample; every drawn number comes from the generator that is handed in.

    Raises:
        InvalidValue: a field is outside its range, or both ``scales`` and ``scale_range`` are given.
    """

    crop_size: tuple[int, int]
    scales: tuple[float, ...] | None = None
    """Resize factors to choose from, each as likely; None with no ``scale_range`` leaves the size alone."""
    scale_range: tuple[float, float] | None = None
    """Smallest and largest resize factor; the factor itself is uniform (not its logarithm), as published code does."""
    flip: float = 0.5
    """Probability of a horizontal flip."""
    brightness: float = 0.0
    """Strength v in [0, 1]: the factor is uniform in [1 - v, 1 + v]. The same holds for the next two."""
    contrast: float = 0.0
    saturation: float = 0.0
    class_crop: float = 0.0
    """Probability that the crop is placed, at random, around a pixel of a class that is drawn uniformly from the
    classes in the sample: thin classes then come as often as wide ones."""
    elastic: float = 0.0
    """Standard deviation in pixels of the grid displacements of `data.elastic`; 0 deforms nothing. A deformed window
    mirrors the image where it leaves it, instead of being padded."""
    elastic_grid: int = 3
    """Grid points per side of the window."""
    rotation: float = 0.0
    """Largest angle in degrees, in [0, 180]: the window is turned about its centre by an angle uniform in
    [-rotation, rotation], together with the displacements of ``elastic`` and mirrored as there."""
    mirror: int = 0
    """Pixels of mirrored image, before resizing, that windows may reach beyond each edge."""
    augment: Augment | None = None
    """Everything else, done by `data.augment.pipeline`; `draw`, `draw_jitter` and `apply` know nothing of it."""

    def __post_init__(self) -> None:
        if len(self.crop_size) != 2 or min(self.crop_size) < 1:
            raise InvalidValue(f"crop_size is (height, width), both at least 1; got {self.crop_size}")
        if self.scales is not None and self.scale_range is not None:
            raise InvalidValue(f"give scales {self.scales} or scale_range {self.scale_range}, not both")
        if self.scale_range is not None and (len(self.scale_range) != 2 or self.scale_range[0] > self.scale_range[1]):
            raise InvalidValue(f"scale_range is (smallest, largest), got {self.scale_range}")
        if self.scales is not None and not self.scales:
            raise InvalidValue("scales is empty; leave it out to keep the size")
        low, high = SCALE_LIMITS
        for scale in (*(self.scales or ()), *(self.scale_range or ())):
            if not low <= scale <= high:
                raise InvalidValue(f"resize factors lie in [{low}, {high}], got {scale}")
        for name in ("flip", "brightness", "contrast", "saturation", "class_crop"):
            if not 0 <= getattr(self, name) <= 1:
                raise InvalidValue(f"{name} lies in [0, 1], got {getattr(self, name)}")
        if not 0 <= self.elastic < math.inf or self.elastic_grid < 2:
            raise InvalidValue(
                f"elastic is 0 or more pixels and elastic_grid 2 or more points, got {self.elastic} and "
                f"{self.elastic_grid}"
            )
        if not 0 <= self.rotation <= 180:
            raise InvalidValue(f"rotation is the largest angle either way, in [0, 180] degrees, got {self.rotation}")
        if self.mirror < 0:
            raise InvalidValue(f"mirror is 0 or more pixels, got {self.mirror}")
        if self.augment and self.augment.affine and self.augment.border == "fill" and (self.elastic or self.rotation):
            raise InvalidValue(
                "elastic and rotation mirror the image beyond its edge, and augment.border is 'fill': set it to "
                "'mirror', or turn by augment.rotate alone"
            )


class Window(NamedTuple):
    """The geometry of one sample: plain integers, drawn before any pixel is touched."""

    step: Step
    """(p, q): the image is resized by q/p; the step between output pixels is p/q source pixels."""
    scaled: tuple[int, int]
    """Size of the whole image after resizing: floor(size * q / p)."""
    crop: tuple[int, int]
    """Size of the result."""
    corner: tuple[int, int]
    """Top and left of the crop in the scaled image; negative where the crop is larger: so many are padded there."""
    flip: bool
    """Whether the result is mirrored left to right, padding included, as the last step."""


def sample_rng(seed: int, epoch: int, index: int) -> np.random.Generator:
    """Returns the generator of one sample; it depends on the three numbers (all >= 0) alone."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(epoch, index))))


def draw(
    augmentation: Augmentation, size: tuple[int, int], rng: np.random.Generator, target: Tensor | None = None
) -> Window:
    """Draws the geometry of one sample.

    Scale, then the crop's corner, uniform over all positions; along a side where the scaled image is smaller than the
    crop it is centred (the odd pixel of padding comes last). An image that would come out less than two pixels high or
    wide keeps its size.

    Args:
        augmentation: What may happen.
        size: Of the image before resizing.
        rng: Always gives eight numbers, so that one setting does not shift what the next ones draw.
        target: (H, W) uint8 train ids; needed when ``class_crop`` is not zero.

    Raises:
        InvalidValue: ``class_crop`` is set and there is no target.
    """
    scale_draw, top_draw, left_draw, flip_draw, *class_draws = rng.random(8).tolist()
    p, q = _step(_pick_scale(augmentation, scale_draw))
    if min(size) * q < 2 * p:
        p, q = 1, 1
    scaled = size[0] * q // p, size[1] * q // p
    focus = None
    if augmentation.class_crop > 0:
        if target is None:
            raise InvalidValue(f"class_crop {augmentation.class_crop} needs the target to find its classes")
        if class_draws[0] < augmentation.class_crop:
            focus = _class_pixel(target, class_draws[1], class_draws[2])
    corner = tuple(
        _corner(scaled[axis], augmentation.crop_size[axis], position, None if focus is None else focus[axis], p, q)
        for axis, position in enumerate((top_draw, left_draw))
    )
    return Window((p, q), scaled, augmentation.crop_size, (corner[0], corner[1]), flip_draw < augmentation.flip)


def draw_jitter(augmentation: Augmentation, rng: np.random.Generator) -> tuple[float, float, float]:
    """Draws the factors of brightness, contrast and saturation that `ops.normalize` takes."""
    b, c, s = (2 * rng.random(3) - 1).tolist()
    return 1 + b * augmentation.brightness, 1 + c * augmentation.contrast, 1 + s * augmentation.saturation


def apply(
    window: Window, image: Tensor, target: Tensor, *, pad_value: tuple[float, ...], ignore_index: int = IGNORE_INDEX
) -> tuple[Tensor, Tensor]:
    """Cuts the window out of a sample.

    Args:
        window: Drawn for this sample's size.
        image: (C, H, W) uint8, or int32 for 16-bit values. Fastest when its memory is (H, W, C), as decoders give it.
        target: (H, W) uint8 train ids.
        pad_value: Fill per channel as a fraction of the full scale; rounded to the nearest grey level.
        ignore_index: Fill of the target.

    Returns:
        Image (C, *crop) with (H, W, C) memory and target (*crop), both new.

    Raises:
        InvalidValue: dtype, sizes, window or pad_value do not belong together.
    """
    check_sample(window, image, target)
    _check_padding(pad_value, image.shape[0])
    height, width = window.crop
    top, left = window.corner
    rows, columns = _inside(window)
    pixels = _resized(image, *_steps(window, image), rows, columns)  # (C, h, w)
    labels = _resized_labels(target.numpy(), *_steps(window, image), rows, columns, mirrored=window.flip)
    if window.flip:
        pixels = pixels.flip(-1)
        left = window.scaled[1] - left - width  # the corner as the mirrored crop sees it
    inside = (
        slice(max(0, -top), max(0, -top) + rows[1] - rows[0]),
        slice(max(0, -left), max(0, -left) + columns[1] - columns[0]),
    )
    levels = [round(value * FULL_SCALE[image.dtype]) for value in pad_value]
    # Memory (H, W, C): rows of w * C values are copied in one piece, and padding is one row repeated.
    out_image = np.empty((height, width, image.shape[0]), dtype=pixels.numpy().dtype)
    out_target = np.empty((height, width), dtype=np.uint8)
    if pixels.shape[1:] != (height, width):
        out_image.reshape(height, -1)[:] = np.tile(np.array(levels, dtype=out_image.dtype), width)
        out_target[:] = ignore_index
    out_image[inside] = pixels.permute(1, 2, 0).numpy()
    out_target[inside] = labels
    return torch.from_numpy(out_image).permute(2, 0, 1), torch.from_numpy(out_target)


def part_inside(window: Window, image: Tensor, target: Tensor) -> tuple[Tensor, NDArray[np.uint8]]:
    """Returns what a window shows of a sample, not flipped and not padded, as (C, h, w) and (h, w).

    It may be a view of the sample. Raises as `apply` does.
    """
    check_sample(window, image, target)
    steps, spans = _steps(window, image), _inside(window)
    return _resized(image, *steps, *spans), _resized_labels(target.numpy(), *steps, *spans, mirrored=False)


def labels_inside(window: Window, target: Tensor) -> NDArray[np.uint8]:
    """Returns the labels of the part of a window that lies inside the image, not flipped; target is (H, W) uint8."""
    return _resized_labels(target.numpy(), *_steps(window, target), *_inside(window), mirrored=False)


def _inside(window: Window) -> tuple[tuple[int, int], tuple[int, int]]:
    """Rows and columns (start, stop) of the scaled image that the window shows."""
    (top, left), (height, width), scaled = window.corner, window.crop, window.scaled
    return (max(0, top), min(scaled[0], top + height)), (max(0, left), min(scaled[1], left + width))


def _steps(window: Window, sample: Tensor) -> tuple[Step, Step]:
    """Steps along rows and columns of a sample (..., H, W)."""
    # The kernel copies a side whose size stays as it is (possible below 32 pixels); the labels follow it.
    height, width = sample.shape[-2:]
    return (
        (1, 1) if height == window.scaled[0] else window.step,
        (1, 1) if width == window.scaled[1] else window.step,
    )


def _pick_scale(augmentation: Augmentation, position: float) -> float:
    if augmentation.scales is not None:
        return augmentation.scales[int(position * len(augmentation.scales))]
    if augmentation.scale_range is not None:
        low, high = augmentation.scale_range
        return low + position * (high - low)
    return 1.0


@lru_cache(maxsize=4096)
def _step(scale: float) -> Step:
    """The fraction nearest to 1 / scale with a denominator of 32 at most: the one of `Fraction.limit_denominator`."""
    numerator, denominator = (1 / scale).as_integer_ratio()
    whole = numerator // denominator
    (low, low_period), (high, high_period) = (whole, 1), (whole + 1, 1)
    # Neighbours in a Farey sequence: the next fraction between them has the sums of their parts.
    while low_period + high_period <= _MAX_PERIOD:
        middle, period = low + high, low_period + high_period
        if middle * denominator <= numerator * period:
            low, low_period = middle, period
        else:
            high, high_period = middle, period
    below = (numerator * low_period - low * denominator) * high_period
    above = (high * denominator - numerator * high_period) * low_period
    return (low, low_period) if (below, low_period) < (above, high_period) else (high, high_period)


def _class_pixel(target: Tensor, class_draw: float, pixel_draw: float) -> tuple[int, int] | None:
    """Row and column of a pixel of a class drawn uniformly; None when every pixel is ignored."""
    labels = target.numpy().reshape(-1)
    counts = np.bincount(labels, minlength=IGNORE_INDEX + 1)[:IGNORE_INDEX]
    present = np.flatnonzero(counts)
    if not len(present):
        return None
    label = present[int(class_draw * len(present))]
    position = int(np.flatnonzero(labels == label)[int(pixel_draw * counts[label])])
    return divmod(position, target.shape[1])


def _corner(scaled: int, crop: int, position: float, focus: int | None, p: int, q: int) -> int:
    """Start of the crop along one side; ``focus`` is a source pixel that it has to contain."""
    if scaled <= crop:
        return -((crop - scaled) // 2)
    first, last = 0, scaled - crop
    if focus is not None:
        pixel = min(scaled - 1, (2 * focus + 1) * q // (2 * p))
        first, last = max(first, pixel - crop + 1), min(last, pixel)
    return first + int(position * (last - first + 1))


def _resized(
    image: Tensor, row_step: Step, column_step: Step, rows: tuple[int, int], columns: tuple[int, int]
) -> Tensor:
    """Returns rows and columns (start, stop) of the image resized by q/p, without computing the rest."""
    if row_step == column_step == (1, 1):
        return image[:, rows[0] : rows[1], columns[0] : columns[1]]
    top, bottom, skip_rows = _source_span(*rows, image.shape[1], *row_step)
    left, right, skip_columns = _source_span(*columns, image.shape[2], *column_step)
    source = image[:, top:bottom, left:right]
    # The kernel floors size * factor in floating point: without the nudge 49 * (1 / 49) would give 0 pixels.
    factors = tuple(q / p * (1 + 2**-40) for p, q in (row_step, column_step))
    resized = F.interpolate(
        _interleaved(source) if image.dtype == torch.uint8 else source[None].to(torch.float32),
        scale_factor=factors,
        mode="bilinear",
        antialias=True,
    )[0, :, skip_rows : skip_rows + rows[1] - rows[0], skip_columns : skip_columns + columns[1] - columns[0]]
    return resized if image.dtype == torch.uint8 else resized.round_().to(image.dtype)


def _source_span(start: int, stop: int, size: int, p: int, q: int) -> tuple[int, int, int]:
    """Source pixels [first, last) that outputs [start, stop) need, and how many outputs to drop at the beginning.

    The first one is a multiple of p, and filters that reach beyond the window are those that leave the image.
    """
    reach = 2 * max(p, q)  # half-width of the antialiasing triangle, in 1 / (2 q) of a pixel as all that follows
    first_needed = ((2 * start + 1) * p - reach) // (2 * q) - 1
    last_needed = -(-((2 * stop - 1) * p + reach) // (2 * q)) + 1
    # Enlarging less than p / (q - p) pixels adds none, and then the kernel copies instead of resampling. Below two
    # outputs PyTorch's kernel misreads strides (2.14: planar results one column wide are wrong).
    smallest = max(-(-p // (q - p)) if q > p else 1, -(-2 * p // q))
    block = max(0, min(start // q, first_needed // p, (size - smallest) // p))
    last = min(size, max(last_needed, -(-stop * p // q), block * p + smallest))
    return block * p, last, start - block * q


def _interleaved(source: Tensor) -> Tensor:
    """Returns the 8-bit window (C, h, w) as (1, C, h, w) whose memory is (h, w, C), which the kernel takes as it is."""
    if not 2 <= source.shape[0] <= 4:
        return source[None]
    if source.stride(0) == 1:
        return source.permute(1, 2, 0)[None].permute(0, 3, 1, 2)  # source[None] would not be seen as channels_last
    planes = source.numpy()
    pixels = np.empty((*planes.shape[1:], planes.shape[0]), dtype=np.uint8)
    for channel, plane in enumerate(planes):  # NumPy, plane by plane: 3-5 times faster than permute + contiguous
        pixels[..., channel] = plane
    return torch.from_numpy(pixels)[None].permute(0, 3, 1, 2)


def _resized_labels(
    labels: NDArray[np.uint8],
    row_step: Step,
    column_step: Step,
    rows: tuple[int, int],
    columns: tuple[int, int],
    *,
    mirrored: bool,
) -> NDArray[np.uint8]:
    if row_step == column_step == (1, 1):
        kept = labels[rows[0] : rows[1], columns[0] : columns[1]]
        return kept[:, ::-1] if mirrored else kept
    (p, q), (s, t) = row_step, column_step
    row_index = (2 * np.arange(*rows) + 1) * p // (2 * q)
    column_index = (2 * np.arange(*columns) + 1) * s // (2 * t)
    picked: NDArray[np.uint8] = labels[row_index][:, column_index[::-1] if mirrored else column_index]
    return picked


def check_sample(window: Window, image: Tensor, target: Tensor) -> None:
    if image.dtype not in FULL_SCALE or image.ndim != 3:
        raise InvalidValue(
            f"an image is (C, H, W) uint8, or int32 for 16-bit values; got {tuple(image.shape)} {image.dtype}"
        )
    size = tuple(image.shape[1:])
    if tuple(target.shape) != size or target.dtype != torch.uint8:
        raise InvalidValue(
            f"the target of an image of size {size} is as large and uint8; got {tuple(target.shape)} {target.dtype}"
        )
    p, q = window.step
    if (size[0] * q // p, size[1] * q // p) != window.scaled:
        raise InvalidValue(f"the window was drawn for another image: {size} times {q}/{p} is not {window.scaled}")


def _check_padding(pad_value: tuple[float, ...], channels: int) -> None:
    if len(pad_value) != channels or not all(0 <= value <= 1 for value in pad_value):
        raise InvalidValue(
            f"pad_value holds one fraction of the full scale in [0, 1] per channel ({channels}); got {pad_value}"
        )
