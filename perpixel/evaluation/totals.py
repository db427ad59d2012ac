"""Sums over images, and what follows from them.

Shapes: N images, K classes, W trimap widths. Counts are int64, so their sums are the same in any order; what is not a
count is kept per image and averaged in the order of the data set.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from perpixel.errors import InvalidValue
from perpixel.evaluation.measures import ImageRecord, ImageScore, Measures
from perpixel.metrics.calibration import Calibration
from perpixel.metrics.cityscapes import CityscapesScores
from perpixel.metrics.conventions import ConventionScores
from perpixel.metrics.image_counts import image_counts, scores_of_counts
from perpixel.metrics.neuron_segmentation import NEURON_SCORES, NeuronSegmentation, neuron_values
from perpixel.metrics.region_sizes import DEFAULT_SIZE_THRESHOLDS
from perpixel.metrics.scores import Scores, scores

__all__ = ["Evaluation", "Totals", "UnreadFile"]

Counts: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True)
class _ImageRow:
    """What is kept per image, for intervals over images; a few hundred bytes, some thousand with all measures."""

    name: str
    counts: Counts
    bf_scores: NDArray[np.float64] | None
    boundary_iou: Counts | None
    trimaps: Counts | None
    region_sizes: Counts | None
    neurons: NDArray[np.float64] | None
    cityscapes: CityscapesScores | None

    @classmethod
    def of(cls, record: ImageRecord) -> _ImageRow:
        bands, sizes, neurons = record.trimaps, record.region_sizes, record.neurons
        return cls(
            name=record.name,
            counts=record.counts,
            bf_scores=record.bf_scores,
            boundary_iou=record.boundary_iou,
            trimaps=None if bands is None else np.array([image_counts(b[:, :-1], b[:, -1]) for b in bands]),
            region_sizes=None if sizes is None else sizes.sum(axis=0),
            neurons=None if neurons is None else neuron_values(neurons),
            cityscapes=record.cityscapes,
        )


class Totals:
    """The sums of image records.

    Args:
        num_classes: K.
        measures: What the records hold.
    """

    def __init__(self, num_classes: int, measures: Measures | None = None) -> None:
        self.num_classes = num_classes
        self.measures = Measures() if measures is None else measures
        self.confusion: Counts = np.zeros((num_classes, num_classes), dtype=np.int64)
        self.unpredicted: Counts = np.zeros(num_classes, dtype=np.int64)
        self.border_errors: Counts = np.zeros((num_classes, 4), dtype=np.int64)
        self.trimaps: Counts = np.zeros((len(self.measures.trimap_px), num_classes, num_classes + 1), dtype=np.int64)
        self.region_sizes: Counts = np.zeros((num_classes, len(DEFAULT_SIZE_THRESHOLDS) + 1, 3), dtype=np.int64)
        self.neurons = NeuronSegmentation()
        self.calibration = Calibration(num_classes) if self.measures.calibration else None
        self.conventions = ConventionScores(num_classes, names=self.measures.conventions)
        self.cityscapes = CityscapesScores()
        self._rows: dict[int, _ImageRow] = {}

    def add(self, record: ImageRecord) -> None:
        """Adds one image.

        Raises:
            InvalidValue: the image was added before, or its record has another number of classes.
        """
        if record.index in self._rows:
            raise InvalidValue(f"image {record.index} ({record.name}) was added before; each image counts once")
        if record.confusion.shape != self.confusion.shape:
            raise InvalidValue(f"{record.name}: {len(record.confusion)} classes added to {self.num_classes}")
        self.confusion += record.confusion
        self.unpredicted += record.unpredicted
        if record.border_errors is not None:
            self.border_errors += record.border_errors
        if record.trimaps is not None:
            self.trimaps += record.trimaps
        if record.region_sizes is not None:
            self.region_sizes += record.region_sizes
        if record.neurons is not None:
            self.neurons.add(record.neurons)
        if record.pairs is not None:
            self.conventions.add_counts(record.pairs)
        if record.cityscapes is not None:
            self.cityscapes.merge(record.cityscapes)
        self._rows[record.index] = _ImageRow.of(record)

    def merge(self, other: Totals) -> None:
        """Adds the images of another part of the same data set, as other ranks count them.

        Raises:
            InvalidValue: both hold the same image, or they measure different things.
        """
        if (self.num_classes, self.measures) != (other.num_classes, other.measures):
            raise InvalidValue("totals of other classes or measures cannot be added")
        if shared := sorted(self._rows.keys() & other._rows.keys()):
            raise InvalidValue(
                f"{len(shared)} images are in both parts, the first is number {shared[0]} "
                f"({self._rows[shared[0]].name}); each image counts once"
            )
        for name in ("confusion", "unpredicted", "border_errors", "trimaps", "region_sizes"):
            getattr(self, name).__iadd__(getattr(other, name))
        self.neurons.merge(other.neurons)
        if self.calibration is not None and other.calibration is not None:
            self.calibration.merge(other.calibration)
        self.conventions.merge(other.conventions)
        self.cityscapes.merge(other.cityscapes)
        self._rows |= other._rows

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the images in the order of the data set."""
        return tuple(row.name for row in self._ordered())

    @property
    def counts(self) -> Counts:
        """(N, K, 3) right, true and predicted pixels per image, in the order of the data set."""
        return np.array([row.counts for row in self._ordered()], dtype=np.int64).reshape(-1, self.num_classes, 3)

    @property
    def bf_scores(self) -> NDArray[np.float64]:
        """(N, K) BF scores per image; N = 0 where they were not measured."""
        rows = [row.bf_scores for row in self._ordered() if row.bf_scores is not None]
        return np.array(rows, dtype=np.float64).reshape(-1, self.num_classes)

    @property
    def boundary_iou(self) -> Counts:
        """(N, K, 2) shared and either-side boundary pixels per image; N = 0 where they were not measured."""
        rows = [row.boundary_iou for row in self._ordered() if row.boundary_iou is not None]
        return np.array(rows, dtype=np.int64).reshape(-1, self.num_classes, 2)

    @property
    def image_trimaps(self) -> Counts:
        """(N, W, K, 3) right, true and predicted pixels of each band; N = 0 where there are none."""
        rows = [row.trimaps for row in self._ordered() if row.trimaps is not None]
        return np.array(rows, dtype=np.int64).reshape(-1, len(self.trimaps), self.num_classes, 3)

    @property
    def image_region_sizes(self) -> Counts:
        """(N, S, 3) regions, pixels and recalled pixels by size, of all classes; N = 0 where they were not measured."""
        rows = [row.region_sizes for row in self._ordered() if row.region_sizes is not None]
        return np.array(rows, dtype=np.int64).reshape(-1, *self.region_sizes.shape[1:])

    @property
    def image_neurons(self) -> NDArray[np.float64]:
        """(N, 6) the scores of `NEURON_SCORES`; N = 0 where they were not measured."""
        rows = [row.neurons for row in self._ordered() if row.neurons is not None]
        return np.array(rows, dtype=np.float64).reshape(-1, len(NEURON_SCORES))

    @property
    def image_cityscapes(self) -> tuple[CityscapesScores, ...]:
        """Cityscapes' sums of each image; empty where they were not measured."""
        return tuple(row.cityscapes for row in self._ordered() if row.cityscapes is not None)

    def _ordered(self) -> Iterable[_ImageRow]:
        return (self._rows[index] for index in sorted(self._rows))


@dataclass(frozen=True, kw_only=True)
class UnreadFile:
    """A file that could not be read."""

    file: str
    reason: str
    counts_as_wrong: bool = False
    """Whether its image is scored, wrong in every valid pixel (``missing="wrong"``), and not left out."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The totals of a whole data set, and how they came about."""

    totals: Totals
    seconds: float
    counts_unpredicted: bool = False
    """Whether valid pixels may lack a predicted class (saved masks with ``missing="wrong"``)."""
    unread: tuple[UnreadFile, ...] = ()
    """Files that are damaged."""
    refused: str | None = None
    """Why the masks have no scores, although other toolkits' conventions could be counted."""
    notes: tuple[str, ...] = ()
    """What was noticed or passed over, one sentence each."""

    @property
    def confusion(self) -> Counts:
        """(K, K), rows true and columns predicted class."""
        return self.totals.confusion

    @property
    def border_errors(self) -> Counts | None:
        """(K, 4): wrong near a true border, wrong inside, valid near, valid inside; None when not asked for."""
        return None if self.border_width_px is None else self.totals.border_errors

    @property
    def border_width_px(self) -> float | None:
        """Width of the band around true borders, pixels."""
        return self.totals.measures.border_width_px

    @property
    def unpredicted(self) -> Counts | None:
        """(K,) valid pixels that no class was predicted for, wrong predictions all; None where not asked for."""
        return self.totals.unpredicted if self.counts_unpredicted else None

    @cached_property
    def images(self) -> tuple[ImageScore, ...]:
        """Scores of each image, in the order of the data set."""
        counts = self.totals.counts
        values = scores_of_counts(counts)
        columns = (values["mean_iou"].tolist(), values["pixel_accuracy"].tolist(), counts[..., 1].sum(axis=1).tolist())
        return tuple(
            ImageScore(name=name, mean_iou=mean, pixel_accuracy=accuracy, pixels=pixels)
            for name, mean, accuracy, pixels in zip(self.totals.names, *columns, strict=True)
        )

    def scores(self, names: Sequence[str] | None = None) -> Scores:
        """Returns the scores of the data set, with the number of images."""
        result = scores(self.confusion, names, unpredicted=self.unpredicted)
        result["images"] = len(self.totals)
        return result
