"""Searches the numbers of a dense CRF on images that the network has scored once.

DeepLab chose them by cross-validation on 100 validation images: the spatial kernel stays at weight 3 and 3 pixels,
weight, position and colour width of the bilateral one are searched (Chen et al., arXiv:1412.7062, section 5.2, and
arXiv:1606.00915, section 4.1). Numbers that were chosen on some images flatter themselves there, so the gain is to be
measured on others: see `count_pixels`.

Shapes: N images, K classes, C image channels, H W image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perpixel.errors import DataError, InvalidValue, RunError
from perpixel.evaluation.evaluate import SampleSource
from perpixel.inference.dense_crf import DenseCRF
from perpixel.inference.score_map import ScoreMap
from perpixel.inference.segmenter import Segmenter, refined_scores
from perpixel.metrics.confusion import confusion_matrix
from perpixel.metrics.image_counts import image_counts, scores_of_counts

__all__ = ["CRFGrid", "CRFSearch", "CRFTrial", "StoredScores", "count_pixels", "mean_iou", "search_dense_crf"]

SearchMethod = Literal["coordinate", "grid"]
Numbers: TypeAlias = tuple[float, float, float]
Counts: TypeAlias = NDArray[np.int64]

_SPATIAL = 3.0
_FIELDS = ("bilateral_weight", "bilateral_width", "color_width")


@dataclass(frozen=True, kw_only=True)
class CRFGrid:
    """Values of the bilateral kernel that are tried: DeepLab v1's ranges, and weights down to those it published.

    Raises:
        InvalidValue: a list is empty, or holds a number that is not positive.
    """

    bilateral_weight: tuple[float, ...] = (3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0)
    bilateral_width: tuple[float, ...] = (50.0, 60.0, 70.0, 80.0, 90.0, 100.0)
    """Pixels."""
    color_width: tuple[float, ...] = (3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0)
    """Colours of 0 to 255."""

    def __post_init__(self) -> None:
        for name in _FIELDS:
            values = getattr(self, name)
            if not values or not all(np.isfinite(value) and value > 0 for value in values):
                raise InvalidValue(f"{name} lists positive numbers to try, got {values!r}")


@dataclass(frozen=True, kw_only=True)
class CRFTrial:
    """What one set of numbers scores on the images of the search."""

    crf: DenseCRF
    mean_iou: float


@dataclass(frozen=True, kw_only=True)
class CRFSearch:
    """The best numbers of a search and how they were found."""

    best: CRFTrial
    start: CRFTrial
    trials: tuple[CRFTrial, ...]
    """All sets that were tried, in order."""
    counts: Counts
    """(N, K, 3) right, true and predicted pixels of the images with the best numbers."""


class StoredScores:
    """Scores of images on disk, at the resolution they came in, with image and target: one read costs no network.

    Args:
        folder: Where they are kept, one file per image; belongs to this object alone.
        num_classes: K.
        device: Where scores are brought when they are read.
    """

    def __init__(self, folder: str | Path, *, num_classes: int, device: torch.device) -> None:
        self.folder = Path(folder)
        self.num_classes = num_classes
        self.device = device
        self._heads: list[tuple[str, ScoreMap]] = []

    @classmethod
    def of(
        cls,
        segmenter: Segmenter,
        dataset: SampleSource,
        indices: Iterable[int],
        folder: str | Path,
        *,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> StoredScores:
        """Scores images of a data set, once each, before any CRF of the segmenter.

        Raises:
            DataError: an image has no target.
            RunError: the folder cannot be written.
        """
        stored = cls(folder, num_classes=segmenter.labels.num_classes, device=segmenter.device)
        chosen = list(indices)
        for done, index in enumerate(chosen, start=1):
            sample = dataset[index]
            if sample.target is None:
                raise DataError(f"{sample.name}: the image has no mask, so no numbers can be chosen by it")
            stored.add(sample.name, sample.image, sample.target, segmenter.unrefined_scores(sample.image[None]))
            if on_progress is not None:
                on_progress(done, len(chosen))
        return stored

    def __len__(self) -> int:
        return len(self._heads)

    def add(self, name: str, image: Tensor, target: Tensor, scores: ScoreMap) -> None:
        """Keeps one image (C, H, W), its target (H, W) and its scores, a batch of one.

        Raises:
            RunError: the folder cannot be written.
        """
        logits = scores.logits.cpu().numpy()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            np.savez(self._file(len(self)), logits=logits, image=image.cpu().numpy(), target=target.cpu().numpy())
        except OSError as error:
            raise RunError(f"{self.folder}: scores cannot be kept: {error}. Check the free space.") from error
        self._heads.append((name, replace(scores, logits=torch.empty(0))))

    def __iter__(self) -> Iterator[tuple[str, Tensor, NDArray[Any], ScoreMap]]:
        """Yields name, image (1, C, H, W), target (H, W) and scores of every image, in order."""
        for index, (name, head) in enumerate(self._heads):
            with np.load(self._file(index)) as arrays:
                image = torch.from_numpy(arrays["image"])[None].to(self.device)
                scores = replace(head, logits=torch.from_numpy(arrays["logits"]).to(self.device))
                yield name, image, arrays["target"], scores

    def _file(self, index: int) -> Path:
        return self.folder / f"{index:06}.npz"


def count_pixels(
    stored: StoredScores, crf: DenseCRF | None, *, on_image: Callable[[], None] | None = None
) -> NDArray[np.int64]:
    """Returns right, true and predicted pixels (N, K, 3) of every image, refined by a CRF or as the network scored it.

    Raises:
        InvalidValue: a target holds labels that the network does not know.
    """
    rows = []
    for name, image, target, scores in stored:
        final = scores if crf is None else refined_scores(scores, image, crf)
        prediction = final.classes()[0].cpu().numpy()
        try:
            rows.append(image_counts(confusion_matrix(prediction, target, stored.num_classes)))
        except InvalidValue as error:
            raise InvalidValue(f"{name}: {error}") from error
        if on_image is not None:
            on_image()
    return np.stack(rows)


def mean_iou(counts: Counts) -> float:
    """Returns the mean IoU of the data set whose counts (N, K, 3) these are, NaN where no pixel is valid."""
    return float(scores_of_counts(counts.sum(axis=0))["mean_iou"])


def search_dense_crf(
    stored: StoredScores,
    start: DenseCRF | None = None,
    grid: CRFGrid | None = None,
    *,
    method: SearchMethod = "coordinate",
    rounds: int = 3,
    on_progress: Callable[[int, int], None] | None = None,
) -> CRFSearch:
    """Looks for the bilateral kernel that gives the highest mean IoU over the images together.

    ``"coordinate"`` varies one number at a time, weight, position width, colour width, keeps the best, and goes round
    until a round changes nothing; ``"grid"`` tries every combination. Of equal sets the first tried is kept.

    Args:
        stored: Images with their scores, at least one.
        start: Where to begin; updates and normalisation are kept, the spatial kernel becomes 3 and 3 pixels. None is
            DeepLab v2's for ResNet-101.
        grid: Values to try; None takes `CRFGrid`'s defaults.
        method: ``"coordinate"`` or ``"grid"``.
        rounds: Most rounds of the coordinate search, at least 1.
        on_progress: Called after each image of each trial with the images refined and the images planned so far; the
            coordinate search plans round by round.

    Raises:
        InvalidValue: there is nothing to search on, the start has weights per class, or an argument is out of range.
    """
    start = DenseCRF() if start is None else start
    if method not in get_args(SearchMethod):
        raise InvalidValue(f"method is one of {', '.join(get_args(SearchMethod))}, got {method!r}")
    if rounds < 1:
        raise InvalidValue(f"rounds must be at least 1, got {rounds}")
    if not len(stored):
        raise InvalidValue("there are no images to search on; store the scores of some first")
    if isinstance(start.bilateral_weight, tuple):
        raise InvalidValue("the search varies one weight for all classes, the start has one per class; begin elsewhere")
    begin = (float(start.bilateral_weight), float(start.bilateral_width), float(start.color_width))
    trials = _Trials(stored, replace(start, spatial_weight=_SPATIAL, spatial_width=_SPATIAL), on_progress)
    axes = [tuple(getattr(grid or CRFGrid(), name)) for name in _FIELDS]
    first = trials.best_of([begin], begin)
    if method == "grid":
        best = trials.best_of([(w, p, c) for w, p, c in product(*axes)], first)
    else:
        best = _by_coordinates(trials, axes, first, rounds)
    return CRFSearch(
        best=trials.tried[best], start=trials.tried[begin], trials=tuple(trials.tried.values()), counts=trials.counts
    )


def _by_coordinates(trials: _Trials, axes: list[tuple[float, ...]], best: Numbers, rounds: int) -> Numbers:
    for _ in range(rounds):
        before = best
        for axis, values in enumerate(axes):
            candidates = [_with(best, axis, value) for value in values]
            best = trials.best_of(candidates, best, planned_later=sum(len(later) for later in axes[axis + 1 :]))
        if best == before:
            break
    return best


def _with(numbers: Numbers, axis: int, value: float) -> Numbers:
    weight, position, color = (value if index == axis else number for index, number in enumerate(numbers))
    return weight, position, color


class _Trials:
    """Scores sets of numbers, each once, and remembers the counts of the best."""

    def __init__(self, stored: StoredScores, base: DenseCRF, on_progress: Callable[[int, int], None] | None) -> None:
        self.stored = stored
        self.base = base
        self.on_progress = on_progress
        self.tried: dict[Numbers, CRFTrial] = {}
        self.counts: Counts = np.zeros((len(stored), stored.num_classes, 3), dtype=np.int64)
        self.refined = 0

    def best_of(self, candidates: list[Numbers], best: Numbers, *, planned_later: int = 0) -> Numbers:
        """Returns the best of ``best`` and the candidates; it takes a higher score to replace it."""
        new = [numbers for numbers in dict.fromkeys(candidates) if numbers not in self.tried]
        planned = self.refined + (len(new) + planned_later) * len(self.stored)
        for numbers in new:
            weight, position, color = numbers
            crf = replace(self.base, bilateral_weight=weight, bilateral_width=position, color_width=color)
            counts = count_pixels(self.stored, crf, on_image=lambda: self._progress(planned))
            score = mean_iou(counts)
            self.tried[numbers] = CRFTrial(crf=crf, mean_iou=score)
            if numbers == best or score > self.tried[best].mean_iou:
                best, self.counts = numbers, counts
        return best

    def _progress(self, planned: int) -> None:
        self.refined += 1
        if self.on_progress is not None:
            self.on_progress(self.refined, planned)
