from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perpixel.errors import InvalidValue
from perpixel.models import create_model
from perpixel.models.deconvnet import DeconvNet, DeconvNetConfig

TINY = DeconvNetConfig(width=2, fc_width=6, fc_kernel=2)


def deconvnet(config: DeconvNetConfig = TINY) -> DeconvNet:
    torch.manual_seed(0)
    network = create_model("deconvnet", config, num_classes=3)
    assert isinstance(network, DeconvNet)
    return network


def test_deconvnet_published_form_has_the_released_parameter_count() -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in create_model("deconvnet", num_classes=21).parameters()) == 251_805_653


def test_deconvnet_published_window_fits_224_pixels_and_down_to_193() -> None:
    network = deconvnet(DeconvNetConfig(width=1, fc_width=2)).eval()
    assert network.valid_size(224, 224) == (224, 224)
    assert network.valid_size(100, 300) == (193, 300)
    assert network(torch.randn(1, 3, 193, 224)).logits.shape == (1, 3, 193, 224)
    with pytest.raises(InvalidValue, match="at least 193 x 193 pixels, got 192 x 224; resize them"):
        network(torch.randn(1, 3, 192, 224))


@pytest.mark.parametrize("size", [(33, 33), (64, 64), (65, 97)])
def test_deconvnet_sizes_that_the_window_fits_give_logits_of_that_size(size: tuple[int, int]) -> None:
    assert deconvnet().eval()(torch.randn(1, 3, *size)).logits.shape == (1, 3, *size)


def test_deconvnet_batch_of_one_at_one_cell_trains_every_parameter() -> None:
    network = deconvnet().train()
    side = network.minimum_size
    before = network.bn_fc6.running_mean.clone()
    network(torch.randn(1, 3, side, side)).logits.square().sum().backward()
    assert [n for n, p in network.named_parameters() if p.grad is None] == []
    assert torch.equal(network.bn_fc6.running_mean, before)  # one value has no statistics


def test_deconvnet_equals_its_graph_written_out() -> None:
    network = deconvnet().double().eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.normal_(module.running_mean)
    state = network.state_dict()
    x = image = torch.randn(1, 3, 64, 45, dtype=torch.float64)

    def norm(x: Tensor, name: str) -> Tensor:
        mean, var, weight, bias = (
            state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return F.relu(F.batch_norm(x, mean, var, weight, bias, eps=1e-9))

    def parts(name: str) -> tuple[Tensor, Tensor]:
        return state[f"{name}.weight"], state[f"{name}.bias"]

    stack = []
    for block, convs in enumerate((2, 2, 3, 3, 3), start=1):
        for i in range(1, convs + 1):
            conv = F.conv2d(x, *parts(f"backbone.conv{block}_{i}"), padding=1)
            x = norm(conv, f"backbone.bn{block}_{i}")
        size = x.shape[-2:]
        x, indices = F.max_pool2d(x, 2, 2, ceil_mode=True, return_indices=True)
        stack.append((block, convs, indices, size))
    x = norm(F.conv2d(x, *parts("backbone.fc6")), "bn_fc6")
    x = norm(F.conv2d(x, *parts("backbone.fc7")), "bn_fc7")
    x = norm(F.conv_transpose2d(x, *parts("fc6_deconv")), "bn_fc6_deconv")
    for block, convs, indices, size in reversed(stack):
        x = F.max_unpool2d(x, indices, 2, 2, output_size=size)
        for i in range(1, convs + 1):
            name = f"{block}_{i}"
            deconv = F.conv_transpose2d(x, *parts(f"decoder.block{block}.deconv{name}"), padding=1)
            x = norm(deconv, f"decoder.block{block}.debn{name}")
    expected = F.conv2d(x, *parts("classifier"))
    torch.testing.assert_close(network(image).logits, expected, rtol=0, atol=1e-10)


def test_deconvnet_exports_with_the_same_logits() -> None:
    network = deconvnet().eval()
    x = torch.randn(1, 3, 53, 70)
    torch.testing.assert_close(torch.export.export(network, (x,)).module()(x).logits, network(x).logits)


def test_deconvnet_new_layers_begin_as_released() -> None:
    network = deconvnet(DeconvNetConfig(width=16, fc_width=64, fc_kernel=2))
    assert network.fc6_deconv.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert network.bn_fc7.bias.unique().tolist() == pytest.approx([0.001])
    assert network.classifier.bias.abs().max() == 0
    (term,) = network.default_terms()
    assert (term.loss, term.reduction) == ("cross_entropy", "mean_valid")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "widths must be >= 1, got 0 and 4096"),
        ({"fc_width": 0}, "widths must be >= 1, got 64 and 0"),
        ({"fc_kernel": 1}, "fc_kernel must be >= 2, got 1"),
        ({"norm_eps": 0.0}, "norm_eps must be positive, got 0.0"),
    ],
)
def test_deconvnet_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        DeconvNetConfig(**options)
