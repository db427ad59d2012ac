"""``perpixel predict``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter
from rich.console import Console

from perpixel.cli.inference_options import check_fallback, parse_scales, parse_tile
from perpixel.cli.output import JsonFile, check_json_file, console_for, say, write_json
from perpixel.cli.progress import ProgressDisplay, duration
from perpixel.errors import DataError, InvalidValue

if TYPE_CHECKING:
    from perpixel.inference import PredictionReport

__all__ = ["predict"]

_LISTED = 20


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
    min_region: int = 0,
    thresholds: str | None = None,
    fallback: str = "next",
    submit: Literal["voc", "voc-comp5", "cityscapes", "ade20k", "bdd100k", "isbi"] | None = None,
    partial: bool = False,
    protocol: str | None = None,
    scales: str | None = None,
    flip: bool | None = None,
    tile: str | None = None,
    memory: str | None = None,
    max_pixels: int | None = None,
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
        crf_set: The same with other numbers: a published set such as deeplab_v1, or a YAML file.
        min_region: Gives connected regions with fewer pixels to the class around them.
        thresholds: Least probability per class, name=0.5,other=0.3 or a YAML file; a pixel below it gets the fallback.
        fallback: next (the next best class over its threshold), ignore, or a class name.
        submit: Writes what this test server takes, as folder and archive, and checks it; no overlays.
        partial: Lets --submit take another number of images than the test set has, for a trial.
        protocol: A published test-time protocol: torchseg, semseg, encoding, deeplab, hrnet or cityscapes-whole, each
            with :DATA for its settings of another data set.
        scales: Sizes to see each image in, such as 0.5,0.75,1,1.25,1.5,1.75; probabilities are averaged.
        flip: Sees each image mirrored too; a protocol says itself unless told.
        tile: Windows over each image, pixels of a side or HEIGHT,WIDTH.
        memory: What the work on an image may take beside the model, such as 4GB; without it, 60 % of what is free.
            Larger images are segmented tile by tile, from disk to disk where they are TIFF or .npy.
        max_pixels: Most pixels of a file that must be decoded at once; without it, 178000000.
    """
    check_json_file(json)
    if not inputs:
        raise DataError(f"nothing to predict: name images, folders or glob patterns after the model {model}")
    check_fallback(fallback, thresholds)
    if partial and submit is None:
        raise InvalidValue("--partial lets --submit take another number of images; give --submit too")
    from perpixel.build import predict as predict_images
    from perpixel.inference import PostProcessing, parse_thresholds

    postprocessing = PostProcessing(
        min_region=min_region,
        thresholds={} if thresholds is None else parse_thresholds(thresholds),
        fallback=fallback,
    )
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
            postprocessing=postprocessing,
            submit=submit,
            partial=partial,
            protocol=protocol,
            scales=parse_scales(scales),
            flip=flip,
            tile=parse_tile(tile),
            memory=memory,
            max_pixels=max_pixels,
            skip_errors=True,  # they are in the JSON, and the error at the end
            on_progress=display.update,
            on_plan=display.say,
        )
    _finish(console, report, out, json)


def _finish(console: Console, report: PredictionReport, out: Path, json: str | None) -> None:
    """Says and writes what was done; what could not be done is the error at the end."""
    for note in report.notes:
        say(console, note)
    rate = f", {report.images / report.seconds:.1f} per second" if report.seconds > 0 else ""
    where = f"masks are in {out}" if report.submission is None else f"checked, ready to upload: {report.submission}"
    say(console, f"{report.images} images predicted in {duration(report.seconds)}{rate}; {where}")
    values = {
        "out": out.as_posix(),
        "images": report.images,
        "pixels": report.pixels,
        "seconds": report.seconds,
        "failures": [{"image": f.image.as_posix(), "reason": f.reason} for f in report.failures],
        "notes": list(report.notes),
        "submission": None if report.submission is None else report.submission.as_posix(),
    }
    write_json(json, values)
    if report.failures:
        listed = "\n".join(f"  {failure.reason}" for failure in report.failures[:_LISTED])
        more = f"\n  and {len(report.failures) - _LISTED} more" if len(report.failures) > _LISTED else ""
        raise DataError(
            f"{len(report.failures)} of {len(report.failures) + report.images} images could not be predicted; "
            f"predictions.jsonl in {out} names every one:\n{listed}{more}"
        )
