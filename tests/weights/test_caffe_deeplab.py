from __future__ import annotations

import deeplab_layout as dl
import pytest
import torch

from perpixel.backbones import DEEPLAB_PREPROCESSING
from perpixel.errors import CheckpointError, InvalidValue
from perpixel.weights import import_checkpoint

IMAGES = torch.randn(1, 3, 41, 57, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


@pytest.mark.parametrize(
    ("kernel", "options", "dilation", "pool5a"),
    [
        (3, {}, 12, True),
        (7, {}, 4, False),
        (4, {}, 4, False),
        (4, {"fc6_dilation": 8}, 8, False),
        (3, {"fc6_dilation": 2, "pool5a": False}, 2, False),
    ],
)
@pytest.mark.parametrize("side", [None, 3])
def test_deeplab_v1_in_every_form_computes_what_the_layers_of_caffe_compute(kernel, options, dilation, pool5a, side):
    state = dl.filled(dl.caffe_shapes(kernel=kernel, side=side))
    imported = import_checkpoint(state, **options)
    assert imported.report.family == "caffe/deeplabv1"
    config = imported.network.config
    assert (config.fc6_kernel, config.fc6_dilation, config.pool5a, config.msc) == (
        kernel,
        dilation,
        pool5a,
        side is not None,
    )
    with torch.no_grad():
        ours = imported.network(IMAGES).logits
        theirs = dl.caffe_forward(state, IMAGES, dilation=dilation, pool5a=pool5a)
    assert ours.shape == theirs.shape == ((1, 5, 6, 8) if side is None else (1, 5, 41, 57))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)


def test_msc_in_training_computes_what_the_strided_branches_of_caffe_compute():
    state = dl.filled(dl.caffe_shapes(side=3))
    network = import_checkpoint(state).network.train()
    network.dropout.eval()
    for branch in network.branches:
        branch.dropout.eval()
    ours = network(IMAGES).logits
    theirs = dl.caffe_forward(state, IMAGES, dilation=12, pool5a=True, full_size=False)
    assert ours.shape == (1, 5, 6, 8)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)


def test_classes_channels_and_widths_are_read_off_shapes():
    state = dl.filled(dl.caffe_shapes(width=2, fc=9, classes=7, side=4, in_channels=4))
    network = import_checkpoint(state, "caffe/deeplabv1").network
    assert (network.num_classes, network.config.width, network.config.fc_width) == (7, 2, 9)
    assert network.config.msc_width == 4
    assert network.preprocessing.num_channels == 4
    assert import_checkpoint(dl.filled(dl.caffe_shapes())).network.preprocessing == DEEPLAB_PREPROCESSING


def test_classifier_of_any_data_set_is_the_classifier():
    state = {key.replace("fc8_voc12", "fc8_pascal"): value for key, value in dl.filled(dl.caffe_shapes()).items()}
    report = import_checkpoint(state).report
    assert ("fc8_pascal.weight", "classifier.weight") in report.renamed


def test_unreleased_kernel_wants_its_dilation():
    state = dl.filled(dl.caffe_shapes(kernel=5))
    with pytest.raises(CheckpointError, match="fc6 has a kernel of 5, released are 3, 4, 7; say its dilation"):
        import_checkpoint(state)
    assert import_checkpoint(state, fc6_dilation=3).network.config.fc6_dilation == 3


@pytest.mark.parametrize("value", [0, True, "4", 1.5])
def test_fc6_dilation_of_another_kind_is_refused(value):
    with pytest.raises(InvalidValue, match="caffe/deeplabv1: fc6_dilation is 'auto' or a whole number >= 1, got"):
        import_checkpoint(dl.filled(dl.caffe_shapes()), "caffe/deeplabv1", fc6_dilation=value)


def test_half_of_msc_is_an_error_that_names_what_is_missing():
    state = dl.filled(dl.caffe_shapes(side=3))
    del state["pool3_ms.bias"]
    with pytest.raises(CheckpointError, match=r"missing \(ours, not in the checkpoint\): branches.3.classifier.bias"):
        import_checkpoint(state, "caffe/deeplabv1")
    del state["data_conv.weight"]
    with pytest.raises(CheckpointError, match=r"lacks 'data_conv.weight'"):
        import_checkpoint(state, "caffe/deeplabv1")


def test_weight_of_another_rank_is_refused():
    state = dl.filled(dl.caffe_shapes())
    state["conv1_1.weight"] = torch.zeros(4)
    with pytest.raises(CheckpointError, match=r"'conv1_1.weight' has shape \(4,\), 4 dimensions expected"):
        import_checkpoint(state, "caffe/deeplabv1")


def test_other_layers_are_another_family():
    state = dl.filled(dl.caffe_shapes())
    state["fc6_deconv.weight"] = torch.zeros(1)
    with pytest.raises(CheckpointError, match="not of family caffe/deeplabv1"):
        import_checkpoint(state, "caffe/deeplabv1")
