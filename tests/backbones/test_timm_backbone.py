from pathlib import Path

import pytest
import timm
import torch
from huggingface_hub import constants as hub
from safetensors.torch import save_file
from torch import nn

from perpixel.backbones import BackboneConfig, create_backbone
from perpixel.errors import CheckpointError, InvalidValue


@pytest.mark.parametrize(
    ("config", "strides"),
    [
        (BackboneConfig(name="resnet18"), (4, 8, 16, 32)),
        (BackboneConfig(name="resnet18", output_stride=8, dilation="half"), (4, 8, 8, 8)),
        (BackboneConfig(name="resnet18", output_stride=16, dilation="full", num_stages=5), (2, 4, 8, 16, 16)),
        (BackboneConfig(name="mobilenetv2_035", output_stride=16, dilation="full"), (4, 8, 16, 16)),
        (BackboneConfig(name="convnext_atto"), (4, 8, 16, 32)),
        (BackboneConfig(name="resnet10t", in_channels=5), (4, 8, 16, 32)),
    ],
    ids=lambda v: getattr(v, "name", str(v)),
)
def test_backbone_states_strides_and_channels_of_its_maps(config: BackboneConfig, strides: tuple[int, ...]) -> None:
    backbone = create_backbone(config).eval()
    maps = backbone(torch.randn(1, config.in_channels, 64, 96))
    assert backbone.strides == strides
    assert tuple(m.shape[1] for m in maps) == backbone.channels
    for feature, stride in zip(maps, strides, strict=True):
        assert feature.shape[-2:] == (64 // stride, 96 // stride)
    assert backbone.preprocessing.num_channels == config.in_channels


def dilations(dilation: str) -> dict[str, int]:
    backbone = create_backbone(BackboneConfig(name="resnet50", output_stride=8, dilation=dilation))  # type: ignore[arg-type]
    return {n: m.dilation[0] for n, m in backbone.named_modules() if isinstance(m, nn.Conv2d) and n.endswith("conv2")}


def test_dilation_conventions_differ_in_the_first_block_of_a_dilated_stage() -> None:
    half, full = dilations("half"), dilations("full")
    assert (half["net.layer3.0.conv2"], half["net.layer3.1.conv2"]) == (1, 2)
    assert (half["net.layer4.0.conv2"], half["net.layer4.1.conv2"]) == (2, 4)
    assert (full["net.layer3.0.conv2"], full["net.layer4.0.conv2"]) == (2, 4)
    assert full["net.layer2.0.conv2"] == 1


def test_multi_grid_multiplies_the_dilation_of_the_last_stage() -> None:
    config = BackboneConfig(name="resnet50", output_stride=16, multi_grid=(1, 2, 4))
    blocks = list(create_backbone(config).net.layer4.children())
    assert [block.conv2.dilation for block in blocks] == [(2, 2), (4, 4), (8, 8)]
    assert [block.conv2.padding for block in blocks] == [(2, 2), (4, 4), (8, 8)]
    assert config.to_dict()["multi_grid"] == [1, 2, 4]


def test_multi_grid_of_another_length_than_the_stage_is_refused() -> None:
    with pytest.raises(InvalidValue, match="2 factors, the last stage of 'resnet50' 3 blocks"):
        create_backbone(BackboneConfig(name="resnet50", multi_grid=(1, 2)))


def test_cut_stages_leaves_the_coarsest_stages_away() -> None:
    whole, cut = (create_backbone(BackboneConfig(name="resnet18", num_stages=2, cut_stages=n)) for n in (0, 2))
    assert (whole.strides, cut.strides, cut.channels) == ((16, 32), (4, 8), (64, 128))
    assert not any(key.startswith(("net.layer3", "net.layer4")) for key in cut.state_dict())
    mobile = create_backbone(BackboneConfig(name="mobilenetv2_035", num_stages=1, cut_stages=2))
    assert (mobile.strides, len(mobile.net.blocks)) == ((8,), 3)  # type: ignore[arg-type]
    assert mobile(torch.zeros(1, 3, 32, 32))[0].shape[1:] == (mobile.channels[0], 4, 4)
    with pytest.raises(InvalidValue, match="5 feature maps less cut_stages=2, num_stages=4 asked"):
        create_backbone(BackboneConfig(name="resnet18", cut_stages=2))
    with pytest.raises(InvalidValue, match="cut_stages must be >= 0, got -1"):
        BackboneConfig(cut_stages=-1)


def test_stem_deep64_is_timms_resnet_s() -> None:
    ours = create_backbone(BackboneConfig(name="resnet50", stem="deep64")).net.state_dict()
    theirs = timm.create_model("resnet50s", features_only=True).state_dict()
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}


def test_weights_from_a_classifier_file_fill_the_backbone(tmp_path: Path) -> None:
    classifier = timm.create_model("resnet18", num_classes=7)
    save_file(classifier.state_dict(), tmp_path / "r18.safetensors")
    backbone = create_backbone(BackboneConfig(name="resnet18", weights=str(tmp_path / "r18.safetensors")))
    assert torch.equal(backbone.net.layer4[1].conv2.weight, classifier.layer4[1].conv2.weight)  # type: ignore[union-attr,index]


def test_weights_adapted_to_other_channels_are_said(tmp_path: Path) -> None:
    torch.save({"state_dict": timm.create_model("resnet18").state_dict()}, tmp_path / "r18.pth")
    backbone = create_backbone(BackboneConfig(name="resnet18", in_channels=4, weights=str(tmp_path / "r18.pth")))
    assert backbone.net.conv1.weight.shape[1] == 4  # type: ignore[union-attr]
    assert backbone.notes == ("conv1.weight was adapted from 3 to 4 input channels",)


def test_weights_of_another_network_are_refused_with_names(tmp_path: Path) -> None:
    torch.save(timm.create_model("resnet10t").state_dict(), tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"(?s)do not fit backbone 'resnet18'.*(missing|shape|left over): "):
        create_backbone(BackboneConfig(name="resnet18", weights=str(tmp_path / "other.pth")))


def test_weights_offline_says_the_way_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(CheckpointError, match=r"model.backbone.weights=FILE"):
        create_backbone(BackboneConfig(name="resnet18", weights="timm"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "resnet19"}, "unknown backbone 'resnet19'; did you mean 'resnet18'"),
        ({"name": "vgg11", "output_stride": 8}, "cannot take output_stride=8"),
        ({"name": "vgg11", "stem": "deep64"}, "stem 'deep64' is for ResNets"),
        ({"stem": "deeep64"}, "unknown stem 'deeep64'; did you mean 'deep64'"),
        ({"output_stride": 4}, "output_stride is 8, 16 or 32, got 4"),
        ({"dilation": "most"}, "dilation is 'half' or 'full'"),
        ({"num_stages": 9}, "has 5 feature maps, num_stages=9"),
        ({"in_channels": 0}, "in_channels and num_stages must be >= 1"),
    ],
)
def test_backbone_wrong_argument_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        create_backbone(BackboneConfig(**{"name": "resnet18", **change}))  # type: ignore[arg-type]
