from __future__ import annotations

import deeplab_layout as dl
import pytest
import torch

from perpixel.backbones import DEEPLAB_PREPROCESSING
from perpixel.errors import CheckpointError, InvalidValue
from perpixel.weights import import_checkpoint

IMAGES = torch.randn(1, 3, 49, 67, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
ASPP_L, ASPP_S = (6, 12, 18, 24), (2, 4, 8, 12)


@pytest.mark.parametrize(("options", "rates"), [({}, ASPP_L), ({"atrous_rates": [2, 4, 8, 12]}, ASPP_S)])
def test_deeplab_v2_over_three_scales_computes_what_that_code_computes(options, rates):
    state = dl.filled(dl.kazuto_shapes())
    imported = import_checkpoint(state, **options)
    assert imported.report.family == "kazuto/deeplabv2"
    network = imported.network
    assert network.config.multi_scale and network.config.atrous_rates == rates
    assert not network.align_corners and network.preprocessing == DEEPLAB_PREPROCESSING
    network.supervise = True
    with torch.no_grad():
        output = network(IMAGES)
        theirs = dl.kazuto_multi_scale(state, IMAGES, rates)
    for ours, wanted in zip((*output.deep, output.logits), theirs, strict=True):
        assert ours.shape == wanted.shape
        torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-9)


def test_keys_without_wrapper_are_of_one_scale_unless_told():
    state = dl.filled(dl.kazuto_shapes(prefix=""))
    network = import_checkpoint(state).network
    assert not network.config.multi_scale
    with torch.no_grad():
        torch.testing.assert_close(network(IMAGES).logits, dl.kazuto_scores(state, IMAGES, ASPP_L), rtol=0, atol=1e-9)
        told = import_checkpoint(state, multi_scale=True).network(IMAGES).logits
        torch.testing.assert_close(told, dl.kazuto_multi_scale(state, IMAGES, ASPP_L)[-1], rtol=0, atol=1e-9)
    wrapped = dl.filled(dl.kazuto_shapes())
    assert not import_checkpoint(wrapped, multi_scale=False).network.config.multi_scale


def test_one_classifier_computes_what_that_code_computes():
    state = dl.filled(dl.kazuto_shapes("fc", prefix="", blocks=(3, 4, 23, 3), width=2))
    imported = import_checkpoint(state)
    assert imported.report.family == "kazuto/deeplabv1"
    assert imported.network.backbone.config.name == "caffe_resnet101"
    with torch.no_grad():
        ours = imported.network(IMAGES).logits
        torch.testing.assert_close(ours, dl.kazuto_scores(state, IMAGES, ()), rtol=0, atol=1e-9)


def test_one_branch_takes_one_rate():
    state = dl.filled(dl.kazuto_shapes(branches=1, prefix=""))
    network = import_checkpoint(state, atrous_rates=12).network
    assert network.config.atrous_rates == (12,)
    with torch.no_grad():
        ours = network(IMAGES).logits
        torch.testing.assert_close(ours, dl.kazuto_scores(state, IMAGES, (12,)), rtol=0, atol=1e-9)


def test_other_number_of_rates_than_branches_is_refused():
    state = dl.filled(dl.kazuto_shapes(branches=2))
    with pytest.raises(CheckpointError, match=r"has 2 branches, atrous_rates = \[6, 12, 18, 24\] names 4"):
        import_checkpoint(state)


@pytest.mark.parametrize("value", [[], [0, 2, 4, 8], "6,12", [True], 2.5])
def test_rates_of_another_kind_are_refused(value):
    with pytest.raises(InvalidValue, match="atrous_rates is a list of whole numbers >= 1, one per branch, got"):
        import_checkpoint(dl.filled(dl.kazuto_shapes(width=1)), "kazuto/deeplabv2", atrous_rates=value)


def test_unknown_depth_is_refused():
    state = dl.filled(dl.kazuto_shapes(blocks=(3, 4, 5, 3)))
    with pytest.raises(CheckpointError, match=r"hold \(3, 4, 5, 3\) blocks, which is none of caffe_resnet50"):
        import_checkpoint(state)


def test_left_over_keys_are_an_error():
    state = dl.filled(dl.kazuto_shapes(width=1))
    state["base.extra.weight"] = torch.zeros(1)
    with pytest.raises(CheckpointError, match=r"left over .*base.extra.weight"):
        import_checkpoint(state)


def test_checkpoint_without_batch_counters_are_accepted():
    state = {k: v for k, v in dl.filled(dl.kazuto_shapes(width=1)).items() if not k.endswith("num_batches_tracked")}
    assert "batch counters" in import_checkpoint(state).report.summary()
