"""DilatedNet checkpoints from nothing but their layout, as an independent yardstick for the importer.

Keys and shapes are written down here a second time, and the forward pass is made of plain functions on the state dict.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from perpixel.weights.reference_values import fill_value

BLOCKS = ((1, 2), (2, 2), (4, 3), (8, 3), (8, 3))
"""Width as a multiple of the first block's, and convolutions, of VGG16's blocks."""
DILATIONS = {
    "conv1_1": 1,
    "conv1_2": 1,
    "conv2_1": 2,
    "conv3_1": 4,
    "conv4_1": 8,
    "conv5_1": 16,
    "conv6_1": 32,
    "conv7_1": 64,
    "fc1": 1,
}
LARGE = {"conv1_1": 2, "conv1_2": 2, "conv2_1": 4, "conv3_1": 8, "conv4_1": 16, "conv5_1": 32}


@dataclass(frozen=True, kw_only=True)
class Release:
    """One form of the published network, as thin as wanted."""

    classes: int
    layers: int | None
    large: bool = False
    once: bool = False
    upsample: str = ""
    width: int = 2
    fc_width: int = 5
    in_channels: int = 3

    @property
    def score(self) -> str:
        return "fc-final" if self.once else "final"

    @property
    def prefix(self) -> str:
        return "ct_" if self.once else "ctx_"

    @property
    def names(self) -> list[str]:
        """The 3x3 layers of the context module."""
        if self.layers is None:
            return []
        return [*list(DILATIONS)[: self.layers - 2], "fc1"]


VOC = Release(classes=3, layers=8, large=True, once=True)
CAMVID = Release(classes=3, layers=8)
KITTI = Release(classes=4, layers=7)
CITYSCAPES = Release(classes=3, layers=10, upsample="ctx_upsample")
FRONT_END = Release(classes=5, layers=None, once=True)


def checkpoint(release: Release, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    shapes: dict[str, tuple[int, ...]] = {}

    def conv(name: str, inside: int, outside: int, kernel: int) -> int:
        shapes[f"{name}.weight"] = (outside, inside, kernel, kernel)
        shapes[f"{name}.bias"] = (outside,)
        return outside

    channels = release.in_channels
    for block, (factor, convs) in enumerate(BLOCKS, start=1):
        for i in range(1, convs + 1):
            channels = conv(f"conv{block}_{i}", channels, factor * release.width, 3)
    channels = conv("fc6", channels, release.fc_width, 7)
    channels = conv("fc7", channels, release.fc_width, 1)
    classes = conv(release.score, channels, release.classes, 1)
    channels = classes
    factor = 1
    for name in release.names:
        factor = LARGE.get(name, factor) if release.large else 1  # fc1 is as wide as the layer before it
        channels = conv(release.prefix + name, channels, classes * factor, 3)
    if release.names:
        conv(f"{release.prefix}final", channels, classes, 1)
    if release.upsample:
        shapes[f"{release.upsample}.weight"] = (classes, 1, 16, 16)
    return {key: torch.from_numpy(fill_value(key, shape)).to(dtype) for key, shape in shapes.items()}


def forward(state: dict[str, Tensor], release: Release, x: Tensor) -> tuple[Tensor, Tensor]:
    """The front end's scores and the last ones."""

    def conv(name: str, x: Tensor, *, dilation: int = 1, padding: int = 0) -> Tensor:
        return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], dilation=dilation, padding=padding)

    for block, (_, convs) in enumerate(BLOCKS, start=1):
        for i in range(1, convs + 1):
            x = conv(f"conv{block}_{i}", x, dilation=2 if block == 5 else 1).relu()
        if block <= 3:
            x = F.max_pool2d(x, 2, ceil_mode=True)
    x = conv("fc7", conv("fc6", x, dilation=4).relu()).relu()
    front = x = conv(release.score, x)
    if release.once and release.names:
        x = F.pad(x, [sum(DILATIONS[name] for name in release.names)] * 4)
    for name in release.names:
        padding = 0 if release.once else DILATIONS[name]
        x = conv(release.prefix + name, x, dilation=DILATIONS[name], padding=padding).relu()
    if release.names:
        x = conv(f"{release.prefix}final", x)
    if release.upsample:
        x = F.conv_transpose2d(x, state[f"{release.upsample}.weight"], stride=8, padding=4, groups=release.classes)
    return front, x
