"""Windows by class: a limit to how much of a window one class may cover, and windows around given classes.

The limit is that of published training code for Cityscapes and ADE20K (a window is drawn again, up to ten times, while
one class covers more than 0.75 of its labelled pixels or is the only one); no paper introduces it. Windows around any
class: ``class_crop`` of `transforms.draw`; whole images with rare classes more often: `data.samplers`.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perpixel.data.transforms import Augmentation, Window, draw, labels_inside

__all__ = ["draw_around", "largest_share", "limited"]

_IGNORED = 255


def largest_share(labels: NDArray[np.uint8]) -> float:
    """Returns the share of the most frequent class in the labelled pixels; 0 where none is labelled."""
    counts = np.bincount(labels.ravel(), minlength=_IGNORED + 1)[:_IGNORED]
    total = int(counts.sum())
    return int(counts.max()) / total if total else 0.0


def limited(window: Window, target: Tensor, share: float, tries: int, rng: np.random.Generator) -> Window:
    """Moves a window until no class covers more than ``share`` of its labelled pixels, or tries are used up.

    Scale and flip stay. A window without labelled pixels is moved as well.

    Args:
        window: Drawn for this target.
        target: (H, W) uint8 train ids.
        share: Largest share, in (0, 1); 1 takes any window.
        tries: How many positions at most are drawn beside the window's own; the last one is taken.
        rng: Gives two numbers per try.
    """
    if share >= 1:
        return window
    for _ in range(tries):
        if 0 < largest_share(labels_inside(window, target)) <= share:
            break
        corner = [
            start if scaled <= crop else int(place * (scaled - crop + 1))
            for start, scaled, crop, place in zip(window.corner, window.scaled, window.crop, rng.random(2), strict=True)
        ]
        window = window._replace(corner=(corner[0], corner[1]))
    return window


def draw_around(
    augmentation: Augmentation,
    size: tuple[int, int],
    rng: np.random.Generator,
    target: Tensor,
    classes: NDArray[np.bool_],
) -> Window:
    """Draws a window around a pixel of one of the classes (256,) where the target has any, else anywhere."""
    table = np.where(classes, np.arange(256), _IGNORED).astype(np.uint8)
    masked = bytearray(target.numpy().tobytes().translate(table.tobytes()))
    kept = torch.frombuffer(masked, dtype=torch.uint8).view(target.shape)
    return draw(replace(augmentation, class_crop=1.0), size, rng, kept)
