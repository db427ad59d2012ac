from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from perpixel.inference.optimized import optimized_copy
from perpixel.layers import winograd_conv as module
from perpixel.layers.winograd_conv import WinogradConv2d
from perpixel.types import Preprocessing, SegOutput


@pytest.fixture
def little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few channels and cells are enough."""
    monkeypatch.setattr(module, "_LEAST_CHANNELS", 1.5)
    monkeypatch.setattr(module, "_LEAST_CELLS", 36)


def conv(**changes: Any) -> nn.Conv2d:
    torch.manual_seed(0)
    given: dict[str, Any] = {"in_channels": 4, "out_channels": 6, "kernel_size": 3, "padding": 1}
    return nn.Conv2d(**{**given, **changes}).requires_grad_(False)


@pytest.mark.parametrize("changes", [{}, {"bias": False}, {"padding": 2, "dilation": 2}])
def test_winograd_layer_on_large_maps_does_what_the_convolution_does(little: None, changes: dict[str, Any]) -> None:
    plain = conv(**changes)
    assert WinogradConv2d.fits(plain, torch.float32)
    layer = WinogradConv2d(plain)
    x = torch.randn(2, 4, 12, 13)
    torch.testing.assert_close(layer(x), plain(x), rtol=1e-5, atol=1e-5)
    assert layer.transformed is not None
    assert set(layer.state_dict()) == set(plain.state_dict())


def test_winograd_layer_on_small_maps_and_where_gradients_are_asked_for_is_the_convolution(little: None) -> None:
    plain = conv()
    layer = WinogradConv2d(plain)
    for small in (torch.ones(1, 4, 5, 7), torch.ones(4, 9, 9)):  # the second without a batch
        assert torch.equal(layer(small), plain(small))
    x = torch.randn(1, 4, 8, 8, requires_grad=True)
    (slope,) = torch.autograd.grad(layer(x).sum(), x)
    (wanted,) = torch.autograd.grad(plain(x).sum(), x)
    assert torch.equal(slope, wanted)
    assert layer.transformed is None


@pytest.mark.parametrize(
    "changes",
    [
        {"kernel_size": 1, "padding": 0},
        {"stride": 2},
        {"groups": 2},
        {"padding": 0},
        {"dilation": 2},
        {"dilation": 3, "padding": 3},
        {"padding_mode": "reflect"},
        {"padding": "same"},
        {"out_channels": 2},
        {"dtype": torch.float64},
        {"device": "meta"},
    ],
)
def test_winograd_layer_takes_no_other_convolutions(little: None, changes: dict[str, Any]) -> None:
    assert not WinogradConv2d.fits(conv(**changes), torch.float32)


def test_winograd_layer_takes_no_subclasses_and_no_hooked_layers(little: None) -> None:
    class Standardised(nn.Conv2d):
        pass

    hooked = conv()
    hooked.register_forward_hook(lambda *_: None)
    assert not WinogradConv2d.fits(Standardised(4, 6, 3, padding=1), torch.float32)
    assert not WinogradConv2d.fits(hooked, torch.float32)
    assert not WinogradConv2d.fits(conv(), torch.bfloat16)


class Network(nn.Module):
    minimum_size, margin, supervise, num_classes, align_corners = 8, 0, False, 6, False
    preprocessing = Preprocessing()

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 1)
        self.second = conv()
        self.again = self.second

    def valid_size(self, height: int, width: int) -> tuple[int, int]:
        return height, width

    def forward(self, images: Tensor) -> SegOutput:
        return SegOutput(self.second(self.first(images)).relu())


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_optimized_copy_puts_winograd_layers_in(little: None, precision: str, dtype: torch.dtype) -> None:
    network = Network().eval()
    copied = optimized_copy(network, precision=precision).network
    assert isinstance(copied.second, WinogradConv2d)
    assert copied.again is copied.second
    assert type(network.second) is nn.Conv2d
    x = torch.randn(1, 3, 20, 30)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
        wanted, found = network(x).logits, copied(x).logits
    assert found.dtype == wanted.dtype == dtype
    assert copied.second.transformed is not None
    atol = 1e-5 if precision == "fp32" else 0.03
    torch.testing.assert_close(found.float(), wanted.float(), rtol=0, atol=atol * float(wanted.abs().max()))
