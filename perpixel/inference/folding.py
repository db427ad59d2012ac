"""Batch norm folded into convolutions, for inference: y = g (w x + b - m) / s + a is a convolution with w g / s.

Which pairs can be folded is seen, not guessed (`inference.layer_pairs`): a norm goes where each of its inputs is the
whole output of one convolution that nothing else reads. So functions, branches and layers that are called several times
are all right, and what works with weights on its own, such as a sum of convolutions of parts, stays as it is.
"""

from __future__ import annotations

import copy
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from perpixel.inference.layer_pairs import exclusive_pairs, replace_layer

__all__ = ["FoldedNetwork", "fold_batch_norm"]

_CONVOLUTIONS = ("Conv2d", "ConvTranspose2d", "PartsConv2d", "DoublingConv2d", "Conv2dSame")
"""By name, so that subclasses that do more, such as standardising their weights, are left alone; the last is timm's."""
_NORMS = ("BatchNorm2d", "PooledBatchNorm2d", "SyncBatchNorm", "BatchNormAct2d")


class FoldedNetwork(NamedTuple):
    """A network for inference, and what became of its norms."""

    network: nn.Module
    """A copy, in evaluation mode; the network itself where nothing could be folded."""
    folded: int
    """Batch norms that are convolutions' weights now."""
    norms: int
    """Batch norms that the network had."""


def fold_batch_norm(network: nn.Module) -> FoldedNetwork:
    """Returns a copy of a network in which batch norms are parts of the convolutions before them.

    Its scores are those of ``network.eval()`` to rounding; it cannot be trained on. The network is left as it is.

    Args:
        network: Keeps the contract of `perpixel.inference.SegmentationNetwork`; runs here on two small images, where
            its parameters are.
    """
    norms = sum(_is_norm(layer) for layer in network.modules())
    if not norms:
        return FoldedNetwork(network, 0, 0)
    folded = copy.deepcopy(network).eval().requires_grad_(False)
    pairs = exclusive_pairs(folded, _is_convolution, _is_norm)
    if not pairs:
        return FoldedNetwork(network, 0, norms)
    for norm, conv in pairs.items():
        _fold(conv, norm)
        replace_layer(folded, norm, _after(norm))
    return FoldedNetwork(folded, len(pairs), norms)


def _fold(conv: nn.Module, norm: nn.Module) -> None:
    """Gives the convolution the norm's factors and offsets, computed in float64."""
    layer, stated = cast(nn.Conv2d, conv), cast(nn.BatchNorm2d, norm)
    mean, variance = cast(Tensor, stated.running_mean).double(), cast(Tensor, stated.running_var).double()
    factor = (variance + stated.eps).rsqrt()
    if stated.weight is not None:
        factor = factor * stated.weight.double()
    offset = -mean * factor if layer.bias is None else (layer.bias.double() - mean) * factor
    if stated.bias is not None:
        offset = offset + stated.bias.double()
    weight = layer.weight.double()
    if isinstance(conv, nn.ConvTranspose2d):  # (C, C' / groups, k, k): the outputs of a group stand together
        factors = factor.view(conv.groups, 1, -1, 1, 1)
        weight = (weight.view(conv.groups, -1, *weight.shape[1:]) * factors).view(weight.shape)
    else:
        weight = weight * factor.view(-1, 1, 1, 1)
    kept = torch.channels_last if _is_channels_last(layer.weight) else torch.contiguous_format
    layer.bias = nn.Parameter(offset.to(layer.weight.dtype), requires_grad=False)
    layer.weight = nn.Parameter(weight.to(layer.weight.dtype).contiguous(memory_format=kept), requires_grad=False)


def _is_channels_last(weight: Tensor) -> bool:
    return weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()


def _after(norm: nn.Module) -> nn.Module:
    """What is left of a norm: timm's do an activation too."""
    if type(norm).__name__ != "BatchNormAct2d":
        return nn.Identity()
    drop, act = cast(nn.Module, norm.drop), cast(nn.Module, norm.act)
    return act if isinstance(drop, nn.Identity) else nn.Sequential(drop, act)


def _is_norm(layer: nn.Module) -> bool:
    return type(layer).__name__ in _NORMS and cast(nn.BatchNorm2d, layer).running_mean is not None


def _is_convolution(layer: nn.Module) -> bool:
    return type(layer).__name__ in _CONVOLUTIONS
