"""What a Segmenter returns for one image: the mask, its probabilities, and ways to look at it and to keep it.

Shapes: C image channels, K classes, H W image.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from perpixel.inference.drawing import display_image, overlay, write_mask
from perpixel.inference.score_map import ScoreMap
from perpixel.labels import LabelSpace

__all__ = ["Segmentation"]


class Segmentation:
    """The classes of one image's pixels.

    Args:
        mask: Train ids (H, W) uint8.
        labels: What the ids mean.
        image: Raw pixels (C, H, W), uint8 or int32, for the overlay.
        score_map: Scores of this one image at the network's resolution; probabilities are made from it when asked for.
    """

    def __init__(self, *, mask: NDArray[np.uint8], labels: LabelSpace, image: Tensor, score_map: ScoreMap) -> None:
        self.mask = mask
        self.labels = labels
        self._image = image
        self._score_map = score_map

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return int(self.mask.shape[0]), int(self.mask.shape[1])

    @cached_property
    def probabilities(self) -> NDArray[np.float32]:
        """Softmax of the scores at image size, (K, H, W) float32, built on first use (4 K H W bytes) and kept."""
        result: NDArray[np.float32] = self._score_map.full()[0].softmax(dim=0).numpy()
        return result

    def overlay(self, alpha: float = 0.5, border: bool = True) -> Image.Image:
        """Paints the class colours over the image.

        Args:
            alpha: Weight of the colours in [0, 1].
            border: Draws the outlines of regions in full colour.

        Raises:
            InvalidValue: ``alpha`` is outside [0, 1].
        """
        return Image.fromarray(overlay(display_image(self._image), self.mask, self.labels, alpha, border=border))

    def save(self, path: str | Path) -> Path:
        """Writes the mask as palette PNG (16-bit PNG when stored ids are over 255) and returns its path.

        Raises:
            InvalidValue: the name does not end in .png.
            RunError: the file cannot be written.
        """
        return write_mask(path, self.mask, self.labels)

    def class_shares(self) -> dict[str, float]:
        """Returns the share of the pixels, in (0, 1], of each class that occurs, largest first."""
        counts = np.bincount(self.mask.reshape(-1), minlength=self.labels.num_classes)[: self.labels.num_classes]
        order = sorted(range(len(counts)), key=lambda i: (-counts[i], i))
        return {self.labels.names[i]: float(counts[i] / self.mask.size) for i in order if counts[i]}

    def __repr__(self) -> str:
        height, width = self.size
        shares = [f"{name} {share:.0%}" for name, share in self.class_shares().items()]
        more = f" and {len(shares) - 3} more" if len(shares) > 3 else ""
        return f"Segmentation({height} x {width} pixels: {', '.join(shares[:3])}{more})"
