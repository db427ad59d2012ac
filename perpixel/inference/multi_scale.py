"""Multi-scale and flipped inference: the image in several sizes, plain and mirrored, and the mean of what is seen.

Shapes: B batch, C image channels, K classes, H W image, h w view.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from perpixel.data.image_files import MAX_PIXELS
from perpixel.errors import InvalidValue
from perpixel.inference.procedures import (
    BOTH,
    PLAIN,
    Average,
    Orientations,
    Scorer,
    add_scores,
    check_choice,
    check_scales,
    stretched,
)
from perpixel.inference.score_map import ScoreMap
from perpixel.inference.sliding import Windows
from perpixel.ops.normalize import normalize

__all__ = ["SCALES", "MultiScale"]

_MOST_STRETCHED = 1.125
"""A view that is further from what the network takes is padded instead."""

SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
"""The usual list (PSPNet, arXiv:1612.01105, section 5.1)."""


@dataclass(frozen=True, kw_only=True)
class MultiScale:
    """Mean over scales, and over mirrored views, of softmaxes at the image's size: perpixel's own multi-scale test.

    A view is the normalised image, resized bilinearly with smoothing where it shrinks, as in training; its sides are
    rounded up to what the network takes, where that is near. Its scores are resized to the image before softmax. Beside
    the network's own memory it takes one running sum (B, K, H, W), and with windows one map (B, K, h, w) more.

    Raises:
        InvalidValue: scales, average or the limit are not usable, or a scale makes more than 178 million pixels.
    """

    scales: Sequence[float] = SCALES
    flip: bool = True
    average: Average = "probabilities"
    windows: Windows | None = None
    """Windows over each view; None runs it whole."""
    pixels_at_once: int = 2**20
    """A view goes through the network together with its mirror image up to this many pixels of both."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "scales", check_scales(self.scales))
        check_choice("average", self.average, Average)
        if self.pixels_at_once < 1:
            raise InvalidValue(f"pixels_at_once is at least 1, got {self.pixels_at_once}")

    @torch.inference_mode()
    def __call__(self, scorer: Scorer, images: Tensor, /) -> ScoreMap:
        """Returns the mean of all views at the images' size; one plain view at scale 1 is the whole image."""
        size = (int(images.shape[-2]), int(images.shape[-1]))
        if tuple(self.scales) == (1.0,) and not self.flip and self._one_window(*size):
            return scorer.image_scores(images)
        x = normalize(images.to(scorer.device), scorer.preprocessing)
        shape = (images.shape[0], scorer.num_classes, *size)
        total = torch.zeros(shape, dtype=scorer.score_dtype, device=scorer.device)
        for scale in self.scales:
            self._add(total, scorer, _view(x, scale, scorer))
        total /= len(self.scales) * (2 if self.flip and self.windows is None else 1)
        return ScoreMap(
            logits=total,
            covered=size,
            size=size,
            align_corners=False,
            probabilities=self.average == "probabilities",
        )

    def _add(self, total: Tensor, scorer: Scorer, view: Tensor) -> None:
        if self.windows is None:
            for orientations in self._passes(view):
                scores = scorer.input_scores(view, orientations=orientations)
                add_scores(total, stretched(scores, (total.shape[-2], total.shape[-1])), self.average)
            return
        mean = self.windows.scores(scorer, view, flip=self.flip, average=self.average)
        size = (int(total.shape[-2]), int(total.shape[-1]))
        # A mean of softmaxes is resized as it is: nothing is left to normalise.
        add_scores(total, ScoreMap(logits=mean, covered=size, size=size, align_corners=False), "logits")

    def _passes(self, view: Tensor) -> tuple[Orientations, ...]:
        if not self.flip:
            return (PLAIN,)
        pixels = 2 * view.shape[0] * view.shape[-2] * view.shape[-1]
        return (BOTH,) if pixels <= self.pixels_at_once else (PLAIN, (True,))

    def _one_window(self, height: int, width: int) -> bool:
        return self.windows is None or len(self.windows.grid(height, width).corners) == 1


def _view(x: Tensor, scale: float, scorer: Scorer) -> Tensor:
    """Resizes normalised images (B, C, H, W); at scale 1 they stay as they are."""
    if scale == 1:
        return x
    height, width = (max(1, round(side * scale)) for side in x.shape[-2:])
    if height * width > MAX_PIXELS:
        raise InvalidValue(
            f"scale {scale:g} makes {height} x {width} pixels of {x.shape[-2]} x {x.shape[-1]}, more than the "
            f"{MAX_PIXELS} of the largest view; give a smaller scale (1 is the image's own size)"
        )
    size = scorer.fitting_size(height, width)
    if size[0] > _MOST_STRETCHED * height or size[1] > _MOST_STRETCHED * width:
        size = (height, width)
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False, antialias=True)
