from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.models import mobilenet_v2

from perpixel.backbones import BackboneConfig, create_trunk
from perpixel.backbones.vainf_mobilenet_v2 import PaddedInvertedResidual
from perpixel.errors import CheckpointError, InvalidValue

QUARTER = "vainf_mobilenetv2_025"


@pytest.mark.parametrize(
    ("output_stride", "strides", "cells"),
    [(8, (4, 8, 8, 8), (4, 6)), (16, (4, 8, 16, 16), (2, 3)), (32, (4, 8, 16, 32), (1, 2))],
)
def test_trunk_at_any_output_stride_gives_the_maps_before_the_strides(
    output_stride: int, strides: tuple[int, ...], cells: tuple[int, int]
) -> None:
    trunk = create_trunk(BackboneConfig(name=QUARTER, output_stride=output_stride)).eval()
    with torch.no_grad():
        maps = trunk(torch.randn(1, 3, 32, 48))
    assert (trunk.strides, trunk.channels) == (strides, (6, 8, 24, 80))
    assert [m.shape[1] for m in maps] == [6, 8, 24, 80]
    assert maps[-1].shape[-2:] == cells


def test_stem_without_padding_loses_a_cell_of_odd_sides() -> None:
    trunk = create_trunk(BackboneConfig(name=QUARTER)).eval()
    with torch.no_grad():
        assert trunk(torch.randn(1, 3, 65, 97))[0].shape[-2:] == (16, 24)


def test_block_pads_before_the_expansion_as_the_hand_computes() -> None:
    block = PaddedInvertedResidual(1, 1, stride=1, dilation=1, expansion=2).double().eval()
    for layer in block.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eps = 0.0
        if isinstance(layer, nn.Conv2d):
            nn.init.constant_(layer.weight, 0.5)
    nn.init.constant_(block.expand.norm.bias, 1.0)  # type: ignore[union-attr, arg-type]
    x = torch.full((1, 1, 1, 1), 2.0, dtype=torch.float64)
    # Expanded: 0.5 * 2 + 1 = 2 in the middle and 1 in each of the 8 cells of padding, in both channels. The 3x3
    # halves their sum, (2 + 8) / 2 = 5; the projection halves the two channels' sum to 5, and the input is added.
    assert block(x).item() == 7.0


def test_torchvisions_file_fills_the_trunk(tmp_path: Path) -> None:
    source = mobilenet_v2()
    torch.save(source.state_dict(), tmp_path / "mobilenet_v2.pth")
    trunk = create_trunk(BackboneConfig(name="vainf_mobilenetv2_100", weights=str(tmp_path / "mobilenet_v2.pth")))
    assert torch.equal(trunk.features[17].project.weight, source.features[17].conv[2].weight)  # type: ignore[index, union-attr, operator]
    assert torch.equal(trunk.features[1].depthwise.conv.weight, source.features[1].conv[0][0].weight)  # type: ignore[index, union-attr, operator]
    assert trunk.notes == ()


def test_file_of_another_width_is_refused_with_names(tmp_path: Path) -> None:
    torch.save(mobilenet_v2(width_mult=0.5).state_dict(), tmp_path / "half.pth")
    with pytest.raises(CheckpointError, match=rf"(?s)do not fit backbone '{QUARTER}'.*shape: features\.\d"):
        create_trunk(BackboneConfig(name=QUARTER, weights=str(tmp_path / "half.pth")))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dilation": "full"}, "has its own stem, dilation and stages, got dilation 'full'"),
        ({"stem": "deep32"}, "stem 'deep32'"),
        ({"weights": "timm"}, "timm has no weights in the names of vainf_mobilenetv2_025"),
        ({"num_stages": 6}, "has 5 feature maps, num_stages=6"),
    ],
)
def test_trunk_wrong_argument_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        create_trunk(BackboneConfig(**{"name": QUARTER, **change}))  # type: ignore[arg-type]


def test_unknown_trunk_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(InvalidValue, match="unknown backbone 'resnet19'; did you mean 'resnet18'"):
        create_trunk(BackboneConfig(name="resnet19"))
