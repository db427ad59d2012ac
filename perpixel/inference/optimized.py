"""A network's copy for inference alone: batch norms folded, weights brought to autocast's type once, faster layers.

Autocast casts the weights of convolutions and linear layers at every call anew; here that is done once, to the same
bits. Weights are not laid out for oneDNN beforehand: it chooses their order by the size of the image, and reordering
weights that lie in another of its orders takes longer than the convolution. Of 3x3 convolutions with many channels and
of those over doubled maps there are forms with fewer multiplications (`layers.winograd_conv`, `layers.doubling_conv`).
"""

from __future__ import annotations

import copy
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from perpixel.inference.folding import fold_batch_norm
from perpixel.inference.layer_pairs import replace_layer, small_images
from perpixel.layers.doubling_conv import DoublingConv2d
from perpixel.layers.winograd_conv import WinogradConv2d

__all__ = ["OptimizedNetwork", "optimized_copy"]

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
_CAST = ("Conv2d", "ConvTranspose2d", "PartsConv2d", "DoublingConv2d", "Conv2dSame", "Linear")
"""By name: subclasses may do more with their weights."""


class OptimizedNetwork(NamedTuple):
    """A network for inference, and what was done."""

    network: nn.Module
    """A copy in evaluation mode; the network itself where nothing could be done."""
    folded: int
    """Batch norms that are parts of convolutions now."""
    cast: int
    """Layers whose weights are in autocast's type already."""


def optimized_copy(network: nn.Module, *, precision: str = "fp32") -> OptimizedNetwork:
    """Returns a faster copy of a network; scores differ by rounding alone.

    The copy takes the memory of the weights once more, half of it in bf16 and fp16, and 16/9 of those of large 3x3
    convolutions besides, on the CPU. It is right in its precision only.

    Args:
        network: Keeps the contract of `perpixel.inference.SegmentationNetwork`; its device is the copy's. Runs here on
            small images.
        precision: What the copy will run in: ``fp32``, or under autocast to ``bf16`` or ``fp16``.
    """
    best, folded, _ = fold_batch_norm(network)
    count, dtype = 0, _AUTOCAST.get(precision)
    if dtype is not None:
        changed = _frozen_copy(best)
        count = _cast_weights(changed, dtype)
        if count and _same_scores(best, changed, dtype):
            best = changed
        else:
            count = 0
    best = _with_faster_layers(network, best, dtype or torch.float32)
    return OptimizedNetwork(best, folded, count)


def _with_faster_layers(network: nn.Module, best: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Returns ``best``, or a copy of it where it is the network itself, with layers that inference can do faster."""

    def doubles(layer: nn.Module) -> bool:
        return isinstance(layer, DoublingConv2d) and layer.weight.device.type == "cpu"

    if not any(doubles(layer) or WinogradConv2d.fits(layer, dtype) for layer in best.modules()):
        return best
    changed = _frozen_copy(best) if best is network else best
    for layer in list(changed.modules()):
        if doubles(layer):
            cast(DoublingConv2d, layer).keep_doubled_weight()
        elif WinogradConv2d.fits(layer, dtype):
            replace_layer(changed, layer, WinogradConv2d(cast(nn.Conv2d, layer)))
    return changed


def _frozen_copy(network: nn.Module) -> nn.Module:
    return copy.deepcopy(network).eval().requires_grad_(False)


def _cast_weights(network: nn.Module, dtype: torch.dtype) -> int:
    """Casts float32 parameters as autocast would, in place; returns how many layers have them."""
    count = 0
    for layer in network.modules():
        own = [parameter for parameter in layer.parameters(recurse=False) if parameter.dtype == torch.float32]
        if type(layer).__name__ in _CAST and own:
            count += 1
            for parameter in own:
                parameter.data = parameter.data.to(dtype)
    return count


def _same_scores(network: nn.Module, changed: nn.Module, dtype: torch.dtype) -> bool:
    """Whether both networks give the same bits on small images.

    They do not where something else reads the weights, or where a layer runs outside of autocast.
    """
    training = [layer for layer in network.modules() if layer.training]
    network.eval()
    try:
        with torch.no_grad():
            for image in small_images(network):
                with torch.autocast(image.device.type, dtype=dtype):
                    wanted, found = (cast(Tensor, each(image).logits) for each in (network, changed))
                if wanted.dtype != found.dtype or not torch.equal(wanted, found):
                    return False
    except RuntimeError:  # of two types that meet; what fails by itself fails again, where it can be told
        return False
    finally:
        for layer in training:
            layer.training = True
    return True
