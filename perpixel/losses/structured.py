"""Losses on targets that are more than a label map: masks per class (LRR), pairs of cells (Adelaide).

Shapes: B batch, K classes, H W map, E edges per node, N nodes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from perpixel.losses.reduction import Reduction, reduce_pixels
from perpixel.ops import resize_labels
from perpixel.ops.class_masks import dilated_masks, eroded_masks
from perpixel.ops.node_pairs import IGNORED_PAIR, node_offsets, pair_targets

__all__ = ["STRUCTURED", "logistic_loss", "masks_or_pairs", "pair_cross_entropy"]

STRUCTURED: dict[str, tuple[str, ...]] = {
    "dilated": ("radius", "ignored_as"),
    "eroded": ("radius", "ignored_as"),
    "pairs": ("relation", "fraction", "grid"),
}
"""Kinds of target made by `masks_or_pairs`, and the options of a term that say how."""


def logistic_loss(logits: Tensor, masks: Tensor, *, reduction: Reduction = "mean_valid") -> Tensor:
    """Adds log(1 + exp(-c x)) over the classes of each pixel, c = 1 in the class's mask and -1 outside.

    Source: the loss on dilated and eroded masks of LRR (golnazghiasi/LRR), which divides by the pixels + 1.

    Args:
        logits: (B, K, H, W).
        masks: (B, K, H, W) of 0 and 1.
        reduction: Over pixels; all of them are valid.

    Returns:
        Scalar in nats per pixel.
    """
    losses = F.binary_cross_entropy_with_logits(logits, masks.to(logits.dtype), reduction="none").sum(dim=1)
    return reduce_pixels(losses, masks.new_ones(losses.shape), reduction)


def pair_cross_entropy(scores: Tensor, pairs: Tensor, *, reduction: Reduction = "mean_valid") -> Tensor:
    """Cross-entropy over the K² joint labels of every edge (Lin et al. 2016, arXiv:1504.01013, section 5, P_V).

    Args:
        scores: (B, K², E, N).
        pairs: Joint labels (B, E, N) in [0, K²), or `IGNORED_PAIR`.
        reduction: Over edges.

    Returns:
        Scalar in nats per edge; zero, still attached to ``scores``, when no edge counts.
    """
    losses = F.cross_entropy(scores, pairs, ignore_index=IGNORED_PAIR, reduction="none")
    return reduce_pixels(losses, pairs != IGNORED_PAIR, reduction)


def masks_or_pairs(
    kind: str,
    target: Tensor,
    size: tuple[int, int],
    num_classes: int,
    options: Mapping[str, Any],
    *,
    align_corners: bool,
    ignore_index: int,
) -> Tensor:
    """Makes the target of kind ``dilated`` or ``eroded``, (B, K, h, w), or ``pairs``, (B, E, N), of labels (B, H, W).

    Args:
        kind: Of `STRUCTURED`.
        target: Labels.
        size: (h, w): of the scores that masks are compared with, or of the map whose cells are the nodes.
        num_classes: K.
        options: Of the kind's function: radius and ignored_as, or relation, fraction and grid.
        align_corners: How labels are picked for a cell.
        ignore_index: Label of ignored pixels.
    """
    if kind == "pairs":
        nodes = resize_labels(target, size, align_corners=align_corners)
        return pair_targets(nodes, num_classes, node_offsets(size, **options), ignore_index=ignore_index)
    make = dilated_masks if kind == "dilated" else eroded_masks
    return make(target, num_classes, size=size, align_corners=align_corners, ignore_index=ignore_index, **options)
