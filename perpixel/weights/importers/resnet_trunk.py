"""Which ResNet stands in a checkpoint whose trunk has the names of torchvision's and timm's ResNets."""

from __future__ import annotations

from dataclasses import replace

from perpixel.backbones import BackboneConfig
from perpixel.errors import CheckpointError
from perpixel.weights.importers.importer import StateDict, convolution_weight

__all__ = ["read_resnet"]

_DEPTHS: dict[tuple[bool, tuple[int, ...]], str] = {
    (False, (2, 2, 2, 2)): "resnet18",
    (False, (3, 4, 6, 3)): "resnet34",
    (True, (3, 4, 6, 3)): "resnet50",
    (True, (3, 4, 23, 3)): "resnet101",
    (True, (3, 8, 36, 3)): "resnet152",
}
# (blocks' name, groups, channels of a group in the first stage) -> timm's name; plain ResNets have one group of 64.
_WIDER: dict[tuple[str, int, int], str] = {
    ("resnet50", 32, 4): "resnext50_32x4d",
    ("resnet101", 32, 4): "resnext101_32x4d",
    ("resnet101", 32, 8): "resnext101_32x8d",
    ("resnet101", 32, 16): "resnext101_32x16d",
    ("resnet101", 32, 32): "resnext101_32x32d",
    ("resnet101", 64, 4): "resnext101_64x4d",
    ("resnet50", 1, 128): "wide_resnet50_2",
    ("resnet101", 1, 128): "wide_resnet101_2",
}
_STEMS = {32: "deep32", 64: "deep64"}
_NUM_STAGES = 4


def read_resnet(tensors: StateDict, prefix: str = "", *, may_be_cut: bool = False) -> BackboneConfig:
    """Reads which ResNet stands under ``prefix``: depth and blocks off the keys, stem and image channels off shapes.

    ResNeXts and wide ResNets are told by the shape of a 3x3 convolution. With ``may_be_cut``, a trunk whose coarsest
    stages are not in the checkpoint is read as one cut there, of the shallowest depth that begins so. Output stride
    and dilation convention leave no trace in weights: the result has their defaults.

    Raises:
        CheckpointError: no known ResNet has these blocks or this stem.
    """
    name, cut = _blocks(tensors, prefix, may_be_cut)
    if f"{prefix}conv1.weight" in tensors:
        stem, first = "7x7", tensors[f"{prefix}conv1.weight"]
        known_stem = tuple(first.shape[2:]) == (7, 7) and first.shape[0] == 64
    else:
        first = convolution_weight(tensors, f"{prefix}conv1.0")
        stem = _STEMS.get(first.shape[0], "")
        known_stem = tuple(first.shape[2:]) == (3, 3) and bool(stem)
    if not known_stem:
        raise CheckpointError(
            f"the stem under '{prefix}conv1' has shape {tuple(first.shape)}; known are 7x7 with 64 channels, and three "
            f"3x3 convolutions that begin with {' or '.join(map(str, _STEMS))} channels"
        )
    whole = BackboneConfig(name=_wider(tensors, prefix, name), stem=stem, in_channels=first.shape[1])
    return replace(whole, num_stages=_NUM_STAGES - cut, cut_stages=cut)


def _blocks(tensors: StateDict, prefix: str, may_be_cut: bool) -> tuple[str, int]:
    """The plain ResNet of these blocks, and how many of its coarsest stages are not there."""
    counts = tuple(_count(tensors, f"{prefix}layer{stage + 1}.") for stage in range(_NUM_STAGES))
    bottleneck = f"{prefix}layer1.0.conv3.weight" in tensors
    there = sum(count > 0 for count in counts) if may_be_cut else _NUM_STAGES
    for (kind, blocks), name in _DEPTHS.items():
        if there and kind == bottleneck and (*blocks[:there], *[0] * (_NUM_STAGES - there)) == counts:
            return name, _NUM_STAGES - there
    known = ", ".join(sorted(set(_DEPTHS.values()), key=lambda n: int(n[6:])))
    kind_name = "bottleneck" if bottleneck else "basic"
    raise CheckpointError(f"'{prefix}layer1..4' hold {counts} {kind_name} blocks, which is none of {known}")


def _wider(tensors: StateDict, prefix: str, name: str) -> str:
    """The timm name of a ResNet with these blocks whose 3x3 convolutions may be grouped or wider."""
    if f"{prefix}layer1.0.conv3.weight" not in tensors:
        return name
    width, of_group = convolution_weight(tensors, f"{prefix}layer1.0.conv2").shape[:2]
    groups = width // of_group
    if (groups, of_group) == (1, 64):
        return name
    if (name, groups, of_group) not in _WIDER:
        known = ", ".join(_WIDER.values())
        raise CheckpointError(
            f"the 3x3 convolutions under '{prefix}layer1' have {groups} groups of {of_group} channels: with the blocks "
            f"of {name} that is none of {known}, nor {name} itself (1 group of 64)"
        )
    return _WIDER[name, groups, of_group]


def _count(tensors: StateDict, prefix: str) -> int:
    found = {key[len(prefix) :].split(".")[0] for key in tensors if key.startswith(prefix)}
    return len(found)
