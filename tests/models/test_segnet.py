from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perpixel.backbones import CAFFE_PREPROCESSING, VGG16, BackboneConfig, VGG16Layout
from perpixel.errors import InvalidValue
from perpixel.models import create_model
from perpixel.models.segnet import SegNet, SegNetConfig

TINY = SegNetConfig(width=2)


def segnet(config: SegNetConfig = TINY, **arguments: Any) -> SegNet:
    torch.manual_seed(0)
    network = create_model("segnet", config, num_classes=3, **arguments)
    assert isinstance(network, SegNet)
    return network


def test_segnet_published_form_has_the_released_parameter_count() -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in create_model("segnet", num_classes=11).parameters()) == 29_449_355
        assert sum(p.numel() for p in create_model("segnet", num_classes=12).parameters()) == 29_449_932


@pytest.mark.parametrize("size", [(17, 17), (45, 60), (64, 33)])
def test_segnet_any_size_gives_logits_of_that_size(size: tuple[int, int]) -> None:
    assert segnet().eval()(torch.randn(2, 3, *size)).logits.shape == (2, 3, *size)


def test_segnet_batch_of_one_at_the_minimum_size_trains_every_parameter() -> None:
    network = segnet().train()
    side = network.minimum_size
    network(torch.randn(1, 3, side, side)).logits.square().sum().backward()
    assert [n for n, p in network.named_parameters() if p.grad is None] == []


def test_segnet_equals_its_graph_written_out() -> None:
    """Encoder and mirrored decoder with PyTorch's own unpooling, layer by layer, from the state dict alone."""
    network = segnet().double().eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.normal_(module.running_mean)
    state = network.state_dict()
    x = image = torch.randn(1, 3, 45, 38, dtype=torch.float64)

    def layer(x: Tensor, prefix: str, name: str) -> Tensor:
        x = F.conv2d(x, state[f"{prefix}conv{name}.weight"], state[f"{prefix}conv{name}.bias"], padding=1)
        mean, var, weight, bias = (
            state[f"{prefix}bn{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return F.relu(F.batch_norm(x, mean, var, weight, bias, eps=1e-9))

    stack = []
    for block, convs in enumerate((2, 2, 3, 3, 3), start=1):
        for i in range(1, convs + 1):
            x = layer(x, "backbone.", f"{block}_{i}")
        size = x.shape[-2:]
        x, indices = F.max_pool2d(x, 2, 2, ceil_mode=True, return_indices=True)
        stack.append((block, convs, indices, size))
    for block, convs, indices, size in reversed(stack):
        x = F.max_unpool2d(x, indices, 2, 2, output_size=size)
        for i in range(convs, 1 if block == 1 else 0, -1):
            x = layer(x, f"decoder.block{block}.", f"{block}_{i}")
    expected = F.conv2d(x, state["classifier.weight"], state["classifier.bias"], padding=1)
    torch.testing.assert_close(network(image).logits, expected, rtol=0, atol=1e-10)


def test_segnet_exports_with_the_same_logits() -> None:
    network = segnet().eval()
    x = torch.randn(1, 3, 53, 70)
    torch.testing.assert_close(torch.export.export(network, (x,)).module()(x).logits, network(x).logits)


def test_bayesian_segnet_drops_behind_three_poolings_and_three_decoder_blocks() -> None:
    network = segnet(SegNetConfig(width=2, bayesian=True)).train()
    calls: list[tuple[int, ...]] = []
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            assert module.p == 0.5
            module.register_forward_hook(lambda _m, _i, out: calls.append(tuple(out.shape[1:])))
    network(torch.randn(2, 3, 64, 64))
    assert calls == [(8, 8, 8), (16, 4, 4), (16, 2, 2), (16, 4, 4), (8, 8, 8), (4, 16, 16)]
    plain = segnet()
    assert not any(isinstance(m, nn.Dropout) for m in plain.modules())
    assert network.state_dict().keys() == plain.state_dict().keys()


def test_segnet_input_normalisation_changes_the_input() -> None:
    x = 255 * torch.rand(1, 3, 40, 40)
    raw, local = segnet().eval(), segnet(SegNetConfig(width=2, input_normalisation="contrast")).eval()
    local.load_state_dict(raw.state_dict())
    assert not torch.allclose(raw(x).logits, local(x).logits)
    torch.testing.assert_close(local(x).logits, local(0.5 * x).logits, atol=1e-4, rtol=1e-4)


def test_segnet_takes_vgg16_weights_without_batch_norm_as_published(tmp_path: Path) -> None:
    plain = VGG16(BackboneConfig(name="vgg16"), VGG16Layout(width=2))
    torch.save(plain.state_dict(), tmp_path / "vgg16.pth")
    network = segnet(backbone=BackboneConfig(name="vgg16", weights=str(tmp_path / "vgg16.pth")))
    assert torch.equal(network.backbone.conv5_3.weight, plain.conv5_3.weight)
    assert network.backbone.bn5_3.weight.unique().tolist() == [1.0]
    assert network.backbone.notes == ("the weights are of a VGG16 without batch norm; its batch norms start anew",)
    assert network.preprocessing == CAFFE_PREPROCESSING


def test_segnet_new_layers_begin_as_released() -> None:
    network = segnet()
    assert network.classifier.bias.abs().max() == 0
    assert network.decoder.get_submodule("block3.bn3_1").bias.unique().tolist() == pytest.approx([0.001])


def test_segnet_loss_divides_by_pixels() -> None:
    (term,) = segnet().default_terms()
    assert (term.loss, dict(term.options)) == ("cross_entropy", {"normalise": "pixels"})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "width must be >= 1, got 0"),
        ({"dropout": 1.0}, r"dropout must lie in \(0, 1\), got 1.0; bayesian=False trains without"),
        ({"input_normalisation": "local"}, "one of none, lrn, contrast, got 'local'"),
        ({"norm_eps": 0.0}, "norm_eps must be positive, got 0.0"),
    ],
)
def test_segnet_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        SegNetConfig(**options)
