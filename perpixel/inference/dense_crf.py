"""Dense CRF behind any network: class probabilities and the raw image in, probabilities that follow its edges out.

Krähenbühl and Koltun, NIPS 2011, arXiv:1210.5644, computed as pydensecrf does. See docs/dense_crf.md.

Shapes: B batch, C image channels, K classes, H W image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from typing import TypeAlias, get_args

import torch
from torch import Tensor

from perpixel.errors import InvalidValue
from perpixel.ops.mean_field import (
    GaussianFilter,
    Normalization,
    bilateral_features,
    check_width,
    compatibility_gain,
    mean_field_,
    normalized,
    position_features,
)
from perpixel.ops.permutohedral import build_lattice

__all__ = ["DENSE_CRFS", "Compatibility", "DenseCRF", "crf_kernels", "dense_crf", "dense_crf_from_energies"]

Compatibility: TypeAlias = float | tuple[float, ...] | tuple[tuple[float, ...], ...]

_LEAST_PROBABILITY = 1e-5
_FULL_SCALE = {torch.uint8: 1.0, torch.int32: 65535 / 255}


def _check_weight(name: str, weight: Compatibility) -> None:
    rows = [row if isinstance(row, tuple) else (row,) for row in weight] if isinstance(weight, tuple) else [(weight,)]
    square = len({len(row) for row in rows}) == 1 and len(rows[0]) in (1, len(rows))
    if not square or not all(isfinite(value) for row in rows for value in row):
        raise InvalidValue(f"{name} is a finite number, K of them, or K rows of K, got {weight!r}")


@dataclass(frozen=True, kw_only=True)
class DenseCRF:
    """Kernels, their weights and how often Q is updated; the defaults are DeepLab v2's for ResNet-101.

    A weight is a number (Potts: equal labels are rewarded by it), a tuple of K numbers or a K x K tuple of tuples
    (energies, so negative ones reward; of a matrix the symmetric part counts). A weight of 0 leaves the kernel out.

    Raises:
        InvalidValue: a width is not positive, a weight not finite or not of these shapes, the iterations negative, or
            the normalization unknown.
    """

    spatial_weight: Compatibility = 3.0
    spatial_width: float = 1.0
    """Standard deviation in pixels of the kernel that sees positions alone."""
    bilateral_weight: Compatibility = 4.0
    bilateral_width: float = 67.0
    """Standard deviation in pixels of the kernel that sees colours too."""
    color_width: float = 3.0
    """Its standard deviation in colours, of 0 to 255."""
    iterations: int = 10
    normalization: Normalization = "symmetric"

    def __post_init__(self) -> None:
        for name in ("spatial_width", "bilateral_width", "color_width"):
            check_width(name.removesuffix("_width"), getattr(self, name))
        for name in ("spatial_weight", "bilateral_weight"):
            _check_weight(name, getattr(self, name))
        if self.iterations < 0:
            raise InvalidValue(f"iterations of a dense CRF must be >= 0, got {self.iterations}")
        if self.normalization not in get_args(Normalization):
            known = ", ".join(get_args(Normalization))
            raise InvalidValue(f"normalization is one of {known}, got {self.normalization!r}")


DENSE_CRFS: dict[str, DenseCRF] = {
    "deeplab_v1": DenseCRF(
        spatial_width=3, bilateral_weight=5.0, bilateral_width=50, color_width=10, normalization="after"
    ),
    "deeplab_v1_msc": DenseCRF(
        spatial_width=3, bilateral_weight=3.0, bilateral_width=95, color_width=3, normalization="after"
    ),
    "deeplab_v1_coco": DenseCRF(
        spatial_width=3, bilateral_weight=5.0, bilateral_width=67, color_width=3, normalization="after"
    ),
    "deeplab_largefov": DenseCRF(spatial_width=3, bilateral_weight=4.0, bilateral_width=49, color_width=5),
    "deeplab_v2_vgg16": DenseCRF(
        spatial_weight=2.0, spatial_width=2, bilateral_weight=4.0, bilateral_width=65, color_width=3
    ),
    "deeplab_v2_resnet101": DenseCRF(),
    "deconvnet": DenseCRF(spatial_width=3, bilateral_weight=5.0, bilateral_width=20, color_width=3),
    "crf_rnn": DenseCRF(
        spatial_width=3, bilateral_weight=5.0, bilateral_width=160, color_width=3, normalization="after"
    ),
    "pydensecrf": DenseCRF(spatial_width=3, bilateral_weight=10.0, bilateral_width=80, color_width=13),
}
"""Published sets by name, ten updates each. The sources are in docs/dense_crf.md; ``crf_rnn`` is that network before
training, ``pydensecrf`` the example of its README. DeepLab v1's scripts run its authors' C++ code, which normalises
"after"; the others come from re-implementations on pydensecrf, which normalise "symmetric"."""


def dense_crf(probabilities: Tensor, images: Tensor, crf: DenseCRF | None = None) -> Tensor:
    """Returns class probabilities that agree with the image's edges.

    Args:
        probabilities: (K, H, W) or (B, K, H, W) in [0, 1], any floating type; below 1e-5 they count as 1e-5.
        images: Raw pixels (C, H, W) or (B, C, H, W): uint8, 16-bit values in int32, or floats from 0 to 255.
        crf: Its numbers, such as ``DENSE_CRFS["deeplab_v1"]``; None takes `DenseCRF`'s defaults.

    Returns:
        Probabilities of the same shape, float64 where they were float64, else float32.

    Raises:
        InvalidValue: shapes do not agree, an image's type is unknown, or a value is not finite or no probability.
    """
    _check_shapes(probabilities, images)
    _check_finite("probabilities", probabilities)
    lowest, highest = (float(x) for x in torch.aminmax(probabilities.detach()))
    if lowest < 0 or highest > 1 + 1e-3:
        raise InvalidValue(
            f"probabilities lie in [0, 1], got values from {lowest:g} to {highest:g}; for scores, take their softmax"
        )

    def scores(rows: slice) -> Tensor:
        return _by_pixel(probabilities, rows).clamp_(min=_LEAST_PROBABILITY, max=1.0).log_()

    return _inferred(scores, probabilities, images, crf or DenseCRF())


def dense_crf_from_energies(energies: Tensor, images: Tensor, crf: DenseCRF | None = None) -> Tensor:
    """Is `dense_crf` for unary energies (B, K, H, W) or (K, H, W): -log p, or as DeepLab's C++ code -score.

    Raises:
        InvalidValue: shapes do not agree, an image's type is unknown, or a value is not finite.
    """
    _check_shapes(energies, images)
    _check_finite("energies", energies)
    return _inferred(lambda rows: _by_pixel(energies, rows).neg_(), energies, images, crf or DenseCRF())


def _dtype(values: Tensor) -> torch.dtype:
    return torch.float64 if values.dtype == torch.float64 else torch.float32


def _by_pixel(values: Tensor, rows: slice) -> Tensor:
    """Returns a copy (B, n, K) of some pixels, float32 unless the values are float64."""
    pixels = values.reshape(-1, values.shape[-3], values.shape[-2] * values.shape[-1])[..., rows].mT
    return torch.empty(pixels.shape, dtype=_dtype(values), device=values.device).copy_(pixels)


@torch.no_grad()
def _inferred(scores: Callable[[slice], Tensor], values: Tensor, images: Tensor, crf: DenseCRF) -> Tensor:
    """Q in the shape of the values."""
    images = images.to(values.device).reshape(-1, *images.shape[-3:])
    filters, gains = crf_kernels(images, crf, num_classes=values.shape[-3], dtype=_dtype(values))
    shape = (len(images), images.shape[-2] * images.shape[-1], values.shape[-3])
    q = mean_field_(scores, shape, filters, gains, iterations=crf.iterations)
    del filters
    return q.mT.reshape(values.shape)


def crf_kernels(
    images: Tensor, crf: DenseCRF, *, num_classes: int, dtype: torch.dtype
) -> tuple[list[GaussianFilter], list[float | Tensor]]:
    """Returns the normalised filters and the gains that `ops.mean_field` takes, for raw images (B, C, H, W).

    Raises:
        InvalidValue: the images' type is unknown, a colour is not finite, or a weight is of another class count.
    """
    height, width = images.shape[-2:]
    filters: list[GaussianFilter] = []
    gains: list[float | Tensor] = []
    if _any(crf.bilateral_weight):  # the larger one first, while memory is free
        sigma = crf.color_width * _color_scale(images)
        lattice = build_lattice(bilateral_features(images, crf.bilateral_width, sigma), dtype=dtype)
        filters.append(normalized(lattice, crf.normalization))
        gains.append(_gain(crf.bilateral_weight, num_classes, dtype, images.device))
    if _any(crf.spatial_weight):  # first in use: what it frees, the smaller tables of the other take up again
        lattice = build_lattice(position_features(height, width, crf.spatial_width, device=images.device), dtype=dtype)
        filters.insert(0, normalized(lattice, crf.normalization))
        gains.insert(0, _gain(crf.spatial_weight, num_classes, dtype, images.device))
    return filters, gains


def _color_scale(images: Tensor) -> float:
    """The images' units per unit of 0 to 255."""
    scale = 1.0 if images.is_floating_point() else _FULL_SCALE.get(images.dtype)
    if scale is None:
        raise InvalidValue(f"images are uint8, 16-bit values in int32, or floats from 0 to 255, got {images.dtype}")
    if images.is_floating_point():
        _check_finite("images", images)
    return scale


def _gain(weight: Compatibility, num_classes: int, dtype: torch.dtype, device: torch.device) -> float | Tensor:
    if not isinstance(weight, tuple):
        return float(weight)
    if len(weight) != num_classes:
        raise InvalidValue(f"the CRF's weights are of {len(weight)} classes, the scores of {num_classes}")
    return compatibility_gain(torch.tensor(weight, dtype=dtype, device=device))


def _any(weight: Compatibility) -> bool:
    return any(_any(w) for w in weight) if isinstance(weight, tuple) else weight != 0


def _check_shapes(values: Tensor, images: Tensor) -> None:
    fits = values.ndim in (3, 4) and values.ndim == images.ndim and values.shape[-2:] == images.shape[-2:]
    if not fits or values.shape[:-3] != images.shape[:-3] or 0 in values.shape or 0 in images.shape:
        raise InvalidValue(
            f"a dense CRF takes class values (B, K, H, W) and images (B, C, H, W) of one size, or both without B, "
            f"got {tuple(values.shape)} and {tuple(images.shape)}; bring scores to the image's size first"
        )


def _check_finite(name: str, values: Tensor) -> None:
    finite = torch.isfinite(values)
    if not bool(finite.all()):
        place = tuple((~finite).nonzero()[0].tolist())
        raise InvalidValue(
            f"{int((~finite).sum())} of {values.numel()} {name} are not finite, the first at index {place}; "
            "look at what made them"
        )
