"""Where a loss gets -log p of the labels from: scores at their size, or smaller ones that are never upsampled whole.

A loss that is arithmetic on that map is stated once, as a function of a `PixelNll`, and works on both.
Shapes: B batch, K classes, H W labels, h w scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from perpixel.errors import InvalidValue
from perpixel.ops.full_size_nll import (
    full_size_nll,
    full_size_nll_total,
    plain_full_size_nll,
    plain_full_size_nll_total,
)
from perpixel.ops.host_values import from_host
from perpixel.ops.upsampled_nll import upsampled_nll, upsampled_nll_total

__all__ = ["FullSizeNll", "PixelNll", "UpsampledNll", "class_weight_map", "class_weight_values"]


class PixelNll(Protocol):
    """-log p of every pixel's label, zero where it is ignored."""

    logits: Tensor
    """(B, K, ...)."""

    @property
    def dtype(self) -> torch.dtype:
        """Of the maps and sums."""

    def values(self) -> Tensor:
        """Returns the map (B, H, W) in nats."""

    def total(
        self,
        weight: Tensor | None = None,
        *,
        own: float = 1.0,
        class_mix: Tensor | None = None,
        focus: float = 0.0,
    ) -> Tensor:
        """Returns own * sum(weight * values) + sum_k v_k (-log p_k) over the valid pixels, v the class mix (K,).

        ``weight`` (B, H, W) and ``class_mix`` are not differentiated; None is 1 and 0. With a ``focus`` the values n
        are focal loss's, (1 - exp(-n))^focus n.
        """


class FullSizeNll:
    """Of scores (B, K, H, W) at the size of the labels (B, H, W); ``fused`` false takes the plain forms alone."""

    def __init__(self, logits: Tensor, target: Tensor, *, ignore_index: int, fused: bool = True) -> None:
        self.logits, self._target, self._ignore_index, self._fused = logits, target, ignore_index, fused

    @property
    def dtype(self) -> torch.dtype:
        """Of the maps and sums: at least float32."""
        return torch.promote_types(self.logits.dtype, torch.float32)

    def values(self) -> Tensor:
        """Returns the map (B, H, W) in nats."""
        function = full_size_nll if self._fused else plain_full_size_nll
        return function(self.logits, self._target, ignore_index=self._ignore_index)[0]

    def total(
        self,
        weight: Tensor | None = None,
        *,
        own: float = 1.0,
        class_mix: Tensor | None = None,
        focus: float = 0.0,
    ) -> Tensor:
        """Returns own * sum(weight * values) + sum_k v_k (-log p_k) over the valid pixels."""
        function = full_size_nll_total if self._fused else plain_full_size_nll_total
        return function(
            self.logits,
            self._target,
            weight,
            ignore_index=self._ignore_index,
            own=own,
            class_mix=class_mix,
            focus=focus,
        )


class UpsampledNll:
    """Of scores (B, K, h, w) interpolated bilinearly to the size of the labels (B, H, W), without making them."""

    def __init__(self, logits: Tensor, target: Tensor, *, align_corners: bool, ignore_index: int) -> None:
        self.logits, self._target = logits, target
        self._align_corners, self._ignore_index = align_corners, ignore_index

    @property
    def dtype(self) -> torch.dtype:
        """Of the maps and sums: at least float32."""
        return torch.promote_types(self.logits.dtype, torch.float32)

    def values(self) -> Tensor:
        """Returns the map (B, H, W) in nats."""
        return upsampled_nll(
            self.logits, self._target, align_corners=self._align_corners, ignore_index=self._ignore_index
        )[0]

    def total(
        self,
        weight: Tensor | None = None,
        *,
        own: float = 1.0,
        class_mix: Tensor | None = None,
        focus: float = 0.0,
    ) -> Tensor:
        """Returns own * sum(weight * values) + sum_k v_k (-log p_k) over the valid pixels."""
        return upsampled_nll_total(
            self.logits,
            self._target,
            weight,
            align_corners=self._align_corners,
            ignore_index=self._ignore_index,
            own=own,
            class_mix=class_mix,
            focus=focus,
        )


def class_weight_values(nll: PixelNll, class_weights: Sequence[float] | None) -> Tensor | None:
    """Returns the weights (K,) on the scores' device, None for None.

    Raises:
        InvalidValue: they are not one per class.
    """
    if class_weights is None:
        return None
    num_classes = nll.logits.shape[1]
    if len(class_weights) != num_classes:
        raise InvalidValue(f"{len(class_weights)} class weights for {num_classes} classes; give one per class")
    return from_host(class_weights, dtype=nll.dtype, device=nll.logits.device)


def class_weight_map(values: Tensor, target: Tensor, ignore_index: int) -> Tensor:
    """Returns the weight of every pixel's class (B, H, W), zero where ignored."""
    index = target.clamp(0, len(values) - 1).int()  # a label that is no class is the likelihood's to refuse
    return values[index] * (target != ignore_index)
