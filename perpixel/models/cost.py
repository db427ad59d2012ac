"""What a network costs, by count: parameters and multiplications."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

__all__ = ["count_macs", "count_parameters"]


def count_parameters(network: nn.Module) -> int:
    """Returns the number of values that training could change, shared ones once."""
    return sum(parameter.numel() for parameter in network.parameters())


def count_macs(network: nn.Module, images: Tensor) -> int:
    """Returns the multiplications of the convolutions and matrix products in one forward pass without gradients.

    What is neither (norms, pooling, resizing, the filtering of a CRF) is not counted. Nothing is computed when network
    and images are on the meta device.

    Args:
        network: In the mode that is asked about; evaluation for what an image costs.
        images: (B, C, H, W), normalised.
    """
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        network(images)
    return int(counter.get_total_flops()) // 2
