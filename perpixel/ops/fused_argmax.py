"""The class of every pixel from scores at a network's own resolution, without the (B, K, H, W) map between them.

Shapes: B batch, K classes, h w cells of the score map, H W pixels. Pixels lie between cells as in bilinear
interpolation. An `Axis` says so for one direction; both are worked out on whole numbers, so that a tile's pixels get
the weights that they have in the whole image, to the last bit. Scores are mixed along columns first, then along rows,
in the dtype of the logits (float32 for half precision). The classes equal ``F.interpolate(logits, size,
mode="bilinear").argmax(1)`` but where the best two scores agree to a few units in the last place.

On the CPU a cell whose four corners have one winner is filled without arithmetic: what is largest at the corners is
largest between them. Only the pixels of the cells along borders between classes are worked out. Where these are many,
as in noise, classes are up-sampled one at a time. On CUDA one kernel does all of it (`ops.triton_argmax`); other
devices, float64 and a PyTorch without Triton work as the CPU does with many borders.
"""

from __future__ import annotations

import functools
import importlib
from dataclasses import dataclass
from typing import Any, NamedTuple, SupportsIndex

import torch
from torch import Tensor

from perpixel.errors import InvalidValue
from perpixel.ops.resize import resize

__all__ = ["Axis", "TopClass", "fused_argmax", "fused_top", "mixed_classes", "mixed_top"]

# Measured on one core: at 20 % of mixed cells the pixels take half the time of all classes, at 50 % as much.
_MOST_MIXED = 0.25
_LEAST_ENLARGED = 4  # pixels per cell from which filling cells pays
_BAND_ROWS = 128
_BAND_SCORES = 1 << 19  # scores of all classes at once where they are needed together: 2 MiB of float32
_PIXELS_AT_ONCE = 1 << 15
_MOST_CLASSES = 1 << 15  # int16


@dataclass(frozen=True, eq=False)
class Axis:
    """Where pixels lie between cells, along one direction."""

    low: Tensor
    """(N,) int64: the cell before each pixel, counted from the first of the score map at hand."""
    high: Tensor
    """(N,) int64: the cell behind it, the same at the edges."""
    weight: Tensor
    """(N,) float64 in [0, 1): the share of ``high``."""

    @classmethod
    def between(cls, cells: int, pixels: int, *, align_corners: bool, device: torch.device | str = "cpu") -> Axis:
        """Lays ``pixels`` over ``cells`` as bilinear interpolation does.

        Raises:
            InvalidValue: one of them is not positive.
        """
        if cells < 1 or pixels < 1:
            raise InvalidValue(f"an axis needs at least one cell and one pixel, got {cells} cells, {pixels} pixels")
        place = torch.arange(pixels, device=device)
        if align_corners:
            numerator, denominator = place * (cells - 1), max(pixels - 1, 1)
        else:
            numerator, denominator = ((2 * place + 1) * cells - pixels).clamp_(min=0), 2 * pixels
        low = numerator.div(denominator, rounding_mode="floor")
        weight = (numerator - low * denominator).double() / denominator
        low.clamp_(max=cells - 1)
        high = (low + 1).clamp_(max=cells - 1)
        weight[high == low] = 0
        return cls(low=low, high=high, weight=weight)

    def window(self, start: int, stop: int, *, first_cell: int = 0) -> Axis:
        """Keeps the pixels from ``start`` to ``stop``, and counts cells from ``first_cell``."""
        return Axis(
            low=self.low[start:stop] - first_cell,
            high=self.high[start:stop] - first_cell,
            weight=self.weight[start:stop],
        )

    def within(self, cells: int) -> Axis:
        """Reads the nearest of ``cells`` cells where a pixel lies beyond them, as at the edge of a tile."""
        return Axis(low=self.low.clamp(0, cells - 1), high=self.high.clamp(0, cells - 1), weight=self.weight)

    def __len__(self) -> int:
        return int(self.low.shape[0])

    @property
    def reach(self) -> tuple[int, int]:
        """The first and the last cell that the pixels read."""
        return int(self.low[0]), int(self.high[-1])

    @property
    def is_plain(self) -> bool:
        """Whether every pixel is a cell of its own, with nothing to mix."""
        steps = torch.arange(len(self), device=self.low.device) + self.low[0]
        return bool((self.weight == 0).all()) and torch.equal(self.low, steps)


class TopClass(NamedTuple):
    """The best class of every pixel and how sure the scores are of it."""

    classes: Tensor
    """(B, H, W) uint8, int16 for more than 256 classes."""
    score: Tensor
    """(B, H, W): its score."""
    confidence: Tensor
    """(B, H, W) in [1 / K, 1]: its probability, softmax over the K scores."""


def fused_argmax(
    logits: Tensor, size: tuple[int, int], *, align_corners: bool, covered: tuple[int, int] | None = None
) -> Tensor:
    """Returns the class of the highest score per pixel, the lowest of equal ones: (B, H, W).

    Args:
        logits: Scores (B, K, h, w), finite.
        size: Height and width of the result in pixels.
        align_corners: Whether the corner pixels lie on the corner cells.
        covered: Pixels that the logits cover, at least ``size``; the result is their top left part. None: ``size``.

    Returns:
        uint8, int16 for more than 256 classes.

    Raises:
        InvalidValue: the logits are no finite (B, K, h, w) of up to 32768 classes, or ``size`` is no pair, is empty or
            reaches beyond ``covered``.
    """
    covered = _checked_cover(logits, size, covered)
    if covered == tuple(logits.shape[-2:]):  # cells are pixels: nothing to mix
        best, winner = logits.max(1)  # NaN and infinity win; minus infinity loses, as it should
        if not bool(torch.isfinite(_sum(best))):
            _check_finite(logits)
        return winner[:, : size[0], : size[1]].to(_dtype_of(logits.shape[1]))
    _check_finite(logits)
    if kernel := _kernel(logits):
        found: Tensor = kernel.mixed_whole(logits, size, covered, align_corners=align_corners, top=False)[0]
        return found
    rows, columns = _axes(logits, size, covered, align_corners)
    x = _computed(logits)
    classes = _no_classes(x, rows, columns)
    for scores, out in zip(x, classes, strict=True):
        if not _by_cells(scores, rows, columns, out):
            _by_resizing(scores, covered, align_corners, out)
    return classes


def fused_top(
    logits: Tensor, size: tuple[int, int], *, align_corners: bool, covered: tuple[int, int] | None = None
) -> TopClass:
    """Returns the best class per pixel, its score and its softmax probability, in one pass.

    Args and errors are those of `fused_argmax`.
    """
    covered = _checked_cover(logits, size, covered)
    if kernel := _kernel(logits):
        _check_finite(logits)
        return TopClass(*kernel.mixed_whole(logits, size, covered, align_corners=align_corners, top=True))
    return mixed_top(logits, *_axes(logits, size, covered, align_corners))


def mixed_classes(logits: Tensor, rows: Axis, columns: Axis) -> Tensor:
    """Does what `fused_argmax` does for pixels that the axes place, such as those of a tile.

    Raises:
        InvalidValue: the logits are no finite (B, K, h, w), or the axes reach beyond them.
    """
    _check_reach(logits, rows, columns)
    _check_finite(logits)
    if kernel := _kernel(logits):
        found: Tensor = kernel.mixed_at(logits, rows, columns, top=False)[0]
        return found
    x = _computed(logits)
    classes = _no_classes(x, rows, columns)
    for scores, out in zip(x, classes, strict=True):
        if not _by_cells(scores, rows, columns, out):
            _by_bands(scores, rows, columns, out)
    return classes


def mixed_top(logits: Tensor, rows: Axis, columns: Axis) -> TopClass:
    """Does what `fused_top` does for pixels that the axes place, such as those of a tile.

    Raises:
        InvalidValue: the logits are no finite (B, K, h, w), or the axes reach beyond them.
    """
    _check_reach(logits, rows, columns)
    _check_finite(logits)
    if kernel := _kernel(logits):
        return TopClass(*kernel.mixed_at(logits, rows, columns, top=True))
    x = _computed(logits)
    shape = (x.shape[0], len(rows), len(columns))
    classes = torch.zeros(shape, dtype=_dtype_of(x.shape[1]), device=x.device)
    score, confidence = x.new_empty(shape), x.new_empty(shape)
    step = max(1, _BAND_SCORES // (x.shape[1] * len(columns))) if x.device.type == "cpu" else len(rows)
    for index, scores in enumerate(x):
        for start in range(0, len(rows), step):
            band = rows.window(start, start + step)
            full = _mixed_rows(_mixed_columns(scores[:, slice(*_span(band))], columns), _counted(band))  # (K, n, W)
            best, winner = full.max(0)
            place = (index, slice(start, start + step))
            classes[place] = winner.to(classes.dtype)
            score[place] = best
            confidence[place] = full.sub_(best).exp_().sum(0).reciprocal_()
    return TopClass(classes=classes, score=score, confidence=confidence)


def _by_resizing(scores: Tensor, covered: tuple[int, int], align_corners: bool, out: Tensor) -> None:
    """Fills ``out`` (H, W), keeping the best score so far while the up-sampled classes (K, h, w) pass."""
    height, width = out.shape

    def up(index: int) -> Tensor:
        return resize(scores[None, index : index + 1], covered, align_corners=align_corners)[0, 0, :height, :width]

    best = up(0).clone()  # may be a view of the logits
    for index in range(1, scores.shape[0]):
        score = up(index)
        out.masked_fill_(score > best, index)
        torch.maximum(best, score, out=best)


def _by_bands(scores: Tensor, rows: Axis, columns: Axis, out: Tensor) -> None:
    """Does what `_by_resizing` does, for pixels that the axes place, a band of rows at a time."""
    step = _BAND_ROWS if out.device.type == "cpu" else len(rows)
    for start in range(0, len(rows), step):
        band = rows.window(start, start + step)
        mixed = _mixed_columns(scores[:, slice(*_span(band))], columns)  # (K, cells, W)
        band = _counted(band)
        plain = band.is_plain
        winner = out[start : start + step]
        best = _mixed_rows(mixed[:1], band, plain=plain)[0]
        best = best.clone() if plain else best  # a view of the logits where nothing is mixed
        for index in range(1, mixed.shape[0]):
            score = _mixed_rows(mixed[index : index + 1], band, plain=plain)[0]
            winner.masked_fill_(score > best, index)
            torch.maximum(best, score, out=best)


def _by_cells(scores: Tensor, rows: Axis, columns: Axis, out: Tensor) -> bool:
    """Fills cells of one winner with it and works out the pixels of the others; False where that would not pay."""
    if out.device.type != "cpu" or out.numel() < _LEAST_ENLARGED * scores[0].numel():
        return False
    winner = torch.zeros(scores.shape[1:], dtype=out.dtype)
    _by_resizing(
        scores, (scores.shape[1], scores.shape[2]), False, winner
    )  # of the cells themselves: nothing to resize
    mixed = _mixed_cells(winner)
    if float(mixed.float().mean()) > _MOST_MIXED:
        return False
    torch.index_select(winner.index_select(0, rows.low), 1, columns.low, out=out)
    above, left = rows.low.clamp(max=mixed.shape[0] - 1), columns.low.clamp(max=mixed.shape[1] - 1)
    wanted = mixed.index_select(0, above).index_select(1, left).view(-1).nonzero()[:, 0]
    by_cell = scores.flatten(1).t().contiguous()  # (h w, K): what a corner gives lies together
    flat = out.view(-1)
    for places in torch.split(wanted, _PIXELS_AT_ONCE):
        flat[places] = _best_of(by_cell, rows, columns, places, scores.shape[2]).to(out.dtype)
    return True


def _best_of(by_cell: Tensor, rows: Axis, columns: Axis, places: Tensor, cells: int) -> Tensor:
    """Returns the classes of pixels, counted row by row, from scores (h w, K) of ``cells`` cells a row."""
    y = places.div(len(columns), rounding_mode="floor")
    x = places - y * len(columns)
    low, high, across = columns.low[x], columns.high[x], columns.weight[x, None].to(by_cell.dtype)
    ends = [
        torch.lerp(by_cell.index_select(0, start + low), by_cell.index_select(0, start + high), across)
        for start in (rows.low[y] * cells, rows.high[y] * cells)
    ]
    return torch.lerp(ends[0], ends[1], rows.weight[y, None].to(by_cell.dtype)).argmax(1)


def _mixed_cells(winner: Tensor) -> Tensor:
    """Tells which squares between cells (h, w) have corners of several classes: (h - 1, w - 1), at least one each."""
    above, below = (winner[:-1], winner[1:]) if winner.shape[0] > 1 else (winner, winner)
    if winner.shape[1] == 1:
        return above != below
    corners = (above[:, 1:], below[:, :-1], below[:, 1:])
    first = above[:, :-1]
    mixed = first != corners[0]
    for corner in corners[1:]:
        mixed |= first != corner
    return mixed


def _mixed_columns(scores: Tensor, columns: Axis) -> Tensor:
    """Mixes (K, h, w) along its last axis: (K, h, W)."""
    if columns.is_plain:
        first = int(columns.low[0])
        return scores[..., first : first + len(columns)]
    return torch.lerp(
        scores.index_select(-1, columns.low), scores.index_select(-1, columns.high), columns.weight.to(scores.dtype)
    )


def _mixed_rows(scores: Tensor, rows: Axis, *, plain: bool | None = None) -> Tensor:
    """Mixes (K, h, W) along its rows: (K, n, W)."""
    if rows.is_plain if plain is None else plain:
        first = int(rows.low[0])
        part = scores[:, first : first + len(rows)]
        return part.clone() if plain is None else part
    weight = rows.weight[:, None].to(scores.dtype)
    return torch.lerp(scores.index_select(1, rows.low), scores.index_select(1, rows.high), weight)


def _span(axis: Axis) -> tuple[int, int]:
    first, last = axis.reach
    return first, last + 1


def _counted(axis: Axis) -> Axis:
    """Counts the cells of an axis from the first that it reads."""
    return axis.window(0, len(axis), first_cell=int(axis.low[0]))


def _check_scores(logits: Tensor) -> None:
    if logits.ndim != 4 or 0 in logits.shape or not logits.is_floating_point():
        raise InvalidValue(f"scores are floating point (B, K, h, w), got {tuple(logits.shape)} {logits.dtype}")
    if logits.shape[1] > _MOST_CLASSES:
        raise InvalidValue(f"at most {_MOST_CLASSES} classes can be told apart, got scores of {logits.shape[1]}")


def _no_classes(x: Tensor, rows: Axis, columns: Axis) -> Tensor:
    return torch.zeros((x.shape[0], len(rows), len(columns)), dtype=_dtype_of(x.shape[1]), device=x.device)


def _dtype_of(num_classes: int) -> torch.dtype:
    return torch.uint8 if num_classes <= 256 else torch.int16


def _computed(logits: Tensor) -> Tensor:
    """Half precision has not the digits to place a border."""
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def _kernel(logits: Tensor) -> Any:
    """Returns `ops.triton_argmax` where it serves: on GPUs that Triton compiles for, for what float32 holds."""
    if logits.device.type != "cuda" or logits.dtype == torch.float64:
        return None
    return _triton_argmax() if torch.cuda.get_device_capability(logits.device) >= (7, 5) else None


@functools.cache
def _triton_argmax() -> Any:
    try:
        return importlib.import_module("perpixel.ops.triton_argmax")
    except ImportError:  # a PyTorch without Triton, such as those for Windows
        return None


def _checked_cover(logits: Tensor, size: tuple[int, int], covered: tuple[int, int] | None) -> tuple[int, int]:
    _check_scores(logits)
    covered = size if covered is None else covered
    if any(len(pair) != 2 or not all(isinstance(side, SupportsIndex) for side in pair) for pair in (size, covered)):
        raise InvalidValue(f"sizes are (height, width) in whole pixels, got {size} of {covered}")
    if min(size) < 1 or size[0] > covered[0] or size[1] > covered[1]:
        raise InvalidValue(f"the result of {size} pixels must lie within the {covered} that the scores cover")
    return covered


def _axes(logits: Tensor, size: tuple[int, int], covered: tuple[int, int], align_corners: bool) -> tuple[Axis, Axis]:
    axes = [
        Axis.between(cells, whole, align_corners=align_corners, device=logits.device).window(0, kept)
        for cells, whole, kept in zip(logits.shape[-2:], covered, size, strict=True)
    ]
    return axes[0], axes[1]


def _check_reach(logits: Tensor, rows: Axis, columns: Axis) -> None:
    _check_scores(logits)
    for name, axis, cells in (("rows", rows, logits.shape[2]), ("columns", columns, logits.shape[3])):
        first, last = axis.reach
        if first < 0 or last >= cells:
            raise InvalidValue(f"the {name} read the cells {first} to {last}, and the scores have {cells}")


def _sum(x: Tensor) -> Tensor:
    """Their sum, in which what is not finite stays so."""
    return x.sum(dtype=torch.promote_types(x.dtype, torch.float32))


def _check_finite(logits: Tensor) -> None:
    if bool(torch.isfinite(_sum(logits))):  # a sum that overflows is looked at in detail
        return
    finite = torch.isfinite(logits)
    if not bool(finite.all()):
        place = tuple(int(i) for i in (~finite).nonzero()[0])
        raise InvalidValue(
            f"the scores at (image, class, row, column) {place} are {float(logits[place])}; only finite scores can be "
            "compared, check the weights or the precision"
        )
