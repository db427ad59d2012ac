"""What every network has beside its layers: the facts that losses, inference and artifacts need."""

from __future__ import annotations

from numbers import Integral
from typing import Any

from torch import Tensor, nn

from perpixel.errors import InvalidValue
from perpixel.types import Preprocessing, SegOutput, Term

__all__ = ["Network"]


class Network(nn.Module):
    """Base of the networks: maps images (B, C, H, W), normalised by ``preprocessing``, to a `SegOutput`.

    Attributes:
        config: The network's own frozen configuration.
        backbone: Its trunk; None where the network is of one piece.
        num_classes: K.
        logit_stride: Image pixels per cell of ``logits``.
        align_corners: How ``logits`` are brought to the image's size.
        preprocessing: What the network wants raw pixels to become.
        margin: Image pixels lost on each side (0 but for valid-convolution networks).
        minimum_size: Smallest height and width in pixels that trains with a batch of one.
        receptive_field: Side in pixels, or None where pooling is global.
        supervise: Fill ``deep``, ``border`` and ``presence`` in eval mode too.

    Raises:
        InvalidValue: ``num_classes`` is no positive whole number.
    """

    config: Any
    backbone: nn.Module | None
    margin: int = 0
    receptive_field: int | None = None
    supervise: bool = False

    def __init__(
        self,
        config: Any,
        num_classes: int,
        *,
        preprocessing: Preprocessing,
        logit_stride: int,
        align_corners: bool,
        minimum_size: int = 1,
    ) -> None:
        super().__init__()
        self.backbone = None
        if not _counts(num_classes):
            raise InvalidValue(f"num_classes must be a whole number >= 1, got {num_classes!r}")
        self.config = config
        self.num_classes = num_classes
        self.preprocessing = preprocessing
        self.logit_stride = logit_stride
        self.align_corners = align_corners
        self.minimum_size = minimum_size

    @property
    def supervised(self) -> bool:
        """Whether the outputs that only losses need are made now."""
        return self.training or self.supervise

    def valid_size(self, height: int, width: int) -> tuple[int, int]:
        """Returns the smallest size the network takes that holds (height, width)."""
        return max(height, self.minimum_size), max(width, self.minimum_size)

    def default_terms(self) -> tuple[Term, ...]:
        """Returns the loss that the network was published with."""
        raise NotImplementedError(f"{type(self).__name__} states no loss")

    def forward(self, images: Tensor) -> SegOutput:
        """Maps (B, C, H, W) to class scores and, when supervised, what the losses need."""
        raise NotImplementedError(f"{type(self).__name__} has no forward")


def _counts(value: Any) -> bool:
    """Whether it is a positive whole number, NumPy's too."""
    return not isinstance(value, bool) and isinstance(value, Integral) and int(value) > 0
