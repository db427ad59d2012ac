"""DeepLab v3 and v3+ checkpoints of four code bases from nothing but their layouts, as a yardstick for the importers.

Keys and shapes are written down here a second time, and the forward pass is made of plain functions on the state dict:
branches are concatenated, maps enlarged before they are scored. ResNets are torchvision's modules, dilated by hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchseg_layout import BLOCKS, Shapes, norm_shapes, trunk_shapes
from torchvision.models import resnet18, resnet50

from perpixel.weights.reference_values import fill_value

State = dict[str, Tensor]
MOBILENET_V2 = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def filled(shapes: Shapes) -> State:
    """The published values of each key, in float64; drawn once for all tests."""
    return {key: _value(key, shape) for key, shape in shapes.items()}


@cache
def _value(key: str, shape: tuple[int, ...]) -> Tensor:
    return torch.from_numpy(fill_value(key, shape))


def resnet_shapes(prefix: str, depth: str = "resnet18", in_channels: int = 3) -> Shapes:
    trunk = trunk_shapes(depth, stem_width=None, in_channels=in_channels)
    return {prefix + key: shape for key, shape in trunk.items()}


def channels_of(depth: str) -> tuple[int, ...]:
    return tuple((4 if BLOCKS[depth][0] else 1) * c for c in (64, 128, 256, 512))


def conv_norm_shapes(conv: str, norm: str, out: int, inside: int, kernel: int = 1) -> Shapes:
    return {f"{conv}.weight": (out, inside, kernel, kernel), **norm_shapes(norm, out)}


def separable_shapes(conv: str, norm: str, out: int, inside: int) -> Shapes:
    """``conv`` holds the depthwise convolution as 0 and the pointwise one as 1."""
    depthwise, pointwise = (inside, 1, 3, 3), (out, inside, 1, 1)
    return {f"{conv}.0.weight": depthwise, f"{conv}.1.weight": pointwise, **norm_shapes(norm, out)}


def aspp_shapes(prefix: str, inside: int, width: int, *, rates: int = 3, separable: str | None = None) -> Shapes:
    """``separable``: what lies between a branch's convolution and its two parts, such as ``.body``; None is plain."""
    shapes = conv_norm_shapes(f"{prefix}convs.0.0", f"{prefix}convs.0.1", width, inside)
    for i in range(1, rates + 1):
        conv, norm = f"{prefix}convs.{i}.0", f"{prefix}convs.{i}.1"
        if separable is None:
            shapes |= conv_norm_shapes(conv, norm, width, inside, 3)
        else:
            shapes |= separable_shapes(conv + separable, norm, width, inside)
    last = f"{prefix}convs.{rates + 1}"
    shapes |= conv_norm_shapes(f"{last}.1", f"{last}.2", width, inside)
    return shapes | conv_norm_shapes(f"{prefix}project.0", f"{prefix}project.1", width, (rates + 2) * width)


def scores_shapes(name: str, classes: int, inside: int) -> Shapes:
    return {f"{name}.weight": (classes, inside, 1, 1), f"{name}.bias": (classes,)}


def v3_head_shapes(prefix: str, inside: int, *, classes: int, width: int, separable: bool = False) -> Shapes:
    """ASPP, 3x3 block and scores as torchvision and VainF number them."""
    body = ".body" if separable else None
    shapes = aspp_shapes(f"{prefix}0.", inside, width, separable=body)
    if separable:
        shapes |= separable_shapes(f"{prefix}1.body", f"{prefix}2", width, width)
    else:
        shapes |= conv_norm_shapes(f"{prefix}1", f"{prefix}2", width, width, 3)
    return shapes | scores_shapes(f"{prefix}4", classes, width)


def torchvision_v3_shapes(*, classes: int = 4, width: int = 8, auxiliary: int | None = 6) -> Shapes:
    shapes = resnet_shapes("backbone.") | v3_head_shapes("classifier.", 512, classes=classes, width=width)
    if auxiliary is not None:
        shapes |= conv_norm_shapes("aux_classifier.0", "aux_classifier.1", auxiliary, 256, 3)
        shapes |= scores_shapes("aux_classifier.4", classes, auxiliary)
    return shapes


def encoding_v3_shapes(**sizes: int | None) -> Shapes:
    """PyTorch-Encoding's names for the same layers."""
    return {_as_encoding(key): shape for key, shape in torchvision_v3_shapes(**sizes).items()}  # type: ignore[arg-type]


_ENCODING = (
    ("backbone.", "pretrained."),
    ("classifier.0.convs.4.", "head.aspp.b4.gap."),
    ("classifier.0.convs.", "head.aspp.b"),
    ("classifier.0.", "head.aspp."),
    ("classifier.1.", "head.block.0."),
    ("classifier.2.", "head.block.1."),
    ("classifier.4.", "head.block.4."),
    ("aux_classifier.", "auxlayer.conv5."),
)


def _as_encoding(key: str) -> str:
    start, name = next(pair for pair in _ENCODING if key.startswith(pair[0]))
    return name + key.removeprefix(start)


def as_torchvision(state: State) -> State:
    """An encoding checkpoint under torchvision's names."""
    wanted = torchvision_v3_shapes(auxiliary=1)
    back = {_as_encoding(key): key for key in wanted}
    return {back[key]: value for key, value in state.items()}


def mobilenet_shapes(factor: float, in_channels: int = 3) -> Shapes:
    stem = max(8, int(32 * factor + 4) // 8 * 8)
    start = "backbone.low_level_features."
    shapes = conv_norm_shapes(f"{start}0.0", f"{start}0.1", stem, in_channels, 3)
    inside, number = stem, 0
    for expansion, width, blocks, _ in MOBILENET_V2:
        out = int(width * factor)
        for _ in range(blocks):
            number += 1
            name = f"backbone.{'low' if number < 4 else 'high'}_level_features.{number}.conv"
            hidden, at = inside * expansion, 0
            if expansion > 1:
                shapes |= conv_norm_shapes(f"{name}.0.0", f"{name}.0.1", hidden, inside)
                at = 1
            shapes[f"{name}.{at}.0.weight"] = (hidden, 1, 3, 3)
            shapes |= norm_shapes(f"{name}.{at}.1", hidden)
            shapes |= conv_norm_shapes(f"{name}.{at + 1}", f"{name}.{at + 2}", out, hidden)
            inside = out
    return shapes


def vainf_v3plus_shapes(
    trunk: Shapes, low: int, high: int, *, classes: int = 4, width: int = 8, separable: bool = False
) -> Shapes:
    body = ".body" if separable else None
    shapes = trunk | conv_norm_shapes("classifier.project.0", "classifier.project.1", 5, low)
    shapes |= aspp_shapes("classifier.aspp.", high, width, separable=body)
    joined, conv, norm = 5 + width, "classifier.classifier.0", "classifier.classifier.1"
    if separable:
        shapes |= separable_shapes(f"{conv}.body", norm, 6, joined)
    else:
        shapes |= conv_norm_shapes(conv, norm, 6, joined, 3)
    return shapes | scores_shapes("classifier.classifier.3", classes, 6)


def smp_v3plus_shapes(
    *, depth: str = "resnet18", classes: int = 4, width: int = 8, separable: bool = True, low: int = 5
) -> Shapes:
    inside = channels_of(depth)
    shapes = resnet_shapes("encoder.", depth)
    shapes |= aspp_shapes("decoder.aspp.0.", inside[3], width, separable="" if separable else None)
    shapes |= separable_shapes("decoder.aspp.1", "decoder.aspp.2", width, width)
    shapes |= conv_norm_shapes("decoder.block1.0", "decoder.block1.1", low, inside[0])
    shapes |= separable_shapes("decoder.block2.0", "decoder.block2.1", width, width + low)
    return shapes | scores_shapes("segmentation_head.0", classes, width)


def norm(state: State, name: str, x: Tensor) -> Tensor:
    stats = (state[f"{name}.{leaf}"] for leaf in ("running_mean", "running_var", "weight", "bias"))
    return F.batch_norm(x, *stats, eps=1e-5)


def conv(
    state: State, name: str, x: Tensor, *, dilation: int = 1, stride: int = 1, padding: int | None = None
) -> Tensor:
    weight = state[f"{name}.weight"]
    groups = x.shape[1] // weight.shape[1]
    padding = dilation * (weight.shape[-1] // 2) if padding is None else padding
    return F.conv2d(x, weight, state.get(f"{name}.bias"), stride, padding, dilation, groups)


def spatial(state: State, name: str, x: Tensor, *, dilation: int = 1) -> Tensor:
    """A 3x3 convolution under ``name``, or the two parts of a separable one."""
    if f"{name}.weight" in state:
        return conv(state, name, x, dilation=dilation)
    inner = f"{name}.body" if f"{name}.body.0.weight" in state else name
    return conv(state, f"{inner}.1", conv(state, f"{inner}.0", x, dilation=dilation))


def aspp(state: State, prefix: str, x: Tensor, rates: Sequence[int]) -> Tensor:
    branches = [F.relu(norm(state, f"{prefix}convs.0.1", conv(state, f"{prefix}convs.0.0", x)))]
    for i, rate in enumerate(rates, start=1):
        out = spatial(state, f"{prefix}convs.{i}.0", x, dilation=rate)
        branches.append(F.relu(norm(state, f"{prefix}convs.{i}.1", out)))
    last = f"{prefix}convs.{len(rates) + 1}"
    pooled = F.relu(norm(state, f"{last}.2", conv(state, f"{last}.1", F.adaptive_avg_pool2d(x, 1))))
    branches.append(F.interpolate(pooled, x.shape[-2:], mode="bilinear", align_corners=False))
    return F.relu(norm(state, f"{prefix}project.1", conv(state, f"{prefix}project.0", torch.cat(branches, 1))))


def v3_scores(state: State, prefix: str, x: Tensor, rates: Sequence[int]) -> Tensor:
    x = aspp(state, f"{prefix}0.", x, rates)
    x = F.relu(norm(state, f"{prefix}2", spatial(state, f"{prefix}1", x)))
    return conv(state, f"{prefix}4", x)


def auxiliary_scores(state: State, x: Tensor) -> Tensor:
    x = F.relu(norm(state, "aux_classifier.1", conv(state, "aux_classifier.0", x)))
    return conv(state, "aux_classifier.4", x)


def vainf_v3plus_scores(state: State, low: Tensor, high: Tensor, rates: Sequence[int]) -> Tensor:
    low = F.relu(norm(state, "classifier.project.1", conv(state, "classifier.project.0", low)))
    x = aspp(state, "classifier.aspp.", high, rates)
    x = torch.cat([low, F.interpolate(x, low.shape[-2:], mode="bilinear", align_corners=False)], 1)
    x = F.relu(norm(state, "classifier.classifier.1", spatial(state, "classifier.classifier.0", x)))
    return conv(state, "classifier.classifier.3", x)


def smp_v3plus_scores(state: State, low: Tensor, high: Tensor, rates: Sequence[int]) -> Tensor:
    x = aspp(state, "decoder.aspp.0.", high, rates)
    x = F.relu(norm(state, "decoder.aspp.2", spatial(state, "decoder.aspp.1", x)))
    x = F.interpolate(x, scale_factor=low.shape[-1] / x.shape[-1], mode="bilinear", align_corners=True)
    low = F.relu(norm(state, "decoder.block1.1", conv(state, "decoder.block1.0", low)))
    x = F.relu(norm(state, "decoder.block2.1", spatial(state, "decoder.block2.0", torch.cat([x, low], 1))))
    return conv(state, "segmentation_head.0", x)


def resnet_maps(
    state: State, prefix: str, images: Tensor, *, output_stride: int, full: bool = False, grid: Sequence[int] = ()
) -> list[Tensor]:
    """The four stages of torchvision's ResNet-18 or 50, with dilation in place of strides.

    ``grid`` holds factors on the last stage's dilation.
    """
    basic = f"{prefix}layer1.0.conv3.weight" not in state
    net = (resnet18 if basic else resnet50)()
    net.fc = nn.Identity()  # type: ignore[assignment]
    dilation = 1
    for stage, stride in ((net.layer3, 16), (net.layer4, 32)):
        if stride > output_stride:
            _dilate(stage, 2 * dilation if full else dilation, 2 * dilation)
            dilation *= 2
    for block, factor in zip(net.layer4, grid, strict=False):
        for layer in block.modules():
            _set(layer, dilation * factor)
    net.to(images.dtype).eval()
    net.load_state_dict({key.removeprefix(prefix): v for key, v in state.items() if key.startswith(prefix)})
    x = net.maxpool(net.relu(net.bn1(net.conv1(images))))
    maps = []
    for stage in (net.layer1, net.layer2, net.layer3, net.layer4):
        x = stage(x)
        maps.append(x)
    return maps


def _dilate(stage: nn.Module, first: int, rate: int) -> None:
    """The stage's first 3x3 convolution takes ``first``, the others ``rate``; nothing strides."""
    for i, layer in enumerate(m for m in stage.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)):
        _set(layer, rate if i else first)
    for layer in stage.modules():
        if isinstance(layer, nn.Conv2d):
            layer.stride = (1, 1)


def _set(layer: nn.Module, dilation: int) -> None:
    if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3):
        layer.dilation = layer.padding = (dilation, dilation)


def mobilenet_maps(state: State, images: Tensor, *, output_stride: int) -> tuple[Tensor, Tensor]:
    """The maps behind blocks 3 and 17 of VainF's MobileNet-v2: no padding in the stem, zeros before the expansion."""
    start = "backbone.low_level_features.0"
    x = F.relu6(norm(state, f"{start}.1", conv(state, f"{start}.0", images, stride=2, padding=0)))
    number, stride, dilation, low = 0, 2, 1, x
    for expansion, _, blocks, step in MOBILENET_V2:
        first = dilation
        if stride == output_stride:
            dilation, step = dilation * step, 1
        stride *= step
        for block in range(blocks):
            number += 1
            name = f"backbone.{'low' if number < 4 else 'high'}_level_features.{number}.conv"
            rate = dilation if block else first
            y, at = F.pad(x, (rate,) * 4), 0
            if expansion > 1:
                y, at = F.relu6(norm(state, f"{name}.0.1", conv(state, f"{name}.0.0", y))), 1
            y = conv(state, f"{name}.{at}.0", y, dilation=rate, stride=1 if block else step, padding=0)
            y = F.relu6(norm(state, f"{name}.{at}.1", y))
            y = norm(state, f"{name}.{at + 2}", conv(state, f"{name}.{at + 1}", y))
            x = x + y if x.shape == y.shape else y
            low = x if number == 3 else low
    return low, x
