"""HRNet's and OCRNet's checkpoints and networks from nothing but their layout, as an independent yardstick.

Keys and shapes are written down here a second time, and the forward pass is made of plain functions on the state dict:
concatenations are built, and nothing is moved in front of an enlargement.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from perpixel.weights.reference_values import fill_value

Shapes = dict[str, tuple[int, ...]]
State = dict[str, Tensor]
CONTEXT = "ocr_distri_head.object_context_block"


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Of a checkpoint; the branches' widths are width, 2 width, 4 width and 8 width."""

    width: int = 3
    stem: int = 6
    inner: int = 4
    bottlenecks: int = 1
    modules: tuple[int, int, int] = (1, 1, 1)
    blocks: int = 1
    classes: int = 5
    in_channels: int = 3
    kernel: int = 1
    pixel: int = 8
    key: int = 4

    @property
    def branches(self) -> list[int]:
        return [self.width * 2**i for i in range(4)]

    @property
    def total(self) -> int:
        return sum(self.branches)


def norm_shapes(name: str, width: int) -> Shapes:
    leaves = ("weight", "bias", "running_mean", "running_var")
    return {**{f"{name}.{leaf}": (width,) for leaf in leaves}, f"{name}.num_batches_tracked": ()}


def conv_norm_shapes(conv: str, norm: str, inside: int, out: int, kernel: int) -> Shapes:
    return {f"{conv}.weight": (out, inside, kernel, kernel), **norm_shapes(norm, out)}


def trunk_shapes(sizes: Sizes) -> Shapes:
    shapes = conv_norm_shapes("conv1", "bn1", sizes.in_channels, sizes.stem, 3)
    shapes |= conv_norm_shapes("conv2", "bn2", sizes.stem, sizes.stem, 3)
    inside, out = sizes.stem, 4 * sizes.inner
    for block in range(sizes.bottlenecks):
        name = f"layer1.{block}"
        shapes |= conv_norm_shapes(f"{name}.conv1", f"{name}.bn1", inside, sizes.inner, 1)
        shapes |= conv_norm_shapes(f"{name}.conv2", f"{name}.bn2", sizes.inner, sizes.inner, 3)
        shapes |= conv_norm_shapes(f"{name}.conv3", f"{name}.bn3", sizes.inner, out, 1)
        if inside != out:
            shapes |= conv_norm_shapes(f"{name}.downsample.0", f"{name}.downsample.1", inside, out, 1)
        inside = out
    widths = sizes.branches
    if widths[0] != out:
        shapes |= conv_norm_shapes("transition1.0.0", "transition1.0.1", out, widths[0], 3)
    for stage in (2, 3, 4):
        before = out if stage == 2 else widths[stage - 2]
        new = f"transition{stage - 1}.{stage - 1}.0"
        shapes |= conv_norm_shapes(f"{new}.0", f"{new}.1", before, widths[stage - 1], 3)
        for module in range(sizes.modules[stage - 2]):
            shapes |= module_shapes(f"stage{stage}.{module}", widths[:stage], sizes.blocks)
    return shapes


def module_shapes(name: str, widths: list[int], blocks: int) -> Shapes:
    shapes: Shapes = {}
    for i, width in enumerate(widths):
        for block in range(blocks):
            for j in (1, 2):
                at = f"{name}.branches.{i}.{block}"
                shapes |= conv_norm_shapes(f"{at}.conv{j}", f"{at}.bn{j}", width, width, 3)
    for i, target in enumerate(widths):
        for j, source in enumerate(widths):
            at = f"{name}.fuse_layers.{i}.{j}"
            if j > i:
                shapes |= conv_norm_shapes(f"{at}.0", f"{at}.1", source, target, 1)
            for step in range(i - j):
                out = target if step == i - j - 1 else source
                shapes |= conv_norm_shapes(f"{at}.{step}.0", f"{at}.{step}.1", source, out, 3)
    return shapes


def mixed_shapes(name: str, sizes: Sizes) -> Shapes:
    return {
        f"{name}.0.weight": (sizes.total, sizes.total, 1, 1),
        f"{name}.0.bias": (sizes.total,),
        **norm_shapes(f"{name}.1", sizes.total),
        f"{name}.3.weight": (sizes.classes, sizes.total, sizes.kernel, sizes.kernel),
        f"{name}.3.bias": (sizes.classes,),
    }


def hrnet_shapes(sizes: Sizes) -> Shapes:
    return trunk_shapes(sizes) | mixed_shapes("last_layer", sizes)


def ocrnet_shapes(sizes: Sizes) -> Shapes:
    shapes = trunk_shapes(sizes)
    shapes |= {"conv3x3_ocr.0.weight": (sizes.pixel, sizes.total, 3, 3), "conv3x3_ocr.0.bias": (sizes.pixel,)}
    shapes |= norm_shapes("conv3x3_ocr.1", sizes.pixel)
    for part in ("f_pixel", "f_object"):
        shapes |= conv_norm_shapes(f"{CONTEXT}.{part}.0", f"{CONTEXT}.{part}.1.0", sizes.pixel, sizes.key, 1)
        shapes |= conv_norm_shapes(f"{CONTEXT}.{part}.2", f"{CONTEXT}.{part}.3.0", sizes.key, sizes.key, 1)
    shapes |= conv_norm_shapes(f"{CONTEXT}.f_down.0", f"{CONTEXT}.f_down.1.0", sizes.pixel, sizes.key, 1)
    shapes |= conv_norm_shapes(f"{CONTEXT}.f_up.0", f"{CONTEXT}.f_up.1.0", sizes.key, sizes.pixel, 1)
    fuse = "ocr_distri_head.conv_bn_dropout"
    shapes |= conv_norm_shapes(f"{fuse}.0", f"{fuse}.1.0", 2 * sizes.pixel, sizes.pixel, 1)
    shapes |= {"cls_head.weight": (sizes.classes, sizes.pixel, 1, 1), "cls_head.bias": (sizes.classes,)}
    return shapes | mixed_shapes("aux_head", sizes)


def filled(shapes: Shapes, dtype: torch.dtype = torch.float64) -> State:
    tensors = {key: torch.from_numpy(fill_value(key, shape)) for key, shape in shapes.items()}
    return {key: value.to(dtype) if value.is_floating_point() else value for key, value in tensors.items()}


def normed(state: State, name: str, x: Tensor) -> Tensor:
    stats = (state[f"{name}.{leaf}"] for leaf in ("running_mean", "running_var", "weight", "bias"))
    return F.batch_norm(x, *stats, eps=1e-5)


def conv_norm(state: State, conv: str, norm: str, x: Tensor, stride: int = 1) -> Tensor:
    weight = state[f"{conv}.weight"]
    x = F.conv2d(x, weight, state.get(f"{conv}.bias"), stride=stride, padding=weight.shape[-1] // 2)
    return normed(state, norm, x)


def enlarged(x: Tensor, like: Tensor, aligned: bool) -> Tensor:
    return F.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=aligned)


def bottleneck(state: State, name: str, x: Tensor) -> Tensor:
    kept = x
    if f"{name}.downsample.0.weight" in state:
        kept = conv_norm(state, f"{name}.downsample.0", f"{name}.downsample.1", x)
    for i in (1, 2):
        x = F.relu(conv_norm(state, f"{name}.conv{i}", f"{name}.bn{i}", x))
    return F.relu(conv_norm(state, f"{name}.conv3", f"{name}.bn3", x) + kept)


def trunk_maps(state: State, sizes: Sizes, images: Tensor, aligned: bool) -> list[Tensor]:
    x = F.relu(conv_norm(state, "conv1", "bn1", images, stride=2))
    x = F.relu(conv_norm(state, "conv2", "bn2", x, stride=2))
    for block in range(sizes.bottlenecks):
        x = bottleneck(state, f"layer1.{block}", x)
    maps = [x]
    for stage in (2, 3, 4):
        new = f"transition{stage - 1}.{stage - 1}.0"
        maps.append(F.relu(conv_norm(state, f"{new}.0", f"{new}.1", maps[-1], stride=2)))
        if stage == 2 and "transition1.0.0.weight" in state:
            maps[0] = F.relu(conv_norm(state, "transition1.0.0", "transition1.0.1", maps[0]))
        for module in range(sizes.modules[stage - 2]):
            maps = exchanged(state, f"stage{stage}.{module}", maps, sizes.blocks, aligned)
    return maps


def exchanged(state: State, name: str, maps: list[Tensor], blocks: int, aligned: bool) -> list[Tensor]:
    after = []
    for i, x in enumerate(maps):
        for block in range(blocks):
            at = f"{name}.branches.{i}.{block}"
            inner = F.relu(conv_norm(state, f"{at}.conv1", f"{at}.bn1", x))
            x = F.relu(conv_norm(state, f"{at}.conv2", f"{at}.bn2", inner) + x)
        after.append(x)
    sums = []
    for i, own in enumerate(after):
        total = torch.zeros_like(own)
        for j, x in enumerate(after):
            at = f"{name}.fuse_layers.{i}.{j}"
            if j > i:
                x = enlarged(conv_norm(state, f"{at}.0", f"{at}.1", x), own, aligned)
            for step in range(i - j):
                x = conv_norm(state, f"{at}.{step}.0", f"{at}.{step}.1", x, stride=2)
                x = x if step == i - j - 1 else F.relu(x)
            total = total + x
        sums.append(F.relu(total))
    return sums


def concatenated(maps: list[Tensor], aligned: bool) -> Tensor:
    return torch.cat([maps[0], *(enlarged(x, maps[0], aligned) for x in maps[1:])], dim=1)


def mixed(state: State, name: str, x: Tensor) -> Tensor:
    x = F.relu(conv_norm(state, f"{name}.0", f"{name}.1", x))
    weight = state[f"{name}.3.weight"]
    return F.conv2d(x, weight, state[f"{name}.3.bias"], padding=weight.shape[-1] // 2)


def hrnet_forward(state: State, sizes: Sizes, images: Tensor, aligned: bool) -> Tensor:
    return mixed(state, "last_layer", concatenated(trunk_maps(state, sizes, images, aligned), aligned))


def ocrnet_forward(state: State, sizes: Sizes, images: Tensor, aligned: bool) -> tuple[Tensor, Tensor]:
    """(scores of the soft regions, scores)."""
    features = concatenated(trunk_maps(state, sizes, images, aligned), aligned)
    regions = mixed(state, "aux_head", features)
    x = F.relu(conv_norm(state, "conv3x3_ocr.0", "conv3x3_ocr.1", features))

    def projected(part: str, value: Tensor, steps: int = 1) -> Tensor:
        for step in range(steps):
            at = f"{CONTEXT}.{part}"
            value = F.relu(conv_norm(state, f"{at}.{2 * step}", f"{at}.{2 * step + 1}.0", value))
        return value

    shares = regions.flatten(2).softmax(dim=-1)
    gathered = torch.einsum("bkn,bcn->bck", shares, x.flatten(2))[..., None]
    query, key = projected("f_pixel", x, 2).flatten(2), projected("f_object", gathered, 2).flatten(2)
    resemblance = (torch.einsum("bdn,bdk->bnk", query, key) / sizes.key**0.5).softmax(dim=-1)
    value = projected("f_down", gathered).flatten(2)
    context = torch.einsum("bnk,bdk->bdn", resemblance, value).unflatten(2, x.shape[-2:])
    joined = torch.cat([projected("f_up", context), x], dim=1)
    fuse = "ocr_distri_head.conv_bn_dropout"
    joined = F.relu(conv_norm(state, f"{fuse}.0", f"{fuse}.1.0", joined))
    return regions, F.conv2d(joined, state["cls_head.weight"], state["cls_head.bias"])
