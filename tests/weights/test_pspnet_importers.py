"""PSPNet and the dilated FCN out of every code base: the function, what is read off, what is said and refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pspnet_layout as layouts
import pytest
import torch
import torchseg_layout as ts
from pspnet_layout import Layout

from perpixel.errors import CheckpointError, InvalidValue
from perpixel.weights import import_checkpoint
from perpixel.weights.importers import IMPORTERS
from perpixel.weights.importers.dilation import dilation_note, dilation_options
from perpixel.weights.importers.importer import resolve_options

IMAGES = torch.randn(1, 3, 33, 49, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def meta(shapes: ts.Shapes) -> dict[str, torch.Tensor]:
    return {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}


@pytest.mark.parametrize(
    ("layout", "sizes", "options"),
    [
        (layouts.TORCHSEG, {"classes": 2, "auxiliary_width": 9}, {"dilation": "full"}),
        (layouts.SEMSEG, {"bins": (1, 4, 2), "bin_width": 3}, {"bins": [1, 4, 2]}),
        (layouts.ENCODING, {"classes": 4, "width": 7}, {}),
        (layouts.SMP, {"width": 5, "bin_width": 32, "stem_width": None}, {}),
        (layouts.ENCODING_FCN, {"classes": 2, "width": 8}, {}),
        (layouts.TORCHVISION_FCN, {"auxiliary_width": None, "stem_width": None}, {}),
    ],
    ids=lambda value: getattr(value, "family", None),
)
def test_network_of_any_size_computes_what_its_code_computes(
    layout: Layout, sizes: dict[str, Any], options: dict[str, Any]
) -> None:
    state = ts.filled(layouts.shapes(layout, **sizes))
    imported = import_checkpoint(state, **options)
    assert imported.report.family == layout.family
    network = imported.network
    assert network.num_classes == sizes.get("classes", 3)
    assert network.align_corners is layout.align_corners
    assert network.logit_stride == 8
    network.supervise = True
    full = options.get("dilation", "full" if layout.full_dilation else "half") == "full"
    with torch.no_grad():
        ours = network(IMAGES)
        logits, auxiliary = layouts.forward(layout, state, IMAGES, bins=sizes.get("bins", (1, 2, 3, 6)), full=full)
    torch.testing.assert_close(ours.logits, logits, rtol=0, atol=1e-9)
    assert len(ours.deep) == (auxiliary is not None)
    if auxiliary is not None:
        torch.testing.assert_close(ours.deep[0], auxiliary, rtol=0, atol=1e-9)
    if not layout.cut:
        assert f"dilation={'full' if full else 'half'}" in imported.report.summary()


@pytest.mark.parametrize(
    ("layout", "said"),
    [(layouts.SEMSEG, "dilation=full"), (layouts.TORCHSEG, "dilation=half"), (layouts.ENCODING_FCN, "dilation=half")],
    ids=lambda value: getattr(value, "family", None),
)
def test_report_says_which_dilation_was_assumed_and_how_to_choose(layout: Layout, said: str) -> None:
    plan = IMPORTERS[layout.family].plan(meta(layouts.shapes(layout)), defaults(layout.family))
    (note, *others) = plan.notes
    assert "weights cannot tell the dilation: output stride 8 was taken" in note
    assert said in note
    assert f"give dilation={'half' if said.endswith('full') else 'full'}" in note
    assert [("bins: 1, 2, 3, 6" in other) for other in others] == ([] if layout.branch is None else [True])


def defaults(family: str) -> dict[str, Any]:
    return {name: option.default for name, option in IMPORTERS[family].options.items()}


def test_note_of_an_undilated_trunk_names_no_convention() -> None:
    note = dilation_note({"output_stride": 32, "dilation": "half"})
    assert "32 was taken, without dilation" in note
    assert set(dilation_options(output_stride=8, dilation="half")) == {"output_stride", "dilation"}


def test_options_reach_the_network() -> None:
    options = {**defaults("semseg/pspnet"), "output_stride": 16, "dilation": "half", "pooling": "fixed"}
    network = IMPORTERS["semseg/pspnet"].plan(meta(layouts.shapes(layouts.SEMSEG)), options).network
    assert (network.logit_stride, network.config.pooling) == (16, "fixed")
    assert network.backbone is not None
    assert (network.backbone.config.output_stride, network.backbone.config.dilation) == (16, "half")


def test_bins_that_do_not_fit_the_branches_are_an_error_that_says_how_many() -> None:
    importer = IMPORTERS["encoding/pspnet"]
    with pytest.raises(CheckpointError, match=r"3 pooled branches, bins = \[1, 2, 3, 6\] names 4"):
        importer.plan(meta(layouts.shapes(layouts.ENCODING, bins=(1, 2, 3))), defaults(importer.family))
    assert resolve_options(importer, {"bins": 4})["bins"] == (4,)
    for value in ("6", [0], [], [True], [1.5]):
        with pytest.raises(InvalidValue, match="bins is a list of whole numbers >= 1"):
            resolve_options(importer, {"bins": value})


@pytest.mark.parametrize("layout", [layouts.ENCODING, layouts.ENCODING_FCN, layouts.TORCHVISION_FCN])
def test_heads_of_torchvision_and_encoding_drop_single_values(layout: Layout) -> None:
    network = IMPORTERS[layout.family].plan(meta(layouts.shapes(layout)), defaults(layout.family)).network
    assert network.config.drop_channels is False


def test_file_of_no_whole_family_is_named_with_what_stands_in_the_way(tmp_path: Path) -> None:
    file = tmp_path / "c.pth"
    tensors = {key: torch.zeros(shape) for key, shape in layouts.shapes(layouts.TORCHVISION_FCN).items()}
    torch.save({**tensors, "extra.weight": torch.zeros(2)}, file)
    for family in ("auto", "torchvision/fcn"):
        with pytest.raises(CheckpointError, match=r"c\.pth: .*; without extra.weight it would be of torchvision/fcn"):
            import_checkpoint(file, family)
    torch.save({"conv1.weight": torch.zeros(2)}, file)
    with pytest.raises(
        CheckpointError, match=r"c\.pth: .*torchvision/fcn.* a network starts from them as its backbone"
    ):
        import_checkpoint(file)


def test_semsegs_plain_stem_is_read() -> None:
    stem = {"conv1": "layer0.0", "layer0.7": "layer0.1"}
    deep = {key.rpartition("."): shape for key, shape in layouts.shapes(layouts.SEMSEG, stem_width=None).items()}
    plain = {f"{stem.get(name, name)}.{leaf}": shape for (name, _, leaf), shape in deep.items()}
    plan = IMPORTERS["semseg/pspnet"].plan(meta(plain), defaults("semseg/pspnet"))
    assert plan.network.backbone is not None
    assert plan.network.backbone.config.stem == "7x7"
    assert {plan.rename(key) for key in plain} == set(plan.network.state_dict())


def test_imagenet_classifier_in_the_trunk_is_known_to_be_unused() -> None:
    shapes = layouts.shapes(layouts.ENCODING_FCN, stem_width=None, auxiliary_width=None)
    plan = IMPORTERS["encoding/fcn"].plan(meta(shapes), defaults("encoding/fcn"))
    assert "classifier" in plan.unused["pretrained.fc."]
    assert not plan.network.config.auxiliary


def test_smp_reads_the_branch_of_one_bin_wherever_it_stands() -> None:
    shapes = layouts.shapes(layouts.SMP, bins=(2, 1))
    config = IMPORTERS["smp/pspnet"].plan(meta(shapes), {**defaults("smp/pspnet"), "bins": (2, 1)}).network.config
    assert not config.norm_of_single_bin
    assert (config.order, config.kernel_size, config.classifier_kernel_size) == ("bins_first", 1, 3)
    normed = {**layouts.shapes(layouts.SMP, bins=(2, 3))}
    network = IMPORTERS["smp/pspnet"].plan(meta(normed), {**defaults("smp/pspnet"), "bins": (2, 3)}).network
    assert network.config.norm_of_single_bin


def test_smp_stages_that_are_not_used_are_known_and_strange_keys_are_not() -> None:
    tensors = meta({**layouts.shapes(layouts.SMP), "encoder.layer3.0.strange": (1,)})
    plan = IMPORTERS["smp/pspnet"].plan(tensors, defaults("smp/pspnet"))
    unused = [key for key in tensors if key.startswith(("encoder.layer3.", "encoder.layer4."))]
    assert [*plan.unused] == ["classification_head.", *(key for key in unused if "strange" not in key)]
    assert all("does not use" in plan.unused[key] for key in [*plan.unused][1:])


def test_smp_depth_is_read_off_the_channels_and_must_fit_them() -> None:
    deep = layouts.shapes(layouts.SMP)
    for name in [key for key in deep if key.startswith("decoder.psp.") and key.endswith("conv.weight")]:
        del deep[name]
    for i in range(4):
        deep[f"decoder.psp.blocks.{i}.pool.1.0.weight"] = (4, 256, 1, 1)
    importer, given = IMPORTERS["smp/pspnet"], defaults("smp/pspnet")
    network = importer.plan(meta(deep), given).network
    assert network.backbone is not None
    assert network.logit_stride == 16
    with pytest.raises(CheckpointError, match="reads 256 channels, which resnet18 does not give at encoder_depth=3"):
        importer.plan(meta(deep), {**given, "encoder_depth": 3})
