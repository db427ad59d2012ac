"""``perpixel evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from perpixel.cli.output import JsonFile, check_json_file, console_for, write_json
from perpixel.cli.progress import ProgressDisplay
from perpixel.cli.score_table import print_scores
from perpixel.errors import InvalidValue

__all__ = ["evaluate"]

_FORMS = """\
give a model and data, or saved masks:
  perpixel evaluate MODEL --data DATA [--split val]
  perpixel evaluate --predictions DIR --targets DIR --labels NAME|FILE|N [--missing wrong]"""


def evaluate(
    model: Path | None = None,
    /,
    *,
    data: str | None = None,
    split: str = "val",
    predictions: Path | None = None,
    targets: Path | None = None,
    labels: str | None = None,
    mask_encoding: Literal["ids", "colors"] | None = None,
    missing: Literal["refuse", "wrong"] = "refuse",
    border_width: float = 5,
    device: str = "auto",
    precision: str = "fp32",
    crf: bool = False,
    crf_set: str | None = None,
    json: JsonFile = None,
) -> None:
    """Scores a model on a data set, or saved masks against their targets.

    Scores are of the whole data set at its original resolution: one confusion matrix over all pixels.

    Args:
        model: Folder of a model, such as best/ of a run.
        data: The data set, [format:]path.
        split: Split of the data set.
        predictions: Folder of predicted masks.
        targets: Folder of true masks, matched by name.
        labels: The classes: a known label space, a YAML file or a number of classes.
        mask_encoding: What the masks of the data set hold; without it, what those of the training data held.
        missing: Targets without a prediction are refused, or wrong in every pixel.
        border_width: Band around true borders for the border and interior errors, pixels; 0 leaves them out.
        device: auto, cpu or cuda.
        precision: fp32, auto, bf16 or fp16.
        crf: Refines with a dense CRF, with the numbers that the network was published with.
        crf_set: The same with another network's published numbers, such as deeplab_v1.
    """
    check_json_file(json)
    _check_form(model=model, data=data, predictions=predictions, targets=targets, labels=labels, width=border_width)
    if predictions is not None and (crf or crf_set):
        raise InvalidValue(f"--crf needs the probabilities of a model, saved masks hold classes; {_FORMS}")
    from perpixel import build
    from perpixel.metrics import to_json

    scores: dict[str, Any] = {}
    with ProgressDisplay(console_for(json)) as display:
        if model is not None and data is not None:
            width = border_width or None
            scores = build.evaluate(
                model,
                data,
                split=split,
                labels=labels,
                mask_encoding=mask_encoding,
                device=device,
                precision=precision,
                border_width_px=width,
                crf=crf_set or crf,
                on_progress=display.update,
            )
        elif predictions is not None and targets is not None and labels is not None:
            scores = build.evaluate_predictions(
                predictions, targets, labels, missing=missing, on_progress=display.update
            )
    print_scores(display.console, scores)
    write_json(json, to_json(scores))


def _check_form(
    *,
    model: Path | None,
    data: str | None,
    predictions: Path | None,
    targets: Path | None,
    labels: str | None,
    width: float,
) -> None:
    of_model = {"MODEL": model, "--data": data}
    of_masks = {"--predictions": predictions, "--targets": targets, "--labels": labels}
    needed, excluded = (of_masks, of_model) if predictions is not None or targets is not None else (of_model, {})
    lacking = [name for name, value in needed.items() if value is None]
    if lacking:
        raise InvalidValue(f"{' and '.join(lacking)} missing; {_FORMS}")
    clashing = [name for name, value in excluded.items() if value is not None]
    if clashing:
        raise InvalidValue(f"{' and '.join(clashing)} does not go with saved masks; {_FORMS}")
    if width < 0:
        raise InvalidValue(f"--border-width is a number of pixels, 0 or more, got {width}")
