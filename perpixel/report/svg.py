"""Drawings as SVG that takes its colours from the page, so that they fit light and dark.

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
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

__all__ = [
    "ACCENT",
    "FULL",
    "GRID",
    "INK",
    "MUTED",
    "NARROW",
    "ON_ACCENT",
    "SERIES",
    "WIDE",
    "draw_svg",
    "finish_axes",
    "printable",
]

INK, MUTED, GRID, ACCENT, ON_ACCENT = "#010101", "#010102", "#010103", "#010104", "#010105"
SERIES = tuple(f"#0a0a0{i}" for i in range(1, 9))
_VARIABLES = {INK: "ink", MUTED: "muted", GRID: "rule", ACCENT: "accent", ON_ACCENT: "on-accent"} | {
    color: f"s{i}" for i, color in enumerate(SERIES, start=1)
}
_PX = 1 / 96  # a CSS pixel in inches
WIDE, NARROW, FULL = 690.0, 340.0, 1040.0  # widths of figures, CSS pixels
_LEAST_SCALE = 0.75  # below it, text is too small to read


def finish_axes(axes: Axes, *, width: float, legend: bool = True) -> None:
    """Sets grid and frame, and puts the legend above axes of ``width`` CSS pixels."""
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(length=0, which="both")
    if legend and axes.get_legend_handles_labels()[1]:
        labels = axes.get_legend_handles_labels()[1]
        columns = -(-len(labels) // _legend_rows(labels, width))
        axes.legend(
            loc="lower left", bbox_to_anchor=(0, 1.0), ncols=columns, frameon=False, borderaxespad=0.2,
            handlelength=1.4, columnspacing=1.4, labelcolor=INK,
        )  # fmt: skip


def _legend_rows(labels: Sequence[str], width: float) -> int:
    """Estimates how many rows a legend needs in ``width`` CSS pixels; the text is set by the page's own fonts."""
    return max(math.ceil(sum(6.2 * len(label) + 40 for label in labels) / (0.92 * width)), 1)


def draw_svg(draw: Callable[[Axes], None], *, width: float, height: float, salt: str) -> Markup:
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
        "font.family": "sans-serif", "font.size": 9, "axes.labelcolor": MUTED, "axes.edgecolor": GRID,
        "xtick.color": MUTED, "ytick.color": MUTED, "xtick.labelcolor": INK, "ytick.labelcolor": INK,
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
    least = _LEAST_SCALE * width if width > NARROW else 0
    style = f"max-width:{width:.0f}px;--least:{least:.0f}px"  # narrow screens scroll a wide figure, style.css
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', rf'\1 style="{style}" aria-hidden="true"', svg, count=1)
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r" font-family: [^;\"]*;?", "", svg)
    return re.sub(
        r"(?<=: )#(?:0101|0a0a)0\d",
        lambda match: f"var(--{_VARIABLES[match[0]]})" if match[0] in _VARIABLES else match[0],
        svg,
    )


def printable(text: str) -> str:
    """Replaces control characters, which XML cannot hold."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
