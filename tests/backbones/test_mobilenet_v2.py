from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch

from perpixel.backbones import BackboneConfig, create_trunk
from perpixel.backbones import mobilenet_v2 as module
from perpixel.backbones.mobilenet_v2 import MobileNetV2, MobileNetV2Layout, create_mobilenet_v2
from perpixel.errors import CheckpointError, InvalidValue

NAME = "drsleep_mobilenet_v2"
THIN = MobileNetV2Layout(stem=4, stages=((1, 4, 1, 1), (2, 6, 2, 2), (2, 8, 1, 2), (3, 8, 2, 1)))


def thin(num_stages: int = 3, weights: str = "none", in_channels: int = 3) -> MobileNetV2:
    config = BackboneConfig(name=NAME, num_stages=num_stages, weights=weights, in_channels=in_channels)
    return create_mobilenet_v2(config, THIN)


def test_published_layout_gives_six_maps_at_four_strides() -> None:
    with torch.device("meta"):
        trunk = create_trunk(BackboneConfig(name=NAME))
    assert trunk.strides == (4, 8, 16, 16, 32, 32)
    assert trunk.channels == (24, 32, 64, 96, 160, 320)


def test_maps_are_those_of_the_coarsest_strides_rounded_up() -> None:
    images = torch.randn(1, 3, 33, 50)
    all_maps = thin(3).eval()
    assert all_maps.strides == (2, 4, 8, 8)
    assert [tuple(x.shape[1:]) for x in all_maps(images)] == [(4, 17, 25), (6, 9, 13), (8, 5, 7), (8, 5, 7)]
    coarsest = thin(1)
    assert coarsest.strides == (8, 8)
    assert len(coarsest.eval()(images)) == 2


def test_timm_weights_give_timms_function(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    theirs = timm.create_model("mobilenetv2_100").double().eval()
    for layer in theirs.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.normal_(std=0.1)  # type: ignore[union-attr, operator]
            layer.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr, operator]
    monkeypatch.setattr(module, "_pretrained", lambda: dict(theirs.state_dict()))
    trunk = create_mobilenet_v2(BackboneConfig(name=NAME, weights="timm")).double().eval()
    # float32 held the weights on the way: they are taken over again to compare in float64.
    trunk.load_state_dict({**trunk.state_dict(), **dict(module._from_timm(theirs.state_dict()))}, strict=False)
    trunk.load_state_dict(module._identity(trunk.state_dict()), strict=False)
    images = torch.randn(1, 3, 64, 96, dtype=torch.float64)
    with torch.no_grad():
        maps = trunk(images)
        wanted = theirs.forward_intermediates(images, indices=[1, 2, 3, 4], intermediates_only=True)
        for ours, index in ((maps[0], 0), (maps[1], 1), (maps[3], 2), (maps[5], 3)):
            torch.testing.assert_close(ours, wanted[index], rtol=0, atol=1e-9)
    assert any("starts as the identity" in note for note in trunk.notes)
    assert any("were left aside (conv_head.weight" in note for note in trunk.notes)


def test_file_of_the_whole_network_fills_the_trunk_and_says_what_it_left(tmp_path: Path) -> None:
    source = thin()
    torch.save({**source.state_dict(), "segm.bias": torch.zeros(2)}, tmp_path / "light.pth")
    trunk = thin(weights=str(tmp_path / "light.pth"))
    assert all(torch.equal(value, source.state_dict()[key]) for key, value in trunk.state_dict().items())
    assert any("1 tensors that are not of the trunk were left aside (segm.bias" in note for note in trunk.notes)


def test_file_for_rgb_is_adapted_to_other_channels(tmp_path: Path) -> None:
    torch.save(thin().state_dict(), tmp_path / "light.pth")
    trunk = thin(weights=str(tmp_path / "light.pth"), in_channels=1)
    assert any("adapted from 3 to 1 input channels" in note for note in trunk.notes)
    assert trunk.preprocessing.num_channels == 1


def test_file_of_another_width_is_refused(tmp_path: Path) -> None:
    state = thin().state_dict()
    state["layer2.0.output.2.0.weight"] = torch.zeros(5, 4, 1, 1)
    del state["layer1.0.weight"]
    torch.save(state, tmp_path / "light.pth")
    with pytest.raises(CheckpointError, match="2 tensors do not fit backbone 'drsleep_mobilenet_v2'") as caught:
        thin(weights=str(tmp_path / "light.pth"))
    assert "missing: layer1.0.weight (4, 3, 3, 3)" in str(caught.value)


def test_offline_pretrained_weights_are_an_error_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_args: object, **_kwargs: object) -> None:
        raise OSError("no route")

    monkeypatch.setattr(module.timm, "create_model", unreachable)
    with pytest.raises(CheckpointError, match=r"cannot get the pretrained weights of 'mobilenetv2_100' \(no route\)"):
        thin(weights="timm")


def test_other_names_strides_and_too_many_stages_are_refused() -> None:
    with pytest.raises(InvalidValue, match="is called 'drsleep_mobilenet_v2', got backbone 'resnet18'"):
        create_mobilenet_v2(BackboneConfig(name="resnet18"))
    with pytest.raises(InvalidValue, match="leave output_stride, dilation, stem, multi_grid and cut_stages away"):
        create_mobilenet_v2(BackboneConfig(name=NAME, output_stride=16))
    with pytest.raises(InvalidValue, match="has maps at 3 strides, num_stages=4 asked"):
        thin(4)


@pytest.mark.parametrize("stages", [((1, 4, 1, 1),), ((1, 4, 1), (1, 4, 1)), ((1, 4, 1, 1), (1, 4, 0, 1))])
def test_tables_that_are_none_are_refused(stages: tuple[tuple[int, int, int, int], ...]) -> None:
    with pytest.raises(InvalidValue, match=r"at least two stages of \(expansion, channels, blocks, stride 1 or 2\)"):
        MobileNetV2Layout(stages=stages)
