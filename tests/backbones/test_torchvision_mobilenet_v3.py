from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.models import mobilenet_v3_large, mobilenet_v3_small

from perpixel.backbones import BackboneConfig, create_trunk
from perpixel.errors import CheckpointError, InvalidValue

SMALL = "torchvision_mobilenetv3_small_050"


@pytest.mark.parametrize(
    ("name", "output_stride", "strides", "channels"),
    [
        ("torchvision_mobilenetv3_large_100", 16, (4, 8, 16, 16), (24, 40, 80, 960)),
        ("torchvision_mobilenetv3_large_100", 32, (4, 8, 16, 32), (24, 40, 80, 960)),
        ("torchvision_mobilenetv3_small_100", 16, (4, 8, 16, 16), (16, 24, 40, 576)),
        (SMALL, 32, (4, 8, 16, 32), (8, 16, 24, 288)),
    ],
)
def test_trunk_states_strides_and_channels_of_its_maps(
    name: str, output_stride: int, strides: tuple[int, ...], channels: tuple[int, ...]
) -> None:
    trunk = create_trunk(BackboneConfig(name=name, output_stride=output_stride)).eval()
    assert (trunk.strides, trunk.channels) == (strides, channels)
    with torch.no_grad():
        maps = trunk(torch.randn(1, 3, 64, 97))
    assert [tuple(m.shape[1:]) for m in maps] == [
        (c, 64 // s, -(-97 // s)) for c, s in zip(channels, strides, strict=True)
    ]


def test_maps_are_taken_behind_the_strided_block_and_the_last_one() -> None:
    trunk = create_trunk(BackboneConfig(name="torchvision_mobilenetv3_large_100")).eval()
    theirs = mobilenet_v3_large().features.eval()
    theirs.load_state_dict(trunk.net.state_dict())
    images = torch.randn(1, 3, 40, 40)
    with torch.no_grad():
        maps = trunk(images)
        expected = [theirs[: position + 1](images) for position in (2, 4, 7, 16)]
    for ours, wanted in zip(maps, expected, strict=True):
        assert torch.equal(ours, wanted)


def test_batch_norms_are_torchvisions_and_dilation_is_full() -> None:
    trunk = create_trunk(BackboneConfig(name=SMALL, output_stride=16))
    norms = {(m.eps, m.momentum) for m in trunk.modules() if isinstance(m, nn.BatchNorm2d)}
    assert norms == {(1e-3, 0.01)}
    spatial = [m for m in trunk.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (5, 5)]
    assert [m.dilation[0] for m in spatial[-4:]] == [1, 2, 2, 2]


def test_classifier_file_fills_the_trunk_and_other_channels_are_said(tmp_path: Path) -> None:
    source = mobilenet_v3_small(width_mult=0.5)
    torch.save(source.state_dict(), tmp_path / "small.pth")
    trunk = create_trunk(BackboneConfig(name=SMALL, weights=str(tmp_path / "small.pth"), in_channels=4))
    assert torch.equal(trunk.net[-1][0].weight, source.features[-1][0].weight)  # type: ignore[index, union-attr, operator]
    assert trunk.notes == ("net.0.0.weight was adapted from 3 to 4 input channels",)
    assert trunk.preprocessing.num_channels == 4


def test_file_of_another_width_is_refused_with_names(tmp_path: Path) -> None:
    torch.save(mobilenet_v3_small(width_mult=0.75).state_dict(), tmp_path / "wide.pth")
    with pytest.raises(CheckpointError, match=rf"(?s)do not fit backbone '{SMALL}'.*shape: net\.\d"):
        create_trunk(BackboneConfig(name=SMALL, weights=str(tmp_path / "wide.pth")))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"output_stride": 8}, "has output_stride 16 or 32, got 8"),
        ({"dilation": "full"}, "has its own stem, dilation and stages, got dilation 'full'"),
        ({"multi_grid": (1, 2)}, r"multi_grid \(1, 2\)"),
        ({"cut_stages": 1}, "cut_stages 1"),
        ({"weights": "timm"}, "timm has no weights of torchvision_mobilenetv3_small_050"),
        ({"num_stages": 6}, "has 5 feature maps, num_stages=6"),
    ],
)
def test_trunk_wrong_argument_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        create_trunk(BackboneConfig(**{"name": SMALL, **change}))  # type: ignore[arg-type]
