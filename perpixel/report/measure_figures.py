"""Figures of the further measures: the boundary curve, the reliability diagram, and the change of each image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from perpixel.metrics.image_changes import ImageChange
from perpixel.report.boundary import Boundary
from perpixel.report.calibration import Calibration
from perpixel.report.svg import FULL, INK, MUTED, NARROW, SERIES, WIDE, draw_svg, finish_axes, printable

__all__ = ["boundary_figure", "change_figure", "confidence_figure", "reliability_figure"]

_HEIGHT = 300
_MOST_BARS = 200


def boundary_figure(curves: Sequence[tuple[str, Boundary]], *, whole: tuple[str, float] | None = None) -> Markup | None:
    """Draws mean IoU over the width of the band around true borders. None without a curve.

    Args:
        curves: Name and boundary scores of one or two runs.
        whole: Name and mean IoU over all pixels of the first run, a fraction; drawn as a level line.
    """
    drawn = [(name, scores.trimap) for name, scores in curves if scores.trimap]
    if not drawn:
        return None

    def draw(axes: Axes) -> None:
        for (name, points), color, style in zip(drawn, (SERIES[0], INK), ("-", "--"), strict=False):
            widths, values = zip(*points, strict=True)
            axes.plot(widths, [100 * v for v in values], style, color=color, linewidth=2.0, marker="o", markersize=4,
                      label=printable(name))  # fmt: skip
        if whole is not None:
            axes.axhline(100 * whole[1], color=MUTED, linewidth=1.2, linestyle=(0, (4, 3)), label=printable(whole[0]))
        axes.set_xticks(sorted({width for _, points in drawn for width, _ in points}))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set_xlim(left=0)
        axes.set_ylim(0, 100)
        axes.set_xlabel("distance from a true border, pixels")
        axes.set_ylabel("mean IoU within it, %")
        finish_axes(axes, width=FULL)

    return draw_svg(draw, width=FULL, height=_HEIGHT, salt="boundary")


def reliability_figure(curves: Sequence[tuple[str, Calibration]]) -> Markup | None:
    """Draws accuracy over confidence, for one or two runs, beside the line of a network that is as sure as it is right.

    None without a bin that holds a pixel.
    """
    drawn = [(name, found.bins) for name, found in curves if found.bins]
    if not drawn:
        return None

    def draw(axes: Axes) -> None:
        axes.plot([0, 100], [0, 100], color=MUTED, linewidth=1.2, linestyle=(0, (4, 3)), label="as sure as right")
        first = drawn[0][1]
        axes.bar([100 * part.low for part in first], [100 * part.accuracy for part in first],
                 width=[100 * (part.high - part.low) for part in first], align="edge", color=SERIES[0], alpha=0.22,
                 linewidth=0)  # fmt: skip
        for (name, bins), color, style in zip(drawn, (SERIES[0], INK), ("-", "--"), strict=False):
            axes.plot([100 * part.confidence for part in bins], [100 * part.accuracy for part in bins], style,
                      color=color, linewidth=2.0, marker="o", markersize=4, label=printable(name))  # fmt: skip
        axes.set_xlim(0, 100)
        axes.set_ylim(0, 100)
        axes.set_xlabel("confidence (top probability), %")
        axes.set_ylabel("of these pixels right, %")
        finish_axes(axes, width=WIDE)

    return draw_svg(draw, width=WIDE, height=_HEIGHT, salt="reliability")


def confidence_figure(found: Calibration) -> Markup | None:
    """Draws which share of the pixels has which confidence. None without a pixel."""
    if not found.pixels:
        return None

    def draw(axes: Axes) -> None:
        shares = [100 * part.pixels / found.pixels for part in found.bins]
        axes.bar([100 * part.low for part in found.bins], shares, align="edge", color=SERIES[0],
                 width=[92 * (part.high - part.low) for part in found.bins], linewidth=0)  # fmt: skip
        axes.set_xlim(0, 100)
        axes.set_xlabel("confidence, %")
        axes.set_ylabel("share of the pixels, %")
        finish_axes(axes, width=NARROW, legend=False)

    return draw_svg(draw, width=NARROW, height=_HEIGHT, salt="confidence")


def change_figure(images: Sequence[ImageChange]) -> Markup | None:
    """Draws the change of each image's mean IoU in points, the largest gain first. None without an image."""
    if not images:
        return None

    def draw(axes: Axes) -> None:
        values = 100 * np.array([image.change for image in images])
        if len(values) > _MOST_BARS:  # sorted, so that evenly spaced ones show the same
            values = values[np.linspace(0, len(values) - 1, _MOST_BARS).round().astype(int)]
        place = np.arange(len(values))
        for chosen, color in ((values > 0, SERIES[0]), (values < 0, SERIES[5])):
            axes.bar(place[chosen], values[chosen], width=0.8, color=color, linewidth=0)
        axes.axhline(0, color=MUTED, linewidth=1)
        axes.spines["bottom"].set_visible(False)
        axes.margins(x=0.01)
        axes.set_xticks([])
        axes.set_xlabel("images, by change")
        axes.set_ylabel("change of mean IoU, points")
        axes.yaxis.set_major_formatter(
            FuncFormatter(lambda value, _: f"{value:+g}".replace("-", "\u2212") if value else "0")
        )
        finish_axes(axes, width=FULL, legend=False)

    return draw_svg(draw, width=FULL, height=230, salt="change")


def _signed(value: float) -> str:
    return f"{value:+g}".replace("-", "\u2212") if value else "0"
