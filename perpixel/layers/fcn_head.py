"""The head of dilated FCNs, which later networks keep as their auxiliary head.

Shapes: B batch, C channels, K classes, h w feature map.
"""

from __future__ import annotations

from torch import Tensor, nn

from perpixel.layers.conv import ConvNormAct

__all__ = ["FCNHead"]


class FCNHead(nn.Module):
    """3x3 convolution block, dropout, 1x1 classifier: (B, C, h, w) -> (B, K, h, w).

    Whole channels are dropped (TorchSeg, semseg) or, without ``drop_channels``, single values (torchvision,
    PyTorch-Encoding).
    """

    def __init__(
        self, in_channels: int, width: int, num_classes: int, dropout: float, *, drop_channels: bool = True
    ) -> None:
        super().__init__()
        self.block = ConvNormAct(in_channels, width, 3)
        self.dropout = nn.Dropout2d(dropout) if drop_channels else nn.Dropout(dropout)
        self.classifier = nn.Conv2d(width, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.classifier(self.dropout(self.block(x)))
        return scores
