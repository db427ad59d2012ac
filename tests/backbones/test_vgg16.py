from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torchvision.models.vgg import make_layers

from perpixel.backbones import (
    CAFFE_PREPROCESSING,
    VGG16,
    BackboneConfig,
    FullyConnected,
    Pool,
    VGG16Layout,
    create_vgg16,
)
from perpixel.errors import CheckpointError, InvalidValue

WIDTH = 4
TORCHVISION = [4, 4, "M", 8, 8, "M", 16, 16, 16, "M", 32, 32, 32, "M", 32, 32, 32, "M"]
VGG = BackboneConfig(name="vgg16")


def torchvision_tensors(*, batch_norm: bool = False) -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    layers = make_layers(TORCHVISION, batch_norm=batch_norm).eval()
    for module in layers.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean)
    return layers, {f"features.{key}": value for key, value in layers.state_dict().items()}


def saved(folder: Path, tensors: dict[str, torch.Tensor]) -> BackboneConfig:
    torch.save(tensors, folder / "vgg16.pth")
    return BackboneConfig(name="vgg16", weights=str(folder / "vgg16.pth"))


@pytest.mark.parametrize("batch_norm", [False, True])
def test_vgg16_with_torchvision_weights_equals_torchvision(tmp_path: Path, batch_norm: bool) -> None:
    layers, tensors = torchvision_tensors(batch_norm=batch_norm)
    layout = VGG16Layout(width=WIDTH, batch_norm=batch_norm, pools=(Pool(ceil=False),) * 5)
    trunk = create_vgg16(saved(tmp_path, tensors), layout).eval()
    image = torch.randn(2, 3, 67, 45)
    assert torch.allclose(trunk(image)[-1], layers(image), atol=1e-6)
    assert [m.shape[1] for m in trunk(image)] == [4, 8, 16, 32, 32]


def test_vgg16_default_layout_states_strides_and_channels_and_rounds_up() -> None:
    trunk = VGG16(VGG, VGG16Layout(width=WIDTH))
    assert trunk.strides == (2, 4, 8, 16, 32)
    assert trunk.channels == (4, 8, 16, 32, 32)
    assert [tuple(m.shape[-2:]) for m in trunk(torch.zeros(1, 3, 33, 64))] == [
        (17, 32),
        (9, 16),
        (5, 8),
        (3, 4),
        (2, 2),
    ]


def test_vgg16_dilated_layout_keeps_the_size_of_its_last_blocks() -> None:
    pools = (Pool(), Pool(), Pool(), None, None)
    trunk = VGG16(VGG, VGG16Layout(width=2, pools=pools, dilations=(1, 1, 1, 1, 2)))
    assert trunk.strides == (2, 4, 8, 8, 8)
    assert trunk(torch.zeros(1, 3, 64, 64))[-1].shape[-2:] == (8, 8)
    with pytest.raises(InvalidValue, match="block 4 of this VGG16 has no pooling"):
        trunk.pool_with_indices(4, torch.zeros(1, 16, 8, 8))


def test_vgg16_bottom_right_pool_pads_there_alone() -> None:
    trunk = VGG16(VGG, VGG16Layout(width=1, pools=(Pool(ceil=False, bottom_right=True), None, None, None, None)))
    x = torch.arange(9.0).reshape(1, 1, 3, 3) - 20
    assert trunk.pool(1, x)[0, 0].tolist() == [[-16.0, -15.0], [-13.0, -12.0]]


@pytest.mark.parametrize(("fc6", "fc7"), [("classifier.0.", "classifier.3."), ("pre_logits.fc1.", "pre_logits.fc2.")])
def test_vgg16_fully_connected_layers_become_the_same_function_as_convolutions(
    tmp_path: Path, fc6: str, fc7: str
) -> None:
    _, tensors = torchvision_tensors()
    weight, bias = torch.randn(6, 32 * 49), torch.randn(6)
    flat = fc6.startswith("classifier")
    tensors |= {fc6 + "weight": weight if flat else weight.reshape(6, 32, 7, 7), fc6 + "bias": bias}
    tensors |= {fc7 + "weight": torch.randn(6, 6) if flat else torch.randn(6, 6, 1, 1), fc7 + "bias": torch.randn(6)}
    tensors |= {"classifier.6.weight": torch.randn(10, 6), "head.fc.weight": torch.randn(10, 6)}
    layout = VGG16Layout(width=WIDTH, fully_connected=FullyConnected(width=6))
    trunk = create_vgg16(saved(tmp_path, tensors), layout)
    x = torch.randn(2, 32, 7, 7)
    assert torch.allclose(trunk.fc6(x)[:, :, 0, 0], F.linear(x.flatten(1), weight, bias), atol=1e-4)
    assert trunk.notes == ()


def test_vgg16_narrower_fully_connected_layers_keep_evenly_spaced_positions_and_filters(tmp_path: Path) -> None:
    _, tensors = torchvision_tensors()
    weight = torch.randn(9, 32, 7, 7)
    tensors |= {"fc6.weight": weight, "fc6.bias": torch.arange(9.0)}
    tensors |= {"fc7.weight": torch.randn(9, 9, 1, 1), "fc7.bias": torch.arange(9.0)}
    layout = VGG16Layout(width=WIDTH, fully_connected=FullyConnected(kernel=3, dilation=12, padding=12, width=3))
    trunk = create_vgg16(saved(tmp_path, tensors), layout)
    assert torch.equal(trunk.fc6.weight, weight[::4, :, ::3, ::3])
    assert trunk.fc6.bias.tolist() == [0, 4, 8]
    assert torch.equal(trunk.fc7.weight, tensors["fc7.weight"][::4, ::4])
    assert any(note.startswith("fc6.weight decimated from (9, 32, 7, 7)") for note in trunk.notes)


def test_vgg16_published_names_bring_caffe_preprocessing(tmp_path: Path) -> None:
    source = VGG16(VGG, VGG16Layout(width=WIDTH))
    trunk = create_vgg16(saved(tmp_path, source.state_dict()), VGG16Layout(width=WIDTH))
    assert trunk.preprocessing == CAFFE_PREPROCESSING
    assert all(torch.equal(a, b) for a, b in zip(source.parameters(), trunk.parameters(), strict=True))


def test_vgg16_other_image_channels_adapt_the_first_layer_and_say_so(tmp_path: Path) -> None:
    _, tensors = torchvision_tensors()
    config = saved(tmp_path, tensors)
    config = BackboneConfig(**{**config.to_dict(), "in_channels": 1})
    trunk = create_vgg16(config, VGG16Layout(width=WIDTH))
    assert torch.allclose(trunk.conv1_1.weight, tensors["features.0.weight"].sum(1, keepdim=True))
    assert trunk.notes == ("conv1_1.weight was adapted from 3 to 1 channels",)
    assert trunk.preprocessing.num_channels == 1


def test_vgg16_file_that_does_not_fit_names_what_is_wrong(tmp_path: Path) -> None:
    _, tensors = torchvision_tensors()
    tensors["extra.weight"] = torch.zeros(1)
    tensors["features.2.weight"] = torch.zeros(4, 5, 3, 3)
    del tensors["features.0.bias"]
    with pytest.raises(CheckpointError, match="3 tensors do not fit vgg16") as caught:
        create_vgg16(saved(tmp_path, tensors), VGG16Layout(width=WIDTH))
    for part in ("missing: conv1_1.bias", "shape: conv1_2.weight is (4, 5, 3, 3)", "left over: extra.weight"):
        assert part in str(caught.value)


def test_vgg16_pretrained_weights_that_cannot_be_fetched_are_an_error_with_the_way_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("perpixel.backbones.vgg16_weights.timm.create_model", refuse)
    with pytest.raises(CheckpointError, match=r"'vgg16' \(no route to host\).*weights=FILE"):
        create_vgg16(BackboneConfig(name="vgg16", weights="timm"), VGG16Layout(width=WIDTH))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "resnet18"}, "built on vgg16, got backbone 'resnet18'"),
        ({"output_stride": 8}, "sets the strides and the first layers of its vgg16, got output_stride=8"),
    ],
)
def test_vgg16_other_backbone_or_stride_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        create_vgg16(BackboneConfig(**{"name": "vgg16", **changes}), VGG16Layout())


def test_vgg16_layout_of_another_number_of_blocks_or_no_width_is_refused() -> None:
    with pytest.raises(InvalidValue, match="VGG16 has 5 blocks, got 4 pools"):
        VGG16Layout(pools=(Pool(),) * 4)
    with pytest.raises(InvalidValue, match="widths of VGG16 must be >= 1, got 0"):
        VGG16Layout(width=0)


def test_vgg16_releases_its_fully_connected_layers_once() -> None:
    trunk = VGG16(VGG, VGG16Layout(width=WIDTH, fully_connected=FullyConnected(width=6)))
    layers = trunk.release_fully_connected()
    assert layers is not None and [layer.out_channels for layer in layers] == [6, 6]
    assert not any(key.startswith("fc") for key in trunk.state_dict())
    assert trunk.layout.fully_connected is None and trunk.release_fully_connected() is None
