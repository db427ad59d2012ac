"""Mean-field inference in fully connected CRFs with Gaussian edges (Krähenbühl & Koltun, NIPS 2011, arXiv:1210.5644).

Shapes: B batch, N pixels, K classes, D features, H W image.
The energy is Σ_i U_i(x_i) + Σ_k Σ_ij μ_k(x_i, x_j) k_k(f_i, f_j); scores are -U. Conventions are those of the public
code (pydensecrf): every pixel is updated at once from the old probabilities, and a pixel is part of its own sum.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor

from perpixel.errors import InvalidValue

__all__ = [
    "ExactFilter",
    "GaussianFilter",
    "Normalization",
    "bilateral_features",
    "check_width",
    "compatibility_gain",
    "exact_filter",
    "free_energy",
    "mean_field",
    "mean_field_",
    "normalized",
    "position_features",
]

Normalization = Literal["none", "before", "after", "symmetric"]
_TINY = 1e-20
"""Added to norms, as in pydensecrf; far below every norm that occurs."""
_MOST_EXACT_POINTS = 2**14
_BLOCK_BYTES = 24 * 2**20
"""Values that are filtered at a time where no gradient is wanted; a megapixel has 4 MiB per class, and a filter takes
half the time per class for four of them that it takes for one."""
_ROOM_BYTES = 64 * 2**20
"""Most that the filters share to work in. Kept, as fresh pages cost a tenth of the time; and one block, as the C
library takes and returns blocks of this size whole and its heap gets no holes."""
_ROWS_AT_A_TIME = 2**14


class GaussianFilter(Protocol):
    """A linear filter of values (B, N, C) at fixed points: exact, or on the permutohedral lattice."""

    @property
    def batch(self) -> int: ...
    @property
    def points(self) -> int: ...
    @property
    def dtype(self) -> torch.dtype: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def room_per_channel(self) -> int: ...
    def filter(self, values: Tensor) -> Tensor: ...
    def add_filtered_(self, total: Tensor, values: Tensor, gain: float | Tensor, room: Tensor) -> None: ...
    def scaled(self, before: Tensor | None, after: Tensor | None) -> GaussianFilter: ...


@dataclass(frozen=True, kw_only=True, eq=False)
class ExactFilter:
    """The Gaussian filter as a full matrix (B, N, N): the oracle for small images, and quadratic in pixels."""

    matrix: Tensor

    @property
    def batch(self) -> int:
        """B."""
        return len(self.matrix)

    @property
    def points(self) -> int:
        """N."""
        return self.matrix.shape[1]

    @property
    def dtype(self) -> torch.dtype:
        """Floating type of the matrix."""
        return self.matrix.dtype

    @property
    def device(self) -> torch.device:
        """Where the matrix lies."""
        return self.matrix.device

    def filter(self, values: Tensor) -> Tensor:
        """Filters values (B, N, C)."""
        return self.matrix @ values

    @property
    def room_per_channel(self) -> int:
        """Numbers that `add_filtered_` needs room for: none."""
        return 0

    def add_filtered_(self, total: Tensor, values: Tensor, gain: float | Tensor, room: Tensor) -> None:
        """Adds ``gain`` times the filtered values (B, N, C) to ``total``; it needs no ``room``."""
        del room
        total += self.filter(values) * gain

    def scaled(self, before: Tensor | None, after: Tensor | None) -> ExactFilter:
        """Returns the filter with factors (B, N) on its values and on its results; None is 1."""
        matrix = self.matrix
        if before is not None:
            matrix = matrix * before[:, None, :]
        if after is not None:
            matrix = matrix * after[:, :, None]
        return ExactFilter(matrix=matrix)


def exact_filter(features: Tensor) -> ExactFilter:
    """Returns the filter exp(-|f_i - f_j|² / 2) of features (B, N, D), in their floating type.

    Raises:
        InvalidValue: N is over 16,384, whose matrix would take gigabytes.
    """
    if features.shape[1] > _MOST_EXACT_POINTS:
        raise InvalidValue(
            f"the exact filter of {features.shape[1]} points needs a matrix of their square; it takes at most "
            f"{_MOST_EXACT_POINTS}, use the permutohedral lattice (build_lattice)"
        )
    distances = (features[:, :, None, :] - features[:, None, :, :]).square().sum(dim=-1)
    return ExactFilter(matrix=torch.exp(-distances / 2))


def normalized(filter_: GaussianFilter, normalization: Normalization) -> GaussianFilter:
    """Divides a filter by its response to ones, n = F(1): before it, after it, or by the root of n on both sides.

    Raises:
        InvalidValue: the normalization is none of the four.
    """
    if normalization not in get_args(Normalization):
        raise InvalidValue(f"normalization is one of {', '.join(get_args(Normalization))}, got {normalization!r}")
    if normalization == "none":
        return filter_
    ones = torch.ones((filter_.batch, filter_.points, 1), dtype=filter_.dtype, device=filter_.device)
    norms = filter_.filter(ones)[:, :, 0] + _TINY
    if normalization == "symmetric":
        root = norms.rsqrt()
        return filter_.scaled(root, root)
    factor = norms.reciprocal()
    return filter_.scaled(factor, None) if normalization == "before" else filter_.scaled(None, factor)


def position_features(height: int, width: int, sigma: float, *, device: torch.device | str = "cpu") -> Tensor:
    """Returns pixel positions (x, y) in units of ``sigma`` pixels, (1, H W, 2) float64, row by row.

    Raises:
        InvalidValue: ``sigma`` is not a positive number.
    """
    check_width("position", sigma)
    x = torch.arange(width, dtype=torch.float64, device=device) / sigma
    y = torch.arange(height, dtype=torch.float64, device=device) / sigma
    return torch.stack([x.expand(height, width), y[:, None].expand(height, width)], dim=-1).reshape(1, -1, 2)


def bilateral_features(images: Tensor, position_sigma: float, color_sigma: float) -> Tensor:
    """Returns position and colour (x, y, channels…) of images (B, C, H, W), (B, H W, 2 + C) float64.

    They are in units of ``position_sigma``, which counts pixels, and of ``color_sigma``, which counts what images do.

    Raises:
        InvalidValue: a sigma is not a positive number.
    """
    check_width("color", color_sigma)
    batch, _, height, width = images.shape
    positions = position_features(height, width, position_sigma, device=images.device)
    colors = images.detach().flatten(2).transpose(1, 2).double() / color_sigma
    return torch.cat([positions.expand(batch, -1, -1), colors], dim=-1)


def check_width(name: str, sigma: float) -> None:
    """Refuses a kernel width that is not positive and finite.

    Raises:
        InvalidValue: it is not.
    """
    if not 0 < sigma < float("inf"):
        raise InvalidValue(f"the {name} width of a CRF kernel must be a positive number, got {sigma}")


def compatibility_gain(compatibility: float | Tensor) -> float | Tensor:
    """Returns the factor or matrix that turns filtered probabilities into a message that is added to scores.

    Signs are pydensecrf's: a number w is a Potts model that rewards equal labels by w; a vector (K,) and a matrix
    (K, K) are energies, so negative ones reward; of a matrix the symmetric part counts.

    Raises:
        InvalidValue: a tensor is neither (K,) nor (K, K).
    """
    if not isinstance(compatibility, Tensor):
        return compatibility
    if compatibility.ndim == 1:
        return -compatibility
    if compatibility.ndim != 2 or compatibility.shape[0] != compatibility.shape[1]:
        raise InvalidValue(f"a compatibility is a number, (K,) or (K, K), got {tuple(compatibility.shape)}")
    return -(compatibility + compatibility.T) / 2


def mean_field(
    scores: Tensor, filters: Sequence[GaussianFilter], gains: Sequence[float | Tensor], *, iterations: int
) -> Tensor:
    """Returns the scores (B, N, K) after some updates; their softmax is Q, and after none they are the given ones.

    One update is ``scores + Σ_k gain_k(filter_k(softmax(current)))``, differentiable in scores and gains.

    Args:
        scores: (B, N, K) negative unary energies.
        filters: One per kernel, for the same N pixels.
        gains: One per kernel: a factor, factors (K,), or a matrix (K, K) that maps filtered classes to messages.
        iterations: Number of updates, >= 0.

    Raises:
        InvalidValue: iterations are negative, or there is not one gain per filter, of K classes.
    """
    _check(iterations, scores.shape[-1], filters, gains)
    current = scores
    for _ in range(iterations):
        q = current.softmax(dim=-1)
        current = scores
        for filter_, gain in zip(filters, gains, strict=True):
            current = _with_message(current, filter_.filter(q), gain)
    return current


def mean_field_(
    scores: Callable[[slice], Tensor],
    shape: tuple[int, int, int],
    filters: Sequence[GaussianFilter],
    gains: Sequence[float | Tensor],
    *,
    iterations: int,
) -> Tensor:
    """Returns Q (B, N, K) after some updates, without gradients and, for large images, with no other map in memory.

    Args:
        scores: Makes negative unary energies (B, n, K) of some of the N pixels, as a tensor of its own.
        shape: B, N and K.
        filters: See `mean_field`.
        gains: See `mean_field`.
        iterations: See `mean_field`.

    Raises:
        InvalidValue: as `mean_field`.
    """
    batch, points, num_classes = shape
    _check(iterations, num_classes, filters, gains)
    if any(isinstance(gain, Tensor) and gain.ndim == 2 for gain in gains):  # every class's message needs all classes
        return mean_field(scores(slice(0, points)), filters, gains, iterations=iterations).softmax(dim=-1)
    _hand_back_freed_memory()
    some = scores(slice(0, 1))
    q = some.new_empty(shape)
    width = max(1, min(num_classes, _BLOCK_BYTES // (batch * points * some.element_size())))
    least = max((filter_.room_per_channel for filter_ in filters), default=0)
    room = some.new_empty(max(least, min(least * width, _ROOM_BYTES // some.element_size())))
    old = some.new_empty(batch * points * width)
    for rows in _rows(points):
        q[:, rows] = scores(rows).softmax(dim=-1)
    for _ in range(iterations):
        for start in range(0, num_classes, width):
            classes = slice(start, min(start + width, num_classes))
            part = q[..., classes]
            values = old[: part.numel()].view(part.shape).copy_(part)
            part.zero_()
            for filter_, gain in zip(filters, gains, strict=True):
                filter_.add_filtered_(part, values, gain[classes] if isinstance(gain, Tensor) else gain, room)
        for rows in _rows(points):
            q[:, rows] = q[:, rows].add_(scores(rows)).softmax(dim=-1)
    return q


def _rows(points: int) -> list[slice]:
    return [slice(start, min(start + _ROWS_AT_A_TIME, points)) for start in range(0, points, _ROWS_AT_A_TIME)]


def _hand_back_freed_memory() -> None:
    """Asks glibc for what the making of the filters left in its heap: 100 MB for two megapixels."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def free_energy(
    q: Tensor, scores: Tensor, filters: Sequence[GaussianFilter], gains: Sequence[float | Tensor]
) -> Tensor:
    """Returns what mean field lowers, (B,): the divergence of Q (B, N, K) from the CRF up to its constant log Z.

    Σ Q log Q + Σ U Q + Σ_k Σ Q μ_k(F_k Q), with pairs counted as pydensecrf's ``klDivergence`` does.
    """
    _check_gains(scores.shape[-1], filters, gains)
    field = scores
    for filter_, gain in zip(filters, gains, strict=True):
        field = _with_message(field, filter_.filter(q), gain)
    summands: Tensor = torch.special.xlogy(q, q) - q * field
    return summands.sum(dim=(1, 2))


def _with_message(scores: Tensor, filtered: Tensor, gain: float | Tensor) -> Tensor:
    if not isinstance(gain, Tensor):
        return torch.add(scores, filtered, alpha=gain)
    return scores + (filtered * gain if gain.ndim == 1 else filtered @ gain.T)


def _check(
    iterations: int, num_classes: int, filters: Sequence[GaussianFilter], gains: Sequence[float | Tensor]
) -> None:
    if iterations < 0:
        raise InvalidValue(f"iterations of mean field must be >= 0, got {iterations}")
    _check_gains(num_classes, filters, gains)


def _check_gains(num_classes: int, filters: Sequence[GaussianFilter], gains: Sequence[float | Tensor]) -> None:
    if len(filters) != len(gains):
        raise InvalidValue(f"mean field needs one gain per filter, got {len(gains)} for {len(filters)}")
    for gain in gains:
        if isinstance(gain, Tensor) and tuple(gain.shape) not in ((num_classes,), (num_classes, num_classes)):
            raise InvalidValue(f"a compatibility of {num_classes} classes cannot have shape {tuple(gain.shape)}")
