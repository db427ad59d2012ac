"""What focal loss makes of the negative log-likelihood n of a pixel: (1 - exp(-n))^g n (Lin et al. 2017)."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["focused", "focused_slope"]

_LEAST = 1e-8
"""Of the probability of being wrong: keeps the slope of x**g finite where n = 0."""


def focused(nll: Tensor, focus: float) -> Tensor:
    """Returns (1 - exp(-n))^g n for n >= 0 of any shape and an exponent g >= 0; differentiable."""
    return (-torch.expm1(-nll)).clamp(min=_LEAST) ** focus * nll


def focused_slope(nll: Tensor, focus: float) -> Tensor:
    """Returns the derivative of `focused` by n, as autograd gives it."""
    wrong = -torch.expm1(-nll)
    kept = wrong.clamp(min=_LEAST)
    rising = (kept ** (focus - 1)).mul_(focus * (wrong >= _LEAST)).mul_(torch.exp(-nll)).mul_(nll)
    return rising.add_(kept**focus)
