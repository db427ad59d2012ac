"""The U-Net that its authors published as a Caffe network (phseg_v5), and the same in the paper's form.

Weights come as arrays under the Caffe layer names (``conv_d0a-b``, ``upconv_u1d_u0a``, …) with ``.weight`` or ``.bias``
behind; a hyphen and an underscore are taken alike. Image channels, classes, base width and form are read off shapes:
the released network keeps twice as many channels in its last deconvolution as the paper's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from perpixel.errors import CheckpointError
from perpixel.models import OriginalUNetConfig, create_model
from perpixel.weights.importers.importer import Importer, Plan, StateDict

__all__ = ["UNET_IMPORTER"]

_FIRST = "conv_d0a_b.weight"
_LAST_UPSAMPLING = "upconv_u1d_u0a.weight"
_CLASSIFIER = "conv_u0d_score.weight"
_RULES = (
    (r"^conv_d(\d)a_b\.", r"down.\1.first."),
    (r"^conv_d(\d)b_c\.", r"down.\1.second."),
    (r"^upconv_[du]\d[cd]_u(\d)a\.", r"up.\1.upsample."),
    (r"^conv_u(\d)b_c\.", r"up.\1.fuse.first."),
    (r"^conv_u(\d)c_d\.", r"up.\1.fuse.second."),
    (r"^conv_u0d_score\.", "classifier."),
)


def _plan(tensors: StateDict, options: Mapping[str, Any]) -> Plan:  # noqa: ARG001 - one signature for all
    shapes = {key.replace("-", "_"): tuple(tensor.shape) for key, tensor in tensors.items()}
    width, in_channels = _shape(shapes, _FIRST)[:2]
    upsampled = _shape(shapes, _LAST_UPSAMPLING)[1]
    if upsampled not in (width, 2 * width):
        raise CheckpointError(
            f"{_LAST_UPSAMPLING!r} gives {upsampled} channels at base width {width}: neither the paper's form "
            f"({width}) nor the released one ({2 * width})"
        )
    config = OriginalUNetConfig(
        in_channels=in_channels, width=width, form="paper" if upsampled == width else "released"
    )
    network = create_model("unet_original", config, num_classes=_shape(shapes, _CLASSIFIER)[0])
    return Plan(network=network, rename=_renamed)


def _renamed(key: str) -> str:
    key = key.replace("-", "_")
    for pattern, replacement in _RULES:
        key = re.sub(pattern, replacement, key)
    return key


def _shape(shapes: Mapping[str, tuple[int, ...]], key: str) -> tuple[int, ...]:
    if key not in shapes:
        raise CheckpointError(f"the checkpoint lacks {key!r}, which its sizes are read from")
    if len(shapes[key]) != 4:
        raise CheckpointError(f"{key!r} has shape {shapes[key]}, 4 dimensions expected")
    return shapes[key]


def _recognise(tensors: StateDict) -> bool:
    names = {key.replace("-", "_").rpartition(".")[0] for key in tensors}
    return {"conv_d0a_b", "conv_d4b_c", "upconv_d4c_u3a"} <= names


UNET_IMPORTER = Importer(
    family="unet/original",
    title="U-Net with valid convolutions, in the layer names of the authors' Caffe network",
    options={},
    recognise=_recognise,
    plan=_plan,
)
