from __future__ import annotations

import pytest
import torch
from torch import Tensor

from perpixel.errors import InvalidValue
from perpixel.ops import winograd_conv as module
from perpixel.ops.winograd_conv import plain_winograd_conv, winograd_conv, winograd_weight


def problem(height: int, width: int, *, channels: int = 5, dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
    draw = torch.Generator().manual_seed(0)
    shapes = ((2, channels, height, width), (4, channels, 3, 3), (4,))
    x, weight, bias = (torch.randn(shape, generator=draw, dtype=torch.float64).to(dtype) for shape in shapes)
    return x, weight, bias


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 3), (5, 8), (8, 5), (13, 9)])
@pytest.mark.parametrize("dilation", [1, 2, 4])
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("band_bytes", [1, 1 << 25])
def test_winograd_conv_is_the_plain_convolution(
    height: int,
    width: int,
    dilation: int,
    order: torch.memory_format,
    band_bytes: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_BAND_BYTES", band_bytes)  # one row of tiles at a time, or all
    x, weight, bias = problem(height, width)
    x, weight = x.contiguous(memory_format=order), weight.contiguous(memory_format=order)
    for given in (bias, None):
        found = winograd_conv(x, winograd_weight(weight), given, dilation=dilation)
        wanted = plain_winograd_conv(x, weight, given, dilation=dilation)
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
        assert found.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 1e-6), (torch.bfloat16, 2e-2)])
def test_winograd_conv_rounds_as_stated(dtype: torch.dtype, most: float) -> None:
    x, weight, bias = problem(16, 16, channels=512, dtype=dtype)
    wanted = plain_winograd_conv(x.double(), weight.double(), bias.double())
    error = (winograd_conv(x, winograd_weight(weight), bias).double() - wanted).abs().max()
    assert 0 < float(error) <= most * float(wanted.abs().max())


def test_winograd_conv_leaves_its_inputs() -> None:
    x, weight, bias = problem(5, 6)
    kept = [value.clone() for value in (x, weight, bias)]
    winograd_conv(x, winograd_weight(weight), bias)
    assert all(torch.equal(value, before) for value, before in zip((x, weight, bias), kept, strict=True))


def test_winograd_weight_of_another_kernel_is_refused() -> None:
    with pytest.raises(InvalidValue, match=r"3 x 3 weights .* got \(2, 3, 1, 1\)"):
        winograd_weight(torch.zeros(2, 3, 1, 1))


@pytest.mark.parametrize(
    "weight", [torch.zeros(16, 3, 2), torch.zeros(9, 5, 2), torch.zeros(16, 5, 2, dtype=torch.bfloat16)]
)
def test_winograd_conv_with_a_weight_that_does_not_fit_is_refused(weight: Tensor) -> None:
    with pytest.raises(InvalidValue, match=r"take a weight \(16, 5, C'\) of their dtype"):
        winograd_conv(torch.zeros(1, 5, 4, 4), weight)
