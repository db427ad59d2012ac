"""EncNet (Zhang et al., CVPR 2018, arXiv:1803.08904): which classes the scene holds weighs the channels of the map.

The Context Encoding Module (section 3.1, figure 2) encodes the whole map by learned codewords, predicts from the code
a weight per channel and, for the SE-loss (section 3.2), which classes are present.

Shapes: B batch, C channels, H W image, h w feature map, K classes, D width, M codewords.

The numbers are those of the authors' PyTorch-Encoding. Where the paper differs it is an option, checked by no vector:

| | code (the default) | paper |
|---|---|---|
| channels weighted | x + x gamma | ``attention="plain"``: x gamma |
| codewords joined | mean | ``join="sum"`` |
| beside the main loss | FCN head on stage 3 | ``second_module``: presence from stage 3, ``auxiliary=False`` |

Lateral connections add stages 2 and 3 before the module; the code builds them for data sets of PASCAL alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from perpixel.backbones import Backbone
from perpixel.errors import InvalidValue
from perpixel.layers import ConvNormAct, Encoding, FCNHead, init_new_layers
from perpixel.models.network import Network
from perpixel.ops import conv_of_concat
from perpixel.types import SegOutput, Term

__all__ = ["ContextEncoding", "ContextEncodingModule", "EncNet", "EncNetConfig", "PresenceHead"]

_CHOICES = {"attention": ("residual", "plain"), "join": ("mean", "sum")}
_LATERAL_STAGES = 2


@dataclass(frozen=True, kw_only=True)
class EncNetConfig:
    """Widths, codewords and parts.

    Raises:
        InvalidValue: a number is out of range, or a choice unknown.
    """

    width: int = 512
    """D: channels of the head, of the codewords and of the lateral connections."""
    num_codewords: int = 32
    lateral: bool = False
    """Add stages 2 and 3 to the map; the backbone's last three maps must be of one stride."""
    presence: bool = True
    """Score which classes the image holds, for the SE-loss."""
    second_module: bool = False
    """Score the same from stage 3 in a module of its own, as the paper does."""
    auxiliary: bool = True
    """An FCN head on stage 3."""
    auxiliary_width: int = 256
    attention: Literal["residual", "plain"] = "residual"
    """``residual`` weighs a channel by 1 + gamma, ``plain`` by gamma."""
    join: Literal["mean", "sum"] = "mean"
    """How the codewords' residuals become one vector."""
    dropout: float = 0.1
    """Probability of dropping a single value before the classifier, there and in the auxiliary head."""
    auxiliary_weight: float = 0.2
    presence_weight: float = 0.2
    align_corners: bool = True

    def __post_init__(self) -> None:
        if min(self.num_codewords, self.auxiliary_width) < 1:
            raise InvalidValue(
                f"num_codewords and auxiliary_width must be >= 1, got {self.num_codewords} and {self.auxiliary_width}"
            )
        if self.width < 2:  # the batch norm over codewords then has two values even with a batch of one
            raise InvalidValue(f"EncNet width must be >= 2, got {self.width}")
        if not 0 <= self.dropout < 1:
            raise InvalidValue(f"dropout must lie in [0, 1), got {self.dropout}")
        for part in ("auxiliary", "presence"):
            weight = getattr(self, f"{part}_weight")
            if not weight > 0:
                raise InvalidValue(f"{part}_weight must be positive, got {weight}; {part}=False leaves the part out")
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise InvalidValue(f"{name} is one of {', '.join(known)}, got {getattr(self, name)!r}")

    @classmethod
    def small(cls) -> EncNetConfig:
        """A tiny preset for tests and tables."""
        return cls(width=16, num_codewords=8, auxiliary_width=8)


class EncNet(Network):
    """Context encoding on the coarsest map.

    ``deep`` holds the auxiliary head's scores. ``presence`` holds those of the Context Encoding Module, then those of
    the second module; parts that are switched off are left out.

    Raises:
        InvalidValue: the backbone has too few maps, or lateral connections would join maps of several strides.
    """

    config: EncNetConfig
    backbone: Backbone
    lateral: nn.ModuleList | None
    fusion: ConvNormAct | None
    auxiliary_head: FCNHead | None
    second_module: PresenceHead | None

    def __init__(self, backbone: Backbone, num_classes: int, config: EncNetConfig | None = None) -> None:
        config = config or EncNetConfig()
        _check_backbone(backbone, config)
        super().__init__(
            config,
            num_classes,
            preprocessing=backbone.preprocessing,
            logit_stride=backbone.strides[-1],
            align_corners=config.align_corners,
            minimum_size=2 * backbone.strides[-1],
        )
        self.backbone = backbone
        width, channels = config.width, backbone.channels
        self.project = ConvNormAct(channels[-1], width, 3)
        self.lateral = self.fusion = None
        if config.lateral:
            self.lateral = nn.ModuleList(ConvNormAct(c, width, 1) for c in channels[-3:-1])
            self.fusion = ConvNormAct((1 + _LATERAL_STAGES) * width, width, 3)
        self.context = ContextEncodingModule(
            width,
            num_codewords=config.num_codewords,
            num_classes=num_classes if config.presence else None,
            attention=config.attention,
            join=config.join,
        )
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Conv2d(width, num_classes, 1)
        self.auxiliary_head = self.second_module = None
        if config.auxiliary:
            self.auxiliary_head = FCNHead(
                channels[-2], config.auxiliary_width, num_classes, config.dropout, drop_channels=False
            )
        if config.second_module:
            self.second_module = PresenceHead(channels[-2], num_classes, config)
        for name, part in self.named_children():
            if name != "backbone":
                init_new_layers(part)

    def forward(self, images: Tensor) -> SegOutput:
        """Maps images (B, C, H, W) to logits (B, K, H/8, W/8), rounded up, on a backbone of stride 8."""
        features = self.backbone(images)
        x, semantics = self.context(self._joined(features))
        logits = self.classifier(self.dropout(x))
        if not self.supervised:
            return SegOutput(logits)
        deep: list[Tensor] = []
        presence: list[Tensor] = []
        if self.auxiliary_head is not None:
            deep.append(self.auxiliary_head(features[-2]))
        if self.context.presence is not None:
            presence.append(self.context.presence(semantics))
        if self.second_module is not None:
            presence.append(self.second_module(features[-2]))
        return SegOutput(logits, deep=tuple(deep), presence=tuple(presence))

    def default_terms(self) -> tuple[Term, ...]:
        """Cross-entropy, 0.2 of it on the auxiliary head, and 0.2 of the SE-loss of each module (section 3.2; code)."""
        terms = [Term(name="main")]
        if self.auxiliary_head is not None:
            terms.append(Term(name="auxiliary", output="deep", weight=self.config.auxiliary_weight))
        modules = [
            name
            for name, part in (("presence", self.context.presence), ("presence_stage3", self.second_module))
            if part is not None
        ]
        weight = self.config.presence_weight
        terms += [
            Term(name=name, output="presence", index=index, loss="presence", weight=weight)
            for index, name in enumerate(modules)
        ]
        return tuple(terms)

    def _joined(self, features: tuple[Tensor, ...]) -> Tensor:
        x: Tensor = self.project(features[-1])  # (B, D, h, w)
        if self.lateral is None or self.fusion is None:
            return x
        finer = [connect(feature) for connect, feature in zip(self.lateral, features[-3:-1], strict=True)]
        fused = conv_of_concat((x, *finer), self.fusion.conv.weight, padding=1)
        out: Tensor = self.fusion.act(self.fusion.norm(fused))
        return out


class ContextEncoding(nn.Module):
    """The semantics of a scene: 1x1 block, codewords, their batch norm, ReLU, mean: (B, C, h, w) -> (B, D).

    The norm keeps one mean and deviation per codeword, over the batch and the D channels. A batch of one therefore has
    D values for each and is normalised like any other: the published function, without an exception.
    """

    def __init__(
        self, in_channels: int, width: int, *, num_codewords: int, join: Literal["mean", "sum"] = "mean"
    ) -> None:
        super().__init__()
        self.project = ConvNormAct(in_channels, width, 1)
        self.encoding = Encoding(width, num_codewords)
        self.norm = nn.BatchNorm1d(num_codewords)
        self.join = join

    def forward(self, x: Tensor) -> Tensor:
        codes = torch.relu(self.norm(self.encoding(self.project(x))))  # (B, M, D)
        return codes.sum(dim=1) if self.join == "sum" else codes.mean(dim=1)


class ContextEncodingModule(nn.Module):
    """Weighs the channels of a map by its semantics: (B, C, h, w) -> the same, and the semantics (B, C).

    ``presence`` maps semantics to class scores (B, K); None where no number of classes is given.
    """

    def __init__(
        self,
        channels: int,
        *,
        num_codewords: int,
        num_classes: int | None,
        attention: Literal["residual", "plain"] = "residual",
        join: Literal["mean", "sum"] = "mean",
    ) -> None:
        super().__init__()
        self.semantics = ContextEncoding(channels, channels, num_codewords=num_codewords, join=join)
        self.attention = nn.Linear(channels, channels)
        self.presence = None if num_classes is None else nn.Linear(channels, num_classes)
        self.floor = 1.0 if attention == "residual" else 0.0

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        semantics = self.semantics(x)
        weights = self.floor + torch.sigmoid(self.attention(semantics))
        return (x * weights[:, :, None, None]).relu_(), semantics


class PresenceHead(nn.Module):
    """The second module, on stage 3: semantics and class scores, (B, C, h, w) -> (B, K).

    The paper leaves its widths open; that they are those of the first module, and that its map is used for nothing
    else, is assumed.
    """

    def __init__(self, in_channels: int, num_classes: int, config: EncNetConfig) -> None:
        super().__init__()
        self.semantics = ContextEncoding(
            in_channels, config.width, num_codewords=config.num_codewords, join=config.join
        )
        self.classifier = nn.Linear(config.width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.classifier(self.semantics(x))
        return scores


def _check_backbone(backbone: Backbone, config: EncNetConfig) -> None:
    needed = 3 if config.lateral else 2 if config.auxiliary or config.second_module else 1
    strides = backbone.strides[-needed:]
    if len(strides) < needed:
        raise InvalidValue(f"EncNet needs the {needed} coarsest maps of its backbone, which gives {len(strides)}")
    if config.lateral and len(set(strides)) > 1:
        raise InvalidValue(
            f"lateral connections join maps of one stride, the backbone's last are of {', '.join(map(str, strides))}; "
            "give it output_stride=8, or lateral=False"
        )
