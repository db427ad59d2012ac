"""PyTorch-Encoding's EncNet: any depth, width, classes and parts are read off the checkpoint."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import encnet_layout as pe
import numpy as np
import pytest
import torch
from torchseg_layout import filled

from perpixel.errors import CheckpointError, InvalidValue
from perpixel.losses import SegmentationLoss
from perpixel.ops import resize
from perpixel.types import SegOutput
from perpixel.weights import import_checkpoint
from perpixel.weights.reference_values import fill_value, make_input, make_label

SHARED = Path(os.environ.get("PERPIXEL_REFERENCE", Path(__file__).parents[3] / "shared" / "reference"))
IMAGES = torch.randn(1, 3, 40, 56, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


@pytest.mark.parametrize(
    ("depth", "stem_width", "parts"),
    [
        ("resnet18", None, {}),
        ("resnet18", 64, {"classes": 7, "width": 9, "num_codewords": 3, "lateral": True}),
        ("resnet18", 32, {"auxiliary_width": None, "presence": False, "num_codewords": 1}),
        pytest.param("resnet50", 64, {"lateral": True, "presence": False}, marks=pytest.mark.slow),
        pytest.param("resnet101", 64, {"classes": 59, "lateral": True}, marks=pytest.mark.slow),
    ],
)
def test_encnet_of_any_size_computes_what_its_code_computes(
    depth: str, stem_width: int | None, parts: dict[str, Any]
) -> None:
    state = filled(pe.encnet_shapes(depth, stem_width=stem_width, **parts))
    imported = import_checkpoint(state)
    assert imported.report.family == "encoding/encnet"
    network = imported.network
    network.supervise = True
    with torch.no_grad():
        output = network(IMAGES)
        theirs = pe.encnet_forward(state, depth, stem_width, IMAGES)
    ours = {"out": output.logits} | ({"aux": output.deep[0]} if output.deep else {})
    ours = {name: resize(x, IMAGES.shape[-2:], align_corners=network.align_corners) for name, x in ours.items()}
    ours |= {"se": output.presence[0]} if output.presence else {}
    assert set(ours) == set(theirs)
    for name, expected in theirs.items():
        torch.testing.assert_close(ours[name], expected, rtol=0, atol=1e-9)


def test_sizes_and_parts_are_read_off_keys_and_shapes() -> None:
    shapes = pe.encnet_shapes(classes=6, width=10, num_codewords=7, auxiliary_width=3, lateral=True, in_channels=4)
    network = import_checkpoint(filled(shapes)).network
    config = network.config
    assert (network.num_classes, config.width, config.num_codewords, config.auxiliary_width) == (6, 10, 7, 3)
    assert (config.lateral, config.presence, config.auxiliary, config.second_module) == (True, True, True, False)
    assert network.preprocessing.num_channels == 4


def test_report_says_which_dilation_was_assumed_and_how_to_choose() -> None:
    state = filled(pe.encnet_shapes())
    summary = import_checkpoint(state).report.summary()
    assert "weights cannot tell the dilation: output stride 8 was taken, and dilation=half" in summary
    with torch.no_grad():
        half, full = (import_checkpoint(state, dilation=d).network(IMAGES).logits for d in ("half", "full"))
    assert not torch.allclose(half, full)
    assert import_checkpoint(state, output_stride=16, align_corners=False).network.logit_stride == 16


def test_unused_classifier_of_the_trunk_is_reported() -> None:
    state = {
        **filled(pe.encnet_shapes()),
        "pretrained.fc.weight": torch.zeros(5, 512),
        "pretrained.fc.bias": torch.zeros(5),
    }
    ignored = import_checkpoint(state).report.ignored
    assert [key for key, reason in ignored if "ImageNet classifier" in reason] == [
        "pretrained.fc.weight",
        "pretrained.fc.bias",
    ]


def test_pyramid_of_a_fork_is_of_no_known_family() -> None:
    state = {**filled(pe.encnet_shapes()), "jpu.conv5.0.weight": torch.zeros(4, 512, 3, 3)}
    with pytest.raises(CheckpointError, match="keys are of no known family"):
        import_checkpoint(state)


def test_lateral_connections_at_another_stride_are_refused() -> None:
    with pytest.raises(InvalidValue, match="lateral connections join maps of one stride"):
        import_checkpoint(filled(pe.encnet_shapes(lateral=True)), output_stride=16)


def test_misshapen_codewords_are_an_error() -> None:
    state = filled(pe.encnet_shapes())
    state["head.encmodule.encoding.3.codewords"] = torch.zeros(5)
    with pytest.raises(CheckpointError, match=r"codewords' has shape \(5,\), 2 dimensions expected"):
        import_checkpoint(state)


def test_missing_classifier_is_an_error_that_names_it() -> None:
    state = filled(pe.encnet_shapes())
    del state["head.conv6.1.weight"]
    with pytest.raises(CheckpointError, match=r"lacks 'head\.conv6\.1\.weight'"):
        import_checkpoint(state)


@pytest.mark.slow
def test_training_loss_of_the_whole_encnet_is_the_published_one() -> None:
    folder = SHARED / "networks/encoding-encnet/r50s-ade"
    if not folder.is_dir():
        pytest.skip(f"no {folder}; set PERPIXEL_REFERENCE to the folder of reference vectors")
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    expected = np.load(folder / "expected.npz")
    state = {key: torch.from_numpy(fill_value(key, shape)) for key, shape, _ in manifest["state_dict"]}
    network = import_checkpoint(state).network
    network.supervise = True
    batch, _, *size = shape = manifest["inputs"]["image"]
    with torch.no_grad():
        output: SegOutput = network(torch.from_numpy(make_input("image", shape)))
    label = torch.from_numpy(make_label("label", (batch, *size), network.num_classes, ignore_index=-1))
    few = torch.where(label >= 7, 3, label)  # the vector's: most classes absent
    criterion = SegmentationLoss(
        network.default_terms(), num_classes=network.num_classes, align_corners=True, ignore_index=-1
    )
    loss = criterion(output, few).total.item()
    assert loss == pytest.approx(float(expected["train_loss_few"].item()), rel=1e-9)
