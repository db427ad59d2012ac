"""Checkpoints of ICNet's two ports: meetshah1995/pytorch-semseg at 801fb200, liminn/ICNet-pytorch at da394fc4.

``ptsemseg`` holds the authors' network at their widths, with batch norms or, converted from the release in which these
were merged into the convolutions, with biases. Its stride of the third stage sits in the 3x3 convolution; the authors'
in the 1x1. Weights fit both, and the function differs: ``stride_on_1x1``. In evaluation it pools by the kernels of
1025x2049 pixels whatever the size, in training by whole divisions: ``pooling``.

``liminn`` runs a whole ResNet on the image at a half and at a quarter of its size, dilated by the convention of timm
and torchvision, pools adaptively, and scores behind the dilated convolutions, without biases.

Classes, width, depth and image channels are read off keys and shapes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perpixel.backbones import ICNET_TRUNK, BackboneConfig
from perpixel.models import ICNetConfig, create_model
from perpixel.types import Preprocessing
from perpixel.weights.importers.dilation import dilated_trunk, dilation_note, dilation_options
from perpixel.weights.importers.importer import (
    Importer,
    Option,
    Plan,
    StateDict,
    convolution_weight,
    has_prefix,
    renamed,
)
from perpixel.weights.importers.resnet_trunk import read_resnet

__all__ = ["LIMINN_IMPORTER", "PTSEMSEG_IMPORTER"]

_AUTHORS_PREPROCESSING = Preprocessing(
    mean=(103.939, 116.779, 123.68), std=(1.0, 1.0, 1.0), channel_order="bgr", value_range=255.0
)
_PORTS_MOMENTUM = 0.1
_ALIGN_CORNERS = Option(
    default=True, allowed=(True, False), help="how maps and scores are resized; both ports align corners everywhere"
)

_PTSEMSEG_RULES = (
    (r"\.(?:cbr|cb)_unit\.0\.", ".conv."),
    (r"\.(?:cbr|cb)_unit\.1\.", ".norm."),
    (r"^convbnrelu(\d)_sub1\.", r"detail.conv\1."),
    (r"^convbnrelu1_(\d)\.", r"backbone.conv1_\1."),
    (r"^res_block3_conv\.layers\.0\.", "backbone.conv3.0."),
    (r"^res_block3_identity\.layers\.0\.", "backbone.conv3.1."),
    (r"^res_block3_identity\.layers\.1\.", "backbone.conv3.2."),
    (r"^res_block3_identity\.layers\.2\.", "backbone.conv3.3."),
    (r"^res_block(\d)\.layers\.", r"backbone.conv\1."),
    (r"\.cbr1\.", ".reduce."),
    (r"\.cbr2\.", ".conv3x3."),
    (r"\.cb3\.", ".increase."),
    (r"\.cb4\.", ".shortcut."),
    (r"^conv5_4_k1\.", "context."),
    (r"^cff_sub(24|12)\.", r"fuse\1."),
    (r"\.low_dilated_conv_bn\.", ".low."),
    (r"\.high_proj_conv_bn\.", ".high."),
    (r"\.low_classifier_conv\.", ".classifier."),
    (r"^classification\.", "classifier."),
)
_PTSEMSEG_UNUSED = {
    "pyramid_pooling.": "constructed by pytorch-semseg, but never used by its ICNet",
}
_LIMINN_RULES = (
    (r"^pretrained\.", "backbone.trunk.net."),
    (r"^conv_sub1\.0\.", "detail.conv1."),
    (r"^conv_sub1\.1\.", "detail.conv2."),
    (r"^conv_sub1\.2\.", "detail.conv3."),
    (r"^(detail\.conv\d)\.bn\.", r"\1.norm."),
    (r"^head\.cff_(24|12)\.", r"fuse\1."),
    (r"\.conv_(low|high)\.0\.", r".\1.conv."),
    (r"\.conv_(low|high)\.1\.", r".\1.norm."),
    (r"\.conv_low_cls\.", ".classifier."),
    (r"^head\.conv_cls\.", "classifier."),
)
_LIMINN_UNUSED = {"pretrained.fc.": "the classifier of the ImageNet network, which ICNet never calls"}


def _plan_ptsemseg(tensors: StateDict, options: Mapping[str, Any]) -> Plan:
    first = convolution_weight(tensors, "convbnrelu1_1.cbr_unit.0")
    classes = convolution_weight(tensors, "classification").shape[0]
    config = ICNetConfig(
        width=first.shape[0],
        stride_on_1x1=options["stride_on_1x1"],
        pooling=options["pooling"],
        classifier_bias="classification.bias" in tensors,
        merged_norms="convbnrelu1_1.cbr_unit.1.weight" not in tensors,
        norm_momentum=_PORTS_MOMENTUM,
        align_corners=options["align_corners"],
    )
    trunk = BackboneConfig(name=ICNET_TRUNK, in_channels=first.shape[1])
    network = create_model("icnet", config, num_classes=classes, backbone=trunk)
    if trunk.in_channels == _AUTHORS_PREPROCESSING.num_channels:
        network.preprocessing = _AUTHORS_PREPROCESSING
    return Plan(
        network=network,
        rename=lambda key: renamed(key, _PTSEMSEG_RULES),
        unused=_PTSEMSEG_UNUSED,
        notes=(_stride_note(config.stride_on_1x1),),
    )


def _stride_note(on_1x1: bool) -> str:
    taken, other = ("in the 3x3 convolution, as the port has it", "in the 1x1 convolution, as the authors have it")
    if on_1x1:
        taken, other = other, taken
    return (
        f"weights cannot tell where the third stage strides: {taken}, was taken; if the checkpoint was trained with it "
        f"{other}, give stride_on_1x1={str(not on_1x1).lower()}"
    )


def _plan_liminn(tensors: StateDict, options: Mapping[str, Any]) -> Plan:
    classes = convolution_weight(tensors, "head.conv_cls").shape[0]
    config = ICNetConfig(
        width=convolution_weight(tensors, "conv_sub1.0.conv").shape[0],
        pooling=options["pooling"],
        context_projection=False,
        guidance="dilated",
        classifier_bias="head.conv_cls.bias" in tensors,
        loss_weights=(0.4, 0.4, 1.0),
        norm_momentum=_PORTS_MOMENTUM,
        align_corners=options["align_corners"],
    )
    trunk = dilated_trunk(read_resnet(tensors, "pretrained."), options)
    network = create_model("icnet", config, num_classes=classes, backbone=trunk)
    return Plan(
        network=network,
        rename=lambda key: renamed(key, _LIMINN_RULES),
        unused=_LIMINN_UNUSED,
        notes=(dilation_note(options),),
    )


def _is_ptsemseg(tensors: StateDict) -> bool:
    return all(has_prefix(tensors, part) for part in ("convbnrelu1_sub1.", "res_block3_conv.", "cff_sub24."))


def _is_liminn(tensors: StateDict) -> bool:
    return all(has_prefix(tensors, part) for part in ("pretrained.layer1.", "conv_sub1.0.conv.", "head.cff_24."))


PTSEMSEG_IMPORTER = Importer(
    family="ptsemseg/icnet",
    title="ICNet of pytorch-semseg, at the authors' widths",
    options={
        "stride_on_1x1": Option(
            default=False,
            allowed=(False, True),
            help="where the third stage strides: false, in the 3x3, is the port's own; true the authors'",
        ),
        "pooling": Option(
            default="ptsemseg",
            allowed=("ptsemseg", "published", "floor", "adaptive"),
            help="ptsemseg: the published kernels on 33x65 cells (1025x2049 pixels), kernel = stride = size // bins "
            "elsewhere; published: those kernels scaled with the map; floor: size // bins everywhere",
        ),
        "align_corners": _ALIGN_CORNERS,
    },
    recognise=_is_ptsemseg,
    plan=_plan_ptsemseg,
)
LIMINN_IMPORTER = Importer(
    family="liminn/icnet",
    title="ICNet of ICNet-pytorch, on ResNets run at two scales",
    options={
        **dilation_options(output_stride=8, dilation="half"),
        "pooling": Option(
            default="adaptive",
            allowed=("adaptive", "published", "floor", "ptsemseg"),
            help="windows of the pyramid pooling; that code pools adaptively",
        ),
        "align_corners": _ALIGN_CORNERS,
    },
    recognise=_is_liminn,
    plan=_plan_liminn,
)
