from __future__ import annotations

from dataclasses import replace

import dilation_layout as dl
import pytest
import torch

from perpixel.errors import CheckpointError, InvalidValue
from perpixel.weights import import_checkpoint
from perpixel.weights.importers.caffe_dilation import MEANS

IMAGES = torch.randn(1, 3, 388, 396, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


@pytest.mark.parametrize(
    ("release", "dataset"),
    [
        (dl.VOC, "pascal_voc"),
        (dl.CAMVID, "camvid"),
        (dl.KITTI, "kitti"),
        (dl.CITYSCAPES, "cityscapes"),
        (dl.FRONT_END, "pascal_voc"),
        (replace(dl.CITYSCAPES, layers=8, upsample="upsample"), "camvid"),  # train.py --up
        (replace(dl.CAMVID, layers=5, large=True), "camvid"),
    ],
)
def test_every_release_computes_what_its_layers_say(release: dl.Release, dataset: str) -> None:
    state = dl.checkpoint(release)
    imported = import_checkpoint(state)
    assert imported.report.family == "caffe/dilation"
    assert len(imported.report.matched) == len(state)
    network = imported.network
    network.supervise = True
    with torch.no_grad():
        output = network(IMAGES)
        front, logits = dl.forward(state, release, IMAGES)
    torch.testing.assert_close(output.deep[0], front, rtol=0, atol=1e-9)
    torch.testing.assert_close(output.logits, logits, rtol=0, atol=1e-9)
    assert network.align_corners == (not release.upsample)
    assert network.preprocessing.mean == MEANS[dataset]
    assert (network.preprocessing.channel_order, network.preprocessing.value_range) == ("bgr", 255.0)


def test_sizes_and_channels_are_read_off_the_shapes() -> None:
    release = replace(dl.KITTI, classes=2, width=3, fc_width=4, in_channels=1)
    network = import_checkpoint(dl.checkpoint(release)).network
    assert (network.num_classes, network.config.width, network.config.fc_width) == (2, 3, 4)
    assert (network.config.context, network.config.context_layers) == ("basic", 7)
    assert network.preprocessing.num_channels == 1


def test_options_say_what_names_do_not() -> None:
    state = dl.checkpoint(dl.CAMVID)
    network = import_checkpoint(state, "caffe/dilation", context_padding="once", mean="kitti").network
    assert network.config.context_padding == "once"
    assert network.preprocessing.mean == MEANS["kitti"]
    with torch.no_grad():
        plain = import_checkpoint(state).network(IMAGES).logits
        assert not torch.allclose(network(IMAGES).logits, plain)
    with pytest.raises(InvalidValue, match=r"mean is one of 'auto', 'pascal_voc'.*got 'voc'"):
        import_checkpoint(state, "caffe/dilation", mean="voc")


def test_shapes_of_no_form_are_refused() -> None:
    state = dl.checkpoint(dl.CAMVID)
    with pytest.raises(CheckpointError, match=r"'ctx_conv1_1' has 5 maps for 3 classes: .* 3 \(basic\) or 6"):
        import_checkpoint({**state, "ctx_conv1_1.weight": torch.zeros(5, 3, 3, 3)})
    with pytest.raises(CheckpointError, match=r"fc6.weight has shape \(5, 16, 3, 3\); DilatedNet's is a 7x7"):
        import_checkpoint({**state, "fc6.weight": torch.zeros(5, 16, 3, 3)})
    with pytest.raises(CheckpointError, match=r"'fc6.weight' has shape \(5, 784\), 4 dimensions expected"):
        import_checkpoint({**state, "fc6.weight": torch.zeros(5, 784)})
    without = {key: value for key, value in state.items() if not key.startswith("ctx_conv1_2")}
    with pytest.raises(CheckpointError, match=r"2 missing .*: context\.conv1_2\.weight, context\.conv1_2\.bias"):
        import_checkpoint(without)


def test_context_module_alone_is_of_no_family() -> None:
    state = {key: value for key, value in dl.checkpoint(dl.CAMVID).items() if key.startswith("ctx_")}
    with pytest.raises(CheckpointError, match="are of no known family"):
        import_checkpoint(state)
    with pytest.raises(CheckpointError, match="not of family caffe/dilation"):
        import_checkpoint(state, "caffe/dilation")


def test_a_layer_too_few_is_named() -> None:
    state = {key: value for key, value in dl.checkpoint(dl.CAMVID).items() if not key.startswith("ctx_conv3")}
    with pytest.raises(CheckpointError, match="has a layer conv5_1, but lacks conv3_1"):
        import_checkpoint(state)
