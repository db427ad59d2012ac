"""GCN: blocks worked out by hand, sizes, published counts, export for all sizes."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from perpixel.backbones import BackboneConfig
from perpixel.errors import InvalidValue
from perpixel.models import GCN, GCNConfig, create_model
from perpixel.models.gcn import BoundaryRefinement, GlobalConvolution
from perpixel.types import Preprocessing

PORT = GCNConfig(kernel_sizes=(7,), upsampling="bilinear")
"""The form of zijundeng's port."""
YASSOUALI = GCNConfig(kernel_sizes=(15,), upsampling="bilinear", half_scale=False, final_convolution=True)


class StridedTrunk(nn.Module):
    """Three maps of 4 channels at the given strides, each cell on every stride-th pixel."""

    def __init__(self, strides: tuple[int, ...] = (4, 8, 16)) -> None:
        super().__init__()
        self.config = BackboneConfig()
        self.strides = strides
        self.channels = (4,) * len(strides)
        self.preprocessing = Preprocessing()
        steps = [strides[0], *(b // a for a, b in pairwise(strides))]
        self.convs = nn.ModuleList(
            nn.Conv2d(4 if i else 3, 4, 3, stride=step, padding=1) for i, step in enumerate(steps)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        maps = []
        for conv in self.convs:
            x = conv(x)
            maps.append(x)
        return tuple(maps)


def gcn(config: GCNConfig | None = None, classes: int = 2, strides: tuple[int, ...] = (4, 8, 16)) -> GCN:
    torch.manual_seed(0)
    return GCN(StridedTrunk(strides), classes, config or GCNConfig.small()).eval()  # type: ignore[arg-type]


def test_global_convolution_of_ones_spreads_a_point_over_its_square_twice() -> None:
    block = GlobalConvolution(1, 1, 3)
    for parameter in block.parameters():
        nn.init.constant_(parameter, 1.0 if parameter.ndim == 4 else 0.0)
    x = torch.zeros(1, 1, 5, 6)
    x[..., 2, 3] = 1
    wanted = torch.zeros(5, 6)
    wanted[1:4, 2:5] = 2
    assert torch.equal(block(x)[0, 0], wanted)


def test_global_convolution_turns_its_kernel_the_other_way_in_each_branch() -> None:
    block = GlobalConvolution(3, 2, 5)
    assert [tuple(conv.kernel_size) for conv in (*block.vertical_first, *block.horizontal_first)] == [
        (5, 1),
        (1, 5),
        (1, 5),
        (5, 1),
    ]
    # k = 9 on 2048 channels: linear in k where the plain kernel is quadratic.
    with torch.device("meta"):
        wide = GlobalConvolution(2048, 21, 9)
    assert sum(p.numel() for p in wide.parameters()) == 2 * (9 * 21 * (2048 + 21) + 2 * 21) == 782_166


def test_boundary_refinement_adds_what_passes_both_convolutions() -> None:
    block = BoundaryRefinement(1)
    for conv, bias in ((block.residual[0], -1.0), (block.residual[2], 0.5)):
        nn.init.dirac_(conv.weight)  # type: ignore[arg-type]
        nn.init.constant_(conv.bias, bias)  # type: ignore[arg-type]
    x = torch.tensor([[[[3.0, 1.0, -2.0]]]])
    assert torch.equal(block(x), torch.tensor([[[[5.5, 1.5, -1.5]]]]))  # x + max(x - 1, 0) + 0.5


@pytest.mark.parametrize(
    ("config", "backbone", "parameters"),
    [(PORT, "resnet152", 59_369_620), (YASSOUALI, "resnet50", 26_053_526 - 9 * 4 * 21)],
)
def test_gcn_has_the_published_number_of_parameters(config: GCNConfig, backbone: str, parameters: int) -> None:
    # yassouali's blocks hold two batch norms each that are never called.
    with torch.device("meta"):
        network = create_model("gcn", config, num_classes=21, backbone=backbone)
    assert sum(p.numel() for p in network.parameters()) == parameters


def test_gcn_by_default_is_the_papers() -> None:
    config = GCNConfig()
    assert (config.kernel_sizes, config.upsampling, config.refinement) == ((15,), "deconvolution", True)
    assert [t.name for t in gcn().default_terms()] == ["main"]


@pytest.mark.parametrize("crop", ["end", "start"])
def test_deconvolution_keeps_cells_in_place_or_drops_the_first(crop: Any) -> None:
    network = gcn(GCNConfig(kernel_sizes=(1,), deconvolution_crop=crop), classes=1)
    row = torch.tensor([[[[2.0, 4.0]]]])
    enlarged = network._enlarged(row, 0, (1, 3))
    # Doubled: 2, 3, 4, 2 (half of the last, for it meets the zeros outside) in the first row.
    rows = network._enlarged(row, 0, (2, 4))
    assert torch.equal(rows[0, 0, 0], torch.tensor([2.0, 3.0, 4.0, 2.0]))
    wanted = [2.0, 3.0, 4.0] if crop == "end" else [1.5, 2.0, 1.0]
    assert enlarged.flatten().tolist() == wanted


@pytest.mark.parametrize("kernel", [2, 3, 4, 5])
@pytest.mark.parametrize("size", [(33, 50), (48, 64)])
def test_gcn_deconvolution_of_any_kernel_takes_any_size(kernel: int, size: tuple[int, int]) -> None:
    network = gcn(GCNConfig(kernel_sizes=(3,), deconvolution_kernel=kernel))
    assert network(torch.randn(1, 3, *size)).logits.shape[-2:] == size


@pytest.mark.parametrize("strides", [(2, 4, 8), (4, 8, 8)])
def test_gcn_takes_finer_and_dilated_trunks(strides: tuple[int, ...]) -> None:
    x = torch.randn(1, 3, 35, 50)
    assert gcn(strides=strides)(x).logits.shape[-2:] == (35, 50)
    assert gcn(replace(PORT, half_scale=False), strides=(1, 4, 8))(x).logits.shape[-2:] == (35, 50)


def test_gcn_enlarges_by_its_own_policy_at_each_step() -> None:
    calls: list[tuple[int, int]] = []
    for config, wanted in (
        (PORT, [(3, 4), (5, 7), (10, 13), (19, 26)]),
        (replace(PORT, half_scale=False), [(3, 4), (5, 7), (19, 26)]),
    ):
        network = gcn(config)
        calls.clear()
        network._enlarged = lambda x, _step, size: calls.append(size) or x.new_zeros(*x.shape[:2], *size)  # type: ignore[method-assign,func-returns-value,assignment]
        network(torch.randn(1, 3, 19, 26))
        assert calls == wanted


def test_gcn_kernels_may_differ_by_stage_coarsest_first() -> None:
    network = gcn(GCNConfig(kernel_sizes=(3, 5, 7)))
    assert [stage[0].vertical_first[0].kernel_size for stage in network.stages] == [(3, 1), (5, 1), (7, 1)]


def test_gcn_without_refinement_has_no_other_weights_than_kernels() -> None:
    plain = gcn(GCNConfig(kernel_sizes=(3,), refinement=False, upsampling="bilinear"))
    behind = {name for name, _ in plain.named_parameters() if not name.startswith("backbone.")}
    assert all("_first." in name for name in behind) and len(behind) == 3 * 8


def test_gcn_valid_sizes_double_exactly_unless_corners_are_aligned() -> None:
    assert gcn().valid_size(33, 17) == (48, 32)
    assert gcn(PORT).valid_size(33, 17) == (33, 32)
    assert gcn(replace(PORT, align_corners=False)).valid_size(33, 17) == (48, 32)


@pytest.mark.parametrize("config", [GCNConfig.small(), PORT], ids=["deconvolution", "bilinear"])
def test_gcn_exports_for_all_multiples_of_its_stride(config: GCNConfig) -> None:
    network = gcn(config, strides=(4, 8))
    rows, columns = torch.export.Dim("rows", min=2, max=64), torch.export.Dim("columns", min=2, max=64)
    sizes = {2: 8 * rows, 3: 8 * columns}
    exported = torch.export.export(network, (torch.randn(1, 3, 24, 32),), dynamic_shapes=(sizes,)).module()
    x = torch.randn(1, 3, 48, 16)
    assert torch.allclose(exported(x).logits, network(x).logits, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel_sizes": (4,)}, r"GCN kernel_sizes are odd, to keep sizes, got \[4\]"),
        ({"kernel_sizes": ()}, r"GCN kernel_sizes are odd, to keep sizes, got \[\]"),
        ({"upsampling": "nearest"}, "upsampling is 'deconvolution' or 'bilinear', got 'nearest'"),
        ({"deconvolution_crop": "left"}, "deconvolution_crop is 'end' or 'start', got 'left'"),
        ({"deconvolution_kernel": 1}, "deconvolution_kernel must be >= 2 to double a map, got 1"),
        ({"half_scale": False}, "half_scale=False leaves a step of 4"),
    ],
)
def test_gcn_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        GCNConfig(**options)


@pytest.mark.parametrize(
    ("config", "strides", "message"),
    [
        (GCNConfig(kernel_sizes=(3, 5)), (4, 8, 16), "kernel_sizes has 2 numbers, the backbone 3 stages"),
        (PORT, (1, 2, 4), "half_scale refines at stride 2, but the backbone's finest map has stride 1"),
        (GCNConfig(), (4, 16, 32), r"deconvolution doubles, .*\[4, 16, 32\] the steps are \[2, 4, 2, 2\]"),
    ],
)
def test_gcn_backbones_that_do_not_fit_are_refused(config: GCNConfig, strides: Any, message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        gcn(config, strides=strides)
