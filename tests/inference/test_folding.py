"""Batch norm folding: every network of the table computes the same, and nothing is folded that something else reads."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from perpixel.inference.folding import fold_batch_norm
from perpixel.models import MODELS, create_model, list_models
from perpixel.types import Preprocessing, SegOutput

sys.path.append(str(Path(__file__).parents[1] / "models"))
from lightest_trunks import lightest_trunk

CLASSES = 5
FOLDED = {
    "deconvnet": (29, 29),
    "deeplab_v2": (53, 53),
    "deeplab_v3": (21, 22),
    "deeplab_v3plus": (27, 28),
    "dfn": (38, 38),
    "encnet": (17, 17),
    "fcn": (16, 16),
    "gcn": (14, 14),
    "hrnet": (53, 54),
    "icnet": (62, 63),
    "lraspp": (15, 15),
    "ocrnet": (59, 62),
    "pspnet": (19, 20),
    "refinenet": (14, 14),
    "refinenet_lw": (14, 14),
    "segnet": (25, 25),
    "segnet_basic": (8, 8),
    "unet": (10, 10),
    "unet_backbone": (24, 24),
}
"""Norms folded, of how many; the others of the table have none. Those that stay follow a convolution of parts."""


def drawn_norms(network: nn.Module) -> nn.Module:
    """Gives every batch norm statistics, factors and offsets that differ from channel to channel."""
    generator = torch.Generator().manual_seed(1)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d) and layer.track_running_stats:
            layer.running_mean.normal_(0, 0.3, generator=generator)
            layer.running_var.uniform_(0.5, 2, generator=generator)
            if layer.affine:
                layer.weight.data.uniform_(0.5, 1.5, generator=generator)
                layer.bias.data.normal_(0, 0.3, generator=generator)
    return network


def small(name: str) -> nn.Module:
    torch.manual_seed(0)
    return drawn_norms(
        create_model(name, MODELS[name].config.small(), num_classes=CLASSES, backbone=lightest_trunk(name)).double()
    )


@pytest.mark.parametrize("name", list_models())
def test_fold_batch_norm_every_network_computes_the_same(name: str) -> None:
    network = small(name)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    folded = fold_batch_norm(network)
    assert (folded.folded, folded.norms) == FOLDED.get(name, (0, 0))
    assert network.training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    if name not in FOLDED:
        assert folded.network is network
        return
    assert not folded.network.training
    left = sum(isinstance(layer, nn.BatchNorm2d) for layer in folded.network.modules())
    assert left == folded.norms - folded.folded
    network.eval()
    size = network.valid_size(network.minimum_size + 7, network.minimum_size + 3)
    x = torch.randn(1, network.preprocessing.num_channels, *size, dtype=torch.float64)
    network.supervise = folded.network.supervise = True
    with torch.no_grad():
        theirs, ours = network(x), folded.network(x)
    for wanted, found in zip(tree_leaves(theirs), tree_leaves(ours), strict=True):
        assert (wanted - found).abs().max() <= 1e-10 * wanted.abs().max().clamp(min=1e-30)


class Layers(nn.Module):
    """A network of one convolution and one norm, wired by ``forward`` of its subclasses."""

    minimum_size, margin, supervise = 8, 0, False
    preprocessing = Preprocessing()

    def __init__(self, conv: nn.Module | None = None, norm: nn.Module | None = None) -> None:
        super().__init__()
        self.conv = conv or nn.Conv2d(3, 4, 3)
        self.norm = norm or nn.BatchNorm2d(4)
        self.register_buffer("kept", torch.zeros(1))

    def valid_size(self, height: int, width: int) -> tuple[int, int]:
        return height, width

    def forward(self, images: Tensor) -> SegOutput:
        return SegOutput(self.norm(self.conv(images)))


class Twice(Layers):
    def forward(self, images: Tensor) -> SegOutput:
        return SegOutput(self.norm(self.conv(images)) + self.norm(self.conv(images.flip(-1))))


class ReadBesides(Layers):
    def forward(self, images: Tensor) -> SegOutput:
        x = self.conv(images)
        return SegOutput(self.norm(x) + x)


class ReadInTraining(Layers):
    def forward(self, images: Tensor) -> SegOutput:
        x = self.conv(images)
        return SegOutput(self.norm(x), deep=(x,) if self.supervise else ())


class ActivatedBefore(Layers):
    def forward(self, images: Tensor) -> SegOutput:
        return SegOutput(self.norm(self.conv(images).relu_()))


class PooledWhereLarge(Layers):
    def forward(self, images: Tensor) -> SegOutput:
        x = self.conv(images)
        return SegOutput(self.norm(nn.functional.max_pool2d(x, 2) if x.shape[-1] > 70 else x))


class WeightsReadBesides(Layers):
    def forward(self, images: Tensor) -> SegOutput:
        return SegOutput(self.norm(self.conv(images)) * self.conv.weight.abs().sum())


class StatisticsReadBesides(Layers):
    def forward(self, images: Tensor) -> SegOutput:
        return SegOutput(self.norm(self.conv(images)) + self.norm.running_mean.sum())


class NormFirst(Layers):
    def forward(self, images: Tensor) -> SegOutput:
        return SegOutput(self.conv(self.norm(images)))


class Alternating(Layers):
    def forward(self, images: Tensor) -> SegOutput:
        other = nn.functional.conv2d(images, torch.ones_like(self.conv.weight) + self.kept)
        return SegOutput(self.norm(self.conv(images)) + self.norm(other))


def same(network: Layers) -> int:
    """Folds; makes sure that nothing changes, and returns how many norms were folded."""
    network = drawn_norms(network.double()).eval()
    folded = fold_batch_norm(network)
    x = torch.randn(2, 3, 90, 90, dtype=torch.float64)
    torch.testing.assert_close(folded.network(x).logits, network(x).logits, rtol=1e-12, atol=1e-12)
    return folded.folded


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(3, 4, 3, bias=False),
        nn.Conv2d(3, 4, 3, stride=2, padding=1, dilation=2, padding_mode="reflect"),
        nn.Conv2d(3, 12, 3, groups=3),
        nn.ConvTranspose2d(3, 4, 4, stride=2),
        nn.ConvTranspose2d(3, 12, 3, groups=3, bias=False),
    ],
)
def test_fold_batch_norm_every_form_of_convolution_is_folded(conv: nn.Module) -> None:
    channels = conv.out_channels
    assert same(Layers(conv, nn.BatchNorm2d(channels))) == 1
    assert same(Layers(conv, nn.BatchNorm2d(channels, affine=False, eps=0.1))) == 1
    assert same(Twice(conv, nn.BatchNorm2d(channels))) == 1


@pytest.mark.parametrize(
    "kind",
    [
        *(ReadBesides, ReadInTraining, ActivatedBefore, PooledWhereLarge, WeightsReadBesides, StatisticsReadBesides),
        Alternating,
    ],
)
def test_fold_batch_norm_what_something_else_reads_is_left_alone(kind: type[Layers]) -> None:
    assert same(kind()) == 0


def test_fold_batch_norm_other_layers_are_left_alone() -> None:
    class Standardised(nn.Conv2d):
        pass

    assert same(NormFirst(norm=nn.BatchNorm2d(3))) == 0
    assert same(Layers(Standardised(3, 4, 3))) == 0
    assert same(Layers(norm=nn.BatchNorm2d(4, track_running_stats=False).eval())) == 0
    hooked = Layers()
    hooked.conv.register_forward_hook(lambda layer, args, output: output * 2)
    assert same(hooked) == 0


def test_fold_batch_norm_keeps_dtype_memory_order_and_the_generators() -> None:
    network = drawn_norms(Layers(nn.Conv2d(3, 4, 3))).to(memory_format=torch.channels_last)
    state = torch.get_rng_state()
    folded = fold_batch_norm(network).network
    assert torch.equal(torch.get_rng_state(), state)
    assert folded.conv.weight.dtype == torch.float32
    assert folded.conv.weight.is_contiguous(memory_format=torch.channels_last)
    assert not any(p.requires_grad for p in folded.parameters())
    assert network.conv.weight.requires_grad
    x = torch.randn(1, 3, 20, 20)
    torch.testing.assert_close(folded(x).logits, network.eval()(x).logits, rtol=1e-5, atol=1e-5)
