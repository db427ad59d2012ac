"""SegNet-Basic and the seven other decoders of SegNet's table 1 on its encoder (arXiv:1511.00561, sections 3.1, 4).

Four levels of 7x7 convolution with 64 maps, batch norm, ReLU and pooling; the decoder is what the paper varies.

Shapes: B batch, C channels, H W image, K classes, W width; level i = 1..4 pools to stride 2^i. The default is the graph
of the release (SegNet-Tutorial, segnet_basic_train.prototxt): response normalisation of the raw image, biases, no ReLU
in the decoder. Differs from it in that batch norm keeps running averages while it trains, and in that any size works.

Parameters for 11 classes, derived, without biases as the paper says (millions: the paper's table 1). The encoder has
611 520 in convolutions, 512 in norms. With ``bias`` the release's SegNet-Basic has 1 416 587.

| decoder | beside the encoder | sum | paper |
|---|---|---|---|
| bilinear | classifier 704 | 612 736 | 0.625 |
| unpool, unpool_add_encoder | 802 816, norms 512, classifier 704 | 1 416 064 | 1.425 |
| unpool_single_channel | 12 544, norms 512, classifier 704 | 625 792 | 0.625 |
| fcn | reductions 2 816, deconvolutions 30 976 | 645 824 | 0.65 |
| fcn_no_addition | reduction 704, deconvolutions 30 976 | 643 712 | 0.65 |
| fcn_no_reduction, fcn_no_addition_no_reduction | 1 048 576, classifier 704 | 1 661 312 | 1.625 |

The last line is 2 % over the paper's figure: no reading of its text gives 1.625. The others agree to 2 %.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from perpixel.errors import InvalidValue, nearest
from perpixel.layers.bilinear_deconv import bilinear_kernel
from perpixel.models.network import Network
from perpixel.ops.contrast_normalization import INPUT_NORMALISATIONS, InputNormalisation
from perpixel.ops.resize import resize
from perpixel.ops.unpool import unpool
from perpixel.types import Preprocessing, SegOutput, Term

__all__ = ["DECODERS", "DecoderForm", "DecoderName", "EncoderLevel", "SegNetBasic", "SegNetBasicConfig"]

DecoderName: TypeAlias = Literal[
    "bilinear",
    "unpool",
    "unpool_add_encoder",
    "unpool_single_channel",
    "fcn",
    "fcn_no_addition",
    "fcn_no_reduction",
    "fcn_no_addition_no_reduction",
]
_LEVELS = (1, 2, 3, 4)
_DROPPED = (3, 4)
_DECONV_KERNEL = 8
_NEW_SHIFT = 0.001


@dataclass(frozen=True, kw_only=True)
class DecoderForm:
    """What a row of table 1 consists of."""

    published: str
    """The paper's name."""
    upsampling: Literal["fixed", "unpool", "deconv"]
    adds_encoder: bool = False
    reduces: bool = False
    """Maps are brought to K channels before they are up-sampled."""
    single_channel: bool = False
    """Each map of the decoder has a kernel of its own: depth-wise convolution."""


DECODERS: dict[DecoderName, DecoderForm] = {
    "bilinear": DecoderForm(published="Bilinear-Interpolation", upsampling="fixed"),
    "unpool": DecoderForm(published="SegNet-Basic", upsampling="unpool"),
    "unpool_add_encoder": DecoderForm(published="SegNet-Basic-EncoderAddition", upsampling="unpool", adds_encoder=True),
    "unpool_single_channel": DecoderForm(
        published="SegNet-Basic-SingleChannelDecoder", upsampling="unpool", single_channel=True
    ),
    "fcn": DecoderForm(published="FCN-Basic", upsampling="deconv", adds_encoder=True, reduces=True),
    "fcn_no_addition": DecoderForm(published="FCN-Basic-NoAddition", upsampling="deconv", reduces=True),
    "fcn_no_reduction": DecoderForm(published="FCN-Basic-NoDimReduction", upsampling="deconv", adds_encoder=True),
    "fcn_no_addition_no_reduction": DecoderForm(published="FCN-Basic-NoAddition-NoDimReduction", upsampling="deconv"),
}
"""The eight rows of table 1."""


@dataclass(frozen=True, kw_only=True)
class SegNetBasicConfig:
    """Which decoder, and the sizes that all of them share.

    Raises:
        InvalidValue: a size is out of range, or the decoder or the normalisation unknown.
    """

    in_channels: int = 3
    decoder: DecoderName = "unpool"
    width: int = 64
    kernel: int = 7
    """Side of the encoder's and the unpooling decoders' convolutions, odd."""
    bias: bool = True
    """Biases of convolutions: the release has them, the paper says that there are none. Deconvolutions have none."""
    input_normalisation: InputNormalisation = "lrn"
    """``lrn`` as in the release, on pixels in 0..255; ``contrast`` is the paper's; ``none`` normalises by ImageNet."""
    norm_eps: float = 1e-9
    """Of all batch norms; 1e-9 in the release."""
    bayesian: bool = False
    """Dropout behind poolings 3 and 4 and behind unpooling decoders 4 and 3 (bayesian_segnet_basic_train.prototxt)."""
    dropout: float = 0.5
    """Probability of dropping a single element, where ``bayesian`` is on."""

    def __post_init__(self) -> None:
        if self.decoder not in DECODERS:
            near = nearest(str(self.decoder), DECODERS, end=".")
            raise InvalidValue(f"unknown decoder {self.decoder!r}{near} Known: {', '.join(DECODERS)}")
        if self.input_normalisation not in INPUT_NORMALISATIONS:
            known = ", ".join(INPUT_NORMALISATIONS)
            raise InvalidValue(f"input_normalisation is one of {known}, got {self.input_normalisation!r}")
        if self.in_channels < 1 or self.width < 1:
            raise InvalidValue(f"in_channels and width must be >= 1, got {self.in_channels} and {self.width}")
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise InvalidValue(f"kernel must be odd, so that sizes are kept, got {self.kernel}")
        if not 0 < self.dropout < 1:
            raise InvalidValue(f"dropout must lie in (0, 1), got {self.dropout}; bayesian=False trains without")
        if not self.norm_eps > 0:
            raise InvalidValue(f"norm_eps must be positive, got {self.norm_eps}")

    @classmethod
    def small(cls) -> SegNetBasicConfig:
        """A tiny preset for tests and tables."""
        return cls(width=16, kernel=3)


class EncoderLevel(NamedTuple):
    """One level of the encoder: its map before pooling (B, W, h, w), its pooled map, and where the maxima stood."""

    maps: Tensor
    pooled: Tensor
    indices: Tensor


class SegNetBasic(Network):
    """Encodes on four levels and decodes in one of eight ways; logits come at the image's size."""

    config: SegNetBasicConfig

    def __init__(self, num_classes: int, config: SegNetBasicConfig | None = None) -> None:
        config = config or SegNetBasicConfig()
        super().__init__(
            config,
            num_classes,
            preprocessing=_preprocessing(config),
            logit_stride=1,
            align_corners=False,
            minimum_size=2 ** (_LEVELS[-1] - 1) + 1,  # two cells for the coarsest batch norm
        )
        form = DECODERS[config.decoder]
        channels = [config.in_channels, *[config.width] * len(_LEVELS)]
        self.encoder = nn.ModuleDict({f"level{i}": ConvNorm(channels[i - 1], config) for i in _LEVELS})
        self.dropout = nn.Dropout(config.dropout) if config.bayesian else nn.Identity()
        self.decoder: nn.Module = BilinearDecoder()
        if form.upsampling == "unpool":
            self.decoder = UnpoolDecoder(config, form)
        elif form.upsampling == "deconv":
            self.decoder = DeconvDecoder(config, form, num_classes)
        self.classifier = nn.Identity() if form.reduces else nn.Conv2d(config.width, num_classes, 1, bias=config.bias)
        _init(self)

    def forward(self, images: Tensor) -> SegOutput:
        """Maps images (B, C, H, W) to logits (B, K, H, W)."""
        x = INPUT_NORMALISATIONS[self.config.input_normalisation](images)
        levels = []
        for i, conv in zip(_LEVELS, self.encoder.values(), strict=True):
            maps = torch.relu(conv(x))
            x, indices = nn.functional.max_pool2d(maps, 2, 2, ceil_mode=True, return_indices=True)
            x = self.dropout(x) if i in _DROPPED else x
            levels.append(EncoderLevel(maps, x, indices))
        if isinstance(self.decoder, BilinearDecoder):  # classes first: the same scores at a 256th of the work
            return SegOutput(self.decoder(self.classifier(x), images.shape[-2:]))
        return SegOutput(self.classifier(self.decoder(levels)))

    def default_terms(self) -> tuple[Term, ...]:
        """Cross-entropy; class weights, where a run gives them, are divided by the valid pixels, as in the release."""
        return (Term(name="main", options={"normalise": "pixels"}),)


class ConvNorm(nn.Module):
    """Convolution that keeps the size, then batch norm: (B, C, h, w) -> (B, W, h, w)."""

    def __init__(self, in_channels: int, config: SegNetBasicConfig, *, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, config.width, config.kernel, padding=config.kernel // 2, groups=groups, bias=config.bias
        )
        self.norm = nn.BatchNorm2d(config.width, eps=config.norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(self.conv(x))
        return out


class UnpoolDecoder(nn.Module):
    """Each pooling undone by its indices, then convolution and batch norm without ReLU: levels to (B, W, H, W).

    With ``adds_encoder`` each level then adds the encoder's map of its size before pooling; the paper says "the same
    level", and the map before pooling is the only one that fits all four.
    """

    def __init__(self, config: SegNetBasicConfig, form: DecoderForm) -> None:
        super().__init__()
        self.adds_encoder = form.adds_encoder
        self.dropout = nn.Dropout(config.dropout) if config.bayesian else nn.Identity()
        groups = config.width if form.single_channel else 1
        for i in reversed(_LEVELS):
            self.add_module(f"level{i}", ConvNorm(config.width, config, groups=groups))

    def forward(self, levels: list[EncoderLevel]) -> Tensor:
        x = levels[-1].pooled
        for i in reversed(_LEVELS):
            maps, _, indices = levels[i - 1]
            x = self.get_submodule(f"level{i}")(unpool(x, indices, maps.shape[-2:]))
            x = x + maps if self.adds_encoder else x
            x = self.dropout(x) if i in _DROPPED else x
        return x


class DeconvDecoder(nn.Module):
    """Doublings by learned 8x8 deconvolutions over all channels, as in FCN: levels to (B, K or W, H, W).

    ``reduces`` brings the pooled maps to K channels first. With ``adds_encoder`` each doubling but the last adds the
    pooled map of its size (caption of the paper's figure 3). The deconvolutions begin as bilinear doublings of each
    channel by itself. That they have no biases, and how bilinear weights fill 8x8, is assumed: not verified.
    """

    def __init__(self, config: SegNetBasicConfig, form: DecoderForm, num_classes: int) -> None:
        super().__init__()
        self.adds_encoder = form.adds_encoder
        channels = num_classes if form.reduces else config.width
        for i in reversed(_LEVELS):
            used = form.reduces and (i == _LEVELS[-1] or form.adds_encoder)
            self.add_module(
                f"reduce{i}", nn.Conv2d(config.width, channels, 1, bias=config.bias) if used else nn.Identity()
            )
            self.add_module(
                f"deconv{i}", nn.ConvTranspose2d(channels, channels, _DECONV_KERNEL, 2, padding=3, bias=False)
            )

    def forward(self, levels: list[EncoderLevel]) -> Tensor:
        x: Tensor = self.get_submodule(f"reduce{_LEVELS[-1]}")(levels[-1].pooled)
        for i in reversed(_LEVELS):
            height, width = levels[i - 1].maps.shape[-2:]
            x = self.get_submodule(f"deconv{i}")(x)[:, :, :height, :width]
            if self.adds_encoder and i > 1:
                x = x + self.get_submodule(f"reduce{i - 1}")(levels[i - 2].pooled)
        return x


class BilinearDecoder(nn.Module):
    """Sixteenfold bilinear up-sampling, cut to the image: (B, K, h, w) to (B, K, H, W).

    The network does it itself because its poolings round up: only here are the cells' places still known.
    """

    def forward(self, x: Tensor, size: torch.Size) -> Tensor:
        stride = 2 ** _LEVELS[-1]
        whole = resize(x, (stride * x.shape[-2], stride * x.shape[-1]), align_corners=False)
        return whole[:, :, : size[0], : size[1]]


def _preprocessing(config: SegNetBasicConfig) -> Preprocessing:
    """Pixels in 0..255, blue first, as the release takes them; without a normalisation of its own, centred ones."""
    channels = config.in_channels
    if config.input_normalisation == "none":
        if channels == 3:
            return Preprocessing()
        return Preprocessing(mean=(0.5,) * channels, std=(0.25,) * channels)
    return Preprocessing(
        mean=(0.0,) * channels,
        std=(1.0,) * channels,
        channel_order="bgr" if channels == 3 else "rgb",
        value_range=255.0,
    )


def _init(network: nn.Module) -> None:
    """The release's fillers: He's normal distribution, biases 0, batch norms 1 and 0.001; bilinear deconvolutions."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.ConvTranspose2d):
            _init_doubling(layer)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.constant_(layer.bias, _NEW_SHIFT)


def _init_doubling(layer: nn.ConvTranspose2d) -> None:
    """Bilinear doubling (4x4) in the middle of the 8x8 kernel where a channel meets itself, zeros elsewhere."""
    kernel = bilinear_kernel(_DECONV_KERNEL // 2)
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight.diagonal(dim1=0, dim2=1)[2:-2, 2:-2].copy_(kernel[:, :, None])  # a view: (8, 8, channels)
