"""Cityscapes' own scores: IoU, instance-weighted IoU, and both by category, as its evaluation code computes them.

Shapes: H W image. Everything works on label ids 0..33, not on train ids; `LabelSpace.load("cityscapes").decode` turns
train ids into ids.
Source: cityscapesScripts at 0bcc4a7, evaluation/evalPixelLevelSemanticLabeling.py; Cordts et al., CVPR 2016
(arXiv:1604.01685), section 4.1. With n the matrix over ids (rows true), E the evaluated ids:
- IoU of id i: tp = n_ii, fn = the rest of row i (predicted ignored ids count), fp = column i over the other rows of E.
- category IoU: E restricted to the category is one class; confusion inside it is right.
- iIoU of the eight classes with instances: each true instance's tp and fn pixels are multiplied by the class's average
  instance size over the instance's own size; fp stays unweighted. Pixels of groups without instance number are in no
  instance, so in neither tp nor fn.
- category iIoU (human, vehicle): the same with any id of the category as right, caravan and trailer included.
A score whose denominator is 0 is NaN and left out of its average. The option "pixel accuracy" of the original counts
errors as correct pixels; it is not reproduced.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from perpixel.errors import InvalidValue
from perpixel.metrics.pair_counts import pair_counts
from perpixel.metrics.tensors import Tensor, host_labels

__all__ = ["CITYSCAPES_IDS", "CityscapesId", "CityscapesResult", "CityscapesScores", "InstancePixels"]


class CityscapesId(NamedTuple):
    """One label of Cityscapes; its position in `CITYSCAPES_IDS` is its id."""

    name: str
    category: str
    evaluated: bool
    """False: as truth it is ignored."""
    average_size: float = math.nan
    """Mean pixels of an instance in the training set; NaN where the class has no instances."""


CITYSCAPES_IDS: tuple[CityscapesId, ...] = (
    CityscapesId("unlabeled", "void", False),
    CityscapesId("ego vehicle", "void", False),
    CityscapesId("rectification border", "void", False),
    CityscapesId("out of roi", "void", False),
    CityscapesId("static", "void", False),
    CityscapesId("dynamic", "void", False),
    CityscapesId("ground", "void", False),
    CityscapesId("road", "flat", True),
    CityscapesId("sidewalk", "flat", True),
    CityscapesId("parking", "flat", False),
    CityscapesId("rail track", "flat", False),
    CityscapesId("building", "construction", True),
    CityscapesId("wall", "construction", True),
    CityscapesId("fence", "construction", True),
    CityscapesId("guard rail", "construction", False),
    CityscapesId("bridge", "construction", False),
    CityscapesId("tunnel", "construction", False),
    CityscapesId("pole", "object", True),
    CityscapesId("polegroup", "object", False),
    CityscapesId("traffic light", "object", True),
    CityscapesId("traffic sign", "object", True),
    CityscapesId("vegetation", "nature", True),
    CityscapesId("terrain", "nature", True),
    CityscapesId("sky", "sky", True),
    CityscapesId("person", "human", True, 3462.4756337644),
    CityscapesId("rider", "human", True, 3930.4788056518),
    CityscapesId("car", "vehicle", True, 12794.0202738185),
    CityscapesId("truck", "vehicle", True, 27855.1264367816),
    CityscapesId("bus", "vehicle", True, 35732.1511111111),
    CityscapesId("caravan", "vehicle", False, 36771.8241758242),
    CityscapesId("trailer", "vehicle", False, 16926.9763313609),
    CityscapesId("train", "vehicle", True, 67583.7075812274),
    CityscapesId("motorcycle", "vehicle", True, 6298.7200839748),
    CityscapesId("bicycle", "vehicle", True, 4672.3249222261),
)
"""Ids 0..33; license plates (-1) are in no mask."""

_COUNT = len(CITYSCAPES_IDS)
_CATEGORIES = tuple(dict.fromkeys(label.category for label in CITYSCAPES_IDS))
_EVALUATED = np.array([label.evaluated for label in CITYSCAPES_IDS])
_SIZES = np.array([label.average_size for label in CITYSCAPES_IDS])
_CATEGORY_OF = np.array([_CATEGORIES.index(label.category) for label in CITYSCAPES_IDS])
_AVERAGES = ("average_iou", "average_iiou", "average_category_iou", "average_category_iiou")
_INSTANCE_STEP = 1000
"""An instance's number is its class's id times this, plus a count from 0."""
_WITH_INSTANCES = tuple(
    category
    for index, category in enumerate(_CATEGORIES)
    if all(not math.isnan(size) for size in _SIZES[index == _CATEGORY_OF])
)


class InstancePixels(NamedTuple):
    """Pixels in true instances, found and missed, and the same weighted by average over own instance size."""

    tp: int
    tp_weighted: float
    fn: int
    fn_weighted: float


@dataclass(frozen=True, kw_only=True)
class CityscapesResult:
    """Scores as fractions in [0, 1], NaN where undefined; keys are the 34 label names or the 8 category names."""

    confusion: NDArray[np.int64]
    """(34, 34), rows true and columns predicted ids."""
    iou: Mapping[str, float]
    iiou: Mapping[str, float]
    category_iou: Mapping[str, float]
    category_iiou: Mapping[str, float]
    average_iou: float
    average_iiou: float
    average_category_iou: float
    average_category_iiou: float
    class_instances: Mapping[str, InstancePixels]
    """The eight evaluated classes with instances; empty when no instances were given."""
    category_instances: Mapping[str, InstancePixels]


class CityscapesScores:
    """Cityscapes' scores, image by image; the sums of two sets add up to those of both."""

    def __init__(self) -> None:
        self.images = 0
        self.confusion: NDArray[np.int64] = np.zeros((_COUNT, _COUNT), dtype=np.int64)
        self.with_instances: bool | None = None
        # Columns tp, fn; rows ids, or categories.
        self._pixels = {"class": np.zeros((_COUNT, 2), np.int64), "category": np.zeros((len(_CATEGORIES), 2), np.int64)}
        self._weighted = {key: np.zeros(counts.shape) for key, counts in self._pixels.items()}

    def add(
        self,
        prediction: NDArray[Any] | Tensor,
        target: NDArray[Any] | Tensor,
        instances: NDArray[np.integer[Any]] | Tensor | None = None,
    ) -> None:
        """Adds one image.

        Args:
            prediction: Predicted ids (H, W), 0..33.
            target: True ids (H, W), 0..33.
            instances: Instance numbers (H, W) of the truth, as ``*_gtFine_instanceIds.png`` holds them: 1000 times the
                id plus a count, or the id alone for pixels without instance. Either for all images or for none; without
                them the iIoU scores are NaN.

        Raises:
            InvalidValue: shapes differ, a map holds no integers or an id outside 0..33, an instance is of a class
                without instances, or instances were given for some images only.
        """
        guess, truth = host_labels(prediction, "prediction"), host_labels(target, "target")
        numbers = None if instances is None else host_labels(instances, "instances")
        _check_shapes(guess, truth, numbers)
        counts = _counts(guess, truth)
        if self.with_instances not in (None, numbers is not None):
            raise InvalidValue("instances were given for some images only; give them for all, or for none")
        if numbers is not None:
            self._add_instances(guess, numbers)
        self.with_instances = numbers is not None
        self.images += 1
        self.confusion += counts

    def merge(self, other: CityscapesScores) -> None:
        """Adds the images of another set.

        Raises:
            InvalidValue: one set has instances, the other not.
        """
        if other.with_instances is None:
            return
        if self.with_instances not in (None, other.with_instances):
            raise InvalidValue("one set of images has instances, the other not; give them for all, or for none")
        self.with_instances = other.with_instances
        self.images += other.images
        self.confusion += other.confusion
        for key in self._pixels:
            self._pixels[key] += other._pixels[key]
            self._weighted[key] += other._weighted[key]

    def sums(self) -> NDArray[np.float64]:
        """Returns all that the averages follow from in one vector, which adds up over images."""
        return np.concatenate(
            [part.reshape(-1) for part in (self.confusion, *self._weighted.values())], dtype=np.float64
        )

    @staticmethod
    def averages_of(summed: NDArray[np.float64], *, with_instances: bool) -> dict[str, NDArray[np.float64]]:
        """Computes the four averages (R,) of summed vectors (R, V), as `sums` gives them; for intervals over images."""
        rows = []
        for vector in summed:
            scores, start = CityscapesScores(), 0
            scores.with_instances = with_instances
            for part in (scores.confusion, *scores._weighted.values()):
                part[...] = vector[start : start + part.size].reshape(part.shape)
                start += part.size
            found = scores.result()
            rows.append([getattr(found, name) for name in _AVERAGES])
        return dict(zip(_AVERAGES, np.array(rows).reshape(-1, len(_AVERAGES)).T, strict=True))

    def result(self) -> CityscapesResult:
        """Computes the scores of all images so far."""
        names, n = [label.name for label in CITYSCAPES_IDS], self.confusion
        ids = {name: np.array([index]) for index, name in enumerate(names)}
        groups = {name: np.flatnonzero(index == _CATEGORY_OF) for index, name in enumerate(_CATEGORIES)}
        iou = {name: _iou(n, chosen) for name, chosen in ids.items()}
        category_iou = {name: _iou(n, chosen) for name, chosen in groups.items()}
        iiou, class_instances = self._weighted_ious("class", ids)
        category_iiou, category_instances = self._weighted_ious("category", groups)
        return CityscapesResult(
            confusion=n.copy(),
            iou=iou,
            iiou=iiou,
            category_iou=category_iou,
            category_iiou=category_iiou,
            average_iou=_average(iou),
            average_iiou=_average(iiou),
            average_category_iou=_average(category_iou),
            average_category_iiou=_average(category_iiou),
            class_instances=class_instances,
            category_instances=category_instances,
        )

    def _add_instances(self, prediction: NDArray[Any], instances: NDArray[np.integer[Any]]) -> None:
        inside = instances > _INSTANCE_STEP
        numbers, index = np.unique(instances[inside], return_inverse=True)
        labels = numbers.astype(np.int64) // _INSTANCE_STEP
        counted = _counted_labels(labels, numbers)
        size = np.bincount(index, minlength=numbers.size)
        guess = prediction[inside].astype(np.int64)
        same = {"class": guess == labels[index], "category": _CATEGORY_OF[guess] == _CATEGORY_OF[labels[index]]}
        rows = {"class": labels, "category": _CATEGORY_OF[labels]}
        weight = _SIZES[labels] / size
        for key, right in same.items():
            found = np.bincount(index[right], minlength=numbers.size)
            pixels = np.stack([found, size - found], axis=1)[counted]
            np.add.at(self._pixels[key], rows[key][counted], pixels)
            np.add.at(self._weighted[key], rows[key][counted], pixels * weight[counted, None])

    def _weighted_ious(
        self, key: str, groups: Mapping[str, NDArray[np.int64]]
    ) -> tuple[dict[str, float], dict[str, InstancePixels]]:
        scores, sums = dict.fromkeys(groups, math.nan), {}
        for row, (name, chosen) in enumerate(groups.items()):
            scored = name in _WITH_INSTANCES if key == "category" else _EVALUATED[row] and not math.isnan(_SIZES[row])
            if not (scored and self.with_instances):
                continue
            (tp, fn), (tp_weighted, fn_weighted) = self._pixels[key][row].tolist(), self._weighted[key][row].tolist()
            sums[name] = InstancePixels(tp, tp_weighted, fn, fn_weighted)
            scores[name] = _ratio(tp_weighted, tp_weighted + fn_weighted + _false_positives(self.confusion, chosen))
        return scores, sums


def _counted_labels(labels: NDArray[np.int64], numbers: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
    """Which instances are scored: those of ignored classes are not; others must be of a class with instances."""
    known = labels < _COUNT
    counted = np.zeros(labels.shape, dtype=bool)
    counted[known] = _EVALUATED[labels[known]]
    bad = ~known | (counted & np.isnan(_SIZES[np.where(known, labels, 0)]))
    if bad.any():
        number = int(numbers[bad][0])
        raise InvalidValue(
            f"instance {number} is of id {number // _INSTANCE_STEP}, which has no instances; instance maps hold "
            f"id * {_INSTANCE_STEP} + count for ids 24 to 33, and the id alone elsewhere"
        )
    return counted


def _iou(confusion: NDArray[np.int64], chosen: NDArray[np.int64]) -> float:
    chosen = chosen[_EVALUATED[chosen]]
    tp = int(confusion[np.ix_(chosen, chosen)].sum())
    return _ratio(tp, int(confusion[chosen].sum()) + _false_positives(confusion, chosen)) if chosen.size else math.nan


def _false_positives(confusion: NDArray[np.int64], chosen: NDArray[np.int64]) -> int:
    """Pixels predicted as one of the ids ``chosen`` whose truth is evaluated and none of them."""
    others = _EVALUATED.copy()
    others[chosen] = False
    return int(confusion[np.ix_(np.flatnonzero(others), chosen)].sum())


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else math.nan


def _average(values: Mapping[str, float]) -> float:
    defined = [value for value in values.values() if not math.isnan(value)]
    return sum(defined) / len(defined) if defined else math.nan


def _check_shapes(prediction: NDArray[Any], target: NDArray[Any], instances: NDArray[Any] | None) -> None:
    maps = {"prediction": prediction, "target": target} | ({} if instances is None else {"instances": instances})
    if target.ndim != 2 or any(labels.shape != target.shape for labels in maps.values()):
        shapes = ", ".join(f"{name} {labels.shape}" for name, labels in maps.items())
        raise InvalidValue(f"maps of one image must share one shape (H, W), got {shapes}")


def _counts(prediction: NDArray[Any], target: NDArray[Any]) -> NDArray[np.int64]:
    """Returns the matrix (34, 34) of one image, and refuses other ids."""
    table = pair_counts(prediction, target)
    if table is not None and table[:_COUNT, :_COUNT].sum() == target.size:
        return table[:_COUNT, :_COUNT]
    name, labels = next((n, m) for n, m in (("prediction", prediction), ("target", target)) if _others(m).any())
    row, column = (int(i) for i in np.argwhere(_others(labels))[0])
    raise InvalidValue(
        f"{name} holds id {int(labels[row, column])} at row {row}, column {column}; Cityscapes has ids "
        f"0..{_COUNT - 1}. Train ids must be mapped to ids first"
    )


def _others(labels: NDArray[Any]) -> NDArray[np.bool_]:
    outside: NDArray[np.bool_] = (labels < 0) | (labels >= _COUNT)
    return outside
