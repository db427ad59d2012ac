"""Which ResNet stands in a checkpoint whose trunk has the names of torchvision's and timm's ResNets."""

from __future__ import annotations

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
_STEMS = {32: "deep32", 64: "deep64"}
_NUM_STAGES = 4


def read_resnet(tensors: StateDict, prefix: str = "") -> BackboneConfig:
    """Reads which ResNet stands under ``prefix``: depth and blocks off the keys, stem and image channels off shapes.

    Output stride and dilation convention leave no trace in weights: the result has their defaults.

    Raises:
        CheckpointError: no known ResNet has these blocks or this stem.
    """
    counts = tuple(_count(tensors, f"{prefix}layer{stage + 1}.") for stage in range(_NUM_STAGES))
    bottleneck = f"{prefix}layer1.0.conv3.weight" in tensors
    name = _DEPTHS.get((bottleneck, counts))
    if name is None:
        kind = "bottleneck" if bottleneck else "basic"
        known = ", ".join(sorted(set(_DEPTHS.values()), key=lambda n: int(n[6:])))
        raise CheckpointError(f"'{prefix}layer1..4' hold {counts} {kind} blocks, which is none of {known}")
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
    return BackboneConfig(name=name, stem=stem, in_channels=first.shape[1])


def _count(tensors: StateDict, prefix: str) -> int:
    found = {key[len(prefix) :].split(".")[0] for key in tensors if key.startswith(prefix)}
    return len(found)
