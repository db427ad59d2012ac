from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from perpixel.errors import InvalidValue
from perpixel.models import RefineNetLW, RefineNetLWConfig, create_model, network_description, network_from_description
from perpixel.models.refinenet_lw import LightLevel

SMALL: dict[str, Any] = {"width": 6, "coarse_width": 10, "num_pools": 2}
THIN = ((1, 4, 1, 1), (2, 6, 2, 2), (3, 8, 1, 2), (2, 8, 2, 2), (2, 10, 1, 1), (2, 12, 2, 2), (2, 14, 1, 1))
ON_MOBILENET: dict[str, Any] = {"adapt": False, "relu6": True, "mobilenet_stem": 4, "mobilenet_stages": THIN}


def light(backbone: str = "test_resnet", **options: Any) -> RefineNetLW:
    torch.manual_seed(0)
    network = create_model("refinenet_lw", {**SMALL, **options}, num_classes=3, backbone=backbone).eval()
    assert isinstance(network, RefineNetLW)
    return network


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def test_published_forms_have_the_published_parameters() -> None:
    with torch.device("meta"):
        resnet = create_model("refinenet_lw", num_classes=21)
        mobilenet = create_model(
            "refinenet_lw", RefineNetLWConfig.mobilenet_v2(), num_classes=21, backbone="drsleep_mobilenet_v2"
        )
    assert count(resnet) == 27_357_525
    assert count(mobilenet) == 3_284_565


@pytest.mark.slow
@pytest.mark.parametrize(("depth", "millions"), [("resnet101", 46), ("resnet152", 62)])
def test_deeper_forms_have_the_published_millions_of_parameters(depth: str, millions: int) -> None:
    with torch.device("meta"):
        network = create_model("refinenet_lw", num_classes=21, backbone=depth)
    assert round(count(network) / 1e6) == millions


def test_level_by_hand() -> None:
    level = LightLevel((1, 1), 2, RefineNetLWConfig(width=1, coarse_width=2, num_pools=1, adapt=False, relu6=True))
    assert level.coarser is not None
    with torch.no_grad():
        for conv, weights in (
            (level.laterals[0].project, [1.0]),
            (level.laterals[1].project, [-2.0]),
            (level.coarser, [3.0, 1.0]),
            (level.pools.convs[0], [0.5]),
        ):
            conv.weight.copy_(torch.tensor(weights).reshape(1, -1, 1, 1))  # type: ignore[operator, union-attr]
    maps = [torch.tensor([[[[1.0, 1.0, 1.0, 9.0]]]]), torch.tensor([[[[1.0, 0.0, 2.0, 0.0]]]])]
    coarser = torch.tensor([[[[1.0]], [[-1.0]]]])  # gives 2 everywhere
    # 1 + 2 - 2, 1 + 2, 1 + 2 - 4, 9 + 2, cut to [0, 6]: 1 3 0 6; half the maximum over two cells to each side is added.
    assert torch.equal(level(maps, coarser).flatten(), torch.tensor([2.5, 6.0, 3.0, 9.0]))


def test_levels_of_a_resnet_are_its_stages_and_the_coarsest_is_not_adapted() -> None:
    levels = light().levels
    assert [len(level.laterals) for level in levels] == [1, 1, 1, 1]  # type: ignore[arg-type]
    assert [level.laterals[0].adapt is not None for level in levels] == [False, True, True, True]  # type: ignore[index, union-attr]
    assert [level.coarser is not None for level in levels] == [False, True, True, True]
    assert [level.laterals[0].project.out_channels for level in levels] == [10, 6, 6, 6]  # type: ignore[index, union-attr]


def test_levels_of_mobilenet_pair_the_maps_of_a_stride() -> None:
    network = light("drsleep_mobilenet_v2", **ON_MOBILENET)
    assert [len(level.laterals) for level in network.levels] == [2, 2, 1, 1]  # type: ignore[arg-type]
    widths = [[lateral.project.in_channels for lateral in level.laterals] for level in network.levels]  # type: ignore[union-attr]
    assert widths == [[12, 14], [8, 10], [8], [6]]
    assert network(torch.randn(1, 3, 65, 97)).logits.shape == (1, 3, 17, 25)


def test_mobilenet_form_is_rebuilt_from_its_description() -> None:
    network = light("drsleep_mobilenet_v2", **ON_MOBILENET)
    description = network_description(network)
    description["options"]["mobilenet_stages"] = [list(row) for row in THIN]  # as a file has it
    twin = network_from_description(description).eval()
    twin.load_state_dict(network.state_dict())
    x = torch.randn(1, 3, 64, 64)
    assert twin.config == network.config
    assert torch.equal(twin(x).logits, network(x).logits)


def test_dilated_trunk_joins_the_stages_of_a_stride() -> None:
    torch.manual_seed(0)
    trunk = light().backbone.config
    network = create_model(
        "refinenet_lw", SMALL, num_classes=3, backbone=type(trunk)(name="test_resnet", output_stride=8)
    ).eval()
    assert [len(level.laterals) for level in network.levels] == [3, 1]  # type: ignore[arg-type, union-attr]
    assert network(torch.randn(1, 3, 64, 64)).logits.shape == (1, 3, 16, 16)


def test_dropout_stands_on_wide_maps_alone() -> None:
    config = RefineNetLWConfig(**SMALL, dropout=0.25)
    level = LightLevel((512, 1024), None, config)
    assert [lateral.dropout.p for lateral in level.laterals] == [0.0, 0.25]  # type: ignore[union-attr]


@pytest.mark.slow
@pytest.mark.parametrize("on_mobilenet", [False, True])
def test_light_refinenet_exports_for_all_sizes(on_mobilenet: bool) -> None:
    network = light("drsleep_mobilenet_v2", **ON_MOBILENET) if on_mobilenet else light()
    sides = {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    program = torch.export.export(network, (torch.randn(1, 3, 113, 150),), dynamic_shapes=(sides,))
    exported = program.module()
    for size in ((113, 150), (131, 70), (160, 224)):
        x = torch.randn(1, 3, *size)
        assert torch.allclose(exported(x).logits, network(x).logits, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "RefineNet-LW width must be >= 1, got 0"),
        ({"coarse_width": 0}, "RefineNet-LW coarse_width must be >= 1, got 0"),
        ({"num_pools": 0}, "RefineNet-LW num_pools must be >= 1, got 0"),
        ({"dropout": -0.1}, r"dropout must lie in \[0, 1\), got -0.1"),
        ({"pooling_order": "conv"}, "pooling_order is 'pool_conv' or 'conv_pool', got 'conv'"),
        ({"mobilenet_stem": 0}, "a MobileNet-v2 has a stem and at least two stages .* got stem 0"),
    ],
)
def test_light_refinenet_refuses_what_it_cannot_build(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        light(**options)
