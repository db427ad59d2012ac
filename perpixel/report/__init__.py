"""A run as one HTML file that opens anywhere: scores, curves, classes, confusions, images, and what was decided."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from perpixel.errors import RunError
from perpixel.report.error_split import DEFAULT_WIDTH_PX, error_split
from perpixel.report.figures import confusion_figure, learning_rate_figure, loss_figure, score_figure
from perpixel.report.headline import duration, facts, notes, tiles
from perpixel.report.measure_content import comparison_content, measure_content
from perpixel.report.page_environment import page_environment
from perpixel.report.pictures import BORDER_COLOR, INSIDE_COLOR, picture_groups
from perpixel.report.read_run import RunRecord, number, read_run, told_apart
from perpixel.report.tables import Peer, class_rows, confusion, data_splits, peers, swatches, time_shares, warnings

__all__ = ["write_report"]

_HERE = Path(__file__).parent


def write_report(run: Path, other: Path | None = None, *, out: Path | None = None) -> Path:
    """Writes the report of a run, finished or interrupted, as one HTML file without any outside part.

    Only the run folder and the images that its predictions/images.json names are read. What is missing is said in the
    section that would show it.

    Args:
        run: The run folder.
        other: A second run folder, shown beside the first one.
        out: The file to write; None writes ``report.html`` in ``run``.

    Returns:
        The path of the file.

    Raises:
        RunError: ``run`` or ``other`` is no run folder, or the file cannot be written.
    """
    record = read_run(Path(run))
    beside = None if other is None else read_run(Path(other))
    if beside is not None:
        record, beside = told_apart(record, beside)
    path = record.path / "report.html" if out is None else Path(out)
    page = _environment().get_template("template.html").render(_content(record, beside))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page, encoding="utf-8", errors="replace")
    except OSError as error:
        raise RunError(f"cannot write the report to {path}: {error}; give another file as out") from error
    return path


def _content(run: RunRecord, other: RunRecord | None) -> dict[str, Any]:
    """Gathers everything that the template shows."""
    beside = peers(run, other)
    rows = class_rows(run, beside)
    split = error_split(run)
    peer_split = None if other is None else error_split(other)
    matrix = confusion(run)
    return {
        "run": run,
        "other": other,
        "missing": run.missing,
        "notes": notes(run, other),
        "peers": beside,
        "tiles": tiles(run, beside),
        "facts": facts(run),
        "decisions": run.of_kind("decision"),
        "data": data_splits(run),
        "swatches": swatches(run),
        "loss_figure": loss_figure(run, other),
        "lr_figure": learning_rate_figure(run, other),
        "score_figure": score_figure(run, other, baseline=_level(beside)),
        "time": time_shares(run),
        "class_rows": rows,
        "ranked_rows": sorted(rows, key=lambda row: -1.0 if row.iou is None else row.iou, reverse=True),
        "confusion": matrix,
        "confusion_figure": None if matrix is None else confusion_figure(matrix.shares, matrix.names),
        "split": split,
        "peer_split": peer_split,
        "peer_rows": {} if peer_split is None else {row.name: row for row in peer_split.rows},
        "groups": picture_groups(run, border_width_px=DEFAULT_WIDTH_PX if split is None else split.width_px),
        "map_colors": {"border": f"rgb{BORDER_COLOR}", "inside": f"rgb{INSIDE_COLOR}"},
        "warnings": warnings(run),
        **measure_content(run, other),
        **comparison_content(run, other),
        "style": Markup((_HERE / "style.css").read_text(encoding="utf-8")),  # the package's own file
    }


def _level(beside: list[Peer]) -> tuple[str, float] | None:
    """Returns name and mean IoU of the baseline: a peer without a run of its own."""
    for peer in beside:
        value = number(peer.scores.get("mean_iou"))
        if peer.run is None and value is not None:
            return peer.name, value
    return None


def _environment() -> Environment:
    return page_environment(
        percent=_percent,
        plain=_plain_percent,
        grouped=_count,
        duration=duration,
        points=_points,
        signed=_signed,
        probability=_probability,
        first_upper=_first_upper,
    )


def _percent(value: float | None, digits: int = 1) -> str:
    """Says a fraction as ``71.3 %`` with a narrow no-break space; undefined is a dash."""
    return "–" if value is None else f"{100 * value:.{digits}f}\u202f%"


def _plain_percent(value: float | None, digits: int = 1) -> str:
    """Says a fraction in percent without the sign, for columns whose head has it."""
    return "–" if value is None or math.isnan(value) else f"{100 * value:.{digits}f}"


def _points(value: float) -> str:
    """Says a difference of fractions in percentage points, with its sign."""
    return "0.0" if abs(value) < 0.0005 else f"{100 * value:+.1f}".replace("-", "−")


def _signed(value: float | None, digits: int = 1) -> str:
    """Says a difference of fractions in percentage points with so many digits; undefined is a dash."""
    return "–" if value is None or math.isnan(value) else f"{100 * value:+.{digits}f}".replace("-", "−")


def _probability(value: float) -> str:
    """Says a p-value with two digits that count, small ones as a bound."""
    return "–" if math.isnan(value) else "< 0.001" if value < 0.001 else f"{value:.2g}"


def _first_upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def _count(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"
