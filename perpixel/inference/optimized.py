"""A network's copy for inference alone: batch norms folded, and on the CPU weights laid out beforehand.

oneDNN, which computes PyTorch's convolutions on the CPU, brings weights into an order of its own, and autocast brings
them to bf16, at every call anew. Here both are done once, and a ReLU that is all that reads a convolution's output is
computed with it. The operators are those that PyTorch's compiler uses; where they are missing or refuse a layer, that
layer stays as it is.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from perpixel.inference.folding import fold_batch_norm
from perpixel.inference.layer_pairs import exclusive_pairs, replace_layer, small_images

__all__ = ["OptimizedNetwork", "optimized_copy"]

_PACKED = ("Conv2d", "PartsConv2d")
"""By name: subclasses may do more."""
_LIKELY_SIDE = 512
"""Images are larger than those on which layers are seen; oneDNN chooses the order of weights for a size."""


class OptimizedNetwork(NamedTuple):
    """A network for inference, and what was done."""

    network: nn.Module
    """A copy in evaluation mode."""
    folded: int
    """Batch norms that are parts of convolutions now."""
    packed: int
    """Convolutions whose weights are laid out beforehand."""
    fused: int
    """ReLUs that are computed with their convolutions."""


def optimized_copy(network: nn.Module, *, precision: str = "fp32") -> OptimizedNetwork:
    """Returns a faster copy of a network; scores differ by rounding, and later changes of the network do not reach it.

    Args:
        network: Keeps the contract of `perpixel.inference.SegmentationNetwork`; its device and dtype are the copy's.
        precision: What it will run in: ``bf16`` keeps packed weights in bf16, as autocast would have them.
    """
    folded = fold_batch_norm(network)
    copied = folded.network if folded.folded else copy.deepcopy(network).eval().requires_grad_(False)
    like = next(copied.parameters(), None)
    if like is None or like.device.type != "cpu" or like.dtype != torch.float32 or not _can_pack(precision):
        return OptimizedNetwork(copied, folded.folded, 0, 0)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    pairs = exclusive_pairs(copied, _is_packable, _is_relu)
    followed = {conv: relu for relu, conv in pairs.before.items()}
    packed = fused = 0
    for conv, shapes in _input_shapes(copied).items():
        if conv not in pairs.alone:
            continue
        relu = followed.get(conv)
        layer = _packed(conv, shapes, dtype, relu=relu is not None)
        if layer is None:
            continue
        replace_layer(copied, conv, layer)
        packed += 1
        if relu is not None:
            replace_layer(copied, relu, nn.Identity())
            fused += 1
    return OptimizedNetwork(copied, folded.folded, packed, fused)


class PackedConv2d(nn.Module):
    """A convolution, or that of parts joined along the channels, with weights in oneDNN's order; perhaps its ReLU.

    Raises:
        RuntimeError: oneDNN refuses the layer.
    """

    def __init__(self, conv: nn.Conv2d, shapes: Sequence[Sequence[int]], dtype: torch.dtype, *, relu: bool) -> None:
        super().__init__()
        self.places = (list(conv.padding), list(conv.stride), list(conv.dilation), conv.groups)
        self.relu = relu
        self.bias = None if conv.bias is None else conv.bias.detach().to(dtype)
        channels = [int(shape[1]) for shape in shapes] if len(shapes) > 1 else [conv.weight.shape[1]]
        arrange: Any = torch._C._nn.mkldnn_reorder_conv2d_weight
        parts: Any = conv.weight.detach().to(dtype).split(channels, dim=1)  # type: ignore[no-untyped-call]
        self.weights: list[Tensor] = [
            arrange(part.contiguous().to_mkldnn(), *self.places, list(shape))
            for part, shape in zip(parts, shapes, strict=True)
        ]
        self.dtype = dtype

    def forward(self, input: Tensor | Sequence[Tensor]) -> Tensor:  # noqa: A002 - the name that nn.Module's callers use
        first, *others = [input] if isinstance(input, Tensor) else input
        last = "relu" if self.relu else "none"
        total: Tensor = torch.ops.mkldnn._convolution_pointwise(
            first.to(self.dtype), self.weights[0], self.bias, *self.places, "none" if others else last, [], ""
        )
        for index, part in enumerate(others, start=1):
            activation = "relu" if self.relu and index == len(others) else None
            total = torch.ops.mkldnn._convolution_pointwise_.binary(
                total, part.to(self.dtype), self.weights[index], None, *self.places, "add", None, activation, [], ""
            )
        return total


def _packed(conv: nn.Module, shapes: Sequence[Sequence[int]], dtype: torch.dtype, *, relu: bool) -> nn.Module | None:
    """Returns the layer; None where oneDNN does not take it."""
    try:
        return PackedConv2d(cast(nn.Conv2d, conv), shapes, dtype, relu=relu)
    except (RuntimeError, AttributeError, NotImplementedError):
        return None


def _input_shapes(network: nn.Module) -> dict[nn.Module, list[list[int]]]:
    """Returns the likely shapes of what each packable convolution reads, of those that the scores need."""
    image = small_images(network)[0]
    scale = max(1, _LIKELY_SIDE // max(image.shape[-2:]))
    shapes: dict[nn.Module, list[list[int]]] = {}

    def entered(layer: nn.Module, args: tuple[Any, ...]) -> None:
        parts = [args[0]] if isinstance(args[0], Tensor) else list(args[0])
        shapes[layer] = [[part.shape[0], part.shape[1], *(side * scale for side in part.shape[2:])] for part in parts]

    handles = [layer.register_forward_pre_hook(entered) for layer in network.modules() if _is_packable(layer)]
    try:
        with torch.no_grad():
            network(image)
    finally:
        for handle in handles:
            handle.remove()
    return shapes


def _can_pack(precision: str) -> bool:
    available = bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
    if not available or precision == "fp16":
        return False
    return precision != "bf16" or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _is_packable(layer: nn.Module) -> bool:
    if type(layer).__name__ not in _PACKED or layer._forward_hooks or layer._forward_pre_hooks:
        return False
    conv = cast(nn.Conv2d, layer)
    return conv.padding_mode == "zeros" and not isinstance(conv.padding, str)


def _is_relu(layer: nn.Module) -> bool:
    return type(layer) is nn.ReLU
