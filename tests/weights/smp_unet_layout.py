"""segmentation_models.pytorch's U-Net from nothing but its layout, as an independent yardstick for the importer."""

from __future__ import annotations

import timm
import torch
import torch.nn.functional as F
import torchseg_layout as ts
from torch import Tensor
from torchvision.models import mobilenet_v2

Shapes = ts.Shapes
State = dict[str, Tensor]
RESNET18 = (64, 64, 128, 256, 512)
MOBILENET = (16, 24, 32, 96, 1280)
MOBILENET_STAGES = (2, 4, 7, 14, 19)
"""Ends of the stages among its layers; the last one takes the closing 1x1 convolution in."""


def encoder_shapes(encoder: str, in_channels: int) -> Shapes:
    if encoder == "mobilenet_v2":
        with torch.device("meta"):
            layers = mobilenet_v2(weights=None).features.state_dict()
        return {f"encoder.features.{key}": tuple(value.shape) for key, value in layers.items()}
    trunk = ts.trunk_shapes("resnet18", stem_width=None, in_channels=in_channels)
    return {f"encoder.{key}": shape for key, shape in trunk.items()}


def block_shapes(name: str, inside: int, width: int, norm: bool) -> Shapes:
    shapes: Shapes = {}
    for conv, channels in (("0", inside), ("1", width)):
        layer = name.format(conv)
        shapes[f"{layer}.0.weight"] = (width, channels, 3, 3)
        shapes |= ts.norm_shapes(f"{layer}.1", width) if norm else {f"{layer}.0.bias": (width,)}
    return shapes


def attention_shapes(name: str, channels: int) -> Shapes:
    hidden = channels // 16
    return {
        f"{name}.cSE.1.weight": (hidden, channels, 1, 1),
        f"{name}.cSE.1.bias": (hidden,),
        f"{name}.cSE.3.weight": (channels, hidden, 1, 1),
        f"{name}.cSE.3.bias": (channels,),
        f"{name}.sSE.0.weight": (1, channels, 1, 1),
        f"{name}.sSE.0.bias": (1,),
    }


def shapes(
    encoder: str = "resnet18",
    *,
    classes: int = 3,
    widths: tuple[int, ...] = (24, 20, 16, 12, 8),
    norm: bool = True,
    attention: bool = False,
    center: bool = False,
    in_channels: int = 3,
) -> Shapes:
    """One block per width; the encoder is always whole."""
    found = encoder_shapes(encoder, in_channels)
    maps = (MOBILENET if encoder == "mobilenet_v2" else RESNET18)[: len(widths)]
    inside = maps[-1]
    if center:
        found |= {
            key.replace("decoder.center.conv", "decoder.center."): shape
            for key, shape in block_shapes("decoder.center.conv{}", inside, inside, norm).items()
        }
    for i, (skipped, width) in enumerate(zip((*maps[-2::-1], 0), widths, strict=True)):
        name = f"decoder.blocks.{i}"
        found |= {
            key.replace(".convs.0.", ".conv1.").replace(".convs.1.", ".conv2."): shape
            for key, shape in block_shapes(f"{name}.convs.{{}}", inside + skipped, width, norm).items()
        }
        if attention:
            found |= attention_shapes(f"{name}.attention1.attention", inside + skipped)
            found |= attention_shapes(f"{name}.attention2.attention", width)
        inside = width
    return {**found, "segmentation_head.0.weight": (classes, inside, 3, 3), "segmentation_head.0.bias": (classes,)}


def encoder_maps(state: State, encoder: str, images: Tensor) -> list[Tensor]:
    own = {key.removeprefix("encoder."): value for key, value in state.items() if key.startswith("encoder.")}
    if encoder == "mobilenet_v2":
        layers = mobilenet_v2(weights=None).features.to(images.dtype).eval()
        layers.load_state_dict({key.removeprefix("features."): value for key, value in own.items()})
        maps, x = [], images
        for i, layer in enumerate(layers, start=1):
            x = layer(x)
            if i in MOBILENET_STAGES:
                maps.append(x)
        return maps
    net = timm.create_model("resnet18", features_only=True, in_chans=images.shape[1], pretrained=False)
    net.to(images.dtype).eval()
    net.load_state_dict(own)
    return list(net(images))


def conv_relu(state: State, name: str, x: Tensor) -> Tensor:
    x = F.conv2d(x, state[f"{name}.0.weight"], state.get(f"{name}.0.bias"), padding=1)
    if f"{name}.1.weight" in state:
        stats = (state[f"{name}.1.{leaf}"] for leaf in ("running_mean", "running_var", "weight", "bias"))
        x = F.batch_norm(x, *stats, eps=1e-5)
    return F.relu(x)


def excited(state: State, name: str, x: Tensor) -> Tensor:
    if f"{name}.sSE.0.weight" not in state:
        return x

    def conv(layer: str, value: Tensor) -> Tensor:
        return F.conv2d(value, state[f"{name}.{layer}.weight"], state[f"{name}.{layer}.bias"])

    channel = conv("cSE.3", F.relu(conv("cSE.1", F.adaptive_avg_pool2d(x, 1))))
    return x * torch.sigmoid(channel) + x * torch.sigmoid(conv("sSE.0", x))


def forward(state: State, encoder: str, images: Tensor, *, mode: str = "nearest") -> Tensor:
    """For multiples of 32, which are what that library takes."""
    blocks = 1 + max(int(key.split(".")[2]) for key in state if key.startswith("decoder.blocks."))
    maps = encoder_maps(state, encoder, images)[:blocks]
    x = maps.pop()
    if "decoder.center.0.0.weight" in state:
        x = conv_relu(state, "decoder.center.1", conv_relu(state, "decoder.center.0", x))
    for i in range(blocks):
        name = f"decoder.blocks.{i}"
        x = F.interpolate(x, scale_factor=2, mode=mode)
        if maps:
            x = excited(state, f"{name}.attention1.attention", torch.cat([x, maps.pop()], dim=1))
        x = conv_relu(state, f"{name}.conv2", conv_relu(state, f"{name}.conv1", x))
        x = excited(state, f"{name}.attention2.attention", x)
    return F.conv2d(x, state["segmentation_head.0.weight"], state["segmentation_head.0.bias"], padding=1)
