from __future__ import annotations

import re

import deeplab_layout as dl
import pytest
import torch

from perpixel.backbones import DEEPLAB_PREPROCESSING
from perpixel.errors import CheckpointError, InvalidValue
from perpixel.weights import import_checkpoint

IMAGES = torch.randn(1, 3, 41, 57, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


@pytest.mark.parametrize(
    ("kernel", "options", "dilation", "pool5a", "pool_kernel"),
    [
        (3, {}, 12, True, 3),
        (7, {}, 4, False, 3),
        (4, {}, 4, False, 2),
        (4, {"fc6_dilation": 8}, 8, False, 2),
        (4, {"pool_kernel": 3}, 4, False, 3),
        (7, {"pool_kernel": 2}, 4, False, 2),
        (3, {"fc6_dilation": 2, "pool5a": False}, 2, False, 3),
    ],
)
def test_deeplab_v1_in_every_form_computes_what_the_layers_of_caffe_compute(
    kernel, options, dilation, pool5a, pool_kernel
):
    state = dl.filled(dl.caffe_shapes(kernel=kernel))
    imported = import_checkpoint(state, **options)
    assert imported.report.family == "caffe/deeplabv1"
    config = imported.network.config
    assert (config.fc6_kernel, config.fc6_dilation, config.pool5a, config.msc) == (kernel, dilation, pool5a, False)
    assert config.pool_kernel == pool_kernel
    with torch.no_grad():
        ours = imported.network(IMAGES).logits
        theirs = dl.caffe_forward(state, IMAGES, dilation=dilation, pool5a=pool5a, pool_kernel=pool_kernel)
    assert ours.shape == theirs.shape == ((1, 5, 6, 8) if pool_kernel == 3 else (1, 5, 41, 57))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)


@pytest.mark.parametrize("size", [(18, 34), (40, 23), (1, 12), (39, 14)])
def test_plain_form_rounds_sizes_as_caffe_does(size):
    state = dl.filled(dl.caffe_shapes(kernel=4))
    images = IMAGES[..., : size[0], : size[1]]
    with torch.no_grad():
        ours = import_checkpoint(state).network(images).logits
        theirs = dl.caffe_forward(state, images, dilation=4, pool5a=False, pool_kernel=2)
    assert ours.shape == theirs.shape == (1, 5, *size)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("kernel", "dilation", "pool5a"), [(3, 12, True), (4, 4, False), (7, 4, False)])
def test_msc_has_3x3_pools_whatever_fc6_is(kernel, dilation, pool5a):
    state = dl.filled(dl.caffe_shapes(kernel=kernel, side=3))
    imported = import_checkpoint(state)
    assert (imported.network.config.msc, imported.network.config.pool_kernel) == (True, 3)
    assert imported.report.notes == ()
    with torch.no_grad():
        ours = imported.network(IMAGES).logits
        theirs = dl.caffe_forward(state, IMAGES, dilation=dilation, pool5a=pool5a)
    assert ours.shape == theirs.shape == (1, 5, 41, 57)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)
    with pytest.raises(CheckpointError, match="MSc's side branches, whose poolings are 3x3; leave pool_kernel=2 away"):
        import_checkpoint(state, pool_kernel=2)


@pytest.mark.parametrize(
    ("kernel", "options", "told"),
    [
        (3, {}, None),
        (4, {}, None),
        (4, {"fc6_dilation": 8}, "poolings of 2x2 are assumed for an fc6 of kernel 4 and dilation 8"),
        (7, {}, "poolings of 3x3 are assumed for an fc6 of kernel 7 and dilation 4: .* pool_kernel=2 takes the others"),
        (7, {"pool_kernel": 2}, None),
    ],
)
def test_pools_that_no_released_file_states_are_told(kernel, options, told):
    notes = import_checkpoint(dl.filled(dl.caffe_shapes(kernel=kernel)), **options).report.notes
    assert len(notes) == (told is not None)
    assert told is None or re.match(told, notes[0])


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


@pytest.mark.parametrize("family", ["auto", "caffe/deeplabv1"])
def test_layers_that_it_does_not_have_are_named(family):
    state = dl.filled(dl.caffe_shapes())
    state["fc6_deconv.weight"] = torch.zeros(1)
    with pytest.raises(CheckpointError, match=r"1 left over \(.*\): fc6_deconv.weight"):
        import_checkpoint(state, family)


def test_two_classifiers_are_refused_and_named():
    state = dl.filled(dl.caffe_shapes())
    state["fc8_pascal.weight"] = state["fc8_voc12.weight"]
    with pytest.raises(CheckpointError, match="has one classifier, got fc8_voc12 and fc8_pascal; leave one"):
        import_checkpoint(state)


def test_checkpoint_without_fc6_is_of_another_family():
    state = {key: value for key, value in dl.filled(dl.caffe_shapes()).items() if not key.startswith("fc6")}
    with pytest.raises(CheckpointError, match="not of family caffe/deeplabv1"):
        import_checkpoint(state, "caffe/deeplabv1")
