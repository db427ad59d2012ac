"""Checkpoints of DeepLab v1 (Caffe) and v2 (deeplab-pytorch) of any width, and what they compute."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from perpixel.weights.reference_values import fill_value

Shapes = dict[str, tuple[int, ...]]
CONVS = (2, 2, 3, 3, 3)
SIDES = {"data": 8, "pool1": 4, "pool2": 2, "pool3": 1, "pool4": 1}


def filled(shapes: Shapes) -> dict[str, Tensor]:
    return {key: torch.from_numpy(fill_value(key, shape)) for key, shape in shapes.items()}


def conv_shapes(name: str, out: int, inside: int, kernel: int) -> Shapes:
    return {f"{name}.weight": (out, inside, kernel, kernel), f"{name}.bias": (out,)}


def caffe_shapes(
    *, kernel: int = 3, width: int = 4, fc: int = 6, classes: int = 5, side: int | None = None, in_channels: int = 3
) -> Shapes:
    shapes: Shapes = {}
    channels = in_channels
    sources = {"data": in_channels}
    for block, (convs, factor) in enumerate(zip(CONVS, (1, 2, 4, 8, 8), strict=True), start=1):
        for i in range(1, convs + 1):
            shapes |= conv_shapes(f"conv{block}_{i}", width * factor, channels, 3)
            channels = width * factor
        sources[f"pool{block}"] = channels
    shapes |= conv_shapes("fc6", fc, channels, kernel) | conv_shapes("fc7", fc, fc, 1)
    shapes |= conv_shapes("fc8_voc12", classes, fc, 1)
    if side is not None:
        for name in SIDES:
            shapes |= conv_shapes(f"{name}_conv", side, sources[name], 3)
            shapes |= conv_shapes(f"{name}_fc", side, side, 1) | conv_shapes(f"{name}_ms", classes, side, 1)
    return shapes


def caffe_forward(
    state: dict[str, Tensor],
    images: Tensor,
    *,
    dilation: int,
    pool5a: bool,
    full_size: bool = True,
    pool_kernel: int = 3,
) -> Tensor:
    """Scores at stride 8; with side branches at the image's size, or at stride 8 as in training.

    With 2x2 pools at the image's size, by the released zoom of 8 and crop of 7 pixels at the beginning.
    """

    def conv(name: str, x: Tensor, **how: int) -> Tensor:
        return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], **how)

    maps = {"data": images}
    x = images
    for block, convs in enumerate(CONVS, start=1):
        spread = 2 if block == 5 else 1
        for i in range(1, convs + 1):
            x = conv(f"conv{block}_{i}", x, padding=spread, dilation=spread).relu()
        x = F.max_pool2d(x, pool_kernel if block <= 4 else 3, 2 if block <= 3 else 1, 1, ceil_mode=True)
        maps[f"pool{block}"] = x
    x = F.avg_pool2d(x, 3, 1, 1, count_include_pad=True) if pool5a else x
    padding = dilation * (state["fc6.weight"].shape[2] - 1) // 2
    scores = conv("fc8_voc12", conv("fc7", conv("fc6", x, padding=padding, dilation=dilation).relu()).relu())
    if pool_kernel == 2:
        zoomed = [8 * cells - 7 for cells in scores.shape[-2:]]
        scores = F.interpolate(scores, zoomed, mode="bilinear", align_corners=True)
        return scores[..., 7 : 7 + images.shape[-2], 7 : 7 + images.shape[-1]]
    if "data_conv.weight" not in state:
        return scores
    totals = [scores]
    for name, stride in SIDES.items():
        hidden = conv(f"{name}_conv", maps[name], padding=1, stride=1 if full_size else stride).relu()
        totals.append(conv(f"{name}_ms", conv(f"{name}_fc", hidden).relu()))
    if full_size:
        size = images.shape[-2:]
        totals = [F.interpolate(total, size, mode="bilinear", align_corners=True) for total in totals]
    return sum(totals[1:], totals[0])


def norm_shapes(name: str, channels: int) -> Shapes:
    leaves = ("weight", "bias", "running_mean", "running_var")
    return {**{f"{name}.{leaf}": (channels,) for leaf in leaves}, f"{name}.num_batches_tracked": ()}


def kazuto_shapes(
    head: str = "aspp",
    *,
    blocks: tuple[int, ...] = (3, 4, 6, 3),
    width: int = 4,
    classes: int = 5,
    branches: int = 4,
    prefix: str = "base.",
) -> Shapes:
    shapes: Shapes = {"layer1.conv1.conv.weight": (width, 3, 7, 7), **norm_shapes("layer1.conv1.bn", width)}
    inside = width
    for layer, count in enumerate(blocks, start=2):
        hidden = width * 2 ** (layer - 2)
        for block in range(1, count + 1):
            parts = {"reduce": (hidden, inside, 1), "conv3x3": (hidden, hidden, 3), "increase": (4 * hidden, hidden, 1)}
            if block == 1:
                parts["shortcut"] = (4 * hidden, inside, 1)
            for part, (out, channels, kernel) in parts.items():
                name = f"layer{layer}.block{block}.{part}"
                shapes[f"{name}.conv.weight"] = (out, channels, kernel, kernel)
                shapes |= norm_shapes(f"{name}.bn", out)
            inside = 4 * hidden
    if head == "aspp":
        for i in range(branches):
            shapes |= conv_shapes(f"aspp.c{i}", classes, inside, 3)
    else:
        shapes |= conv_shapes("fc", classes, inside, 1)
    return {prefix + key: shape for key, shape in shapes.items()}


def kazuto_scores(state: dict[str, Tensor], images: Tensor, rates: tuple[int, ...]) -> Tensor:
    """Scores of one scale at stride 8; without an ASPP those of the one classifier."""
    prefix = "base." if any(key.startswith("base.") for key in state) else ""

    def conv_norm(name: str, x: Tensor, **how: int) -> Tensor:
        x = F.conv2d(x, state[f"{prefix}{name}.conv.weight"], **how)
        leaves = ("running_mean", "running_var", "weight", "bias")
        return F.batch_norm(x, *(state[f"{prefix}{name}.bn.{leaf}"] for leaf in leaves), eps=1e-5)

    x = F.max_pool2d(conv_norm("layer1.conv1", images, stride=2, padding=3).relu(), 3, 2, 1, ceil_mode=True)
    for layer, (first, spread) in {2: (1, 1), 3: (2, 1), 4: (1, 2), 5: (1, 4)}.items():
        block = 1
        while f"{prefix}layer{layer}.block{block}.reduce.conv.weight" in state:
            name = f"layer{layer}.block{block}"
            stride = first if block == 1 else 1
            kept = conv_norm(f"{name}.shortcut", x, stride=stride) if block == 1 else x
            x = conv_norm(f"{name}.reduce", x, stride=stride).relu()
            x = conv_norm(f"{name}.conv3x3", x, padding=spread, dilation=spread).relu()
            x = (kept + conv_norm(f"{name}.increase", x)).relu()
            block += 1
    if f"{prefix}fc.weight" in state:
        return F.conv2d(x, state[f"{prefix}fc.weight"], state[f"{prefix}fc.bias"])
    parts = [
        F.conv2d(x, state[f"{prefix}aspp.c{i}.weight"], state[f"{prefix}aspp.c{i}.bias"], padding=r, dilation=r)
        for i, r in enumerate(rates)
    ]
    return sum(parts[1:], parts[0])


def kazuto_multi_scale(state: dict[str, Tensor], images: Tensor, rates: tuple[int, ...]) -> list[Tensor]:
    """Scores of the scales 1, 0.5 and 0.75, and the largest of each class."""
    whole = kazuto_scores(state, images, rates)
    parts = [whole]
    for scale in (0.5, 0.75):
        smaller = F.interpolate(images, scale_factor=scale, mode="bilinear", align_corners=False)
        parts.append(kazuto_scores(state, smaller, rates))
    size = whole.shape[-2:]
    enlarged = [whole, *(F.interpolate(p, size, mode="bilinear", align_corners=False) for p in parts[1:])]
    return [*parts, torch.stack(enlarged).amax(dim=0)]
