"""BF score: how well the contours of each class agree within a small distance, for one image.

Csurka, Larlus and Perronnin, "What is a good evaluation measure for semantic segmentation?", BMVC 2013. Precision is
the share of predicted contour pixels with a true contour pixel of the same class nearby, recall the share of true ones
with a predicted one nearby, and the score is 2PR / (P + R). What the paper leaves open is an argument here.
"""

from __future__ import annotations

import math
from importlib import import_module
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from perpixel.errors import InvalidValue
from perpixel.metrics.contours import (
    LabelPair,
    contour_mask,
    contour_pixels,
    label_pairs,
    near_contour,
    offsets_within,
)
from perpixel.metrics.tensors import Tensor

__all__ = ["bf_score"]


def bf_score(
    prediction: NDArray[Any] | Tensor,
    target: NDArray[Any] | Tensor,
    num_classes: int,
    *,
    tolerance_px: float | None = None,
    tolerance_diagonal: float = 0.0075,
    strict: bool = False,
    connectivity: int = 4,
    border_is_contour: bool = False,
    ignore_index: int = 255,
    void: Literal["copied", "dropped"] = "copied",
    matching: Literal["nearest", "one_to_one"] = "nearest",
) -> NDArray[np.float64]:
    """Returns the BF score of each class in one image.

    A class in neither map is NaN, to be left out of means; a class in one of them only scores 0; a class that has no
    contour in either, because both masks fill the image, scores 1. The image's score is the mean over classes (the
    paper: over those in the image's truth), the data set's the mean over images.

    Args:
        prediction: Predicted train ids (H, W), in [0, K) on valid pixels, anything where the target is ignored.
        target: True train ids (H, W), each in [0, K) or equal to ``ignore_index``.
        num_classes: K.
        tolerance_px: Distance within which contours agree, in pixels, at least 0; None takes ``tolerance_diagonal``.
        tolerance_diagonal: The same as a share of the image's diagonal; 0.0075 is 17.2 px at 1024x2048. Below 1 px
            only exact hits count: the paper has no lower bound.
        strict: Whether the distance must be smaller than the tolerance (the paper), not at most equal. It matters
            where the tolerance is the distance between two pixels.
        connectivity: 4 or 8: a contour pixel has a neighbour outside its class among so many.
        border_is_contour: Whether pixels of the class on the image's border are contour.
        ignore_index: Target value of void pixels. They belong to no class in either map, whatever was predicted.
        void: ``"copied"``: the edge of a void region is contour in both maps, which flatters the score a little.
            ``"dropped"``: contour pixels with a void neighbour are left out of both. A class present in both maps
            with a contour in neither then scores 1 when its masks are equal, else 0.
        matching: ``"nearest"``: a pixel agrees when any pixel of the other contour is near (Csurka). ``"one_to_one"``:
            the largest set of disjoint pairs of near pixels agrees, as in SegNet's script, which calls the BSDS
            benchmark's assignment. That assigns at least total distance and allows, at a price, pixels without a
            partner, so it can pair a few pixels fewer; its contours are thinner, on one side of the edge; and the
            script resizes predictions to 360x480 first.

    Returns:
        Scores (K,) float64 in [0, 1], or NaN.

    Raises:
        InvalidValue: shapes differ or are not (H, W), a label is out of range, the tolerance is not a distance or
            leaves no pixel within it, or an option is unknown.

    Example:
        >>> target = np.repeat([[0, 0, 0, 1, 1, 1]], 2, axis=0)
        >>> bf_score(np.roll(target, 1), target, 3, tolerance_px=1).round(3).tolist()
        [1.0, 0.667, nan]
    """
    if void not in ("copied", "dropped"):
        raise InvalidValue(f"void is 'copied' or 'dropped', got {void!r}")
    if matching not in ("nearest", "one_to_one"):
        raise InvalidValue(f"matching is 'nearest' or 'one_to_one', got {matching!r}")
    (pair,) = label_pairs(prediction, target, num_classes, ignore_index=ignore_index, batched=False)
    tolerance = _tolerance(pair.target.shape, tolerance_px, tolerance_diagonal, strict=strict)
    offsets = offsets_within(tolerance, strict=strict)
    predicted, true = (
        contour_pixels(
            labels,
            contour_mask(
                labels,
                pair.void,
                connectivity=connectivity,
                border_is_contour=border_is_contour,
                drop_beside_void=void == "dropped",
            ),
            pair.void,
            math.floor(tolerance),
        )
        for labels in (pair.prediction, pair.target)
    )
    if matching == "nearest":
        hits = near_contour(predicted, true, offsets), near_contour(true, predicted, offsets)
    else:
        # SciPy's graphs take longer to load than most images to score, and only this choice needs them.
        hits = import_module("perpixel.metrics.contour_matching").one_to_one(predicted, true, offsets)
    return _f_scores(pair, predicted.label, true.label, hits, num_classes)


def _tolerance(size: tuple[int, ...], pixels: float | None, share: float, *, strict: bool) -> float:
    height, width = size
    if pixels is None:
        if not (share >= 0 and math.isfinite(share)):
            raise InvalidValue(f"tolerance_diagonal is a share of the image's diagonal, at least 0, got {share}")
        pixels = share * math.sqrt(height**2 + width**2)
    elif not (pixels >= 0 and math.isfinite(pixels)):
        raise InvalidValue(f"tolerance_px is a distance in pixels, at least 0, got {pixels}")
    if strict and pixels == 0:
        raise InvalidValue("no distance is smaller than a tolerance of 0; raise it, or leave strict=False")
    return min(pixels, float(height + width))  # no two pixels are farther apart


def _f_scores(
    pair: LabelPair,
    predicted: NDArray[Any],
    true: NDArray[Any],
    hits: tuple[NDArray[np.bool_], NDArray[np.bool_]],
    num_classes: int,
) -> NDArray[np.float64]:
    """From the class (N,) of each contour pixel, and whether it agrees, to scores (K,)."""
    counts = [np.bincount(labels, minlength=num_classes) for labels in (predicted, true)]
    agreed = [
        np.bincount(labels[hit], minlength=num_classes) for labels, hit in zip((predicted, true), hits, strict=True)
    ]
    present = [_present(labels, count) for labels, count in zip(pair[:2], counts, strict=True)]
    scores = np.where(present[0] | present[1], 0.0, np.nan)
    for c in np.flatnonzero(present[0] & present[1]):
        if counts[0][c] and counts[1][c]:
            precision, recall = (float(agreed[side][c]) / float(counts[side][c]) for side in (0, 1))
            scores[c] = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
        elif not counts[0][c] and not counts[1][c]:
            scores[c] = float(np.array_equal(pair.prediction == c, pair.target == c))
    return scores


def _present(labels: NDArray[Any], contour_counts: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which classes (K,) occur: those with a contour do, only the others are looked for."""
    present = contour_counts > 0
    for c in np.flatnonzero(~present):
        present[c] = (labels == c).any()
    return present
