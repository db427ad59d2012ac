"""The main promise: what is committed here, and what lies under PERPIXEL_REFERENCE, is computed as published."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from perpixel.losses import cross_entropy, sigmoid_focal_loss, torchseg_focal_loss
from perpixel.ops import resize
from perpixel.weights import import_checkpoint, verify
from perpixel.weights.checkers.border_targets import MAX_DIFFERING_SHARE
from perpixel.weights.reference_values import fill_value, make_input, make_label

HERE = Path(__file__).parent
SHARED = Path(os.environ.get("PERPIXEL_REFERENCE", HERE.parents[2] / "shared" / "reference"))
COMMITTED = {
    "backbones/torchseg-resnet18": 4,
    "blocks/encoding-layer": 3,
    "blocks/encoding-module": 2,
    "blocks/ocr-head": 3,
    "border-targets/torchseg-dfn": 4,
    "dense-crf/crfasrnn": 8,
    "dense-crf/pydensecrf": 19,
    "evaluators/multi-scale-flip-sliding": 21,
    "losses/torchseg": 17,
    "networks/caffe-deeplabv1/largefov-voc": 2,
    "networks/caffe-deeplabv1/msc-largefov-voc": 1,
    "networks/caffe-segnet-basic/camvid": 1,
    "networks/caffe-segnet/camvid": 1,
    "networks/delta-onera-segnet/vgg16": 1,
    "networks/drsleep-refinenet-lw/mbv2-voc": 1,
    "networks/hrnet-hrnet/w18-cityscapes": 1,
    "networks/kazuto-deeplabv1/r101-voc": 1,
    "networks/kazuto-deeplabv2/r101-aspp-l-voc": 1,
    "networks/milesial-unet/deconv": 2,
    "networks/smp-unet/r34": 1,
    "networks/torchseg-dfn/r101-voc": 9,
    "networks/torchseg-fcn32s/r101-voc": 4,
    "networks/torchvision-lraspp/mbv3l-voc": 1,
    "networks/unet-original/paper": 1,
    "networks/vainf-deeplabv3plus/mbv2-os16-voc": 1,
    "scores": 563,
}
HEAVY = {
    "networks/caffe-deconvnet/voc": 1,
    "networks/caffe-dilation/dilation8-camvid": 2,
    "networks/caffe-dilation/dilation8-voc": 2,
    "networks/drsleep-refinenet-lw/r50-voc": 1,
    "networks/drsleep-refinenet/r101-voc": 1,
    "networks/encoding-encnet/r50s-ade": 3,
    "networks/encoding-fcn/r50s-ade": 2,
    "networks/encoding-pspnet/r50s-ade": 2,
    "networks/hrnet-hrnet/w48-cityscapes": 1,
    "networks/hrnet-ocrnet/w18-cityscapes": 2,
    "networks/liminn-icnet/r50-cityscapes": 1,
    "networks/ptsemseg-icnet/cityscapes-1025x2049": 4,
    "networks/semseg-pspnet/r50-voc": 3,
    "networks/smp-deeplabv3plus/r50": 1,
    "networks/torchseg-pspnet/r50-ade": 3,
    "networks/torchvision-deeplabv3/r50-voc": 2,
    "networks/torchvision-fcn/r50-voc": 2,
    "networks/vainf-deeplabv3plus/r50-os16-voc": 1,
    "networks/wkentaro-fcn16s/vgg16-voc": 2,
    "networks/wkentaro-fcn32s/vgg16-voc": 2,
    "networks/wkentaro-fcn8s/vgg16-voc": 2,
    "networks/yassouali-gcn/r50-k15-voc": 1,
    "networks/zijundeng-gcn/r152-k7-voc": 1,
}
"""Networks that take seconds each: of many parameters, or at full size."""


def changed_copy(source: Path, target: Path, name: str, amount: float) -> Path:
    shutil.copytree(source, target)
    with np.load(source / "expected.npz") as stored:
        arrays = {key: stored[key].copy() for key in stored.files}
    arrays[name] = arrays[name].astype(np.float64) + amount
    np.savez(target / "expected.npz", **arrays)
    return target


@pytest.mark.parametrize(
    ("folder", "rows"),
    [*COMMITTED.items(), *(pytest.param(*entry, marks=pytest.mark.slow) for entry in HEAVY.items())],
    ids=[*COMMITTED, *HEAVY],
)
def test_committed_vector_holds(folder, rows):
    result = verify(HERE / folder)
    assert result.passed, result.summary()
    assert len(result.rows) == rows


@pytest.mark.parametrize("folder", ["backbones/torchseg-resnet50-v1c", "backbones/torchseg-resnet101-v1c"])
@pytest.mark.slow
def test_shared_vector_holds(folder):
    if not (SHARED / folder).is_dir():
        pytest.skip(f"no {SHARED / folder}; set PERPIXEL_REFERENCE to the folder of reference vectors")
    result = verify(SHARED / folder)
    assert result.passed, result.summary()


@pytest.mark.parametrize(
    ("folder", "name", "amount"),
    [
        ("backbones/torchseg-resnet18", "stage3", 1e-7),
        ("losses/torchseg", "focal_as_coded_grad", 1e-8),
        ("losses/torchseg", "focal_standard_map", 1e-8),
        ("losses/torchseg", "focal_curve_target1", 1e-8),
        ("losses/torchseg", "ohem_b_kept", 1.0),
        ("losses/torchseg", "ohem_c_loss", 1e-6),
        ("losses/torchseg", "poly_lr", 1e-8),
        ("losses/torchseg", "se_target", 1.0),
        ("border-targets/torchseg-dfn", "edge1", 1.0),
        ("evaluators/multi-scale-flip-sliding", "torchseg_msf_small_sum_s2", 1e-4),
        ("evaluators/multi-scale-flip-sliding", "encoding_ss_pred", 1.0),
        ("dense-crf/crfasrnn", "filled_it1", 0.1),
        ("dense-crf/crfasrnn", "grad_compatibility_matrix", 1.0),
        ("dense-crf/crfasrnn", "rawrev_f5", 1.0),
        ("dense-crf/pydensecrf", "c5_compat_matrix_q5", 1e-5),
    ],
)
def test_changed_expectation_fails_that_row(tmp_path, folder, name, amount):
    result = verify(changed_copy(HERE / folder, tmp_path / "changed", name, amount))
    assert result.failed
    assert {row.name.removesuffix(" distance") for row in result.rows if not row.passed} == {name}


def test_border_targets_that_ignore_a_map_fail_by_distance_and_share(tmp_path):
    folder = shutil.copytree(HERE / "border-targets/torchseg-dfn", tmp_path / "blank")
    with np.load(folder / "expected.npz") as stored:
        arrays = {key: stored[key].copy() for key in stored.files}
    arrays["gt0"][:] = 0
    np.savez(folder / "expected.npz", **arrays)
    share, distance = (row for row in verify(folder).rows if row.name.startswith("edge0"))
    assert share.error > MAX_DIFFERING_SHARE
    assert distance.error == float("inf")


@pytest.mark.slow
def test_losses_of_the_whole_dfn_are_the_published_ones():
    folder = HERE / "networks/torchseg-dfn/r101-voc"
    manifest = json.loads((folder / "manifest.json").read_text())
    expected = np.load(folder / "expected.npz")
    state = {key: torch.from_numpy(fill_value(key, shape)) for key, shape, _ in manifest["state_dict"]}
    network = import_checkpoint(state).network
    network.supervise = True
    size = (64, 96)
    with torch.no_grad():
        output = network(torch.from_numpy(make_input("image", (1, 3, *size))))
    label = torch.from_numpy(make_label("label", (1, *size), 21))
    borders = torch.from_numpy(make_label("aux_label", (1, *size), 2))

    def enlarged(scores: Tensor) -> Tensor:
        return resize(scores, size, align_corners=True)

    ours = {f"ce{i}": cross_entropy(enlarged(s), label) for i, s in enumerate((*output.deep, output.logits))}
    for i, scores in enumerate(map(enlarged, output.border)):
        ours[f"focal_as_coded{i}"] = torchseg_focal_loss(scores, borders)
        ours[f"focal_standard_mean_all{i}"] = sigmoid_focal_loss(scores, borders, reduction="mean_all")
        ours[f"focal_standard_mean_valid{i}"] = sigmoid_focal_loss(scores, borders)
    ours["train_loss"] = sum(ours[f"ce{i}"] + 0.1 * ours[f"focal_as_coded{i}"] for i in range(4))
    for name, value in ours.items():
        assert value.item() == pytest.approx(float(expected[name].item()), rel=1e-9), name
