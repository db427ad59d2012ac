from __future__ import annotations

import hrnet_layout as hl
import pytest
import torch

from perpixel.backbones import HRNETS
from perpixel.errors import CheckpointError, InvalidValue
from perpixel.weights import import_checkpoint
from perpixel.weights.importers.hrnet import read_hrnet

THIN = hl.Sizes()
IMAGES = torch.randn(1, 3, 41, 70, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize(
    "sizes",
    [
        THIN,
        hl.Sizes(width=4, stem=5, inner=2, bottlenecks=2, modules=(2, 1, 2), blocks=2, classes=2, kernel=3),
        hl.Sizes(width=8, stem=8, inner=2, classes=3),  # neither a shortcut behind the stem nor a first transition
    ],
)
def test_hrnet_of_any_size_computes_what_that_code_computes(sizes: hl.Sizes, aligned: bool) -> None:
    state = hl.filled(hl.hrnet_shapes(sizes))
    imported = import_checkpoint(state, align_corners=aligned)
    assert imported.report.family == "hrnet/hrnet"
    network = imported.network
    assert (network.num_classes, network.align_corners) == (sizes.classes, aligned)
    with torch.no_grad():
        ours = network(IMAGES).logits
        theirs = hl.hrnet_forward(state, sizes, IMAGES, aligned)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("sizes", [THIN, hl.Sizes(width=2, blocks=2, modules=(1, 2, 1), classes=4, pixel=6, key=9)])
def test_ocrnet_of_any_size_computes_what_that_code_computes(sizes: hl.Sizes, aligned: bool) -> None:
    state = hl.filled(hl.ocrnet_shapes(sizes))
    imported = import_checkpoint(state, align_corners=aligned)
    assert imported.report.family == "hrnet/ocrnet"
    network = imported.network
    assert (network.config.pixel_width, network.config.key_width) == (sizes.pixel, sizes.key)
    network.supervise = True
    with torch.no_grad():
        output = network(IMAGES)
        regions, logits = hl.ocrnet_forward(state, sizes, IMAGES, aligned)
    torch.testing.assert_close(output.deep[0], regions, rtol=0, atol=1e-9)
    torch.testing.assert_close(output.logits, logits, rtol=0, atol=1e-9)


def test_branches_of_that_code_differ_in_alignment_and_momentum() -> None:
    hrnet, ocrnet = hl.filled(hl.hrnet_shapes(THIN)), hl.filled(hl.ocrnet_shapes(THIN))
    assert not import_checkpoint(hrnet).network.align_corners
    assert import_checkpoint(ocrnet).network.align_corners
    assert import_checkpoint(hrnet).network.backbone.bn1.momentum == 0.1
    slower = import_checkpoint(hrnet, norm_momentum=0.01).network
    assert {m.momentum for m in slower.modules() if isinstance(m, torch.nn.BatchNorm2d)} == {0.01}
    with pytest.raises(InvalidValue, match=r"norm_momentum is one of 0.1, 0.01, got 0.5"):
        import_checkpoint(hrnet, norm_momentum=0.5)


@pytest.mark.parametrize("make", [hl.hrnet_shapes, hl.ocrnet_shapes])
def test_released_form_with_prefix_and_loss_is_the_same_network(make) -> None:
    state = hl.filled(make(THIN), torch.float32)
    wrapped = {f"module.model.{key}": value for key, value in state.items()}
    wrapped["module.loss.criterion.weight"] = torch.ones(5)
    plain, imported = import_checkpoint(state), import_checkpoint({"state_dict": wrapped, "epoch": 484})
    ours = plain.network.state_dict()
    assert all(torch.equal(value, ours[key]) for key, value in imported.network.state_dict().items())
    notes = imported.report.notes
    assert any("training loss" in note and note.endswith("left aside: loss.criterion.weight") for note in notes)
    assert [note for note in notes if "taken off" in note] == [
        "prefix 'module.' taken off",
        "prefix 'model.' taken off",
    ]


@pytest.mark.parametrize("name", HRNETS)
def test_published_layouts_are_read_off_keys_and_shapes(name: str) -> None:
    published = HRNETS[name]
    first, second, third = published.num_modules
    sizes = hl.Sizes(
        width=published.width,
        stem=published.stem_width,
        inner=published.bottleneck_width,
        bottlenecks=published.num_bottlenecks,
        modules=(first, second, third),
        blocks=published.num_blocks,
        in_channels=4,
    )
    tensors = {f"model.{k}": torch.empty(s, device="meta") for k, s in hl.trunk_shapes(sizes).items()}
    assert read_hrnet(tensors, "model.") == published


def test_trunk_of_a_published_layout_is_called_by_its_name() -> None:
    small = hl.Sizes(width=16, stem=64, inner=32, blocks=2, in_channels=1)
    config = import_checkpoint(hl.filled(hl.hrnet_shapes(small), torch.float32)).network
    assert config.backbone.config.name == "hrnet_w18_small"
    assert config.config.width is None
    assert config.preprocessing.num_channels == 1


def test_missing_stage_is_refused() -> None:
    state = {k: v for k, v in hl.filled(hl.hrnet_shapes(THIN)).items() if not k.startswith("stage3.")}
    with pytest.raises(CheckpointError, match=r"'stage2..4' hold \(1, 0, 1\) modules; each stage"):
        import_checkpoint(state)


def test_branches_of_other_widths_are_refused_with_their_names() -> None:
    state = hl.filled(hl.hrnet_shapes(THIN))
    state["transition3.3.0.0.weight"] = torch.zeros(25, 12, 3, 3)
    with pytest.raises(CheckpointError, match=r"transition3.3.0.0.weight \(25, 12, 3, 3\), ours \(24, 12, 3, 3\)"):
        import_checkpoint(state)


def test_trunk_without_a_head_is_of_no_family() -> None:
    with pytest.raises(CheckpointError, match="of no known family"):
        import_checkpoint(hl.filled(hl.trunk_shapes(THIN)))
