"""Class scores at a network's own resolution, and how they become scores or classes at the image's.

Shapes: B batch, K classes, h w score map, H W image. The full (B, K, H, W) map is built only when it is asked for:
the classes come from one class's up-sampled scores at a time, so that they cost two maps (B, H, W) beside the result.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from perpixel.ops.resize import resize

__all__ = ["ScoreMap"]


@dataclass(frozen=True, kw_only=True)
class ScoreMap:
    """Scores of a batch with the sizes that lead back to the pixels of its images."""

    logits: Tensor
    """(B, K, h, w) float32, contiguous."""
    covered: tuple[int, int]
    """Height and width in image pixels that the logits cover, from the top left pixel: the image and its padding."""
    size: tuple[int, int]
    """Height and width of the image, at most ``covered``."""
    align_corners: bool

    def full(self) -> Tensor:
        """Returns the scores (B, K, H, W) float32 at image size."""
        batch, num_classes = self.logits.shape[:2]
        scores = self.logits.new_empty((batch, num_classes, *self.size))
        for index in range(num_classes):
            scores[:, index : index + 1] = self._upsampled(index)
        return scores

    def classes(self) -> Tensor:
        """Returns the class of the highest score per pixel, (B, H, W) uint8; the lowest class of equal ones.

        The same as ``full().argmax(1)`` to the last pixel, because both up-sample class by class.
        """
        best = self._upsampled(0).clone()  # may be a view of the logits
        winner = torch.zeros(best.shape, dtype=torch.uint8, device=best.device)
        for index in range(1, self.logits.shape[1]):
            scores = self._upsampled(index)
            winner.masked_fill_(scores > best, index)
            torch.maximum(best, scores, out=best)
        return winner[:, 0]

    def image(self, index: int) -> ScoreMap:
        """Returns the map of one image of the batch, B = 1, in the host's memory."""
        return replace(self, logits=self.logits[index : index + 1].cpu().contiguous())

    def _upsampled(self, index: int) -> Tensor:
        scores = resize(self.logits[:, index : index + 1], self.covered, align_corners=self.align_corners)
        return scores[:, :, : self.size[0], : self.size[1]]  # (B, 1, H, W)
