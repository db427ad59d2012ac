from __future__ import annotations

from typing import Any

import pytest
import torch

from perpixel.errors import InvalidValue
from perpixel.layers.chained_residual_pooling import ChainedResidualPooling


def chain(num_pools: int, order: Any, factors: list[float]) -> ChainedResidualPooling:
    block = ChainedResidualPooling(1, num_pools, kernel_size=1, order=order)
    with torch.no_grad():
        for conv, factor in zip(block.convs, factors, strict=True):
            conv.weight.fill_(factor)  # type: ignore[operator, union-attr]
    return block


def test_chain_adds_every_link_to_the_input_by_hand() -> None:
    x = torch.zeros(1, 1, 1, 7)
    x[..., 0] = 1.0
    # Link 1 is twice the maximum over two cells to each side, link 2 three times that of link 1.
    expected = torch.tensor([9.0, 8.0, 8.0, 6.0, 6.0, 0.0, 0.0])
    assert torch.equal(chain(2, "pool_conv", [2.0, 3.0])(x).flatten(), expected)


def test_orders_differ_where_the_convolution_turns_signs() -> None:
    x = torch.zeros(1, 1, 1, 4)
    x[..., 0] = 1.0
    pooled_first = chain(1, "pool_conv", [-1.0])(x).flatten()
    assert torch.equal(pooled_first, torch.tensor([0.0, -1.0, -1.0, 0.0]))
    convolved_first = chain(1, "conv_pool", [-1.0])(x).flatten()
    assert torch.equal(convolved_first, torch.tensor([1.0, 0.0, 0.0, 0.0]))


@pytest.mark.parametrize("kernel", [1, 3])
def test_sizes_stay_and_parameters_are_those_of_the_convolutions(kernel: int) -> None:
    block = ChainedResidualPooling(3, 4, kernel_size=kernel)
    assert block(torch.randn(2, 3, 1, 6)).shape == (2, 3, 1, 6)
    assert sum(p.numel() for p in block.parameters()) == 4 * 9 * kernel**2


@pytest.mark.parametrize(("channels", "pools", "kernel"), [(0, 1, 3), (1, 0, 3), (1, 1, 2), (1, 1, 0)])
def test_sizes_that_make_no_block_are_refused(channels: int, pools: int, kernel: int) -> None:
    with pytest.raises(InvalidValue, match=f"an odd kernel, got {channels}, {pools} and {kernel}"):
        ChainedResidualPooling(channels, pools, kernel_size=kernel)


def test_unknown_order_is_refused() -> None:
    with pytest.raises(InvalidValue, match="'pool_conv' or 'conv_pool', got 'pool'"):
        ChainedResidualPooling(1, 1, order="pool")  # type: ignore[arg-type]
