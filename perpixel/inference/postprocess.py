"""What may follow a network and its dense CRF: thresholds per class, then the removal of small regions.

Both are plain functions, and one choice (`PostProcessing`) that a `Segmenter` applies to its finished scores.

Shapes: B batch, K classes, H W image.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import torch
import yaml
from torch import Tensor

from perpixel.errors import ConfigError, InvalidValue, nearest
from perpixel.inference.score_map import ScoreMap
from perpixel.inference.small_regions import Connectivity, remove_small_regions
from perpixel.labels import LabelSpace
from perpixel.strict_yaml import load_strict_yaml

__all__ = ["PostProcessing", "Vote", "final_classes", "parse_thresholds", "remove_small_regions", "thresholded_classes"]

Vote = Literal["border", "scores"]
Fallback: TypeAlias = "Literal['next', 'ignore'] | int"

_NEXT, _IGNORE = "next", "ignore"
_ROUNDING = 1e-3


@dataclass(frozen=True, kw_only=True)
class PostProcessing:
    """What a `Segmenter` does with finished scores; thresholds come first, then small regions.

    Raises:
        InvalidValue: a size, a connectivity, a vote or a threshold is out of range.
    """

    min_region: int = 0
    """Connected regions of a class with fewer pixels are given to their surroundings; 0 and 1 keep all."""
    connectivity: Connectivity = 4
    vote: Vote = "border"
    """Who takes a small region: the most frequent class ``border``-ing it, or the one of those with the highest sum of
    ``scores`` (needs the full score map: 4 K H W bytes)."""
    thresholds: Mapping[str, float] = field(default_factory=dict)
    """Least probability by class name; classes that are not here have 0."""
    fallback: str = _NEXT
    """What a pixel below its class's threshold becomes: ``next``, ``ignore`` or a class (`thresholded_classes`)."""

    def __post_init__(self) -> None:
        if self.min_region < 0:
            raise InvalidValue(f"min_region is a number of pixels, 0 or more, got {self.min_region}")
        if self.connectivity not in get_args(Connectivity):
            raise InvalidValue(f"connectivity is 4 or 8, got {self.connectivity!r}")
        if self.vote not in get_args(Vote):
            raise InvalidValue(f"vote is one of {', '.join(get_args(Vote))}, got {self.vote!r}")
        for name, value in self.thresholds.items():
            _check_threshold(name, value)

    @property
    def is_empty(self) -> bool:
        """Whether nothing would change."""
        return self.min_region <= 1 and not any(self.thresholds.values())

    @property
    def leaves_pixels_out(self) -> bool:
        """Whether pixels may be left without a class."""
        return self.fallback == _IGNORE and any(self.thresholds.values())

    def check(self, labels: LabelSpace) -> None:
        """Makes sure that the names are classes of ``labels``.

        Raises:
            InvalidValue: one is not.
        """
        self.class_thresholds(labels)
        self.fallback_of(labels)

    def class_thresholds(self, labels: LabelSpace) -> tuple[float, ...]:
        """Returns the threshold of every class.

        Raises:
            InvalidValue: a name is no class of ``labels``.
        """
        for name in self.thresholds:
            if name not in labels.names:
                raise InvalidValue(
                    f"threshold for {name!r}, which is no class of label space {labels.name!r}"
                    f"{nearest(name, labels.names, end='.')} Classes: {', '.join(labels.names)}"
                )
        return tuple(float(self.thresholds.get(name, 0.0)) for name in labels.names)

    def fallback_of(self, labels: LabelSpace) -> Fallback:
        """Returns the fallback as `thresholded_classes` takes it.

        Raises:
            InvalidValue: it is neither ``next``, ``ignore`` nor a class of ``labels``.
        """
        if self.fallback == _NEXT:
            return "next"
        if self.fallback == _IGNORE:
            return "ignore"
        if self.fallback not in labels.names:
            raise InvalidValue(
                f"the fallback is next, ignore or a class of label space {labels.name!r}, got {self.fallback!r}"
                f"{nearest(self.fallback, labels.names, end='.')} Classes: {', '.join(labels.names)}"
            )
        return labels.names.index(self.fallback)


def final_classes(scores: ScoreMap, postprocessing: PostProcessing, labels: LabelSpace) -> Tensor:
    """Returns the classes (B, H, W) uint8 of finished scores after post-processing; 255 where a pixel is left without.

    Raises:
        InvalidValue: a threshold or the fallback names no class.
    """
    thresholds = postprocessing.class_thresholds(labels)
    fallback = postprocessing.fallback_of(labels)
    by_scores = postprocessing.vote == "scores" and postprocessing.min_region > 1
    probabilities = scores.full().softmax(dim=1) if any(thresholds) or by_scores else None
    if probabilities is not None and any(thresholds):
        classes = thresholded_classes(probabilities, thresholds, fallback=fallback)
    else:
        classes = scores.classes()
    if postprocessing.min_region <= 1:
        return classes
    cleaned = [
        remove_small_regions(
            image.cpu().numpy(),
            postprocessing.min_region,
            connectivity=postprocessing.connectivity,
            scores=probabilities[index].cpu().numpy() if probabilities is not None and by_scores else None,
        )
        for index, image in enumerate(classes)
    ]
    return torch.from_numpy(np.stack(cleaned)).to(classes.device)


def thresholded_classes(
    probabilities: Tensor, thresholds: Sequence[float], *, fallback: Fallback = "next", ignore_index: int = 255
) -> Tensor:
    """Returns the class of each pixel whose probability reaches the threshold of its class, else the fallback.

    Args:
        probabilities: (K, H, W) or (B, K, H, W) in [0, 1], any floating type.
        thresholds: Least probability in [0, 1] of each class; a pixel *at* its threshold keeps its class.
        fallback: ``"next"``: the most probable class among those that reach their thresholds, and where none does, the
            most probable of all; ``"ignore"``: ``ignore_index``; a number: that class, such as the background.
        ignore_index: Value in [0, 255] of pixels without a class.

    Returns:
        (H, W) or (B, H, W) uint8; of equally probable classes the lowest.

    Raises:
        InvalidValue: shapes or numbers do not fit, or a value is not finite or no probability.
    """
    if probabilities.ndim not in (3, 4) or 0 in probabilities.shape or not probabilities.is_floating_point():
        raise InvalidValue(
            f"probabilities are floats (K, H, W) or (B, K, H, W), got {tuple(probabilities.shape)} "
            f"{probabilities.dtype}"
        )
    num_classes = int(probabilities.shape[-3])
    if len(thresholds) != num_classes:
        raise InvalidValue(f"{len(thresholds)} thresholds for {num_classes} classes; give one per class")
    for index, value in enumerate(thresholds):
        _check_threshold(f"class {index}", value)
    if isinstance(fallback, str) and fallback not in (_NEXT, _IGNORE):
        raise InvalidValue(f"the fallback is next, ignore or a class number, got {fallback!r}")
    if not isinstance(fallback, str) and not 0 <= fallback < num_classes:
        raise InvalidValue(f"the fallback class is in [0, {num_classes - 1}], got {fallback}")
    _check_probabilities(probabilities)
    least = torch.tensor([float(value) for value in thresholds], dtype=probabilities.dtype, device=probabilities.device)
    winner, best, reached, found = _winners(probabilities, least)
    if fallback == _NEXT:
        return torch.where(found, reached, winner)
    instead = ignore_index if isinstance(fallback, str) else fallback
    return winner.masked_fill(best < least[winner.long()], instead)


def _winners(probabilities: Tensor, least: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns the best class, its probability, the best class that reaches its threshold, and whether one does."""
    best = probabilities.select(-3, 0).clone()
    winner = torch.zeros(best.shape, dtype=torch.uint8, device=best.device)
    reached = torch.zeros_like(winner)
    highest = torch.full_like(best, -1.0)
    for index in range(int(probabilities.shape[-3])):
        values = probabilities.select(-3, index)
        winner.masked_fill_(values > best, index)
        torch.maximum(best, values, out=best)
        better = (values >= least[index]) & (values > highest)
        reached.masked_fill_(better, index)
        highest = torch.where(better, values, highest)
    return winner, best, reached, highest >= 0


def parse_thresholds(spec: str) -> dict[str, float]:
    """Reads ``name=0.5,other=0.3``, or a YAML file that maps class names to numbers.

    Raises:
        ConfigError: the text is neither, or the file cannot be read.
        InvalidValue: a threshold is no number in [0, 1].
    """
    if "=" not in spec or Path(spec).is_file():
        return _thresholds_of_file(Path(spec))
    values: dict[str, float] = {}
    for part in spec.split(","):
        name, equals, number = part.rpartition("=")
        if not equals or not name.strip():
            raise ConfigError(f"thresholds {spec!r}: {part!r} is not name=number; names with commas go into a file")
        if name.strip() in values:
            raise ConfigError(f"thresholds {spec!r}: {name.strip()!r} is named twice; give one threshold per class")
        try:
            values[name.strip()] = float(number)
        except ValueError as error:
            raise InvalidValue(f"threshold of {name.strip()!r} is a number in [0, 1], got {number!r}") from error
        _check_threshold(name.strip(), values[name.strip()])
    return values


def _thresholds_of_file(path: Path) -> dict[str, float]:
    form = "write name=0.5,other=0.3, or give a YAML file that maps class names to numbers"
    try:
        content: Any = load_strict_yaml(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"thresholds {str(path)!r} cannot be read: {error}; {form}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: thresholds are a mapping from class name to number; {form}")
    for name, value in content.items():
        _check_threshold(str(name), value)
    return {str(name): float(value) for name, value in content.items()}


def _check_threshold(name: str, value: object) -> None:
    fits = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and 0 <= value <= 1
    if not fits:
        raise InvalidValue(f"threshold of {name!r} is a number in [0, 1], got {value!r}")


def _check_probabilities(probabilities: Tensor) -> None:
    finite = torch.isfinite(probabilities)
    if not bool(finite.all()):
        place = tuple((~finite).nonzero()[0].tolist())
        raise InvalidValue(f"{int((~finite).sum())} probabilities are not finite, the first at index {place}")
    low, high = (float(value) for value in torch.aminmax(probabilities))
    if low < 0 or high > 1 + _ROUNDING:
        raise InvalidValue(
            f"probabilities lie in [0, 1], got values from {low:g} to {high:g}; for scores, take their softmax"
        )
