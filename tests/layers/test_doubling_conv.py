from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perpixel.inference.optimized import optimized_copy
from perpixel.layers.doubling_conv import Doubled, DoublingConv2d
from perpixel.models import UNetBackbone, create_model


def layer_and_maps(skipped_channels: int = 2) -> tuple[DoublingConv2d, Tensor, Tensor | None]:
    torch.manual_seed(0)
    layer = DoublingConv2d(3, skipped_channels, 4, bias=True).double()
    skipped = torch.randn(2, skipped_channels, 4, 6, dtype=torch.float64) if skipped_channels else None
    return layer, torch.randn(2, 3, 2, 3, dtype=torch.float64), skipped


def joined(coarse: Tensor, skipped: Tensor | None) -> Tensor:
    doubled = F.interpolate(coarse, scale_factor=2.0, mode="nearest")
    return doubled if skipped is None else torch.cat((doubled, skipped), dim=1)


@pytest.mark.parametrize("skipped_channels", [2, 0])
@pytest.mark.parametrize("kept", [False, True])
def test_doubling_conv_equals_the_convolution_of_the_doubled_and_joined_maps(skipped_channels: int, kept: bool) -> None:
    layer, coarse, skipped = layer_and_maps(skipped_channels)
    if kept:
        layer.keep_doubled_weight()
    wanted = nn.Conv2d.forward(layer, joined(coarse, skipped))
    torch.testing.assert_close(layer(Doubled(coarse, skipped)), wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("skipped_channels", [2, 0])
def test_doubling_conv_exporting_doubles_the_map_and_agrees(
    monkeypatch: pytest.MonkeyPatch, skipped_channels: int
) -> None:
    layer, coarse, skipped = layer_and_maps(skipped_channels)
    ours = layer(Doubled(coarse, skipped))
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    monkeypatch.setattr("perpixel.layers.doubling_conv.conv_of_doubled", None)  # not called
    torch.testing.assert_close(layer(Doubled(coarse, skipped)), ours, rtol=0, atol=1e-12)


def test_doubling_conv_on_other_devices_counts_as_published() -> None:
    layer, coarse, skipped = layer_and_maps()
    assert skipped is not None
    out = layer.to("meta")(Doubled(coarse.to("meta"), skipped.to("meta")))
    assert (out.shape, out.device.type) == ((2, 4, 4, 6), "meta")


def test_doubling_conv_kept_weight_is_neither_saved_nor_lost_in_copies() -> None:
    layer, *_ = layer_and_maps()
    layer.keep_doubled_weight()
    assert set(layer.state_dict()) == {"weight", "bias"}
    assert copy.deepcopy(layer).kept_weight is not None


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_optimized_copy_of_a_unet_keeps_the_sums_of_its_weights(precision: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    network = create_model("unet_backbone", num_classes=3, backbone="resnet18").eval()
    assert isinstance(network, UNetBackbone)
    copied = optimized_copy(network, precision=precision).network
    found = {name: layer.kept_weight for name, layer in copied.named_modules() if isinstance(layer, DoublingConv2d)}
    assert len(found) == len(network.blocks)
    assert {weight.dtype for weight in found.values() if weight is not None} == {dtype}
    assert all(layer.kept_weight is None for layer in network.modules() if isinstance(layer, DoublingConv2d))
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        wanted, ours = network(x).logits.float(), copied(x).logits.float()
    scale = float(wanted.abs().max())
    torch.testing.assert_close(ours, wanted, rtol=0, atol=scale * (1e-5 if precision == "fp32" else 0.05))
