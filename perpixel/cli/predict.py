"""``perpixel predict``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.console import Console

from perpixel.cli.output import JsonFile, check_json_file, console_for, say, write_json
from perpixel.cli.progress import ProgressDisplay, duration
from perpixel.errors import DataError

if TYPE_CHECKING:
    from perpixel.inference import PredictionReport

__all__ = ["predict"]


def predict(
    model: Path,
    /,
    *inputs: Annotated[str, Parameter(name="INPUT")],
    out: Path,
    overlays: bool = True,
    device: str = "auto",
    precision: str = "auto",
    crf: bool = False,
    crf_set: str | None = None,
    json: JsonFile = None,
) -> None:
    """Predicts images: writes a mask of stored class ids and an overlay for each.

    Args:
        model: Folder of a model, such as best/ of a run.
        inputs: Images, folders (searched with their subfolders) and glob patterns.
        out: Folder for masks, overlays/ and predictions.jsonl.
        overlays: Writes pictures with the classes painted over the images.
        device: auto, cpu or cuda.
        precision: auto, fp32, bf16 or fp16.
        crf: Refines with a dense CRF, with the numbers that the network was published with.
        crf_set: The same with another network's published numbers, such as deeplab_v1.
    """
    check_json_file(json)
    if not inputs:
        raise DataError(f"nothing to predict: name images, folders or glob patterns after the model {model}")
    from perpixel.build import predict as predict_images

    console = console_for(json)
    with ProgressDisplay(console) as display:
        report = predict_images(
            model,
            inputs,
            out,
            overlays=overlays,
            device=device,
            precision=precision,
            crf=crf_set or crf,
            on_progress=display.update,
        )
    _finish(console, report, out, json)


def _finish(console: Console, report: PredictionReport, out: Path, json: str | None) -> None:
    """Says and writes what was done; what could not be done is the error at the end."""
    for note in report.notes:
        say(console, note)
    rate = f", {report.images / report.seconds:.1f} per second" if report.seconds > 0 else ""
    say(console, f"{report.images} images predicted in {duration(report.seconds)}{rate}; masks are in {out}")
    values = {
        "out": out.as_posix(),
        "images": report.images,
        "pixels": report.pixels,
        "seconds": report.seconds,
        "failures": [{"image": f.image.as_posix(), "reason": f.reason} for f in report.failures],
        "notes": list(report.notes),
    }
    write_json(json, values)
    if report.failures:
        listed = "\n".join(f"  {failure.reason}" for failure in report.failures)
        raise DataError(f"{len(report.failures)} images could not be predicted:\n{listed}")
