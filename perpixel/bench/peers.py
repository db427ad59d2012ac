"""The same network twice: as other people write it, and ours with its weights imported.

Peers are segmentation_models.pytorch's and torchvision's networks, and restatements of the published forward where
neither has the network. Auxiliary heads are left out on both sides, but for DFN, whose losses need its stages.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from perpixel.bench.packages import load_package
from perpixel.bench.plain_dfn import PlainDFN
from perpixel.bench.plain_networks import PlainHRNet, PlainPSPNet
from perpixel.models import Network
from perpixel.models.cost import count_macs
from perpixel.weights import import_weights

__all__ = ["CLASSES", "PAIRS", "Pair", "build_ours", "build_peer", "gmacs_of", "scores_in"]

CLASSES = 21
SMP = "segmentation_models_pytorch"
TORCHVISION = "torchvision"
RESTATED = "restated"


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A network of others, and the family that its checkpoints are of."""

    title: str
    peer: str
    """Whose it is: a package, or ``restated``."""
    family: str
    build: Callable[[], nn.Module]
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of the importer."""


def _of_torchvision(name: str, **options: Any) -> nn.Module:
    segmentation = load_package("torchvision.models.segmentation")
    return cast(nn.Module, getattr(segmentation, name)(weights=None, weights_backbone=None, **options))


def _of_smp(name: str, encoder: str) -> nn.Module:
    return cast(nn.Module, getattr(load_package(SMP), name)(encoder, encoder_weights=None, classes=CLASSES))


PAIRS = {
    "unet_resnet18": Pair(
        title="U-Net ResNet-18", peer=SMP, family="smp/unet", build=lambda: _of_smp("Unet", "resnet18")
    ),
    "dfn_resnet18": Pair(
        title="DFN ResNet-18", peer=RESTATED, family="torchseg/dfn", build=lambda: PlainDFN(18, CLASSES)
    ),
    "dfn_resnet101": Pair(
        title="DFN ResNet-101", peer=RESTATED, family="torchseg/dfn", build=lambda: PlainDFN(101, CLASSES)
    ),
    "pspnet_resnet50": Pair(
        title="PSPNet ResNet-50", peer=RESTATED, family="semseg/pspnet", build=lambda: PlainPSPNet(CLASSES)
    ),
    "pspnet_resnet50_smp": Pair(
        title="PSPNet ResNet-50, stride 8 trunk",
        peer=SMP,
        family="smp/pspnet",
        build=lambda: _of_smp("PSPNet", "resnet50"),
    ),
    "deeplab_v3_resnet50": Pair(
        title="DeepLab v3 ResNet-50",
        peer=TORCHVISION,
        family="torchvision/deeplabv3",
        build=lambda: _of_torchvision("deeplabv3_resnet50", num_classes=CLASSES, aux_loss=False),
    ),
    "deeplab_v3plus_resnet50": Pair(
        title="DeepLab v3+ ResNet-50",
        peer=SMP,
        family="smp/deeplabv3plus",
        build=lambda: _of_smp("DeepLabV3Plus", "resnet50"),
    ),
    "fcn_resnet50": Pair(
        title="FCN ResNet-50",
        peer=TORCHVISION,
        family="torchvision/fcn",
        build=lambda: _of_torchvision("fcn_resnet50", num_classes=CLASSES, aux_loss=False),
    ),
    "lraspp_mobilenet_v3": Pair(
        title="LR-ASPP MobileNet-v3",
        peer=TORCHVISION,
        family="torchvision/lraspp",
        build=lambda: _of_torchvision("lraspp_mobilenet_v3_large", num_classes=CLASSES),
    ),
    "hrnet_w18": Pair(title="HRNet-W18", peer=RESTATED, family="hrnet/hrnet", build=lambda: PlainHRNet(18, CLASSES)),
}
"""Networks that are compared, by the name of a row."""


def build_peer(pair: Pair) -> nn.Module:
    """Returns the other side's network in evaluation mode, always with the same weights.

    Weights are as it draws them; the statistics and scales of batch norms are drawn too, so that nothing multiplies
    by one.

    Raises:
        MissingExtra: its package is not installed.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        peer = pair.build()
        for module in peer.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(cast(Tensor, module.running_mean), 0.0, 0.1)
                nn.init.uniform_(cast(Tensor, module.running_var), 0.5, 1.5)
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, 0.0, 0.1)
    return peer.eval()


def build_ours(pair: Pair) -> Network:
    """Returns ours in evaluation mode, with the weights of `build_peer`."""
    return import_weights(build_peer(pair).state_dict(), pair.family, **pair.options).eval()


def scores_in(output: Any) -> Tensor:
    """Returns the class scores in what a peer returns."""
    if isinstance(output, dict):
        return cast(Tensor, output["out"])
    return cast(Tensor, output[0][-1] if isinstance(output, tuple) else output)


def gmacs_of(network: Network, images: tuple[int, int, int, int]) -> float:
    """Returns the multiplications of a forward pass over images (B, C, H, W), in 10^9; nothing is computed."""
    outline = copy.deepcopy(network).to("meta").eval()
    return images[0] * count_macs(outline, torch.empty(1, *images[1:], device="meta")) / 1e9
