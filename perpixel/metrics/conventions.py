"""What other toolkits print as mean IoU for the same label maps, and why it differs from perpixel's.

Shapes: K classes.
Each toolkit is one entry of `CONVENTIONS`: how it reads the labels of an image, and how it averages; the rules, and
what happens to labels outside the classes, stand in `convention_rules`. Images are added one by one, as raw labels that
may lie outside 0..K-1; only sums are kept. Numbers are the toolkit's own up to its float32 rounding.
Sources: each toolkit's evaluation code, in the version that ``toolkit`` names. torchmetrics has two mean IoUs:
``torchmetrics`` is MulticlassJaccardIndex, the one over the data set, ``torchmetrics-meaniou`` segmentation.MeanIoU.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perpixel.errors import InvalidValue, nearest
from perpixel.metrics.convention_rules import (
    JointCounts,
    Mean,
    Reader,
    Refused,
    Totals,
    joint_counts,
    mean_foreground,
    mean_jaccard,
    mean_monai,
    mean_of_all,
    mean_of_pairs,
    mean_of_pairs_and_absent,
    mean_of_seen,
    mean_of_true,
    micro,
    read_encoding,
    read_folding,
    read_histograms,
    read_jaccard,
    read_mmseg,
    read_one_hot,
    read_paddleseg,
    read_perpixel,
    read_semseg,
    read_smp,
    read_ultralytics,
)
from perpixel.metrics.tensors import Tensor, host_labels

__all__ = ["CONVENTIONS", "Convention", "ConventionResult", "ConventionScore", "ConventionScores"]

_SEMSEG_EPSILON = 1e-10
_BATCH_AXES = 3


@dataclass(frozen=True, kw_only=True)
class Convention:
    """How one toolkit gets from label maps to its mean IoU."""

    toolkit: str
    """Whose number it is: toolkit, version and function."""
    why: str
    """How it differs from perpixel's, and on which data."""
    read: Reader
    mean: Mean


@dataclass(frozen=True, kw_only=True)
class ConventionResult:
    """What one toolkit prints for the images that were added."""

    name: str
    value: float
    """Fraction in [0, 1], or NaN where the toolkit prints NaN, raises, or was given no image."""
    error: str
    """What the toolkit raises and why; empty when it prints a number or NaN."""
    why: str
    """How the convention differs from perpixel's."""

    @property
    def printed(self) -> str:
        """Percent with two decimals, ``"nan"`` or ``"error"``."""
        return "error" if self.error else "nan" if math.isnan(self.value) else f"{100 * self.value:.2f}"


class ConventionScore:
    """One toolkit's mean IoU, image by image, in constant memory.

    Args:
        name: Key of `CONVENTIONS`.
        num_classes: K, at least 1.
        ignore_index: Label of ignored pixels of the truth.

    Raises:
        InvalidValue: there is no such convention, or no class.

    Example:
        >>> score = ConventionScore("paddleseg", 3)
        >>> score.add(np.array([[0, 0, 1, 1]]), np.array([[0, 0, 0, 1]]))
        >>> score.result().printed
        '72.22'
    """

    def __init__(self, name: str, num_classes: int, *, ignore_index: int = 255) -> None:
        if name not in CONVENTIONS:
            known = ", ".join(CONVENTIONS)
            raise InvalidValue(f"no convention {name!r}{nearest(name, CONVENTIONS, end='.')} Known: {known}")
        if num_classes < 1:
            raise InvalidValue(f"num_classes must be at least 1, got {num_classes}")
        self.name, self.num_classes, self.ignore_index = name, num_classes, ignore_index
        self.totals = Totals(num_classes, ignore_index)
        self.error = ""

    def add(self, prediction: NDArray[Any] | Tensor, target: NDArray[Any] | Tensor) -> None:
        """Adds one image (H, W), or each image of a batch (B, H, W): raw labels, which may lie outside 0..K-1.

        Raises:
            InvalidValue: the shapes differ or have more axes, or the values are not integers.
        """
        for counts in _counts_of_images(prediction, target):
            self.add_counts(counts)

    def add_counts(self, counts: JointCounts) -> None:
        """Adds one image by its pairs of labels; what the toolkit refuses is kept as its error."""
        if self.error:
            return
        try:
            self.totals.add(CONVENTIONS[self.name].read(counts, self.num_classes, self.ignore_index))
        except Refused as refused:
            self.error = str(refused)

    def merge(self, other: ConventionScore) -> None:
        """Adds the images of another score of the same convention, classes and ignored label.

        Raises:
            InvalidValue: the two count differently.
        """
        ours, theirs = ((s.name, s.num_classes, s.ignore_index) for s in (self, other))
        if ours != theirs:
            raise InvalidValue(f"cannot add {theirs} to {ours}: convention, classes and ignored label must be equal")
        self.totals.merge(other.totals)
        self.error = self.error or other.error

    def result(self) -> ConventionResult:
        """Returns what the toolkit prints for all images so far; NaN when there are none."""
        convention = CONVENTIONS[self.name]
        undefined = bool(self.error) or not self.totals.images
        value = math.nan if undefined else convention.mean(self.totals)
        return ConventionResult(name=self.name, value=value, error=self.error, why=convention.why)


class ConventionScores:
    """Several toolkits' mean IoU of the same images; each image is counted once for all of them.

    Args:
        num_classes: K, at least 1.
        names: Keys of `CONVENTIONS`; None takes all.
        ignore_index: Label of ignored pixels of the truth.

    Raises:
        InvalidValue: a name is unknown, or there is no class.
    """

    def __init__(self, num_classes: int, *, names: Iterable[str] | None = None, ignore_index: int = 255) -> None:
        chosen = CONVENTIONS if names is None else names
        self.scores = {name: ConventionScore(name, num_classes, ignore_index=ignore_index) for name in chosen}

    def add(self, prediction: NDArray[Any] | Tensor, target: NDArray[Any] | Tensor) -> None:
        """Adds one image or a batch, as `ConventionScore.add`."""
        for counts in _counts_of_images(prediction, target):
            self.add_counts(counts)

    def add_counts(self, counts: JointCounts) -> None:
        """Adds one image by its pairs of labels."""
        for score in self.scores.values():
            score.add_counts(counts)

    def merge(self, other: ConventionScores) -> None:
        """Adds the images of other scores of the same conventions.

        Raises:
            InvalidValue: the conventions differ.
        """
        if self.scores.keys() != other.scores.keys():
            raise InvalidValue(f"cannot add {', '.join(other.scores)} to {', '.join(self.scores)}")
        for name, score in self.scores.items():
            score.merge(other.scores[name])

    def results(self) -> dict[str, ConventionResult]:
        """Returns the result of each convention, by name."""
        return {name: score.result() for name, score in self.scores.items()}


def _counts_of_images(prediction: NDArray[Any] | Tensor, target: NDArray[Any] | Tensor) -> Iterator[JointCounts]:
    """Yields the counts of each image: several toolkits average over images, so a batch is not one large image."""
    guess, truth = host_labels(prediction, "prediction"), host_labels(target, "target")
    if truth.ndim > _BATCH_AXES:
        raise InvalidValue(f"maps of labels are (H, W), or (B, H, W) for a batch, got {truth.shape}")
    if truth.ndim < _BATCH_AXES or guess.shape != truth.shape:
        yield joint_counts(guess, truth)
    else:
        yield from map(joint_counts, guess, truth)


CONVENTIONS: dict[str, Convention] = {
    "perpixel": Convention(
        toolkit="perpixel",
        why="One matrix of the whole data set; classes in neither truth nor prediction are left out; a label outside "
        "the classes is refused.",
        read=read_perpixel,
        mean=mean_of_seen,
    ),
    "mmseg": Convention(
        toolkit="mmsegmentation 1.2.2 IoUMetric, Hugging Face evaluate mean_iou",
        why="As perpixel, but a truth outside the classes is dropped while its prediction still counts as wrong.",
        read=read_mmseg,
        mean=mean_of_seen,
    ),
    "semseg": Convention(
        toolkit="hszhao/semseg intersectionAndUnion (NumPy)",
        why="A class in neither truth nor prediction counts as IoU 0; label K (one too high) counts as class K-1.",
        read=read_semseg,
        mean=partial(mean_of_all, absent=0.0, epsilon=_SEMSEG_EPSILON),
    ),
    "torchseg": Convention(
        toolkit="TorchSeg hist_info, compute_score",
        why="A truth outside the classes drops the pixel; a prediction outside is counted as another pair of classes.",
        read=read_folding,
        mean=mean_of_seen,
    ),
    "encoding": Convention(
        toolkit="PyTorch-Encoding 1.2.2 SegmentationMetric",
        why="A class in neither truth nor prediction counts as IoU 0; a truth outside the classes makes its prediction "
        "wrong.",
        read=read_encoding,
        mean=partial(mean_of_all, absent=0.0, epsilon=float(np.spacing(1))),
    ),
    "paddleseg": Convention(
        toolkit="PaddleSeg 2.9.1 mean_iou",
        why="A class in neither truth nor prediction counts as IoU 1; a truth outside the classes makes its prediction "
        "wrong.",
        read=read_paddleseg,
        mean=partial(mean_of_all, absent=1.0),
    ),
    "torchvision": Convention(
        toolkit="torchvision references/segmentation ConfusionMatrix",
        why="A class in neither truth nor prediction makes the mean NaN; a truth outside the classes drops the pixel, "
        "a prediction outside is counted as another pair of classes.",
        read=read_folding,
        mean=partial(mean_of_all, absent=math.nan),
    ),
    "ultralytics": Convention(
        toolkit="Ultralytics 8.4 SemanticMetrics",
        why="Averages the classes of the truth only, so predicting an absent class costs less; pixels with a label "
        "outside the classes are dropped. It scores at the network's input size; this is its number at the image's.",
        read=read_ultralytics,
        mean=mean_of_true,
    ),
    "smp-micro": Convention(
        toolkit='segmentation-models-pytorch 0.6.0 iou_score(reduction="micro")',
        why="Pixels are summed over classes before one division: large classes decide, rare ones vanish.",
        read=read_smp,
        mean=micro,
    ),
    "smp-macro": Convention(
        toolkit='segmentation-models-pytorch 0.6.0 iou_score(reduction="macro")',
        why="A class in neither truth nor prediction counts as IoU 1; a truth outside the classes makes its prediction "
        "wrong.",
        read=read_smp,
        mean=partial(mean_of_all, absent=1.0),
    ),
    "smp-macro-imagewise": Convention(
        toolkit='segmentation-models-pytorch 0.6.0 iou_score(reduction="macro-imagewise")',
        why="Mean over images of each image's classes; a class that an image has on neither side counts as IoU 1 "
        "there.",
        read=read_smp,
        mean=mean_of_pairs_and_absent,
    ),
    "torchmetrics": Convention(
        toolkit='torchmetrics 1.9 MulticlassJaccardIndex(average="macro", ignore_index=…)',
        why="As perpixel on clean labels; too many distinct labels, or one that leaves the table, raise, while a label "
        "outside the classes that stays in the table is counted as another pair of classes.",
        read=read_jaccard,
        mean=mean_jaccard,
    ),
    "torchmetrics-meaniou": Convention(
        toolkit='torchmetrics 1.9 segmentation.MeanIoU(input_format="index"), one image per update',
        why="Mean over pairs of image and class instead of the data set; there is no ignored label, so 255 raises.",
        read=read_one_hot,
        mean=mean_of_pairs,
    ),
    "monai": Convention(
        toolkit='MONAI 1.6.1 MeanIoU, reduction="mean_batch", mean over classes',
        why="Per class the mean over images whose truth holds it, so a class predicted elsewhere costs nothing; a "
        "class in no truth counts as IoU 0; any label outside the classes raises, 255 too.",
        read=read_one_hot,
        mean=mean_monai,
    ),
    "nnunet": Convention(
        toolkit="nnU-Net 2.8.1 foreground mean of IoU",
        why="Class 0 is background and left out; per class the mean over images, so small and large images weigh the "
        "same. A class in no image is left out, as if the data set did not list it: listed, nnU-Net's own mean is NaN.",
        read=read_histograms,
        mean=mean_foreground,
    ),
}
"""The 14 names that ``--convention`` takes, and ``torchmetrics-meaniou``, torchmetrics' other mean IoU."""
