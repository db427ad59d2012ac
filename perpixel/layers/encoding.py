"""Encoding layer: a map as its residuals to learned codewords (Zhang et al., CVPR 2017, arXiv:1612.02844, section 3).

Shapes: B batch, D channels, N = h w positions, K codewords.

Every position x_i is assigned to the codewords c_k by a softmax over their distances, and each codeword sums up what
the positions differ from it by: a_ik = softmax_k(s_k |x_i - c_k|^2), e_k = sum_i a_ik (x_i - c_k).

The differences, B N K D numbers, are never built, forward or backward. The square is expanded, |x|^2 - 2 x c + |c|^2,
and the sum parted, A'X - (A'1) c: two matrix products whose results are B N K and B K D.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from perpixel.errors import InvalidValue

__all__ = ["Encoding"]


class Encoding(nn.Module):
    """Maps (B, D, h, w) to (B, K, D), in float32 at least: the sum over positions, not their mean.

    The scale s is the paper's smoothing factor with its sign, s_k = -beta_k, as in the authors' code: it begins
    uniformly in (-1, 0), and nothing keeps it there. Codewords begin uniformly within 1 / sqrt(K D).

    Args:
        channels: D.
        num_codewords: K.

    Raises:
        InvalidValue: a number is not positive.
    """

    def __init__(self, channels: int, num_codewords: int) -> None:
        super().__init__()
        if channels < 1 or num_codewords < 1:
            raise InvalidValue(f"channels and num_codewords must be >= 1, got {channels} and {num_codewords}")
        bound = (num_codewords * channels) ** -0.5
        self.codewords = nn.Parameter(torch.empty(num_codewords, channels).uniform_(-bound, bound))
        self.scale = nn.Parameter(torch.empty(num_codewords).uniform_(-1, 0))

    def scaled_distances(self, x: Tensor) -> Tensor:
        """Maps (B, D, h, w) to s_k |x_i - c_k|^2, (B, K, N)."""
        x, codewords, scale = self._wide(x)
        with _without_autocast(x.device.type):
            return _scaled_distances(x, codewords, scale)

    def forward(self, x: Tensor) -> Tensor:
        x, codewords, scale = self._wide(x)
        with _without_autocast(x.device.type):
            assigned = _scaled_distances(x, codewords, scale).softmax(dim=1)  # (B, K, N)
            sums = torch.bmm(assigned, x.transpose(1, 2))  # (B, K, D)
            encoded = sums - assigned.sum(dim=2, keepdim=True) * codewords
        return encoded.to(self.codewords.dtype)

    def _wide(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Flattened positions (B, D, N), codewords and scale; half precision would lose the difference of squares."""
        wide = torch.promote_types(torch.promote_types(x.dtype, self.codewords.dtype), torch.float32)
        return x.flatten(2).to(wide), self.codewords.to(wide), self.scale.to(wide)


def _scaled_distances(x: Tensor, codewords: Tensor, scale: Tensor) -> Tensor:
    norms = x.square().sum(dim=1, keepdim=True) + codewords.square().sum(dim=1, keepdim=True)  # (B, K, N)
    # Batched with a shared factor: matmul would copy the map into another layout.
    distances = torch.baddbmm(norms, codewords.expand(x.shape[0], -1, -1), x, alpha=-2)
    return scale[:, None] * distances


def _without_autocast(device: str) -> AbstractContextManager[Any]:
    """Asks first, so that exported graphs and devices without autocast hold no trace of it."""
    casts = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    return torch.autocast(device, enabled=False) if casts else nullcontext()
