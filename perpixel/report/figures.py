"""Curves and the confusion matrix of a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from perpixel.report.read_run import RunRecord
from perpixel.report.svg import (
    ACCENT,
    FULL,
    GRID,
    INK,
    MUTED,
    NARROW,
    ON_ACCENT,
    SERIES,
    WIDE,
    draw_svg,
    finish_axes,
    printable,
)

__all__ = ["MAX_NAMED_CLASSES", "confusion_figure", "learning_rate_figure", "loss_figure", "score_figure"]

MAX_NAMED_CLASSES = 60
"""Above this many classes the confusion matrix has no names along its sides."""

_MAX_POINTS = 400
_SMOOTH_FROM = 80
_MAX_NUMBERED_CLASSES = 20
_CELL_GAMMA = 0.7  # small shares stay visible
_RING: dict[str, Any] = {
    "marker": "o", "markersize": 9, "color": SERIES[0], "markerfacecolor": "none", "markeredgewidth": 1.6,
}  # fmt: skip
_SCORES = {"mean_iou": "mean IoU", "pixel_accuracy": "pixel accuracy", "mean_accuracy": "mean accuracy"}


def loss_figure(run: RunRecord, other: RunRecord | None = None) -> Markup | None:
    """Draws every term of the loss and their total over the steps; of the other run the total. None without events."""
    terms = [key for key in run.keys("train") if key != "total"]
    if not run.curve("train", "total")[0] and not any(run.curve("train", key)[0] for key in terms):
        return None

    def draw(axes: Axes) -> None:
        if len(terms) > 1:
            for index, key in enumerate(terms):
                style = "-" if index < len(SERIES) - 1 else ":"
                _line(axes, run.curve("train", key), SERIES[1 + index % (len(SERIES) - 1)], key, width=1.2, style=style)
        _line(axes, run.curve("train", "total"), SERIES[0], "total" if len(terms) > 1 else "loss", width=2.0)
        if other is not None:
            _line(axes, other.curve("train", "total"), INK, f"total, {other.name}", width=1.4, style="--")
        _log_when_wide(axes)
        axes.set_ylabel("loss")
        _finish_steps(axes, run, width=WIDE)

    return draw_svg(draw, width=WIDE, height=320, salt="loss")


def learning_rate_figure(run: RunRecord, other: RunRecord | None = None) -> Markup | None:
    """Draws the learning rate over the steps. None without events."""
    if not run.curve("train", "lr")[0]:
        return None

    def draw(axes: Axes) -> None:
        _line(axes, run.curve("train", "lr"), SERIES[0], run.name, width=2.0, smooth=False)
        if other is not None:
            _line(axes, other.curve("train", "lr"), INK, other.name, width=1.4, style="--", smooth=False)
        axes.set_ylim(bottom=0)
        axes.set_ylabel("learning rate")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        _finish_steps(axes, run, width=NARROW, legend=other is not None)

    return draw_svg(draw, width=NARROW, height=320, salt="lr")


def score_figure(
    run: RunRecord, other: RunRecord | None = None, *, baseline: tuple[str, float] | None = None
) -> Markup | None:
    """Draws the scores of the evaluations while training, in percent. None when there was no evaluation.

    Args:
        run: The run of the report.
        other: Its mean IoU is drawn beside.
        baseline: Name and mean IoU, a fraction, of a finished network; drawn as a level line.
    """
    curves = {label: run.curve("evaluation", key) for key, label in _SCORES.items()}
    if not any(steps for steps, _ in curves.values()):
        return None

    def draw(axes: Axes) -> None:
        for index, (label, (steps, values)) in enumerate(curves.items()):
            width = 2.2 if index == 0 else 1.3
            if index == 0 and values:
                best = int(np.argmax(values))
                label = f"{label} (best {100 * values[best]:.1f} % at step {steps[best]:,.0f})"
                axes.plot(steps[best], 100 * values[best], **_RING)
            _line(axes, (steps, [100 * v for v in values]), SERIES[index], label, width=width, smooth=False, mark="o")
        if other is not None:
            steps, values = other.curve("evaluation", "mean_iou")
            points = (steps, [100 * v for v in values])
            _line(axes, points, INK, f"mean IoU, {other.name}", width=1.4, style="--", smooth=False, mark="o")
        if baseline is not None:
            level = 100 * baseline[1]
            axes.axhline(level, color=MUTED, linewidth=1.2, linestyle=(0, (4, 3)), label=f"mean IoU, {baseline[0]}")
        axes.set_ylim(0, 100)
        axes.set_ylabel("score, %")
        _finish_steps(axes, run, width=FULL)

    return draw_svg(draw, width=FULL, height=320, salt="scores")


def confusion_figure(shares: NDArray[np.float64], names: Sequence[str]) -> Markup:
    """Draws a row-normalised confusion matrix as a heat map.

    Args:
        shares: (K, K) fractions of the true class's pixels, rows true and columns predicted; NaN rows stay empty.
        names: One name per class.
    """
    count = len(names)
    cell = 44 if count <= 12 else 30 if count <= _MAX_NUMBERED_CLASSES else 22 if count <= 30 else 14
    side = min(max(count * cell, 240), 860)
    margin = 20 + (min(max(map(len, names)), 22) * 7 if count <= MAX_NAMED_CLASSES else 20)

    def draw(axes: Axes) -> None:
        known = np.nan_to_num(shares)
        # Only opacity carries the value, so that the page's own accent colour and background serve both schemes.
        if count > MAX_NAMED_CLASSES:
            _image_cells(axes, known)
        else:
            _vector_cells(axes, known)
        _matrix_axes(axes, names)

    return draw_svg(draw, width=side + margin + 20, height=side + margin, salt="confusion")


def _vector_cells(axes: Axes, shares: NDArray[np.float64]) -> None:
    numbered = len(shares) <= _MAX_NUMBERED_CLASSES
    for row, column in np.argwhere(shares >= 0.005):
        share = float(shares[row, column])
        corner = (column - 0.5, row - 0.5)
        axes.add_patch(Rectangle(corner, 1, 1, color=ACCENT, alpha=share**_CELL_GAMMA, linewidth=0))
        if numbered:
            color = ON_ACCENT if share > 0.45 else INK
            axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", color=color, fontsize=8.5)


def _image_cells(axes: Axes, shares: NDArray[np.float64]) -> None:
    """Draws many cells as one picture, in a blue that serves both schemes: single shapes would fill megabytes."""
    pixels = np.empty((*shares.shape, 4))
    pixels[..., :3] = mpl.colors.to_rgb("#3b7ce8")
    pixels[..., 3] = np.where(shares >= 0.005, shares**_CELL_GAMMA, 0.0)
    axes.imshow(pixels, interpolation="none")


def _matrix_axes(axes: Axes, names: Sequence[str]) -> None:
    count = len(names)
    axes.set_xlim(-0.5, count - 0.5)
    axes.set_ylim(count - 0.5, -0.5)
    axes.set_aspect("equal")
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.tick_params(length=0)
    if count > MAX_NAMED_CLASSES:
        return
    shown = [name if len(name) <= 22 else name[:21] + "…" for name in map(printable, names)]
    size = 9.0 if count <= 30 else 6.0
    axes.set_xticks(range(count), shown, rotation=45 if count <= 30 else 90, fontsize=size)
    for label in axes.get_xticklabels():
        label.set(ha="right" if count <= 30 else "center", rotation_mode="anchor" if count <= 30 else "default")
    axes.set_yticks(range(count), shown, fontsize=size)
    for edge in np.arange(0.5, count - 1):
        axes.axhline(edge, color=GRID, linewidth=0.5, zorder=0)
        axes.axvline(edge, color=GRID, linewidth=0.5, zorder=0)


def _line(
    axes: Axes,
    points: tuple[list[float], list[float]],
    color: str,
    label: str,
    *,
    width: float,
    style: str = "-",
    smooth: bool = True,
    mark: str | None = None,
) -> None:
    """Draws one curve; a long noisy one as a pale line under its moving mean."""
    steps, values = (np.asarray(part, dtype=float) for part in points)
    if not steps.size:
        return
    label = printable(label)
    steps, values = _thinned(steps, values)
    few = mark if steps.size <= 40 else None
    if not smooth or steps.size < _SMOOTH_FROM:
        single = "o" if steps.size == 1 else few
        axes.plot(steps, values, style, color=color, linewidth=width, marker=single, markersize=3.5, label=label)
        return
    axes.plot(steps, values, style, color=color, linewidth=0.8, alpha=0.3)
    window = max(steps.size // 30, 3)
    padded = np.pad(values, (window // 2, window - 1 - window // 2), mode="edge")
    mean = np.convolve(padded, np.ones(window) / window, mode="valid")
    axes.plot(steps, mean, style, color=color, linewidth=width, label=label)


def _thinned(
    steps: NDArray[np.float64], values: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Averages neighbours until at most ``_MAX_POINTS`` are left, so that the file stays small."""
    group = -(-steps.size // _MAX_POINTS)
    if group == 1:
        return steps, values
    starts = np.arange(0, steps.size, group)
    sizes = np.diff(np.append(starts, steps.size))
    return np.add.reduceat(steps, starts) / sizes, np.add.reduceat(values, starts) / sizes


def _log_when_wide(axes: Axes) -> None:
    """Switches to a logarithmic axis when the values span more than a factor of 50 and all are positive."""
    values = np.concatenate([np.asarray(line.get_ydata(), dtype=float) for line in axes.lines])
    if values.size and values.min() > 0 and values.max() > 50 * values.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    elif values.size and values.min() >= 0:
        axes.set_ylim(bottom=0)


def _finish_steps(axes: Axes, run: RunRecord, *, width: float, legend: bool = True) -> None:
    """Sets the step axis, marks where stages begin, and puts the legend above axes of ``width`` CSS pixels."""
    offsets = run.stage_offsets()
    for stage, offset in list(offsets.items())[1:]:
        axes.axvline(offset, color=MUTED, linewidth=0.8, linestyle=":")
        axes.annotate(printable(stage), (offset, 1), (4, -10), xycoords=("data", "axes fraction"),
                      textcoords="offset points", color=MUTED, fontsize=8)  # fmt: skip
    axes.set_xlabel("step")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.margins(x=0.02)
    finish_axes(axes, width=width, legend=legend)
