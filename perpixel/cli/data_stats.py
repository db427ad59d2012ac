"""``perpixel data stats``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from perpixel.cli.output import JsonFile, check_json_file, console_for, say, write_json
from perpixel.cli.progress import ProgressDisplay
from perpixel.errors import InvalidValue

__all__ = ["data_stats"]

_NEIGHBOURS = 3
_NEVER_FROM = 5
_SHOWN_WEIGHTS = {
    "median_frequency": "median",
    "median_frequency_eigen": "Eigen",
    "sqrt_median_frequency": "root",
    "inverse_frequency": "inverse",
    "enet": "ENet",
    "effective_number": "effective",
}
"""How columns of weights are headed; the keys are what ``class_weights=`` takes."""


def data_stats(
    data: Annotated[str, Parameter(name="DATA")],
    masks: Annotated[Path | None, Parameter(name="MASKS")] = None,
    /,
    *,
    labels: str | None = None,
    split: str | None = None,
    mask_encoding: Literal["ids", "colors"] = "ids",
    crop_limit: int = 512,
    json: JsonFile = None,
) -> None:
    """Counts classes, sizes and colours of a data set, and advises how to train on it.

    Pixels and images per class, which classes come together, how large their connected regions are, mean and standard
    deviation of the colours; class weights by every rule that training takes; then loss, weights, crop size and
    sampler that the counts speak for, each with its reason.

    Args:
        data: [format:]path such as camvid:/d or /folder; or a folder of images, followed by its folder of masks.
        masks: Folder of masks, when the first is a folder of images.
        labels: The classes: a known label space, a YAML file or a number; without it, those of the data.
        split: Which split; without it train, or all of undivided data.
        mask_encoding: What masks hold: ids, or colours that are the labels.
        crop_limit: Largest side of a training window that the machine is to work on, pixels.
    """
    check_json_file(json)
    if crop_limit < 32:
        raise InvalidValue(f"--crop-limit is at least 32 pixels, got {crop_limit}")
    from perpixel import build

    with ProgressDisplay(console_for(json)) as display:
        found = build.data_statistics(
            data,
            masks,
            labels=labels,
            split=split,
            mask_encoding=mask_encoding,
            longest_crop=crop_limit,
            on_progress=display.update,
        )
    _print(display.console, found)
    write_json(json, found)


def _print(console: Console, found: Mapping[str, Any]) -> None:
    for note in found["notes"]:
        say(console, note)
    splits = ", ".join(f"{name} {count:,}" for name, count in found["splits"].items())
    say(console, f"{found['data']}: format {found['format']}, images by split: {splits}")
    say(console, f"\nsplit {found['split']}: {found['images']:,} images", style="bold")
    if found["unlabelled"]:
        say(console, f"{found['unlabelled']:,} images have no mask")
    sizes = found["sizes"]
    shown = ", ".join(f"{height} x {width} ({count:,})" for height, width, count in sizes[:5])
    say(console, f"sizes (height x width): {shown}" + (f" and {len(sizes) - 5} more" if len(sizes) > 5 else ""))
    console.print(_classes(found))
    valid = sum(row["pixels"] for row in found["classes"])
    if total := valid + found["ignored_pixels"]:
        share = 100 * found["ignored_pixels"] / total
        say(console, f"ignored: {found['ignored_pixels']:,} pixels, {share:.2f} %")
    colors = found["colors"]
    for name in ("mean", "std"):
        values = ", ".join(f"{value:.4f}" for value in colors[name])
        say(console, f"colours, {name} per channel in [0, 1]: {values} (of {colors['images']:,} images)")
    _print_company(console, found)
    if found["weights"]:
        say(console, "\nclass weights", style="bold")
        console.print(_weights(found))
    if found["advice"]:
        say(console, "\nadvice", style="bold")
    for entry in found["advice"]:
        say(console, f"{entry['what']}: {entry['choice']}", style="bold")
        say(console, f"  {entry['reason']}")
    if tokens := [token for entry in found["advice"] for token in entry["overrides"]]:
        say(console, "\nfor perpixel train: " + " ".join(f"'{t}'" if " " in t else t for t in tokens))


def _classes(found: Mapping[str, Any]) -> Table:
    table = Table("class", box=None, pad_edge=False, header_style="bold")
    for column in ("pixels", "share %", "images", "regions", "median px", "10 % below", "largest"):
        table.add_column(column, justify="right")
    for row in found["classes"]:
        sizes = row["regions"]
        counted = [
            "-" if sizes[key] is None else f"{sizes[key]:,}" for key in ("regions", "median", "tenth", "largest")
        ]
        table.add_row(row["name"], f"{row['pixels']:,}", f"{100 * row['share']:.3f}", f"{row['images']:,}", *counted)
    return table


def _print_company(console: Console, found: Mapping[str, Any]) -> None:
    """Which classes each class is most often seen with, and pairs that never meet."""
    names, together = [row["name"] for row in found["classes"]], found["co_occurrence"]
    table = Table("class", "most often with (share of its images)", box=None, pad_edge=False, header_style="bold")
    never = []
    for k, name in enumerate(names):
        images = together[k][k]
        if not images:
            continue
        others = sorted((j for j in range(len(names)) if j != k), key=lambda j: -together[k][j])
        near = [f"{names[j]} {100 * together[k][j] / images:.0f} %" for j in others[:_NEIGHBOURS] if together[k][j]]
        table.add_row(name, ", ".join(near) or "alone")
        never += [
            f"{name} and {names[j]}"
            for j in range(k + 1, len(names))
            if not together[k][j] and min(images, together[j][j]) >= _NEVER_FROM
        ]
    if len(names) > 1:
        say(console, "\ncompany", style="bold")
        console.print(table)
    if never:
        more = f" and {len(never) - 10} more pairs" if len(never) > 10 else ""
        say(console, f"never in one image: {'; '.join(never[:10])}{more}")


def _weights(found: Mapping[str, Any]) -> Table:
    table = Table("class", box=None, pad_edge=False, header_style="bold")
    for rule in found["weights"]:
        table.add_column(_SHOWN_WEIGHTS.get(rule, rule), justify="right")
    for k, row in enumerate(found["classes"]):
        table.add_row(row["name"], *(f"{weights[k]:.4g}" for weights in found["weights"].values()))
    return table
