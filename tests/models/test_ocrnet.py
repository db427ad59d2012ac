from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from perpixel.errors import InvalidValue
from perpixel.models import create_model
from perpixel.models.ocrnet import ObjectContext, OCRNet, OCRNetConfig, gather_regions
from perpixel.types import Preprocessing


def small(config: OCRNetConfig | None = None, classes: int = 3) -> OCRNet:
    torch.manual_seed(0)
    network = create_model("ocrnet", config or OCRNetConfig.small(), num_classes=classes)
    assert isinstance(network, OCRNet)
    return network


@pytest.mark.parametrize(
    ("backbone", "parameters"), [("hrnet_w18", 12_080_818), ("hrnet_w32", 32_953_894), ("hrnet_w48", 70_372_678)]
)
def test_ocrnet_has_the_published_parameters(backbone: str, parameters: int) -> None:
    with torch.device("meta"):
        network = create_model("ocrnet", num_classes=19, backbone=backbone)
    assert isinstance(network, OCRNet)
    assert sum(p.numel() for p in network.parameters()) == parameters
    head = (network.context, network.classifier)
    assert sum(p.numel() for part in head for p in part.parameters()) == 1_194_003


def test_regions_are_means_over_positions_by_hand() -> None:
    pixels = torch.tensor([[[[1.0, 3.0]], [[10.0, -10.0]]]])  # two channels, two pixels
    scores = torch.tensor([[[[0.0, math.log(3.0)]], [[7.0, 7.0]]]])  # weights 1/4 and 3/4; 1/2 and 1/2
    wanted = torch.tensor([[[2.5, 2.0], [-5.0, 0.0]]])[..., None]
    assert torch.allclose(gather_regions(pixels, scores), wanted)


def test_context_by_hand() -> None:
    context = ObjectContext(1, 1, 0.0).eval()
    for layer in context.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eps = 0.0
        elif isinstance(layer, nn.Conv2d):
            nn.init.ones_(layer.weight)
    with torch.no_grad():
        context.fuse.conv.weight.copy_(torch.tensor([[100.0, 1.0]])[..., None, None])
        augmented = context(torch.tensor([[[[0.0, 1.0]]]]), torch.tensor([[[[math.log(3.0)], [0.0]]]]))
    # The pixel 0 resembles both regions alike, the pixel 1 with weights 3/4 and 1/4; the values are log 3 and 0.
    wanted = torch.tensor([[[[50.0 * math.log(3.0), 75.0 * math.log(3.0) + 1.0]]]])
    assert torch.allclose(augmented, wanted)


def plain(context: ObjectContext, pixels: Tensor, regions: Tensor) -> Tensor:
    """As published: values are distributed before ``up``, and the concatenation is built."""
    query, key = context.query(pixels).flatten(2), context.key(regions).flatten(2)
    resemblance = (query.transpose(1, 2) @ key / key.shape[1] ** 0.5).softmax(dim=2)
    mixed = (resemblance @ context.value(regions).flatten(2).transpose(1, 2)).transpose(1, 2)
    up = context.up(mixed.reshape(*mixed.shape[:2], *pixels.shape[-2:]))
    return context.fuse(torch.cat([up, pixels], dim=1))


@pytest.mark.parametrize("training", [True, False])
def test_context_equals_the_published_order_of_work(training: bool) -> None:
    torch.manual_seed(0)
    context = ObjectContext(6, 4, 0.0).double().train(training)
    pixels = torch.randn(2, 6, 5, 3, dtype=torch.float64, requires_grad=True)
    regions = torch.randn(2, 6, 3, 1, dtype=torch.float64, requires_grad=True)
    ours, theirs = context(pixels, regions), plain(context, pixels, regions)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    leaves = [pixels, regions, *context.parameters()]
    for a, b in zip(*(torch.autograd.grad(x.square().sum(), leaves) for x in (ours, theirs)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


def test_ocrnet_gives_its_regions_where_they_are_supervised() -> None:
    network = small()
    images = torch.randn(1, 3, 65, 97)
    output = network.train()(images)
    assert [tuple(x.shape) for x in (output.logits, *output.deep)] == [(1, 3, 17, 25)] * 2
    assert network.eval()(images).deep == ()
    network.supervise = True
    assert len(network(images).deep) == 1


def test_ocrnet_last_output_teaches_the_auxiliary_head_too() -> None:
    network = small().train()
    network(torch.randn(2, 3, 40, 40)).logits.square().sum().backward()
    gradient = network.auxiliary_head.classifier.weight.grad
    assert gradient is not None
    assert gradient.abs().max() > 0


@pytest.mark.parametrize("size", [(33, 33), (65, 34)])
def test_ocrnet_of_one_class_trains_alone(size: tuple[int, int]) -> None:
    network = small(classes=1).train()
    output = network(torch.randn(1, 3, *size))
    (output.logits.square().sum() + output.deep[0].square().sum()).backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []


class EveryNth(nn.Module):
    """A trunk whose maps are the image's every fourth, eighth, sixteenth and thirty-second pixels."""

    strides = (4, 8, 16, 32)
    channels = (3, 3, 3, 3)
    preprocessing = Preprocessing()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(images[..., ::stride, ::stride] for stride in self.strides)


def test_ocrnet_heads_export_with_free_sizes() -> None:
    network = OCRNet(EveryNth(), 3, OCRNetConfig(pixel_width=8, key_width=4)).eval()  # type: ignore[arg-type]
    sides = {2: torch.export.Dim("height", min=33, max=512), 3: torch.export.Dim("width", min=33, max=512)}
    program = torch.export.export(network, (torch.randn(1, 3, 65, 97),), dynamic_shapes=(sides,))
    images = torch.randn(1, 3, 48, 130)
    assert torch.allclose(program.module()(images).logits, network(images).logits, atol=1e-5)


def test_ocrnet_loss_mines_hard_pixels_on_the_last_output_alone() -> None:
    main, regions = small().default_terms()
    assert (main.output, main.loss, main.weight) == ("logits", "cross_entropy", 1.0)
    assert (regions.output, regions.index, regions.loss, regions.weight) == ("deep", 0, "cross_entropy", 0.4)
    main, regions = small(OCRNetConfig(width=2, num_modules=(1, 1, 1), ohem=True)).default_terms()
    assert (main.loss, main.options) == ("ohem", {"threshold": 0.9, "min_kept": 131_072, "normalise": "pixels"})
    assert (regions.loss, regions.weight) == ("cross_entropy", 0.4)


def test_ocrnet_aligns_corners_unless_told() -> None:
    assert small().align_corners
    assert OCRNetConfig().align_corners
    free = small(OCRNetConfig(width=2, num_modules=(1, 1, 1), align_corners=False))
    flags = {m.align_corners for m in free.modules() if hasattr(m, "align_corners")}
    assert flags == {False}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pixel_width": 0}, "OCRNet widths must be >= 1, got 0 and 256"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\), got 1.0"),
        ({"auxiliary_weight": 0.0}, "auxiliary_weight must be over 0, got 0.0"),
        ({"norm_momentum": 2.0}, r"norm_momentum must lie in \(0, 1\], got 2.0"),
    ],
)
def test_ocrnet_wrong_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        create_model("ocrnet", options, num_classes=2)
