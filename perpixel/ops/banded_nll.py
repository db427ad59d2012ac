"""The arithmetic of `upsampled_nll` in bands of rows that stay in the processor's cache, with PyTorch operations only.

Shapes: B batch, K classes, h w cells of the scores, H W pixels, n rows of a band, c rows of cells that it lies between.
Bilinear interpolation is linear along each axis: scores (K, c, w) times (w, W) are the columns of a slab of bands, and
(n, c) times those are the scores of a band, (K, n, W). Its adjoint is the same products, transposed. Before them the
highest score of every cell is taken from the others, so that what lies between cells is at most 0 and its exponential
needs no search for a maximum; where all classes of a pixel underflow by that, its band is done again with the search.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from perpixel.ops.focus import focused, focused_slope
from perpixel.ops.fused_argmax import Axis
from perpixel.ops.host_threads import share_out

__all__ = ["banded_gradient", "banded_maps", "banded_total"]

# Measured on one core with 1 MiB of second-level cache: half or twice the scores of a band change little.
_BAND_SCORES = 1 << 18  # of all classes: 1 MiB of float32
_LEAST_ROWS = 4  # products of fewer rows lose more than the cache gives
_SLAB_SCORES = 1 << 19
_BLOCK_PIXELS = 128  # pixels of a row that one product mixes: few zeros are multiplied
_ELSEWHERE = 64  # times as much on other devices, where it is the number of operations that costs
_UNDERFLOW = 1e-20


@dataclass(frozen=True, eq=False)
class _Block:
    """Neighbouring pixels along an axis, the cells that they lie between, and their shares of these."""

    pixels: slice
    cells: slice
    shares: Tensor
    """(pixels, cells)."""


@dataclass(frozen=True, eq=False)
class _Slab:
    """Bands whose columns are mixed together."""

    cells: slice
    bands: tuple[_Block, ...]
    """Their cells are counted from the first of the slab."""


class _Images:
    """Goes through a batch image by image, in buffers that are made once."""

    def __init__(
        self, logits: Tensor, target: Tensor, align_corners: bool, ignore_index: int, class_mix: Tensor | None
    ) -> None:
        self.dtype = _computed(logits)
        self._logits, self._target, self._ignore_index = logits, target, ignore_index
        self._mix = None if class_mix is None else class_mix.to(self.dtype)
        _, num_classes, height, width = *logits.shape[:2], *target.shape[1:]
        times = 1 if logits.device.type == "cpu" else _ELSEWHERE
        place = (align_corners, self.dtype, logits.device)
        rows = min(height, max(_LEAST_ROWS, times * _BAND_SCORES // (num_classes * width)))
        cells = max(1, times * _SLAB_SCORES // (num_classes * width))
        self._slabs = _slabs(logits.shape[2], height, rows, cells, *place)
        self._columns = _blocks(logits.shape[3], width, _BLOCK_PIXELS, *place)
        self._shape = (height, width)
        self._buffer = torch.empty(num_classes * rows * width, dtype=self.dtype, device=logits.device)
        self._sums, self._chosen = self.new_maps(2)
        self._mixed = None if class_mix is None else self.new_maps(1)[0]

    def new_maps(self, number: int) -> Tensor:
        """(number, H, W), to be filled."""
        return torch.empty((number, *self._shape), dtype=self.dtype, device=self._logits.device)

    def valid(self, index: int) -> Tensor:
        """(H, W): 1 where the label of an image counts, else 0."""
        return (self._target[index] != self._ignore_index).to(self.dtype)

    def run(
        self,
        index: int,
        own: Tensor | None = None,
        mixed: Tensor | None = None,
        gradient: Tensor | None = None,
        focus: float = 0.0,
    ) -> None:
        """Works out the pixels of an image, for `maps`; adds to ``gradient`` (K, h, w) that of own nll + mixed spread.

        ``own`` and ``mixed`` are (H, W), zero where ignored; with a ``focus`` it is that of own `focused`(nll).
        """
        scores = self._logits[index].to(self.dtype).contiguous()
        scores = scores - scores.amax(0)
        for slab in self._slabs:
            columns = self._mixed_columns(scores[:, slab.cells])  # (K, c, W)
            pull = None if gradient is None else torch.zeros_like(columns)
            for band in slab.bands:
                rows = band.pixels
                chosen = self._target[index, rows]
                chosen = chosen.masked_fill(chosen == self._ignore_index, 0).long()
                powers = self._powers(columns, band, chosen)  # (K, n, W)
                if pull is None or own is None:
                    continue
                pulling = own[rows]
                if focus:
                    pulling = pulling * focused_slope(torch.log(self._sums[rows]).sub_(self._chosen[rows]), focus)
                self._pulled(powers, rows, chosen, pulling, None if mixed is None else mixed[rows])
                pull[:, band.cells] += torch.bmm(band.shares.t().expand(len(powers), -1, -1), powers)
            if gradient is not None and pull is not None:
                self._add_columns(gradient[:, slab.cells], pull)

    def maps(self, index: int, nll: Tensor, spread: Tensor | None) -> None:
        """Fills nll and spread (H, W) of the image that `run` went through last."""
        ignored = self._target[index] == self._ignore_index
        log_sums = self._sums.log_()
        torch.sub(log_sums, self._chosen, out=nll).masked_fill_(ignored, 0)
        if spread is not None and self._mix is not None and self._mixed is not None:
            torch.sub(log_sums * self._mix.sum(), self._mixed, out=spread).masked_fill_(ignored, 0)

    def _powers(self, columns: Tensor, band: _Block, labels: Tensor) -> Tensor:
        """Returns exp(scores) of a band, (K, n, W), and keeps its sums over the classes and what labels choose."""
        powers = self._powers_below(columns, band, labels, search=columns.device.type != "cpu")
        if columns.device.type == "cpu" and bool(self._sums[band.pixels].amin() < _UNDERFLOW):
            return self._powers_below(columns, band, labels, search=True)
        return powers  # on another device the search costs less than asking it

    def _powers_below(self, columns: Tensor, band: _Block, labels: Tensor, *, search: bool) -> Tensor:
        rows = band.pixels
        scores = self._mixed_rows(columns, band)
        if search:
            scores -= scores.amax(0)
        torch.gather(scores, 0, labels[None], out=self._chosen[None, rows])
        if self._mix is not None and self._mixed is not None:
            torch.mv(scores.flatten(1).t(), self._mix, out=self._mixed[rows].view(-1))
        torch.sum(scores.exp_(), 0, out=self._sums[rows])
        return scores

    def _pulled(self, powers: Tensor, rows: slice, labels: Tensor, own: Tensor, mixed: Tensor | None) -> None:
        """Makes the gradient of a band's scores of their powers (K, n, W), in place."""
        if mixed is None or self._mix is None:
            powers.mul_(own / self._sums[rows])
        else:
            powers.mul_(torch.addcmul(own, mixed, self._mix.sum()) / self._sums[rows])
            powers.addcmul_(self._mix[:, None, None], mixed, value=-1)
        powers.scatter_add_(0, labels[None], -own[None])

    def _mixed_rows(self, columns: Tensor, band: _Block) -> Tensor:
        shape = (len(columns), band.pixels.stop - band.pixels.start, self._shape[1])
        scores = self._buffer[: shape[0] * shape[1] * shape[2]].view(shape)
        return torch.bmm(band.shares.expand(len(columns), -1, -1), columns[:, band.cells], out=scores)

    def _mixed_columns(self, scores: Tensor) -> Tensor:
        """Mixes (K, c, w) along its last axis: (K, c, W)."""
        flat = scores.flatten(0, 1)
        mixed = flat.new_empty((len(flat), self._shape[1]))
        for block in self._columns:
            torch.mm(flat[:, block.cells], block.shares.t(), out=mixed[:, block.pixels])
        return mixed.view(*scores.shape[:2], -1)

    def _add_columns(self, gradient: Tensor, pull: Tensor) -> None:
        """Adds to a gradient (K, c, w) what pulls at the mixed columns, (K, c, W)."""
        flat = pull.flatten(0, 1)
        for block in self._columns:
            gradient[..., block.cells] += (flat[:, block.pixels] @ block.shares).view(*gradient.shape[:2], -1)


def banded_maps(
    logits: Tensor, target: Tensor, align_corners: bool, ignore_index: int, class_mix: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Returns -log p of the labels and, for a class mix v, sum_k v_k (-log p_k): (B, H, W), 0 where ignored."""
    nll = torch.empty(target.shape, dtype=_computed(logits), device=logits.device)
    spread = None if class_mix is None else torch.empty_like(nll)

    def work(indices: range) -> None:
        images = _Images(logits, target, align_corners, ignore_index, class_mix)
        for index in indices:
            images.run(index)
            images.maps(index, nll[index], None if spread is None else spread[index])

    share_out(len(target), logits.device, work)
    return nll, spread


def banded_gradient(
    own: Tensor,
    mixed: Tensor | None,
    logits: Tensor,
    target: Tensor,
    align_corners: bool,
    ignore_index: int,
    class_mix: Tensor | None,
) -> Tensor:
    """Returns the gradient (B, K, h, w) of sum(own * nll) + sum(mixed * spread), in the dtype of the logits."""
    gradient = torch.zeros(logits.shape, dtype=_computed(logits), device=logits.device)

    def work(indices: range) -> None:
        images = _Images(logits, target, align_corners, ignore_index, class_mix)
        for index in indices:
            valid = images.valid(index)
            pull = valid * own[index].to(valid.dtype)
            push = None if mixed is None else valid * mixed[index].to(valid.dtype)
            images.run(index, pull, push, gradient[index])

    share_out(len(target), logits.device, work)
    return gradient.to(logits.dtype)


def banded_total(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    own: float,
    class_mix: Tensor | None,
    focus: float,
    align_corners: bool,
    ignore_index: int,
    with_gradient: bool,
) -> tuple[Tensor, Tensor]:
    """Returns own * sum(weight * nll) + sum(spread) and its gradient (B, K, h, w) from one pass, empty if not asked.

    With a ``focus`` it is `focused`(nll) that is summed.
    """
    dtype, device = _computed(logits), logits.device
    gradient = torch.zeros(logits.shape if with_gradient else (0,), dtype=dtype, device=device)
    totals = torch.zeros(len(target), dtype=dtype, device=device)

    def work(indices: range) -> None:
        images = _Images(logits, target, align_corners, ignore_index, class_mix)
        nll, spread = images.new_maps(1)[0], None if class_mix is None else images.new_maps(1)[0]
        for index in indices:
            valid = images.valid(index)
            factor = valid * own if weight is None else weight[index].to(dtype) * valid * own
            mixed = None if spread is None else valid
            images.run(index, factor, mixed, gradient[index] if with_gradient else None, focus)
            images.maps(index, nll, spread)
            values = focused(nll, focus) if focus else nll
            totals[index] = values.mul_(factor).sum() + (0 if spread is None else spread.sum())

    share_out(len(target), device, work)
    return totals.sum(), gradient


def _computed(logits: Tensor) -> torch.dtype:
    return torch.promote_types(logits.dtype, torch.float32)


@lru_cache(maxsize=64)
def _blocks(
    cells: int, pixels: int, size: int, align_corners: bool, dtype: torch.dtype, device: torch.device
) -> tuple[_Block, ...]:
    """Cuts an axis into blocks of up to ``size`` pixels."""
    axis = Axis.between(cells, pixels, align_corners=align_corners)
    blocks = []
    for start in range(0, pixels, size):
        part = axis.window(start, start + size)
        first, last = part.reach
        shares = torch.zeros(len(part), last + 1 - first, dtype=torch.float64)
        shares.scatter_add_(1, (part.high - first)[:, None], part.weight[:, None])
        shares.scatter_add_(1, (part.low - first)[:, None], 1 - part.weight[:, None])
        blocks.append(_Block(slice(start, start + len(part)), slice(first, last + 1), shares.to(device, dtype)))
    return tuple(blocks)


@lru_cache(maxsize=64)
def _slabs(
    cells: int, pixels: int, rows: int, most_cells: int, align_corners: bool, dtype: torch.dtype, device: torch.device
) -> tuple[_Slab, ...]:
    """Gathers the bands of ``rows`` pixels into slabs of up to ``most_cells`` cells, or of one band."""
    slabs: list[_Slab] = []
    bands: list[_Block] = []
    for band in _blocks(cells, pixels, rows, align_corners, dtype, device):
        if bands and band.cells.stop - bands[0].cells.start > most_cells:
            slabs.append(_slab(bands))
            bands = []
        bands.append(band)
    return (*slabs, _slab(bands))


def _slab(bands: list[_Block]) -> _Slab:
    first, stop = bands[0].cells.start, bands[-1].cells.stop
    own = (_Block(b.pixels, slice(b.cells.start - first, b.cells.stop - first), b.shares) for b in bands)
    return _Slab(slice(first, stop), tuple(own))
