"""Checkpoints of segmentation_models.pytorch (0.6.0): its DeepLabV3Plus.

Classes, widths, the encoder and the form of the ASPP are read off keys and shapes. It is not the paper's network: rates
12, 24, 36 at output stride 16, separable convolutions without a norm inside, one more behind the ASPP and one in the
decoder. The encoder's output and the scores are enlarged with aligned corners, on images whose sides divide by 16.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from perpixel.models import DeepLabV3PlusConfig, create_model
from perpixel.weights.importers.deeplab_parts import chosen_rates, dilated, dilation_options, rates_option, read_aspp
from perpixel.weights.importers.importer import Importer, Plan, StateDict, convolution_weight, renamed
from perpixel.weights.importers.smp_encoders import ENCODER_OPTION, read_smp_encoder

__all__ = ["DEEPLAB_V3PLUS_IMPORTER"]

_RULES = (
    (r"^decoder\.aspp\.1\.0\.", "refine.depthwise."),
    (r"^decoder\.aspp\.1\.1\.", "refine.pointwise."),
    (r"^decoder\.aspp\.2\.", "refine.norm."),
    (r"^decoder\.block1\.0\.", "low.conv."),
    (r"^decoder\.block1\.1\.", "low.norm."),
    (r"^decoder\.block2\.0\.0\.", "decoder.0.depthwise."),
    (r"^decoder\.block2\.0\.1\.", "decoder.0.pointwise."),
    (r"^decoder\.block2\.1\.", "decoder.0.norm."),
    (r"^segmentation_head\.0\.", "classifier."),
)


def _plan(tensors: StateDict, options: Mapping[str, Any]) -> Plan:
    encoder, encoder_rules = read_smp_encoder(tensors, name=options["encoder"])
    trunk, note = dilated(replace(encoder, num_stages=4), options, output_stride=16, dilation=encoder.dilation)
    aspp = read_aspp(tensors, "decoder.aspp.0.")
    num_classes, decoder_width = convolution_weight(tensors, "segmentation_head.0").shape[:2]
    config = DeepLabV3PlusConfig(
        atrous_rates=chosen_rates(options["atrous_rates"], aspp),
        width=aspp.width,
        separable_aspp=aspp.separable,
        separable_norm=False,
        refine=True,
        dropout=0.5,
        low_width=convolution_weight(tensors, "decoder.block1.0").shape[0],
        decoder_width=decoder_width,
        decoder_convolutions=1,
        image_sides="multiple",
    )
    network = create_model("deeplab_v3plus", config, num_classes=num_classes, backbone=trunk)
    rules = (*encoder_rules, *aspp.rules, *_RULES)
    unused = {"classification_head.": "scores the image as a whole, not its pixels"}
    return Plan(network=network, rename=lambda key: renamed(key, rules), unused=unused, notes=(note,))


def _recognise(tensors: StateDict) -> bool:
    return {f"{layer}.weight" for layer in ("decoder.aspp.0.convs.0.0", "decoder.block2.0.0")} <= tensors.keys()


DEEPLAB_V3PLUS_IMPORTER = Importer(
    family="smp/deeplabv3plus",
    title="DeepLabV3Plus of segmentation_models.pytorch",
    options={**dilation_options("16"), "atrous_rates": rates_option((12, 24, 36)), "encoder": ENCODER_OPTION},
    recognise=_recognise,
    plan=_plan,
)
