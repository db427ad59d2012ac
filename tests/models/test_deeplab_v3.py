"""DeepLab v3 and v3+: sizes, forms and counts; the importers' tests show that they compute the published function."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from perpixel.backbones import BackboneConfig
from perpixel.errors import InvalidValue
from perpixel.models import DeepLabV3, DeepLabV3Config, DeepLabV3Plus, DeepLabV3PlusConfig, create_model
from perpixel.models.network import Network

SMALL, SMALL_PLUS = DeepLabV3Config.small(), DeepLabV3PlusConfig.small()
TEN = BackboneConfig(name="resnet10t", output_stride=16)
VAINF = {"separable_aspp": False, "separable_decoder": False, "decoder_convolutions": 1, "separable_norm": False}
R50, R101 = BackboneConfig(name="resnet50", output_stride=16), BackboneConfig(name="resnet101", output_stride=16)
SMP = {"separable_norm": False, "decoder_convolutions": 1, "refine": True}


def counted(name: str, options: dict[str, object], backbone: BackboneConfig) -> int:
    with torch.device("meta"):
        network = create_model(name, options, num_classes=21, backbone=backbone)
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("name", "options", "backbone", "count"),
    [
        ("deeplab_v3", {"refine": True, "auxiliary": True}, R50, 42_004_074),
        ("deeplab_v3", {"refine": True, "auxiliary": True}, R101, 60_996_202),
        ("deeplab_v3", {"refine": True}, R50, 39_638_869),
        ("deeplab_v3plus", VAINF, R50, 39_761_845),
        ("deeplab_v3plus", VAINF, R101, 58_753_973),
        ("deeplab_v3plus", VAINF, BackboneConfig(name="vainf_mobilenetv2_100", output_stride=16), 5_225_717),
        ("deeplab_v3plus", SMP, R50, 26_682_725),
        (
            "deeplab_v3",
            {"refine": True, "auxiliary": True, "auxiliary_stage": -3, "auxiliary_width": 10},
            BackboneConfig(name="torchvision_mobilenetv3_large_100", output_stride=16),
            11_029_328,
        ),
    ],
)
def test_published_form_has_the_published_number_of_parameters(
    name: str, options: dict[str, object], backbone: BackboneConfig, count: int
) -> None:
    assert counted(name, options, backbone) == count


def test_default_networks_are_the_papers_on_their_trunks() -> None:
    with torch.device("meta"):
        v3 = create_model("deeplab_v3", num_classes=21)
        plus = create_model("deeplab_v3plus", num_classes=19)
    assert isinstance(v3, DeepLabV3) and isinstance(plus, DeepLabV3Plus)
    dilations = [block.conv2.dilation[0] for block in v3.backbone.net.layer4]  # type: ignore[union-attr]
    assert dilations == [2, 4, 8]
    assert [b.conv.dilation[0] for b in v3.aspp.branches] == [1, 6, 12, 18]  # type: ignore[union-attr, index]
    assert [b.depthwise.dilation[0] for b in plus.aspp.branches[1:]] == [6, 12, 18]  # type: ignore[union-attr, index]
    assert len(plus.decoder) == 2
    assert plus.classifier.in_channels == 256
    assert plus.backbone.config.name == "xception65"
    assert (v3.align_corners, plus.align_corners) == (True, True)


@pytest.mark.parametrize("trunk", ["xception41", "mobilenetv2_035", "mobilenetv3_small_050"])
def test_deeplab_v3plus_stands_on_xception_and_mobilenets(trunk: str) -> None:
    backbone = BackboneConfig(name=trunk, output_stride=16)
    with torch.device("meta"):
        network = create_model("deeplab_v3plus", SMALL_PLUS, num_classes=3, backbone=backbone)
        assert network(torch.empty(2, 3, 65, 97)).logits.shape == (2, 3, 17, 25)


@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_deeplab_v3_scores_at_the_output_stride(output_stride: int) -> None:
    network = create_model(
        "deeplab_v3", SMALL, num_classes=3, backbone=replace(TEN, output_stride=output_stride, num_stages=2)
    ).eval()
    network.supervise = True
    output = network(torch.randn(1, 3, 65, 97))
    cells = (-(-65 // output_stride), -(-97 // output_stride))
    assert network.logit_stride == output_stride
    assert output.logits.shape == (1, 3, *cells)
    assert output.deep[0].shape == (1, 3, *(-(-side // min(16, output_stride)) for side in (65, 97)))


def test_deeplab_v3_without_auxiliary_head_has_one_term_and_no_deep_scores() -> None:
    network = create_model("deeplab_v3", replace(SMALL, auxiliary=False), num_classes=3, backbone=TEN).train()
    assert network(torch.randn(2, 3, 32, 32)).deep == ()
    assert [term.name for term in network.default_terms()] == ["main"]
    with_head = create_model("deeplab_v3", replace(SMALL, auxiliary_weight=0.3), num_classes=3, backbone=TEN)
    assert [(term.name, term.weight) for term in with_head.default_terms()] == [("main", 1.0), ("auxiliary", 0.3)]


def test_deeplab_v3_auxiliary_head_reads_the_map_that_is_named() -> None:
    network = create_model("deeplab_v3", replace(SMALL, auxiliary_stage=-4), num_classes=3, backbone=TEN).train()
    assert network(torch.randn(2, 3, 64, 64)).deep[0].shape == (2, 3, 16, 16)


def test_deeplab_v3_auxiliary_stage_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidValue, match="counts the backbone's 4 maps from the end, -1 to -4, got -5"):
        create_model("deeplab_v3", replace(SMALL, auxiliary_stage=-5), num_classes=3, backbone=TEN)


def test_deeplab_v3plus_without_a_map_of_stride_four_is_refused() -> None:
    with pytest.raises(InvalidValue, match=r"needs a map of stride 4 .* gives maps of strides \(16, 16\)"):
        create_model("deeplab_v3plus", SMALL_PLUS, num_classes=3, backbone=replace(TEN, num_stages=2))


@pytest.mark.parametrize(
    ("rule", "size", "valid"),
    [
        ("any", (33, 70), (33, 70)),
        ("any", (5, 70), (32, 70)),
        ("multiple", (33, 64), (48, 64)),
        ("multiple_plus_one", (33, 64), (33, 65)),
        ("multiple_plus_one", (513, 500), (513, 513)),
    ],
)
@pytest.mark.parametrize("name", ["deeplab_v3", "deeplab_v3plus"])
def test_valid_size_follows_the_rule(name: str, rule: str, size: tuple[int, int], valid: tuple[int, int]) -> None:
    config = replace(SMALL if name == "deeplab_v3" else SMALL_PLUS, image_sides=rule)  # type: ignore[type-var, arg-type]
    with torch.device("meta"):
        network = create_model(name, config, num_classes=2, backbone=TEN)
    assert network.valid_size(*size) == valid


def test_concatenation_order_is_that_of_the_decoders_channels() -> None:
    networks = {}
    for order in ("high_low", "low_high"):
        torch.manual_seed(0)
        config = replace(SMALL_PLUS, concatenation=order, separable_decoder=False)
        networks[order] = create_model("deeplab_v3plus", config, num_classes=2, backbone=TEN).eval()
    high_first, low_first = networks["high_low"], networks["low_high"]
    images = torch.randn(1, 3, 64, 64)
    assert not torch.allclose(high_first(images).logits, low_first(images).logits)
    weight = high_first.decoder[0].conv.weight  # type: ignore[union-attr, index]
    high, low = weight.split([16, 8], dim=1)
    low_first.decoder[0].conv.weight.data = torch.cat([low, high], 1)  # type: ignore[union-attr, index]
    assert torch.allclose(high_first(images).logits, low_first(images).logits, atol=1e-5)


def test_norm_momentum_is_set_everywhere_and_the_backbones_apart() -> None:
    def momenta(module: nn.Module | None) -> set[float]:
        assert module is not None
        return {m.momentum for m in module.modules() if isinstance(m, nn.BatchNorm2d)}

    def network(**changes: float) -> Network:
        return create_model("deeplab_v3plus", replace(SMALL_PLUS, **changes), num_classes=2, backbone=TEN)  # type: ignore[arg-type]

    assert momenta(network()) == {0.1}
    assert momenta(network(norm_momentum=3e-4)) == {3e-4}
    apart = network(backbone_norm_momentum=0.01)
    assert momenta(apart.backbone) == {0.01} and momenta(apart.aspp) == {0.1}  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [pytest.param("deeplab_v3", marks=pytest.mark.slow), "deeplab_v3plus"])
def test_exported_for_any_size_the_network_takes_any_size(name: str) -> None:
    config = SMALL if name == "deeplab_v3" else SMALL_PLUS
    # Not resnet10t: where timm pools its shortcuts, a graph holds for sides that divide by 16 alone.
    network = create_model(name, config, num_classes=2, backbone=replace(TEN, name="resnet18")).eval()
    sides = {2: torch.export.Dim("height", min=32, max=512), 3: torch.export.Dim("width", min=32, max=512)}
    program = torch.export.export(network, (torch.randn(1, 3, 64, 80),), dynamic_shapes=(sides,)).module()
    for size in ((65, 97), (96, 64)):
        images = torch.randn(1, 3, *size)
        torch.testing.assert_close(program(images).logits, network(images).logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"atrous_rates": ()}, r"one rate >= 1 per branch, got \[\]"),
        ({"width": 0}, "widths must be >= 1, got 0 and 8"),
        ({"auxiliary_stage": 0}, "counts maps from the end, -1 the last, got 0"),
        ({"refine_dropout": 1.0}, r"dropouts must lie in \[0, 1\), got 0.1 and 1.0"),
        ({"auxiliary_weight": 0.0}, "auxiliary_weight must be > 0, got 0.0"),
        ({"image_sides": "odd"}, "image_sides is one of any, multiple, multiple_plus_one, got 'odd'"),
        ({"norm_momentum": 0.0}, r"momenta of batch norms lie in \(0, 1\], got 0.0"),
    ],
)
def test_deeplab_v3_wrong_option_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        replace(SMALL, **change)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"atrous_rates": (6, -1)}, r"got \[6, -1\]"),
        ({"low_width": 0}, "low_width must be >= 1, got 0"),
        ({"decoder_convolutions": 0}, "decoder_convolutions must be >= 1, got 0"),
        ({"dropout": -0.1}, r"dropout must lie in \[0, 1\), got -0.1"),
        ({"concatenation": "low"}, "'high_low' or 'low_high', got 'low'"),
        ({"backbone_norm_momentum": 2.0}, "got 2.0"),
    ],
)
def test_deeplab_v3plus_wrong_option_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        replace(SMALL_PLUS, **change)  # type: ignore[arg-type]
