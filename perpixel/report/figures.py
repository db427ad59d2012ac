"""Curves and the confusion matrix as SVG that takes its colours from the page, so that it fits light and dark.

Figures are drawn in stand-in colours, which become CSS variables (``--ink``, ``--s1``…) in the SVG's text.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from perpixel.report.read_run import RunRecord

__all__ = ["MAX_NAMED_CLASSES", "confusion_figure", "learning_rate_figure", "loss_figure", "score_figure"]

MAX_NAMED_CLASSES = 60
"""Above this many classes the confusion matrix has no names along its sides."""

_INK, _MUTED, _GRID, _ACCENT, _ON_ACCENT = "#010101", "#010102", "#010103", "#010104", "#010105"
_SERIES = tuple(f"#0a0a0{i}" for i in range(1, 9))
_VARIABLES = {_INK: "ink", _MUTED: "muted", _GRID: "rule", _ACCENT: "accent", _ON_ACCENT: "on-accent"} | {
    color: f"s{i}" for i, color in enumerate(_SERIES, start=1)
}
_PX = 1 / 96  # a CSS pixel in inches
_WIDE, _NARROW, _FULL = 690.0, 340.0, 1040.0  # widths of figures, CSS pixels
_MAX_POINTS = 400
_SMOOTH_FROM = 80
_MAX_NUMBERED_CLASSES = 20
_CELL_GAMMA = 0.7  # small shares stay visible
_RING: dict[str, Any] = {
    "marker": "o", "markersize": 9, "color": _SERIES[0], "markerfacecolor": "none", "markeredgewidth": 1.6,
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
                style = "-" if index < len(_SERIES) - 1 else ":"
                _line(
                    axes, run.curve("train", key), _SERIES[1 + index % (len(_SERIES) - 1)], key, width=1.2, style=style
                )
        _line(axes, run.curve("train", "total"), _SERIES[0], "total" if len(terms) > 1 else "loss", width=2.0)
        if other is not None:
            _line(axes, other.curve("train", "total"), _INK, f"total, {other.name}", width=1.4, style="--")
        _log_when_wide(axes)
        axes.set_ylabel("loss")
        _finish_steps(axes, run, width=_WIDE)

    return _draw(draw, width=_WIDE, height=320, salt="loss")


def learning_rate_figure(run: RunRecord, other: RunRecord | None = None) -> Markup | None:
    """Draws the learning rate over the steps. None without events."""
    if not run.curve("train", "lr")[0]:
        return None

    def draw(axes: Axes) -> None:
        _line(axes, run.curve("train", "lr"), _SERIES[0], run.name, width=2.0, smooth=False)
        if other is not None:
            _line(axes, other.curve("train", "lr"), _INK, other.name, width=1.4, style="--", smooth=False)
        axes.set_ylim(bottom=0)
        axes.set_ylabel("learning rate")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        _finish_steps(axes, run, width=_NARROW, legend=other is not None)

    return _draw(draw, width=_NARROW, height=320, salt="lr")


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
            _line(axes, (steps, [100 * v for v in values]), _SERIES[index], label, width=width, smooth=False, mark="o")
        if other is not None:
            steps, values = other.curve("evaluation", "mean_iou")
            points = (steps, [100 * v for v in values])
            _line(axes, points, _INK, f"mean IoU, {other.name}", width=1.4, style="--", smooth=False, mark="o")
        if baseline is not None:
            level = 100 * baseline[1]
            axes.axhline(level, color=_MUTED, linewidth=1.2, linestyle=(0, (4, 3)), label=f"mean IoU, {baseline[0]}")
        axes.set_ylim(0, 100)
        axes.set_ylabel("score, %")
        _finish_steps(axes, run, width=_FULL)

    return _draw(draw, width=_FULL, height=320, salt="scores")


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

    return _draw(draw, width=side + margin + 20, height=side + margin, salt="confusion")


def _vector_cells(axes: Axes, shares: NDArray[np.float64]) -> None:
    numbered = len(shares) <= _MAX_NUMBERED_CLASSES
    for row, column in np.argwhere(shares >= 0.005):
        share = float(shares[row, column])
        corner = (column - 0.5, row - 0.5)
        axes.add_patch(Rectangle(corner, 1, 1, color=_ACCENT, alpha=share**_CELL_GAMMA, linewidth=0))
        if numbered:
            color = _ON_ACCENT if share > 0.45 else _INK
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
    shown = [name if len(name) <= 22 else name[:21] + "…" for name in map(_printable, names)]
    size = 9.0 if count <= 30 else 6.0
    axes.set_xticks(range(count), shown, rotation=45 if count <= 30 else 90, fontsize=size)
    for label in axes.get_xticklabels():
        label.set(ha="right" if count <= 30 else "center", rotation_mode="anchor" if count <= 30 else "default")
    axes.set_yticks(range(count), shown, fontsize=size)
    for edge in np.arange(0.5, count - 1):
        axes.axhline(edge, color=_GRID, linewidth=0.5, zorder=0)
        axes.axvline(edge, color=_GRID, linewidth=0.5, zorder=0)


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
    label = _printable(label)
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
        axes.axvline(offset, color=_MUTED, linewidth=0.8, linestyle=":")
        axes.annotate(_printable(stage), (offset, 1), (4, -10), xycoords=("data", "axes fraction"),
                      textcoords="offset points", color=_MUTED, fontsize=8)  # fmt: skip
    axes.set_xlabel("step")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.margins(x=0.02)
    axes.grid(axis="y", color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(length=0, which="both")
    if legend and axes.get_legend_handles_labels()[1]:
        labels = axes.get_legend_handles_labels()[1]
        columns = -(-len(labels) // _legend_rows(labels, width))
        axes.legend(
            loc="lower left", bbox_to_anchor=(0, 1.0), ncols=columns, frameon=False, borderaxespad=0.2,
            handlelength=1.4, columnspacing=1.4, labelcolor=_INK,
        )  # fmt: skip


def _legend_rows(labels: Sequence[str], width: float) -> int:
    """Estimates how many rows a legend needs in ``width`` CSS pixels; the text is set by the page's own fonts."""
    return max(math.ceil(sum(6.2 * len(label) + 40 for label in labels) / (0.92 * width)), 1)


def _draw(draw: Callable[[Axes], None], *, width: float, height: float, salt: str) -> Markup:
    """Returns the SVG of one pair of axes, ``width`` by ``height`` CSS pixels."""
    with _style(salt):
        figure = Figure(figsize=(width * _PX, height * _PX), layout="constrained")
        draw(figure.add_subplot())
        buffer = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", metadata=nothing, transparent=True)
    return Markup(_page_svg(buffer.getvalue(), width))  # matplotlib escapes its text


def _style(salt: str) -> AbstractContextManager[None]:
    """Settings for one figure: text stays text, names are no formulas, ids do not collide on the page."""
    settings = {
        "svg.fonttype": "none", "svg.hashsalt": salt, "text.parse_math": False, "text.usetex": False,
        "font.family": "sans-serif", "font.size": 9, "axes.labelcolor": _MUTED, "axes.edgecolor": _GRID,
        "xtick.color": _MUTED, "ytick.color": _MUTED, "xtick.labelcolor": _INK, "ytick.labelcolor": _INK,
        "axes.unicode_minus": False,
    }  # fmt: skip
    everything: dict[Any, Any] = {**mpl.rcParamsDefault, **settings, "backend": "agg"}
    context: AbstractContextManager[None] = mpl.rc_context(everything)
    return context


def _page_svg(svg: str, width: float) -> str:
    """Turns a file's SVG into inline markup: no prolog, no unused ids, page fonts, page colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg)
    svg = re.sub(r' id="[\w.]+_\d+"', "", svg)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', rf'\1 style="max-width:{width:.0f}px" aria-hidden="true"', svg, count=1)
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r" font-family: [^;\"]*;?", "", svg)
    return re.sub(
        r"(?<=: )#(?:0101|0a0a)0\d",
        lambda match: f"var(--{_VARIABLES[match[0]]})" if match[0] in _VARIABLES else match[0],
        svg,
    )


def _printable(text: str) -> str:
    """Replaces control characters, which XML cannot hold."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
