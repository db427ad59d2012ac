"""Class scores at a network's own resolution, and how they become scores or classes at the image's.

Shapes: B batch, K classes, h w score map, H W image. The full (B, K, H, W) map is built only when it is asked for:
the classes come from bands of rows, or only from the cells along borders between classes (`ops.fused_argmax`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from perpixel.ops.fused_argmax import fused_argmax
from perpixel.ops.resize import resize

__all__ = ["ScoreMap"]


@dataclass(frozen=True, kw_only=True)
class ScoreMap:
    """Scores of a batch with the sizes that lead back to the pixels of its images."""

    logits: Tensor
    """(B, K, h, w) contiguous; float32, or float64 where a procedure runs a network of that type."""
    covered: tuple[int, int]
    """Height and width in image pixels that the logits cover, from the top left pixel: the image and its padding."""
    size: tuple[int, int]
    """Height and width of the image, at most ``covered``."""
    align_corners: bool
    probabilities: bool = False
    """Whether ``logits`` hold probabilities, or multiples of them, whose logarithms are the scores."""

    def full(self) -> Tensor:
        """Returns the scores (B, K, H, W) at image size."""
        batch, num_classes = self.logits.shape[:2]
        scores = self.logits.new_empty((batch, num_classes, *self.size))
        for index in range(num_classes):
            scores[:, index : index + 1] = self._upsampled(index)
        return scores.clamp_(min=torch.finfo(scores.dtype).tiny).log_() if self.probabilities else scores

    def classes(self) -> Tensor:
        """Returns the class of the highest score per pixel, (B, H, W) uint8; the lowest class of equal ones.

        The same as ``full().argmax(1)`` but where scores nearly tie (`ops.fused_argmax`); int16 for over 256 classes.
        """
        return fused_argmax(self.logits, self.size, align_corners=self.align_corners, covered=self.covered)

    def image(self, index: int) -> ScoreMap:
        """Returns the map of one image of the batch, B = 1, in the host's memory."""
        return replace(self, logits=self.logits[index : index + 1].float().cpu().contiguous())

    def _upsampled(self, index: int) -> Tensor:
        scores = resize(self.logits[:, index : index + 1], self.covered, align_corners=self.align_corners)
        return scores[:, :, : self.size[0], : self.size[1]]  # (B, 1, H, W)
