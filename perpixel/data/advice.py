"""What the counts of a data set suggest for training on it: loss, class weights, crop size, sampler, and why.

The rules are stated as numbers below, so that an advice can be followed back to what was counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perpixel.data.formats.item import listed
from perpixel.data.summary import SplitSummary
from perpixel.errors import DataError, InvalidValue
from perpixel.labels import LabelSpace

__all__ = ["Advice", "advise", "overrides_of"]

BALANCED_BELOW = 10.0
"""Ratio of the most frequent class's pixels to the rarest's from which weights are advised."""
RARE_SHARE = 0.01
"""A class with less of the pixels is rare; so is one that fewer than `RARE_IMAGES` of the images hold."""
RARE_IMAGES = 0.1
SMALL_FOREGROUND = 0.02
"""Share of the smaller of two classes below which an overlap loss is advised beside cross-entropy."""
UNIT = 32
"""Crops are multiples of the coarsest stride of the usual backbones."""


@dataclass(frozen=True, kw_only=True)
class Advice:
    """One choice for training, with what speaks for it."""

    what: str
    choice: str
    reason: str
    overrides: tuple[str, ...] = ()
    """``section.key=value`` for `perpixel train`; empty where the default does it."""


def advise(summary: SplitSummary, labels: LabelSpace, *, longest_crop: int = 512) -> tuple[Advice, ...]:
    """Proposes loss, class weights, crop size and sampler for a training split.

    Args:
        summary: Counts of the training split.
        labels: Names the classes.
        longest_crop: Largest side of a training window that the machine is to work on, pixels, at least 32.

    Raises:
        InvalidValue: ``longest_crop`` is below 32.
        DataError: every pixel is ignored.
    """
    if longest_crop < UNIT:
        raise InvalidValue(f"longest_crop is at least {UNIT} pixels, got {longest_crop}")
    pixels = np.array(summary.pixels_per_class, dtype=np.float64)
    if not pixels.any():
        raise DataError("nothing can be advised: every pixel of this split is ignored")
    shares = pixels / pixels.sum()
    return (
        _loss(shares, labels),
        _weights(shares, labels),
        _crop(summary, longest_crop),
        _sampler(summary, shares, labels),
    )


def _loss(shares: NDArray[np.float64], labels: LabelSpace) -> Advice:
    smaller = int(np.argmin(shares))
    if len(shares) == 2 and 0 < shares[smaller] < SMALL_FOREGROUND:
        terms = "[{name: pixels, output: logits, loss: cross_entropy}, {name: overlap, output: logits, loss: dice}]"
        return Advice(
            what="loss",
            choice="cross-entropy and Dice",
            reason=f"{labels.names[smaller]} has {_percent(shares[smaller])} of the pixels, so cross-entropy alone is "
            "nearly as low without it; Dice counts overlap and does not see how large the rest is (Milletari et "
            "al. 2016, arXiv:1606.04797)",
            overrides=(f"terms={terms}",),
        )
    return Advice(
        what="loss",
        choice="the network's own, cross-entropy",
        reason="what the network was published with; imbalance is met by weights and windows below",
    )


def _weights(shares: NDArray[np.float64], labels: LabelSpace) -> Advice:
    present = np.flatnonzero(shares)
    most, least = int(np.argmax(shares)), int(present[np.argmin(shares[present])])
    ratio = shares[most] / shares[least]
    counted = (
        f"{labels.names[most]} has {_percent(shares[most])} of the pixels and {labels.names[least]} "
        f"{_percent(shares[least])}, {ratio:.0f} times less"
    )
    if ratio < BALANCED_BELOW:
        return Advice(what="class weights", choice="none", reason=f"{counted}: no class drowns in the others")
    return Advice(
        what="class weights",
        choice="sqrt_median_frequency",
        reason=f"{counted}; the full median frequency would weigh one pixel {ratio:.0f} times another, its root "
        f"{ratio**0.5:.0f} times, which keeps frequent classes precise",
        overrides=("class_weights=sqrt_median_frequency",),
    )


def _crop(summary: SplitSummary, longest: int) -> Advice:
    sizes = [size for size, images in summary.sizes.items() for _ in range(images)]
    height, width = (int(np.median([size[side] for size in sizes])) for side in (0, 1))
    crop = tuple(max(UNIT, min(longest, side) // UNIT * UNIT) for side in (height, width))
    share = crop[0] * crop[1] / (height * width)
    if share >= 1 or (crop[0] > height - UNIT and crop[1] > width - UNIT):
        reason = f"the whole image, down to a multiple of {UNIT} (median {height} x {width})"
    else:
        reason = f"{_percent(share)} of the median image of {height} x {width}; at most {longest} on a side here"
    return Advice(
        what="crop size",
        choice=f"{crop[0]} x {crop[1]}",
        reason=reason,
        overrides=(f"data.crop_size=[{crop[0]}, {crop[1]}]",),
    )


def _sampler(summary: SplitSummary, shares: NDArray[np.float64], labels: LabelSpace) -> Advice:
    labelled = max(1, summary.images - summary.unlabelled)
    images = np.array(summary.images_per_class) / labelled
    rare = np.flatnonzero((shares > 0) & ((shares < RARE_SHARE) | (images < RARE_IMAGES)))
    if not rare.size or len(shares) < 2:
        return Advice(
            what="sampler",
            choice="uniform",
            reason=f"every class has at least {_percent(RARE_SHARE)} of the pixels and is in at least "
            f"{_percent(RARE_IMAGES)} of the images",
        )
    named = [f"{labels.names[k]} ({_percent(shares[k])}, {_percent(images[k])} of the images)" for k in rare]
    return Advice(
        what="sampler",
        choice="half of the windows around a class drawn uniformly",
        reason=f"rare: {listed(named, 4)}; a window drawn anywhere seldom shows them",
        overrides=("data.class_crop=0.5",),
    )


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"


def overrides_of(advice: Sequence[Advice]) -> tuple[str, ...]:
    """Joins the overrides of all advice, in order."""
    return tuple(token for entry in advice for token in entry.overrides)
