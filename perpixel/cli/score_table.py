"""Scores as a table for people: every class, then the summary, in per cent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from perpixel.cli.measure_tables import per_cent, print_measures
from perpixel.cli.output import say

__all__ = ["SCORE_NAMES", "named_scores", "per_cent", "print_scores"]

SCORE_NAMES = {
    "mean_iou": "mean IoU",
    "pixel_accuracy": "pixel accuracy",
    "mean_accuracy": "mean accuracy",
    "frequency_weighted_iou": "frequency weighted IoU",
    "mean_dice": "mean Dice",
}
"""How the keys of metrics.json are called in text."""


def named_scores(values: Mapping[str, Any]) -> str:
    """Writes the summary scores among some values in one line."""
    return ", ".join(f"{name} {per_cent(values[key])} %" for key, name in SCORE_NAMES.items() if key in values)


def print_scores(console: Console, scores: Mapping[str, Any]) -> None:
    """Prints what metrics.json holds: a row per class, the means with their number of classes, the error split.

    Intervals stand beside their scores, other measures after them. The scores of a test split and of a baseline follow
    where there are any.
    """
    if "split" in scores:
        say(console, f"\nscores on {scores['split']}", style="bold")
    per_class = scores.get("per_class", ())
    table = Table("class", box=None, pad_edge=False, header_style="bold")
    for column in ("IoU %", "accuracy %", "precision %", "Dice %", "pixels"):
        table.add_column(column, justify="right")
    for row in per_class:
        cells = (per_cent(row[key]) for key in ("iou", "accuracy", "precision", "dice"))
        table.add_row(str(row["name"]), *cells, f"{row['pixels']:,}")
    if per_class:
        console.print(table)
    averaged = scores.get("classes_averaged")
    for key, name in SCORE_NAMES.items():
        if key in scores:
            over = f" over {averaged} of {len(per_class)} classes" if key == "mean_iou" and averaged is not None else ""
            span = _span(scores.get("intervals", {}).get(key))
            say(console, f"{name} {per_cent(scores[key])} %{span}{over}", style="bold" if over else None)
    if over := ", ".join(f"{scores[key]:,} {key}" for key in ("images", "pixels") if key in scores):
        say(console, over)
    if unpredicted := sum(scores.get("unpredicted") or ()):
        say(console, f"{unpredicted:,} pixels without a predicted class count as wrong")
    if scores.get("error_split"):
        say(console, _error_split(scores["error_split"]))
    print_measures(console, scores)
    if "baseline" in scores:
        say(console, f"baseline {scores['baseline']['name']}: {named_scores(scores['baseline'])}")
    if "test" in scores:
        print_scores(console, scores["test"])


def _span(ends: Sequence[float | None] | None) -> str:
    """Writes an interval; nothing where there is none."""
    return "" if ends is None or None in ends else f" ({per_cent(ends[0])} to {per_cent(ends[1])})"


def _error_split(split: Mapping[str, Any]) -> str:
    """One line about where the wrong pixels are."""
    totals = {
        key: sum(row[key] for row in split["per_class"])
        for key in ("border_wrong", "border_pixels", "interior_wrong", "interior_pixels")
    }
    shares = [
        per_cent(totals[f"{part}_wrong"] / totals[f"{part}_pixels"] if totals[f"{part}_pixels"] else None)
        for part in ("border", "interior")
    ]
    return f"wrong pixels: {shares[0]} % within {split['width_px']:g} px of a true border, {shares[1]} % inside regions"
