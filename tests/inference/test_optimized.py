"""The faster copy of a network: the scores of folded norms bit for bit, and the network untouched."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from perpixel.inference import Segmenter
from perpixel.inference.folding import fold_batch_norm
from perpixel.inference.optimized import optimized_copy
from perpixel.labels import LabelSpace
from perpixel.layers.parts_conv import PartsConv2d
from perpixel.models import MODELS, create_model, list_models
from perpixel.types import Preprocessing, SegOutput

sys.path.append(str(Path(__file__).parents[1] / "models"))
from lightest_trunks import lightest_trunk

CLASSES = 5


def small(name: str) -> nn.Module:
    torch.manual_seed(0)
    network = create_model(name, MODELS[name].config.small(), num_classes=CLASSES, backbone=lightest_trunk(name))
    return network.to(memory_format=torch.channels_last)


def scores(network: nn.Module, x: Tensor, dtype: torch.dtype | None = torch.bfloat16) -> Tensor:
    with torch.no_grad(), torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
        return network(x).logits


@pytest.mark.parametrize("name", list_models())
def test_optimized_copy_every_network_in_bf16_equals_the_folded_network_bit_for_bit(name: str) -> None:
    network = small(name)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    copied, folded, cast = optimized_copy(network, precision="bf16")
    plain = fold_batch_norm(network)
    assert network.training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert folded == plain.folded
    assert cast == sum(
        any(parameter.dtype == torch.bfloat16 for parameter in layer.parameters(recurse=False))
        for layer in copied.modules()
    )
    assert cast > 0
    size = network.valid_size(network.minimum_size + 7, network.minimum_size + 3)
    x = torch.randn(1, network.preprocessing.num_channels, *size).contiguous(memory_format=torch.channels_last)
    assert torch.equal(scores(copied, x), scores(plain.network.eval(), x))


class Layers(nn.Module):
    minimum_size, margin, supervise, num_classes, align_corners = 8, 0, False, 4, False
    preprocessing = Preprocessing()

    def __init__(self) -> None:
        super().__init__()
        self.conv = PartsConv2d(6, 4, 3, padding=2, dilation=2, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.plain = nn.Conv2d(4, 4, 1, groups=2)

    def valid_size(self, height: int, width: int) -> tuple[int, int]:
        return height, width

    def forward(self, images: Tensor) -> SegOutput:
        return SegOutput(self.plain(self.norm(self.conv((images, images.flip(-1)))).relu()))


class WeightsReadBesides(Layers):
    def forward(self, images: Tensor) -> SegOutput:
        output = super().forward(images).logits
        return SegOutput(output.float() * self.plain.weight.sum())


class WithoutAutocast(Layers):
    def forward(self, images: Tensor) -> SegOutput:
        with torch.autocast("cpu", enabled=False):
            return super().forward(images)


class Normless(Layers):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.Identity()


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_optimized_copy_keeps_weights_in_the_type_that_convolutions_run_in(precision: str, dtype: torch.dtype) -> None:
    network = Layers().eval()
    copied, *counts = optimized_copy(network, precision=precision)
    assert counts == [1, 0 if precision == "fp32" else 2]
    assert {value.dtype for value in copied.parameters()} == {dtype}
    x = torch.randn(2, 3, 31, 17)
    ours = scores(copied, x, None if precision == "fp32" else dtype)
    assert ours.dtype == dtype
    torch.testing.assert_close(ours.float(), scores(network, x, None), rtol=0.05, atol=1e-5 if counts[1] == 0 else 0.05)


@pytest.mark.parametrize("kind", [WeightsReadBesides, WithoutAutocast])
def test_optimized_copy_where_cast_weights_change_scores_or_fail_is_folded_alone(kind: type[Layers]) -> None:
    network = kind().eval()
    copied, *counts = optimized_copy(network, precision="bf16")
    assert counts == [1, 0]
    x = torch.randn(2, 3, 20, 20)
    torch.testing.assert_close(scores(copied, x).float(), scores(network, x).float(), rtol=0.05, atol=0.05)


def test_optimized_copy_float64_is_folded_alone() -> None:
    assert optimized_copy(Layers().double(), precision="bf16")[1:] == (1, 0)


def test_optimized_copy_without_norms_is_the_network_itself_in_fp32_and_a_copy_in_bf16() -> None:
    network = Normless()
    assert optimized_copy(network) == (network, 0, 0)
    copied, *counts = optimized_copy(network, precision="bf16")
    assert counts == [0, 2]
    assert network.training
    assert not copied.training
    assert {value.dtype for value in network.parameters()} == {torch.float32}


def test_optimized_copy_that_stays_the_network_leaves_its_modes() -> None:
    class Both(WithoutAutocast, Normless):
        pass

    network = Both()
    network.plain.eval()
    assert optimized_copy(network, precision="bf16") == (network, 0, 0)
    assert [layer.training for layer in network.modules()] == [True, True, True, False]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_segmenter_optimized_gives_the_same_classes_and_keeps_its_network(precision: str) -> None:
    network = small("unet_backbone")
    labels = LabelSpace.numbered(CLASSES)
    plain, fast = (Segmenter(network, labels, precision=precision, optimize=optimize) for optimize in (False, True))
    rounding = {"fp32": 1e-4, "bf16": 0.05}[precision]
    for height, width in ((50, 61), (64, 64), (50, 61)):
        images = torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8)
        wanted = plain.logits(images)
        scale = float(wanted.abs().max())
        torch.testing.assert_close(fast.logits(images) / scale, wanted / scale, rtol=0, atol=rounding)
        best, second = wanted.topk(2, dim=1).values.unbind(1)
        clear = best - second > 2 * rounding * scale
        assert torch.equal(fast.classes(images)[clear], plain.classes(images)[clear])
    assert fast.network is network
    assert network.training
