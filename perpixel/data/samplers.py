"""In which order samples are drawn: one endless list of places that depends on the seed alone.

The list is cut into epochs of N draws, N the number of samples. Without weights an epoch is a permutation of all
samples. With repeat factors r_i a sample is drawn N r_i / sum(r) times on average: its number of draws in one epoch is
that, rounded up or down by systematic sampling, so that no epoch strays further than one draw.

Shapes: N samples, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from perpixel.errors import InvalidValue

__all__ = ["Draw", "SampleOrder", "repeat_factors"]


@dataclass(frozen=True, slots=True)
class Draw:
    """One entry of the list."""

    epoch: int
    index: int
    """Of the sample."""
    occurrence: int
    """How often the sample has come in this epoch before; 0 but for oversampled ones."""


class SampleOrder:
    """The list of draws; equal orders give equal lists, whoever asks and wherever they begin.

    Args:
        count: N, at least 1.
        seed: Decides the list, >= 0.
        factors: How often each sample comes in relation to others, positive; None: all alike.

    Raises:
        InvalidValue: a number is out of range, or there is not one factor per sample.
    """

    def __init__(self, count: int, seed: int, factors: tuple[float, ...] | None = None) -> None:
        if count < 1 or seed < 0:
            raise InvalidValue(f"an order has at least one sample and a seed >= 0, got {count} and {seed}")
        if factors is not None and (len(factors) != count or not all(0 < f < np.inf for f in factors)):
            raise InvalidValue(f"factors are {count} positive numbers, one per sample, got {len(factors)} or a bad one")
        self.count = count
        self.seed = seed
        self.factors = None if factors is None or min(factors) == max(factors) else factors

    def __getitem__(self, position: int) -> Draw:
        """Returns the draw at a place of the list, >= 0."""
        epoch, place = divmod(position, self.count)
        if self.factors is None:
            return Draw(epoch, int(_permutation(self.seed, epoch, self.count)[place]), 0)
        indices, occurrences = _weighted(self.seed, epoch, self.factors)
        return Draw(epoch, int(indices[place]), int(occurrences[place]))


def repeat_factors(class_presence: NDArray[np.bool_], threshold: float) -> tuple[float, ...]:
    """Says how often images come so that rare classes are seen more often (LVIS, arXiv:1908.03195).

    With f the share of images that hold a class, the class asks for max(1, sqrt(threshold / f)), and an image comes as
    often as its most demanding class asks.

    Args:
        class_presence: (N, K), whether an image holds a class.
        threshold: Share of images below which a class is rare, in (0, 1].

    Raises:
        InvalidValue: the threshold or the shape is wrong.
    """
    if not 0 < threshold <= 1:
        raise InvalidValue(f"a class is rare below a share of the images in (0, 1], got {threshold}")
    if class_presence.ndim != 2 or not len(class_presence):
        raise InvalidValue(f"class_presence is (images, classes), got {class_presence.shape}")
    share = class_presence.mean(axis=0)
    asked = np.sqrt(threshold / np.maximum(share, 1 / len(class_presence))).clip(min=1)
    return tuple(np.where(class_presence, asked, 1.0).max(axis=1, initial=1.0).tolist())


@lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    return _generator(seed, epoch).permutation(count)


@lru_cache(maxsize=4)
def _weighted(seed: int, epoch: int, factors: tuple[float, ...]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns N indices in the order of the epoch, and how often each came before."""
    random = _generator(seed, epoch)
    count = len(factors)
    line = random.permutation(count)  # so that it is not always the same samples that are rounded up
    ends = np.cumsum(np.array(factors)[line])
    points = (np.arange(count) + random.random()) * (ends[-1] / count)
    hit = np.minimum(np.searchsorted(ends, points, side="right"), count - 1)  # rises along the line
    occurrence = np.arange(count) - np.searchsorted(hit, hit, side="left")
    order = random.permutation(count)
    return line[hit][order], occurrence[order]


def _generator(seed: int, epoch: int) -> np.random.Generator:
    # The spawn key (epoch,) cannot meet a sample's (epoch, index): keys of different length give different streams.
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(epoch,))))
