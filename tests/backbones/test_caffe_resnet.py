from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor, nn

from perpixel.backbones import DEEPLAB_PREPROCESSING, BackboneConfig, CaffeResNet, create_caffe_resnet
from perpixel.errors import CheckpointError, InvalidValue

R50 = BackboneConfig(name="caffe_resnet50")
PARTS = {"reduce": ("conv1", "bn1"), "conv3x3": ("conv2", "bn2"), "increase": ("conv3", "bn3")}


def saved(folder: Path, trunk: CaffeResNet, **extra: Tensor) -> str:
    """The trunk's weights in the names of deeplab-pytorch."""
    state = {f"base.{key.replace('.norm.', '.bn.')}": value for key, value in trunk.state_dict().items()}
    torch.save({**state, **{f"base.{key.replace('__', '.')}": value for key, value in extra.items()}}, folder / "r.pth")
    return str(folder / "r.pth")


def torchvision_twin(trunk: CaffeResNet, output_stride: int) -> nn.Module:
    """torchvision's ResNet-50 with the strides and dilations moved to where Caffe's has them, and the same weights."""
    twin = torchvision.models.resnet50()
    twin.maxpool.ceil_mode = True
    stride, dilation = 4, 1
    for number in range(1, 5):
        layer = getattr(twin, f"layer{number}")
        step = 1 if number == 1 or stride == output_stride else 2
        dilation = dilation if number == 1 or step == 2 else 2 * dilation
        stride *= step
        for index, block in enumerate(layer):
            block.conv1.stride = (step, step) if index == 0 else (1, 1)
            block.conv2.stride = (1, 1)
            block.conv2.dilation = block.conv2.padding = (dilation, dilation)
        layer[0].downsample[0].stride = (step, step)
    state = {}
    for key, value in trunk.state_dict().items():
        layer_name, *rest = key.split(".")
        if layer_name == "layer1":
            name = key.replace("layer1.conv1.conv", "conv1").replace("layer1.conv1.norm", "bn1")
        else:
            block, part, kind, leaf = rest
            start = f"layer{int(layer_name[5:]) - 1}.{int(block[5:]) - 1}"
            number = 0 if kind == "conv" else 1
            name = (
                f"{start}.downsample.{number}.{leaf}" if part == "shortcut" else f"{start}.{PARTS[part][number]}.{leaf}"
            )
        state[name] = value
    missing, unexpected = twin.load_state_dict(state, strict=False)
    assert not unexpected and missing == ["fc.weight", "fc.bias"]
    return twin


@pytest.mark.parametrize("output_stride", [8, pytest.param(32, marks=pytest.mark.slow)])
def test_caffe_resnet_equals_torchvisions_with_its_strides_moved(output_stride: int) -> None:
    torch.manual_seed(0)
    trunk = create_caffe_resnet(R50, output_stride=output_stride)
    for module in trunk.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.1, 0.5)
    trunk = trunk.double().eval()
    twin = torchvision_twin(trunk, output_stride).double().eval()
    images = torch.randn(1, 3, 41, 34, dtype=torch.float64)
    with torch.no_grad():
        x = twin.maxpool(twin.relu(twin.bn1(twin.conv1(images))))
        for number, ours in enumerate(trunk(images), start=1):
            x = getattr(twin, f"layer{number}")(x)
            assert ours.shape == x.shape
            assert torch.allclose(ours, x, rtol=1e-10, atol=1e-10)


def test_caffe_resnet_states_strides_and_channels_of_its_maps() -> None:
    trunk = create_caffe_resnet(BackboneConfig(name="caffe_resnet101", in_channels=4, num_stages=2), width=2)
    maps = trunk.eval()(torch.zeros(1, 4, 65, 97))
    assert (trunk.strides, trunk.channels) == ((8, 8), (32, 64))
    assert [tuple(m.shape[1:]) for m in maps] == [(32, 9, 13), (64, 9, 13)]
    assert create_caffe_resnet(R50, output_stride=16, width=1).strides == (4, 8, 16, 16)
    assert trunk.preprocessing.num_channels == 4


def test_caffe_resnet_receptive_field_is_what_moves_a_cell() -> None:
    trunk = create_caffe_resnet(R50, width=1).double().eval()
    for module in trunk.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.ones_(module.weight)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.running_var, 50.0**2)
    cells = 80
    images = torch.zeros(1, 3, 1, 8 * cells + 1, dtype=torch.float64) + 1
    images.requires_grad_()
    trunk(images)[-1][0, 0, 0, cells // 2].backward()
    seen = images.grad.abs().sum(dim=(0, 1, 2)).nonzero()  # type: ignore[union-attr]
    assert int(seen.max() - seen.min()) + 1 <= trunk.receptive_field
    # 11 of the stem, 3 blocks at step 4, 4 at 8, 6 dilated by 2, 3 by 4
    assert trunk.receptive_field == 11 + 3 * 8 + 4 * 16 + 6 * 32 + 3 * 64


def test_caffe_resnet_takes_the_trunk_out_of_a_checkpoint(tmp_path: Path) -> None:
    source = create_caffe_resnet(R50, width=2)
    file = saved(tmp_path, source, fc__weight=torch.zeros(21, 64, 1, 1), aspp__c0__bias=torch.zeros(21))
    trunk = create_caffe_resnet(BackboneConfig(name="caffe_resnet50", weights=file), width=2)
    assert all(torch.equal(value, trunk.state_dict()[key]) for key, value in source.state_dict().items())
    assert trunk.preprocessing == DEEPLAB_PREPROCESSING
    assert trunk.notes == ()


def test_caffe_resnet_other_image_channels_adapt_the_stem_and_say_so(tmp_path: Path) -> None:
    source = create_caffe_resnet(R50, width=2)
    config = BackboneConfig(name="caffe_resnet50", weights=saved(tmp_path, source), in_channels=1)
    trunk = create_caffe_resnet(config, width=2)
    ours, theirs = trunk.state_dict(), source.state_dict()
    stem = "layer1.conv1.conv.weight"
    assert torch.allclose(ours[stem], theirs[stem].sum(dim=1, keepdim=True))
    assert trunk.notes == (f"{stem} was adapted from 3 to 1 input channels",)
    assert trunk.preprocessing.num_channels == 1


def test_caffe_resnet_file_that_does_not_fit_names_what_is_wrong(tmp_path: Path) -> None:
    deeper = create_caffe_resnet(BackboneConfig(name="caffe_resnet101"), width=2)
    file = saved(tmp_path, deeper)
    message = r"(?s)do not fit backbone 'caffe_resnet50'.*left over: layer4.block7.reduce.*kazuto1011/deeplab-pytorch"
    with pytest.raises(CheckpointError, match=message):
        create_caffe_resnet(BackboneConfig(name="caffe_resnet50", weights=file), width=2)
    file = saved(tmp_path, create_caffe_resnet(R50, width=2))
    with pytest.raises(CheckpointError, match=r"layer1.conv1.conv.weight is \(2, 3, 7, 7\), the trunk wants \(4, 3"):
        create_caffe_resnet(BackboneConfig(name="caffe_resnet50", weights=file), width=4)
    with pytest.raises(CheckpointError, match=r"missing: layer4.block7.reduce.conv.weight"):
        create_caffe_resnet(BackboneConfig(name="caffe_resnet101", weights=file), width=2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "caffe_resnet11"}, "no Caffe-style ResNet 'caffe_resnet11'; did you mean 'caffe_resnet101'"),
        ({"output_stride": 8}, "the network itself sets the strides .* got output_stride=8"),
        ({"dilation": "full"}, "dilation 'full' and stem 'default'; leave them away"),
        ({"stem": "deep64"}, "stem 'deep64'; leave them away"),
        ({"num_stages": 5}, "caffe_resnet50 has 4 feature maps, num_stages=5 asked"),
        ({"weights": "timm"}, "timm has no weights of caffe_resnet50.*weights=FILE"),
    ],
)
def test_caffe_resnet_what_it_cannot_be_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        create_caffe_resnet(BackboneConfig(**{"name": "caffe_resnet50", **changes}))  # type: ignore[arg-type]


def test_caffe_resnet_unknown_output_stride_or_width_is_refused() -> None:
    with pytest.raises(InvalidValue, match="output_stride is 8, 16 or 32 and width >= 1, got 4 and 64"):
        create_caffe_resnet(R50, output_stride=4)
    with pytest.raises(InvalidValue, match="got 8 and 0"):
        create_caffe_resnet(R50, width=0)
