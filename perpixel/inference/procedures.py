"""Procedures: how the scores of an image at its own size come about from a network's runs.

A `Segmenter` holds a procedure and hands itself over as the `Scorer`; without one, it runs the whole image once.

Shapes: B batch, C image channels, K classes, H W image, h w score map, V orientations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite, prod
from typing import Literal, Protocol, TypeAlias, get_args

import torch
from torch import Tensor

from perpixel.errors import InvalidValue, nearest
from perpixel.inference.score_map import ScoreMap
from perpixel.ops.resize import resize
from perpixel.types import Preprocessing

__all__ = [
    "BOTH",
    "PLAIN",
    "Average",
    "Orientations",
    "Procedure",
    "Scorer",
    "WholeImage",
    "add_scores",
    "check_choice",
    "check_pair",
    "check_scales",
    "stretched",
]

Average = Literal["probabilities", "logits"]
"""What is averaged over views: softmaxes at the image's size, or the scores before softmax."""
Orientations: TypeAlias = tuple[bool, ...]
"""The runs of an input: False as it is, True mirrored, its scores mirrored back."""

PLAIN: Orientations = (False,)
BOTH: Orientations = (False, True)

_BAND_VALUES = {"cpu": 2**19}
"""Scores that are brought to the image's size at once: what a core's cache holds."""
_BAND_VALUES_ELSEWHERE = 2**26


class Scorer(Protocol):
    """What a procedure asks of a `Segmenter`."""

    @property
    def num_classes(self) -> int: ...
    @property
    def preprocessing(self) -> Preprocessing: ...
    @property
    def margin(self) -> int: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def score_dtype(self) -> torch.dtype:
        """float32, or float64 for a network of that type."""
        ...

    def fitting_size(self, height: int, width: int) -> tuple[int, int]:
        """Returns the least size of an image, >= (height, width), that needs no padding but the network's margin."""
        ...

    def image_scores(self, images: Tensor) -> ScoreMap:
        """Scores raw images (B, C, H, W) whole."""
        ...

    def input_scores(self, x: Tensor, *, orientations: Orientations = PLAIN, with_margin: bool = False) -> ScoreMap:
        """Scores normalised images (B, C, H, W) in every orientation: (V B, K, h, w), the first orientation first.

        ``with_margin`` says that the images hold the network's margin already, which the scores do not cover.
        """
        ...


class Procedure(Protocol):
    """Makes the scores of raw images (B, C, H, W), uint8 or int32, at their own size."""

    def __call__(self, scorer: Scorer, images: Tensor, /) -> ScoreMap: ...


@dataclass(frozen=True, kw_only=True)
class WholeImage:
    """The whole image, once: what a Segmenter does without a procedure."""

    def __call__(self, scorer: Scorer, images: Tensor, /) -> ScoreMap:
        """Returns the scores at the network's resolution."""
        return scorer.image_scores(images)


def stretched(scores: ScoreMap, size: tuple[int, int]) -> ScoreMap:
    """Returns the map of a view as one of the image that the view shows, at the image's size."""
    if scores.size == tuple(size):
        return scores
    if scores.covered != scores.size:
        scores = replace(scores, logits=scores.full())
    return replace(scores, covered=size, size=size)


def add_scores(total: Tensor, scores: ScoreMap, average: Average) -> None:
    """Adds the scores of all orientations to a running sum (B, K, H, W), without a second map of its size.

    Args:
        total: Changed in place.
        scores: (V B, K, h, w) of the same images at their size.
        average: Whether softmaxes or the scores themselves are added.
    """
    batch = total.shape[0]
    if average == "logits":
        summed = scores.logits.reshape(-1, batch, *scores.logits.shape[1:]).sum(0)
        for k in range(total.shape[1]):
            total[:, k : k + 1] += resize(summed[:, k : k + 1], scores.covered, align_corners=scores.align_corners)[
                :, :, : scores.size[0], : scores.size[1]
            ]
        return
    height, width = scores.size
    wide = resize(scores.logits, (scores.logits.shape[-2], scores.covered[1]), align_corners=scores.align_corners)
    wide = wide[..., :width]  # (V B, K, h, W)
    above, below, weight = _rows(scores, total)
    views, classes = scores.logits.shape[:2]
    limit = _BAND_VALUES.get(total.device.type, _BAND_VALUES_ELSEWHERE)
    step = min(height, max(1, limit // (views * classes * width)))
    room = total.new_empty((2, views * classes * step * width))  # one for all bands, which stays in the cache
    for start in range(0, height, step):
        band = slice(start, min(start + step, height))
        shape = (views, classes, band.stop - start, width)
        rows, softmaxes = (part[: prod(shape)].view(shape) for part in room.unbind())
        if wide.shape[-2] == scores.covered[0]:
            rows = wide[:, :, band]
        else:
            torch.index_select(wide, 2, below[band], out=softmaxes)
            torch.index_select(wide, 2, above[band], out=rows)
            rows.lerp_(softmaxes, weight[band, None])
        torch.softmax(rows, 1, out=softmaxes)
        for view in torch.split(softmaxes, batch):
            total[:, :, band] += view


def _rows(scores: ScoreMap, total: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns for each row of the image both rows of the map, and the second one's weight, as PyTorch's resize does."""
    source, wanted = scores.logits.shape[-2], scores.covered[0]
    rows = torch.arange(scores.size[0], device=total.device, dtype=torch.float64)
    if scores.align_corners:
        position = rows * ((source - 1) / max(wanted - 1, 1))
    else:
        position = ((rows + 0.5) * (source / wanted) - 0.5).clamp_(min=0)
    above = position.long().clamp_(max=source - 1)
    return above, (above + 1).clamp_(max=source - 1), (position - above).to(total.dtype)


def check_scales(scales: Sequence[float]) -> tuple[float, ...]:
    """Returns the scales as a tuple.

    Raises:
        InvalidValue: there are none, or one is not positive and finite.
    """
    if not scales:
        raise InvalidValue("there are no scales; give at least one, such as 1.0 for the image's own size")
    for scale in scales:
        if not (isfinite(scale) and scale > 0):
            raise InvalidValue(f"scales are positive numbers, got {scale} in {tuple(scales)}")
    return tuple(float(scale) for scale in scales)


def check_pair(name: str, value: int | tuple[int, int], *, least: int = 1) -> tuple[int, int]:
    """Returns (height, width) of a number for both sides or a pair.

    Raises:
        InvalidValue: a side is less than ``least``, or there are not two.
    """
    pair = (value, value) if isinstance(value, int) else tuple(value)
    if len(pair) != 2 or any(not isinstance(side, int) or isinstance(side, bool) or side < least for side in pair):
        raise InvalidValue(f"{name} is one number of pixels >= {least} or (height, width), got {value}")
    return pair[0], pair[1]


def check_choice(name: str, value: str, choices: object) -> None:
    """Refuses a name that is not among those of a ``Literal``.

    Raises:
        InvalidValue: as said.
    """
    known = get_args(choices)
    if value not in known:
        raise InvalidValue(f"{name} is one of {', '.join(known)}, got {value!r}{nearest(value, known)}")
