from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from perpixel.backbones import BackboneConfig
from perpixel.errors import InvalidValue
from perpixel.models import LRASPP, LRASPPConfig, create_model
from perpixel.ops import resize

SMALL = LRASPPConfig.small()
TEN = BackboneConfig(name="resnet10t", output_stride=16)


def lraspp(backbone: BackboneConfig = TEN, **changes: object) -> LRASPP:
    torch.manual_seed(0)
    config = replace(SMALL, **changes)  # type: ignore[arg-type]
    network = create_model("lraspp", config, num_classes=3, backbone=backbone).eval()
    assert isinstance(network, LRASPP)
    return network


def test_default_network_has_torchvisions_number_of_parameters() -> None:
    with torch.device("meta"):
        network = create_model("lraspp", num_classes=21)
    assert sum(p.numel() for p in network.parameters()) == 3_221_538


@pytest.mark.parametrize("align_corners", [False, True])
def test_scores_enlarged_equal_channels_enlarged(align_corners: bool) -> None:
    network = lraspp(align_corners=align_corners).double()
    images = torch.randn(2, 3, 65, 97, dtype=torch.float64)
    with torch.no_grad():
        _, low, _, high = network.backbone(images)
        weighted = network.project(high) * torch.sigmoid(network.weights(F.adaptive_avg_pool2d(high, 1)))
        weighted = resize(weighted, low.shape[-2:], align_corners=align_corners)
        plain = network.low_classifier(low) + network.high_classifier(weighted)
        torch.testing.assert_close(network(images).logits, plain, rtol=0, atol=1e-12)


def test_window_pooling_of_a_map_below_the_window_is_global() -> None:
    images = torch.randn(1, 3, 64, 96)
    torch.testing.assert_close(lraspp(pooling="window")(images).logits, lraspp()(images).logits, rtol=0, atol=1e-5)


def test_window_pooling_of_a_wide_map_weights_its_sides_apart() -> None:
    network = lraspp(pooling="window")
    high = torch.zeros(1, network.weights.in_channels, 2, 69)
    high[..., :20] = 1.0
    weights = network._attention(high)
    assert weights.shape == (1, SMALL.width, 2, 69)
    expected = torch.sigmoid(network.weights(torch.full((1, network.weights.in_channels, 1, 1), 20 / 49)))
    torch.testing.assert_close(weights[..., :1, :1], expected)
    torch.testing.assert_close(weights[..., -1:, -1:], torch.full_like(expected, 0.5))  # nothing but zeros there


def test_exported_for_any_size_the_network_takes_any_size() -> None:
    network = lraspp(replace(TEN, name="resnet18"))  # resnet10t pools its shortcuts, for sides that divide by 16
    sides = {2: torch.export.Dim("height", min=32, max=512), 3: torch.export.Dim("width", min=32, max=512)}
    program = torch.export.export(network, (torch.randn(1, 3, 64, 80),), dynamic_shapes=(sides,)).module()
    images = torch.randn(1, 3, 65, 97)
    torch.testing.assert_close(program(images).logits, network(images).logits, rtol=0, atol=1e-5)


def test_backbone_without_a_map_of_stride_eight_is_refused() -> None:
    with pytest.raises(InvalidValue, match=r"needs a map of stride 8 .* gives maps of strides \(16, 16\)"):
        create_model("lraspp", SMALL, num_classes=3, backbone=replace(TEN, num_stages=2))


@pytest.mark.parametrize(
    ("change", "message"),
    [({"width": 0}, "width must be >= 1, got 0"), ({"pooling": "mean"}, "'global' or 'window', got 'mean'")],
)
def test_wrong_option_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        replace(SMALL, **change)  # type: ignore[arg-type]
