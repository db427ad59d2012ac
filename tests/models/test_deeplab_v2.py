from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perpixel.backbones import VGG16, BackboneConfig, VGG16Layout, create_caffe_resnet
from perpixel.errors import InvalidValue
from perpixel.losses import SegmentationLoss, cross_entropy
from perpixel.models import create_model, network_description, network_from_description
from perpixel.models.deeplab_v2 import DeepLabV2, DeepLabV2Config

SMALL = DeepLabV2Config(width=2, branch_width=4, atrous_rates=(1, 2), norm_momentum=0.1)
R50 = "caffe_resnet50"


def parameters(backbone: str = "caffe_resnet101", **options: object) -> int:
    with torch.device("meta"):
        network = create_model("deeplab_v2", options, num_classes=21, backbone=backbone)
    return sum(p.numel() for p in network.parameters())


def small(backbone: str = R50, config: DeepLabV2Config = SMALL, classes: int = 3) -> DeepLabV2:
    torch.manual_seed(0)
    network = create_model("deeplab_v2", config, num_classes=classes, backbone=backbone)
    assert isinstance(network, DeepLabV2)
    return network


def test_deeplab_v2_published_forms_have_their_parameter_counts() -> None:
    assert parameters() == 44_048_532
    assert parameters(atrous_rates=[2, 4, 8, 12]) == 44_048_532
    assert parameters(atrous_rates=[1], kernel_size=1) == 42_543_189
    assert parameters("vgg16") == 37_877_652


def test_deeplab_v2_adds_the_scores_of_its_branches() -> None:
    network = small(config=DeepLabV2Config(width=2, atrous_rates=(1, 2), multi_scale=False)).eval()
    images = torch.randn(1, 3, 33, 41)
    features = network.backbone(images)[-1]
    first, second = (F.conv2d(features, b.classifier.weight, b.classifier.bias, padding=r, dilation=r)
                     for r, b in zip((1, 2), network.branches, strict=True))  # fmt: skip
    assert torch.allclose(network(images).logits, first + second, atol=1e-6)
    assert network(images).logits.shape == (1, 3, 5, 6)
    network.supervise = True
    assert network(images).deep == ()
    assert [term.name for term in network.default_terms()] == ["main"]


@pytest.mark.parametrize("backbone", [R50, "vgg16"])
def test_deeplab_v2_fuses_the_largest_score_over_scales(backbone: str) -> None:
    network = small(backbone).eval()
    network.supervise = True
    output = network(torch.randn(2, 3, 65, 97))
    assert [tuple(x.shape[-2:]) for x in output.deep] == [(9, 13), (5, 7), (7, 10)]
    enlarged = [F.interpolate(x, (9, 13), mode="bilinear", align_corners=False) for x in output.deep]
    assert torch.equal(output.logits, torch.stack(enlarged).amax(dim=0))
    network.supervise = False
    assert network(torch.randn(1, 3, 65, 97)).deep == ()


class Means(nn.Module):
    """A trunk whose one map is every eighth pixel."""

    strides = (8,)
    channels = (1,)
    receptive_field = 1
    config = BackboneConfig(name=R50, in_channels=1)
    preprocessing = create_caffe_resnet(BackboneConfig(name=R50, in_channels=1), width=1).preprocessing

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return (images[..., ::8, ::8],)


@pytest.mark.parametrize(("aligned", "sizes"), [(False, [(5, 5), (2, 2), (3, 3)]), (True, [(5, 5), (3, 3), (4, 4)])])
def test_deeplab_v2_scales_by_the_factor_or_by_corners(aligned: bool, sizes: list[tuple[int, int]]) -> None:
    config = DeepLabV2Config(atrous_rates=(1,), kernel_size=1, scales_align_corners=aligned)
    network = DeepLabV2(Means(), 1, config).train()  # type: ignore[arg-type]
    nn.init.ones_(network.branches[0].classifier.weight)  # type: ignore[union-attr,arg-type]
    ramp = torch.arange(33.0).expand(1, 1, 33, 33)
    deep = network(ramp).deep
    assert [tuple(x.shape[-2:]) for x in deep] == sizes
    first = 0.0 if aligned else 0.5  # centres of areas: cell i of half the size lies at 2i + 0.5
    wanted = first + 16 * torch.arange(float(sizes[1][1]))
    assert torch.allclose(deep[1][0, 0, 0], wanted)


def test_deeplab_v2_loss_is_on_every_scale_at_its_own_size() -> None:
    network = small().train()
    output = network(torch.randn(2, 3, 65, 97))
    target = torch.randint(0, 3, (2, 65, 97))
    criterion = SegmentationLoss(network.default_terms(), num_classes=3, align_corners=True)
    loss = criterion(output, target)
    assert list(loss.parts) == ["main", "scale1", "scale0.5", "scale0.75"]
    eighth = target[:, ::8, ::8]
    assert torch.allclose(loss.parts["main"], cross_entropy(output.logits, eighth))
    assert torch.allclose(loss.parts["scale1"], cross_entropy(output.deep[0], eighth))
    assert torch.allclose(loss.parts["scale0.5"], cross_entropy(output.deep[1], target[:, ::16, ::16]))


@pytest.mark.parametrize("backbone", [R50, "vgg16"])
@pytest.mark.parametrize("size", [(16, 16), (17, 40), (64, 35)])
def test_deeplab_v2_any_size_trains_alone(backbone: str, size: tuple[int, int]) -> None:
    network = small(backbone).train()
    assert network.minimum_size == 16
    output = network(torch.randn(1, 3, *size))
    sum(x.square().sum() for x in output.deep).backward()  # type: ignore[union-attr]
    assert [name for name, p in network.named_parameters() if p.grad is None] == []


def test_deeplab_v2_valid_sizes_bear_a_cell_on_the_last_pixel_where_corners_are_aligned() -> None:
    assert small().valid_size(321, 500) == (321, 505)
    assert small().valid_size(3, 3) == (17, 17)
    free = small(config=DeepLabV2Config(width=1, align_corners=False))
    assert free.valid_size(321, 500) == (321, 500)


def test_deeplab_v2_on_vgg16_starts_every_branch_from_the_decimated_layers(tmp_path: Path) -> None:
    full = VGG16Layout(width=2, fully_connected=None)
    source = VGG16(BackboneConfig(name="vgg16"), full).state_dict()
    source |= {"fc6.weight": torch.randn(8, 16, 7, 7), "fc6.bias": torch.arange(8.0)}
    source |= {"fc7.weight": torch.randn(8, 8, 1, 1), "fc7.bias": torch.arange(8.0)}
    torch.save(source, tmp_path / "vgg16.pth")
    backbone = BackboneConfig(name="vgg16", weights=str(tmp_path / "vgg16.pth"))
    network = create_model("deeplab_v2", SMALL, num_classes=3, backbone=backbone)
    state = network.state_dict()
    kept = torch.linspace(0, 7, 4).round().long()
    for branch in range(2):
        assert torch.equal(state[f"branches.{branch}.fc6.weight"], source["fc6.weight"][kept][:, :, ::3, ::3])
        assert torch.equal(state[f"branches.{branch}.fc7.weight"], source["fc7.weight"][kept][:, kept])
    assert not any(key.startswith("backbone.fc") for key in state)
    assert torch.equal(state["backbone.conv1_1.weight"], source["conv1_1.weight"])


def test_deeplab_v2_on_vgg16_with_random_weights_has_branches_that_differ() -> None:
    state = small("vgg16").state_dict()
    assert not torch.equal(state["branches.0.fc6.weight"], state["branches.1.fc6.weight"])


def test_deeplab_v2_on_vgg16_is_rebuilt_from_its_description() -> None:
    network = small("vgg16").eval()
    twin = network_from_description(network_description(network)).eval()
    twin.load_state_dict(network.state_dict())
    images = torch.randn(1, 3, 33, 33)
    assert torch.equal(twin(images).logits, network(images).logits)


@pytest.mark.parametrize("backbone", [pytest.param(R50, marks=pytest.mark.slow), "vgg16"])
def test_deeplab_v2_exports_its_evaluation(backbone: str) -> None:
    network = small(backbone).eval()
    images = torch.randn(1, 3, 41, 57)
    exported = torch.export.export(network, (images,)).module()
    assert torch.allclose(exported(images).logits, network(images).logits, atol=1e-5)


def test_deeplab_v2_receptive_field_grows_with_rates_and_smaller_scales() -> None:
    def field(**options: object) -> int | None:
        with torch.device("meta"):
            return create_model("deeplab_v2", options, num_classes=2).receptive_field

    assert field(multi_scale=False) == 1027 + 16 * 24
    assert field(multi_scale=False, atrous_rates=[12]) == 1027 + 16 * 12
    assert field() == 2 * (1027 + 16 * 24 + 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"atrous_rates": []}, r"atrous_rates needs one rate >= 1 per branch, got \[\]"),
        ({"atrous_rates": [6, 0]}, r"per branch, got \[6, 0\]"),
        ({"kernel_size": 2}, "kernel_size must be odd, to keep sizes, got 2"),
        ({"branch_width": 0}, "DeepLab v2 branch_width must be >= 1, got 0"),
        ({"dropout": -0.1}, "got -0.1 and 0.001"),
        ({"norm_momentum": 0}, r"norm_momentum in \(0, 1\], got 0.5 and 0"),
        ({"scales": []}, r"scales are those of smaller copies, in \(0, 1\), got \[\]"),
        ({"scales": [0.5, 1.0]}, r"got \[0.5, 1.0\]; multi_scale=False has none"),
    ],
)
def test_deeplab_v2_wrong_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        create_model("deeplab_v2", options, num_classes=2)


def test_deeplab_v2_on_another_trunk_is_refused() -> None:
    with pytest.raises(InvalidValue, match=r"built on vgg16, caffe_resnet50, .* got backbone 'resnet101'"):
        create_model("deeplab_v2", num_classes=2, backbone="resnet101")
