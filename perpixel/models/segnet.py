"""SegNet (Badrinarayanan, Kendall, Cipolla, PAMI 2017, arXiv:1511.00561, section 3), and its Bayesian form.

VGG16's thirteen convolutions, each with batch norm, as the encoder; the decoder is its mirror image, and unpools with
the positions that the encoder's poolings took their maxima from. 29.45 M parameters for 11 classes.

Shapes: B batch, C channels, H W image, K classes. The graph of the release (SegNet-Tutorial, segnet_train.prototxt).
Differs from it in that batch norm keeps running averages while it trains: the release has none, and averages mean and
variance over the training set afterwards; and in that any size works, as poolings that round up are undone to the
sizes they came from. Bayesian SegNet (Kendall et al., BMVC 2017, arXiv:1511.02680) adds dropout behind the poolings
and the decoder blocks 3 to 5 (bayesian_segnet_train.prototxt); its samples are drawn by `perpixel.inference`.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from perpixel.backbones import VGG16, VGG16Layout
from perpixel.errors import InvalidValue
from perpixel.layers.mirrored_decoder import MirroredDecoder, PooledMap
from perpixel.models.network import Network
from perpixel.ops.contrast_normalization import INPUT_NORMALISATIONS, InputNormalisation
from perpixel.types import SegOutput, Term

__all__ = ["SegNet", "SegNetConfig"]

_CONVS = {5: 3, 4: 3, 3: 3, 2: 2, 1: 2}
"""Convolutions per block, coarsest first."""
_DROPPED = (5, 4, 3)
_NEW_SHIFT = 0.001


@dataclass(frozen=True, kw_only=True)
class SegNetConfig:
    """Width, dropout and normalisation.

    Raises:
        InvalidValue: a width or the epsilon is not positive, the dropout no probability, or the normalisation unknown.
    """

    width: int = 64
    """Channels of the first block; the others have 2, 4, 8 and 8 times as many."""
    bayesian: bool = False
    """Dropout behind the poolings and decoder blocks 3 to 5."""
    dropout: float = 0.5
    """Probability of dropping a single element, where ``bayesian`` is on."""
    input_normalisation: InputNormalisation = "none"
    """The release feeds pixels as they are; the paper speaks of local contrast normalisation (``contrast``)."""
    norm_eps: float = 1e-9
    """Of all batch norms; 1e-9 in the release."""

    def __post_init__(self) -> None:
        if self.width < 1:
            raise InvalidValue(f"SegNet width must be >= 1, got {self.width}")
        if not 0 < self.dropout < 1:
            raise InvalidValue(f"dropout must lie in (0, 1), got {self.dropout}; bayesian=False trains without")
        if self.input_normalisation not in INPUT_NORMALISATIONS:
            known = ", ".join(INPUT_NORMALISATIONS)
            raise InvalidValue(f"input_normalisation is one of {known}, got {self.input_normalisation!r}")
        if not self.norm_eps > 0:
            raise InvalidValue(f"norm_eps must be positive, got {self.norm_eps}")

    @classmethod
    def small(cls) -> SegNetConfig:
        """A tiny preset for tests and tables."""
        return cls(width=8)

    @property
    def layout(self) -> VGG16Layout:
        """The VGG16 that SegNet stands on: with batch norm, without fully connected layers."""
        return VGG16Layout(width=self.width, batch_norm=True, norm_eps=self.norm_eps)


class SegNet(Network):
    """Encodes with VGG16, decodes with its pooling indices; logits come at the image's size."""

    config: SegNetConfig
    backbone: VGG16

    def __init__(self, trunk: VGG16, num_classes: int, config: SegNetConfig | None = None) -> None:
        config = config or SegNetConfig()
        super().__init__(
            config,
            num_classes,
            preprocessing=trunk.preprocessing,
            logit_stride=1,
            align_corners=False,
            minimum_size=trunk.strides[-2] + 1,  # two cells for the coarsest batch norm
        )
        self.backbone = trunk
        self.dropout = nn.Dropout(config.dropout) if config.bayesian else nn.Identity()
        self.decoder = MirroredDecoder(
            trunk.channels[-1],
            _decoder_blocks(trunk.channels),
            _conv,
            norm_eps=config.norm_eps,
            dropout=dict.fromkeys((f"block{b}" for b in _DROPPED), config.dropout) if config.bayesian else {},
        )
        self.classifier = _conv(self.decoder.out_channels, num_classes)
        _init(self.decoder)
        _init(self.classifier)

    def forward(self, images: Tensor) -> SegOutput:
        """Maps images (B, C, H, W) to logits (B, K, H, W)."""
        x = INPUT_NORMALISATIONS[self.config.input_normalisation](images)
        pooled = []
        for block in sorted(_CONVS):
            maps = self.backbone.convs(block, x)
            x, indices = self.backbone.pool_with_indices(block, maps)
            pooled.append(PooledMap(indices, maps.shape[-2:]))
            if block in _DROPPED:
                x = self.dropout(x)
        return SegOutput(self.classifier(self.decoder(x, pooled[::-1])))

    def default_terms(self) -> tuple[Term, ...]:
        """Cross-entropy; class weights, where a run gives them, are divided by the valid pixels, as in the release."""
        return (Term(name="main", options={"normalise": "pixels"}),)


def _decoder_blocks(channels: tuple[int, ...]) -> dict[str, list[tuple[str, int]]]:
    """Each block's convolutions in mirrored order: the last one narrows to the next finer block's channels.

    conv1_1 of the mirror is the classifier, which has neither batch norm nor ReLU.
    """
    blocks = {}
    for block, convs in _CONVS.items():
        widths = dict.fromkeys(range(convs, 1, -1), channels[block - 1])
        if block > 1:
            widths[1] = channels[block - 2]
        blocks[f"block{block}"] = [(f"conv{block}_{i}", width) for i, width in widths.items()]
    return blocks


def _conv(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, padding=1)


def _init(module: nn.Module) -> None:
    """The release's fillers: He's normal distribution, biases 0, batch norms 1 and 0.001."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.constant_(layer.bias, _NEW_SHIFT)
