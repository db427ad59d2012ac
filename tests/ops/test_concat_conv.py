from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from perpixel.errors import InvalidValue
from perpixel.ops import conv_of_concat


def maps(*channels: int) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(2, c, 5, 7, dtype=torch.float64, requires_grad=True) for c in channels]


@pytest.mark.parametrize(("kernel", "dilation", "biased"), [(1, 1, True), (3, 1, False), (3, 2, True)])
def test_conv_of_concat_equals_concatenating_forward_and_backward(kernel: int, dilation: int, biased: bool) -> None:
    parts = maps(3, 1, 4)
    weight = torch.randn(6, 8, kernel, kernel, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(6, dtype=torch.float64, requires_grad=True) if biased else None
    padding = dilation * (kernel // 2)
    ours = conv_of_concat(parts, weight, bias, padding=padding, dilation=dilation)
    theirs = F.conv2d(torch.cat(parts, dim=1), weight, bias, padding=padding, dilation=dilation)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    leaves = [*parts, weight, *([] if bias is None else [bias])]
    pull = torch.randn_like(ours)
    for mine, twin in zip(*(torch.autograd.grad((y * pull).sum(), leaves) for y in (ours, theirs)), strict=True):
        torch.testing.assert_close(mine, twin, rtol=0, atol=1e-11)


@pytest.mark.parametrize("channels", [(), (3, 2)])
def test_conv_of_concat_parts_that_do_not_add_up_are_refused(channels: tuple[int, ...]) -> None:
    with pytest.raises(InvalidValue, match=r"for a weight that takes 8"):
        conv_of_concat(maps(*channels), torch.zeros(6, 8, 1, 1))
