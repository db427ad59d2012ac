"""Unpooling: by hand, against PyTorch's own, at odd sizes, exported, and with its gradient."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from perpixel.errors import InvalidValue
from perpixel.ops.unpool import unpool


def pooled_pair(x: Tensor) -> tuple[Tensor, Tensor]:
    return F.max_pool2d(x, 2, 2, ceil_mode=True, return_indices=True)


def test_unpool_by_hand_puts_maxima_back_and_zeros_elsewhere() -> None:
    x = torch.tensor([[[[1.0, 2.0, -5.0], [4.0, 3.0, -6.0], [7.0, 7.0, 0.5]]]])
    pooled, indices = pooled_pair(x)
    expected = torch.tensor([[[[0.0, 0.0, -5.0], [4.0, 0.0, 0.0], [7.0, 0.0, 0.5]]]])  # of equal ones the first
    assert torch.equal(unpool(pooled, indices, (3, 3)), expected)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 1000))
def test_unpool_any_size_equals_pytorch(height: int, width: int, seed: int) -> None:
    x = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(seed))
    pooled, indices = pooled_pair(x)
    theirs = F.max_unpool2d(pooled, indices, 2, 2, output_size=[height, width])
    assert torch.equal(unpool(pooled, indices, (height, width)), theirs)


def test_unpool_channels_last_input_gives_the_same_values() -> None:
    x = torch.randn(2, 4, 7, 6)
    result = unpool(*pooled_pair(x.to(memory_format=torch.channels_last)), (7, 6))
    assert torch.equal(result, unpool(*pooled_pair(x), (7, 6)))
    assert result.is_contiguous(memory_format=torch.channels_last)


def test_unpool_gradient_is_what_stands_at_the_maxima() -> None:
    _, indices = pooled_pair(torch.randn(1, 2, 5, 4))
    values = torch.randn(indices.shape, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: unpool(v, indices, (5, 4)), values)


@pytest.mark.parametrize("size", [(4, 4), (7, 5)])
def test_unpool_deterministic_form_gives_the_same_values_and_gradients(size: tuple[int, int]) -> None:
    pooled, indices = pooled_pair(torch.randn(2, 3, *size).to(memory_format=torch.channels_last))
    results = []
    for deterministic in (False, True):
        values = pooled.clone().requires_grad_()
        torch.use_deterministic_algorithms(deterministic)
        try:
            result = unpool(values, indices, size)
            (result * torch.arange(result.numel()).view_as(result)).sum().backward()
        finally:
            torch.use_deterministic_algorithms(False)
        results.append((result.detach(), values.grad))
    for plain, scattered in zip(*results, strict=True):
        assert torch.equal(plain, scattered)


def test_unpool_exports_with_free_sizes() -> None:
    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return unpool(*pooled_pair(x), x.shape[-2:])

    sides = {2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO}
    exported = torch.export.export(Net(), (torch.randn(1, 2, 8, 9),), dynamic_shapes=(sides,)).module()
    x = torch.randn(1, 2, 13, 6)
    assert torch.equal(exported(x), Net()(x))


def test_unpool_values_and_indices_of_two_shapes_are_refused() -> None:
    with pytest.raises(InvalidValue, match=r"values \(1, 1, 2, 2\) and indices \(1, 1, 2, 3\)"):
        unpool(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 3, dtype=torch.long), (4, 4))


def test_unpool_to_a_smaller_map_is_refused() -> None:
    with pytest.raises(InvalidValue, match=r"of a \(2, 2\) map cannot end at the smaller \(1, 4\)"):
        unpool(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2, dtype=torch.long), (1, 4))
