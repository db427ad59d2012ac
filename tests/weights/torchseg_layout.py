"""TorchSeg's checkpoints and networks from nothing but its layout, as an independent yardstick for the importer.

Keys and shapes are written down here a second time, and the forward pass is made of plain functions on the state dict.
"""

from __future__ import annotations

import timm
import torch
import torch.nn.functional as F
from torch import Tensor

from perpixel.weights.reference_values import fill_value

Shapes = dict[str, tuple[int, ...]]
BLOCKS = {
    "resnet18": (False, (2, 2, 2, 2)),
    "resnet34": (False, (3, 4, 6, 3)),
    "resnet50": (True, (3, 4, 6, 3)),
    "resnet101": (True, (3, 4, 23, 3)),
    "resnet152": (True, (3, 8, 36, 3)),
}


def norm_shapes(name: str, width: int) -> Shapes:
    leaves = ("weight", "bias", "running_mean", "running_var")
    return {**{f"{name}.{leaf}": (width,) for leaf in leaves}, f"{name}.num_batches_tracked": ()}


def trunk_shapes(depth: str, *, stem_width: int | None, in_channels: int = 3) -> Shapes:
    """A ResNet; ``stem_width`` None is the 7x7 stem."""
    bottleneck, counts = BLOCKS[depth]
    shapes: Shapes = {}
    if stem_width is None:
        shapes["conv1.weight"] = (64, in_channels, 7, 7)
        inside = 64
    else:
        w = stem_width
        shapes["conv1.0.weight"] = (w, in_channels, 3, 3)
        shapes |= norm_shapes("conv1.1", w)
        shapes["conv1.3.weight"] = (w, w, 3, 3)
        shapes |= norm_shapes("conv1.4", w)
        shapes["conv1.6.weight"] = (2 * w, w, 3, 3)
        inside = 2 * w
    shapes |= norm_shapes("bn1", inside)
    for stage, count in enumerate(counts):
        width = 64 * 2**stage
        out = 4 * width if bottleneck else width
        for block in range(count):
            name = f"layer{stage + 1}.{block}"
            kernels = (
                [(width, inside, 1, 1), (width, width, 3, 3), (out, width, 1, 1)]
                if bottleneck
                else [(width, inside, 3, 3), (width, width, 3, 3)]
            )
            for i, kernel in enumerate(kernels, start=1):
                shapes[f"{name}.conv{i}.weight"] = kernel
                shapes |= norm_shapes(f"{name}.bn{i}", kernel[0])
            if block == 0 and (inside != out or stage > 0):
                shapes[f"{name}.downsample.0.weight"] = (out, inside, 1, 1)
                shapes |= norm_shapes(f"{name}.downsample.1", out)
            inside = out
    return shapes


def refinement_shapes(name: str, inside: int, width: int) -> Shapes:
    return {
        f"{name}.conv_1x1.weight": (width, inside, 1, 1),
        f"{name}.cbr.conv.weight": (width, width, 3, 3),
        **norm_shapes(f"{name}.cbr.bn", width),
        f"{name}.conv_refine.weight": (width, width, 3, 3),
    }


def head_shapes(name: str, inside: int, classes: int, expansion: int) -> Shapes:
    hidden = expansion * classes
    return {
        **refinement_shapes(f"{name}.rrb", inside, hidden),
        f"{name}.conv.weight": (classes, hidden, 1, 1),
        f"{name}.conv.bias": (classes,),
    }


def dfn_shapes(
    depth: str = "resnet18",
    *,
    classes: int = 5,
    width: int = 16,
    border_width: int = 6,
    expansion: int = 9,
    stem_width: int | None = None,
    in_channels: int = 3,
) -> Shapes:
    channels = tuple((4 if BLOCKS[depth][0] else 1) * c for c in (64, 128, 256, 512))
    trunk = trunk_shapes(depth, stem_width=stem_width, in_channels=in_channels)
    shapes = {f"backbone.{key}": shape for key, shape in trunk.items()}
    shapes["global_context.1.conv.weight"] = (width, channels[3], 1, 1)
    shapes |= norm_shapes("global_context.1.bn", width)
    for i in range(4):
        shapes |= refinement_shapes(f"smooth_pre_rrbs.{i}", channels[3 - i], width)
        fc = f"cabs.{i}.channel_attention.fc"
        shapes |= {f"{fc}.0.weight": (width, 2 * width), f"{fc}.0.bias": (width,)}
        shapes |= {f"{fc}.2.weight": (width, width), f"{fc}.2.bias": (width,)}
        shapes |= refinement_shapes(f"smooth_aft_rrbs.{i}", width, width)
        shapes |= head_shapes(f"smooth_heads.{i}", width, classes, expansion)
        shapes |= refinement_shapes(f"border_pre_rrbs.{i}", channels[i], border_width)
        shapes |= refinement_shapes(f"border_aft_rrbs.{i}", border_width, border_width)
        shapes |= head_shapes(f"border_heads.{i}", border_width, 1, expansion)
    return shapes


def fcn32s_shapes(
    depth: str = "resnet18",
    *,
    classes: int = 4,
    width: int = 12,
    auxiliary_width: int = 8,
    stem_width: int | None = None,
) -> Shapes:
    channels = (1024, 2048) if BLOCKS[depth][0] else (256, 512)
    shapes = {f"backbone.{key}": shape for key, shape in trunk_shapes(depth, stem_width=stem_width).items()}
    for name, inside, hidden in (("head", channels[1], width), ("aux_head", channels[0], auxiliary_width)):
        shapes[f"{name}.cbr.conv.weight"] = (hidden, inside, 3, 3)
        shapes |= norm_shapes(f"{name}.cbr.bn", hidden)
        shapes |= {f"{name}.conv1x1.weight": (classes, hidden, 1, 1), f"{name}.conv1x1.bias": (classes,)}
    return shapes


def filled(shapes: Shapes, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    tensors = {key: torch.from_numpy(fill_value(key, shape)) for key, shape in shapes.items()}
    return {key: value.to(dtype) if value.is_floating_point() else value for key, value in tensors.items()}


def trunk_maps(state: dict[str, Tensor], depth: str, stem_width: int | None, images: Tensor) -> list[Tensor]:
    stem = {} if stem_width is None else {"stem_type": "deep", "stem_width": stem_width}
    net = timm.create_model(
        depth, features_only=True, out_indices=(1, 2, 3, 4), in_chans=images.shape[1], pretrained=False, **stem
    )
    net.to(images.dtype).eval()
    prefix = "backbone."
    net.load_state_dict({key.removeprefix(prefix): v for key, v in state.items() if key.startswith(prefix)})
    return list(net(images))


def conv_norm_relu(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    x = F.conv2d(x, state[f"{name}.conv.weight"], padding=state[f"{name}.conv.weight"].shape[-1] // 2)
    stats = (state[f"{name}.bn.{leaf}"] for leaf in ("running_mean", "running_var", "weight", "bias"))
    return F.relu(F.batch_norm(x, *stats, eps=1e-5))


def refinement(state: dict[str, Tensor], name: str, x: Tensor, *, relu: bool = True) -> Tensor:
    x = F.conv2d(x, state[f"{name}.conv_1x1.weight"])
    x = x + F.conv2d(conv_norm_relu(state, f"{name}.cbr", x), state[f"{name}.conv_refine.weight"], padding=1)
    return F.relu(x) if relu else x


def enlarged(x: Tensor, factor: int) -> Tensor:
    return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=True)


def head(state: dict[str, Tensor], name: str, x: Tensor, factor: int) -> Tensor:
    x = refinement(state, f"{name}.rrb", x, relu=False)
    return enlarged(F.conv2d(x, state[f"{name}.conv.weight"], state[f"{name}.conv.bias"]), factor)


def dfn_forward(
    state: dict[str, Tensor], depth: str, stem_width: int | None, images: Tensor
) -> tuple[list[Tensor], list[Tensor]]:
    """Class scores coarse to fine and border scores fine to coarse, all at the image's size (multiples of 32)."""
    maps = trunk_maps(state, depth, stem_width, images)
    high = conv_norm_relu(state, "global_context.1", maps[3].mean((2, 3), keepdim=True))
    high = high.expand(-1, -1, *maps[3].shape[-2:])
    smooth, border = [], []
    for i, low in enumerate(reversed(maps)):
        x = refinement(state, f"smooth_pre_rrbs.{i}", low)
        fc = f"cabs.{i}.channel_attention.fc"
        a = torch.cat([x, high], 1).mean((2, 3))
        a = F.relu(F.linear(a, state[f"{fc}.0.weight"], state[f"{fc}.0.bias"]))
        a = torch.sigmoid(F.linear(a, state[f"{fc}.2.weight"], state[f"{fc}.2.bias"]))
        x = refinement(state, f"smooth_aft_rrbs.{i}", x * a[:, :, None, None] + high)
        smooth.append(head(state, f"smooth_heads.{i}", x, 2 ** (5 - i)))
        high = enlarged(x, 2)
    total = refinement(state, "border_pre_rrbs.0", maps[0])
    border.append(head(state, "border_heads.0", total, 4))
    for i in range(1, 4):
        total = total + enlarged(refinement(state, f"border_pre_rrbs.{i}", maps[i]), 2**i)
        total = refinement(state, f"border_aft_rrbs.{i}", total)
        border.append(head(state, f"border_heads.{i}", total, 4))
    return smooth, border


def fcn32s_forward(
    state: dict[str, Tensor], depth: str, stem_width: int | None, images: Tensor
) -> tuple[Tensor, Tensor]:
    """The scores of both heads before they are enlarged."""
    maps = trunk_maps(state, depth, stem_width, images)
    scores = []
    for name, x in (("head", maps[3]), ("aux_head", maps[2])):
        x = conv_norm_relu(state, f"{name}.cbr", x)
        scores.append(F.conv2d(x, state[f"{name}.conv1x1.weight"], state[f"{name}.conv1x1.bias"]))
    return scores[0], scores[1]
