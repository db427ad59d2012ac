from __future__ import annotations

import pytest
import torch
from torch import Tensor

from perpixel.errors import InvalidValue
from perpixel.ops.doubled_conv import conv_of_doubled, doubled_weight, plain_conv_of_doubled


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(len(shape)))


@pytest.mark.parametrize("size", [(1, 1), (1, 4), (5, 3)])
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_conv_of_doubled_equals_doubling_and_convolving_forward_and_backward(
    size: tuple[int, int], biased: bool, order: torch.memory_format
) -> None:
    x = drawn(2, 3, *size).contiguous(memory_format=order).requires_grad_()
    weight = drawn(5, 3, 3, 3).contiguous(memory_format=order).requires_grad_()
    leaves = [x, weight, *([drawn(5).requires_grad_()] if biased else [])]
    ours, theirs = conv_of_doubled(*leaves), plain_conv_of_doubled(*leaves)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    pull = drawn(*ours.shape)
    for mine, twin in zip(*(torch.autograd.grad((y * pull).sum(), leaves) for y in (ours, theirs)), strict=True):
        torch.testing.assert_close(mine, twin, rtol=0, atol=1e-11)


def test_conv_of_doubled_takes_weights_made_before_and_gradcheck_holds() -> None:
    x, weight = drawn(1, 2, 2, 3).requires_grad_(), drawn(2, 2, 3, 3).requires_grad_()
    made = doubled_weight(weight)
    assert made.shape == (2, 2, 4, 4)
    assert torch.equal(conv_of_doubled(x, made), conv_of_doubled(x, weight))
    assert torch.autograd.gradcheck(conv_of_doubled, (x, weight))


def test_conv_of_doubled_other_kernels_are_refused() -> None:
    with pytest.raises(InvalidValue, match=r"3 x 3 weights, got \(4, 2, 1, 1\)"):
        conv_of_doubled(torch.zeros(1, 2, 3, 3), torch.zeros(4, 2, 1, 1))
