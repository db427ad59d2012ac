"""``perpixel evaluate``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from perpixel.cli.crf_search import search_and_print
from perpixel.cli.evaluate_options import DEFAULT_BORDER_WIDTH, MaskOptions, MeasureOptions, ModelOptions
from perpixel.cli.inference_options import check_fallback
from perpixel.cli.output import JsonFile, check_json_file, console_for, write_json
from perpixel.cli.progress import ProgressDisplay
from perpixel.cli.score_table import print_scores
from perpixel.errors import DataError, InvalidValue

if TYPE_CHECKING:
    from perpixel.evaluation import Measures

__all__ = ["evaluate"]

_FORMS = """\
give a model and data, or saved masks:
  perpixel evaluate MODEL --data DATA [--split val]
  perpixel evaluate --predictions DIR --targets DIR --labels NAME|FILE|N [--missing wrong]"""
_NO_MODEL = ModelOptions()
_NO_MASKS = MaskOptions()
_NO_MEASURES = MeasureOptions()
_LISTED = 20


def evaluate(
    model: Path | None = None,
    /,
    *,
    labels: str | None = None,
    mask_encoding: Literal["ids", "colors"] | None = None,
    border_width: float | None = None,
    of_model: ModelOptions = _NO_MODEL,
    of_masks: MaskOptions = _NO_MASKS,
    measured: MeasureOptions = _NO_MEASURES,
    json: JsonFile = None,
) -> None:
    """Scores a model on a data set, or saved masks against their targets.

    Scores are of the whole data set at its original resolution: one confusion matrix over all pixels.

    Args:
        model: Folder of a model, such as best/ of a run.
        labels: The classes: a known label space, a YAML file or a number of classes.
        mask_encoding: What masks hold; without it, ids, or what those of a model's training data held.
        border_width: Band around true borders for border and interior errors, pixels; for a model 5 unless told, and
            0 leaves them out; for saved masks none unless told.
    """
    check_json_file(json)
    _check_form(model, labels, of_model, of_masks)
    if border_width is not None and not border_width >= 0:
        raise InvalidValue(f"--border-width is a number of pixels, 0 or more, got {border_width}")
    of_a_model = DEFAULT_BORDER_WIDTH if border_width is None else border_width
    from perpixel import build
    from perpixel.metrics import to_json

    if model is not None and of_model.crf_search is not None:
        search_and_print(
            model,
            of_model,
            labels=labels,
            mask_encoding=mask_encoding,
            border_width=of_a_model,
            measured=measured,
            json=json,
        )
        return
    check_fallback(of_model.fallback, of_model.thresholds)
    if of_model.crf_out is not None:
        raise InvalidValue("--crf-out keeps what --crf-search finds; give --crf-search IMAGES too")
    measures = build.choose_measures(**measured.chosen(cityscapes=of_masks.instances is not None))
    with ProgressDisplay(console_for(json)) as display:
        common = {"measures": measures, "intervals": measured.intervals, "per_image": measured.per_image}
        common["on_progress"] = display.update
        if model is not None:
            of_plan = {"memory": of_model.memory, "on_plan": display.say}
            scores = _of_model(model, labels, mask_encoding, of_a_model, of_model, common | of_plan)
        else:
            common["measures"] = replace(measures, border_width_px=border_width or None)
            scores = _of_masks(labels or "", mask_encoding, of_masks, common)
    print_scores(display.console, scores)
    if scores.get("refused"):
        display.say(f"perpixel itself gives these masks no score: {scores['refused']}", style="yellow")
    write_json(json, to_json(scores))
    _raise_for_what_is_left_out(scores)


def _of_model(
    model: Path,
    labels: str | None,
    mask_encoding: str | None,
    border_width: float,
    options: ModelOptions,
    common: dict[str, Any],
) -> dict[str, Any]:
    from perpixel import build
    from perpixel.inference import PostProcessing, parse_thresholds

    measures: Measures = common["measures"]
    if measures.cityscapes:
        raise InvalidValue("--cityscapes needs masks of Cityscapes' ids: predict with --out, then give --predictions")
    postprocessing = PostProcessing(
        min_region=options.min_region,
        thresholds={} if options.thresholds is None else parse_thresholds(options.thresholds),
        fallback=options.fallback,
    )
    return build.evaluate(
        model,
        options.data or "",
        split=options.split,
        labels=labels,
        mask_encoding=mask_encoding,
        device=options.device,
        precision=options.precision,
        border_width_px=border_width or None,
        crf=options.crf_set or options.crf,
        postprocessing=postprocessing,
        **options.procedure(),
        **common,
    )


def _of_masks(labels: str, mask_encoding: str | None, options: MaskOptions, common: dict[str, Any]) -> dict[str, Any]:
    from perpixel import build

    if common["measures"].calibration:
        raise InvalidValue("--calibration needs the probabilities of a model, saved masks hold classes")
    return build.evaluate_predictions(
        options.predictions or "",
        options.targets or "",
        labels,
        missing=options.missing,
        pattern=options.pattern,
        mask_encoding=mask_encoding or "ids",
        instances=options.instances,
        against=options.against,
        workers=options.workers,
        **common,
    )


def _check_form(model: Path | None, labels: str | None, of_model: ModelOptions, of_masks: MaskOptions) -> None:
    if of_masks.predictions is None and of_masks.targets is None:
        needed: dict[str, object] = {"MODEL": model, "--data": of_model.data}
        excluded = of_masks.given()
        kind = "a model"
    else:
        needed = {"--predictions": of_masks.predictions, "--targets": of_masks.targets, "--labels": labels}
        excluded = ([] if model is None else ["MODEL"]) + of_model.given()
        kind = "saved masks"
        if "--crf" in excluded or "--crf-set" in excluded:
            raise InvalidValue(f"--crf needs the probabilities of a model, saved masks hold classes; {_FORMS}")
    lacking = [name for name, value in needed.items() if value is None]
    if lacking:
        raise InvalidValue(f"{' and '.join(lacking)} missing; {_FORMS}")
    if excluded:
        raise InvalidValue(f"{' and '.join(excluded)} does not go with {kind}; {_FORMS}")


def _raise_for_what_is_left_out(scores: dict[str, Any]) -> None:
    """Ends with an error where scores are not of all images, after they were shown and written.

    Raises:
        DataError: files could not be read, or ids outside the classes leave no score at all.
    """
    refused = scores.get("refused")
    if refused and all(entry.get("error") for entry in scores.get("conventions", {}).values()):
        raise DataError(str(refused))
    unread = [*scores.get("unread", ()), *scores.get("comparison", {}).get("unread", ())]
    if unread:
        listed = "\n".join(f"  {file['reason']}" for file in unread[:_LISTED])
        more = f"\n  and {len(unread) - _LISTED} more" if len(unread) > _LISTED else ""
        wrong = sum(file["counts_as_wrong"] for file in unread)
        what = "the scores are of the other images"
        if wrong:
            what = f"{wrong} of them count as wrong in every pixel, {len(unread) - wrong} are left out of the scores"
        raise DataError(f"{len(unread)} files could not be read; {what}:\n{listed}{more}")
