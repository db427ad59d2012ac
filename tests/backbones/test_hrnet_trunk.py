from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perpixel.backbones import HRNETS, BackboneConfig, HRNetLayout, create_hrnet
from perpixel.backbones import hrnet as module
from perpixel.backbones.hrnet import HighResolutionModule
from perpixel.errors import CheckpointError, InvalidValue

THIN = HRNetLayout(width=2, stem_width=4, bottleneck_width=2, num_bottlenecks=1, num_modules=(1, 1, 1), num_blocks=1)
W18 = BackboneConfig(name="hrnet_w18")


def saved(folder: Path, state: dict[str, Tensor]) -> str:
    torch.save(state, folder / "hrnet.pth")
    return str(folder / "hrnet.pth")


def test_hrnet_loads_a_classifier_of_timm_and_repeating_cells_is_its_function(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    whole = timm.create_model("hrnet_w18_small", num_classes=3)
    for layer in whole.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.running_mean, -0.1, 0.1)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
    file = saved(tmp_path, whole.state_dict())
    trunk = create_hrnet(BackboneConfig(name="hrnet_w18_small", weights=file)).double().eval()
    twin = timm.create_model("hrnet_w18_small", features_only=True, feature_location="", out_indices=(1, 2, 3, 4))
    twin.load_state_dict(whole.state_dict(), strict=False)
    twin.double().eval()
    assert all(torch.equal(value, whole.state_dict()[key].double()) for key, value in trunk.state_dict().items())
    images = torch.randn(1, 3, 32, 64, dtype=torch.float64)
    with torch.no_grad():
        bilinear = trunk(images)
        monkeypatch.setattr(module, "resize", lambda x, size, align_corners: F.interpolate(x, tuple(size)))
        for ours, theirs, other in zip(trunk(images), twin(images), bilinear, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
            assert ours.shape == other.shape
    assert not torch.allclose(trunk(images)[0], bilinear[0])


@pytest.mark.parametrize("size", [(65, 97), (33, 40), (1, 1)])
def test_hrnet_gives_four_maps_of_any_image(size: tuple[int, int]) -> None:
    trunk = create_hrnet(W18, layout=THIN).eval()
    maps = trunk(torch.zeros(2, 3, *size))
    assert (trunk.strides, trunk.channels) == ((4, 8, 16, 32), (2, 4, 8, 16))
    wanted = [(2, c, -(-size[0] // s), -(-size[1] // s)) for c, s in zip(trunk.channels, trunk.strides, strict=True)]
    assert [tuple(m.shape) for m in maps] == wanted


@pytest.mark.parametrize(("aligned", "third"), [(True, 8.0), (False, 9.0)])
def test_module_exchange_by_hand(aligned: bool, third: float) -> None:
    exchange = HighResolutionModule((1, 1), 1, align_corners=aligned).eval()
    exchange.branches = nn.ModuleList((nn.Identity(), nn.Identity()))
    for layer in exchange.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eps = 0.0  # so that the norm changes nothing
        elif isinstance(layer, nn.Conv2d):
            nn.init.ones_(layer.weight)
    fine = torch.tensor([[[[1.0, -20.0, 0.0, 1.0]]]])
    coarse = torch.tensor([[[[0.0, 12.0]]]])
    with torch.no_grad():
        finer, coarser = exchange((fine, coarse))
    # 0 and 12 enlarged to four cells are 0, 4, 8, 12 with aligned corners, else 0, 3, 9, 12; the ReLU cuts the second
    assert torch.allclose(finer, torch.tensor([[[[1.0, 0.0, third, 13.0]]]]))
    # sums of three around cells 0 and 2, the first with a zero beyond the edge: 1 - 20, then -20 + 0 + 1
    assert torch.allclose(coarser, torch.tensor([[[[0.0, 0.0]]]]))
    with torch.no_grad():
        assert torch.allclose(exchange((-fine, coarse))[1], torch.tensor([[[[19.0, 31.0]]]]))


def test_hrnet_takes_the_trunk_out_of_a_segmentation_checkpoint(tmp_path: Path) -> None:
    source = create_hrnet(W18, layout=THIN)
    heads = {"last_layer.0.bias": torch.zeros(3), "aux_head.3.bias": torch.zeros(3), "cls_head.bias": torch.zeros(3)}
    state = {f"model.{key}": value for key, value in {**source.state_dict(), **heads}.items()}
    file = saved(tmp_path, {**state, "loss.criterion.weight": torch.ones(3)})
    trunk = create_hrnet(BackboneConfig(name="hrnet_w18", weights=file), layout=THIN)
    assert all(torch.equal(value, trunk.state_dict()[key]) for key, value in source.state_dict().items())
    assert trunk.notes == ()


def test_hrnet_other_image_channels_adapt_the_stem_and_say_so(tmp_path: Path) -> None:
    source = create_hrnet(W18, layout=THIN)
    file = saved(tmp_path, source.state_dict())
    trunk = create_hrnet(BackboneConfig(name="hrnet_w18", weights=file, in_channels=1), layout=THIN)
    assert torch.allclose(trunk.conv1.weight, source.conv1.weight.sum(dim=1, keepdim=True))
    assert trunk.notes == ("conv1.weight was adapted from 3 to 1 input channels",)
    assert trunk.preprocessing.num_channels == 1


def test_hrnet_file_that_does_not_fit_names_what_is_wrong(tmp_path: Path) -> None:
    state = create_hrnet(W18, layout=THIN).state_dict()
    config = BackboneConfig(name="hrnet_w18", weights=saved(tmp_path, {**state, "stage5.weight": torch.zeros(1)}))
    message = r"(?s)1 tensors do not fit backbone 'hrnet_w18'.*left over: stage5.weight \(1,\).*its authors or of timm"
    with pytest.raises(CheckpointError, match=message):
        create_hrnet(config, layout=THIN)
    saved(tmp_path, {key: value for key, value in state.items() if key != "bn2.bias"})
    with pytest.raises(CheckpointError, match=r"missing: bn2.bias \(4,\)"):
        create_hrnet(config, layout=THIN)
    saved(tmp_path, {**state, "bn2.bias": torch.zeros(5)})
    with pytest.raises(CheckpointError, match=r"shape: bn2.bias is \(5,\), the trunk wants \(4,\)"):
        create_hrnet(config, layout=THIN)


def test_hrnet_of_timm_is_fetched_by_its_name_or_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    source = create_hrnet(BackboneConfig(name="hrnet_w18_small"))
    asked: list[tuple[str, bool]] = []

    def fetched(name: str, *, pretrained: bool) -> nn.Module:
        asked.append((name, pretrained))
        return source

    monkeypatch.setattr(module.timm, "create_model", fetched)
    config = BackboneConfig(name="hrnet_w18_small", weights="timm")
    assert torch.equal(create_hrnet(config).conv2.weight, source.conv2.weight)
    assert asked == [("hrnet_w18_small", True)]

    def unreachable(name: str, *, pretrained: bool) -> nn.Module:
        raise OSError("no route")

    monkeypatch.setattr(module.timm, "create_model", unreachable)
    with pytest.raises(CheckpointError, match=r"'hrnet_w18_small' \(no route\).*weights=FILE"):
        create_hrnet(config)


def test_hrnet_names_are_timms() -> None:
    assert all(timm.is_model(name) for name in HRNETS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "hrnet_w488"}, "no HRNet 'hrnet_w488'; did you mean 'hrnet_w48'"),
        ({"output_stride": 8}, "maps at strides 4, 8, 16, 32, got output_stride=8; leave that away"),
        ({"num_stages": 2, "stem": "7x7"}, "got stem='7x7', num_stages=2; leave that away"),
    ],
)
def test_hrnet_what_it_cannot_be_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        create_hrnet(BackboneConfig(**{"name": "hrnet_w18", **changes}))  # type: ignore[arg-type]


def test_layout_out_of_range_is_refused() -> None:
    with pytest.raises(InvalidValue, match=r"num_modules has three counts >= 1, .* got \(1, 4\)"):
        HRNetLayout(num_modules=(1, 4))
    with pytest.raises(InvalidValue, match=r"HRNet num_blocks must be >= 1, got 0"):
        HRNetLayout(num_blocks=0)
