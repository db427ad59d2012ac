"""Caffe's SegNet, SegNet-Basic and DeconvNet, and delta-onera's SegNet, in thin variants of the published layouts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from perpixel.backbones import CAFFE_PREPROCESSING
from perpixel.errors import CheckpointError, InvalidValue
from perpixel.models import DeconvNet, SegNet, SegNetBasic
from perpixel.types import Preprocessing
from perpixel.weights import import_checkpoint, import_weights
from perpixel.weights.reference_values import fill_value

CONVS = (2, 2, 3, 3, 3)
WIDTHS = (2, 4, 8, 16, 16)
FEEDING_WIDTHS = (2, *WIDTHS)
"""What the last convolution of a decoder block leads to; the finest block stays as wide as it is."""


def filled(shapes: dict[str, tuple[int, ...]], dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    return {key: torch.from_numpy(fill_value(key, shape)).to(dtype) for key, shape in shapes.items()}


def layer(name: str, norm: str | None, shape: tuple[int, ...], channels: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", shape
    yield f"{name}.bias", (channels,)
    if norm is not None:
        yield f"{norm}.scale", (channels,)
        yield f"{norm}.shift", (channels,)


def encoder(norm: str, in_channels: int = 3) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    previous = in_channels
    for block, convs in enumerate(CONVS, start=1):
        for i in range(1, convs + 1):
            width = WIDTHS[block - 1]
            name = f"{block}_{i}"
            shapes |= layer(f"conv{name}", norm.format(name), (width, previous, 3, 3), width)
            previous = width
    return shapes


def segnet_shapes(classes: int = 5, in_channels: int = 3) -> dict[str, tuple[int, ...]]:
    shapes = encoder("conv{}_bn", in_channels)
    previous = WIDTHS[-1]
    for block in range(5, 0, -1):
        for i in range(CONVS[block - 1], 0, -1):
            last = block == i == 1
            width = classes if last else FEEDING_WIDTHS[block - 1 if i == 1 else block]
            name = f"conv{block}_{i}_D"
            shapes |= layer(name, None if last else f"{name}_bn", (width, previous, 3, 3), width)
            previous = width
    return shapes


def basic_shapes(
    classes: int = 5, *, width: int = 4, kernel: int = 5, single_channel: bool = False, bayesian: bool = False
) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for i in range(1, 5):
        channels = 3 if i == 1 else width
        shapes |= layer(f"conv{i}", f"conv{i}_bn", (width, channels, kernel, kernel), width)
    for i in range(4, 0, -1):
        shape = (width, 1 if single_channel else width, kernel, kernel)
        shapes |= layer(f"conv_decode{i}", f"conv_decode{i}_bn", shape, width)
    classifier = "dense_softmax_inner_prod" if bayesian else "conv_classifier"
    return shapes | dict(layer(classifier, None, (classes, width, 1, 1), classes))


def deconvnet_shapes(classes: int = 5, *, fc_width: int = 6, fc_kernel: int = 2) -> dict[str, tuple[int, ...]]:
    shapes = encoder("bn{}")
    shapes |= layer("fc6", "bnfc6", (fc_width, WIDTHS[-1], fc_kernel, fc_kernel), fc_width)
    shapes |= layer("fc7", "bnfc7", (fc_width, fc_width, 1, 1), fc_width)
    shapes |= layer("fc6-deconv", "fc6-deconv-bn", (fc_width, WIDTHS[-1], fc_kernel, fc_kernel), WIDTHS[-1])
    previous = WIDTHS[-1]
    for block in range(5, 0, -1):
        convs = CONVS[block - 1]
        for i in range(1, convs + 1):
            width = FEEDING_WIDTHS[block - 1 if i == convs else block]
            name = f"{block}_{i}"
            shapes |= layer(f"deconv{name}", f"debn{name}", (previous, width, 3, 3), width)
            previous = width
    return shapes | dict(layer("seg-score-voc", None, (classes, previous, 1, 1), classes))


def onera_shapes(classes: int = 5, in_channels: int = 3) -> dict[str, tuple[int, ...]]:
    """The same layers under delta-onera's names, with PyTorch's batch norm."""
    shapes: dict[str, tuple[int, ...]] = {}
    for key, shape in segnet_shapes(classes, in_channels).items():
        name, kind = key.rsplit(".", 1)
        is_norm = name.endswith("_bn")
        digits = "".join(filter(str.isdigit, name)) + ("d" if "_D" in name else "")
        new = {"scale": "weight", "shift": "bias"}.get(kind, kind)
        shapes[f"{'bn' if is_norm else 'conv'}{digits}.{new}"] = shape
        if kind == "shift":
            shapes |= {f"bn{digits}.running_mean": shape, f"bn{digits}.running_var": shape}
            shapes[f"bn{digits}.num_batches_tracked"] = ()
    return shapes


@pytest.mark.parametrize(
    ("shapes", "family", "network_class"),
    [
        (segnet_shapes(7), "caffe/segnet", SegNet),
        (basic_shapes(7), "caffe/segnet-basic", SegNetBasic),
        (deconvnet_shapes(7), "caffe/deconvnet", DeconvNet),
        (onera_shapes(7), "delta-onera/segnet", SegNet),
    ],
    ids=["segnet", "segnet-basic", "deconvnet", "delta-onera"],
)
def test_layout_is_recognised_and_every_tensor_finds_its_place(shapes, family, network_class) -> None:
    state = filled(shapes)
    imported = import_checkpoint(state)
    assert imported.report.family == family
    assert len(imported.report.matched) == len(state)
    network = imported.network
    assert isinstance(network, network_class)
    assert network.num_classes == 7
    assert {p.dtype for p in network.parameters()} == {torch.float64}
    x = torch.randn(1, 3, 64, 96, dtype=torch.float64)
    with torch.no_grad():
        assert network(x).logits.shape == (1, 7, 64, 96)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_folded_batch_norm_is_scale_and_shift_to_the_last_bits(dtype) -> None:
    state = filled(segnet_shapes(), dtype)
    imported = import_checkpoint(state)
    assert isinstance(imported.network, SegNet)
    norm = imported.network.backbone.bn2_1
    x = torch.randn(2, WIDTHS[1], 5, 6, dtype=dtype)
    scale, shift = (state[f"conv2_1_bn.{part}"].view(1, -1, 1, 1) for part in ("scale", "shift"))
    accuracy = {torch.float64: 1e-15, torch.float32: 1e-6}[dtype]
    torch.testing.assert_close(norm(x), x * scale + shift, rtol=accuracy, atol=accuracy)
    assert "batch norm is folded in these files" in imported.report.summary()


def test_stored_statistics_fill_the_batch_norm_as_they_are() -> None:
    state = filled(basic_shapes())
    for key in [key for key in state if key.endswith(".scale")]:
        name = key.removesuffix(".scale")
        state |= filled({f"{name}.running_mean": (4,), f"{name}.running_var": (4,)})
    imported = import_checkpoint(state)
    assert isinstance(imported.network, SegNetBasic)
    assert torch.equal(imported.network.encoder["level3"].norm.running_var, state["conv3_bn.running_var"])
    assert "folded" not in imported.report.summary()
    del state["conv2_bn.running_var"]
    with pytest.raises(CheckpointError, match=r"1 missing .*: encoder.level2.norm.running_var"):
        import_checkpoint(state)


def test_delta_onera_keeps_its_statistics_epsilon_and_channels() -> None:
    state = filled(onera_shapes(3, in_channels=4))
    network = import_weights(state)
    assert isinstance(network, SegNet)
    assert network.config.norm_eps == 1e-5
    assert network.backbone.config.in_channels == network.preprocessing.num_channels == 4
    norm = network.decoder.get_submodule("block4.bn4_1")
    assert torch.equal(norm.running_var, state["bn41d.running_var"])
    assert norm.eps == 1e-5


def test_segnet_basic_sizes_biases_and_decoder_are_read_off() -> None:
    state = filled(basic_shapes(3, width=6, kernel=3, single_channel=True))
    state = {key: value for key, value in state.items() if not key.endswith(".bias")}
    network = import_weights(state)
    assert isinstance(network, SegNetBasic)
    config = network.config
    assert (config.width, config.kernel, config.bias, config.decoder) == (6, 3, False, "unpool_single_channel")
    assert config.input_normalisation == "lrn"


def test_bayesian_layer_names_and_options_are_known() -> None:
    imported = import_checkpoint(filled(basic_shapes(bayesian=True)), bayesian=True, input_normalisation="none")
    assert imported.network.config.bayesian
    assert imported.network.config.input_normalisation == "none"
    assert import_weights(filled(segnet_shapes()), bayesian=True).config.bayesian
    with pytest.raises(InvalidValue, match="input_normalisation is one of 'none', 'lrn', 'contrast', got 'lcn'"):
        import_checkpoint(filled(segnet_shapes()), input_normalisation="lcn")


def test_preprocessing_is_the_releases() -> None:
    raw = Preprocessing(mean=(0.0,) * 3, std=(1.0,) * 3, channel_order="bgr", value_range=255.0)
    assert import_weights(filled(segnet_shapes())).preprocessing == raw
    assert import_weights(filled(basic_shapes())).preprocessing == raw
    assert import_weights(filled(deconvnet_shapes())).preprocessing == CAFFE_PREPROCESSING
    assert import_weights(filled(segnet_shapes(in_channels=4))).preprocessing.num_channels == 4


def test_deconvnet_widths_and_kernel_are_read_off() -> None:
    config = import_weights(filled(deconvnet_shapes(fc_width=9, fc_kernel=3))).config
    assert (config.width, config.fc_width, config.fc_kernel) == (2, 9, 3)


def test_deconvnet_without_one_score_layer_is_refused() -> None:
    state = {key: value for key, value in filled(deconvnet_shapes()).items() if not key.startswith("seg-score")}
    with pytest.raises(CheckpointError, match="one layer called seg-score…, the checkpoint 0"):
        import_checkpoint(state)


def test_wrong_family_says_which_it_looks_like() -> None:
    with pytest.raises(CheckpointError, match=r"not of family caffe/segnet .*looks like caffe/segnet-basic"):
        import_checkpoint(filled(basic_shapes()), "caffe/segnet")
    with pytest.raises(CheckpointError, match=r"not of family caffe/deconvnet .*looks like delta-onera/segnet"):
        import_checkpoint(filled(onera_shapes()), "caffe/deconvnet")
