"""The checkpoints and networks of ICNet's two ports from nothing but their layouts, as a yardstick for the importers.

Keys and shapes are written down here a second time, and the forward passes are made of plain functions on the state
dict, in the order of the ports' code.
"""

from __future__ import annotations

import timm
import torch.nn.functional as F
from torch import Tensor
from torchseg_layout import Shapes, filled, norm_shapes, trunk_shapes

__all__ = ["filled", "liminn_forward", "liminn_shapes", "ptsemseg_forward", "ptsemseg_shapes"]

BLOCKS = (3, 4, 6, 3)


def unit_shapes(name: str, out: int, inside: int, kernel: int, *, merged: bool) -> Shapes:
    shapes: Shapes = {f"{name}.0.weight": (out, inside, kernel, kernel)}
    return {**shapes, f"{name}.0.bias": (out,)} if merged else {**shapes, **norm_shapes(f"{name}.1", out)}


def block_shapes(name: str, inside: int, inner: int, *, first: bool, merged: bool) -> Shapes:
    shapes = {
        **unit_shapes(f"{name}.cbr1.cbr_unit", inner, inside, 1, merged=merged),
        **unit_shapes(f"{name}.cbr2.cbr_unit", inner, inner, 3, merged=merged),
        **unit_shapes(f"{name}.cb3.cb_unit", 4 * inner, inner, 1, merged=merged),
    }
    if first:
        shapes |= unit_shapes(f"{name}.cb4.cb_unit", 4 * inner, inside, 1, merged=merged)
    return shapes


def block_names() -> list[list[str]]:
    """The blocks of each stage, in order; the third stage lies under two names."""
    stages = [[f"res_block{stage}.layers.{i}" for i in range(count)] for stage, count in enumerate(BLOCKS, start=2)]
    stages[1] = ["res_block3_conv.layers.0", *(f"res_block3_identity.layers.{i}" for i in range(BLOCKS[1] - 1))]
    return stages


def ptsemseg_shapes(
    *, width: int = 2, classes: int = 5, in_channels: int = 3, merged: bool = False, unused: bool = True
) -> Shapes:
    w = width
    shapes: Shapes = {}
    stem = (("convbnrelu1_1", w, in_channels), ("convbnrelu1_2", w, w), ("convbnrelu1_3", 2 * w, w))
    branch = (("convbnrelu1_sub1", w, in_channels), ("convbnrelu2_sub1", w, w), ("convbnrelu3_sub1", 2 * w, w))
    for name, out, inside in (*stem, *branch):
        shapes |= unit_shapes(f"{name}.cbr_unit", out, inside, 3, merged=merged)
    inside = 2 * w
    for stage, names in enumerate(block_names()):
        for i, name in enumerate(names):
            shapes |= block_shapes(name, inside, w * 2**stage, first=i == 0, merged=merged)
            inside = 4 * w * 2**stage
    if unused:
        for i in range(4):
            path = f"pyramid_pooling.path_module_list.{i}.cbr_unit"
            shapes |= unit_shapes(path, inside // 4, inside, 1, merged=merged)
    shapes |= unit_shapes("conv5_4_k1.cbr_unit", 8 * w, inside, 1, merged=merged)
    for name, low, high in (("cff_sub24", 8 * w, 8 * w), ("cff_sub12", 4 * w, 2 * w)):
        shapes |= unit_shapes(f"{name}.low_dilated_conv_bn.cb_unit", 4 * w, low, 3, merged=merged)
        shapes |= unit_shapes(f"{name}.high_proj_conv_bn.cb_unit", 4 * w, high, 1, merged=merged)
        shapes |= {
            f"{name}.low_classifier_conv.weight": (classes, low, 1, 1),
            f"{name}.low_classifier_conv.bias": (classes,),
        }
    return {**shapes, "classification.weight": (classes, 4 * w, 1, 1), "classification.bias": (classes,)}


def liminn_shapes(depth: str = "resnet18", *, classes: int = 4, stem_width: int = 32, width: int = 3) -> Shapes:
    shapes: Shapes = {f"pretrained.{key}": s for key, s in trunk_shapes(depth, stem_width=stem_width).items()}
    finer, coarser = (128, 512) if depth in ("resnet18", "resnet34") else (512, 2048)
    shapes |= {"pretrained.fc.weight": (10, coarser), "pretrained.fc.bias": (10,)}
    for i, (out, inside) in enumerate(((width, 3), (width, width), (2 * width, width))):
        shapes[f"conv_sub1.{i}.conv.weight"] = (out, inside, 3, 3)
        shapes |= norm_shapes(f"conv_sub1.{i}.bn", out)
    for name, low, high in (("cff_12", 4 * width, 2 * width), ("cff_24", coarser, finer)):
        shapes[f"head.{name}.conv_low.0.weight"] = (4 * width, low, 3, 3)
        shapes |= norm_shapes(f"head.{name}.conv_low.1", 4 * width)
        shapes[f"head.{name}.conv_high.0.weight"] = (4 * width, high, 1, 1)
        shapes |= norm_shapes(f"head.{name}.conv_high.1", 4 * width)
        shapes[f"head.{name}.conv_low_cls.weight"] = (classes, 4 * width, 1, 1)
    shapes["head.conv_cls.weight"] = (classes, 4 * width, 1, 1)
    return shapes


def normed(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    stats = (state[f"{name}.{leaf}"] for leaf in ("running_mean", "running_var", "weight", "bias"))
    return F.batch_norm(x, *stats, eps=1e-5)


def unit(state: dict[str, Tensor], name: str, x: Tensor, *, stride: int = 1, dilation: int = 1) -> Tensor:
    weight = state[f"{name}.0.weight"]
    padding = dilation * (weight.shape[-1] // 2)
    x = F.conv2d(x, weight, state.get(f"{name}.0.bias"), stride=stride, padding=padding, dilation=dilation)
    return normed(state, f"{name}.1", x) if f"{name}.1.weight" in state else x


def sized(x: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(x, size=size, mode="bilinear", align_corners=True)


def scaled(x: Tensor, *, shrink: int = 1, zoom: int = 1) -> Tensor:
    """The port's sizes: (n - 1) / shrink + 1, (n - 1) zoom + 1."""
    height, width = ((side - 1) // shrink * zoom + 1 for side in x.shape[-2:])
    return sized(x, (height, width))


def block(
    state: dict[str, Tensor], name: str, x: Tensor, *, stride: int = 1, dilation: int = 1, on_1x1: bool = False
) -> Tensor:
    first, second = (stride, 1) if on_1x1 else (1, stride)
    y = F.relu(unit(state, f"{name}.cbr1.cbr_unit", x, stride=first))
    y = F.relu(unit(state, f"{name}.cbr2.cbr_unit", y, stride=second, dilation=dilation))
    y = unit(state, f"{name}.cb3.cb_unit", y)
    shortcut = f"{name}.cb4.cb_unit"
    return F.relu(y + (unit(state, shortcut, x, stride=stride) if f"{shortcut}.0.weight" in state else x))


def fusion(state: dict[str, Tensor], name: str, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    low = scaled(low, zoom=2)
    scores = F.conv2d(low, state[f"{name}.low_classifier_conv.weight"], state[f"{name}.low_classifier_conv.bias"])
    low = unit(state, f"{name}.low_dilated_conv_bn.cb_unit", low, dilation=2)
    return F.relu(low + unit(state, f"{name}.high_proj_conv_bn.cb_unit", high)), scores


def ptsemseg_forward(
    state: dict[str, Tensor], images: Tensor, *, stride_on_1x1: bool, pooling: str
) -> tuple[Tensor, Tensor, Tensor]:
    """The scores at 1/4, 1/8 and 1/16 of an image of 32n + 1 pixels; ``pooling`` is floor or fixed (33x65 cells)."""
    x = scaled(images, shrink=2)
    for name, stride in (("convbnrelu1_1", 2), ("convbnrelu1_2", 1), ("convbnrelu1_3", 1)):
        x = F.relu(unit(state, f"{name}.cbr_unit", x, stride=stride))
    x = F.max_pool2d(x, 3, 2, 1)
    for stage, names in enumerate(block_names()):
        for i, name in enumerate(names):
            stride = 2 if (stage, i) == (1, 0) else 1
            x = block(state, name, x, stride=stride, dilation=(1, 1, 2, 4)[stage], on_1x1=stride_on_1x1)
            if stride == 2:
                sub2 = x
                x = scaled(x, shrink=2)
    size = x.shape[-2:]
    kernels = [(size[0] // b, size[1] // b) for b in (6, 3, 2, 1)]
    strides = kernels
    if pooling == "fixed":
        kernels, strides = [(8, 15), (13, 25), (17, 33), (33, 65)], [(5, 10), (10, 20), (16, 32), (33, 65)]
    x = x + sum(sized(F.avg_pool2d(x, k, s), size) for k, s in zip(kernels, strides, strict=True))
    x = F.relu(unit(state, "conv5_4_k1.cbr_unit", x))
    sub1 = images
    for name in ("convbnrelu1_sub1", "convbnrelu2_sub1", "convbnrelu3_sub1"):
        sub1 = F.relu(unit(state, f"{name}.cbr_unit", sub1, stride=2))
    x, scores16 = fusion(state, "cff_sub24", x, sub2)
    x, scores8 = fusion(state, "cff_sub12", x, sub1)
    scores4 = F.conv2d(scaled(x, zoom=2), state["classification.weight"], state["classification.bias"])
    return scores4, scores8, scores16


def liminn_forward(state: dict[str, Tensor], images: Tensor, *, stem_width: int = 32) -> tuple[Tensor, Tensor, Tensor]:
    """The scores at 1/4, 1/8 and 1/16 of an image of 32n pixels, on a ResNet-18."""
    trunk = timm.create_model(
        "resnet18", features_only=True, out_indices=(2, 4), output_stride=8, stem_type="deep", stem_width=stem_width
    )
    trunk.to(images.dtype).eval()
    prefix = "pretrained."
    trunk.load_state_dict(
        {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix) and ".fc." not in k}
    )
    sub1 = images
    for i in range(3):
        sub1 = F.conv2d(sub1, state[f"conv_sub1.{i}.conv.weight"], stride=2, padding=1)
        sub1 = F.relu(normed(state, f"conv_sub1.{i}.bn", sub1))
    height, width = images.shape[-2:]
    sub2 = trunk(sized(images, (height // 2, width // 2)))[0]
    x = trunk(sized(images, (height // 4, width // 4)))[1]
    size = x.shape[-2:]
    x = x + sum(sized(F.adaptive_avg_pool2d(x, bins), size) for bins in (1, 2, 3, 6))
    scores = []
    for name, high in (("head.cff_24", sub2), ("head.cff_12", sub1)):
        low = F.conv2d(sized(x, high.shape[-2:]), state[f"{name}.conv_low.0.weight"], padding=2, dilation=2)
        low = normed(state, f"{name}.conv_low.1", low)
        high = normed(state, f"{name}.conv_high.1", F.conv2d(high, state[f"{name}.conv_high.0.weight"]))
        scores.append(F.conv2d(low, state[f"{name}.conv_low_cls.weight"]))
        x = F.relu(low + high)
    doubled = sized(x, (2 * x.shape[-2], 2 * x.shape[-1]))
    return F.conv2d(doubled, state["head.conv_cls.weight"]), scores[1], scores[0]
