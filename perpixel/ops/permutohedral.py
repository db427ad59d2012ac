"""Gaussian filtering of points with features of any dimension, on the permutohedral lattice.

Adams, Baek and Davis, "Fast High-Dimensional Filtering Using the Permutohedral Lattice" (Eurographics 2010), with the
scales, roundings and order of axes that the dense CRF code of Krähenbühl and Koltun uses (arXiv:1210.5644): values are
*splatted* onto the vertices of the simplex around each point, *blurred* along the D + 1 axes of the lattice, and
*sliced* back. Only touched vertices exist, so time and memory grow with the points and not with the volume.

Everything is sums of gathered rows: each step is a sparse matrix times a dense one, on CPU and GPU, and no sum depends
on timing. The lattice itself is laid out by sorting integer keys. The filter is linear in the values; its gradient is
the filter that visits the axes in reverse order. There is no gradient for the features.

Shapes: B batch, N points, D feature dimensions, C channels of the values, P = B N, M touched vertices.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod, sqrt
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from perpixel.errors import InvalidValue

__all__ = ["PermutohedralLattice", "build_lattice"]

_TABLE_BYTES = 24 * 2**20
"""Most bytes of vertex values at a time: more channels are filtered in several rounds. Keeps big images within memory,
and tables within what the C library's allocator hands out again without asking the system for fresh pages."""
_POINTS_AT_A_TIME = 2**15
"""Whose places are computed together, within the processor's caches."""
_ROWS_AT_A_TIME = 2**16
"""Of sparse matrices: `embedding_bag` makes lists of offsets for itself, and small intermediates leave no big holes in
the heap between what stays."""
_LARGEST_KEY = 2**63 - 1
_LARGEST_INT32 = 2**31 - 1


class _Splat(NamedTuple):
    """The sparse matrix (M + 1, P) from points to vertices: row i sums ``weights`` times the table's rows ``entries``,
    over those from ``offsets[i]`` to ``offsets[i + 1]``. The last vertex stands for all that do not exist."""

    entries: Tensor
    offsets: Tensor
    weights: Tensor

    def times_(self, table: Tensor, result: Tensor) -> None:
        """Writes (M + 1, C), some vertices at a time."""
        starts = [*self.offsets[:-1:_ROWS_AT_A_TIME].tolist(), len(self.entries)]
        for index, part in enumerate(_parts(len(result), _ROWS_AT_A_TIME)):
            points = slice(starts[index], starts[index + 1])
            result[part] = F.embedding_bag(
                self.entries[points],
                table,
                self.offsets[part.start : part.stop + 1] - points.start,
                mode="sum",
                per_sample_weights=self.weights[points],
                include_last_offset=True,
            )


class _Slice(NamedTuple):
    """The sparse matrix (P, M + 1) from vertices back to points: ``entries`` and ``weights`` are (P, D + 1)."""

    entries: Tensor
    weights: Tensor

    def parts(self, table: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Yields some rows of (P, C) at a time."""
        for part in _parts(len(self.entries), _ROWS_AT_A_TIME):
            yield part, F.embedding_bag(self.entries[part], table, mode="sum", per_sample_weights=self.weights[part])


def _parts(length: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]


@dataclass(frozen=True, kw_only=True, eq=False)
class PermutohedralLattice:
    """The lattice around given points: a linear filter of values at those points.

    The kernel is near exp(-|f_i - f_j|² / 2), times a factor below 1 that grows with the density of the points; a
    point's own value is part of its sum. `build_lattice` makes one.

    Attributes:
        batch: B; a lattice with B = 1 filters any batch.
        points: N.
        vertices: M.
    """

    batch: int
    points: int
    vertices: int
    _splat: _Splat
    _slice: _Slice
    _neighbours: Tensor
    """(D + 1, M + 1, 2): on each axis both neighbours of every vertex; the last is its own, so that it stays zero."""
    _is_scaled: bool = False
    _ratio: Tensor | None = None
    """(B, N, 1) factors behind the filter over those before it, where `scaled` made them differ."""

    @property
    def dtype(self) -> torch.dtype:
        """Floating type that it computes in."""
        return self._slice.weights.dtype

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self._slice.weights.device

    def filter(self, values: Tensor, *, reverse: bool = False) -> Tensor:
        """Filters values (B, N, C), differentiably; the result has their type.

        Args:
            values: Any floating type; computed in the lattice's.
            reverse: Visit the axes in reverse order, which is the transposed filter where nothing is `scaled`.

        Raises:
            InvalidValue: the values are not (B, N, C) for the lattice's points.
        """
        if values.ndim != 3 or values.shape[1] != self.points or self.batch not in (1, values.shape[0]):
            raise InvalidValue(
                f"values must be (B, N, C) = ({self.batch}, {self.points}, C) as the lattice's points, "
                f"got {tuple(values.shape)}"
            )
        batch, points, channels = values.shape
        table = values.to(self.dtype)
        if self.batch == batch:
            result: Tensor = _Filter.apply(table.reshape(batch * points, channels), self, reverse)
            return result.reshape(values.shape).to(values.dtype)
        table = table.transpose(0, 1).reshape(points, batch * channels)  # one lattice for all: (N, B C)
        result = _Filter.apply(table, self, reverse)
        return result.reshape(points, batch, channels).transpose(0, 1).to(values.dtype)

    def scaled(self, before: Tensor | None, after: Tensor | None) -> PermutohedralLattice:
        """Returns the filter that multiplies values by ``before`` (B, N) first and results by ``after`` (B, N) last.

        Costs nothing per filtering. The factors must not be zero, or gradients are lost; None is 1.

        Raises:
            InvalidValue: the lattice is scaled already.
        """
        if self._is_scaled:
            raise InvalidValue("this lattice is scaled already; scale the one from build_lattice once")
        splat, slices = self._splat, self._slice
        if before is not None:
            factors = before.detach().to(self.dtype).reshape(-1)
            splat = splat._replace(weights=factors[splat.entries].mul_(splat.weights))
        if after is not None:
            factors = after.detach().to(self.dtype).reshape(-1)
            slices = slices._replace(weights=slices.weights * factors[:, None])
        ratio = None if before is after else self._factors(after) / self._factors(before)
        return replace(self, _splat=splat, _slice=slices, _is_scaled=True, _ratio=ratio)

    def _factors(self, given: Tensor | None) -> Tensor:
        shape = (self.batch, self.points, 1)
        if given is None:
            return torch.ones(shape, dtype=self.dtype, device=self.device)
        return given.detach().to(self.dtype).reshape(shape)

    @property
    def room_per_channel(self) -> int:
        """Numbers that `add_filtered_` works on for each channel at a time."""
        return 2 * (self.vertices + 1)

    def add_filtered_(self, total: Tensor, values: Tensor, gain: float | Tensor, room: Tensor) -> None:
        """Adds ``gain`` times the filtered values (B, N, C) to ``total``, without gradient and with no map of its own.

        Args:
            total: (B, N, C), with one distance between all pixels, such as some channels of a contiguous map.
            values: (B, N, C) in the lattice's type.
            gain: A factor, or factors (C,).
            room: Memory to work in, at least ``room_per_channel`` numbers; more lets more channels go together.
        """
        rows, channels = self.batch * self.points, values.shape[-1]
        tables = values.view(-1, rows, channels)  # several where one lattice serves the batch
        for sums, table in zip(total.view(-1, rows, channels), tables, strict=True):
            self._add_rows(sums, table, gain, room)

    def _add_rows(self, total: Tensor, table: Tensor, gain: float | Tensor, room: Tensor) -> None:
        for channels in _parts(table.shape[1], max(1, len(room) // self.room_per_channel)):
            vertices = self._blurred(table[:, channels].contiguous(), reverse=False, room=room)
            factor = gain[channels] if isinstance(gain, Tensor) else gain
            for part, result in self._slice.parts(vertices):
                total[part, channels] += result.mul_(factor)

    def _run(self, table: Tensor, reverse: bool) -> Tensor:
        """(P, C) -> (P, C), or (N, B C) where one lattice serves the batch."""
        rows, channels = table.shape
        bytes_per_channel = (self.vertices + 1) * table.element_size()
        rounds = min(channels, -(-channels * bytes_per_channel // _TABLE_BYTES))
        width = -(-channels // max(rounds, 1))
        room = table.new_empty(self.room_per_channel * width)
        result = table.new_empty((rows, channels))
        for some in _parts(channels, width):
            vertices = self._blurred(table[:, some].contiguous(), reverse, room)
            for part, values in self._slice.parts(vertices):
                result[part, some] = values
        return result

    def _blurred(self, table: Tensor, reverse: bool, room: Tensor) -> Tensor:
        """Splats values (P, C) and blurs them: those of the vertices (M + 1, C), a part of the room."""
        shape = (2, self.vertices + 1, table.shape[1])
        values, blurred = room[: prod(shape)].view(shape).unbind()
        self._splat.times_(table, values)
        for neighbours in reversed(self._neighbours) if reverse else self._neighbours:
            for part in _parts(len(values), _ROWS_AT_A_TIME):
                both = F.embedding_bag(neighbours[part], values, mode="sum")
                torch.add(values[part], both, alpha=0.5, out=blurred[part])
            values, blurred = blurred, values
        return values


class _Filter(torch.autograd.Function):
    """The filter with its transpose as gradient: reverse order of axes, factors before and behind exchanged."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, lattice: PermutohedralLattice, reverse: bool) -> Tensor:
        ctx.lattice, ctx.reverse = lattice, reverse
        return lattice._run(table.contiguous(), reverse)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        lattice, (gradient,) = ctx.lattice, gradients
        ratio = None if lattice._ratio is None else lattice._ratio.reshape(-1, 1)
        weighted = gradient if ratio is None else gradient * ratio
        result = _Filter.apply(weighted, lattice, not ctx.reverse)
        return (result if ratio is None else result / ratio), None, None


def build_lattice(features: Tensor, *, dtype: torch.dtype | None = None) -> PermutohedralLattice:
    """Lays the lattice around points; a kernel of other width is had by dividing the features by it.

    Args:
        features: (B, N, D) positions in units of the kernel's standard deviation; placed in float64 in any case.
        dtype: float32 or float64, for the filtering; None takes float64 for float64 features and else float32.

    Raises:
        InvalidValue: the shape is another, a feature is not finite, or the points lie so far apart that the
            lattice's coordinates do not fit 63 bits.
    """
    if features.ndim != 3 or 0 in features.shape:
        raise InvalidValue(f"features must be (B, N, D) without empty sides, got {tuple(features.shape)}")
    dtype = dtype or (torch.float64 if features.dtype == torch.float64 else torch.float32)
    if dtype not in (torch.float32, torch.float64):
        raise InvalidValue(f"the lattice computes in float32 or float64, got {dtype}")
    features = features.detach()
    bad = int((~torch.isfinite(features)).sum())
    if bad:
        raise InvalidValue(f"{bad} of {features.numel()} features are not finite; check the image and the widths")
    batch, points, dims = features.shape
    keys, weights, strides = _simplices(features, dtype)  # (P, D + 1) twice
    del features  # big images: what is not needed any more goes before the next big thing comes
    vertex_keys, splat_offsets, vertex_of, order = _grouped(keys.reshape(-1))
    del keys
    weights = weights.reshape(-1)
    vertices = len(vertex_keys)
    index_type = torch.int32 if max(len(order), vertices + 1) <= _LARGEST_INT32 else torch.int64
    splat = _Splat(
        entries=torch.div(order, dims + 1, rounding_mode="floor").to(index_type),
        offsets=splat_offsets.to(index_type),
        weights=weights[order],
    )
    slices = _Slice(
        entries=vertex_of.to(index_type).reshape(-1, dims + 1),
        weights=weights.div_(1 + 2.0**-dims).reshape(-1, dims + 1),
    )
    del order, weights, vertex_of
    neighbours = _found_neighbours(vertex_keys, strides, index_type)
    return PermutohedralLattice(
        batch=batch, points=points, vertices=vertices, _splat=splat, _slice=slices, _neighbours=neighbours
    )


def _simplices(features: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, list[int]]:
    """Returns keys and barycentric weights (P, D + 1) of the simplex around each point, and the keys' strides.

    A vertex with remainder r has the coordinates (D + 1) q_i + r, i < D (those of all axes sum to zero). Its key is
    r + Σ q_i stride_i, plus a stride for the batch: steps along the lattice are additions of constants to keys.
    """
    batch, points, dims = features.shape
    flat = features.reshape(-1, dims)
    parts = _parts(len(flat), _POINTS_AT_A_TIME)
    strides, lowest = _strides(flat, parts, batch)
    steps = torch.tensor([*strides[:dims], 0], device=features.device)
    origin = int((lowest * steps[:dims]).sum())
    keys = torch.empty((batch * points, dims + 1), dtype=torch.int64, device=features.device)
    weights = torch.empty(keys.shape, dtype=dtype, device=features.device)
    for part in parts:
        part_keys, part_weights = _simplex(_elevated(flat[part]), steps)
        keys[part] = part_keys.t() - origin
        weights[part] = part_weights.t()
    keys.view(batch, -1).add_(torch.arange(batch, device=features.device)[:, None] * strides[dims])
    return keys, weights, strides[:dims]


def _simplex(elevated: Tensor, steps: Tensor) -> tuple[Tensor, Tensor]:
    """Returns keys, for coordinates that begin at zero, and barycentric weights (D + 1, n) of n elevated points."""
    sides = len(elevated)
    cell = torch.round(elevated / sides)
    rank = _ranks(elevated - cell * sides)
    # The nearest points of remainder zero need not sum to zero: move those that are farthest off.
    rank += cell.sum(dim=0).to(rank.dtype)
    low, high = rank < 0, rank >= sides
    move = low.to(rank.dtype) - high.to(rank.dtype)
    rank += sides * move
    cell += move
    places = rank.long()
    ordered = torch.empty_like(elevated).scatter_(0, places, elevated / sides - cell)  # by rank
    weights = torch.empty_like(elevated)
    weights[0] = 1 + ordered[-1] - ordered[0]
    weights[1:] = ordered[:-1].flip(0) - ordered[1:].flip(0)
    by_rank = torch.empty_like(places).scatter_(0, places, steps[:, None].expand_as(places))
    keys = torch.empty_like(places)
    keys[0] = (cell.long() * steps[:, None]).sum(dim=0)
    for r in range(1, sides):
        keys[r] = keys[r - 1] - by_rank[sides - r] + 1
    return keys, weights


def _elevated(features: Tensor) -> Tensor:
    """Returns points (n, D) on the hyperplane Σ e = 0 of D + 1 dimensions, scaled for a blur of unit variance."""
    points, dims = features.shape
    result = features.new_empty((dims + 1, points), dtype=torch.float64)
    total = torch.zeros_like(result[0])
    for j in range(dims, 0, -1):
        scale = sqrt(2 / 3) * (dims + 1) / sqrt(j * (j + 1))
        scaled = features[:, j - 1].double() * scale
        torch.sub(total, scaled, alpha=j, out=result[j])
        total += scaled
    result[0] = total
    return result


def _ranks(distances: Tensor) -> Tensor:
    """Returns how many of the D + 1 distances (D + 1, P) are larger, the later of equal ones counting as smaller."""
    rank = torch.zeros(distances.shape, dtype=torch.int32, device=distances.device)
    for i in range(len(distances)):
        for j in range(i + 1, len(distances)):
            smaller = distances[i] < distances[j]
            rank[i] += smaller
            rank[j] += ~smaller
    return rank


def _strides(features: Tensor, parts: list[slice], batch: int) -> tuple[list[int], Tensor]:
    """Returns the strides of D coordinates and of the batch in a key, and the lowest coordinates (D,)."""
    dims = features.shape[1]
    extremes = torch.stack([torch.stack(_elevated(features[part])[:dims].aminmax(dim=1)) for part in parts])
    cells = extremes / (dims + 1)
    lowest = torch.floor(cells[:, 0].amin(dim=0)).long() - 3  # rounded, moved, a vertex below, and its neighbour
    highest = torch.ceil(cells[:, 1].amax(dim=0)).long() + 2
    extents = (highest - lowest + 1).tolist()
    strides = [(dims + 1) * prod(extents[i + 1 :]) for i in range(dims)] + [(dims + 1) * prod(extents)]
    if batch * strides[dims] > _LARGEST_KEY:
        raise InvalidValue(
            f"the features span {extents} cells in {dims} dimensions, more than 63 bits can number; "
            "take larger kernel widths, or fewer features"
        )
    return strides, lowest


def _grouped(keys: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns the distinct keys (M,), where each one's entries begin in ``order`` and the end twice (M + 2,), the
    vertex of each key, and the order that sorts the keys."""
    if keys.max() <= _LARGEST_INT32:
        keys = keys.int()  # sorts in half the time
    ordered, order = torch.sort(keys, stable=True)
    first = torch.ones_like(ordered, dtype=torch.bool)
    torch.ne(ordered[1:], ordered[:-1], out=first[1:])
    starts = first.nonzero()[:, 0]
    end = starts.new_full((2,), len(keys))  # the vertex that stands for the absent ones has no entry
    vertex_keys = ordered[starts].long()
    del ordered
    number = torch.int32 if len(keys) <= _LARGEST_INT32 else torch.int64
    vertex = first.cumsum(0, dtype=number).sub_(1)
    vertex_of = torch.empty_like(vertex).scatter_(0, order, vertex)
    return vertex_keys, torch.cat([starts, end]), vertex_of, order


def _found_neighbours(keys: Tensor, strides: list[int], index_type: torch.dtype) -> Tensor:
    """Finds the two neighbours (D + 1, M + 1, 2) of every vertex on each axis; ``keys`` (M,) are sorted."""
    vertices, sides = len(keys), len(strides) + 1
    pairs = torch.full((sides, vertices + 1, 2), vertices, dtype=index_type, device=keys.device)
    for part in _parts(vertices, _ROWS_AT_A_TIME):
        own = torch.arange(part.start, part.stop, dtype=index_type, device=keys.device)
        # One step: every coordinate less 1, and D + 1 more on the axis itself.
        down = torch.where(keys[part] % sides == 0, sides - 1 - sum(strides), -1) + keys[part]
        for axis, stride in enumerate([*strides, 0]):
            wanted = down + stride
            place = torch.searchsorted(keys, wanted, out_int32=index_type == torch.int32)
            found = keys[place.clamp_(max=vertices - 1)] == wanted
            pairs[axis, place[found].long(), 1] = own[found]
            pairs[axis, part, 0] = place.masked_fill_(~found, vertices)
    return pairs
