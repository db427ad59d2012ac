"""What is measured besides the IoU family, as text: boundaries, sizes, calibration, conventions, comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from perpixel.cli.output import say

__all__ = ["per_cent", "print_measures"]

_WORST_IMAGES = 5
_CHANGED_IMAGES = 3


def per_cent(value: float | None) -> str:
    """Writes a fraction in [0, 1] as per cent; a dash where it is undefined."""
    return "–" if value is None or value != value else f"{100 * value:.2f}"


def print_measures(console: Console, scores: Mapping[str, Any]) -> None:
    """Prints whichever of the optional keys of metrics.json there are."""
    if scores.get("boundary"):
        _boundary(console, scores["boundary"])
    if scores.get("region_sizes"):
        bins = ", ".join(f"{b['name']} {per_cent(b['recall'])} %" for b in scores["region_sizes"]["bins"])
        say(console, f"recall of true regions by size: {bins}")
    if scores.get("calibration"):
        say(console, f"expected calibration error {per_cent(scores['calibration']['ece'])} %")
    if found := scores.get("neuron_segmentation"):
        say(console, f"V_Rand {per_cent(found['v_rand'])} %, V_Info {per_cent(found['v_info'])} %")
    if scores.get("cityscapes"):
        _cityscapes(console, scores["cityscapes"])
    if scores.get("conventions"):
        _conventions(console, scores["conventions"])
    if scores.get("per_image"):
        _worst(console, scores["per_image"])
    if scores.get("comparison"):
        _comparison(console, scores["comparison"])
    for note in scores.get("notes", ()):
        say(console, f"note: {note}")


def _boundary(console: Console, boundary: Mapping[str, Any]) -> None:
    if "per_class" in boundary:
        rows = [(r["name"], per_cent(r["bf_score"]), per_cent(r["boundary_iou"])) for r in boundary["per_class"]]
        _print_table(console, ("class", "BF %", "Boundary IoU %"), rows)
        say(console, f"BF score {per_cent(boundary['bf_score'])} %, mean of images over the classes in their truth")
        say(console, f"Boundary IoU {per_cent(boundary['boundary_iou'])} %, mean over classes")
    if "trimap_iou" in boundary:
        bands = ", ".join(f"{width} px {per_cent(value)} %" for width, value in boundary["trimap_iou"].items())
        say(console, f"mean IoU near true borders: {bands}")


def _cityscapes(console: Console, values: Mapping[str, Any]) -> None:
    names = {
        "average_iou": "IoU",
        "average_iiou": "iIoU",
        "average_category_iou": "category IoU",
        "average_category_iiou": "category iIoU",
    }
    say(console, "Cityscapes: " + ", ".join(f"{name} {per_cent(values[key])} %" for key, name in names.items()))


def _conventions(console: Console, conventions: Mapping[str, Mapping[str, Any]]) -> None:
    rows = [(name, c["printed"], c["error"] or c["why"]) for name, c in conventions.items()]
    say(console, "what other toolkits print as mean IoU for the same files", style="bold")
    _print_table(console, ("convention", "mean IoU %", "why"), rows, left=(2,))


def _worst(console: Console, images: Sequence[Mapping[str, Any]]) -> None:
    scored = sorted((i for i in images if i["mean_iou"] is not None), key=lambda i: (i["mean_iou"], i["name"]))
    listed = ", ".join(f"{i['name']} {per_cent(i['mean_iou'])} %" for i in scored[:_WORST_IMAGES])
    if scored:
        say(console, f"lowest mean IoU of an image: {listed}")


def _comparison(console: Console, comparison: Mapping[str, Any]) -> None:
    say(console, f"\ncompared with {comparison['against']}", style="bold")
    for test in comparison["tests"]:
        say(console, test["words"], style="bold" if test["beyond_chance"] else None)
    changed = [
        (row["name"], per_cent(row["iou_difference"]), " to ".join(per_cent(end) for end in row["interval"]))
        for row in comparison["per_class"]
        if row["iou_difference"]
    ]
    if changed:
        _print_table(console, ("class", "IoU difference", "95 % interval"), changed)
    images = comparison["images"]
    gained = [i for i in images if i["change"] > 0][:_CHANGED_IMAGES]
    lost = [i for i in reversed(images) if i["change"] < 0][:_CHANGED_IMAGES]
    for title, chosen in (("gains most on", gained), ("loses most on", lost)):
        if chosen:
            say(console, f"{title} " + ", ".join(f"{i['name']} ({per_cent(i['change'])})" for i in chosen))
    if comparison["left_out"]:
        say(console, f"{len(comparison['left_out'])} images could be scored on one side only and are left out")
    for note in comparison.get("notes", ()):
        say(console, f"note: {note}")


def _print_table(
    console: Console, columns: Sequence[str], rows: Sequence[Sequence[str]], *, left: Sequence[int] = ()
) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 or index in left else "right")
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    console.print(table)
