"""The class of every pixel on CUDA, by one Triton kernel: what `ops.fused_argmax` says, without its maps between.

A program takes a rectangle of pixels and passes the classes once; the four cells around each pixel are read as they lie
in memory, planar or channels last, in their own type, and mixed in float32: columns first, then rows. Beside the class
it keeps the best score and, from a running sum of exponentials, the softmax probability. Where pixels lie is worked out
on whole numbers in the kernel, or comes as two `Axis` for the pixels of a tile.

Imported only where a CUDA tensor comes: Triton is no dependency of ours, but comes with PyTorch for CUDA.
Shapes: B batch, K classes, h w cells of the score map, H W pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl
from torch import Tensor

if TYPE_CHECKING:
    from perpixel.ops.fused_argmax import Axis

__all__ = ["BLOCK", "mixed_at", "mixed_whole"]

BLOCK = (2, 128)
"""Rows and columns of pixels per program: two pixels to each lane of four warps. Two classes at a time take 80
registers on compute capability 9.0, which leaves six programs to a multiprocessor; four rows and four classes, 250."""
_WARPS = 4
_UNROLLED = 2
_LEAST_WIDE = 1 << 31
"""Values of an image from which 32 bits do not hold where one lies."""


@triton.jit  # type: ignore[untyped-decorator]
def _places(pixel, cells, pixels, ALIGNED: tl.constexpr):  # type: ignore[no-untyped-def]
    """Cells before and behind pixels and the share of the second, as `Axis.between` has them."""
    place = pixel.to(tl.int64)
    if ALIGNED:
        numerator = place * (cells - 1)
        denominator = tl.maximum(pixels - 1, 1).to(tl.int64)
    else:
        numerator = tl.maximum((2 * place + 1) * cells - pixels, 0)
        denominator = (2 * pixels).to(tl.int64)
    low = numerator // denominator
    weight = tl.math.div_rn((numerator - low * denominator).to(tl.float32), denominator.to(tl.float32))
    low = tl.minimum(low, cells - 1)
    high = tl.minimum(low + 1, cells - 1)
    return low, high, tl.where(high == low, 0.0, weight)


@triton.jit
def _between(first, second, weight):  # type: ignore[no-untyped-def]
    """Mixes from the nearer end, as `torch.lerp` does, so that equal ends give themselves."""
    step = second - first  # fused by name: every class is rounded alike, and equal scores stay equal
    return tl.where(weight < 0.5, tl.fma(weight, step, first), tl.fma(weight - 1.0, step, second))


@triton.jit
def _scores(plane, above, below, left, right, down, across, inside):  # type: ignore[no-untyped-def]
    """One class at a rectangle of pixels: float32."""
    first = tl.load(plane + (above + left), mask=inside, other=0.0).to(tl.float32)
    second = tl.load(plane + (above + right), mask=inside, other=0.0).to(tl.float32)
    upper = _between(first, second, across)
    first = tl.load(plane + (below + left), mask=inside, other=0.0).to(tl.float32)
    second = tl.load(plane + (below + right), mask=inside, other=0.0).to(tl.float32)
    return _between(upper, _between(first, second, across), down)


_SIZES = ["num_classes", "cell_rows", "cell_columns", "covered_rows", "covered_columns", "height", "width"]


@triton.jit(do_not_specialize=_SIZES)  # type: ignore[untyped-decorator]
def _top_kernel(  # type: ignore[no-untyped-def]
    logits,
    classes,
    score,
    confidence,
    row_low,
    row_high,
    row_weight,
    column_low,
    column_high,
    column_weight,
    num_classes,
    cell_rows,
    cell_columns,
    covered_rows,
    covered_columns,
    height,
    width,
    stride_image,
    stride_class,
    stride_row,
    stride_column,
    PLACED: tl.constexpr,
    ALIGNED: tl.constexpr,
    TOP: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    OFFSET: tl.constexpr,
    UNROLLED: tl.constexpr,
):
    image = tl.program_id(2).to(tl.int64)
    y = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    x = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    if PLACED:
        top = tl.load(row_low + y, mask=y < height, other=0)
        bottom = tl.load(row_high + y, mask=y < height, other=0)
        down = tl.load(row_weight + y, mask=y < height, other=0.0)
        left = tl.load(column_low + x, mask=x < width, other=0)
        right = tl.load(column_high + x, mask=x < width, other=0)
        across = tl.load(column_weight + x, mask=x < width, other=0.0)
    else:
        top, bottom, down = _places(y, cell_rows, covered_rows, ALIGNED)
        left, right, across = _places(x, cell_columns, covered_columns, ALIGNED)
    inside = (y < height)[:, None] & (x < width)[None, :]
    down, across = down[:, None], across[None, :]
    above = (top * stride_row).to(OFFSET)[:, None]
    below = (bottom * stride_row).to(OFFSET)[:, None]
    left = (left * stride_column).to(OFFSET)[None, :]
    right = (right * stride_column).to(OFFSET)[None, :]
    plane = logits + image * stride_image

    best = _scores(plane, above, below, left, right, down, across, inside)
    winner = tl.zeros((ROWS, COLUMNS), dtype=tl.int32)
    total = tl.full((ROWS, COLUMNS), 1.0, dtype=tl.float32)
    for index in tl.range(1, num_classes, loop_unroll_factor=UNROLLED):
        plane += stride_class
        found = _scores(plane, above, below, left, right, down, across, inside)
        better = found > best  # of equal scores the lowest class stays
        if TOP:
            smaller = tl.exp(-tl.abs(found - best))
            total = tl.where(better, total * smaller + 1.0, total + smaller)
        winner = tl.where(better, index, winner)
        best = tl.where(better, found, best)

    place = image * height * width + y[:, None].to(tl.int64) * width + x[None, :]
    tl.store(classes + place, winner.to(classes.dtype.element_ty), mask=inside)
    if TOP:
        tl.store(score + place, best, mask=inside)
        tl.store(confidence + place, 1.0 / total, mask=inside)


def mixed_whole(
    logits: Tensor, size: tuple[int, int], covered: tuple[int, int], *, align_corners: bool, top: bool
) -> tuple[Tensor, ...]:
    """Returns the classes of the top left ``size`` pixels of what the logits cover, (B, H, W), as `fused_argmax` does.

    Args:
        logits: Finite scores (B, K, h, w), bfloat16, float16 or float32, in any memory order; nothing is checked here.
        size: Height and width of the result in pixels.
        covered: Pixels that the logits cover, at least ``size``.
        align_corners: Whether the corner pixels lie on the corner cells.
        top: The best score and its probability too, float32, as `fused_top` has them.
    """
    found = _outputs(logits, size, top)
    _launch(logits, (logits,) * 6, found, covered, placed=False, align_corners=align_corners)
    return found


def mixed_at(logits: Tensor, rows: Axis, columns: Axis, *, top: bool) -> tuple[Tensor, ...]:
    """Does what `mixed_whole` does for pixels that axes on the logits' device place."""
    found = _outputs(logits, (len(rows), len(columns)), top)
    places = [
        part.contiguous() for axis in (rows, columns) for part in (axis.low, axis.high, axis.weight.to(torch.float32))
    ]
    _launch(logits, tuple(places), found, (1, 1), placed=True, align_corners=False)
    return found


def _outputs(logits: Tensor, size: tuple[int, int], top: bool) -> tuple[Tensor, ...]:
    shape = (logits.shape[0], *size)
    classes = torch.empty(shape, dtype=torch.uint8 if logits.shape[1] <= 256 else torch.int16, device=logits.device)
    if not top:
        return (classes,)
    return classes, *(torch.empty(shape, dtype=torch.float32, device=logits.device) for _ in range(2))


def _launch(
    logits: Tensor,
    places: tuple[Tensor, ...],
    found: tuple[Tensor, ...],
    covered: tuple[int, int],
    *,
    placed: bool,
    align_corners: bool,
) -> None:
    """Fills ``found``; what a variant of the kernel does not read may be any tensor."""
    batch, height, width = found[0].shape
    top = len(found) > 1
    with torch.cuda.device(logits.get_device()):
        _top_kernel[triton.cdiv(width, BLOCK[1]), triton.cdiv(height, BLOCK[0]), batch](
            logits,
            *(found if top else (found[0], logits, logits)),
            *places,
            *logits.shape[1:],
            *covered,
            height,
            width,
            *logits.stride(),
            PLACED=placed,
            ALIGNED=align_corners,
            TOP=top,
            ROWS=BLOCK[0],
            COLUMNS=BLOCK[1],
            OFFSET=tl.int32 if logits[0].numel() < _LEAST_WIDE else tl.int64,
            UNROLLED=_UNROLLED,
            num_warps=_WARPS,
        )
