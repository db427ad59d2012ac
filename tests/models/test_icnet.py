from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
import torch.nn.functional as F
from torch.export import Dim

from perpixel.backbones import BackboneConfig, TwoScaleTrunk, create_backbone
from perpixel.errors import InvalidValue
from perpixel.losses import SegmentationLoss
from perpixel.models import ICNet, ICNetConfig, create_model
from perpixel.models.channel_groups import Narrowable
from perpixel.models.icnet import CascadeFeatureFusion
from perpixel.ops import resize
from perpixel.ops.icnet_pooling import pool_icnet

PORT = {"pooling": "adaptive", "context_projection": False, "guidance": "dilated", "classifier_bias": False}


def build(classes: int = 3, backbone: BackboneConfig | None = None, **options: object) -> ICNet:
    torch.manual_seed(0)
    network = create_model("icnet", {"width": 2, **options}, num_classes=classes, backbone=backbone)
    assert isinstance(network, ICNet)
    return network.eval()


@pytest.mark.parametrize(
    ("options", "backbone", "parameters"),
    [
        ({}, None, 6_707_321),  # the reference vector's count, less the pooling convolutions that nothing calls
        ({"width": 64}, None, 26_749_113),  # derived
        (PORT, BackboneConfig(name="resnet50", stem="deep64", output_stride=8), 28_298_376 - 2_049_000),
    ],
)
def test_icnet_published_forms_have_their_parameter_counts(
    options: Mapping[str, object], backbone: BackboneConfig | None, parameters: int
) -> None:
    with torch.device("meta"):
        network = create_model("icnet", options, num_classes=19, backbone=backbone)
    assert sum(p.numel() for p in network.parameters()) == parameters


def test_icnet_outputs_lie_at_a_quarter_an_eighth_and_a_sixteenth() -> None:
    network = build()
    network.supervise = True
    output = network(torch.randn(1, 3, 129, 193))
    shapes = [tuple(x.shape[-2:]) for x in (output.logits, *output.deep)]
    assert shapes == [(33, 49), (9, 13), (17, 25)]


def test_fusion_by_hand() -> None:
    """One channel, all kernels 1 in the middle: ReLU(enlarged low + high), and scores of what guidance reads."""
    for guidance in ("enlarged", "dilated"):
        config = ICNetConfig(guidance=guidance, merged_norms=True)  # type: ignore[arg-type]
        fusion = CascadeFeatureFusion(1, 1, 1, 1, config)
        for parameter in fusion.parameters():
            torch.nn.init.zeros_(parameter)
        fusion.low.conv.weight.data[0, 0, 1, 1] = 2
        fusion.high.conv.weight.data.fill_(1)
        fusion.classifier.weight.data.fill_(10)
        low, high = torch.tensor([[[[1.0, 3.0]]]]), torch.tensor([[[[-5.0, 1.0, 1.0]]]])
        fused, (scores,) = fusion(low, high, supervised=True)
        assert fused.tolist() == [[[[0.0, 5.0, 7.0]]]]  # low becomes 1, 2, 3 and doubles
        assert scores.tolist() == [[[[10.0, 20.0, 30.0]]]] if guidance == "enlarged" else [[[[20.0, 40.0, 60.0]]]]
        assert fusion(low, high, supervised=False)[1] == ()


@pytest.mark.parametrize("merged", [False, True])
def test_icnet_projects_before_it_enlarges_with_the_same_result(merged: bool) -> None:
    network = build(merged_norms=merged).double()
    assert network.context is not None
    for parameter in network.context.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(2, 64, 7, 9, dtype=torch.float64)
    pooled = sum(resize(cells, (7, 9), align_corners=True) for cells in pool_icnet(x, "published"))
    plain = torch.relu(network.context(x + pooled))
    torch.testing.assert_close(network._with_context(x), plain, rtol=0, atol=1e-12)


def test_icnet_classifies_before_it_enlarges_with_the_same_result() -> None:
    network = build().double()
    seen: list[torch.Tensor] = []
    network.classifier.register_forward_hook(lambda _m, given, _o: seen.append(given[0]))
    with torch.no_grad():
        logits = network(torch.randn(1, 3, 65, 97, dtype=torch.float64)).logits
        plain = network.classifier(F.interpolate(seen[0], size=(17, 25), mode="bilinear", align_corners=True))
    torch.testing.assert_close(logits, plain, rtol=0, atol=1e-12)


def test_icnet_loss_is_the_cascade_label_guidance() -> None:
    terms = build().default_terms()
    assert [(t.output, t.index, t.weight, t.at) for t in terms] == [
        ("logits", 0, 1.0, "logits"),
        ("deep", 1, 0.4, "logits"),
        ("deep", 0, 0.16, "logits"),
    ]
    network = build().train()
    output = network(torch.randn(2, 3, 65, 65))
    target = torch.randint(0, 3, (2, 65, 65))
    value = SegmentationLoss(terms, num_classes=3, align_corners=True)(output, target)
    sixteenth = F.cross_entropy(output.deep[0], target[:, ::16, ::16])
    torch.testing.assert_close(value.parts["sub4"], 0.16 * sixteenth)


@pytest.mark.parametrize(
    ("align_corners", "backbone", "size", "wanted"),
    [
        (True, None, (1024, 2048), (1025, 2049)),
        (True, None, (1025, 33), (1025, 33)),
        (True, None, (2, 34), (33, 65)),
        (False, None, (1024, 40), (1024, 40)),
        (True, BackboneConfig(name="resnet10t", output_stride=8), (1024, 65), (1024, 96)),
    ],
)
def test_icnet_valid_size_is_where_the_branches_meet(
    align_corners: bool, backbone: BackboneConfig | None, size: tuple[int, int], wanted: tuple[int, int]
) -> None:
    assert build(align_corners=align_corners, backbone=backbone).valid_size(*size) == wanted


@pytest.mark.parametrize("backbone", [None, BackboneConfig(name="resnet10t", output_stride=8)])
def test_icnet_trains_on_one_image_of_its_minimum_size(backbone: BackboneConfig | None) -> None:
    network = build(backbone=backbone).train()
    side = network.minimum_size
    assert torch.isfinite(network(torch.randn(1, 3, side, side)).logits).all()
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        network(torch.randn(1, 3, side - 1, side - 1))


def test_icnet_takes_a_ready_backbone_and_runs_it_at_two_scales() -> None:
    trunk = create_backbone(BackboneConfig(name="resnet10t", output_stride=8))
    network = create_model("icnet", {"width": 2, **PORT}, num_classes=2, backbone=trunk)
    assert isinstance(network.backbone, TwoScaleTrunk)
    assert network.backbone.trunk is trunk


@pytest.mark.parametrize(
    ("options", "backbone"),
    [
        ({}, None),
        pytest.param(PORT, BackboneConfig(output_stride=8), marks=pytest.mark.slow, id="two_scales"),
    ],
)
def test_icnet_exports_for_any_height_and_width(options: Mapping[str, object], backbone: BackboneConfig | None) -> None:
    network = build(backbone=backbone, **options)
    low = network.minimum_size
    sides = {2: Dim("h", min=low, max=4096), 3: Dim("w", min=low, max=4096)}
    exported = torch.export.export(network, (torch.randn(1, 3, 97, 129),), dynamic_shapes=(sides,)).module()
    for size in ((64, 70), (225, low)):
        x = torch.randn(1, 3, *size)
        torch.testing.assert_close(exported(x).logits, network(x).logits)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "ICNet width must be >= 1, got 0"),
        ({"pooling": "max"}, "pooling is one of published, floor, adaptive, ptsemseg, got 'max'"),
        ({"guidance": "none"}, "guidance is 'enlarged' or 'dilated', got 'none'"),
        ({"loss_weights": (0.4, 1.0)}, r"three positive numbers \(1/16, 1/8, 1/4\), got \(0.4, 1.0\)"),
        ({"loss_weights": (0.0, 0.4, 1.0)}, "three positive numbers"),
        ({"norm_momentum": 0.0}, r"norm_momentum must lie in \(0, 1\], got 0.0"),
    ],
)
def test_icnet_config_refuses_what_is_out_of_range(options: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        ICNetConfig(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options", [{}, {"guidance": "dilated"}, {"context_projection": False}, {"merged_norms": True}]
)
def test_icnet_channel_groups_hold_every_dimension_that_follows_the_width(options: Mapping[str, object]) -> None:
    """Made and read dimensions of all groups, counted, are those in which the same network of another width differs."""
    network = build(**options)
    narrow, wide = (net.state_dict() for net in (network, build(**{**options, "width": 4})))
    covered: list[tuple[str, int]] = []
    for group in network.channel_groups():
        for name in group.made_by:
            covered += [(key, 0) for key, value in narrow.items() if key.startswith(f"{name}.") and value.ndim]
        covered += [(f"{name}.weight", 1) for name in group.read_by]
        assert {name.rpartition(".conv")[0] for name in group.scored_by} <= set(group.made_by)
    assert len(set(covered)) == len(covered)
    assert set(covered) == {
        (key, dim)
        for key, value in wide.items()
        for dim in range(value.ndim)
        if value.shape[dim] != narrow[key].shape[dim]
    }


def test_icnet_on_a_timm_trunk_cannot_be_narrowed() -> None:
    network = build(backbone=BackboneConfig(name="resnet10t", output_stride=8))
    assert isinstance(network, Narrowable)
    with pytest.raises(InvalidValue, match="backbone 'resnet10t' is made in one width and cannot be pruned"):
        network.channel_groups()


@pytest.mark.parametrize("keep", [0.0, 1.0, 0.3, 0.25, float("nan")])
def test_icnet_narrowed_by_no_whole_number_of_channels_is_refused(keep: float) -> None:
    with pytest.raises(InvalidValue, match=r"keep=.* of width 2 leaves .* keep a share in \(0, 1\)"):
        build().narrowed(keep)
