"""Importers of published checkpoints, one family (``codebase/network``) each, and the functions that use them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from perpixel.backbones.weight_files import Unwrapped, open_checkpoint, unwrap
from perpixel.errors import CheckpointError, InvalidValue, nearest
from perpixel.labels import LabelSpace
from perpixel.models import Network
from perpixel.weights.importers import (
    caffe_deeplab,
    caffe_dilation,
    caffe_segnet,
    delta_onera,
    drsleep,
    encoding_deeplabv3,
    encoding_encnet,
    encoding_fcn,
    gcn_ports,
    hrnet,
    icnet_ports,
    kazuto,
    milesial,
    sadeepj,
    semseg,
    smp_deeplab,
    smp_pspnet,
    smp_unet,
    torchseg,
    torchvision_deeplab,
    torchvision_fcn,
    unet_original,
    vainf,
    wkentaro,
)
from perpixel.weights.importers.importer import Importer, LoadReport, Option, listed, load_planned, resolve_options

__all__ = ["IMPORTERS", "Imported", "Importer", "LoadReport", "Option", "import_checkpoint", "import_weights"]

IMPORTERS: dict[str, Importer] = {
    "torchseg/dfn": torchseg.DFN_IMPORTER,
    "torchseg/fcn32s": torchseg.FCN32S_IMPORTER,
    "torchseg/pspnet": torchseg.PSPNET_IMPORTER,
    "semseg/pspnet": semseg.PSPNET_IMPORTER,
    "encoding/pspnet": encoding_fcn.PSPNET_IMPORTER,
    "encoding/fcn": encoding_fcn.FCN_IMPORTER,
    "torchvision/fcn": torchvision_fcn.FCN_IMPORTER,
    "smp/pspnet": smp_pspnet.PSPNET_IMPORTER,
    "torchvision/deeplabv3": torchvision_deeplab.DEEPLAB_V3_IMPORTER,
    "torchvision/lraspp": torchvision_deeplab.LRASPP_IMPORTER,
    "encoding/deeplabv3": encoding_deeplabv3.DEEPLAB_V3_IMPORTER,
    "vainf/deeplabv3": vainf.DEEPLAB_V3_IMPORTER,
    "vainf/deeplabv3plus": vainf.DEEPLAB_V3PLUS_IMPORTER,
    "smp/deeplabv3plus": smp_deeplab.DEEPLAB_V3PLUS_IMPORTER,
    "caffe/dilation": caffe_dilation.DILATION_IMPORTER,
    "wkentaro/fcn32s": wkentaro.FCN32S_IMPORTER,
    "wkentaro/fcn16s": wkentaro.FCN16S_IMPORTER,
    "wkentaro/fcn8s": wkentaro.FCN8S_IMPORTER,
    "sadeepj/fcn8s": sadeepj.FCN8S_IMPORTER,
    "sadeepj/crfasrnn": sadeepj.CRFASRNN_IMPORTER,
    "caffe/segnet": caffe_segnet.SEGNET_IMPORTER,
    "caffe/segnet-basic": caffe_segnet.SEGNET_BASIC_IMPORTER,
    "caffe/deconvnet": caffe_segnet.DECONVNET_IMPORTER,
    "delta-onera/segnet": delta_onera.SEGNET_IMPORTER,
    "caffe/deeplabv1": caffe_deeplab.DEEPLAB_V1_IMPORTER,
    "kazuto/deeplabv1": kazuto.DEEPLAB_V1_IMPORTER,
    "kazuto/deeplabv2": kazuto.DEEPLAB_V2_IMPORTER,
    "milesial/unet": milesial.UNET_IMPORTER,
    "encoding/encnet": encoding_encnet.ENCNET_IMPORTER,
    "hrnet/hrnet": hrnet.HRNET_IMPORTER,
    "hrnet/ocrnet": hrnet.OCRNET_IMPORTER,
    "drsleep/refinenet": drsleep.REFINENET_IMPORTER,
    "drsleep/refinenet-lw": drsleep.REFINENET_LW_IMPORTER,
    "ptsemseg/icnet": icnet_ports.PTSEMSEG_IMPORTER,
    "liminn/icnet": icnet_ports.LIMINN_IMPORTER,
    "unet/original": unet_original.UNET_IMPORTER,
    "zijundeng/gcn": gcn_ports.ZIJUNDENG_IMPORTER,
    "yassouali/gcn": gcn_ports.YASSOUALI_IMPORTER,
    "smp/unet": smp_unet.UNET_IMPORTER,
}


_MOST_PARTS = 8


@dataclass(frozen=True, kw_only=True)
class Imported:
    """A published checkpoint as one of our networks."""

    network: Network
    """In evaluation mode, on the CPU, in the checkpoint's floating type."""
    report: LoadReport
    labels: LabelSpace


def import_checkpoint(
    source: str | Path | Mapping[str, Any],
    family: str = "auto",
    *,
    labels: LabelSpace | str | int | None = None,
    **options: Any,
) -> Imported:
    """Loads a published checkpoint into our network of the same function.

    Args:
        source: A checkpoint file, or what it holds: a state dict, or a container with one inside.
        family: ``codebase/network``, a key of `IMPORTERS`; ``"auto"`` recognises it by its keys.
        labels: The classes, as a LabelSpace or what `LabelSpace.load` takes; None numbers them.
        options: What the weights alone cannot tell; each family states its own.

    Raises:
        CheckpointError: unreadable, recognised as no family, or not wholly accounted for.
        InvalidValue: no such family, option or value, or ``labels`` has another number of classes.
    """
    if isinstance(source, Mapping):
        return _imported(unwrap(source), family, labels, options)
    unwrapped = open_checkpoint(source)
    try:
        return _imported(unwrapped, family, labels, options)
    except CheckpointError as error:
        raise CheckpointError(f"{source}: {error}") from error


def import_weights(
    source: str | Path | Mapping[str, Any],
    family: str = "auto",
    *,
    labels: LabelSpace | str | int | None = None,
    **options: Any,
) -> Network:
    """Returns the network of `import_checkpoint`, which see."""
    return import_checkpoint(source, family, labels=labels, **options).network


def _imported(
    unwrapped: Unwrapped, family: str, labels: LabelSpace | str | int | None, options: Mapping[str, Any]
) -> Imported:
    importer = _recognised(unwrapped.tensors) if family == "auto" else _named(family)
    resolved = resolve_options(importer, options)
    if not importer.recognise(unwrapped.tensors):
        raise CheckpointError(_not_of_family(importer, unwrapped))
    plan = importer.plan(unwrapped.tensors, resolved)
    space = _label_space(labels, plan.network.num_classes)
    report = load_planned(importer.family, unwrapped.tensors, plan, resolved)
    network = plan.network.eval()
    return Imported(network=network, report=replace(report, notes=(*unwrapped.notes, *report.notes)), labels=space)


def _named(family: str) -> Importer:
    if family not in IMPORTERS:
        near = nearest(family, IMPORTERS, end=".")
        raise InvalidValue(f"no checkpoint family {family!r}{near} Known: {', '.join(sorted(IMPORTERS))}, auto.")
    return IMPORTERS[family]


def _recognised(tensors: Mapping[str, Tensor]) -> Importer:
    found = [importer for importer in IMPORTERS.values() if importer.recognise(tensors)]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(importer.family for importer in found)
        raise CheckpointError(f"the checkpoint fits several families ({names}); name one")
    nearly = "".join(f"; {_without(i, beside)}" for i in IMPORTERS.values() if (beside := _keys_beside(i, tensors)))
    raise CheckpointError(
        f"the checkpoint's {len(tensors)} keys are of no known family ({', '.join(sorted(IMPORTERS))}); it holds "
        f"{listed(tensors, 5)}{nearly}. Weights of a classification network are no model: a network starts from them "
        "as its backbone's weights"
    )


def _not_of_family(importer: Importer, unwrapped: Unwrapped) -> str:
    tensors = unwrapped.tensors
    others = [other.family for other in IMPORTERS.values() if other.recognise(tensors)]
    hint = f"; it looks like {others[0]}" if others else ""
    if beside := _keys_beside(importer, tensors):
        hint = f"; {_without(importer, beside)}"
    return f"the checkpoint is not of family {importer.family} ({importer.title}){hint}; it holds {listed(tensors, 5)}"


def _keys_beside(importer: Importer, tensors: Mapping[str, Tensor]) -> list[str]:
    """The keys of the one part of a network without which the checkpoint would be of the family.

    Families that mind other parts have four at most, so a checkpoint of many is not searched.
    """
    parts = {key: key.split(".")[0] for key in tensors}
    names = dict.fromkeys(parts.values())
    for part in names if len(names) <= _MOST_PARTS else ():
        if importer.recognise({key: value for key, value in tensors.items() if parts[key] != part}):
            return [key for key in tensors if parts[key] == part]
    return []


def _without(importer: Importer, keys: list[str]) -> str:
    return f"without {listed(keys, 3)} it would be of {importer.family}"


def _label_space(labels: LabelSpace | str | int | None, num_classes: int) -> LabelSpace:
    if labels is None:
        return LabelSpace.numbered(num_classes)
    space = labels if isinstance(labels, LabelSpace) else LabelSpace.load(labels)
    if space.num_classes != num_classes:
        raise InvalidValue(
            f"label space {space.name!r} has {space.num_classes} classes, the checkpoint {num_classes}; "
            "give the labels that it was trained with, or leave them away to number the classes"
        )
    return space
