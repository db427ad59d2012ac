"""Checkpoints of semseg (hszhao/semseg at 4f274c3f): PSPNet on its ResNets, by PSPNet's author.

Classes, widths, depth, stem and branches are read off keys and shapes. Its stem is ``layer0``, its trunk dilates the
first block of a dilated stage like the rest, as the Caffe release does. Images are normalised as everywhere, with the
mean and deviation of ImageNet times 255.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perpixel.models import create_model
from perpixel.weights.importers.dilation import dilated_trunk, dilation_note, dilation_options
from perpixel.weights.importers.importer import Importer, Plan, StateDict, has_prefix, renamed
from perpixel.weights.importers.pyramid import PyramidNames, pyramid_note, pyramid_options, read_pspnet
from perpixel.weights.importers.resnet_trunk import read_resnet

__all__ = ["PSPNET_IMPORTER"]

_NAMES = PyramidNames(branch="ppm.features.{}.1", fusion="cls.0", classifier="cls.4", auxiliary="aux.4")
# Layers of their stem, which is one sequence with ReLUs and the pooling in it -> ours.
_DEEP_STEM = tuple(
    (rf"^layer0\.{theirs}\.", f"{ours}.")
    for theirs, ours in ((0, "conv1.0"), (1, "conv1.1"), (3, "conv1.3"), (4, "conv1.4"), (6, "conv1.6"), (7, "bn1"))
)
_PLAIN_STEM = ((r"^layer0\.0\.", "conv1."), (r"^layer0\.1\.", "bn1."))
_RULES = (
    (r"^(conv1|bn1|layer\d)\.", r"backbone.net.\1."),
    (r"^ppm\.features\.(\d+)\.1\.", r"pyramid.branches.\1.conv."),
    (r"^ppm\.features\.(\d+)\.2\.", r"pyramid.branches.\1.norm."),
    (r"^cls\.0\.", "fusion.conv."),
    (r"^cls\.1\.", "fusion.norm."),
    (r"^cls\.4\.", "classifier."),
    (r"^aux\.0\.", "auxiliary_head.block.conv."),
    (r"^aux\.1\.", "auxiliary_head.block.norm."),
    (r"^aux\.4\.", "auxiliary_head.classifier."),
)


def _plan_pspnet(tensors: StateDict, options: Mapping[str, Any]) -> Plan:
    config, num_classes = read_pspnet(tensors, _NAMES, options)
    stem = _DEEP_STEM if "layer0.3.weight" in tensors else _PLAIN_STEM
    trunk = read_resnet({renamed(key, stem): value for key, value in tensors.items()})
    network = create_model("pspnet", config, num_classes=num_classes, backbone=dilated_trunk(trunk, options))
    return Plan(
        network=network,
        rename=lambda key: renamed(key, (*stem, *_RULES)),
        notes=(dilation_note(options), pyramid_note(options)),
    )


def _is_pspnet(tensors: StateDict) -> bool:
    return all(has_prefix(tensors, part) for part in ("layer0.", "layer1.", "ppm.features.", "cls.0."))


PSPNET_IMPORTER = Importer(
    family="semseg/pspnet",
    title="PSPNet of semseg, on ResNets",
    options={**pyramid_options(), **dilation_options(output_stride=8, dilation="full")},
    recognise=_is_pspnet,
    plan=_plan_pspnet,
)
