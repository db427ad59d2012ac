from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perpixel.errors import InvalidValue
from perpixel.layers import ASPP, SpatialConv


def drawn(module: nn.Module) -> nn.Module:
    """The module in float64 with random running statistics, so that its batch norms do something."""
    generator = torch.Generator().manual_seed(0)
    module.double()
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.1, generator=generator)  # type: ignore[union-attr]
            layer.running_var.uniform_(0.5, 1.5, generator=generator)  # type: ignore[union-attr]
    return module


def concatenated(aspp: ASPP, x: Tensor) -> Tensor:
    """The plain twin: every branch at full size, joined, then projected."""
    pooled = F.interpolate(aspp.pooled(F.adaptive_avg_pool2d(x, 1)), x.shape[-2:], mode="bilinear")
    branches = [branch(x) for branch in aspp.branches]
    out: Tensor = aspp.project(torch.cat([*branches, pooled], 1))
    return out


def test_aspp_of_one_channel_is_what_the_hand_computes() -> None:
    aspp = ASPP(1, 1, (1, 2)).double().eval()
    for layer in aspp.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eps = 0.0
        if isinstance(layer, nn.Conv2d):
            nn.init.ones_(layer.weight)
    aspp.project.conv.weight.data = torch.tensor([1.0, 10, 100, 1000], dtype=torch.float64).view(1, 4, 1, 1)
    x = torch.zeros(1, 1, 3, 3, dtype=torch.float64)
    x[0, 0, 1, 1] = 9.0
    # Centre: itself 9, its neighbours at rate 1 add up to 9, at rate 2 only itself, the mean is 1. Elsewhere the first
    # is 0, and at rate 2 no cell but the centre sees the centre.
    expected = torch.full((3, 3), 10 * 9.0 + 1000 * 1, dtype=torch.float64)
    expected[1, 1] = 9 + 10 * 9 + 100 * 9 + 1000
    assert torch.equal(aspp(x)[0, 0], expected)


@pytest.mark.parametrize("conv", [None, SpatialConv(separable=True), SpatialConv(separable=True, norm_between=True)])
def test_aspp_summed_branch_by_branch_equals_the_concatenation(conv: SpatialConv | None) -> None:
    aspp = drawn(ASPP(6, 4, (1, 3, 7), conv=conv)).eval()
    x = torch.randn(2, 6, 9, 5, dtype=torch.float64)
    assert isinstance(aspp, ASPP)
    torch.testing.assert_close(aspp(x), concatenated(aspp, x), rtol=0, atol=1e-12)


def test_aspp_gradients_equal_those_of_the_concatenation() -> None:
    aspp = ASPP(3, 2, (1, 2)).double().train()
    x = torch.randn(2, 3, 5, 4, dtype=torch.float64)
    target = torch.randn(2, 2, 5, 4, dtype=torch.float64)
    ours = torch.autograd.grad((aspp(x) * target).sum(), list(aspp.parameters()))
    plain = torch.autograd.grad((concatenated(aspp, x) * target).sum(), list(aspp.parameters()))
    for a, b in zip(ours, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


def test_aspp_batch_of_one_trains_without_moving_the_pooled_statistics() -> None:
    aspp = ASPP(3, 2, (1,)).train()
    before = aspp.pooled.norm.running_mean.clone()  # type: ignore[union-attr]
    aspp(torch.randn(1, 3, 4, 4)).sum().backward()
    assert torch.equal(aspp.pooled.norm.running_mean, before)  # type: ignore[arg-type]
    assert not torch.equal(aspp.project.norm.running_mean, torch.zeros(2))  # type: ignore[arg-type]


def test_separable_branch_of_the_authors_has_a_norm_inside() -> None:
    for between, count in ((False, 1), (True, 2)):
        block = SpatialConv(separable=True, norm_between=between).block(3, 5)
        assert sum(isinstance(layer, nn.BatchNorm2d) for layer in block.modules()) == count
    plain = SpatialConv(separable=True).block(3, 5)
    assert sum(p.numel() for p in plain.parameters()) == 3 * 9 + 3 * 5 + 2 * 5


@pytest.mark.parametrize("drop_channels", [False, True])
def test_aspp_dropout_drops_values_or_channels(drop_channels: bool) -> None:
    torch.manual_seed(0)
    aspp = ASPP(2, 16, (1,), dropout=0.5, drop_channels=drop_channels).train()
    nn.init.constant_(aspp.project.norm.bias, 10.0)  # type: ignore[arg-type]
    zero = aspp(torch.randn(2, 2, 6, 6)) == 0
    whole = zero.flatten(2).all(2) | ~zero.flatten(2).any(2)
    assert 0.2 < zero.double().mean() < 0.8
    assert bool(whole.all()) is drop_channels


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rates": ()}, r"one rate >= 1 per dilated branch, got \[\]"),
        ({"rates": (6, 0)}, r"got \[6, 0\]"),
        ({"width": 0}, "got 3, 0, 0.0"),
        ({"dropout": 1.0}, r"a dropout in \[0, 1\), got 3, 2, 1.0"),
    ],
)
def test_aspp_wrong_argument_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        ASPP(3, **{"width": 2, "rates": (6,), **change})  # type: ignore[arg-type]
