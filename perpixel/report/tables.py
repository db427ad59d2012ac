"""The numbers of a report: what its tables and bars show, taken from one run and set beside others.

Fractions stay fractions here; the template turns them into percent. Shapes: K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perpixel.report.read_run import RunRecord, entries, mapping, number

__all__ = [
    "ClassRow",
    "Confusion",
    "Peer",
    "Swatch",
    "class_rows",
    "confusion",
    "data_splits",
    "peers",
    "swatches",
    "time_shares",
    "warnings",
]

_PAIRS = 8
_PAIR_SHARE = 0.01
_CLASS_SCORES = ("iou", "accuracy", "precision", "dice")


@dataclass(frozen=True, kw_only=True)
class Swatch:
    """A class and its display colour."""

    name: str
    color: str


@dataclass(frozen=True, kw_only=True)
class Peer:
    """What the run is compared with: its own baseline, or another run."""

    name: str
    scores: Mapping[str, Any]
    iou: Mapping[str, float | None]
    """Class name -> IoU."""
    run: RunRecord | None = None


@dataclass(frozen=True, kw_only=True)
class ClassRow:
    """Scores of one class, fractions or None where undefined."""

    swatch: Swatch
    iou: float | None
    accuracy: float | None
    precision: float | None
    dice: float | None
    pixels: int | None
    peers: tuple[float | None, ...]
    """IoU of the same class in each peer."""


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """A row-normalised confusion matrix and its largest confusions."""

    shares: NDArray[np.float64]
    """(K, K) fractions of the true class's pixels, NaN rows for classes without a pixel."""
    names: tuple[str, ...]
    pairs: tuple[tuple[str, str, float, int], ...]
    """True class, predicted class, share of the true class's pixels, pixels; the largest shares first."""


def swatches(run: RunRecord) -> dict[str, Swatch]:
    """Returns class name -> colour, in the order of the label space, with grey for names that it does not hold."""
    known = {} if run.labels is None else dict(zip(run.labels.names, run.labels.colors, strict=True))
    found = {name: Swatch(name=name, color="#{:02x}{:02x}{:02x}".format(*color)) for name, color in known.items()}
    for entry in entries(run.metrics.get("per_class")):
        name = str(entry.get("name"))
        found.setdefault(name, Swatch(name=name, color="#8a8f98"))
    return found


def peers(run: RunRecord, other: RunRecord | None) -> list[Peer]:
    """Returns the baseline that the run brought along, then the other run; one of them when they are the same."""
    found = []
    baseline = run.metrics.get("baseline")
    is_other = other is not None and run.path.resolve() in other.path.resolve().parents
    if isinstance(baseline, Mapping) and not is_other:
        found.append(Peer(name=str(baseline.get("name", "baseline")), scores=baseline, iou=_iou(baseline)))
    if other is not None:
        found.append(Peer(name=other.name, scores=other.metrics, iou=_iou(other.metrics), run=other))
    return found


def class_rows(run: RunRecord, beside: Sequence[Peer]) -> list[ClassRow]:
    """Returns the scores per class in the order of metrics.json."""
    colors = swatches(run)
    rows = []
    for entry in entries(run.metrics.get("per_class")):
        name = str(entry.get("name"))
        scores = {key: number(entry.get(key)) for key in _CLASS_SCORES}
        rows.append(
            ClassRow(
                swatch=colors[name],
                pixels=_whole(entry.get("pixels")),
                peers=tuple(peer.iou.get(name) for peer in beside),
                **scores,
            )
        )
    return rows


def confusion(run: RunRecord) -> Confusion | None:
    """Returns the confusion matrix as shares of each true class; None when metrics.json holds no square one."""
    names = tuple(str(entry.get("name")) for entry in entries(run.metrics.get("per_class")))
    try:
        counts = np.asarray(run.metrics.get("confusion"), dtype=np.float64)
        left_out = np.asarray(run.metrics.get("unpredicted") or np.zeros(len(names)), dtype=np.float64)
    except (TypeError, ValueError):
        return None
    if not names or counts.shape != (len(names), len(names)) or left_out.shape != (len(names),):
        return None
    truth = counts.sum(axis=1, keepdims=True) + left_out[:, None]
    shares = np.full(counts.shape, np.nan)
    np.divide(counts, truth, out=shares, where=truth > 0)
    wrong = np.nan_to_num(shares)
    np.fill_diagonal(wrong, 0.0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:_PAIRS]
    pairs = tuple(
        (names[row], names[column], float(wrong[row, column]), int(counts[row, column]))
        for row, column in zip(*np.unravel_index(order, wrong.shape), strict=True)
        if wrong[row, column] >= _PAIR_SHARE
    )
    return Confusion(shares=shares, names=names, pairs=pairs)


def data_splits(run: RunRecord) -> dict[str, Any]:
    """Returns the splits with sizes in words, and one row per class with its share of the labelled pixels per split."""
    splits = {str(k): v for k, v in mapping(run.data.get("splits")).items() if isinstance(v, Mapping)}
    weights = _weights(run)
    columns: list[dict[str, Any]] = []
    for name, split in splits.items():
        pixels = [_whole(value) or 0 for value in split.get("pixels_per_class") or ()]
        labelled = sum(pixels)
        ignored = _whole(split.get("ignored_pixels")) or 0
        columns.append(
            {
                "name": name,
                "images": _whole(split.get("images")),
                "sizes": _sizes(split.get("sizes")),
                "labelled": labelled,
                "ignored_share": ignored / (labelled + ignored) if labelled + ignored else None,
                "shares": [value / labelled if labelled else None for value in pixels],
                "images_per_class": [_whole(value) for value in split.get("images_per_class") or ()],
            }
        )
    rows = [
        {
            "swatch": swatch,
            "splits": [(_at(column["shares"], i), _at(column["images_per_class"], i)) for column in columns],
            "weight": _at(weights, i),
        }
        for i, swatch in enumerate(swatches(run).values() if run.labels is not None else ())
    ]
    largest = max((share for column in columns for share in column["shares"] if share is not None), default=0.0)
    return {"columns": columns, "rows": rows, "largest": largest or 1.0, "weighted": bool(weights), "rule": _rule(run)}


def time_shares(run: RunRecord) -> dict[str, Any] | None:
    """Returns where the seconds went; a train event's are those since the train event before it."""
    totals = dict.fromkeys(("data", "step", "evaluation"), 0.0)
    for event in run.of_kind("train"):
        for key in totals:
            totals[key] += number(mapping(event.get("seconds")).get(key)) or 0.0
    if not totals["evaluation"]:
        totals["evaluation"] = sum(number(event.get("seconds")) or 0.0 for event in run.of_kind("evaluation"))
    known = sum(totals.values())
    if not known:
        return None
    wall = run.wall_seconds()
    words = {
        "data": "waiting for data",
        "step": "forward, backward, update",
        "evaluation": "evaluation while training",
    }
    parts = [(key, words[key], value) for key, value in totals.items()]
    if wall is not None and wall > known:
        parts.append(("other", "everything else: start, final scores, files", wall - known))
    total = sum(value for _, _, value in parts)
    steps = run.steps()
    return {
        "parts": [(key, words, value, value / total) for key, words, value in parts],
        "total": total,
        "per_second": steps / (totals["data"] + totals["step"]) if steps and totals["data"] + totals["step"] else None,
    }


def warnings(run: RunRecord) -> list[str]:
    """Returns the run's warnings as text, a repeated one once with its count."""
    found: dict[str, list[Any]] = {}
    for event in run.of_kind("warning"):
        text = next((str(event[key]) for key in ("message", "text", "what", "reason") if event.get(key)), None)
        if text is None:
            text = ", ".join(f"{key}: {value}" for key, value in event.items() if key not in ("event", "stage", "step"))
        found.setdefault(text, []).append(event.get("step"))
    return [
        text
        + (f" (step {steps[0]})" if steps[0] is not None else "")
        + (f", {len(steps)} times" if len(steps) > 1 else "")
        for text, steps in found.items()
    ]


def _iou(scores: Mapping[str, Any]) -> dict[str, float | None]:
    return {str(entry.get("name")): number(entry.get("iou")) for entry in entries(scores.get("per_class"))}


def _whole(value: Any) -> int | None:
    found = number(value)
    return None if found is None else int(found)


def _at(values: Sequence[Any], index: int) -> Any:
    return values[index] if index < len(values) else None


def _stages(run: RunRecord) -> list[Mapping[str, Any]]:
    return entries(run.config.get("stages"))


def _rule(run: RunRecord) -> str | None:
    """Returns the rule of the class weights by the configuration, stage by stage where they differ."""
    rules = [stage.get("class_weights", "none") for stage in _stages(run)]
    names = list(dict.fromkeys("given per class" if isinstance(rule, list) else str(rule) for rule in rules))
    return ", then ".join(names) or None


def _weights(run: RunRecord) -> list[float | None]:
    """Returns the class weights of the loss: those that data.json states, else those that the configuration gives."""
    stated = run.data.get("class_weights")
    given = [stage.get("class_weights") for stage in _stages(run)]
    for values in (stated, *reversed(given)):
        if isinstance(values, list):
            return [number(value) for value in values]
    return []


def _sizes(sizes: Any) -> str:
    """Says the image sizes in words, from ``{"360x480": n}`` or ``[[height, width, n]]``."""
    if isinstance(sizes, Mapping):
        found = [(str(size).replace("x", " × "), _whole(count) or 0) for size, count in sizes.items()]
    else:
        found = [(f"{e[0]} × {e[1]}", _whole(e[2]) or 0) for e in sizes or () if isinstance(e, list) and len(e) == 3]
    found.sort(key=lambda pair: -pair[1])
    if len(found) == 1:
        return found[0][0]
    shown = ", ".join(f"{size} ({count:,})" for size, count in found[:3])
    return shown + (f" and {len(found) - 3} more sizes" if len(found) > 3 else "")
