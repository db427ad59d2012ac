"""DilatedNet: dense prediction by dilated convolutions (Yu & Koltun, ICLR 2016, arXiv:1511.07122, sections 3 and 4).

The front end is VGG16 whose last two pools are replaced by dilation: conv5 of dilation 2, fc6 as a 7x7 convolution of
dilation 4, fc7 as a 1x1 one, then class scores at stride 8. The context module enlarges what each cell of the scores
sees, by 3x3 convolutions of growing dilation that begin as the identity.

Shapes: B batch, C channels, H W image, K classes, h w scores with h = ceil((H - 372) / 8).
No convolution of the front end pads, so 186 pixels are lost on each side (``margin``): cell i sees the 380 pixels from
8i on. 373 to 380 pixels give one cell, 500 give 16, 900 give 66. As published, cell i lies on pixel 186 + 8i and learns
its label, 3.5 pixels before the centre of what it sees: 372 + 8n + 1 pixels give n + 1 cells, one of them on the first
and one on the last inner pixel, ``valid_size`` names the next such size, and scores are enlarged with aligned corners.
With the deconvolution (``upsample``) cells lie on their centres, 189.5 + 8i, all inner labels are learned, and the
sizes are 372 + 8n.

Forms of the published code (fyu/dilation), whose layer names the layers have; parameters for 3 image channels:

========== ======= ====== ======= =========== ============= ===========
release    context layers padding K           upsample      parameters
========== ======= ====== ======= =========== ============= ===========
VOC        large   8      once    21          no            141,149,720
CamVid     basic   8      each    11          no            134,313,443
KITTI      basic   7      each    11          no            134,312,343
Cityscapes basic   10     each    19          16/8, fixed   134,373,043
========== ======= ====== ======= =========== ============= ===========

The last two counts are derived here by hand: the front end has 134,260,544 + 4097 K, a basic module of n layers
(n - 1)(9K² + K) + K² + K, the deconvolution 256 K. The two first ones are those of the reference vectors.
Differs from the authors' code: they interpolate probabilities between cells, here logits are interpolated. Their last
cell sees 380 pixels like all others; here, with 372 + 8n + 1 pixels, it lacks the last 7, and its poolings take what
there is. Of sizes that are no 372 + 8n + 1 (without ``upsample``) scores are stretched over the inner image, by up to 7
pixels at its end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from perpixel.backbones import VGG16, FullyConnected, Pool, VGG16Layout
from perpixel.errors import InvalidValue
from perpixel.layers.bilinear_deconv import BilinearDeconv
from perpixel.models.network import Network
from perpixel.types import SegOutput, Term

__all__ = ["ContextModule", "DilatedNet", "DilatedNetConfig", "identity_init"]

_MARGIN = 186
_STRIDE = 8
_FRONT_FIELD = 380
"""Pixels that one cell of the front end sees."""
_CONTEXTS = ("none", "basic", "large")
_PADDINGS = ("once", "each")
_LEAST_LAYERS = 4
_CLASSIFIER_STD = 0.001


@dataclass(frozen=True, kw_only=True)
class DilatedNetConfig:
    """Which context module, how wide the front end, and whether scores are enlarged inside; the defaults are VOC's.

    Raises:
        InvalidValue: a choice is unknown, a width or the number of layers too small, the dropout no probability
            below 1, or the noise negative.
    """

    context: Literal["none", "basic", "large"] = "large"
    """``none`` scores with the front end alone; ``large`` widens with dilation, ``basic`` keeps K maps."""
    context_layers: int = 8
    """Published: 7 (KITTI), 8 (VOC, CamVid) and 10 (Cityscapes); the largest dilation is 2^(layers - 4)."""
    context_padding: Literal["once", "each"] = "once"
    """Where zeros stand in for scores outside the image: before the first layer (VOC) or before each (the others)."""
    context_noise: float = 0.01
    """Standard deviation of the noise around the identity at the start."""
    upsample: bool = False
    """Ends with a fixed bilinear deconvolution to the image's size less the margin (Cityscapes)."""
    width: int = 64
    """Channels of VGG16's first block."""
    fc_width: int = 4096
    dropout: float = 0.5
    """Probability of dropping one value behind fc6 and fc7; 0 trains the context on the front end's test scores."""

    def __post_init__(self) -> None:
        for name, allowed in (("context", _CONTEXTS), ("context_padding", _PADDINGS)):
            if getattr(self, name) not in allowed:
                raise InvalidValue(f"{name} of DilatedNet is one of {allowed}, got {getattr(self, name)!r}")
        if self.context_layers < _LEAST_LAYERS:
            raise InvalidValue(f"a context module has at least {_LEAST_LAYERS} layers, got {self.context_layers}")
        if self.width < 1 or self.fc_width < 1:
            raise InvalidValue(f"DilatedNet widths must be >= 1, got {self.width} and {self.fc_width}")
        if not 0 <= self.dropout < 1:
            raise InvalidValue(f"dropout must lie in [0, 1), got {self.dropout}")
        if not self.context_noise >= 0:
            raise InvalidValue(f"context_noise must be >= 0, got {self.context_noise}")

    @property
    def layout(self) -> VGG16Layout:
        """The VGG16 that this network stands on."""
        return VGG16Layout(
            width=self.width,
            padding=0,
            pools=(Pool(), Pool(), Pool(), None, None),
            dilations=(1, 1, 1, 1, 2),
            fully_connected=FullyConnected(kernel=7, dilation=4, width=self.fc_width),
        )

    @property
    def dilations(self) -> tuple[int, ...]:
        """Of the context module's 3x3 convolutions: 1, 1, 2, 4, 8, 16, 1 with 8 layers."""
        return (1, *(2**i for i in range(self.context_layers - 3)), 1)

    @classmethod
    def small(cls) -> DilatedNetConfig:
        """A tiny preset for tests and tables; it loses the same margin."""
        return cls(context="basic", context_layers=5, context_padding="each", width=4, fc_width=16, dropout=0.1)


class DilatedNet(Network):
    """Front end and context module; ``deep`` holds the front end's scores (B, K, h, w), whatever follows them.

    Images carry their margin: `inference.Segmenter` mirrors it, as the authors' test code does, and the loss leaves it
    out of the target.

    Raises:
        InvalidValue: the trunk has no fc6 and fc7.
    """

    config: DilatedNetConfig
    backbone: VGG16
    margin = _MARGIN

    def __init__(self, trunk: VGG16, num_classes: int, config: DilatedNetConfig | None = None) -> None:
        config = config or DilatedNetConfig()
        super().__init__(
            config,
            num_classes,
            preprocessing=trunk.preprocessing,
            logit_stride=1 if config.upsample else _STRIDE,
            align_corners=not config.upsample,
            minimum_size=2 * _MARGIN + 1,
        )
        if trunk.layout.fully_connected is None:
            raise InvalidValue("DilatedNet scores fc7, and this vgg16 has none: build it with the config's layout")
        self.backbone = trunk
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Conv2d(trunk.layout.fully_connected.width, num_classes, 1)
        nn.init.normal_(self.classifier.weight, std=_CLASSIFIER_STD)
        if self.classifier.bias is not None:
            nn.init.zeros_(self.classifier.bias)
        self.context = None if config.context == "none" else ContextModule(num_classes, config)
        self.upsample = (
            BilinearDeconv(
                num_classes, _STRIDE, kernel_size=2 * _STRIDE, padding=_STRIDE // 2, groups=num_classes, fixed=True
            )
            if config.upsample
            else None
        )
        context_cells = 0 if self.context is None else 2 * sum(config.dilations)
        # The deconvolution mixes two neighbouring cells.
        self.receptive_field = _FRONT_FIELD + _STRIDE * (context_cells + int(config.upsample))

    def forward(self, images: Tensor) -> SegOutput:
        """Maps images (B, C, H, W) to logits (B, K, h, w), or (B, K, H - 372, W - 372) where they are enlarged.

        Raises:
            InvalidValue: the images have no pixel inside the margin.
        """
        height, width = images.shape[-2:]
        if height < self.minimum_size or width < self.minimum_size:
            raise InvalidValue(
                f"DilatedNet loses {_MARGIN} pixels on each side, and these images have {height} x {width}; the "
                f"smallest it takes are {self.minimum_size} x {self.minimum_size}, margin included (Segmenter adds it)"
            )
        x = self.backbone(images)[-1]
        x = self.dropout(self.backbone.fc6(x).relu())
        x = self.dropout(self.backbone.fc7(x).relu())
        front: Tensor = self.classifier(x)  # (B, K, h, w)
        logits: Tensor = front if self.context is None else self.context(front)
        if self.upsample is not None:
            logits = self.upsample(logits)[..., : height - 2 * _MARGIN, : width - 2 * _MARGIN]
        return SegOutput(logits, deep=(front,) if self.supervised else ())

    def valid_size(self, height: int, width: int) -> tuple[int, int]:
        """Returns the smallest 372 + 8n + 1 that hold (height, width): sizes whose last inner pixel bears a cell.

        With ``upsample`` the smallest 372 + 8n: every cell lies in the image.
        """
        first = 2 * _MARGIN + (_STRIDE if self.config.upsample else 1)
        steps = [max(0, -(-(side - first) // _STRIDE)) for side in (height, width)]
        return first + _STRIDE * steps[0], first + _STRIDE * steps[1]

    def default_terms(self) -> tuple[Term, ...]:
        """Cross-entropy of the last scores: against every eighth inner label, or all where enlarged (train.py --up)."""
        return (Term(name="main", at="target" if self.config.upsample else "logits"),)


class ContextModule(nn.Module):
    """Aggregates context over class scores (section 3, table 1): (B, K, h, w) -> (B, K, h, w).

    With 8 layers, 3x3 convolutions of dilation 1, 1, 2, 4, 8, 16 and 1, each with a ReLU, then a 1x1 one without:
    a cell sees 67x67 others. Basic: K maps throughout. Large: 2K, 2K, 4K, 8K, 16K, 32K, 32K maps, then K. Layers have
    the published names conv1_1, conv1_2, conv2_1, …, fc1, final.
    """

    def __init__(self, num_classes: int, config: DilatedNetConfig) -> None:
        super().__init__()
        dilations = config.dilations
        levels = len(dilations) - 2
        names = ("conv1_1", "conv1_2", *(f"conv{i}_1" for i in range(2, levels + 1)), "fc1")
        factors = (2, *(2**i for i in range(1, levels + 1)), 2**levels)
        once = config.context_padding == "once"
        self.names = names
        channels = num_classes
        for name, dilation, factor in zip(names, dilations, factors, strict=True):
            width = num_classes * (factor if config.context == "large" else 1)
            padding = dilation
            if once:
                padding = sum(dilations) if name == names[0] else 0
            self.add_module(name, nn.Conv2d(channels, width, 3, padding=padding, dilation=dilation))
            channels = width
        self.final = nn.Conv2d(channels, num_classes, 1)
        for layer in self.children():
            if isinstance(layer, nn.Conv2d):
                identity_init(layer, num_classes, config.context_noise)

    def forward(self, x: Tensor) -> Tensor:
        for name in self.names:
            x = self.get_submodule(name)(x).relu()
        scores: Tensor = self.final(x)
        return scores


def identity_init(layer: nn.Conv2d, num_classes: int, noise: float) -> None:
    """Lets a layer of the context module begin by passing its input on (section 3, equations 4 and 5).

    With C = K classes, c_in and c_out maps, input a and output b belong to one class where floor(aC / c_in) =
    floor(bC / c_out): the centre of their kernel is C / c_out, all else N(0, noise). With c_in = c_out = C that is the
    identity. A whole module without noise returns non-negative scores as they are.
    """
    weight = layer.weight
    centre = (weight.shape[2] // 2, weight.shape[3] // 2)
    nn.init.normal_(weight, std=noise)
    owner_out = torch.arange(weight.shape[0], device=weight.device) * num_classes // weight.shape[0]
    owner_in = torch.arange(weight.shape[1], device=weight.device) * num_classes // weight.shape[1]
    with torch.no_grad():
        taps = weight[:, :, centre[0], centre[1]]
        taps.copy_(torch.where(owner_out[:, None] == owner_in, num_classes / weight.shape[0], taps))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
