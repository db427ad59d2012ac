"""The kernels behind `upsampled_nll` on CUDA, in Triton; imported when a CUDA tensor comes.

Shapes: B batch, K classes, h w cells of the score map, H W pixels. No kernel writes scores of pixels: the forward one
keeps a row's running sum of exponentials in registers, the backward one works a pixel's probability out again wherever
a cell asks for it. A program of the backward pass owns a few neighbouring cells of one row of cells and goes over the
pixels that these have a share in, so that no two programs write to the same place: the gradient is the same bits every
time. Pixels are visited about 2.2 times for that, which costs less than one pass over a map in memory.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language import tensor

from perpixel.ops.fused_argmax import Axis

__all__ = ["backward_scores", "forward_maps"]

_FORWARD_PIXELS, _FORWARD_CLASSES = 64, 8  # 72 registers: more of either leaves too few warps on a processor
_MOST_PIXELS, _LEAST_PIXELS, _CELLS = 128, 32, 15  # 15 cells share in the pixels between 17: 16 times the ratio
_ENOUGH_PROGRAMS = 4096


class _Places(NamedTuple):
    """An `Axis` and its inverse, on the device, for the kernels."""

    low: Tensor
    """(pixels,) int32: the cell before each pixel; the one behind it is the next, or the last."""
    share: Tensor
    """(pixels,): of the cell behind."""
    start: Tensor
    """(cells,) int32: the first pixel that a cell has a share in."""
    stop: Tensor
    """(cells,) int32: one after the last."""


def forward_maps(
    logits: Tensor, target: Tensor, align_corners: bool, ignore_index: int, class_mix: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns -log p of the labels, sum_k v_k (-log p_k) (empty without a class mix v) and log sum_k exp(score_k).

    All are (B, H, W); the first two are zero where the label is ignored and NaN where it is no class.
    """
    dtype = torch.promote_types(logits.dtype, torch.float32)
    num_classes, cells = logits.shape[1], logits.shape[2:]
    nll, log_sums = (torch.empty(target.shape, dtype=dtype, device=logits.device) for _ in range(2))
    spread = torch.empty_like(nll) if class_mix is not None else nll.new_empty(0)
    rows, columns = _axes(logits, target, align_corners, dtype)
    mix, mix_sum = _mix_of(class_mix, nll)
    batch, height, width = target.shape
    grid = (batch * height, triton.cdiv(width, _FORWARD_PIXELS))
    with torch.cuda.device_of(logits):  # type: ignore[no-untyped-call]
        _forward_kernel[grid](
            logits, target, mix, mix_sum, nll, spread, log_sums, rows.low, rows.share, columns.low, columns.share,
            num_classes, *cells, height, width, *logits.stride(), *target.stride(), ignore_index,
            HAS_MIX=class_mix is not None, CLASSES=min(_FORWARD_CLASSES, triton.next_power_of_2(num_classes)),
            PIXELS=_FORWARD_PIXELS, num_warps=1,
        )  # fmt: skip
    return nll, spread, log_sums


def backward_scores(
    own: Tensor,
    mixed: Tensor | None,
    logits: Tensor,
    target: Tensor,
    log_sums: Tensor,
    align_corners: bool,
    ignore_index: int,
    class_mix: Tensor | None,
) -> Tensor:
    """Returns the gradient (B, K, h, w) of sum(own * nll) + sum(mixed * spread), in the dtype of the logits.

    Args:
        own: (B, H, W), of any strides.
        mixed: (B, H, W), with a class mix.
        logits: (B, K, h, w).
        target: (B, H, W).
        log_sums: Of `forward_maps`.
        align_corners: As there.
        ignore_index: As there.
        class_mix: As there.
    """
    batch, num_classes, height, width = logits.shape
    gradient = torch.empty(logits.shape, dtype=logits.dtype, device=logits.device)
    rows, columns = _axes(logits, target, align_corners, log_sums.dtype)
    has_mix = class_mix is not None and mixed is not None
    mix, mix_sum = _mix_of(class_mix if has_mix else None, log_sums)
    mixed = own if mixed is None else mixed
    pixels, cells = _tile(width, target.shape[2])
    tiles = triton.cdiv(width, cells)
    parts = min(num_classes, triton.cdiv(_ENOUGH_PROGRAMS, batch * height * tiles))
    classes = triton.cdiv(num_classes, parts)
    grid = (batch * height, tiles, triton.cdiv(num_classes, classes))
    with torch.cuda.device_of(logits):  # type: ignore[no-untyped-call]
        _backward_kernel[grid](
            own, mixed, logits, target, log_sums, mix, mix_sum, gradient, *rows, *columns,
            num_classes, height, width, *target.shape[1:], classes, cells,
            *own.stride(), *mixed.stride(), *logits.stride(), *target.stride(), ignore_index,
            HAS_MIX=has_mix, CELLS=triton.next_power_of_2(cells), PIXELS=pixels, num_warps=1,
        )  # fmt: skip
    return gradient


def _tile(cells: int, pixels: int) -> tuple[int, int]:
    """Returns how many pixels a program takes at once, and how many cells it owns; any numbers would do."""
    ratio = max(1.0, pixels / cells)
    taken = min(_MOST_PIXELS, max(_LEAST_PIXELS, triton.next_power_of_2(int((_CELLS + 1) * ratio))))
    return taken, min(_CELLS, max(1, int(taken / ratio) - 1))


def _axes(logits: Tensor, target: Tensor, align_corners: bool, dtype: torch.dtype) -> tuple[_Places, _Places]:
    rows, columns = (
        _places(logits.shape[axis + 1], target.shape[axis], align_corners, dtype, logits.device) for axis in (1, 2)
    )
    return rows, columns


@lru_cache(maxsize=64)
def _places(cells: int, pixels: int, align_corners: bool, dtype: torch.dtype, device: torch.device) -> _Places:
    axis = Axis.between(cells, pixels, align_corners=align_corners)
    every = torch.arange(cells)
    return _Places(
        low=axis.low.to(device, torch.int32),
        share=axis.weight.to(device, dtype),
        start=torch.searchsorted(axis.high, every).to(device, torch.int32),
        stop=torch.searchsorted(axis.low, every, right=True).to(device, torch.int32),
    )


def _mix_of(class_mix: Tensor | None, like: Tensor) -> tuple[Tensor, Tensor]:
    """Returns v (K,) and its sum, or anything where there is none."""
    if class_mix is None:
        return like, like
    mix = class_mix.to(like.dtype).contiguous()
    return mix, mix.sum()


@triton.jit  # type: ignore[untyped-decorator]
def _forward_kernel(
    logits: tensor, target: tensor, mix: tensor, mix_sum: tensor,
    nll: tensor, spread: tensor, log_sums: tensor,
    row_low: tensor, row_share: tensor, column_low: tensor, column_share: tensor,
    num_classes: tensor, h: tensor, w: tensor, H: tensor, W: tensor,
    scores_b: tensor, scores_k: tensor, scores_y: tensor, scores_x: tensor,
    target_b: tensor, target_y: tensor, target_x: tensor, ignore_index: tensor,
    HAS_MIX: tl.constexpr, CLASSES: tl.constexpr, PIXELS: tl.constexpr,
) -> None:  # fmt: skip
    """Fills a part of one row of pixels."""
    dtype = log_sums.dtype.element_ty
    b = (tl.program_id(0) // H).to(tl.int64)
    y = (tl.program_id(0) % H).to(tl.int64)
    x = tl.program_id(1) * PIXELS + tl.arange(0, PIXELS)
    inside = x < W
    top = tl.load(row_low + y).to(tl.int64)
    down = tl.load(row_share + y)
    left = tl.load(column_low + x, mask=inside, other=0)
    across = tl.load(column_share + x, mask=inside, other=0)[None, :]
    left_at = (left * scores_x)[None, :]
    right_at = (tl.minimum(left + 1, w - 1) * scores_x)[None, :]
    upper_row = logits + b * scores_b + top * scores_y
    lower_row = logits + b * scores_b + tl.minimum(top + 1, h - 1) * scores_y
    label = tl.load(target + b * target_b + y * target_y + x * target_x, mask=inside, other=0).to(tl.int32)
    peak = tl.full([PIXELS], float("-inf"), dtype)
    total = tl.zeros([PIXELS], dtype)
    chosen = tl.zeros([PIXELS], dtype)
    mixed = tl.zeros([PIXELS], dtype)
    for first in range(0, num_classes, CLASSES):
        k = first + tl.arange(0, CLASSES)[:, None]
        seen = (k < num_classes) & inside[None, :]
        at = k.to(tl.int64) * scores_k
        a = tl.load(upper_row + at + left_at, mask=seen, other=0).to(dtype)
        c = tl.load(upper_row + at + right_at, mask=seen, other=0).to(dtype)
        upper = a * (1 - across) + c * across
        a = tl.load(lower_row + at + left_at, mask=seen, other=0).to(dtype)
        c = tl.load(lower_row + at + right_at, mask=seen, other=0).to(dtype)
        score = upper * (1 - down) + (a * (1 - across) + c * across) * down
        chosen += tl.sum(tl.where(k == label[None, :], score, 0.0), 0)
        if HAS_MIX:
            mixed += tl.sum(score * tl.load(mix + k, mask=k < num_classes, other=0), 0)
        score = tl.where(k < num_classes, score, float("-inf"))
        higher = tl.maximum(peak, tl.max(score, 0))
        total = total * tl.exp(peak - higher) + tl.sum(tl.exp(score - higher[None, :]), 0)
        peak = higher
    log_sum = tl.log(total) + peak
    place = (b * H + y) * W + x
    tl.store(log_sums + place, log_sum, mask=inside)
    known = tl.where((label >= 0) & (label < num_classes), 0.0, float("nan"))
    ignored = label == ignore_index
    tl.store(nll + place, tl.where(ignored, 0.0, log_sum - chosen + known), mask=inside)
    if HAS_MIX:
        tl.store(spread + place, tl.where(ignored, 0.0, log_sum * tl.load(mix_sum) - mixed + known), mask=inside)


@triton.jit  # type: ignore[untyped-decorator]
def _mixed_columns(row: tensor, left_at: tensor, right_at: tensor, across: tensor, inside: tensor) -> tensor:
    """Returns the scores of pixels on one row of cells."""
    left = tl.load(row + left_at, mask=inside, other=0).to(across.dtype)
    right = tl.load(row + right_at, mask=inside, other=0).to(across.dtype)
    return left * (1 - across) + right * across


@triton.jit  # type: ignore[untyped-decorator]
def _backward_kernel(
    own: tensor, mixed: tensor, logits: tensor, target: tensor, log_sums: tensor,
    mix: tensor, mix_sum: tensor, gradient: tensor,
    row_low: tensor, row_share: tensor, row_start: tensor, row_stop: tensor,
    column_low: tensor, column_share: tensor, column_start: tensor, column_stop: tensor,
    num_classes: tensor, h: tensor, w: tensor, H: tensor, W: tensor, classes: tensor, cells: tensor,
    own_b: tensor, own_y: tensor, own_x: tensor, mixed_b: tensor, mixed_y: tensor, mixed_x: tensor,
    scores_b: tensor, scores_k: tensor, scores_y: tensor, scores_x: tensor,
    target_b: tensor, target_y: tensor, target_x: tensor, ignore_index: tensor,
    HAS_MIX: tl.constexpr, CELLS: tl.constexpr, PIXELS: tl.constexpr,
) -> None:  # fmt: skip
    """Fills the gradient of some neighbouring cells of a row, for some classes."""
    dtype = log_sums.dtype.element_ty
    b = (tl.program_id(0) // h).to(tl.int64)
    i = tl.program_id(0) % h
    first_cell = tl.program_id(1) * cells
    last_cell = tl.minimum(first_cell + cells, w) - 1
    j = first_cell + tl.arange(0, CELLS)
    y_start = tl.load(row_start + i)
    y_stop = tl.load(row_stop + i)
    x_start = tl.load(column_start + first_cell)
    x_stop = tl.load(column_stop + last_cell)
    first_class = tl.program_id(2) * classes
    zero = b * 0  # makes offsets of what is added to it 64 bits wide
    image = logits + b * scores_b
    middle_at = i.to(tl.int64) * scores_y
    above_at = tl.maximum(i - 1, 0).to(tl.int64) * scores_y
    below_at = tl.minimum(i + 1, h - 1).to(tl.int64) * scores_y
    for k in range(first_class, tl.minimum(first_class + classes, num_classes)):
        plane = image + (zero + k) * scores_k
        pulled = tl.zeros([CELLS], dtype)
        for x_first in range(x_start, x_stop, PIXELS):
            x = x_first + tl.arange(0, PIXELS)
            inside = x < x_stop
            left = tl.load(column_low + x, mask=inside, other=0)
            across = tl.load(column_share + x, mask=inside, other=0)
            right = tl.minimum(left + 1, w - 1)
            left_at = left * scores_x
            right_at = right * scores_x
            above = _mixed_columns(plane + above_at, left_at, right_at, across, inside)
            middle = _mixed_columns(plane + middle_at, left_at, right_at, across, inside)
            below = _mixed_columns(plane + below_at, left_at, right_at, across, inside)
            pull = tl.zeros([PIXELS], dtype)
            for y in range(y_start, y_stop):
                down = tl.load(row_share + y)
                under = tl.load(row_low + y) == i  # the pixel lies under the row of cells, else above it
                share = tl.where(under, 1 - down, down)
                score = middle * share + tl.where(under, below, above) * (1 - share)
                line = zero + y
                log_sum = tl.load(log_sums + (b * H + line) * W + x, mask=inside, other=0)
                label = tl.load(target + b * target_b + line * target_y + x * target_x, mask=inside, other=0)
                label = label.to(tl.int32)
                weight = tl.load(own + b * own_b + line * own_y + x * own_x, mask=inside, other=0).to(dtype)
                p = tl.exp(score - log_sum)
                g = weight * (p - tl.where(label == k, 1.0, 0.0))
                if HAS_MIX:
                    weight = tl.load(mixed + b * mixed_b + line * mixed_y + x * mixed_x, mask=inside, other=0)
                    g += weight.to(dtype) * (tl.load(mix_sum) * p - tl.load(mix + k))
                pull += tl.where(inside & (label != ignore_index), g * share, 0.0)
            near = tl.where(left[None, :] == j[:, None], 1 - across[None, :], 0.0)
            near += tl.where((right[None, :] == j[:, None]) & (right != left)[None, :], across[None, :], 0.0)
            pulled += tl.sum(near * pull[None, :], 1)
        place = ((b * num_classes + k) * h + i) * w + j
        tl.store(gradient + place, pulled, mask=j <= last_cell)
