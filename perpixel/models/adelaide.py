"""Contextual deep CRF with piecewise training (Lin, Shen, van den Hengel & Reid, CVPR 2016, arXiv:1504.01013).

FeatMap-Net: VGG16 sees the image at three scales; its five blocks are shared, a sixth belongs to each scale. Each
scale's map is pooled in sliding windows, and the maps are stacked at the size of the largest. Its cells
are the nodes of a CRF. Unary-Net scores the K classes of a node, one Pairwise-Net per relation the K² joint labels of
two nodes from the features of both. Three steps of mean field join the scores. Training needs no inference: each node
and each edge has a softmax of its own.

Shapes: B batch, C channels, H W image, K classes, h w cells of the largest map, N = h w nodes, E edges from each node.
Derived by hand (K = 21; VGG16's widths; block 6 has 4096, 512, 512 channels; D = 3 scales · 3 maps · 512 = 4,608):

===================== ========================== ================================== ===========
layer                 maps to                    weights                            parameters
===================== ========================== ================================== ===========
blocks 1 to 5         (B, 512, ., .), stride 16  VGG16's                            14,714,688
block 6, each of 3    4096 (7x7), 512, 512 (3x3) 102,764,544 + 18,874,880+2,359,808 371,997,696
sliding pyramid       (B, 3 · 512, ., .)         none                               0
Unary-Net             (B, 512, h, w), (B, K, .)  4608·512 + 512, 512·21 + 21        2,370,581
Pairwise-Net, 2       512, then (B, K², E, N)    9216·512 + 512, 512·441 + 441      9,890,674
===================== ========================== ================================== ===========

That makes 398,973,639. The number of nodes follows the image; E follows the map: a box of 0.4 times its shorter side.

Read in reviews of the paper and of the authors' later one (arXiv:1603.03183): scales, shared blocks, windows of 5 and
9, box, relations, pieces, three steps. Not verified: stride 1 of the fifth pool, widths of block 6 and of the shallow
nets (options), that all potentials share one FeatMap-Net, and how the box above a node is shifted (ops.node_pairs).
The published system then upsamples and refines with a dense CRF (inference/). There is no reference vector.
The edges are made from the size of the map, so that an exported graph holds for the size that it was traced at.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perpixel.backbones import VGG16, FullyConnected, Pool, VGG16Layout
from perpixel.errors import InvalidValue
from perpixel.models.network import Network
from perpixel.ops import resize
from perpixel.ops.node_pairs import Relation, node_neighbours, node_offsets
from perpixel.types import SegOutput, Term

__all__ = [
    "Adelaide",
    "AdelaideConfig",
    "Edges",
    "FeatMapNet",
    "PairwiseNet",
    "UnaryNet",
    "mean_field",
    "sliding_pyramid",
]

RELATIONS: tuple[Relation, ...] = ("surrounding", "above_below")


@dataclass(frozen=True, kw_only=True)
class AdelaideConfig:
    """Scales, windows, edges, steps of inference, and widths.

    Raises:
        InvalidValue: a relation is unknown or repeated, or a number out of range.
    """

    scales: tuple[float, ...] = (1.2, 0.8, 0.4)
    """Of the image; the map of the largest has the nodes."""
    windows: tuple[int, ...] = (5, 9)
    """Of the sliding max pools; odd."""
    relations: tuple[str, ...] = RELATIONS
    """None: unary scores alone, the first stage of training."""
    range_fraction: float = 0.4
    """Side of the box of neighbours, as a share of the shorter side of the map."""
    edge_grid: int = 0
    """Rows and columns of the box that are used; 0: all. 5 is the sampling of the authors' later paper."""
    iterations: int = 3
    """Of mean field."""
    fifth_pool: bool = True
    """A 3x3 max pool of stride 1 behind block 5; off: none."""
    width: int = 64
    """Channels of VGG16's first block."""
    fc_width: int = 4096
    """Channels of block 6's 7x7 convolution, VGG16's fc6."""
    context_width: int = 512
    """Channels of block 6's two 3x3 convolutions."""
    potential_width: int = 512
    """Hidden channels of Unary-Net and Pairwise-Nets."""

    def __post_init__(self) -> None:
        unknown = [name for name in self.relations if name not in RELATIONS]
        if unknown or len(set(self.relations)) != len(self.relations):
            raise InvalidValue(f"relations are some of {', '.join(RELATIONS)}, each once; got {self.relations}")
        if not self.scales or min(self.scales) <= 0:
            raise InvalidValue(f"scales must be positive, at least one, got {self.scales}")
        if any(window < 1 or window % 2 == 0 for window in self.windows):
            raise InvalidValue(f"windows must be odd and positive, got {self.windows}")
        if not 0 < self.range_fraction <= 1 or self.edge_grid < 0:
            raise InvalidValue(
                f"range_fraction must lie in (0, 1] and edge_grid be >= 0, got {self.range_fraction}, {self.edge_grid}"
            )
        for name in ("iterations", "width", "fc_width", "context_width", "potential_width"):
            if getattr(self, name) < 1:
                raise InvalidValue(f"Adelaide {name} must be >= 1, got {getattr(self, name)}")

    @classmethod
    def small(cls) -> AdelaideConfig:
        """A tiny preset for tests and tables."""
        return cls(
            scales=(1.0, 0.5), windows=(3,), width=8, fc_width=32, context_width=16, potential_width=16, edge_grid=3
        )

    @property
    def layout(self) -> VGG16Layout:
        """VGG16 at stride 16; its fc6 becomes the first layer of every scale's sixth block."""
        fifth = Pool(kernel=3, stride=1, padding=1) if self.fifth_pool else None
        return VGG16Layout(
            width=self.width,
            pools=(Pool(), Pool(), Pool(), Pool(), fifth),
            fully_connected=FullyConnected(padding=3, width=self.fc_width),
        )


class Adelaide(Network):
    """Logits are the mean field's scores: ln Q up to a constant per node, differentiable, on the nodes (B, K, h, w).

    ``deep`` holds what piecewise training needs: the unary scores (B, K, h, w), then for each relation the scores of
    joint labels (B, K², E, N), the channel of (y_p, y_q) being K · y_p + y_q, the edges those of
    `ops.node_pairs.node_offsets` for the map's size. Edges that leave the map have scores of zero. The nodes are cells
    of the largest scale's map: with scale s the exact stride is 16 / s, ``logit_stride`` that number rounded.
    """

    config: AdelaideConfig
    backbone: VGG16

    def __init__(self, trunk: VGG16, num_classes: int, config: AdelaideConfig | None = None) -> None:
        config = config or AdelaideConfig()
        super().__init__(
            config,
            num_classes,
            preprocessing=trunk.preprocessing,
            logit_stride=max(1, round(16 / max(config.scales))),
            align_corners=False,
            minimum_size=64,
        )
        self.backbone = trunk
        self.features = FeatMapNet(trunk, config)
        self.unary = UnaryNet(self.features.channels, config.potential_width, num_classes)
        self.pairwise = nn.ModuleDict(
            {
                name: PairwiseNet(self.features.channels, config.potential_width, num_classes)
                for name in config.relations
            }
        )

    def forward(self, images: Tensor) -> SegOutput:
        """Maps images (B, C, H, W) to logits on the nodes, (B, K, h, w)."""
        features = self.features(self.backbone, images)
        unary = self.unary(features)
        size = (int(features.shape[2]), int(features.shape[3]))
        edges = [
            self._edges(name, features, size)
            for name in self.config.relations  # their order is that of ``deep``
        ]
        logits = mean_field(unary.flatten(2), edges, self.config.iterations).reshape(unary.shape)
        return SegOutput(logits, deep=(unary, *(e.scores for e in edges)) if self.supervised else ())

    def default_terms(self) -> tuple[Term, ...]:
        """The piecewise loss (section 5): cross-entropy of every node, and of every edge over joint labels.

        The paper sums over nodes and edges; here each piece is a mean, so that its weight does not follow the size.
        """
        terms = [Term(name="unary", output="deep", at="logits")]
        for index, relation in enumerate(self.config.relations, start=1):
            options = {
                "relation": relation,
                "fraction": self.config.range_fraction,
                "grid": self.config.edge_grid,
            }
            terms.append(
                Term(name=relation, output="deep", index=index, loss="pair_cross_entropy", at="logits", options=options)
            )
        return tuple(terms)

    def _edges(self, relation: str, features: Tensor, size: tuple[int, int]) -> Edges:
        offsets = node_offsets(
            size,
            relation=relation,  # type: ignore[arg-type]
            fraction=self.config.range_fraction,
            grid=self.config.edge_grid,
        )
        index, valid = node_neighbours(size, offsets, features.device)
        scores = self.pairwise[relation](features, index) * valid
        return Edges(scores, index, valid)


class FeatMapNet(nn.Module):
    """Sixth blocks and sliding pyramids of every scale, on top of the shared trunk (figures 4 and 5)."""

    def __init__(self, trunk: VGG16, config: AdelaideConfig) -> None:
        super().__init__()
        self.scales, self.windows = config.scales, config.windows
        self.blocks = nn.ModuleList(_sixth_block(trunk, config) for _ in config.scales)
        del trunk.fc6, trunk.fc7  # handed over to the blocks; VGG16's second layer is not used
        self.channels = len(config.scales) * (1 + len(config.windows)) * config.context_width

    def forward(self, trunk: VGG16, images: Tensor) -> Tensor:
        """Maps images (B, C, H, W) to features (B, D, h, w) at the size of the largest scale's map."""
        height, width = images.shape[-2:]
        maps = []
        for scale, block in zip(self.scales, self.blocks, strict=True):
            size = (max(1, round(height * scale)), max(1, round(width * scale)))
            x = block(trunk(resize(images, size, align_corners=False))[-1])
            maps.append(sliding_pyramid(x, self.windows))
        largest = maps[max(range(len(maps)), key=lambda i: self.scales[i])].shape[-2:]
        return torch.cat([resize(x, largest, align_corners=False) for x in maps], dim=1)


class UnaryNet(nn.Module):
    """Scores the class of each node from its features: (B, D, h, w) -> (B, K, h, w)."""

    def __init__(self, in_channels: int, width: int, num_classes: int) -> None:
        super().__init__()
        self.hidden = nn.Conv2d(in_channels, width, 1)
        self.classifier = nn.Conv2d(width, num_classes, 1)

    def forward(self, features: Tensor) -> Tensor:
        scores: Tensor = self.classifier(torch.relu(self.hidden(features)))
        return scores


class PairwiseNet(nn.Module):
    """Scores joint labels of two nodes from their features, one after the other: order counts.

    The first layer acts on both nodes' features in a row; its two halves are kept apart, so that each meets each node
    once and not once per edge.
    """

    def __init__(self, in_channels: int, width: int, num_classes: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(in_channels, width, 1)
        self.second = nn.Conv2d(in_channels, width, 1, bias=False)
        self.joint = nn.Conv2d(width, num_classes**2, 1)

    def forward(self, features: Tensor, neighbours: Tensor) -> Tensor:
        """Maps features (B, D, h, w) and the other ends of the edges (E, N) to scores (B, K², E, N)."""
        first = self.first(features).flatten(2)[:, :, None]  # (B, D', 1, N)
        second = self.second(features).flatten(2)[:, :, neighbours]  # (B, D', E, N)
        scores: Tensor = self.joint(torch.relu(first + second))
        return scores


class Edges:
    """The edges of one relation: scores of joint labels (B, K², E, N), other ends (E, N), and which exist (E, N)."""

    def __init__(self, scores: Tensor, neighbours: Tensor, valid: Tensor) -> None:
        self.scores, self.neighbours, self.valid = scores, neighbours, valid

    def messages(self, beliefs: Tensor) -> Tensor:
        """Expected scores of each node's classes over the other ends of all its edges, in both directions.

        Maps Q (B, K, N) to (B, K, N).
        """
        classes = beliefs.shape[1]
        batch, _, steps, nodes = self.scores.shape
        scores = self.scores.reshape(batch, classes, classes, steps, nodes)  # (B, K of p, K of q, E, N)
        others = beliefs[:, :, self.neighbours] * self.valid  # (B, K, E, N)
        to_first = torch.einsum("bijen,bjen->bin", scores, others)
        to_second = torch.einsum("bijen,bin->bjen", scores, beliefs) * self.valid
        return to_first.index_add(2, self.neighbours.flatten(), to_second.flatten(2))


def mean_field(unary: Tensor, edges: list[Edges], iterations: int) -> Tensor:
    """Repeats Q = softmax(s), s = unary + messages of all edges; returns the last s (B, K, N), the unary's shape."""
    scores = unary
    for _ in range(iterations):
        beliefs = scores.softmax(dim=1)
        scores = unary
        for relation in edges:
            scores = scores + relation.messages(beliefs)
    return scores


def sliding_pyramid(x: Tensor, windows: tuple[int, ...]) -> Tensor:
    """Puts maxima over windows around each cell on top of the map: (B, C, h, w) -> (B, (1 + levels) C, h, w)."""
    return torch.cat([x, *(F.max_pool2d(x, window, stride=1, padding=window // 2) for window in windows)], dim=1)


def _sixth_block(trunk: VGG16, config: AdelaideConfig) -> nn.Sequential:
    """A scale's own block: VGG16's fc6 as a 7x7 convolution, with its weights, and two new 3x3 convolutions."""
    first = nn.Conv2d(trunk.fc6.in_channels, config.fc_width, trunk.fc6.kernel_size[0], padding=trunk.fc6.padding[0])
    first.load_state_dict(trunk.fc6.state_dict())
    layers: list[nn.Module] = [first, nn.ReLU()]
    for channels in (config.fc_width, config.context_width):
        layer = nn.Conv2d(channels, config.context_width, 3, padding=1)
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers)
