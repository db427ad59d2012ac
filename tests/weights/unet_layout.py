"""milesial's and the authors' U-Nets as key-shape tables and as plain functions of a state dict, written anew."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from perpixel.weights.reference_values import fill_value

Shapes = dict[str, tuple[int, ...]]


def filled(shapes: Shapes, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    def value(key: str, shape: tuple[int, ...]) -> Tensor:
        tensor = torch.from_numpy(fill_value(key, shape))
        return tensor if key.endswith("num_batches_tracked") else tensor.to(dtype)

    return {key: value(key, shape) for key, shape in shapes.items()}


def _double_conv(prefix: str, inside: int, middle: int, outside: int, bias: bool) -> Shapes:
    shapes: Shapes = {}
    for conv, norm, channels in ((0, 1, (inside, middle)), (3, 4, (middle, outside))):
        shapes[f"{prefix}.double_conv.{conv}.weight"] = (channels[1], channels[0], 3, 3)
        if bias:
            shapes[f"{prefix}.double_conv.{conv}.bias"] = (channels[1],)
        for name in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{prefix}.double_conv.{norm}.{name}"] = (channels[1],)
        shapes[f"{prefix}.double_conv.{norm}.num_batches_tracked"] = ()
    return shapes


def milesial_shapes(
    *,
    width: int = 4,
    depth: int = 4,
    channels: int = 3,
    classes: int = 2,
    bilinear: bool = False,
    bias: bool = False,
) -> Shapes:
    factor = 2 if bilinear else 1
    widths = [width * 2**level for level in range(depth + 1)]
    shapes = _double_conv("inc", channels, widths[0], widths[0], bias)
    for level in range(1, depth + 1):
        out = widths[level] // (factor if level == depth else 1)
        shapes |= _double_conv(f"down{level}.maxpool_conv.1", widths[level - 1], out, out, bias)
    for stage in range(1, depth + 1):
        inside = widths[depth + 1 - stage]
        out = widths[depth - stage] // (factor if stage < depth else 1)
        if bilinear:
            shapes |= _double_conv(f"up{stage}.conv", inside, inside // 2, out, bias)
        else:
            shapes[f"up{stage}.up.weight"] = (inside, inside // 2, 2, 2)
            shapes[f"up{stage}.up.bias"] = (inside // 2,)
            shapes |= _double_conv(f"up{stage}.conv", inside, out, out, bias)
    return shapes | {"outc.conv.weight": (classes, width, 1, 1), "outc.conv.bias": (classes,)}


def milesial_forward(state: dict[str, Tensor], x: Tensor) -> Tensor:
    depth = sum(key.endswith("maxpool_conv.1.double_conv.0.weight") for key in state)

    def double_conv(prefix: str, x: Tensor) -> Tensor:
        for conv, norm in ((0, 1), (3, 4)):
            part = f"{prefix}.double_conv."
            x = F.conv2d(x, state[f"{part}{conv}.weight"], state.get(f"{part}{conv}.bias"), padding=1)
            mean, variance = state[f"{part}{norm}.running_mean"], state[f"{part}{norm}.running_var"]
            x = F.batch_norm(x, mean, variance, state[f"{part}{norm}.weight"], state[f"{part}{norm}.bias"]).relu()
        return x

    maps = [double_conv("inc", x)]
    for level in range(1, depth + 1):
        maps.append(double_conv(f"down{level}.maxpool_conv.1", F.max_pool2d(maps[-1], 2)))
    x = maps.pop()
    for stage in range(1, depth + 1):
        if f"up{stage}.up.weight" in state:
            x = F.conv_transpose2d(x, state[f"up{stage}.up.weight"], state[f"up{stage}.up.bias"], stride=2)
        else:
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
        skip = maps.pop()
        whole = torch.zeros(*x.shape[:2], *skip.shape[2:], dtype=x.dtype)
        top, left = (skip.shape[2] - x.shape[2]) // 2, (skip.shape[3] - x.shape[3]) // 2
        whole[:, :, top : top + x.shape[2], left : left + x.shape[3]] = x
        x = double_conv(f"up{stage}.conv", torch.cat([skip, whole], dim=1))
    return F.conv2d(x, state["outc.conv.weight"], state["outc.conv.bias"])


def original_shapes(*, width: int = 4, channels: int = 1, classes: int = 2, released: bool = False) -> Shapes:
    widths = [width * 2**level for level in range(5)]
    weights: Shapes = {}
    for level, out in enumerate(widths):
        weights[f"conv_d{level}a_b"] = (out, widths[level - 1] if level else channels, 3, 3)
        weights[f"conv_d{level}b_c"] = (out, out, 3, 3)
    for level, name in ((3, "upconv_d4c_u3a"), (2, "upconv_u3d_u2a"), (1, "upconv_u2d_u1a"), (0, "upconv_u1d_u0a")):
        upsampled = widths[level] * (2 if released and level == 0 else 1)
        weights[name] = (widths[level + 1], upsampled, 2, 2)
        weights[f"conv_u{level}b_c"] = (widths[level], upsampled + widths[level], 3, 3)
        weights[f"conv_u{level}c_d"] = (widths[level], widths[level], 3, 3)
    weights["conv_u0d_score"] = (classes, width, 1, 1)
    shapes: Shapes = {}
    for name, shape in weights.items():
        shapes[f"{name}.weight"] = shape
        shapes[f"{name}.bias"] = (shape[1 if name.startswith("upconv") else 0],)
    return shapes


def original_forward(state: dict[str, Tensor], x: Tensor, *, released: bool) -> Tensor:
    def conv(name: str, x: Tensor) -> Tensor:
        return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"]).relu()

    maps = []
    for level in range(5):
        x = conv(f"conv_d{level}b_c", conv(f"conv_d{level}a_b", F.max_pool2d(x, 2) if level else x))
        maps.append(x)
    for level, name in ((3, "upconv_d4c_u3a"), (2, "upconv_u3d_u2a"), (1, "upconv_u2d_u1a"), (0, "upconv_u1d_u0a")):
        x = F.conv_transpose2d(x, state[f"{name}.weight"], state[f"{name}.bias"], stride=2)
        x = x.relu() if released else x
        skip = maps[level]
        cut = (skip.shape[2] - x.shape[2]) // 2, (skip.shape[3] - x.shape[3]) // 2
        skip = skip[:, :, cut[0] : skip.shape[2] - cut[0], cut[1] : skip.shape[3] - cut[1]]
        x = conv(f"conv_u{level}c_d", conv(f"conv_u{level}b_c", torch.cat([x, skip], dim=1)))
    return F.conv2d(x, state["conv_u0d_score.weight"], state["conv_u0d_score.bias"])
