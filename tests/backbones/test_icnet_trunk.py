from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from perpixel.backbones import (
    ICNET_TRUNK,
    BackboneConfig,
    ICNetTrunk,
    TwoScaleTrunk,
    create_backbone,
    create_icnet_trunk,
)
from perpixel.errors import CheckpointError, InvalidValue

OWN = BackboneConfig(name=ICNET_TRUNK)


def own_trunk(config: BackboneConfig = OWN, *, width: int = 1, merged: bool = False, on_1x1: bool = True) -> ICNetTrunk:
    torch.manual_seed(0)
    trunk = create_icnet_trunk(config, width=width, stride_on_1x1=on_1x1, merged=merged, norm_momentum=0.05)
    assert isinstance(trunk, ICNetTrunk)
    return trunk.eval()


def two_scale(config: BackboneConfig) -> TwoScaleTrunk:
    trunk = create_icnet_trunk(config, width=1, stride_on_1x1=True, merged=False, norm_momentum=0.05)
    assert isinstance(trunk, TwoScaleTrunk)
    return trunk.eval()


@pytest.mark.parametrize("size", [(65, 97), (64, 70), (33, 33)])
def test_own_trunk_maps_have_their_strides_and_channels(size: tuple[int, int]) -> None:
    trunk = own_trunk(width=2)
    maps = trunk(torch.randn(1, 3, *size))
    for x, stride, channels in zip(maps, trunk.strides, trunk.channels, strict=True):
        assert x.shape == (1, channels, -(-size[0] // stride), -(-size[1] // stride))
    assert (trunk.strides, trunk.channels) == ((16, 32), (16, 64))


def test_own_trunk_shares_its_first_layers_and_shrinks_behind_the_first_block_of_the_third_stage() -> None:
    trunk = own_trunk()
    calls: list[tuple[str, tuple[int, ...]]] = []
    for name, layer in trunk.named_modules():
        if name in ("conv1_1", "conv2.0", "conv3.0", "conv3.1", "conv4.0", "conv5.0"):
            layer.register_forward_hook(lambda _m, given, _o, name=name: calls.append((name, given[0].shape[-2:])))
    trunk(torch.randn(1, 3, 129, 129))
    assert calls == [
        ("conv1_1", (65, 65)),
        ("conv2.0", (17, 17)),
        ("conv3.0", (17, 17)),
        ("conv3.1", (5, 5)),
        ("conv4.0", (5, 5)),
        ("conv5.0", (5, 5)),
    ]


def test_own_trunk_dilates_its_last_stages_whole() -> None:
    trunk = own_trunk()
    rates = {
        stage: {m.dilation for m in trunk.get_submodule(stage).modules() if getattr(m, "kernel_size", 0) == (3, 3)}
        for stage in ("conv2", "conv3", "conv4", "conv5")
    }
    assert rates == {"conv2": {(1, 1)}, "conv3": {(1, 1)}, "conv4": {(2, 2)}, "conv5": {(4, 4)}}


@pytest.mark.parametrize(("on_1x1", "strides"), [(True, (2, 1)), (False, (1, 2))])
def test_own_trunk_strides_where_it_is_told(on_1x1: bool, strides: tuple[int, int]) -> None:
    block = own_trunk(on_1x1=on_1x1).get_submodule("conv3.0")
    found = (block.reduce.conv.stride[0], block.conv3x3.conv.stride[0])  # type: ignore[union-attr, index]
    assert found == strides
    assert block.shortcut.conv.stride == (2, 2)  # type: ignore[union-attr]


def test_own_trunk_with_merged_norms_has_biases_and_no_norm() -> None:
    trunk = own_trunk(merged=True)
    assert not [m for m in trunk.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert all(m.bias is not None for m in trunk.modules() if isinstance(m, torch.nn.Conv2d))


def test_own_trunk_of_width_64_takes_the_weights_of_timms_resnet50(tmp_path: Path) -> None:
    """The same layers: with the stride in the 3x3, the finer map is what timm's makes of the halved image."""
    torch.manual_seed(0)
    source = create_backbone(BackboneConfig(name="resnet50", stem="deep64", output_stride=8, dilation="full")).eval()
    torch.save(source.net.state_dict(), tmp_path / "resnet50s.pth")
    trunk = own_trunk(replace(OWN, weights=str(tmp_path / "resnet50s.pth")), width=64, on_1x1=False)
    half = torch.randn(1, 3, 33, 33)
    image = torch.nn.functional.interpolate(half, size=(65, 65), mode="bilinear", align_corners=True)
    with torch.no_grad():
        first = source.net["layer2"][0](source(half)[0])  # type: ignore[index, operator]
        torch.testing.assert_close(trunk(image)[0], first, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("config", "width", "merged", "message"),
    [
        (replace(OWN, output_stride=8), 1, False, "icnet_resnet50 sets its strides"),
        (replace(OWN, stem="deep64"), 1, False, "leave away all but name, weights and in_channels"),
        (replace(OWN, weights="timm"), 32, False, "of width 64 with batch norms, the trunk has width 32;"),
        (replace(OWN, weights="x.pth"), 64, True, "the trunk has width 64 and none;"),
    ],
)
def test_own_trunk_refuses_what_it_cannot_be(config: BackboneConfig, width: int, merged: bool, message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        own_trunk(config, width=width, merged=merged)


def test_own_trunk_of_other_weights_is_refused(tmp_path: Path) -> None:
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7)}, tmp_path / "other.pth")
    with torch.device("meta"), pytest.raises(CheckpointError, match="do not fit backbone 'resnet50'"):
        own_trunk(replace(OWN, weights=str(tmp_path / "other.pth")), width=64)


def test_own_trunk_of_other_channels_has_their_preprocessing() -> None:
    assert own_trunk(replace(OWN, in_channels=5)).preprocessing.num_channels == 5


def test_two_scale_trunk_is_the_trunk_on_the_half_and_on_a_quarter() -> None:
    config = BackboneConfig(name="resnet10t", output_stride=8)
    trunk = two_scale(config)
    image = torch.randn(1, 3, 96, 128)
    finer, coarser = trunk(image)
    half, quarter = (
        torch.nn.functional.interpolate(image, size=(96 // n, 128 // n), mode="bilinear", align_corners=True)
        for n in (2, 4)
    )
    assert torch.equal(finer, trunk.trunk(half)[-3])
    assert torch.equal(coarser, trunk.trunk(quarter)[-1])
    assert (trunk.strides, finer.shape[-2:], coarser.shape[-2:]) == ((16, 32), (6, 8), (3, 4))


def test_two_scale_trunk_computes_no_more_of_the_half_than_is_read() -> None:
    trunk = two_scale(BackboneConfig(name="resnet10t", output_stride=8))
    calls: list[str] = []
    for name in ("layer2", "layer3", "layer4"):
        trunk.trunk.net[name].register_forward_hook(lambda *_, name=name: calls.append(name))  # type: ignore[index]
    trunk(torch.randn(1, 3, 64, 64))
    assert sorted(calls) == ["layer2", "layer2", "layer3", "layer4"]


def test_two_scale_trunk_of_another_wrapper_runs_whole() -> None:
    """timm hands out vision transformers and some others by hooks or getters, which cannot stop early."""
    trunk = two_scale(BackboneConfig(name="mobilenetv3_small_050", num_stages=4))
    trunk.trunk.net = torch.nn.Sequential(trunk.trunk.net)
    finer, coarser = trunk(torch.randn(1, 3, 128, 128))
    assert (finer.shape[1], coarser.shape[1]) == trunk.channels


def test_two_scale_trunk_of_too_few_maps_is_refused() -> None:
    with pytest.raises(InvalidValue, match="third coarsest map of 'resnet10t', which has 2 here; set num_stages"):
        two_scale(BackboneConfig(name="resnet10t", num_stages=2))
