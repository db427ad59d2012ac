"""DrSleep's RefineNets from nothing but their layouts, as an independent yardstick for the importers.

Keys and shapes are written down here a second time, and the forward passes are plain functions on the state dict.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch.nn.functional as F
import torchseg_layout as ts
from torch import Tensor

State = dict[str, Tensor]
ROWS = ((1, 4, 1), (2, 6, 2), (3, 8, 1), (2, 8, 2), (2, 10, 1), (2, 12, 2), (2, 14, 1))
"""A thin MobileNet-v2: expansion, channels, blocks of layer2 to layer8."""
STRIDES = (1, 2, 2, 2, 1, 2, 1)


@cache
def _filled(key: str, shape: tuple[int, ...]) -> Tensor:
    return ts.filled({key: shape})[key]


def filled(shapes: ts.Shapes) -> State:
    """Published values of all keys; a trunk's are made once, and no test changes a tensor in place."""
    return {key: _filled(key, shape) for key, shape in shapes.items()}


def resnet_channels(depth: str) -> list[int]:
    factor = 4 if ts.BLOCKS[depth][0] else 1
    return [factor * width for width in (512, 256, 128, 64)]


def refinenet_shapes(
    depth: str = "resnet18",
    *,
    classes: int = 5,
    width: int = 6,
    coarse_width: int = 8,
    input_units: int = 2,
    output_units: int = 3,
    pools: int = 4,
    in_channels: int = 3,
) -> ts.Shapes:
    shapes = ts.trunk_shapes(depth, stem_width=None, in_channels=in_channels)
    for k, channels in enumerate(resnet_channels(depth), start=1):
        w = coarse_width if k == 1 else width
        shapes[f"p_ims1d2_outl{k}_dimred.weight"] = (w, channels, 3, 3)
        for chain, units in ((f"adapt_stage{k}_b", input_units), (f"mflow_conv_g{k}_b", output_units)):
            for n in range(1, units + 1):
                shapes[f"{chain}.0.{n}_conv.weight"] = (w, w, 3, 3)
                shapes[f"{chain}.0.{n}_conv.bias"] = (w,)
                shapes[f"{chain}.0.{n}_conv_relu_varout_dimred.weight"] = (w, w, 3, 3)
        if k > 1:
            shapes[f"adapt_stage{k}_b2_joint_varout_dimred.weight"] = (w, w, 3, 3)
        for n in range(1, pools + 1):
            shapes[f"mflow_conv_g{k}_pool.0.{n}_outvar_dimred.weight"] = (w, w, 3, 3)
        if k < 4:
            shapes[f"mflow_conv_g{k}_b3_joint_varout_dimred.weight"] = (width, w, 3, 3)
    return {**shapes, "clf_conv.weight": (classes, width, 3, 3), "clf_conv.bias": (classes,)}


def light_shapes(depth: str = "resnet18", *, in_channels: int = 3, **sizes: int) -> ts.Shapes:
    """The same without units; 1x1 kernels everywhere but in the trunk and the classifier."""
    whole = refinenet_shapes(depth, input_units=0, output_units=0, in_channels=in_channels, **sizes)
    return {key: (*shape[:2], 1, 1) if key.endswith("_dimred.weight") else shape for key, shape in whole.items()}


def conv_norm_shapes(name: str, out: int, inside: int, kernel: int) -> ts.Shapes:
    return {f"{name}.0.weight": (out, inside, kernel, kernel), **ts.norm_shapes(f"{name}.1", out)}


def mobilenet_shapes(
    *,
    classes: int = 5,
    width: int = 6,
    coarse_width: int = 6,
    pools: int = 4,
    stem: int = 4,
    rows: tuple[tuple[int, int, int], ...] = ROWS,
    in_channels: int = 3,
) -> ts.Shapes:
    shapes = conv_norm_shapes("layer1", stem, in_channels, 3)
    inside = stem
    for number, (expansion, out, blocks) in enumerate(rows, start=2):
        for block in range(blocks):
            name, inner = f"layer{number}.{block}.output", inside * expansion
            shapes |= conv_norm_shapes(f"{name}.0", inner, inside, 1)
            shapes |= conv_norm_shapes(f"{name}.1", inner, 1, 3)
            shapes |= conv_norm_shapes(f"{name}.2", out, inner, 1)
            inside = out
        if number > 2:
            shapes[f"conv{number}.weight"] = (coarse_width if number > 6 else width, out, 1, 1)
    for level in range(1, 5):
        w = coarse_width if level == 4 else width
        for n in range(1, pools + 1):
            shapes[f"crp{level}.0.{n}_outvar_dimred.weight"] = (w, w, 1, 1)
        if level > 1:
            shapes[f"conv_adapt{level}.weight"] = (width, w, 1, 1)
    return {**shapes, "segm.weight": (classes, width, 3, 3), "segm.bias": (classes,)}


def conv(state: State, name: str, x: Tensor) -> Tensor:
    weight = state[f"{name}.weight"]
    return F.conv2d(x, weight, state.get(f"{name}.bias"), padding=weight.shape[-1] // 2)


def enlarged(x: Tensor, other: Tensor, align_corners: bool = True) -> Tensor:
    return F.interpolate(x, size=other.shape[-2:], mode="bilinear", align_corners=align_corners)


def units(state: State, chain: str, x: Tensor) -> Tensor:
    n = 1
    while f"{chain}.0.{n}_conv.weight" in state:
        inner = conv(state, f"{chain}.0.{n}_conv", F.relu(x))
        x = x + conv(state, f"{chain}.0.{n}_conv_relu_varout_dimred", F.relu(inner))
        n += 1
    return x


def pooling(state: State, chain: str, x: Tensor, order: str = "pool_conv") -> Tensor:
    link, n = x, 1
    while f"{chain}.0.{n}_outvar_dimred.weight" in state:
        if order == "pool_conv":
            link = conv(state, f"{chain}.0.{n}_outvar_dimred", F.max_pool2d(link, 5, 1, 2))
        else:
            link = F.max_pool2d(conv(state, f"{chain}.0.{n}_outvar_dimred", link), 5, 1, 2)
        x, n = x + link, n + 1
    return x


def resnet_maps(state: State, depth: str, images: Tensor) -> list[Tensor]:
    """Coarsest first."""
    trunk = {f"backbone.{k}": v for k, v in state.items() if k.startswith(("conv1.", "bn1.", "layer"))}
    return ts.trunk_maps(trunk, depth, None, images)[::-1]


def resnet_forward(
    state: State, depth: str, images: Tensor, *, order: str = "pool_conv", align_corners: bool = True
) -> Tensor:
    """RefineNet, and the light-weight one where the state has no units."""
    x = None
    for k, stage in enumerate(resnet_maps(state, depth, images), start=1):
        path = units(state, f"adapt_stage{k}_b", conv(state, f"p_ims1d2_outl{k}_dimred", stage))
        if x is not None:
            coarser = conv(state, f"mflow_conv_g{k - 1}_b3_joint_varout_dimred", x)
            path = conv(state, f"adapt_stage{k}_b2_joint_varout_dimred", path)
            path = path + enlarged(coarser, path, align_corners)
        pooled = pooling(state, f"mflow_conv_g{k}_pool", F.relu(path), order)
        x = units(state, f"mflow_conv_g{k}_b", pooled)
    assert x is not None
    return conv(state, "clf_conv", x)


def conv_norm(state: State, name: str, x: Tensor, **options: int) -> Tensor:
    x = F.conv2d(x, state[f"{name}.0.weight"], **options)
    stats = (state[f"{name}.1.{leaf}"] for leaf in ("running_mean", "running_var", "weight", "bias"))
    return F.batch_norm(x, *stats, eps=1e-5)


def inverted_residual(state: State, name: str, x: Tensor, stride: int) -> Tensor:
    inner = F.relu6(conv_norm(state, f"{name}.0", x))
    inner = F.relu6(conv_norm(state, f"{name}.1", inner, stride=stride, padding=1, groups=inner.shape[1]))
    out = conv_norm(state, f"{name}.2", inner)
    return out + x if stride == 1 and out.shape == x.shape else out


def mobilenet_maps(state: State, images: Tensor) -> dict[int, Tensor]:
    """Number of a layer → its map."""
    x = F.relu6(conv_norm(state, "layer1", images, stride=2, padding=1))
    maps = {}
    for number, stride in enumerate(STRIDES, start=2):
        block = 0
        while f"layer{number}.{block}.output.0.0.weight" in state:
            x = inverted_residual(state, f"layer{number}.{block}.output", x, stride if block == 0 else 1)
            block += 1
        maps[number] = x
    return maps


def mobilenet_forward(state: State, images: Tensor) -> Tensor:
    maps = mobilenet_maps(state, images)
    lateral: Callable[[int], Tensor] = lambda number: conv(state, f"conv{number}", maps[number])  # noqa: E731
    x = pooling(state, "crp4", F.relu6(lateral(8) + lateral(7)))
    x = enlarged(conv(state, "conv_adapt4", x), maps[6])
    x = pooling(state, "crp3", F.relu6(lateral(5) + lateral(6) + x))
    x = enlarged(conv(state, "conv_adapt3", x), maps[4])
    x = pooling(state, "crp2", F.relu6(lateral(4) + x))
    x = enlarged(conv(state, "conv_adapt2", x), maps[3])
    return conv(state, "segm", pooling(state, "crp1", F.relu6(lateral(3) + x)))
