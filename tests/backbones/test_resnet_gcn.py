"""ResNet-GCN: one block by hand, maps, counts and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from perpixel.backbones import BackboneConfig, create_resnet_gcn, create_trunk
from perpixel.backbones.resnet_gcn import GlobalBottleneck
from perpixel.errors import InvalidValue

NAME = "resnet50_gcn"


def block_of(in_channels: int, out_channels: int, *, stride: int = 1) -> GlobalBottleneck:
    """All weights one, batch norms that change nothing."""
    block = GlobalBottleneck(in_channels, out_channels, 3, 1, stride=stride).eval()
    for module in block.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.ones_(module.weight)
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 0.0
    return block


def test_global_bottleneck_adds_both_separable_kernels_to_what_it_kept() -> None:
    x = torch.zeros(1, 1, 4, 4)
    x[..., 1, 1] = 1
    wanted = torch.zeros(4, 4)
    wanted[:3, :3] = 2
    wanted[1, 1] += 1
    assert torch.equal(block_of(1, 1)(x)[0, 0], wanted)
    # Values below zero end at zero: behind each convolution, and behind the sum.
    assert not block_of(1, 1)(-x).any()


def test_global_bottleneck_strides_behind_its_kernels() -> None:
    x = torch.zeros(1, 1, 4, 4)
    x[..., 1, 1] = 1
    strided = block_of(1, 2, stride=2)
    assert torch.equal(strided(x)[0], torch.tensor([[[2.0, 2.0], [2.0, 2.0]]] * 2))
    assert strided.shortcut is not None


def test_resnet50_gcn_has_the_maps_of_resnet50() -> None:
    with torch.device("meta"):
        trunk = create_trunk(BackboneConfig(name=NAME, num_stages=5, in_channels=4))
        maps = trunk(torch.empty(1, 4, 65, 97))
    assert trunk.config.name == NAME
    assert trunk.strides == (2, 4, 8, 16, 32)
    assert trunk.channels == tuple(m.shape[1] for m in maps) == (64, 256, 512, 1024, 2048)
    assert [tuple(m.shape[-2:]) for m in maps] == [(33, 49), (17, 25), (9, 13), (5, 7), (3, 4)]


def test_resnet50_gcn_has_kernels_of_5_and_7_and_about_the_weights_of_resnet50() -> None:
    with torch.device("meta"):
        gcn = create_resnet_gcn(BackboneConfig(name=NAME))
        plain = create_trunk(BackboneConfig(name="resnet50"))
    blocks = [m for m in gcn.modules() if isinstance(m, GlobalBottleneck)]
    sizes = [(b.vertical_first[0][0].kernel_size, b.vertical_first[0][0].out_channels) for b in blocks]  # type: ignore[index,union-attr]
    assert sizes == [((5, 1), 85)] * 6 + [((7, 1), 128)] * 3
    ours, theirs = (sum(p.numel() for p in trunk.parameters()) for trunk in (gcn, plain))
    assert 0.8 < ours / theirs < 1.2


def test_resnet50_gcn_takes_the_weights_of_resnet50_where_it_can(tmp_path: Path) -> None:
    with torch.device("meta"):
        shapes = {key: value.shape for key, value in timm.create_model("resnet50").state_dict().items()}
    path = tmp_path / "resnet50.pth"
    torch.save({key: torch.tensor(7.0).expand(shape) for key, shape in shapes.items()}, path)
    trunk = create_resnet_gcn(BackboneConfig(name=NAME, weights=str(path)))
    filled = {key.removeprefix("net.") for key, value in trunk.state_dict().items() if bool((value == 7).all())}
    assert filled == {key for key in shapes if key.startswith(("conv1", "bn1", "layer1", "layer2"))}
    assert trunk.notes == ("the weights fill the stem, layer1 and layer2; layer3, layer4 begin at random",)


def test_resnet_gcn_unknown_name_offers_the_known_one() -> None:
    with pytest.raises(InvalidValue, match="no ResNet-GCN 'resnet51_gcn'; did you mean 'resnet50_gcn'"):
        create_resnet_gcn(BackboneConfig(name="resnet51_gcn"))


@pytest.mark.parametrize("changes", [{"output_stride": 8}, {"multi_grid": (1, 2, 4)}])
def test_resnet_gcn_with_dilation_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(InvalidValue, match="resnet50_gcn has output stride 32 and no dilation, got output_stride"):
        create_resnet_gcn(replace(BackboneConfig(name=NAME), **changes))  # type: ignore[arg-type]


def test_global_bottleneck_with_an_even_kernel_is_refused() -> None:
    with pytest.raises(InvalidValue, match="kernel is odd, to keep sizes, got 4"):
        GlobalBottleneck(2, 2, 4, 1)
