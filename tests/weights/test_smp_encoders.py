"""Which encoder of segmentation_models.pytorch stands in a checkpoint, and where each of its tensors goes."""

from __future__ import annotations

import pytest
import timm
import torch
import torchseg_layout as ts
import torchvision
from torch import Tensor

from perpixel.backbones import create_backbone
from perpixel.errors import CheckpointError, InvalidValue
from perpixel.weights.importers import IMPORTERS, smp_encoders
from perpixel.weights.importers.importer import renamed, resolve_options
from perpixel.weights.importers.resnet_trunk import read_resnet
from perpixel.weights.importers.smp_encoders import read_smp_encoder


def encoder_of(network: torch.nn.Module, prefix: str = "encoder.") -> dict[str, Tensor]:
    """An encoder as smp stores it: the classification network without its classifier."""
    behind = ("fc.", "classifier.", "last_linear.")
    return {f"{prefix}{key}": value for key, value in network.state_dict().items() if not key.startswith(behind)}


def torchvision_encoder(name: str) -> dict[str, Tensor]:
    with torch.device("meta"):
        return encoder_of(torchvision.models.get_model(name, weights=None))


def timm_encoder(name: str, in_channels: int = 3) -> dict[str, Tensor]:
    with torch.device("meta"):
        return encoder_of(timm.create_model(name, in_chans=in_channels))


def places(tensors: dict[str, Tensor], expected: str, dilation: str = "full") -> set[str]:
    """Checks that the encoder is that timm model and fills its trunk; returns the names that have no place in it."""
    config, rules = read_smp_encoder(tensors)
    assert (config.name, config.dilation, config.output_stride) == (expected, dilation, 32)
    with torch.device("meta"):
        ours = {f"backbone.{key}": value.shape for key, value in create_backbone(config).state_dict().items()}
    theirs = {renamed(key, rules): value.shape for key, value in tensors.items()}
    assert {key: theirs.get(key) for key in ours} == ours
    return theirs.keys() - ours.keys()


@pytest.mark.parametrize("name", ["resnet18", "resnext50_32x4d", "wide_resnet50_2"])
def test_residual_encoders_are_told_apart(name: str) -> None:
    assert places(torchvision_encoder(name), name) == set()


def test_mobilenet_v2_has_a_place_for_all_but_its_last_convolution() -> None:
    left = places(torchvision_encoder("mobilenet_v2"), "mobilenetv2_100")
    assert len(left) == 6
    assert all(name.startswith("backbone.net.features.18.") for name in left)


def test_thinner_mobilenet_v2_is_refused() -> None:
    with torch.device("meta"):
        thin = encoder_of(torchvision.models.mobilenet_v2(width_mult=0.5))
    with pytest.raises(CheckpointError, match="gives 8 channels, MobileNet-v2 of width 1 gives 16 there"):
        read_smp_encoder(thin)


@pytest.mark.parametrize("name", ["vgg11", "vgg16_bn"])
def test_vgg_encoders_are_told_apart(name: str) -> None:
    assert places(torchvision_encoder(name), name, dilation="half") == set()


def test_vgg_of_another_depth_is_refused() -> None:
    tensors = {key: value for key, value in torchvision_encoder("vgg11").items() if ".features.0." not in key}
    tensors["encoder.features.0.weight"] = torch.empty(3)
    with pytest.raises(CheckpointError, match="holds 7 convolutions; VGGs have 8"):
        read_smp_encoder(tensors)


def test_encoders_with_timms_own_names_are_told_apart() -> None:
    left = places(timm_encoder("efficientnet_b0", in_channels=1), "efficientnet_b0")
    assert {name.split(".")[2] for name in left} == {"conv_head", "bn2"}
    assert places(timm_encoder("legacy_seresnet50"), "legacy_seresnet50") == set()


def test_encoder_taken_whole_from_timm_follows_timms_dilation_and_may_be_cut() -> None:
    shapes = {k: s for k, s in ts.trunk_shapes("resnet34", stem_width=None).items() if not k.startswith("layer4.")}
    tensors = {f"encoder.model.{key}": torch.empty(shape, device="meta") for key, shape in shapes.items()}
    config, _ = read_smp_encoder(tensors)
    assert (config.name, config.cut_stages, config.num_stages) == ("resnet34", 1, 3)
    assert places(tensors, "resnet34", dilation="half") == set()
    with pytest.raises(CheckpointError, match=r"hold \(3, 4, 6, 0\) basic blocks, which is none of"):
        read_resnet(tensors, "encoder.model.")


def test_named_encoder_is_taken_at_its_word() -> None:
    config, _ = read_smp_encoder({"encoder.model.stem.conv.weight": torch.empty(8, 5, 3, 3)}, name="regnetx_002")
    assert (config.name, config.in_channels) == ("regnetx_002", 5)
    with pytest.raises(CheckpointError, match=r"no convolution under 'encoder\.'"):
        read_smp_encoder({"decoder.weight": torch.empty(8, 5, 3, 3)}, name="regnetx_002")


def test_name_of_an_encoder_must_be_timms() -> None:
    importer = IMPORTERS["smp/pspnet"]
    assert resolve_options(importer, {"encoder": "tu-regnetx_002"})["encoder"] == "regnetx_002"
    for value in ("tu-nothing", 3):
        with pytest.raises(InvalidValue, match="encoder is 'auto' or the name of a timm model"):
            resolve_options(importer, {"encoder": value})


def test_unknown_encoder_is_an_error_that_shows_what_it_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smp_encoders, "_OF_TIMM", {"conv_stem.weight": ["efficientnet_b0"]})
    for tensors in (
        {"encoder.patch_embed1.norm.weight": torch.empty(2)},
        {"encoder.conv_stem.weight": torch.empty(2, 3, 3, 3)},
    ):
        with pytest.raises(CheckpointError, match=r"is no ResNet.*it holds encoder\.\w+.*give encoder=NAME"):
            read_smp_encoder(tensors)


def test_unknown_groups_of_a_bottleneck_are_an_error() -> None:
    tensors = torchvision_encoder("resnet50")
    tensors["encoder.layer1.0.conv2.weight"] = torch.empty(64, 2, 3, 3)
    with pytest.raises(CheckpointError, match="32 groups of 2 channels: with the blocks of resnet50 that is none of"):
        read_smp_encoder(tensors)
