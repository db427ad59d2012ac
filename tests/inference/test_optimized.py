"""The faster copy of a network: the same scores to rounding, the network untouched, weights in oneDNN's order."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from perpixel.inference import Segmenter
from perpixel.inference import optimized as optimized_module
from perpixel.inference.optimized import PackedConv2d, optimized_copy
from perpixel.labels import LabelSpace
from perpixel.layers.parts_conv import PartsConv2d
from perpixel.models import MODELS, create_model, list_models
from perpixel.types import Preprocessing, SegOutput

sys.path.append(str(Path(__file__).parents[1] / "models"))
from lightest_trunks import lightest_trunk

CLASSES = 5
packs = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this PyTorch has no oneDNN")


def small(name: str) -> nn.Module:
    torch.manual_seed(0)
    network = create_model(name, MODELS[name].config.small(), num_classes=CLASSES, backbone=lightest_trunk(name))
    return network.to(memory_format=torch.channels_last)


def largest_difference(first: Tensor, second: Tensor) -> float:
    return float(((first - second).abs().max() / first.abs().max().clamp(min=1e-30)).detach())


@pytest.mark.parametrize("name", list_models())
def test_optimized_copy_every_network_computes_the_same_to_rounding(name: str) -> None:
    network = small(name)
    optimized = optimized_copy(network)
    assert network.training
    assert not any(isinstance(layer, PackedConv2d) for layer in network.modules())
    network.eval()
    size = network.valid_size(network.minimum_size + 7, network.minimum_size + 3)
    x = torch.randn(1, network.preprocessing.num_channels, *size).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        assert largest_difference(network(x).logits, optimized.network(x).logits) < 1e-4
    if torch.backends.mkldnn.is_available():
        assert optimized.packed == sum(isinstance(layer, PackedConv2d) for layer in optimized.network.modules()) > 0


class Layers(nn.Module):
    minimum_size, margin, supervise, num_classes, align_corners = 8, 0, False, 4, False
    preprocessing = Preprocessing()

    def __init__(self) -> None:
        super().__init__()
        self.conv = PartsConv2d(6, 4, 3, padding=2, dilation=2, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.act = nn.ReLU(inplace=True)
        self.plain = nn.Conv2d(4, 4, 1, groups=2)
        self.other = nn.ReLU()

    def valid_size(self, height: int, width: int) -> tuple[int, int]:
        return height, width

    def forward(self, images: Tensor) -> SegOutput:
        x = self.act(self.norm(self.conv((images, images.flip(-1)))))
        return SegOutput(self.other(self.plain(x)) - 0.5)


class ReadBesides(Layers):
    def forward(self, images: Tensor) -> SegOutput:
        x = self.plain(self.act(self.norm(self.conv((images, images.flip(-1))))))
        return SegOutput(self.other(x) + x)


class WeightsReadBesides(Layers):
    def forward(self, images: Tensor) -> SegOutput:
        output = super().forward(images).logits
        return SegOutput(output * self.plain.weight.sum() * self.conv.weight.sum())


@packs
def test_optimized_copy_packs_parts_groups_and_relus() -> None:
    network = Layers().eval()
    folded, packed, fused = optimized_copy(network)[1:]
    assert (folded, packed, fused) == (1, 2, 2)
    copied = optimized_copy(network).network
    x = torch.randn(2, 3, 31, 17)
    torch.testing.assert_close(copied(x).logits, network(x).logits, rtol=1e-5, atol=1e-5)
    assert copied(x).logits.min() == -0.5


@packs
def test_optimized_copy_what_something_else_reads_keeps_its_relu_or_its_weights() -> None:
    x = torch.randn(2, 3, 20, 20)
    for network, wanted in ((ReadBesides().eval(), (1, 2, 1)), (WeightsReadBesides().eval(), (0, 0, 0))):
        copied, *counts = optimized_copy(network)
        assert tuple(counts) == wanted
        torch.testing.assert_close(copied(x).logits, network(x).logits, rtol=1e-5, atol=1e-5)


@packs
def test_optimized_copy_in_bf16_equals_autocast() -> None:
    network = Layers().eval()
    network.norm = nn.Identity()
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("this CPU has no bf16")
    copied, _, packed, _ = optimized_copy(network, precision="bf16")
    assert packed == 2
    assert copied.plain.weights[0].dtype == torch.bfloat16
    x = torch.randn(1, 3, 20, 24)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours, theirs = copied(x).logits, network(x).logits
    assert ours.dtype == theirs.dtype
    assert largest_difference(theirs, ours) < 0.02


def test_optimized_copy_float64_and_fp16_are_folded_alone() -> None:
    network = Layers().eval()
    assert optimized_copy(network, precision="fp16")[1:] == (1, 0, 0)
    assert optimized_copy(network.double())[1:] == (1, 0, 0)


def test_optimized_copy_where_the_operator_is_missing_keeps_the_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> None:
        raise RuntimeError("no such operator")

    monkeypatch.setattr(optimized_module, "PackedConv2d", missing)
    network = Layers().eval()
    copied, folded, packed, _ = optimized_copy(network)
    assert (folded, packed) == (1, 0)
    x = torch.randn(1, 3, 20, 24)
    torch.testing.assert_close(copied(x).logits, network(x).logits, rtol=1e-5, atol=1e-5)


def test_segmenter_optimized_gives_the_same_classes_and_keeps_its_network() -> None:
    network = small("unet_backbone")
    labels = LabelSpace.numbered(CLASSES)
    plain, fast = (Segmenter(network, labels, optimize=optimize) for optimize in (False, True))
    images = torch.randint(0, 256, (2, 3, 50, 61), dtype=torch.uint8)
    scores = plain.logits(images)
    torch.testing.assert_close(fast.logits(images), scores, rtol=1e-3, atol=1e-4)
    best, second = scores.topk(2, dim=1).values.unbind(1)
    clear = best - second > 1e-3
    assert torch.equal(fast.classes(images)[clear], plain.classes(images)[clear])
    assert fast.network is network
    assert network.training
