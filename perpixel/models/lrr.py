"""LRR, Laplacian pyramid reconstruction and refinement (Ghiasi & Fowlkes, ECCV 2016, arXiv:1605.02264).

Four levels score the maps of VGG16 at strides 32, 16, 8 and 4 (fc7, conv5_3, conv4_3, conv3_3). Each predicts, per cell
and class, how much of every filter of a fixed basis to draw, which gives class scores at four times its resolution.
Coarse scores are doubled and corrected by the next finer level, but only near the borders that the coarse ones show.

Shapes: B batch, K classes, N basis filters per class, H W image, h w cells of a level. Level l = 0..3 has stride
32 / 2^l and its scores 8 / 2^l; widths of VGG16, K = 21 and N = 10, derived by hand:

=========== ============================ ============================== ===========
layer       maps to                      weights                        parameters
=========== ============================ ============================== ===========
conv, fc6-7 strides 1 to 32              VGG16's                        134,260,544
level 32x   (B, K·N, h, w), 4096 in      25 · 4096 · 210 + 210          21,504,210
level 16x   512 in                       25 · 512 · 210 + 210           2,688,210
level 8x    512 in                       25 · 512 · 210 + 210           2,688,210
level 4x    256 in                       25 · 256 · 210 + 210           1,344,210
dilation    as level 32x                                                21,504,210
erosion     as level 32x                                                21,504,210
=========== ============================ ============================== ===========

That makes 205,493,804 parameters with the two branches that only losses use, 162,485,384 without;
the basis is a buffer.

Read in the authors' code (golnazghiasi/LRR): the maps, windows, paddings, bases, masks, losses and stages. Differs from
it in that any size is taken (what reaches past the image below and to the right is cut off), and that losses average
over the valid pixels of the batch, not of each image. Not verified, because those files were not found: that the
dilation and erosion branches are built as level 32x is, and how the 32 x 32 basis is brought to 8 x 8.
There is no reference vector.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perpixel.backbones import VGG16, FullyConnected, Pool, VGG16Layout
from perpixel.errors import InvalidValue
from perpixel.models.network import Network
from perpixel.ops.class_basis import cosine_basis
from perpixel.ops.host_values import from_host
from perpixel.types import SegOutput, Term

__all__ = ["LRR", "ClassBasis", "LRRConfig", "boundary_mask", "double_bilinearly"]

NAMES = ("32x", "16x", "8x", "4x")
UPSAMPLING = 4
"""Cells of a level's scores per cell of its map."""


@dataclass(frozen=True, kw_only=True)
class LRRConfig:
    """How many levels there are, the basis, the losses, and the widths of the trunk.

    Raises:
        InvalidValue: a number is out of range.
    """

    levels: int = 4
    """1 is 32x alone, the authors' first stage; 4 is the whole network."""
    num_basis: int = 10
    boundary_mask: bool = True
    """Off: finer levels correct everywhere."""
    mask_window: int = 9
    """Side of the window, in cells of the finer scores, in which coarse probabilities must differ."""
    boundary_losses: bool = True
    """Two more branches at 32x learn the classes' masks grown and shrunk by a disk."""
    boundary_radius: int = 32
    """Of that disk, in pixels."""
    dropout: float = 0.5
    """Behind fc6 and fc7, single values."""
    width: int = 64
    """Channels of VGG16's first block."""
    fc_width: int = 4096

    def __post_init__(self) -> None:
        if not 1 <= self.levels <= len(NAMES):
            raise InvalidValue(f"LRR has 1 to {len(NAMES)} levels, got {self.levels}")
        if not 1 <= self.num_basis <= self.basis_size**2:
            raise InvalidValue(f"num_basis must lie in [1, {self.basis_size**2}], got {self.num_basis}")
        if self.mask_window < 1 or self.mask_window % 2 == 0:
            raise InvalidValue(f"mask_window must be odd and positive, got {self.mask_window}")
        if self.boundary_radius < 0:
            raise InvalidValue(f"boundary_radius must be >= 0 pixels, got {self.boundary_radius}")
        if not 0 <= self.dropout < 1:
            raise InvalidValue(f"dropout must lie in [0, 1), got {self.dropout}")
        if min(self.width, self.fc_width) < 1:
            raise InvalidValue(f"LRR widths must be >= 1, got {self.width} and {self.fc_width}")

    @classmethod
    def small(cls) -> LRRConfig:
        """A tiny preset for tests and tables."""
        return cls(width=8, fc_width=32, dropout=0.0, boundary_radius=8)

    @property
    def basis_size(self) -> int:
        """Side of a basis filter, cells of a level's scores."""
        return 2 * UPSAMPLING

    @property
    def layout(self) -> VGG16Layout:
        """VGG16 with MatConvNet's pools, which take one more row below and column to the right, and a padded fc6."""
        return VGG16Layout(
            width=self.width,
            pools=(Pool(ceil=False, bottom_right=True),) * 5,
            fully_connected=FullyConnected(padding=3, width=self.fc_width),
        )


class LRR(Network):
    """Scores of the finest level as ``logits``.

    ``deep`` holds the coarser levels' scores, coarse to fine (32x, 16x, 8x at strides 8, 4, 2 when there are four
    levels), then those of the dilation and of the erosion branch (stride 8). New score layers are zero, so that in the
    beginning nothing is drawn and, for want of borders, nothing corrected. The basis is the cosine basis until
    `set_basis` gives one made from label maps; it is stored with the weights.
    """

    config: LRRConfig
    backbone: VGG16

    def __init__(self, trunk: VGG16, num_classes: int, config: LRRConfig | None = None) -> None:
        config = config or LRRConfig()
        super().__init__(
            config,
            num_classes,
            preprocessing=trunk.preprocessing,
            logit_stride=2 ** (len(NAMES) - config.levels),
            align_corners=False,
            minimum_size=32,
        )
        self.backbone = trunk
        widths = (config.fc_width, *trunk.channels[:1:-1])  # fc7, conv5, conv4, conv3
        outputs = num_classes * config.num_basis
        self.levels = nn.ModuleList(_coefficients(width, outputs) for width in widths[: config.levels])
        self.boundaries = nn.ModuleList(
            _coefficients(config.fc_width, outputs) for _ in ("dilation", "erosion") if config.boundary_losses
        )
        self.dropout = nn.Dropout(config.dropout)
        self.basis = ClassBasis(num_classes, config.num_basis, config.basis_size)

    def forward(self, images: Tensor) -> SegOutput:
        """Maps images (B, C, H, W) to logits (B, K, H, W), with fewer levels at their stride, rounded up."""
        height, width = images.shape[-2:]
        maps = self._maps(images)
        scores: list[Tensor] = []
        for level, features in enumerate(maps):
            stride = 8 // 2**level
            rows, columns = -(-height // stride), -(-width // stride)
            own = self.basis(self.levels[level](features))[:, :, :rows, :columns]
            if scores:
                coarse = double_bilinearly(scores[-1])[:, :, :rows, :columns]
                if self.config.boundary_mask:
                    own = own * boundary_mask(coarse.softmax(dim=1), self.config.mask_window)
                own = coarse + own
            scores.append(own)
        if not self.supervised:
            return SegOutput(scores[-1])
        size = scores[0].shape[-2:]
        boundaries = [self.basis(branch(maps[0]))[:, :, : size[0], : size[1]] for branch in self.boundaries]
        return SegOutput(scores[-1], deep=(*scores[:-1], *boundaries))

    def set_basis(self, basis: Tensor) -> None:
        """Takes filters (K, N, 8, 8), such as `ops.class_basis.class_basis` makes them.

        Raises:
            InvalidValue: the shape is another.
        """
        filters = self.basis.filters
        if basis.shape != filters.shape:
            raise InvalidValue(f"the basis has shape {tuple(filters.shape)}, got {tuple(basis.shape)}")
        filters.copy_(basis)

    def default_terms(self) -> tuple[Term, ...]:
        """Softmax loss on every level at its own resolution, and logistic losses on the grown and shrunk masks."""
        last = self.config.levels - 1
        terms = [Term(name=NAMES[i], output="deep", index=i, at="logits") for i in range(last)]
        terms.append(Term(name=NAMES[last], at="logits"))
        if self.config.boundary_losses:
            options = {"radius": self.config.boundary_radius}
            terms += [
                Term(name=name, output="deep", index=last + i, loss=f"{name}_logistic", at="logits", options=options)
                for i, name in enumerate(("dilation", "erosion"))
            ]
        return tuple(terms)

    def _maps(self, images: Tensor) -> list[Tensor]:
        """The features of the levels, coarse to fine."""
        trunk = self.backbone
        x = trunk.pool(2, trunk.convs(2, trunk.pool(1, trunk.convs(1, images))))
        maps = []
        for block in (3, 4, 5):
            x = trunk.convs(block, x)
            maps.append(x)
            x = trunk.pool(block, x)
        x = self.dropout(torch.relu(trunk.fc6(x)))
        maps.append(self.dropout(torch.relu(trunk.fc7(x))))
        return maps[::-1][: self.config.levels]


class ClassBasis(nn.Module):
    """Draws class scores (section 3.1): every filter of a class as strongly as its coefficient says, in its place.

    A transposed convolution of each class with its own fixed filters, of stride 4 and twice that size.
    """

    filters: Tensor

    def __init__(self, num_classes: int, num_basis: int, size: int) -> None:
        super().__init__()
        self.register_buffer("filters", cosine_basis(num_basis, size).expand(num_classes, -1, -1, -1).clone())

    def forward(self, coefficients: Tensor) -> Tensor:
        """Maps coefficients (B, K·N, h, w), all of a class in a row, to scores (B, K, 4h, 4w)."""
        filters = self.filters.flatten(0, 1)[:, None].to(coefficients.dtype)  # (K·N, 1, 8, 8)
        groups = self.filters.shape[0]
        return F.conv_transpose2d(coefficients, filters, stride=UPSAMPLING, padding=UPSAMPLING // 2, groups=groups)


def boundary_mask(probabilities: Tensor, window: int) -> Tensor:
    """Greatest less least probability of each class within the window: (B, K, h, w), 0 where nothing changes."""
    padding = window // 2
    highest = F.max_pool2d(probabilities, window, stride=1, padding=padding)
    return highest + F.max_pool2d(-probabilities, window, stride=1, padding=padding)


def double_bilinearly(scores: Tensor) -> Tensor:
    """Doubles (B, K, h, w) by the fixed bilinear transposed convolution, beyond whose edge there is zero."""
    line = from_host((0.25, 0.75, 0.75, 0.25), dtype=scores.dtype, device=scores.device)
    batch, classes, h, w = scores.shape
    single = scores.reshape(batch * classes, 1, h, w)
    doubled = F.conv_transpose2d(single, torch.outer(line, line)[None, None], stride=2, padding=1)
    return doubled.view(batch, classes, 2 * h, 2 * w)


def _coefficients(in_channels: int, out_channels: int) -> nn.Conv2d:
    layer = nn.Conv2d(in_channels, out_channels, 5, padding=2)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer
