"""Windows over an image: where they lie, how their scores are blended, and U-Net's overlap-tile.

Shapes: B batch, C image channels, K classes, H W image, N windows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from perpixel.errors import InvalidValue
from perpixel.inference.padding import mirrored
from perpixel.inference.procedures import BOTH, PLAIN, Average, Scorer, check_choice, check_pair
from perpixel.inference.score_map import ScoreMap
from perpixel.ops.normalize import normalize

__all__ = ["Blend", "Grid", "OverlapTile", "SlidingWindow", "Windows", "blend_weights", "slide", "window_starts"]

Blend = Literal["uniform", "smooth"]
Last = Literal["shifted", "padded"]
WindowScores: TypeAlias = Callable[[Tensor], Tensor]
"""Inputs of windows (N, C, h, w) to their scores (N, K, h, w)."""

_USUAL_STRIDE = 2 / 3


def window_starts(length: int, window: int, stride: int, *, last: Last = "shifted") -> tuple[int, ...]:
    """Returns where windows begin along one side: ``ceil((length - window) / stride) + 1`` of them, one at least.

    Args:
        length: Pixels of the image's side.
        window: Pixels of the window's side.
        stride: From one window to the next.
        last: A last window that would reach over the edge is ``shifted`` back to end there, or stays and is ``padded``.

    Raises:
        InvalidValue: a number is not positive, or the stride leaves pixels between windows.
    """
    check_choice("last", last, Last)
    for name, value in (("length", length), ("window", window), ("stride", stride)):
        if value < 1:
            raise InvalidValue(f"the {name} of windows is a number of pixels >= 1, got {value}")
    if stride > window:
        raise InvalidValue(
            f"windows of {window} pixels with a stride of {stride} leave gaps; give a stride <= {window}"
        )
    count = max(0, math.ceil((length - window) / stride)) + 1
    starts = [index * stride for index in range(count)]
    return tuple(max(0, min(start, length - window)) if last == "shifted" else start for start in starts)


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Windows of one size, row by row."""

    rows: tuple[int, ...]
    columns: tuple[int, ...]
    size: tuple[int, int]

    @classmethod
    def over(cls, length: tuple[int, int], size: tuple[int, int], stride: tuple[int, int], *, last: Last) -> Grid:
        """Lays windows over an image of ``length`` (H, W)."""
        rows, columns = (window_starts(length[i], size[i], stride[i], last=last) for i in range(2))
        return cls(rows=rows, columns=columns, size=size)

    @property
    def extent(self) -> tuple[int, int]:
        """Height and width that the windows reach to."""
        return self.rows[-1] + self.size[0], self.columns[-1] + self.size[1]

    @property
    def corners(self) -> list[tuple[int, int]]:
        """Top left pixel of each window."""
        return [(y, x) for y in self.rows for x in self.columns]


def blend_weights(length: int, blend: Blend) -> Tensor:
    """Returns a window's weights along one side, (length,) float64, positive.

    ``uniform`` is 1. ``smooth`` is ``sin(pi (i + 1/2) / length) ** 2``, which falls towards the window's edge, where a
    network sees least of what surrounds a pixel. Where windows overlap, scores are divided by the sum of their weights.

    Raises:
        InvalidValue: the name is unknown.
    """
    check_choice("blend", blend, Blend)
    if blend == "uniform":
        return torch.ones(length, dtype=torch.float64)
    return ((torch.arange(length, dtype=torch.float64) + 0.5) * (math.pi / length)).sin().square()


def slide(
    x: Tensor,
    score: WindowScores,
    grid: Grid,
    *,
    num_classes: int,
    dtype: torch.dtype,
    blend: Blend = "uniform",
    divided: bool = True,
    margin: int = 0,
    batch_size: int = 4,
) -> Tensor:
    """Sums the scores of windows over an image, and divides by how much each pixel got.

    Args:
        x: Network inputs (B, C, H + 2 margin, W + 2 margin); H and W are at least the grid's extent.
        score: Makes the scores of windows.
        grid: Where they lie in H and W.
        num_classes: K.
        dtype: Type of the sum.
        blend: Weights within a window; a window alone has none.
        divided: False leaves the sum as it is.
        margin: Pixels around a window that its input holds beside it.
        batch_size: Windows at once; the last batch may be smaller.

    Returns:
        (B, K, H, W) on the device of the scores; pixels that no window covers are not finite when divided.

    Raises:
        InvalidValue: the batch size is not positive.
    """
    if batch_size < 1:
        raise InvalidValue(f"the batch size of windows is at least 1, got {batch_size}")
    height, width = grid.size
    size = (x.shape[-2] - 2 * margin, x.shape[-1] - 2 * margin)
    down, across = blend_weights(height, blend), blend_weights(width, blend)
    total: Tensor | None = None
    overlapping = len(grid.corners) > 1
    places = [(b, y, x0) for b in range(x.shape[0]) for y, x0 in grid.corners]
    for first in range(0, len(places), batch_size):
        chosen = places[first : first + batch_size]
        cuts = [x[b, :, y : y + height + 2 * margin, c : c + width + 2 * margin] for b, y, c in chosen]
        scores = score(torch.stack(cuts))
        if total is None:
            total = torch.zeros((x.shape[0], num_classes, *size), dtype=dtype, device=scores.device)
            weights = (down[:, None] * across).to(total) if blend != "uniform" and overlapping else None
        for values, (b, y, c) in zip(scores, chosen, strict=True):
            total[b, :, y : y + height, c : c + width] += values if weights is None else values * weights
    if total is None:
        raise InvalidValue(f"there are no images in a batch of shape {tuple(x.shape)}")
    if divided and overlapping:
        total /= _coverage(grid.rows, down, size[0]).to(total)[:, None]
        total /= _coverage(grid.columns, across, size[1]).to(total)
    return total


def _coverage(starts: Sequence[int], weights: Tensor, length: int) -> Tensor:
    """Sum of the windows' weights along one side, (length,) float64."""
    covered = torch.zeros(length, dtype=torch.float64)
    for start in starts:
        covered[start : start + len(weights)] += weights
    return covered


@dataclass(frozen=True, kw_only=True)
class Windows:
    """Windows of one size that overlap; one that is larger than the image on a side is cut to it.

    The last window of a row or column is shifted back to end at the border, so that no window needs padding.

    Raises:
        InvalidValue: size, stride, blend or batch size are not usable.
    """

    size: int | tuple[int, int]
    stride: int | tuple[int, int] | None = None
    """None is two thirds of the size, rounded up."""
    blend: Blend = "uniform"
    batch_size: int = 4

    def __post_init__(self) -> None:
        size = check_pair("the size of windows", self.size)
        if self.stride is not None:
            stride = check_pair("the stride of windows", self.stride)
            for window, step in zip(size, stride, strict=True):
                window_starts(window, window, step)
        check_choice("blend", self.blend, Blend)
        if self.batch_size < 1:
            raise InvalidValue(f"the batch size of windows is at least 1, got {self.batch_size}")

    def grid(self, height: int, width: int) -> Grid:
        """Returns the windows over an image."""
        size = check_pair("the size of windows", self.size)
        stride = tuple(math.ceil(side * _USUAL_STRIDE) for side in size)
        if self.stride is not None:
            stride = check_pair("the stride of windows", self.stride)
        cut = (min(size[0], height), min(size[1], width))
        return Grid.over((height, width), cut, (min(stride[0], cut[0]), min(stride[1], cut[1])), last="shifted")

    def scores(self, scorer: Scorer, x: Tensor, *, flip: bool, average: Average) -> Tensor:
        """Returns the mean over windows and orientations of normalised images (B, C, H, W): (B, K, H, W)."""
        grid = self.grid(x.shape[-2], x.shape[-1])
        margin = scorer.margin
        if margin:
            x = mirrored(x, margin, (x.shape[-2] + 2 * margin, x.shape[-1] + 2 * margin))
        orientations = BOTH if flip else PLAIN

        def score(inputs: Tensor) -> Tensor:
            scores = scorer.input_scores(inputs, orientations=orientations, with_margin=True).full()
            scores = scores.softmax(1) if average == "probabilities" else scores
            return scores.reshape(2, -1, *scores.shape[1:]).mean(0) if flip else scores

        return slide(
            x,
            score,
            grid,
            num_classes=scorer.num_classes,
            dtype=scorer.score_dtype,
            blend=self.blend,
            margin=margin,
            batch_size=self.batch_size,
        )


@dataclass(frozen=True, kw_only=True)
class SlidingWindow:
    """Windows over the image at its own size; one window that covers it is the whole image.

    Raises:
        InvalidValue: ``average`` is unknown.
    """

    windows: Windows
    flip: bool = False
    """Each window is seen mirrored too."""
    average: Average = "probabilities"

    def __post_init__(self) -> None:
        check_choice("average", self.average, Average)

    @torch.inference_mode()
    def __call__(self, scorer: Scorer, images: Tensor, /) -> ScoreMap:
        """Returns the mean over windows of each pixel, at the images' size."""
        height, width = images.shape[-2:]
        if len(self.windows.grid(height, width).corners) == 1 and not self.flip:
            return scorer.image_scores(images)
        x = normalize(images.to(scorer.device), scorer.preprocessing)
        scores = self.windows.scores(scorer, x, flip=self.flip, average=self.average)
        return ScoreMap(
            logits=scores,
            covered=(height, width),
            size=(height, width),
            align_corners=False,
            probabilities=self.average == "probabilities",
        )


@dataclass(frozen=True, kw_only=True)
class OverlapTile:
    """U-Net's overlap-tile strategy (Ronneberger et al., MICCAI 2015, arXiv:1505.04597, figure 2).

    Tiles lie side by side from the top left; each is seen with a margin around it, mirrored beyond the image's edge,
    and only its own pixels are kept. The last tiles may reach over the edge, into the mirrored image. Where the tile is
    a multiple of the network's stride, valid convolutions give exactly the scores of the whole image.

    Raises:
        InvalidValue: tile, margin or batch size are not usable.
    """

    tile: int | tuple[int, int]
    margin: int | None = None
    """Pixels of context on each side, for a network that loses none of its own; None takes the network's."""
    batch_size: int = 4

    def __post_init__(self) -> None:
        check_pair("the tile", self.tile)
        if self.margin is not None and self.margin < 1:
            raise InvalidValue(f"the margin of tiles is at least 1 pixel, got {self.margin}")
        if self.batch_size < 1:
            raise InvalidValue(f"the batch size of tiles is at least 1, got {self.batch_size}")

    @torch.inference_mode()
    def __call__(self, scorer: Scorer, images: Tensor, /) -> ScoreMap:
        """Returns scores before softmax at the images' size.

        Raises:
            InvalidValue: the network loses no margin and none is given, or it loses another one.
        """
        margin = self._context(scorer)
        height, width = images.shape[-2:]
        tile = check_pair("the tile", self.tile)
        grid = Grid.over((height, width), tile, tile, last="padded")
        x = normalize(images.to(scorer.device), scorer.preprocessing)
        x = mirrored(x, margin, (grid.extent[0] + 2 * margin, grid.extent[1] + 2 * margin))

        def score(inputs: Tensor) -> Tensor:
            scores = scorer.input_scores(inputs, with_margin=True).full()
            return scores if scorer.margin else scores[:, :, margin:-margin, margin:-margin]

        scores = slide(
            x,
            score,
            grid,
            num_classes=scorer.num_classes,
            dtype=scorer.score_dtype,
            divided=False,
            margin=margin,
            batch_size=self.batch_size,
        )
        kept = scores[:, :, :height, :width].contiguous()
        return ScoreMap(logits=kept, covered=(height, width), size=(height, width), align_corners=False)

    def _context(self, scorer: Scorer) -> int:
        if self.margin is None and not scorer.margin:
            raise InvalidValue(
                "overlap-tile keeps the centre of each tile, and this network loses no margin; give margin=PIXELS, or "
                "take SlidingWindow, whose windows overlap"
            )
        if self.margin is not None and scorer.margin not in (0, self.margin):
            raise InvalidValue(
                f"the network loses {scorer.margin} pixels on each side, so the margin cannot be {self.margin}; "
                "leave it away"
            )
        return scorer.margin or self.margin or 0
