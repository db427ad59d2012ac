"""The top of a report: the scores that count, beside those of what the run is compared with, and the facts around."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from perpixel.report.intervals import Span, intervals
from perpixel.report.read_run import RunRecord, number
from perpixel.report.tables import Peer

__all__ = ["Tile", "duration", "facts", "notes", "tiles"]

_TILES = {
    "mean_iou": "Mean IoU",
    "pixel_accuracy": "Pixel accuracy",
    "mean_accuracy": "Mean class accuracy",
    "mean_dice": "Mean Dice",
}


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One score, a fraction, with the same score of each peer that has it."""

    label: str
    value: float
    peers: tuple[tuple[str, float, float], ...]
    """Name, score, and how far this run lies above it."""
    span: Span | None = None
    """How far other images would move the score."""


def tiles(run: RunRecord, beside: Sequence[Peer]) -> list[Tile]:
    """Returns the scores of metrics.json that are defined."""
    found = []
    spans = intervals(run)
    for key, label in _TILES.items():
        value = number(run.metrics.get(key))
        if value is None:
            continue
        others = [(peer.name, number(peer.scores.get(key))) for peer in beside]
        found.append(
            Tile(
                label=label,
                value=value,
                peers=tuple((name, x, value - x) for name, x in others if x is not None),
                span=None if spans is None else spans.summary.get(key),
            )
        )
    return found


def facts(run: RunRecord) -> list[tuple[str, str]]:
    """Returns what else to know at first sight, as pairs of a word and its value."""
    metrics, environment = run.metrics, run.environment
    steps = run.steps()
    wall = run.wall_seconds()
    values = {
        "Model": _model(run),
        "Split": metrics.get("split"),
        "Images": _grouped(metrics.get("images")),
        "Classes averaged": _grouped(metrics.get("classes_averaged")),
        "Steps": None if steps is None else f"{steps:,}",
        "Time": None if wall is None else duration(wall),
        "Device": _device(environment),
        "Precision": environment.get("precision") or run.config.get("precision"),
        "Recipe": run.config.get("recipe"),
    }
    return [(word, str(value)) for word, value in values.items() if value not in (None, "")]


def notes(run: RunRecord, other: RunRecord | None) -> list[str]:
    """Returns what a reader must know before believing a number: an unfinished run, or runs that do not compare."""
    found = []
    if not run.metrics and run.environment and not run.environment.get("end"):
        found.append("This run has not finished: the report shows what it had written so far.")
    elif not run.metrics:
        found.append("This run has no final scores: the report shows what it had written.")
    if other is None:
        return found
    ours, theirs = run.data.get("fingerprint"), other.data.get("fingerprint")
    if ours and theirs and ours != theirs:
        found.append(f"The data of {run.name} and {other.name} differ (fingerprints): their scores do not compare.")
    for key, word in (("split", "split"), ("images", "number of images")):
        first, second = run.metrics.get(key), other.metrics.get(key)
        if first is not None and second is not None and first != second:
            found.append(f"The scored {word} differs: {first} in {run.name}, {second} in {other.name}.")
    return found


def duration(seconds: float) -> str:
    """Says seconds in the two largest units: ``1 h 5 min``, ``4 min 12 s``, ``12.3 s``.

    Example:
        >>> duration(3900)
        '1 h 5 min'
    """
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    hours, minutes = whole // 3600, whole % 3600 // 60
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {whole % 60} s"


def _model(run: RunRecord) -> str | None:
    """Returns the model's name by the scores, else by the last stage that names one."""
    stated = run.metrics.get("model")
    stages = run.config.get("stages")
    for stage in reversed(stages if isinstance(stages, list) else []):
        if stated is None and isinstance(stage, Mapping):
            stated = stage.get("model")
    if isinstance(stated, Mapping):
        backbone = stated.get("backbone")
        backbone = backbone.get("name") if isinstance(backbone, Mapping) else backbone
        return f"{stated.get('name')} on {backbone}" if backbone else str(stated.get("name"))
    return None if stated is None else str(stated)


def _device(environment: Mapping[str, Any]) -> str | None:
    device, name, threads = (environment.get(key) for key in ("device", "device_name", "threads"))
    if device is None:
        return None
    words = str(device) if name in (None, device, "") else f"{device} ({name})"
    return f"{words}, {threads} threads" if threads and str(device).startswith("cpu") else words


def _grouped(value: Any) -> str | None:
    found = number(value)
    return None if found is None else f"{found:,.0f}"
