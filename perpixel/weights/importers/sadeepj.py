"""Checkpoints of the PyTorch port of CRF-as-RNN (sadeepj/crfasrnn_pytorch at 24899c5): its FCN-8s, and all of it.

The FCN-8s is pytorch-fcn's network with a bias in the first deconvolution. Classes, widths and image channels are
read off shapes. The demo subtracts another mean than the Caffe release of FCN and feeds BGR; so does the imported
network. How often mean field is updated, and the widths of its kernels, leave no trace in the weights: the port's are
taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perpixel.models import CRFRNNConfig, FCNVGG16Config, create_model
from perpixel.types import Preprocessing
from perpixel.weights.importers.importer import Importer, Option, Plan, StateDict
from perpixel.weights.importers.wkentaro import fcn_layers, fcn_sizes, renamed_fcn

__all__ = ["CRFASRNN_IMPORTER", "FCN8S_IMPORTER", "SADEEPJ_PREPROCESSING"]

SADEEPJ_PREPROCESSING = Preprocessing(
    mean=(103.939, 116.779, 123.68), std=(1.0, 1.0, 1.0), channel_order="bgr", value_range=255.0
)
_LAYERS = "crfrnn."
_MATRICES = {
    "spatial_ker_weights": "spatial_weights",
    "bilateral_ker_weights": "bilateral_weights",
    "compatibility_matrix": "compatibility",
}


def _plan_fcn8s(tensors: StateDict, options: Mapping[str, Any]) -> Plan:  # noqa: ARG001 (the family has no option)
    trunk, num_classes, widths = fcn_sizes(tensors)
    config = FCNVGG16Config(stride=8, upscore_bias=True, **widths)
    network = create_model("fcn_vgg16", config, num_classes=num_classes, backbone=trunk)
    if trunk.in_channels == SADEEPJ_PREPROCESSING.num_channels:
        network.preprocessing = SADEEPJ_PREPROCESSING
    return Plan(network=network, rename=renamed_fcn)


def _plan_crfasrnn(tensors: StateDict, options: Mapping[str, Any]) -> Plan:
    trunk, num_classes, widths = fcn_sizes(tensors)
    config = CRFRNNConfig(iterations=options["iterations"], width=widths["width"], fc_width=widths["fc_width"])
    network = create_model("crf_rnn", config, num_classes=num_classes, backbone=trunk)
    if trunk.in_channels == SADEEPJ_PREPROCESSING.num_channels:
        network.preprocessing = SADEEPJ_PREPROCESSING
    return Plan(network=network, rename=_renamed_crfasrnn)


def _renamed_crfasrnn(key: str) -> str:
    if not key.startswith(_LAYERS):
        return renamed_fcn(key)
    name = key.removeprefix(_LAYERS)
    return f"crf.{_MATRICES.get(name, name)}"


def _is_crfasrnn(tensors: StateDict) -> bool:
    fcn = {key: tensor for key, tensor in tensors.items() if not key.startswith(_LAYERS)}
    return len(fcn) < len(tensors) and fcn_layers(fcn, 8) and "upscore2.bias" in fcn


def _iterations(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError("the number of mean-field updates in evaluation, a whole number >= 1")
    return value


FCN8S_IMPORTER = Importer(
    family="sadeepj/fcn8s",
    title="FCN-8s of crfasrnn_pytorch, on VGG16",
    options={},
    recognise=lambda tensors: fcn_layers(tensors, 8) and "upscore2.bias" in tensors,
    plan=_plan_fcn8s,
)
CRFASRNN_IMPORTER = Importer(
    family="sadeepj/crfasrnn",
    title="CRF-as-RNN of crfasrnn_pytorch, on VGG16",
    options={
        "iterations": Option(
            default=10, read=_iterations, help="updates of mean field in evaluation; the demo's are 10"
        )
    },
    recognise=_is_crfasrnn,
    plan=_plan_crfasrnn,
)
