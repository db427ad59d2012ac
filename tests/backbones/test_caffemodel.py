"""The reader of .caffemodel files, on files that `caffemodel_files` writes."""

from __future__ import annotations

from pathlib import Path

import caffemodel_files as cf
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from perpixel.backbones import BackboneConfig, FullyConnected, VGG16Layout, create_vgg16
from perpixel.backbones.caffemodel import read_caffemodel
from perpixel.backbones.weight_files import open_checkpoint
from perpixel.errors import CheckpointError
from perpixel.models import create_model
from perpixel.weights import import_checkpoint


def values(*shape: int, dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(len(shape)).normal(size=shape).astype(dtype)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "net.caffemodel"


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("old_shape", [True, False])
@pytest.mark.parametrize("make_layer", [cf.layer, cf.old_layer])
def test_convolution_of_any_format_is_read(path: Path, make_layer, old_shape: bool, packed: bool) -> None:
    weight, bias = values(4, 3, 2, 2), values(4)
    blobs = [cf.blob(b, old_shape=old_shape, packed=packed) for b in (weight, bias)]
    cf.write(path, make_layer("data", "Data", []), make_layer("conv1-a", "Convolution", blobs))
    tensors = read_caffemodel(path)
    assert list(tensors) == ["conv1-a.weight", "conv1-a.bias"]
    assert tensors["conv1-a.weight"].dtype == torch.float32
    assert np.array_equal(tensors["conv1-a.weight"].numpy(), weight)
    assert np.array_equal(tensors["conv1-a.bias"].numpy(), bias)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=5), st.integers(1, 5), st.booleans())
def test_blob_of_any_shape_pieces_and_type_comes_back(tmp_path_factory, shape, pieces, double) -> None:
    path = tmp_path_factory.mktemp("any") / "net.caffemodel"
    array = values(*shape, dtype="float64" if double else "float32")
    cf.write(path, cf.layer("a", "Convolution", [cf.blob(array, pieces=pieces)]))
    read = read_caffemodel(path)["a.weight"]
    assert read.dtype == (torch.float64 if double else torch.float32)
    assert np.array_equal(read.numpy(), array)


@pytest.mark.parametrize("make_layer", [cf.layer, cf.old_layer])
def test_inner_product_in_the_old_shape_is_a_matrix(path: Path, make_layer) -> None:
    weight, bias = values(5, 6), values(5)
    blobs = [cf.blob(weight, old_shape=True), cf.blob(bias, old_shape=True)]
    cf.write(path, make_layer("fc6", "InnerProduct", blobs))
    tensors = read_caffemodel(path)
    assert np.array_equal(tensors["fc6.weight"].numpy(), weight)
    assert tensors["fc6.bias"].shape == (5,)


def test_grouped_deconvolution_computes_what_caffe_means(path: Path) -> None:
    weight = values(2, 1, 4, 4)  # two groups of one channel each
    cf.write(path, cf.layer("up", "Deconvolution", [cf.blob(weight)]))
    layer = torch.nn.ConvTranspose2d(2, 2, 4, stride=2, groups=2, bias=False)
    layer.load_state_dict({"weight": read_caffemodel(path)["up.weight"]})
    one = torch.zeros(1, 2, 1, 1)
    one[0, 1] = 3.0
    assert torch.equal(layer(one)[0, 1], 3.0 * torch.from_numpy(weight[1, 0]))
    assert not bool(layer(one)[0, 0].any())


def test_batch_norm_of_caffe_segnet_is_scale_and_shift(path: Path) -> None:
    scale, shift = values(1, 3, 1, 1), values(1, 3, 1, 1)
    cf.write(path, cf.layer("conv1_bn", "BN", [cf.blob(scale), cf.blob(shift)]))
    tensors = read_caffemodel(path)
    assert list(tensors) == ["conv1_bn.scale", "conv1_bn.shift"]
    assert np.array_equal(tensors["conv1_bn.scale"].numpy(), scale.reshape(-1))


@pytest.mark.parametrize(("total", "factor"), [(4.0, 0.25), (0.0, 0.0)])
def test_batch_norm_of_caffe_is_divided_by_its_sum_of_weights(path: Path, total: float, factor: float) -> None:
    mean, var, gamma, beta = (values(3) for _ in range(4))
    norm = [cf.blob(mean), cf.blob(var), cf.blob(np.array([total], dtype=np.float32))]
    scale = [cf.blob(gamma), cf.blob(beta)]
    cf.write(path, cf.layer("bn1", "BatchNorm", norm), cf.layer("scale1", "Scale", scale))
    tensors = read_caffemodel(path)
    assert list(tensors) == ["bn1.running_mean", "bn1.running_var", "scale1.weight", "scale1.bias"]
    assert np.array_equal(tensors["bn1.running_var"].numpy(), var * np.float32(factor))
    assert np.array_equal(tensors["scale1.bias"].numpy(), beta)


def test_further_blobs_are_numbered(path: Path) -> None:
    cf.write(path, cf.layer("a", "Custom", [cf.blob(values(2, 2)), cf.blob(values(2)), cf.blob(values(2, 3))]))
    assert list(read_caffemodel(path)) == ["a.weight", "a.bias", "a.blob2"]


def test_open_checkpoint_takes_caffemodels(path: Path) -> None:
    cf.write_state(path, {"score.weight": values(2, 1, 1, 1), "score.bias": values(2)})
    assert list(open_checkpoint(path).tensors) == ["score.weight", "score.bias"]


def test_vgg16_is_filled_from_a_caffemodel_with_inner_products(path: Path) -> None:
    """fc6 (out, 512 * 49) and fc7 as Caffe's classification network stores them become convolutions."""
    layout = VGG16Layout(width=2, fully_connected=FullyConnected(kernel=7, width=5))
    plain = create_vgg16(BackboneConfig(name="vgg16"), layout).state_dict()
    names = dict.fromkeys(key.rpartition(".")[0] for key in plain)
    layers = []
    for name in names:
        weight, bias = (plain[f"{name}.{leaf}"].numpy() for leaf in ("weight", "bias"))
        kind = "InnerProduct" if name.startswith("fc") else "Convolution"
        weight = weight.reshape(len(weight), -1) if kind == "InnerProduct" else weight
        layers.append(cf.old_layer(name, kind, [cf.blob(b, old_shape=True) for b in (weight, bias)]))
    cf.write(path, *layers, cf.old_layer("fc8", "InnerProduct", [cf.blob(values(7, 5), old_shape=True)]))
    filled = create_vgg16(BackboneConfig(name="vgg16", weights=str(path)), layout)
    assert filled.preprocessing.channel_order == "bgr"
    for key, value in filled.state_dict().items():
        assert torch.equal(value, plain[key]), key


def test_published_network_is_imported_from_a_caffemodel_file(path: Path) -> None:
    options = {"context": "basic", "context_padding": "each", "width": 2, "fc_width": 3}
    network = create_model("dilatednet", options, num_classes=4).eval()
    ours = {"backbone.": "", "classifier.": "final.", "context.": "ctx_"}
    state = {
        next(new + key.removeprefix(old) for old, new in ours.items() if key.startswith(old)): value.numpy()
        for key, value in network.state_dict().items()
    }
    imported = import_checkpoint(cf.write_state(path, state), "caffe/dilation").network
    images = torch.randn(1, 3, 380, 388)
    with torch.no_grad():
        assert torch.equal(imported(images).logits, network(images).logits)


def test_truncated_file_is_refused_wherever_it_ends(path: Path) -> None:
    cf.write(path, cf.layer("conv1", "Convolution", [cf.blob(values(3, 2, 3, 3)), cf.blob(values(3))]))
    content = path.read_bytes()
    for end in range(6, len(content)):  # the first five bytes are a whole field: the net's name
        path.write_bytes(content[:end])
        with pytest.raises(CheckpointError, match=r"net.caffemodel: not a caffemodel, or a damaged one \(.*byte"):
            read_caffemodel(path)


def _damaged() -> dict[str, tuple[bytes, str]]:
    weights = np.ones(6, dtype=np.float32)
    shape = cf.chunk(7, cf.chunk(1, cf.varint(7)))
    return {
        "text": (b"not a checkpoint", "unknown wire type 6 at byte 0"),
        "field zero": (b"\x00\x01", "no field at byte 0"),
        "endless number": (b"\x08" + b"\xff" * 12, "a number without end"),
        "no text": (cf.chunk(100, cf.chunk(1, b"\xff\xfe")), "no text at byte"),
        "shape": (
            cf.layer("a", "Convolution", [shape + cf.chunk(5, weights.tobytes())]),
            r"a blob of shape \(7,\) at byte \d+ holds 6 values",
        ),
        "half a float": (cf.layer("a", "Convolution", [cf.chunk(5, b"\x00" * 6)]), "6 bytes .* no values of 4 bytes"),
        "2013": (
            cf.chunk(2, cf.chunk(1, cf.chunk(1, b"conv1"))),
            "net.caffemodel: written by Caffe of 2013; .*upgrade_net_proto_binary",
        ),
    }


@pytest.mark.parametrize("case", _damaged())
def test_damaged_file_is_refused_with_the_place(path: Path, case: str) -> None:
    content, message = _damaged()[case]
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        read_caffemodel(path)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=80))
def test_any_bytes_are_weights_or_a_checkpoint_error(tmp_path_factory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("noise") / "net.caffemodel"
    path.write_bytes(content)
    try:
        tensors = read_caffemodel(path)
    except CheckpointError as error:
        assert "net.caffemodel" in str(error)
    else:
        assert tensors


def test_file_without_weights_and_repeated_layers_are_refused(path: Path) -> None:
    path.write_bytes(b"")
    with pytest.raises(CheckpointError, match="holds no layer with weights"):
        read_caffemodel(path)
    cf.write(path, *[cf.layer("a", "Convolution", [cf.blob(values(1, 1))])] * 2)
    with pytest.raises(CheckpointError, match="two layers are called 'a'"):
        read_caffemodel(path)
    with pytest.raises(CheckpointError, match=r"absent\.caffemodel: not a caffemodel"):
        read_caffemodel(path.with_name("absent.caffemodel"))
