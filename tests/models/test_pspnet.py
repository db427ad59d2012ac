from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from perpixel.backbones import BackboneConfig
from perpixel.errors import InvalidValue
from perpixel.models import create_model
from perpixel.models.pspnet import PSPNetConfig, PyramidBranch, PyramidFusion, PyramidPooling
from perpixel.ops import resize

SMP = {"order": "bins_first", "kernel_size": 1, "classifier_kernel_size": 3, "norm_of_single_bin": False}


def small(**options: Any) -> Any:
    torch.manual_seed(0)
    given = {"bin_width": 4, "width": 6, "auxiliary_width": 5, **options}
    return create_model("pspnet", given, num_classes=3, backbone="resnet10t")


@pytest.mark.parametrize(("depth", "parameters"), [(50, 49_081_578), (101, 68_073_706)])
def test_pspnet_has_semsegs_parameter_count(depth: int, parameters: int) -> None:
    trunk = BackboneConfig(name=f"resnet{depth}", stem="deep64", output_stride=8, dilation="full")
    with torch.device("meta"):
        network = create_model("pspnet", num_classes=21, backbone=trunk)
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert network.logit_stride == 8


def test_pspnet_has_torchsegs_parameter_count_and_less_than_its_work() -> None:
    published = 161.6e9  # multiplications of the plain form at 473 x 473 with 21 classes
    with torch.device("meta"):
        network = create_model("pspnet", {"auxiliary_width": 1024}, num_classes=150).eval()
        image = torch.empty(1, 3, 473, 473)
    assert sum(p.numel() for p in network.parameters()) == 56_375_532
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(image)
    assert counter.get_total_flops() / 2 < 0.8 * published


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (9, 13)])
@pytest.mark.parametrize(
    "options",
    [{}, SMP, {"pooling": "fixed"}, {"bins": (2, 1)}, {"align_corners": False, "kernel_size": 5}],
    ids=str,
)
def test_fusion_is_the_convolution_over_the_concatenation(options: dict[str, Any], size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    config = PSPNetConfig(bin_width=3, width=4, **options)
    pyramid = PyramidPooling(5, config).double().eval()
    fusion = PyramidFusion(5, config).double().eval()
    x = torch.randn(2, 5, *size, dtype=torch.float64, requires_grad=True)
    branches = pyramid(x)
    full = [resize(b, size, align_corners=config.align_corners) for b in branches]
    parts = [x, *full] if config.order == "features_first" else [*full, x]
    plain = fusion.act(fusion.norm(fusion.conv(torch.cat(parts, dim=1))))
    ours = fusion(x, branches)
    torch.testing.assert_close(ours, plain, rtol=0, atol=1e-13)
    leaves = (x, fusion.conv.weight, *pyramid.parameters())
    weights = torch.randn_like(plain)
    gradients = (torch.autograd.grad((y * weights).sum(), leaves, retain_graph=True) for y in (ours, plain))
    for mine, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12)


def test_pyramid_by_hand() -> None:
    config = PSPNetConfig(bins=(1, 2), bin_width=1, width=1, kernel_size=1)
    pyramid, fusion = PyramidPooling(1, config).eval(), PyramidFusion(1, config).eval()
    with torch.no_grad():
        for branch in pyramid.branches:
            branch.conv.weight.fill_(2.0)  # type: ignore[union-attr, operator]
        fusion.conv.weight.copy_(torch.tensor([1.0, 10.0, 100.0]).view(1, 3, 1, 1))
    x = torch.tensor([[[[1.0, 2.0, 6.0], [1.0, 2.0, 6.0], [1.0, 2.0, 6.0]]]])
    scale = 1 / (1 + 1e-5) ** 0.5
    mean, (left, right) = 2 * 3 * scale, (2 * 1.5 * scale, 2 * 4 * scale)  # both bins of a row hold the middle cell
    row = [1 + 10 * mean + 100 * left, 2 + 10 * mean + 50 * (left + right), 6 + 10 * mean + 100 * right]
    expected = scale * torch.tensor(row).expand(1, 1, 3, 3)
    assert torch.allclose(fusion(x, pyramid(x)), expected, rtol=1e-6)


def test_branch_of_one_bin_keeps_its_statistics_with_a_batch_of_one() -> None:
    network = small().train()
    network(torch.randn(1, 3, 64, 64))
    single, double = (network.pyramid.branches[i].norm for i in (0, 1))
    assert (single.num_batches_tracked.item(), double.num_batches_tracked.item()) == (0, 1)
    network(torch.randn(2, 3, 64, 64))
    assert single.num_batches_tracked.item() == 1


def test_branch_without_norm_has_a_bias() -> None:
    keys = {key.partition(".")[0] for key in PyramidBranch(4, 2, norm=False).state_dict()}
    assert keys == {"conv"}
    assert small(**SMP).pyramid.branches[0].conv.bias is not None
    assert small(**SMP).pyramid.branches[1].conv.bias is None


@pytest.mark.parametrize("pooling", ["adaptive", "fixed"])
def test_pspnet_takes_maps_smaller_than_the_largest_bins(pooling: str) -> None:
    network = small(pooling=pooling).eval()
    assert network(torch.randn(1, 3, 64, 96)).logits.shape == (1, 3, 2, 3)
    assert network.train()(torch.randn(1, 3, 64, 64)).deep[0].shape == (1, 3, 4, 4)


@pytest.mark.parametrize(
    "options", [{}, pytest.param({**SMP, "pooling": "fixed"}, marks=pytest.mark.slow)], ids=["published", "smp, fixed"]
)
def test_pyramid_exports_for_any_height_and_width(options: dict[str, Any]) -> None:
    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            config = PSPNetConfig(bin_width=2, width=2, **options)
            self.pyramid, self.fusion = PyramidPooling(3, config), PyramidFusion(3, config)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fusion(x, self.pyramid(x))  # type: ignore[no-any-return]

    head, sides = Head().eval(), {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    exported = torch.export.export(head, (torch.randn(1, 3, 9, 7),), dynamic_shapes={"x": sides}).module()
    for size in ((3, 5), (20, 31)):
        x = torch.randn(1, 3, *size)
        assert torch.allclose(exported(x), head(x), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {**SMP, "pooling": "fixed"}], ids=["published", "smp, fixed"])
def test_pspnet_exports_for_any_height_and_width(options: dict[str, Any]) -> None:
    network = small(**options).eval()
    sides = {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    images = torch.randn(1, 3, 224, 160)
    exported = torch.export.export(network, (images,), dynamic_shapes={"images": sides}).module()
    for size in ((65, 97), (200, 320)):
        images = torch.randn(1, 3, *size)
        assert torch.allclose(exported(images).logits, network(images).logits, atol=1e-5)


def test_pspnet_terms_are_the_papers() -> None:
    assert [(t.output, t.weight) for t in small().default_terms()] == [("logits", 1.0), ("deep", 0.4)]
    network = small(auxiliary=False)
    assert [t.output for t in network.default_terms()] == ["logits"]
    network.supervise = True
    assert network.eval()(torch.randn(1, 3, 64, 64)).deep == ()


def test_pspnet_auxiliary_head_needs_a_second_stage() -> None:
    trunk = BackboneConfig(name="resnet10t", num_stages=1)
    with pytest.raises(InvalidValue, match="the backbone gives one stage: take num_stages=2 or more"):
        create_model("pspnet", PSPNetConfig.small(), num_classes=2, backbone=trunk)
    assert create_model("pspnet", {"auxiliary": False}, num_classes=2, backbone=trunk).num_classes == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bins": ()}, r"bins of PSPNet must be >= 1, got \(\)"),
        ({"bins": (1, 0)}, r"bins of PSPNet must be >= 1, got \(1, 0\)"),
        ({"width": 0}, "PSPNet width must be >= 1, got 0"),
        ({"bin_width": -1}, "PSPNet bin_width must be >= 1, got -1"),
        ({"auxiliary_width": 0}, "PSPNet auxiliary_width must be >= 1, got 0"),
        ({"kernel_size": 2}, "PSPNet kernel_size must be odd, got 2"),
        ({"classifier_kernel_size": 0}, "PSPNet classifier_kernel_size must be odd, got 0"),
        ({"pooling": "max"}, "PSPNet pooling is one of adaptive, fixed, got 'max'"),
        ({"order": "bins"}, "PSPNet order is one of features_first, bins_first, got 'bins'"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\), got 1.0"),
        ({"auxiliary_weight": 0.0}, "auxiliary_weight must be positive, got 0.0; auxiliary=False"),
    ],
)
def test_pspnet_config_out_of_range_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        PSPNetConfig(**options)
