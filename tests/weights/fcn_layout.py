"""FCN checkpoints from nothing but their layout, as an independent yardstick for the importers.

Keys and shapes are written down here a second time; the forward pass is made of plain functions on the state dict, and
its crops come from the arithmetic of coordinates, not from the published numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from perpixel.weights.reference_values import fill_value

BLOCKS = ((1, 2), (2, 2), (4, 3), (8, 3), (8, 3))
"""Width as a multiple of the first block's, and convolutions, of VGG16's blocks."""
DECONVS = {32: ("upscore",), 16: ("upscore2", "upscore16"), 8: ("upscore2", "upscore_pool4", "upscore8")}
DECONV_STRIDES = {"upscore": 32, "upscore2": 2, "upscore_pool4": 2, "upscore16": 16, "upscore8": 8}


def fcn_shapes(
    stride: int, *, classes: int = 3, width: int = 2, fc_width: int = 5, in_channels: int = 3, bias: bool = False
) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}

    def conv(name: str, inside: int, outside: int, kernel: int) -> None:
        shapes[f"{name}.weight"] = (outside, inside, kernel, kernel)
        shapes[f"{name}.bias"] = (outside,)

    inside = in_channels
    for block, (factor, convs) in enumerate(BLOCKS, start=1):
        for i in range(1, convs + 1):
            conv(f"conv{block}_{i}", inside, factor * width, 3)
            inside = factor * width
    conv("fc6", inside, fc_width, 7)
    conv("fc7", fc_width, fc_width, 1)
    conv("score_fr", fc_width, classes, 1)
    if stride <= 16:
        conv("score_pool4", 8 * width, classes, 1)
    if stride == 8:
        conv("score_pool3", 4 * width, classes, 1)
    for name in DECONVS[stride]:
        kernel = 2 * DECONV_STRIDES[name]
        shapes[f"{name}.weight"] = (classes, classes, kernel, kernel)
    if bias:
        shapes["upscore2.bias"] = (classes,)
    return shapes


def filled(shapes: dict[str, tuple[int, ...]], dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Kernels are drawn twice as wide as the reference vectors', so that thin layers do not fade away."""
    values = {key: torch.from_numpy(fill_value(key, shape)).to(dtype) for key, shape in shapes.items()}
    return {key: value * 2 if value.ndim == 4 else value for key, value in values.items()}


@dataclass(frozen=True)
class Map:
    """A feature map, the image pixel on which its first cell is centred, and the pixels from cell to cell."""

    values: Tensor
    origin: float = 0.0
    step: float = 1.0

    def conv(self, state: dict[str, Tensor], name: str, *, padding: int = 0) -> Map:
        weight = state[f"{name}.weight"]
        values = F.conv2d(self.values, weight, state[f"{name}.bias"], padding=padding)
        return Map(values, self.origin + self.step * ((weight.shape[-1] - 1) / 2 - padding), self.step)

    def relu(self) -> Map:
        return Map(F.relu(self.values), self.origin, self.step)

    def pool(self) -> Map:
        return Map(F.max_pool2d(self.values, 2, 2, ceil_mode=True), self.origin + self.step / 2, 2 * self.step)

    def deconv(self, state: dict[str, Tensor], name: str) -> Map:
        weight, stride = state[f"{name}.weight"], DECONV_STRIDES[name]
        values = F.conv_transpose2d(self.values, weight, state.get(f"{name}.bias"), stride=stride)
        step = self.step / stride
        return Map(values, self.origin - step * (weight.shape[-1] - 1) / 2, step)

    def window(self, origin: float, size: torch.Size) -> Tensor:
        """The cells from the one that is centred on ``origin``."""
        first = (origin - self.origin) / self.step
        assert first == round(first) >= 0
        return self.values[..., round(first) : round(first) + size[0], round(first) : round(first) + size[1]]


def fcn_forward(
    state: dict[str, Tensor], stride: int, images: Tensor, *, pool_scales: tuple[float, float] = (1.0, 1.0)
) -> Tensor:
    """Scores at the images' size; ``pool_scales`` multiply pool4 and pool3."""
    x, pools = Map(images), []
    for block, (_, convs) in enumerate(BLOCKS, start=1):
        for i in range(1, convs + 1):
            name = f"conv{block}_{i}"
            x = x.conv(state, name, padding=100 if name == "conv1_1" else 1).relu()
        x = x.pool()
        pools.append(x)
    scores = x.conv(state, "fc6").relu().conv(state, "fc7").relu().conv(state, "score_fr")
    skips = {"upscore2": ("score_pool4", pools[3], pool_scales[0])}
    skips["upscore_pool4"] = ("score_pool3", pools[2], pool_scales[1])
    for name in DECONVS[stride]:
        scores = scores.deconv(state, name)
        if name in skips:
            layer, pool, scale = skips[name]
            fine = Map(pool.values * scale, pool.origin, pool.step).conv(state, layer)
            added = scores.values + fine.window(scores.origin, scores.values.shape[-2:])
            scores = Map(added, scores.origin, scores.step)
    return scores.window(0.0, images.shape[-2:])
