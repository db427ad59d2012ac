from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from perpixel.errors import InvalidValue
from perpixel.losses import SegmentationLoss, cross_entropy, ohem_cross_entropy
from perpixel.models import create_model
from perpixel.models.hrnet import HRNetConfig, HRNetSegmentation, MixedHead


def small(config: HRNetConfig | None = None, classes: int = 3) -> HRNetSegmentation:
    torch.manual_seed(0)
    network = create_model("hrnet", config or HRNetConfig.small(), num_classes=classes, backbone="hrnet_w18")
    assert isinstance(network, HRNetSegmentation)
    return network


@pytest.mark.parametrize(
    ("backbone", "parameters"),
    [
        ("hrnet_w18_small", 1_540_819),
        ("hrnet_w18_small_v2", 3_939_579),
        ("hrnet_w18", 9_641_119),
        ("hrnet_w32", 29_546_515),
        ("hrnet_w48", 65_859_379),
    ],
)
def test_hrnet_has_the_published_parameters(backbone: str, parameters: int) -> None:
    with torch.device("meta"):
        network = create_model("hrnet", num_classes=19, backbone=backbone)
    assert sum(p.numel() for p in network.parameters()) == parameters


def test_hrnet_needs_the_published_work_less_what_the_head_saves() -> None:
    with torch.device("meta"):
        network = create_model("hrnet", num_classes=19, backbone="hrnet_w18").eval()
        image = torch.empty(1, 3, 1024, 2048)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        logits = network(image).logits
    assert logits.shape == (1, 19, 256, 512)
    cells = [256 * 512 // 4**i for i in range(4)]
    joined = 270 * 270 * cells[0]
    apart = 270 * sum(width * n for width, n in zip((18, 36, 72, 144), cells, strict=True))
    ours = counter.get_total_flops() / 2
    assert (ours + joined - apart) / 1e9 == pytest.approx(147.4, abs=0.06)
    assert ours < 139.1e9


def plain(head: MixedHead, maps: list[Tensor]) -> Tensor:
    """The head as published: enlarge, concatenate, convolve."""
    size = maps[0].shape[-2:]
    enlarged = [F.interpolate(x, size, mode="bilinear", align_corners=head.align_corners) for x in maps]
    return head.classifier(F.relu(head.norm(head.mix(torch.cat(enlarged, dim=1)))))


@pytest.mark.parametrize("aligned", [False, True])
def test_mixed_head_equals_the_concatenation_in_training_and_evaluation(aligned: bool) -> None:
    torch.manual_seed(0)
    head = MixedHead((2, 4, 8), 3, 3, align_corners=aligned).double()
    maps = [torch.randn(2, c, h, w, dtype=torch.float64) for c, h, w in ((2, 9, 7), (4, 5, 4), (8, 3, 2))]
    for training in (True, False):
        head.train(training)
        torch.testing.assert_close(head(maps), plain(head, maps), rtol=0, atol=1e-12)
    gradients = [torch.autograd.grad(f(maps).square().sum(), list(head.parameters()))
                 for f in (head, lambda m: plain(head, m))]  # fmt: skip
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_mixed_head_by_hand() -> None:
    head = MixedHead((1, 1), 1, align_corners=True).eval()
    head.norm.eps = 0.0
    with torch.no_grad():
        head.mix.weight.copy_(torch.tensor([[1.0, 1.0], [0.0, -1.0]])[..., None, None])
        head.mix.bias.copy_(torch.tensor([0.0, 5.0]))
        head.classifier.weight.copy_(torch.tensor([[1.0, 10.0]])[..., None, None])
        head.classifier.bias.zero_()
        scores = head([torch.tensor([[[[1.0, 2.0, 3.0]]]]), torch.tensor([[[[0.0, 8.0]]]])])
    # 0, 8 enlarged: 0, 4, 8. Channels: 1, 6, 11 and relu(5 - them): 5, 1, 0
    assert torch.allclose(scores, torch.tensor([[[[51.0, 16.0, 11.0]]]]))


@pytest.mark.parametrize("size", [(33, 33), (65, 34), (40, 97)])
def test_hrnet_any_size_trains_alone(size: tuple[int, int]) -> None:
    network = small().train()
    assert network.minimum_size == 33
    output = network(torch.randn(1, 3, *size))
    assert output.logits.shape == (1, 3, -(-size[0] // 4), -(-size[1] // 4))
    assert output.deep == ()
    output.logits.square().sum().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []


def test_hrnet_exports_with_free_sizes() -> None:
    network = small().eval()
    sides = {2: torch.export.Dim("height", min=33, max=512), 3: torch.export.Dim("width", min=33, max=512)}
    program = torch.export.export(network, (torch.randn(1, 3, 65, 97),), dynamic_shapes=(sides,))
    for size in ((65, 97), (48, 130), (34, 33)):
        images = torch.randn(1, 3, *size)
        assert torch.allclose(program.module()(images).logits, network(images).logits, atol=1e-5)


def test_hrnet_states_alignment_and_momentum_everywhere() -> None:
    network = small(HRNetConfig(width=2, num_modules=(1, 1, 1), num_blocks=1, align_corners=True, norm_momentum=0.01))
    assert network.align_corners
    flags = {m.align_corners for m in network.modules() if m is not network and hasattr(m, "align_corners")}
    assert flags == {True}
    assert {m.momentum for m in network.modules() if isinstance(m, nn.BatchNorm2d)} == {0.01}
    assert not HRNetConfig().align_corners


def test_hrnet_layout_keeps_what_the_name_says_where_nothing_is_stated() -> None:
    network = small(HRNetConfig(stem_width=8, num_blocks=1))
    assert network.backbone.channels == (18, 36, 72, 144)
    assert network.backbone.conv1.out_channels == 8
    assert len(network.backbone.get_submodule("stage3")) == 4  # type: ignore[arg-type]


def test_hrnet_loss_is_cross_entropy_or_that_of_hard_pixels() -> None:
    network = small().train()
    output, target = network(torch.randn(2, 3, 33, 33)), torch.randint(0, 3, (2, 33, 33))
    scores = F.interpolate(output.logits, (33, 33), mode="bilinear", align_corners=False)

    def loss(terms: tuple) -> Tensor:
        return SegmentationLoss(terms, num_classes=3, align_corners=False)(output, target).total

    assert torch.allclose(loss(network.default_terms()), cross_entropy(scores, target))
    hard = small(HRNetConfig(width=2, num_modules=(1, 1, 1), ohem=True, ohem_threshold=0.3, ohem_min_kept=7))
    wanted = ohem_cross_entropy(scores, target, threshold=0.3, min_kept=7)
    assert torch.allclose(loss(hard.default_terms()), wanted)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"norm_momentum": 0.0}, r"norm_momentum must lie in \(0, 1\], got 0.0"),
        ({"ohem_threshold": 1.5}, r"ohem_threshold must lie in \(0, 1\] .* got 1.5 and 131072"),
        ({"ohem_min_kept": -1}, "got 0.9 and -1"),
        ({"classifier_kernel": 2}, "classifier_kernel must be odd, to keep sizes, got 2"),
        ({"width": 0}, "HRNet width must be >= 1, got 0"),
        ({"num_modules": [1, 2]}, r"num_modules has three counts >= 1, .* got \(1, 2\)"),
    ],
)
def test_hrnet_wrong_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        create_model("hrnet", options, num_classes=2)


@pytest.mark.parametrize("name", ["hrnet", "ocrnet"])
def test_networks_on_hrnet_refuse_another_trunk(name: str) -> None:
    with pytest.raises(InvalidValue, match="no HRNet 'resnet50'"):
        create_model(name, num_classes=2, backbone="resnet50")
