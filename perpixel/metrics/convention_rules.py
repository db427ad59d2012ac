"""How each toolkit turns labels into areas per class, and areas into a mean IoU: the rules behind `conventions`.

Shapes: K classes, N distinct pairs of labels in an image.
A reader takes the `JointCounts` of one image and gives its areas (3, K): right, true and predicted pixels per class, or
raises `Refused` as the toolkit would raise. A mean takes the `Totals` of all images. Counts are exact here (int64,
float64), also where a toolkit sums float32, whose counts are exact up to 2^24 pixels only.
The ignored label reaches a toolkit the way its users hand it over: as its own ignore option where it has one (mmseg,
semseg, PaddleSeg, SMP, torchmetrics' Jaccard index, nnU-Net), as a label outside the classes that is dropped where it
has none (TorchSeg, torchvision, Ultralytics), as -1 (PyTorch-Encoding), and as it is where nothing takes it away
(torchmetrics' MeanIoU, MONAI). What a label outside 0..K-1 does, in truth or prediction, stands at each reader.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perpixel.errors import InvalidValue
from perpixel.metrics.pair_counts import BYTE_VALUES, pair_counts
from perpixel.metrics.tensors import Tensor, host_labels

__all__ = [
    "Areas",
    "JointCounts",
    "Mean",
    "Reader",
    "Refused",
    "Totals",
    "joint_counts",
    "mean_foreground",
    "mean_jaccard",
    "mean_monai",
    "mean_of_all",
    "mean_of_pairs",
    "mean_of_pairs_and_absent",
    "mean_of_seen",
    "mean_of_true",
    "micro",
    "read_encoding",
    "read_folding",
    "read_histograms",
    "read_jaccard",
    "read_mmseg",
    "read_one_hot",
    "read_paddleseg",
    "read_perpixel",
    "read_semseg",
    "read_smp",
    "read_ultralytics",
]

_NAMED = 8

Counts = NDArray[np.int64]
Areas = NDArray[np.int64]
"""(3, K): right, true and predicted pixels per class."""


class Refused(Exception):
    """The toolkit raises on these labels; the text says what and why."""


@dataclass(frozen=True)
class JointCounts:
    """How many pixels of one image have each pair of labels: three arrays (N,), int64, of raw labels of any value."""

    truth: Counts
    prediction: Counts
    pixels: Counts

    def where(self, chosen: NDArray[np.bool_]) -> JointCounts:
        """Returns the pairs that ``chosen`` (N,) selects."""
        return JointCounts(self.truth[chosen], self.prediction[chosen], self.pixels[chosen])

    def without(self, label: int) -> JointCounts:
        """Returns the pairs whose truth is not ``label``."""
        return self.where(self.truth != label)


def joint_counts(prediction: NDArray[Any] | Tensor, target: NDArray[Any] | Tensor) -> JointCounts:
    """Counts the pairs of labels of one image, whatever their values.

    Args:
        prediction: Predicted labels, integers of any width and value.
        target: True labels of the same shape.

    Raises:
        InvalidValue: the shapes differ, or the values are not integers.
    """
    guess, truth = host_labels(prediction, "prediction"), host_labels(target, "target")
    if guess.shape != truth.shape:
        raise InvalidValue(
            f"prediction has shape {guess.shape}, target {truth.shape}; resize the class scores to the target's size"
        )
    table = pair_counts(guess, truth)
    if table is not None:
        found = np.flatnonzero(table)
        return JointCounts(found // BYTE_VALUES, found % BYTE_VALUES, table.reshape(-1)[found])
    truths, truth_at = np.unique(truth.reshape(-1).astype(np.int64), return_inverse=True)
    guesses, guess_at = np.unique(guess.reshape(-1).astype(np.int64), return_inverse=True)
    found, pixels = np.unique(truth_at * guesses.size + guess_at, return_counts=True)
    return JointCounts(truths[found // guesses.size], guesses[found % guesses.size], pixels.astype(np.int64))


@dataclass
class Totals:
    """What is kept of all images: sums that add up over images, workers and ranks."""

    num_classes: int
    ignore_index: int = 255
    images: int = 0
    areas: Areas = field(init=False)
    """(3, K), summed over images."""
    iou_sum: NDArray[np.float64] = field(init=False)
    """(K,): sum over images of the class's IoU in that image, 0 where it has none."""
    with_union: Counts = field(init=False)
    """(K,): images in which truth or prediction holds the class."""
    with_truth: Counts = field(init=False)
    """(K,): images in which the truth holds the class."""

    def __post_init__(self) -> None:
        self.areas = np.zeros((3, self.num_classes), dtype=np.int64)
        self.iou_sum = np.zeros(self.num_classes)
        self.with_union = np.zeros(self.num_classes, dtype=np.int64)
        self.with_truth = np.zeros(self.num_classes, dtype=np.int64)

    def add(self, areas: Areas) -> None:
        """Adds the areas (3, K) of one image."""
        union = _union(areas)
        self.images += 1
        self.areas += areas
        self.iou_sum += _divide(areas[0], union, absent=0.0)
        self.with_union += union > 0
        self.with_truth += areas[1] > 0

    def merge(self, other: Totals) -> None:
        """Adds the totals of other images."""
        self.images += other.images
        self.areas += other.areas
        self.iou_sum += other.iou_sum
        self.with_union += other.with_union
        self.with_truth += other.with_truth


Reader = Callable[[JointCounts, int, int], Areas]
"""(counts, num_classes, ignore_index) -> areas of one image, or raises Refused."""
Mean = Callable[[Totals], float]
"""totals -> the printed number as a fraction."""


def read_perpixel(counts: JointCounts, num_classes: int, ignore_index: int) -> Areas:
    """Refuses a label outside the classes on a valid pixel, in the truth and in the prediction."""
    valid = counts.without(ignore_index)
    for name, labels in (("target", valid.truth), ("prediction", valid.prediction)):
        if _outside(labels, num_classes):
            raise Refused(f"InvalidValue: {name} holds {_outside(labels, num_classes)} on valid pixels")
    return _areas(valid, num_classes)


def read_histograms(counts: JointCounts, num_classes: int, ignore_index: int) -> Areas:
    """Three separate histograms over the valid pixels, each without the labels outside the classes.

    A valid pixel whose truth is outside counts against the class predicted there; one whose prediction is outside
    counts against its true class. nnU-Net's masks per label do the same.
    """
    return _areas(counts.without(ignore_index), num_classes)


def read_mmseg(counts: JointCounts, num_classes: int, ignore_index: int) -> Areas:
    """Histograms by torch.histc; with one class its range is empty and every label falls into the only bin."""
    valid = counts.without(ignore_index)
    if num_classes > 1:
        return _areas(valid, num_classes)
    right, total = valid.pixels[valid.truth == valid.prediction].sum(), valid.pixels.sum()
    return np.array([[right], [total], [total]], dtype=np.int64)


def read_smp(counts: JointCounts, num_classes: int, ignore_index: int) -> Areas:
    """As mmseg, but ignored pixels become label -1 on both sides, which the single bin of one class counts as right."""
    if 0 <= ignore_index < num_classes:
        raise Refused(f"ValueError: ignore_index {ignore_index} must lie outside the classes 0..{num_classes - 1}")
    if num_classes > 1:
        return _areas(counts.without(ignore_index), num_classes)
    return np.full((3, 1), counts.pixels.sum(), dtype=np.int64)


def read_semseg(counts: JointCounts, num_classes: int, ignore_index: int) -> Areas:
    """NumPy histograms with the edges 0, 1, …, K, whose last bin is closed: label K is counted as class K-1.

    Ignored pixels are set to the ignored label on both sides, so that they are right if that label is K.
    """
    guess = np.where(counts.truth == ignore_index, ignore_index, counts.prediction)
    right = counts.truth == guess
    truth, guess = (np.where(labels == num_classes, num_classes - 1, labels) for labels in (counts.truth, guess))
    chosen = [(truth[right], counts.pixels[right]), (truth, counts.pixels), (guess, counts.pixels)]
    return np.stack([_histogram(labels, pixels, num_classes) for labels, pixels in chosen])


def read_encoding(counts: JointCounts, num_classes: int, ignore_index: int) -> Areas:
    """Histograms over the pixels whose truth is not negative; its loaders give -1 where the label is ignored."""
    valid = counts.without(ignore_index)
    return _areas(valid.where(valid.truth >= 0), num_classes)


def read_paddleseg(counts: JointCounts, num_classes: int, ignore_index: int) -> Areas:
    """Masks per class; the ignored label hides predictions only, so inside the classes it is never found."""
    areas = _areas(counts.without(ignore_index), num_classes)
    areas[1] = _histogram(counts.truth, counts.pixels, num_classes)
    return areas


def read_folding(counts: JointCounts, num_classes: int, ignore_index: int) -> Areas:
    """One bincount of K * truth + prediction over the pixels whose truth is a class (TorchSeg, torchvision).

    A truth outside the classes is dropped. A prediction outside is not looked for: K on truth i is counted as class 0
    on truth i + 1, and only what leaves the table altogether raises.
    """
    valid = counts.without(ignore_index)
    return _folded(valid.where((valid.truth >= 0) & (valid.truth < num_classes)), num_classes)


def read_ultralytics(counts: JointCounts, num_classes: int, ignore_index: int) -> Areas:
    """Pixels with a truth or a prediction outside the classes are dropped; one class means label 1 against label 0."""
    labels = max(num_classes, 2)
    valid = counts.without(ignore_index)
    inside = [(side >= 0) & (side < labels) for side in (valid.truth, valid.prediction)]
    return _areas(valid.where(inside[0] & inside[1]), labels)[:, labels - num_classes :]


def read_jaccard(counts: JointCounts, num_classes: int, ignore_index: int) -> Areas:
    """Checks how many distinct labels there are, not which; then one bincount, as TorchSeg's, over all valid pixels."""
    if num_classes < 2:
        raise Refused(f"ValueError: num_classes must be at least 2, got {num_classes}")
    for name, labels in (("target", counts.truth), ("preds", counts.prediction)):
        distinct = np.unique(labels).size
        if distinct > num_classes + 1:
            raise Refused(f"RuntimeError: {distinct} distinct labels in {name}, at most {num_classes + 1} may be there")
    return _folded(counts.without(ignore_index), num_classes)


def read_one_hot(counts: JointCounts, num_classes: int, ignore_index: int) -> Areas:
    """One-hot maps of all pixels: any label outside the classes raises, the ignored one too."""
    for name, labels in (("target", counts.truth), ("prediction", counts.prediction)):
        if _outside(labels, num_classes):
            reason = " (there is no ignored label)" if ignore_index in labels else ""
            raise Refused(f"RuntimeError: one-hot of {name} with {_outside(labels, num_classes)}{reason}")
    return _areas(counts, num_classes)


def mean_of_seen(totals: Totals) -> float:
    """Classes in truth or prediction."""
    return _mean(_pooled(totals, absent=math.nan))


def mean_of_all(totals: Totals, *, absent: float, epsilon: float = 0.0) -> float:
    """All K classes, those in neither side with a fixed IoU; NaN makes the mean NaN."""
    return float(np.mean(_divide(totals.areas[0], _union(totals.areas) + epsilon, absent=absent)))


def mean_of_true(totals: Totals) -> float:
    """Classes in the truth; 0 when there is none."""
    true = totals.areas[1] > 0
    return _mean(_pooled(totals, absent=0.0)[true]) if true.any() else 0.0


def mean_jaccard(totals: Totals) -> float:
    """Classes in truth or prediction, the ignored one left out even where it is predicted."""
    iou, ignored = _pooled(totals, absent=math.nan), totals.ignore_index
    return _mean(np.delete(iou, ignored) if 0 <= ignored < iou.size else iou)


def micro(totals: Totals) -> float:
    """One ratio of pixels summed over classes."""
    union = int(_union(totals.areas).sum())
    return int(totals.areas[0].sum()) / union if union else math.nan


def mean_of_pairs_and_absent(totals: Totals) -> float:
    """All pairs of image and class; 1 where the image has the class on neither side."""
    sums = totals.iou_sum + (totals.images - totals.with_union)
    return float(sums.sum() / (totals.images * totals.num_classes))


def mean_of_pairs(totals: Totals) -> float:
    """Pairs of image and class that truth or prediction holds."""
    pairs = int(totals.with_union.sum())
    return float(totals.iou_sum.sum() / pairs) if pairs else math.nan


def mean_monai(totals: Totals) -> float:
    """Per class the mean over images whose truth holds it, 0 where none does; then the mean of all K."""
    return float(_divide(totals.iou_sum, totals.with_truth, absent=0.0).mean())


def mean_foreground(totals: Totals) -> float:
    """Per class but 0 the mean over images with the class on either side; then the mean of the classes seen."""
    return _mean(_divide(totals.iou_sum, totals.with_union, absent=math.nan)[1:])


def _areas(counts: JointCounts, num_classes: int) -> Areas:
    right = counts.truth == counts.prediction
    chosen = [(counts.truth[right], counts.pixels[right]), (counts.truth, counts.pixels)]
    chosen.append((counts.prediction, counts.pixels))
    return np.stack([_histogram(labels, pixels, num_classes) for labels, pixels in chosen])


def _histogram(labels: Counts, pixels: Counts, num_classes: int) -> Counts:
    result = np.zeros(num_classes, dtype=np.int64)
    inside = (labels >= 0) & (labels < num_classes)
    np.add.at(result, labels[inside], pixels[inside])
    return result


def _folded(counts: JointCounts, num_classes: int) -> Areas:
    cells = counts.truth * num_classes + counts.prediction
    outside = (cells < 0) | (cells >= num_classes * num_classes)
    if outside.any():
        truth, guess = int(counts.truth[outside][0]), int(counts.prediction[outside][0])
        raise Refused(
            f"reshape or bincount raises: truth {truth} with prediction {guess} "
            f"leaves the table of {num_classes} × {num_classes} classes"
        )
    table = _histogram(cells, counts.pixels, num_classes * num_classes).reshape(num_classes, num_classes)
    return np.stack([np.diag(table), table.sum(axis=1), table.sum(axis=0)])


def _outside(labels: Counts, num_classes: int) -> str:
    """Lists the labels outside the classes; empty when there are none."""
    values = np.unique(labels[(labels < 0) | (labels >= num_classes)])
    listed = ", ".join(str(int(v)) for v in values[:_NAMED]) + (", …" if values.size > _NAMED else "")
    return f"label {listed} (classes are 0..{num_classes - 1})" if values.size else ""


def _union(areas: Areas) -> Counts:
    union: Counts = areas[1] + areas[2] - areas[0]
    return union


def _pooled(totals: Totals, *, absent: float) -> NDArray[np.float64]:
    return _divide(totals.areas[0], _union(totals.areas), absent=absent)


def _divide(numerator: NDArray[Any], denominator: NDArray[Any], *, absent: float) -> NDArray[np.float64]:
    result = np.full(numerator.shape, absent)
    np.divide(numerator, denominator, out=result, where=denominator > 0)
    return result


def _mean(values: NDArray[np.float64]) -> float:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else math.nan
