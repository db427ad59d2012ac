from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from perpixel.errors import InvalidValue
from perpixel.models import RefineNet, RefineNetConfig, create_model
from perpixel.models.refinenet import MultiResolutionFusion, RefineNetBlock, ResidualConvUnit, TrunkPerScale

SMALL: dict[str, Any] = {"width": 6, "coarse_width": 10, "num_pools": 2, "input_units": 1, "output_units": 1}


def refinenet(**options: Any) -> RefineNet:
    torch.manual_seed(0)
    network = create_model("refinenet", {**SMALL, **options}, num_classes=3, backbone="test_resnet").eval()
    assert isinstance(network, RefineNet)
    return network


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def drawn(block: nn.Module, std: float = 0.3) -> nn.Module:
    """Larger weights than the published ones, so that every path can be seen in the output."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * std)
    return block


def test_published_form_has_the_counted_parameters() -> None:
    with torch.device("meta"):
        network = create_model("refinenet", num_classes=21)
        paper = create_model("refinenet", {"num_pools": 2}, num_classes=21)
    assert count(network) == 118_052_437
    assert count(network) - count(paper) == 2 * 9 * (512**2 + 3 * 256**2)  # two 3x3 convolutions in each of four chains


def test_rcu_by_hand() -> None:
    unit = ResidualConvUnit(1)
    with torch.no_grad():
        for conv, weight in ((unit.first, 2.0), (unit.second, -1.0)):
            conv.weight.zero_()
            conv.weight[0, 0, 1, 1] = weight
        assert unit.first.bias is not None
        unit.first.bias.fill_(-1.0)
    assert unit.second.bias is None
    # x - relu(2 relu(x) - 1): the residual keeps what the ReLU takes away, and is not changed in place.
    x = torch.tensor([[[[3.0, -2.0, 0.25]]]])
    assert torch.equal(unit(x), torch.tensor([[[[-2.0, -2.0, 0.25]]]]))
    assert torch.equal(x, torch.tensor([[[[3.0, -2.0, 0.25]]]]))


def test_fusion_enlarges_to_the_first_map_and_adds_by_hand() -> None:
    fusion = MultiResolutionFusion((1, 2), 1, align_corners=True)
    with torch.no_grad():
        for conv, weights in zip(fusion.convs, ([1.0], [10.0, 100.0]), strict=True):
            conv.weight.zero_()  # type: ignore[operator, union-attr]
            conv.weight[0, :, 1, 1] = torch.tensor(weights)  # type: ignore[index, operator]
    fine = torch.tensor([[[[1.0, 2.0, 3.0]]]])
    coarse = torch.tensor([[[[0.0, 4.0]], [[1.0, 1.0]]]])
    assert torch.equal(fusion([fine, coarse]), torch.tensor([[[[101.0, 122.0, 143.0]]]]))


def test_block_with_one_map_has_no_fusion_and_blocks_with_more_have() -> None:
    config = RefineNetConfig(**SMALL)
    alone = RefineNetBlock((7,), None, config, coarsest=True)
    assert alone.fusion is None and alone.width == config.coarse_width
    fused = RefineNetBlock((7,), alone.width, config, coarsest=False)
    assert fused.fusion is not None and fused.width == config.width
    x = drawn(alone)([torch.randn(1, 7, 3, 3)], None)
    assert x.shape == (1, 10, 3, 3)
    assert drawn(fused)([torch.randn(1, 7, 5, 6)], x).shape == (1, 6, 5, 6)


def test_units_of_the_paper_and_of_the_code_are_the_same_row() -> None:
    """One unit behind a block and two before the next input make the three that the code has behind it."""
    three = drawn(nn.Sequential(*(ResidualConvUnit(2) for _ in range(3))))
    behind, before = three[:1], three[1:]  # type: ignore[index]
    x = torch.randn(1, 2, 4, 4)
    assert torch.equal(before(behind(x)), three(x))


@pytest.mark.parametrize(("cascades", "stages_of_blocks"), [(1, [4]), (2, [2, 2]), (4, [1, 1, 1, 1])])
def test_variants_share_the_stages_out_among_their_blocks(cascades: int, stages_of_blocks: list[int]) -> None:
    network = refinenet(cascades=cascades)
    assert [block.num_stages for block in network.blocks] == stages_of_blocks
    assert [len(block.inputs) for block in network.blocks] == stages_of_blocks
    paths = [0 if block.fusion is None else len(block.fusion.convs) for block in network.blocks]  # type: ignore[union-attr]
    assert paths == {1: [4], 2: [2, 3], 4: [0, 2, 2, 2]}[cascades]
    assert network(torch.randn(1, 3, 65, 97)).logits.shape == (1, 3, 17, 25)


@pytest.mark.parametrize("cascades", [1, 2, 4])
def test_every_stage_reaches_the_scores(cascades: int) -> None:
    network = refinenet(cascades=cascades)
    drawn(network.blocks)
    drawn(network.classifier)
    images = torch.randn(1, 3, 64, 64)
    whole = network(images).logits
    paths = [path for block in network.blocks for path in block.inputs]  # type: ignore[attr-defined, union-attr]
    for path in paths:
        kept = path.project.weight.detach().clone()
        with torch.no_grad():
            path.project.weight.zero_()
            assert not torch.allclose(network(images).logits, whole)
            path.project.weight.copy_(kept)


def test_two_scales_have_a_trunk_each_and_the_larger_one_sets_the_size() -> None:
    network = refinenet(scales=(1.2, 0.6))
    single = refinenet()
    assert isinstance(network.backbone, TrunkPerScale)
    assert count(network.backbone) == 2 * count(single.backbone)
    assert all(len(block.inputs) == 2 for block in network.blocks)
    assert network(torch.randn(1, 3, 80, 100)).logits.shape == (1, 3, 24, 30)  # a quarter of 96 and of 120
    assert network.logit_stride == 3
    names = [name for name, _ in network.named_parameters()]
    assert any(name.startswith("backbone.trunks.1.net.") for name in names)


def test_two_scales_with_one_trunk_have_no_more_of_it() -> None:
    network = refinenet(scales=(1.2, 0.6), shared_trunk=True)
    assert count(network.backbone) == count(refinenet().backbone)
    assert network(torch.randn(1, 3, 80, 100)).logits.shape == (1, 3, 24, 30)


def test_one_scale_above_1_is_the_image_enlarged() -> None:
    plain, scaled = refinenet(), refinenet(scales=(1.2,))
    scaled.load_state_dict(plain.state_dict())
    images = torch.randn(1, 3, 80, 100)
    enlarged = torch.nn.functional.interpolate(images, size=(96, 120), mode="bilinear", align_corners=True)
    assert torch.equal(scaled(images).logits, plain(enlarged).logits)


def test_smaller_scales_raise_the_minimum_size() -> None:
    assert refinenet().minimum_size == 64
    network = refinenet(scales=(1.2, 0.6))
    assert network.minimum_size == 107  # 0.6 of it is two cells of the coarsest stage
    assert network(torch.randn(1, 3, 107, 107)).logits.shape == (1, 3, 32, 32)


def test_dropout_stands_on_wide_maps_and_before_the_classifier() -> None:
    config = RefineNetConfig(**SMALL, dropout=0.25)
    assert RefineNetBlock((1024,), None, config, coarsest=False).inputs[0].dropout.p == 0.25  # type: ignore[union-attr]
    assert RefineNetBlock((512,), None, config, coarsest=False).inputs[0].dropout.p == 0.0  # type: ignore[union-attr]
    assert refinenet(dropout=0.25).dropout.p == 0.25


def test_new_layers_begin_as_published() -> None:
    network = refinenet(width=64)
    weights = network.blocks[-1].output[0].first  # type: ignore[index, union-attr]
    assert weights.weight.std().item() == pytest.approx(0.01, rel=0.05)  # type: ignore[union-attr]
    assert not weights.bias.any()  # type: ignore[union-attr, operator]


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"scales": (1.2, 0.6), "cascades": 2, "pooling_order": "conv_pool"}])
def test_refinenet_exports_for_all_sizes(options: dict[str, Any]) -> None:
    network = refinenet(**options)
    sides = {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    program = torch.export.export(network, (torch.randn(1, 3, 113, 150),), dynamic_shapes=(sides,))
    exported = program.module()
    for size in ((113, 150), (131, 110), (160, 224)):
        x = torch.randn(1, 3, *size)
        assert torch.allclose(exported(x).logits, network(x).logits, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "RefineNet width must be >= 1, got 0"),
        ({"coarse_width": -1}, "RefineNet coarse_width must be >= 1, got -1"),
        ({"cascades": 0}, "RefineNet cascades must be >= 1, got 0"),
        ({"num_pools": 0}, "RefineNet num_pools must be >= 1, got 0"),
        ({"input_units": -1}, "numbers of RCUs must be >= 0, got -1 and 1"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\), got 1.0"),
        ({"scales": ()}, r"scales must be positive and fall, the largest first, got \[\]"),
        ({"scales": (0.6, 1.2)}, r"got \[0.6, 1.2\]"),
        ({"scales": (1.2, 0.0)}, r"got \[1.2, 0.0\]"),
        ({"pooling_order": "pool"}, "pooling_order is 'pool_conv' or 'conv_pool', got 'pool'"),
        ({"cascades": 3}, "cascades=3 cannot share out the 4 stages of the trunk"),
    ],
)
def test_refinenet_refuses_what_it_cannot_build(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        refinenet(**options)
