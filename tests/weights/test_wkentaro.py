"""FCN checkpoints of pytorch-fcn and of crfasrnn_pytorch."""

from __future__ import annotations

import deeplab_layout as dl
import pytest
import torch
from fcn_layout import fcn_forward, fcn_shapes, filled
from torch import Tensor

from perpixel.backbones import CAFFE_PREPROCESSING
from perpixel.errors import CheckpointError, InvalidValue
from perpixel.weights import import_checkpoint
from perpixel.weights.importers import IMPORTERS
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


def scaled(state: dict[str, Tensor], pool4: float = 0.01, pool3: float = 0.0001) -> dict[str, Tensor]:
    """Adds the Scale layers of the authors' voc-fcn8s-atonce: one factor per channel."""
    factors = {"scale_pool4.weight": (pool4, 512), "scale_pool3.weight": (pool3, 256)}
    return state | {key: torch.full((channels,), factor) for key, (factor, channels) in factors.items()}


@pytest.mark.parametrize("options", [{}, {"at_once": True}])
@pytest.mark.parametrize("family", ["auto", "wkentaro/fcn8s"])
def test_fcn8s_with_the_authors_scale_layers_is_at_once(family: str, options: dict[str, bool]) -> None:
    state = filled(fcn_shapes(8))
    imported = import_checkpoint(scaled(state), family, **options)
    assert imported.network.config.at_once
    assert [key for key, _ in imported.report.ignored] == ["scale_pool4.weight", "scale_pool3.weight"]
    assert "2 ignored: the factors of FCN-8s at once" in imported.report.summary()
    with torch.no_grad():
        logits = imported.network(IMAGES).logits
    expected = fcn_forward(state, 8, IMAGES, pool_scales=(0.01, 0.0001))
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_fcn8s_scale_layers_of_any_precision_are_read(dtype: torch.dtype) -> None:
    state = {key: value.to(dtype) for key, value in scaled(filled(fcn_shapes(8))).items()}
    assert import_checkpoint(state).network.config.at_once


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        ({"pool4": 0.02}, "'scale_pool4.weight' holds 0.02 to 0.02; FCN-8s at once multiplies by 0.01, and other"),
        ({"pool3": 0.01}, "'scale_pool3.weight' holds 0.01 to 0.01; FCN-8s at once multiplies by 0.0001"),
        ({"pool3": float("nan")}, "'scale_pool3.weight' holds nan to nan"),
    ],
)
def test_fcn8s_scale_layers_with_other_factors_are_refused(factors: dict[str, float], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        import_checkpoint(scaled(filled(fcn_shapes(8)), **factors))


def test_fcn8s_scale_layers_that_do_not_fit_the_rest_are_refused() -> None:
    state = scaled(filled(fcn_shapes(8)))
    with pytest.raises(CheckpointError, match="has scale_pool4 and scale_pool3, so it is FCN-8s at once; leave"):
        import_checkpoint(state, at_once=False)
    with pytest.raises(CheckpointError, match=r"1 left over \(.*\): scale_pool4.bias"):
        import_checkpoint({**state, "scale_pool4.bias": torch.zeros(512)})
    del state["scale_pool3.weight"]
    with pytest.raises(CheckpointError, match=r"lacks 'scale_pool3.weight'; FCN-8s at once has scale_pool4 and"):
        import_checkpoint(state)
    with pytest.raises(CheckpointError, match="not of family wkentaro/fcn16s"):
        import_checkpoint(scaled(filled(fcn_shapes(16))), "wkentaro/fcn16s")


@pytest.mark.parametrize("stride", [32, 16, 8])
@pytest.mark.parametrize("named", [False, True])
def test_fcn_without_one_layer_says_which(stride: int, named: bool) -> None:
    whole = filled(fcn_shapes(stride))
    layers = {key.partition(".")[0] for key in whole}
    heads = {layer for layer in layers if layer.startswith(("score", "upscore"))}
    for layer in sorted({"conv1_1", "fc6", "fc7"} | heads):
        state = {key: value for key, value in whole.items() if not key.startswith(f"{layer}.")}
        with pytest.raises(CheckpointError, match=rf"lacks '{layer}.weight', without which it is no FCN-{stride}s"):
            import_checkpoint(state, f"wkentaro/fcn{stride}s" if named else "auto")


def test_fcn_without_two_layers_is_of_no_family() -> None:
    state = filled(fcn_shapes(8))
    del state["upscore8.weight"], state["upscore_pool4.weight"]
    with pytest.raises(CheckpointError, match="of no known family"):
        import_checkpoint(state)


def test_fcn8s_of_sadeepj_without_a_layer_says_which() -> None:
    state = filled(fcn_shapes(8, bias=True))
    del state["upscore8.weight"]
    with pytest.raises(CheckpointError, match=r"not a whole sadeepj/fcn8s: 1 missing .*: upscore8.weight"):
        import_checkpoint(state)


def test_every_classic_vgg_layout_is_of_one_family_alone() -> None:
    layouts = {f"wkentaro/fcn{stride}s": filled(fcn_shapes(stride)) for stride in (32, 16, 8)}
    layouts |= {"sadeepj/fcn8s": filled(fcn_shapes(8, bias=True)), "caffe/deeplabv1": dl.filled(dl.caffe_shapes())}
    for family, whole in layouts.items():
        for layer in ["nothing", *dict.fromkeys(key.partition(".")[0] for key in whole)]:
            state = {key: value for key, value in whole.items() if not key.startswith(f"{layer}.")}
            found = [name for name, importer in IMPORTERS.items() if importer.recognise(state)]
            assert len(found) <= 1, (family, layer)
            assert layer != "nothing" or found == [family]
    assert [name for name, f in IMPORTERS.items() if f.recognise(scaled(layouts["wkentaro/fcn8s"]))] == [
        "wkentaro/fcn8s"
    ]


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
