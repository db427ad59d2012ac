import pytest
import torch
from torch import nn

from perpixel.layers import ConvNorm, ConvNormAct, PooledBatchNorm2d, init_new_layers


@pytest.mark.parametrize(("kernel", "dilation"), [(1, 1), (3, 1), (3, 4), (7, 1)])
def test_conv_norm_act_stride_one_keeps_the_size(kernel: int, dilation: int) -> None:
    block = ConvNormAct(3, 5, kernel, dilation=dilation)
    assert block(torch.randn(2, 3, 11, 9)).shape == (2, 5, 11, 9)


def test_conv_norm_merged_has_a_bias_where_the_plain_one_has_its_norm() -> None:
    plain, merged = ConvNorm(2, 3, 3, dilation=2).eval(), ConvNorm(2, 3, 3, dilation=2, merged=True).eval()
    scale = (1 + plain.norm.eps) ** -0.5  # type: ignore[operator]
    merged.conv.weight.data = scale * plain.conv.weight.data
    torch.nn.init.zeros_(merged.conv.bias)  # type: ignore[arg-type]
    x = torch.randn(2, 2, 7, 5)
    torch.testing.assert_close(merged(x), plain(x))
    assert plain(x).min() < 0  # no activation
    assert [name for name, _ in merged.named_parameters()] == ["conv.weight", "conv.bias"]


def test_pooled_batch_norm_single_value_uses_running_statistics() -> None:
    norm = PooledBatchNorm2d(4).train()
    norm.running_mean.fill_(1.0)  # type: ignore[union-attr]
    x = torch.randn(1, 4, 1, 1)
    expected = (x - 1) / (1 + norm.eps) ** 0.5
    assert torch.allclose(norm(x), expected, atol=1e-6)
    assert torch.equal(norm.running_mean, torch.ones(4))


def test_pooled_batch_norm_larger_batch_equals_batch_norm() -> None:
    ours, plain = PooledBatchNorm2d(4), nn.BatchNorm2d(4)
    x = torch.randn(3, 4, 1, 1)
    assert torch.equal(ours(x), plain(x))
    assert torch.equal(ours.running_var, plain.running_var)


def test_init_new_layers_draws_convolutions_by_fan_in() -> None:
    conv = nn.Conv2d(64, 256, 3)
    linear = nn.Linear(8, 8)
    before = linear.weight.clone()
    init_new_layers(nn.ModuleList([conv, linear]))
    assert conv.weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.03)
    assert torch.equal(linear.weight, before)
