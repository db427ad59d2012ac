"""PSPNets and dilated FCNs of other code bases from nothing but their layouts: names, shapes and plain functions.

The trunk is a ResNet-18, whose names and shapes are those of torchseg_layout.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
import torchseg_layout as ts
from torch import Tensor

State = dict[str, Tensor]
BLOCKS = 2
SEMSEG_STEM = {"conv1.0": 0, "conv1.1": 1, "conv1.3": 3, "conv1.4": 4, "conv1.6": 6, "bn1": 7}


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Names of one code base; ``{}`` is the branch."""

    family: str
    trunk: str
    fusion: tuple[str, str]
    """Convolution and norm over the concatenation, or of the FCN's head."""
    classifier: str
    branch: tuple[str, str] | None = None
    auxiliary: tuple[str, str, str] | None = None
    full_dilation: bool = False
    align_corners: bool = True
    first_branch: int = 0
    bins_first: bool = False
    kernels: tuple[int, int] = (3, 1)
    cut: bool = False
    """The pyramid reads the second stage, undilated, and the branch of one bin has a bias and no norm (smp)."""


TORCHSEG = Layout(
    family="torchseg/pspnet",
    trunk="backbone.",
    branch=("psp_layer.ppm.{}.psp/cbr.conv", "psp_layer.ppm.{}.psp/cbr.bn"),
    fusion=("psp_layer.conv6.0.conv", "psp_layer.conv6.0.bn"),
    classifier="psp_layer.conv6.2",
    auxiliary=("aux_layer.0.conv", "aux_layer.0.bn", "aux_layer.2"),
)
SEMSEG = Layout(
    family="semseg/pspnet",
    trunk="",
    branch=("ppm.features.{}.1", "ppm.features.{}.2"),
    fusion=("cls.0", "cls.1"),
    classifier="cls.4",
    auxiliary=("aux.0", "aux.1", "aux.4"),
    full_dilation=True,
)
ENCODING = Layout(
    family="encoding/pspnet",
    trunk="pretrained.",
    branch=("head.conv5.0.conv{}.0", "head.conv5.0.conv{}.1"),
    first_branch=1,
    fusion=("head.conv5.1", "head.conv5.2"),
    classifier="head.conv5.5",
    auxiliary=("auxlayer.conv5.0", "auxlayer.conv5.1", "auxlayer.conv5.4"),
)
SMP = Layout(
    family="smp/pspnet",
    trunk="encoder.",
    branch=("decoder.psp.blocks.{}.pool.1.0", "decoder.psp.blocks.{}.pool.1.1"),
    fusion=("decoder.conv.0", "decoder.conv.1"),
    classifier="segmentation_head.0",
    bins_first=True,
    kernels=(1, 3),
    cut=True,
)
ENCODING_FCN = Layout(
    family="encoding/fcn",
    trunk="pretrained.",
    fusion=("head.conv5.0", "head.conv5.1"),
    classifier="head.conv5.4",
    auxiliary=("auxlayer.conv5.0", "auxlayer.conv5.1", "auxlayer.conv5.4"),
)
TORCHVISION_FCN = Layout(
    family="torchvision/fcn",
    trunk="backbone.",
    fusion=("classifier.0", "classifier.1"),
    classifier="classifier.4",
    auxiliary=("aux_classifier.0", "aux_classifier.1", "aux_classifier.4"),
    align_corners=False,
)


def shapes(
    layout: Layout,
    *,
    classes: int = 3,
    bins: tuple[int, ...] = (1, 2, 3, 6),
    bin_width: int = 4,
    width: int = 6,
    auxiliary_width: int | None = 5,
    stem_width: int | None = 32,
    in_channels: int = 3,
) -> ts.Shapes:
    trunk = ts.trunk_shapes("resnet18", stem_width=stem_width, in_channels=in_channels)
    found = {f"{layout.trunk}{key}": shape for key, shape in trunk.items()}
    if layout is SEMSEG:
        found = {semseg_name(key): shape for key, shape in found.items()}
    channels = 128 if layout.cut else 512
    inside = channels
    if layout.branch is not None:
        inside += bin_width * len(bins)
        for i, count in enumerate(bins, start=layout.first_branch):
            conv, norm = (name.format(i) for name in layout.branch)
            found[f"{conv}.weight"] = (bin_width, channels, 1, 1)
            found |= {f"{conv}.bias": (bin_width,)} if layout.cut and count == 1 else ts.norm_shapes(norm, bin_width)
    heads = [(*layout.fusion, layout.classifier, inside, width, layout.kernels)]
    if layout.auxiliary is not None and auxiliary_width is not None:
        heads.append((*layout.auxiliary, 256, auxiliary_width, (3, 1)))
    for conv, norm, classifier, inside, hidden, (first, last) in heads:
        found[f"{conv}.weight"] = (hidden, inside, first, first)
        found |= ts.norm_shapes(norm, hidden)
        found |= {f"{classifier}.weight": (classes, hidden, last, last), f"{classifier}.bias": (classes,)}
    return found


def semseg_name(key: str) -> str:
    name, _, leaf = key.rpartition(".")
    return f"layer0.{SEMSEG_STEM[name]}.{leaf}" if name in SEMSEG_STEM else key


def forward(
    layout: Layout, state: State, images: Tensor, *, bins: tuple[int, ...] = (1, 2, 3, 6), full: bool | None = None
) -> tuple[Tensor, Tensor | None]:
    """Scores and auxiliary scores at the map's size."""
    maps = trunk_maps(layout, state, images, layout.full_dilation if full is None else full)
    x = maps[1] if layout.cut else maps[3]
    if layout.branch is not None:
        branches = []
        for i, count in enumerate(bins, start=layout.first_branch):
            conv, norm = (name.format(i) for name in layout.branch)
            y = F.conv2d(F.adaptive_avg_pool2d(x, count), state[f"{conv}.weight"], state.get(f"{conv}.bias"))
            y = F.relu(batch_norm(state, norm, y) if f"{norm}.weight" in state else y)
            branches.append(F.interpolate(y, x.shape[-2:], mode="bilinear", align_corners=True))
        x = torch.cat([*branches, x] if layout.bins_first else [x, *branches], 1)
    scores = head(state, (*layout.fusion, layout.classifier), x)
    if layout.auxiliary is None or f"{layout.auxiliary[0]}.weight" not in state:
        return scores, None
    return scores, head(state, layout.auxiliary, maps[2])


def head(state: State, names: tuple[str, str, str], x: Tensor) -> Tensor:
    conv, norm, classifier = names
    x = F.relu(batch_norm(state, norm, padded(x, state[f"{conv}.weight"])))
    return padded(x, state[f"{classifier}.weight"]) + state[f"{classifier}.bias"][:, None, None]


def trunk_maps(layout: Layout, state: State, images: Tensor, full: bool) -> list[Tensor]:
    """The four stages of a ResNet-18; at output stride 8 but for a cut one, where the coarser two do not matter."""
    names = {(semseg_name(k) if layout is SEMSEG else f"{layout.trunk}{k}"): k for k in trunk_names()}
    net = {ours: state[theirs] for theirs, ours in names.items() if theirs in state}
    x = images
    deep = (("conv1.0", "conv1.1", 2), ("conv1.3", "conv1.4", 1), ("conv1.6", "bn1", 1))
    for conv, norm, stride in (("conv1", "bn1", 2),) if "conv1.weight" in net else deep:
        x = F.relu(batch_norm(net, norm, padded(x, net[f"{conv}.weight"], stride)))
    x = F.max_pool2d(x, 3, 2, 1)
    maps = []
    for stage, (stride, own) in enumerate(((1, 1), (2, 1), (1, 2), (1, 4)), start=1):
        for block in range(BLOCKS):
            first = own if full or own == 1 or block else own // 2
            x = basic_block(net, f"layer{stage}.{block}", x, 1 if block else stride, first, own)
        maps.append(x)
    return maps


def trunk_names() -> list[str]:
    return list({**ts.trunk_shapes("resnet18", stem_width=32), **ts.trunk_shapes("resnet18", stem_width=None)})


def basic_block(net: State, name: str, x: Tensor, stride: int, first: int, second: int) -> Tensor:
    y = F.relu(batch_norm(net, f"{name}.bn1", padded(x, net[f"{name}.conv1.weight"], stride, first)))
    y = batch_norm(net, f"{name}.bn2", padded(y, net[f"{name}.conv2.weight"], 1, second))
    if f"{name}.downsample.0.weight" in net:
        x = batch_norm(net, f"{name}.downsample.1", padded(x, net[f"{name}.downsample.0.weight"], stride))
    return F.relu(x + y)


def padded(x: Tensor, weight: Tensor, stride: int = 1, dilation: int = 1) -> Tensor:
    return F.conv2d(x, weight, stride=stride, padding=dilation * (weight.shape[-1] // 2), dilation=dilation)


def batch_norm(state: State, name: str, x: Tensor) -> Tensor:
    stats = (state[f"{name}.{leaf}"] for leaf in ("running_mean", "running_var", "weight", "bias"))
    return F.batch_norm(x, *stats, eps=1e-5)
