"""The two ports' GCNs from nothing but their layouts, as an independent yardstick for the importers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
import torchseg_layout as ts
from torch import Tensor

Shapes = ts.Shapes
State = dict[str, Tensor]


def blank(shapes: Shapes) -> State:
    """Tensors of one value that take no memory, for tests that read keys and shapes alone."""
    return {key: torch.zeros((), dtype=torch.float64).expand(shape) for key, shape in shapes.items()}


def channels(depth: str) -> tuple[int, ...]:
    """Of layer1 to layer4."""
    return tuple((4 if ts.BLOCKS[depth][0] else 1) * c for c in (64, 128, 256, 512))


def zijundeng_name(key: str) -> str:
    """torchvision's name of a trunk's tensor -> zijundeng's."""
    for ours, theirs in (("conv1.", "layer0.0."), ("bn1.", "layer0.1."), ("layer1.", "layer1.1.")):
        if key.startswith(ours):
            return theirs + key.removeprefix(ours)
    return key


def yassouali_name(key: str) -> str:
    """torchvision's name of a trunk's tensor -> yassouali's."""
    for ours, theirs in (("conv1.", "initial.0."), ("bn1.", "initial.1.")):
        if key.startswith(ours):
            return "backbone." + theirs + key.removeprefix(ours)
    return "backbone." + key


def kernel_shapes(name: str, inside: int, classes: int, k: int, names: tuple[str, str, str, str]) -> Shapes:
    shapes = ((classes, inside, k, 1), (classes, classes, 1, k), (classes, inside, 1, k), (classes, classes, k, 1))
    return {
        key: shape
        for layer, weight in zip(names, shapes, strict=True)
        for key, shape in ((f"{name}.{layer}.weight", weight), (f"{name}.{layer}.bias", (classes,)))
    }


def refinement_shapes(name: str, classes: int) -> Shapes:
    return {
        key: shape
        for i in (1, 2)
        for key, shape in (
            (f"{name}.conv{i}.weight", (classes, classes, 3, 3)),
            (f"{name}.conv{i}.bias", (classes,)),
        )
    }


ZIJUNDENG_LAYERS = ("conv_l1", "conv_l2", "conv_r1", "conv_r2")
YASSOUALI_LAYERS = ("conv11", "conv12", "conv21", "conv22")


def zijundeng_shapes(
    depth: str = "resnet18", *, classes: int = 3, kernels: tuple[int, ...] = (3, 3, 3, 3), in_channels: int = 3
) -> Shapes:
    trunk = ts.trunk_shapes(depth, stem_width=None, in_channels=in_channels)
    shapes = {zijundeng_name(key): shape for key, shape in trunk.items()}
    for i, (inside, k) in enumerate(zip(reversed(channels(depth)), kernels, strict=True), start=1):
        shapes |= kernel_shapes(f"gcm{i}", inside, classes, k, ZIJUNDENG_LAYERS)
    for i in range(1, 10):
        shapes |= refinement_shapes(f"brm{i}", classes)
    return shapes


def yassouali_shapes(
    depth: str = "resnet18", *, classes: int = 3, kernel: int = 5, deconvolution: int | None = None
) -> Shapes:
    trunk = ts.trunk_shapes(depth, stem_width=None)
    shapes = {yassouali_name(key): shape for key, shape in trunk.items()}
    for i, inside in enumerate(channels(depth), start=1):
        shapes |= kernel_shapes(f"gcn{i}", inside, classes, kernel, YASSOUALI_LAYERS)
    for i in range(1, 10):
        shapes |= refinement_shapes(f"br{i}", classes)
        for norm in ("bn1", "bn2"):
            shapes |= ts.norm_shapes(f"br{i}.{norm}", classes)
    if deconvolution is not None:
        side = (deconvolution, deconvolution)
        shapes |= {f"decon{i}.weight": (classes, classes, *side) for i in range(1, 6)}
    shapes |= {"final_conv.weight": (classes, classes, 1, 1), "final_conv.bias": (classes,)}
    return shapes


def trunk_maps(state: State, depth: str, images: Tensor, name: object) -> list[Tensor]:
    keys = ts.trunk_shapes(depth, stem_width=None)
    theirs = {key: state[name(key)] for key in keys}  # type: ignore[operator]
    return ts.trunk_maps({f"backbone.{key}": value for key, value in theirs.items()}, depth, None, images)


def convolved(state: State, name: str, x: Tensor) -> Tensor:
    weight = state[f"{name}.weight"]
    return F.conv2d(x, weight, state[f"{name}.bias"], padding=(weight.shape[2] // 2, weight.shape[3] // 2))


def kernels(state: State, name: str, x: Tensor, names: tuple[str, str, str, str]) -> Tensor:
    left, right = ((names[0], names[1]), (names[2], names[3]))
    total = torch.zeros(())
    for first, second in (left, right):
        total = total + convolved(state, f"{name}.{second}", convolved(state, f"{name}.{first}", x))
    return total


def refined(state: State, name: str, x: Tensor) -> Tensor:
    return x + convolved(state, f"{name}.conv2", F.relu(convolved(state, f"{name}.conv1", x)))


def enlarged(x: Tensor, size: object) -> Tensor:
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=True)  # type: ignore[arg-type]


def zijundeng_forward(state: State, depth: str, images: Tensor) -> Tensor:
    f1, f2, f3, f4 = trunk_maps(state, depth, images, zijundeng_name)
    scores = [
        refined(state, f"brm{i}", kernels(state, f"gcm{i}", f, ZIJUNDENG_LAYERS))
        for i, f in enumerate((f4, f3, f2, f1), start=1)
    ]
    x = scores[0]
    for i, finer in enumerate(scores[1:], start=5):
        x = refined(state, f"brm{i}", enlarged(x, finer.shape[-2:]) + finer)
    half = [(side + 1) // 2 for side in images.shape[-2:]]
    x = refined(state, "brm8", enlarged(x, half))
    return refined(state, "brm9", enlarged(x, images.shape[-2:]))


def yassouali_forward(state: State, depth: str, images: Tensor) -> Tensor:
    maps = trunk_maps(state, depth, images, yassouali_name)
    x1, x2, x3, x4 = (
        refined(state, f"br{i}", kernels(state, f"gcn{i}", f, YASSOUALI_LAYERS)) for i, f in enumerate(maps, start=1)
    )
    if "decon1.weight" not in state:
        x = refined(state, "br5", x3 + enlarged(x4, x3.shape[-2:]))
        x = refined(state, "br6", x2 + enlarged(x, x2.shape[-2:]))
        x = refined(state, "br8", refined(state, "br7", x1 + enlarged(x, x1.shape[-2:])))
        x = refined(state, "br9", enlarged(x, images.shape[-2:]))
        return convolved(state, "final_conv", x)

    def doubled(i: int, x: Tensor, like: Tensor | None = None) -> Tensor:
        weight = state[f"decon{i}.weight"]
        k = weight.shape[-1]
        x = F.conv_transpose2d(x, weight, stride=2, padding=(k - 1) // 2, output_padding=k % 2)
        if like is None:
            return x
        return F.pad(x, (like.shape[-1] - x.shape[-1], 0, like.shape[-2] - x.shape[-2], 0))

    x = refined(state, "br5", x3 + doubled(4, x4, x3))
    x = refined(state, "br6", x2 + doubled(3, x, x2))
    x = refined(state, "br7", x1 + doubled(2, x))
    x = refined(state, "br8", doubled(1, x))
    return convolved(state, "final_conv", refined(state, "br9", doubled(5, x)))
