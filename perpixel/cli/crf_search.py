"""``perpixel evaluate MODEL --data DATA --crf-search IMAGES``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from perpixel.cli.evaluate_options import DEFAULT_BORDER_WIDTH, MeasureOptions, ModelOptions
from perpixel.cli.output import JsonFile, check_output_file, console_for, say, write_json
from perpixel.cli.progress import ProgressDisplay
from perpixel.errors import InvalidValue

__all__ = ["search_and_print"]


def search_and_print(
    model: Path,
    options: ModelOptions,
    *,
    labels: str | None,
    mask_encoding: Literal["ids", "colors"] | None,
    border_width: float,
    measured: MeasureOptions,
    json: JsonFile,
) -> None:
    """Searches the numbers of a dense CRF for a model, and says which are best and what they gain.

    Raises:
        InvalidValue: other options would be left aside.
        RunError: the file for the numbers could not be written.
    """
    _refuse_others(options, measured, border_width)
    if options.crf_out is not None:
        check_output_file("--crf-out", options.crf_out)
    from perpixel import build
    from perpixel.metrics import to_json

    with ProgressDisplay(console_for(json)) as display:
        procedure = {name: value for name, value in options.procedure().items() if value is not None}
        found = build.search_crf(
            build.load(model, device=options.device, precision=options.precision, **procedure) if procedure else model,
            options.data or "",
            split=options.split,
            images=options.crf_search or 0,
            start=options.crf_set or True,
            labels=labels,
            mask_encoding=mask_encoding,
            device=options.device,
            precision=options.precision,
            out=options.crf_out,
            on_progress=display.update,
        )
    for line in _lines(found):
        say(display.console, line)
    if options.crf_out is not None:
        say(display.console, f"numbers: {options.crf_out} (perpixel predict … --crf-set {options.crf_out})")
    write_json(json, to_json(found))


def _lines(found: dict[str, Any]) -> list[str]:
    numbers = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in found["crf"].items())
    lines = [f"best of {len(found['trials'])} trials: {numbers}"]
    for key, where in (
        ("searched", "the images that were searched"),
        ("unseen", "images that the search has not seen"),
    ):
        part = found[key]
        if part is not None:
            scores = part["mean_iou"]
            lines.append(
                f"on {where} ({part['images']}): mean IoU {100 * scores['without']:.2f} without, "
                f"{100 * scores['with']:.2f} with; {part['gain']['words']}"
            )
    if found["unseen"] is None:
        lines.append("the split holds no further images: what the search gains on images that it has not seen is open")
    return [*lines, *found["notes"]]


def _refuse_others(options: ModelOptions, measured: MeasureOptions, border_width: float) -> None:
    aside = {
        "--min-region": options.min_region,
        "--thresholds": options.thresholds,
        "--fallback": options.fallback != "next",
        "--memory": options.memory,
        "--border-width": border_width != DEFAULT_BORDER_WIDTH,
        "what is measured besides the IoU family": measured != MeasureOptions(),
    }
    named = [name for name, value in aside.items() if value]
    if named:
        raise InvalidValue(f"--crf-search compares mean IoU with and without a CRF; leave out {', '.join(named)}")
