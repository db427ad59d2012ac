"""FCN checkpoints of pytorch-fcn and of crfasrnn_pytorch."""

from __future__ import annotations

import pytest
import torch
from fcn_layout import fcn_forward, fcn_shapes, filled

from perpixel.backbones import CAFFE_PREPROCESSING
from perpixel.errors import CheckpointError, InvalidValue
from perpixel.weights import import_checkpoint
from perpixel.weights.importers.sadeepj import SADEEPJ_PREPROCESSING

IMAGES = torch.randn(1, 3, 37, 64, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


@pytest.mark.parametrize(
    ("stride", "bias", "family"),
    [
        (32, False, "wkentaro/fcn32s"),
        (16, False, "wkentaro/fcn16s"),
        (8, False, "wkentaro/fcn8s"),
        (8, True, "sadeepj/fcn8s"),
    ],
)
def test_fcn_of_any_size_computes_what_is_published(stride: int, bias: bool, family: str) -> None:
    state = filled(fcn_shapes(stride, classes=4, width=3, fc_width=6, bias=bias))
    imported = import_checkpoint(state)
    assert imported.report.family == family
    network = imported.network
    config = network.config
    assert (network.num_classes, config.stride, config.width, config.fc_width) == (4, stride, 3, 6)
    assert (config.upscore_bias, config.at_once, config.padding) == (bias, False, "pad100")
    with torch.no_grad():
        logits, expected = network(IMAGES).logits, fcn_forward(state, stride, IMAGES)
    assert expected.std() > 1e-3
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("size", [(1, 1), (26, 59)])
def test_fcn8s_at_once_scales_the_pools_before_they_are_scored(size: tuple[int, int]) -> None:
    state = filled(fcn_shapes(8))
    images = IMAGES[..., : size[0], : size[1]]
    imported = import_checkpoint(state, "wkentaro/fcn8s", at_once=True)
    with torch.no_grad():
        logits = imported.network(images).logits
        expected = fcn_forward(state, 8, images, pool_scales=(0.01, 0.0001))
        plain = fcn_forward(state, 8, images)
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-11)
    assert (plain - expected).abs().max() > 1e-3
    assert "at_once=True" in imported.report.summary()


def test_fcn_takes_the_preprocessing_of_its_code_and_channels_of_its_weights() -> None:
    assert import_checkpoint(filled(fcn_shapes(32))).network.preprocessing == CAFFE_PREPROCESSING
    assert import_checkpoint(filled(fcn_shapes(8, bias=True))).network.preprocessing == SADEEPJ_PREPROCESSING
    for stride, bias in ((16, False), (8, True)):
        deep = import_checkpoint(filled(fcn_shapes(stride, in_channels=5, bias=bias))).network
        assert deep.preprocessing.num_channels == 5


def test_fcn_training_checkpoint_is_unwrapped() -> None:
    state = filled(fcn_shapes(16), torch.float32)
    wrapped = {"epoch": 3, "arch": "FCN16s", "model_state_dict": state, "best_mean_iu": 0.6}
    imported = import_checkpoint(wrapped)
    assert imported.report.family == "wkentaro/fcn16s"
    assert "left aside: epoch, arch, best_mean_iu" in imported.report.summary()
    assert ("conv1_1.weight", "backbone.conv1_1.weight") in imported.report.renamed
    assert ("score_fr.bias", "score_fr.classifier.bias") in imported.report.renamed
    assert "upscore16.weight" in imported.report.matched
    assert imported.network.upscore16.weight.dtype == torch.float32


def test_fcn_checkpoint_under_another_familys_name_is_refused_and_named() -> None:
    with pytest.raises(CheckpointError, match=r"not of family wkentaro/fcn8s .*looks like sadeepj/fcn8s"):
        import_checkpoint(filled(fcn_shapes(8, bias=True)), "wkentaro/fcn8s")
    with pytest.raises(CheckpointError, match=r"not of family wkentaro/fcn16s .*looks like wkentaro/fcn32s"):
        import_checkpoint(filled(fcn_shapes(32)), "wkentaro/fcn16s")


def test_fcn_at_once_is_an_option_of_stride_8_alone() -> None:
    with pytest.raises(InvalidValue, match="wkentaro/fcn16s has no option 'at_once'"):
        import_checkpoint(filled(fcn_shapes(16)), "wkentaro/fcn16s", at_once=True)


def test_fcn_checkpoint_that_is_cut_short_is_an_error_that_says_what_is_missing() -> None:
    state = filled(fcn_shapes(32))
    del state["conv4_2.bias"]
    with pytest.raises(CheckpointError, match=r"1 missing .*backbone.conv4_2.bias"):
        import_checkpoint(state)
    del state["conv1_1.weight"]
    with pytest.raises(CheckpointError, match=r"lacks 'conv1_1.weight', which its sizes are read from"):
        import_checkpoint(state)


def test_fcn_checkpoint_of_other_shapes_is_refused() -> None:
    state = filled(fcn_shapes(32))
    with pytest.raises(CheckpointError, match=r"'fc6.weight' has shape \(5, 784\), 4 dimensions expected"):
        import_checkpoint({**state, "fc6.weight": state["fc6.weight"].flatten(1)})
    with pytest.raises(
        CheckpointError, match=r"of another shape: upscore.weight \(3, 1, 64, 64\), ours \(3, 3, 64, 64\)"
    ):
        import_checkpoint({**state, "upscore.weight": state["upscore.weight"][:, :1]})
