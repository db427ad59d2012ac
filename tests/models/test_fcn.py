import pytest
import torch
from torch import nn

from perpixel.backbones import BackboneConfig
from perpixel.errors import InvalidValue
from perpixel.models import create_model
from perpixel.models.fcn import FCNConfig


@pytest.mark.parametrize(
    ("backbone", "classes", "parameters"),
    [
        (BackboneConfig(name="resnet50", stem="7x7", output_stride=8), 21, 35_322_218),
        (BackboneConfig(name="resnet101", stem="7x7", output_stride=8), 21, 54_314_346),
        (BackboneConfig(name="resnet50", stem="deep64", output_stride=8), 150, 35_545_324),
    ],
    ids=["torchvision 50", "torchvision 101", "PyTorch-Encoding 50"],
)
def test_dilated_fcn_has_the_published_parameter_count(backbone: BackboneConfig, classes: int, parameters: int) -> None:
    with torch.device("meta"):
        network = create_model("fcn", num_classes=classes, backbone=backbone)
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert network.logit_stride == 8


def test_dilated_fcn_scores_both_heads_at_the_same_stride_whatever_the_size() -> None:
    trunk = BackboneConfig(name="resnet10t", output_stride=8)
    network = create_model("fcn", FCNConfig.small(), num_classes=4, backbone=trunk).eval()
    network.supervise = True
    output = network(torch.randn(1, 3, 65, 97))
    assert output.logits.shape == output.deep[0].shape == (1, 4, 9, 13)


@pytest.mark.slow
def test_dilated_fcn_exports_for_any_height_and_width() -> None:
    trunk = BackboneConfig(name="resnet10t", output_stride=8)
    network = create_model("fcn", FCNConfig.small(), num_classes=4, backbone=trunk).eval()
    sides = {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    exported = torch.export.export(network, (torch.randn(1, 3, 64, 80),), dynamic_shapes={"images": sides}).module()
    images = torch.randn(1, 3, 65, 97)
    assert torch.allclose(exported(images).logits, network(images).logits, atol=1e-5)


def test_fcn_without_auxiliary_head_has_one_term() -> None:
    network = create_model("fcn", {"width": 4, "auxiliary": False}, num_classes=2, backbone="resnet10t")
    assert [term.output for term in network.default_terms()] == ["logits"]
    assert network.train()(torch.randn(2, 3, 64, 64)).deep == ()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "FCN widths must be >= 1, got 0 and 256"),
        ({"dropout": -0.1}, r"lie in \[0, 1\), got -0.1"),
        ({"auxiliary_weight": 0}, "auxiliary_weight must be > 0, got 0; auxiliary=False has none"),
    ],
)
def test_fcn_config_out_of_range_is_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        FCNConfig(**options)  # type: ignore[arg-type]


def test_fcn_on_one_stage_is_refused_with_its_auxiliary_head_alone() -> None:
    trunk = BackboneConfig(name="resnet10t", num_stages=1)
    with pytest.raises(InvalidValue, match="reads the stage before the last, and the backbone gives one stage"):
        create_model("fcn", FCNConfig.small(), num_classes=2, backbone=trunk)
    plain = create_model("fcn", {"width": 4, "auxiliary": False}, num_classes=2, backbone=trunk)
    assert plain(torch.randn(2, 3, 64, 64)).logits.shape == (2, 2, 2, 2)


@pytest.mark.parametrize(
    ("name", "drop_channels"), [("fcn", True), ("fcn", False), ("pspnet", True), ("pspnet", False)]
)
def test_heads_drop_whole_channels_or_single_values(name: str, drop_channels: bool) -> None:
    with torch.device("meta"):
        network = create_model(name, {"drop_channels": drop_channels}, num_classes=2, backbone="resnet18")
    layers = [type(m) for m in network.modules() if isinstance(m, nn.Dropout | nn.Dropout2d)]
    assert layers == [nn.Dropout2d if drop_channels else nn.Dropout] * 2
