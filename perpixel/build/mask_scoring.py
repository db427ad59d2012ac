"""The scores of masks that any tool wrote, and the comparison of two folders of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from perpixel.build.progress import ProgressCallback, Reporter
from perpixel.build.score_values import comparison_values, score_values
from perpixel.errors import DataError, InvalidValue
from perpixel.evaluation import Evaluation, Measures, compare_evaluations, evaluate_masks
from perpixel.evaluation.mask_folders import MissingRule
from perpixel.evaluation.mask_pairs import MaskEncoding
from perpixel.evaluation.measures import BoundaryOptions
from perpixel.labels import LabelSpace
from perpixel.metrics.conventions import CONVENTIONS
from perpixel.metrics.image_counts import SUMMARY_SCORES

__all__ = ["choose_measures", "evaluate_predictions"]


def evaluate_predictions(
    predictions: str | Path,
    targets: str | Path,
    labels: str | int,
    *,
    missing: str = "refuse",
    pattern: str | None = None,
    mask_encoding: str = "ids",
    measures: Measures | None = None,
    intervals: bool = False,
    per_image: bool = False,
    instances: str | Path | None = None,
    against: str | Path | None = None,
    workers: int | None = None,
    on_progress: ProgressCallback | None = None,
) -> dict[str, Any]:
    """Scores saved masks against targets, whatever tool wrote them; files are matched by stem or by a pattern.

    Args:
        predictions: Folder of predicted masks.
        targets: Folder of true masks.
        labels: A known label space, a YAML file or a number of classes.
        missing: ``"refuse"``, or ``"wrong"``: targets without a usable prediction count as wrong in every pixel.
        pattern: ``"PREDICTION=TARGET"`` with ``{name}`` in both, as `perpixel.evaluation.mask_folders` describes.
        mask_encoding: ``"ids"``, or ``"colors"`` where colours are the labels.
        measures: What to measure besides the IoU family.
        intervals: Adds 95 % intervals over images.
        per_image: Adds the scores of every image.
        instances: Folder of Cityscapes instance numbers, for its iIoU.
        against: Folder of other predictions for the same targets, to compare with; a pattern fits both.
        workers: Processes; None takes all cores where that is faster.
        on_progress: Receives `Progress`.

    Returns:
        The keys of metrics.json; ``unread`` lists damaged files, whose images are not in the scores (or wrong in
        every pixel, where it says so); ``comparison`` what distinguishes both folders.

    Raises:
        DataError: files do not match, are of another size or hold ids outside the classes; ``missing="wrong"`` counts
            missing predictions and wrong ids as wrong.
        InvalidValue: an option is not as said.
    """
    space = LabelSpace.load(labels)

    def scored(folder: str | Path, phase: str) -> Evaluation:
        return evaluate_masks(
            Path(folder),
            Path(targets),
            space,
            pattern=pattern,
            missing=cast("MissingRule", missing),
            mask_encoding=cast("MaskEncoding", mask_encoding),
            measures=measures,
            instances_dir=instances,
            workers=workers,
            on_progress=Reporter(phase, on_progress),
        )

    evaluation = scored(predictions, "evaluate")
    values = score_values(evaluation, space, with_intervals=intervals, per_image=per_image)
    if against is None or evaluation.refused is not None:
        return values
    other = scored(against, "evaluate the other")
    if other.refused is not None:
        raise DataError(f"the masks in {against} have no scores to compare with: {other.refused}")
    other_values = score_values(other, space)
    values["comparison"] = {
        "against": str(against),
        **{key: other_values[key] for key in SUMMARY_SCORES},
        "unread": other_values.get("unread", []),
        "notes": [note for note in other_values.get("notes", []) if note not in values.get("notes", [])],
        **comparison_values(compare_evaluations(evaluation, other), space),
    }
    return values


def choose_measures(
    *,
    boundary: bool = False,
    boundary_options: Mapping[str, Any] | None = None,
    trimap: Sequence[float] = (),
    region_sizes: bool = False,
    neurons: bool = False,
    calibration: bool = False,
    convention: str | None = None,
    all_conventions: bool = False,
    cityscapes: bool = False,
) -> Measures:
    """Turns words of the command line into what is measured.

    Options of boundaries ask for boundaries.

    Raises:
        InvalidValue: one convention and all of them, an unknown one, a width that is none, or an option of boundaries
            that is none.
    """
    if convention is not None and all_conventions:
        raise InvalidValue(f"--convention {convention} and --all-conventions are two choices; give one of them")
    chosen = tuple(CONVENTIONS) if all_conventions else () if convention is None else (convention,)
    return Measures(
        boundary=boundary or bool(boundary_options),
        boundary_options=BoundaryOptions(**boundary_options or {}),
        trimap_px=tuple(trimap),
        region_sizes=region_sizes,
        neurons=neurons,
        calibration=calibration,
        conventions=chosen,
        cityscapes=cityscapes,
    )
