"""CRF-RNN: FCN-8s with a dense CRF's mean field as its last layers (Zheng et al., ICCV 2015, arXiv:1502.03240).

Each update filters the class probabilities with two Gaussian kernels on the permutohedral lattice (section 4.2 and
figure 1); the weights of the kernels and the compatibility of classes are K x K matrices that train with the network.

Shapes: B batch, C channels, H W image, N = H W pixels, K classes.
As in the PyTorch port (sadeepj/crfasrnn_pytorch): the compatibility is added, so that it begins as +1 where the paper
and its Caffe code subtract and begin with -1; both see the mean-subtracted image. Differs from the port: batches of any
size, images of any size and channels, float64. The widths of the kernels do not train, and no gradient reaches the
image. The lattice depends on the image's colours, so no fixed graph holds it: torch.export and full-graph compilation
do not apply to this network.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from perpixel.backbones import VGG16
from perpixel.errors import InvalidValue
from perpixel.models.fcn_vgg16 import FCNVGG16, FCNVGG16Config
from perpixel.ops.mean_field import bilateral_features, check_width, mean_field, normalized, position_features
from perpixel.ops.permutohedral import build_lattice
from perpixel.types import SegOutput

__all__ = ["CRFRNN", "CRFRNNConfig", "MeanFieldLayer"]


@dataclass(frozen=True, kw_only=True)
class CRFRNNConfig(FCNVGG16Config):
    """The FCN's choices, and those of the CRF behind it.

    Raises:
        InvalidValue: a kernel's width is not positive, or there is no update; and what the FCN refuses.
    """

    upscore_bias: bool = True
    train_iterations: int = 5
    """Updates of mean field in training; more of them let gradients vanish (section 6)."""
    iterations: int = 10
    """Updates in evaluation mode."""
    spatial_weight: float = 3.0
    """Initial weight of the kernel that sees positions alone."""
    spatial_width: float = 3.0
    """Its standard deviation in pixels."""
    bilateral_weight: float = 5.0
    bilateral_width: float = 160.0
    """Standard deviation in pixels of the kernel that sees colours too."""
    color_width: float = 3.0
    """Its standard deviation in colours, of 0 to 255."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("spatial_width", "bilateral_width", "color_width"):
            check_width(name.removesuffix("_width"), getattr(self, name))
        if self.train_iterations < 1 or self.iterations < 1:
            raise InvalidValue(
                f"CRF-RNN needs at least one update, got {self.train_iterations} in training and {self.iterations} "
                "in evaluation; for none, take fcn_vgg16"
            )

    @classmethod
    def small(cls) -> CRFRNNConfig:
        """A tiny preset for tests and tables."""
        return cls(padding="same", width=8, fc_width=32, dropout=0.1, train_iterations=2, iterations=3)


class CRFRNN(FCNVGG16):
    """An FCN whose scores go through a `MeanFieldLayer`; the FCN's layers keep their names, and so its weights fit."""

    config: CRFRNNConfig

    def __init__(self, trunk: VGG16, num_classes: int, config: CRFRNNConfig | None = None) -> None:
        config = config or CRFRNNConfig()
        super().__init__(trunk, num_classes, config)
        self.receptive_field = None  # every pixel sees every other one
        self.crf = MeanFieldLayer(num_classes, config)

    def forward(self, images: Tensor) -> SegOutput:
        """Maps images (B, C, H, W) to logits (B, K, H, W)."""
        unary = super().forward(images).logits
        preprocessing = self.preprocessing
        units = images.new_tensor([std * 255 / preprocessing.value_range for std in preprocessing.std])
        iterations = self.config.train_iterations if self.training else self.config.iterations
        return SegOutput(self.crf(unary, images.detach() * units[:, None, None], iterations))


class MeanFieldLayer(nn.Module):
    """Mean field with trainable matrices: scores (B, K, H, W) in, scores whose softmax is Q out.

    ``current = M (Ws Fs q / ns + Wb Fb q / nb) + unary`` with ``q = softmax(current)``, repeated.
    """

    def __init__(self, num_classes: int, config: CRFRNNConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or CRFRNNConfig()
        identity = torch.eye(num_classes)
        self.spatial_weights = nn.Parameter(config.spatial_weight * identity)
        self.bilateral_weights = nn.Parameter(config.bilateral_weight * identity)
        self.compatibility = nn.Parameter(identity.clone())

    def forward(self, unary: Tensor, colors: Tensor, iterations: int) -> Tensor:
        """Runs mean field, in float32 at least.

        Args:
            unary: Scores (B, K, H, W).
            colors: (B, C, H, W) in units of 0 to 255; their offset matters a little, as the lattice has an origin.
            iterations: Updates, >= 1.
        """
        height, width = unary.shape[-2:]
        config = self.config
        kind = torch.promote_types(unary.dtype, torch.float32)
        with torch.autocast(unary.device.type, enabled=False):
            positions = position_features(height, width, config.spatial_width, device=unary.device)
            both = bilateral_features(colors, config.bilateral_width, config.color_width)
            filters = [normalized(build_lattice(f, dtype=kind), "after") for f in (positions, both)]
            mixing = self.compatibility.to(kind)
            gains = [mixing @ weights.to(kind) for weights in (self.spatial_weights, self.bilateral_weights)]
            scores = unary.to(kind).flatten(2).mT  # (B, N, K)
            scores = mean_field(scores, filters, gains, iterations=iterations)
            return scores.mT.reshape(unary.shape)
