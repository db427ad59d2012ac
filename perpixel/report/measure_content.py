"""What the page shows of the further measures and of a comparison, ready for the template."""

from __future__ import annotations

import shlex
from typing import Any

from perpixel.metrics.image_changes import ImageChange
from perpixel.metrics.image_counts import SUMMARY_SCORES
from perpixel.report.boundary import boundary
from perpixel.report.calibration import calibration
from perpixel.report.changed_images import BOTH_WRONG_COLOR, GAINED_COLOR, LOST_COLOR, change_groups
from perpixel.report.compare import ClassChange, compare_runs
from perpixel.report.intervals import intervals
from perpixel.report.measure_figures import boundary_figure, change_figure, confidence_figure, reliability_figure
from perpixel.report.read_run import MEASURES_FILE, RunRecord, mapping, number
from perpixel.report.size_classes import size_classes

__all__ = ["add_command", "comparison_content", "measure_content"]

_LISTED = 30
_MEASURES = ("--boundary", "--trimap", "1,2,3,5,10,20", "--region-sizes", "--calibration", "--intervals")


def measure_content(run: RunRecord, other: RunRecord | None) -> dict[str, Any]:
    """Returns boundary scores, region sizes, calibration and intervals of a run, and of the other run beside it."""
    scores, sizes, calibrated = boundary(run), size_classes(run), calibration(run)
    beside, peer_calibration = (None, None) if other is None else (boundary(other), calibration(other))
    level = number(run.metrics.get("mean_iou"))
    peer_name = "" if other is None else other.name
    curves = [(run.name, scores), (peer_name, beside)]
    calibrations = [(run.name, calibrated), (peer_name, peer_calibration)]
    return {
        "intervals": intervals(run),
        "boundary": scores,
        "peer_boundary": beside,
        "boundary_figure": boundary_figure(
            [(name, found) for name, found in curves if found is not None],
            whole=None if level is None else (f"all pixels, {run.name}", level),
        ),
        "sizes": sizes,
        "peer_sizes": None if other is None else size_classes(other),
        "calibration": calibrated,
        "peer_calibration": peer_calibration,
        "reliability_figure": reliability_figure([(name, found) for name, found in calibrations if found is not None]),
        "confidence_figure": None if calibrated is None else confidence_figure(calibrated),
        "worst_ece": 1.0 if calibrated is None else max((ece for _, ece in calibrated.per_class), default=0.0) or 1.0,
        "add_command": add_command(run),
    }


def comparison_content(run: RunRecord, other: RunRecord | None) -> dict[str, Any]:
    """Returns the paired comparison with the other run; its values are empty without one."""
    found = None if other is None else compare_runs(run, other)
    images = () if found is None else found.images
    saved = set() if other is None else _saved(run) & _saved(other)
    return {
        "comparison": found,
        "score_names": SUMMARY_SCORES,
        "changed_classes": [] if found is None else sorted(found.classes, key=_by_gain),
        "change_figure": change_figure(images),
        "change_groups": [] if other is None else change_groups(run, other, images),
        "change_rows": _most_changed(images),
        "num_shown": sum(image.name in saved for image in images),
        "change_colors": {"gained": GAINED_COLOR, "lost": LOST_COLOR, "both": BOTH_WRONG_COLOR},
    }


def add_command(run: RunRecord) -> str:
    """Returns the command that adds the measures which an older run lacks."""
    data = mapping(run.config.get("data"))
    source = str(run.path / "scenes") if data.get("source") == "scenes" else str(data.get("source") or "DATA")
    split, folder = str(run.metrics.get("split") or "val"), str(run.path)
    words = ["perpixel", "evaluate", folder, "--data", source, "--split", split, *_MEASURES]
    return shlex.join([*words, "--json", f"{folder}/{MEASURES_FILE}"])


def _saved(run: RunRecord) -> set[str]:
    return {str(entry.get("name")) for entry in run.images}


def _by_gain(row: ClassChange) -> float:
    return float("inf") if row.difference is None else -row.difference


def _most_changed(images: tuple[ImageChange, ...]) -> tuple[ImageChange, ...]:
    """Returns the largest gains and the largest losses, all images where there are few."""
    return images if len(images) <= 2 * _LISTED else (*images[:_LISTED], *images[-_LISTED:])
