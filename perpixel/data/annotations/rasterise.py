"""Outlines to pixels, by a rule that is stated: which pixels a polygon covers.

``"centres"`` is the rule of perpixel: a pixel belongs to a polygon when its centre is inside by the even-odd rule, and
a centre that lies exactly on an outline belongs to what is right of or below it. Polygons that share an edge therefore
share out the pixels along it: none is left over and none is painted twice. ``"pil"`` is what Pillow's
`ImageDraw.polygon` paints, which cuts coordinates to whole numbers and paints the outline too; the masks of Cityscapes
are drawn with it. Shapes: H W height and width, N points.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw

from perpixel.errors import InvalidValue

__all__ = ["FARTHEST", "Region", "Rule", "ellipse_region", "fill_polygon", "fill_rings", "ring_region"]

Rule = Literal["centres", "pil"]

FARTHEST = 1e7
"""Coordinates beyond ± this are a mistake, pixels: no image is that large."""

Region: TypeAlias = tuple[int, int, NDArray[np.bool_]]
"""Row and column of the upper left pixel of a window within the image, and which pixels of the window are covered."""

_CROSSINGS_AT_ONCE = 1 << 20


def fill_polygon(mask: NDArray[Any], points: ArrayLike, value: int, *, rule: Rule = "centres") -> None:
    """Gives the pixels of one polygon a value, in place.

    Args:
        mask: (H, W) of any integer type.
        points: (N, 2) corners as x, y in pixels, N ≥ 3 (``"pil"``: N ≥ 2); what lies outside the mask is cut off.
        value: Written to every pixel that the polygon covers.
        rule: See the head of this file.

    Raises:
        InvalidValue: too few points, not of shape (N, 2), not finite or beyond `FARTHEST`, or an unknown rule.
    """
    fill_rings(mask, [points], value, rule=rule)


def fill_rings(mask: NDArray[Any], rings: Sequence[ArrayLike], value: int, *, rule: Rule = "centres") -> None:
    """Fills several outlines together by the even-odd rule, so that an outline within another one is a hole.

    Raises:
        InvalidValue: as `fill_polygon`.
    """
    row, column, covered = ring_region(rings, (mask.shape[0], mask.shape[1]), rule=rule)
    height, width = covered.shape
    mask[row : row + height, column : column + width][covered] = value


def ring_region(rings: Sequence[ArrayLike], size: tuple[int, int], *, rule: Rule = "centres") -> Region:
    """Returns which pixels of an image of this size the outlines cover together, within the smallest window.

    Raises:
        InvalidValue: as `fill_polygon`.
    """
    if rule not in get_args(Rule):
        raise InvalidValue(f"the rule of pixels is one of {', '.join(get_args(Rule))}, got {rule!r}")
    corners = [_corners(ring, least=3 if rule == "centres" else 2) for ring in rings]
    return _pil_region(corners, size) if rule == "pil" else _centre_region(corners, size)


def ellipse_region(
    center: tuple[float, float], radii: tuple[float, float], rotation: float, size: tuple[int, int]
) -> Region:
    """Returns the pixels whose centre lies inside an ellipse or on its outline.

    Args:
        center: x and y, pixels.
        radii: Along the ellipse's own axes, pixels, > 0.
        rotation: Degrees, clockwise on the screen.
        size: Height and width of the image.
    """
    angle = np.deg2rad(rotation)
    cosine, sine = float(np.cos(angle)), float(np.sin(angle))
    reach_x, reach_y = np.hypot(radii[0] * cosine, radii[1] * sine), np.hypot(radii[0] * sine, radii[1] * cosine)
    left, right = _span(center[0] - reach_x, center[0] + reach_x + 1, size[1])
    top, bottom = _span(center[1] - reach_y, center[1] + reach_y + 1, size[0])
    x = np.arange(left, right) + 0.5 - center[0]
    y = (np.arange(top, bottom) + 0.5 - center[1])[:, None]
    along, across = x * cosine + y * sine, y * cosine - x * sine
    return top, left, (along / radii[0]) ** 2 + (across / radii[1]) ** 2 <= 1


def _corners(ring: ArrayLike, *, least: int) -> NDArray[np.float64]:
    corners = np.asarray(ring, dtype=np.float64)
    if corners.ndim != 2 or corners.shape[1] != 2 or len(corners) < least:
        raise InvalidValue(f"a polygon is (N, 2) corners x, y with N >= {least}, got shape {corners.shape}")
    if not (np.abs(corners) <= FARTHEST).all():
        raise InvalidValue(
            f"coordinates of a polygon are finite and within ±{FARTHEST:.0f} pixels, got {_worst(corners)}"
        )
    return corners


def _worst(corners: NDArray[np.float64]) -> list[float]:
    row = int(np.argmin((np.abs(corners) <= FARTHEST).all(axis=1)))
    return [float(value) for value in corners[row]]


def _span(low: float, high: float, length: int) -> tuple[int, int]:
    """Returns the first pixels whose centres are at or after ``low`` and ``high``, both in [0, length]."""
    first, last = (min(max(int(np.ceil(value - 0.5)), 0), length) for value in (low, high))
    return first, max(first, last)


def _centre_region(rings: Sequence[NDArray[np.float64]], size: tuple[int, int]) -> Region:
    """Toggles a row from each crossing of an edge on; what was toggled an odd number of times is inside."""
    every = np.concatenate(rings)
    left, right = _span(every[:, 0].min(), every[:, 0].max(), size[1])
    top, bottom = _span(every[:, 1].min(), every[:, 1].max(), size[0])
    height, width = bottom - top, right - left
    # Counts wrap at 256, which leaves odd odd; the last column takes crossings right of the window.
    toggles = np.zeros((height, width + 1), dtype=np.uint8)
    for ring in rings:
        for rows, x in _crossings(ring, top, bottom):
            columns = np.clip(np.ceil(x - 0.5), left, right).astype(np.intp) - left
            np.add.at(toggles.reshape(-1), (rows - top) * (width + 1) + columns, np.uint8(1))
    np.add.accumulate(toggles, axis=1, dtype=np.uint8, out=toggles)
    return top, left, (toggles[:, :width] & 1).astype(bool)


def _crossings(
    ring: NDArray[np.float64], top: int, bottom: int
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.float64]]]:
    """Yields, in pieces of bounded size, each row whose centre line an edge crosses, and where."""
    following = np.roll(ring, -1, axis=0)
    # Each edge goes down, whichever way it is drawn, so that two polygons see the same crossing on a shared edge.
    swap = ring[:, 1] > following[:, 1]
    start = np.where(swap[:, None], following, ring)
    end = np.where(swap[:, None], ring, following)
    first = np.clip(np.ceil(start[:, 1] - 0.5), top, bottom).astype(np.intp)
    last = np.clip(np.ceil(end[:, 1] - 0.5), top, bottom).astype(np.intp)
    crossed = np.flatnonzero(last > first)
    start, end, first, count = start[crossed], end[crossed], first[crossed], (last - first)[crossed]
    total = np.cumsum(count)
    begin = 0
    while begin < len(count):
        before = int(total[begin - 1]) if begin else 0
        stop = max(begin + 1, int(np.searchsorted(total, before + _CROSSINGS_AT_ONCE, side="right")))
        edges = np.repeat(np.arange(begin, stop), count[begin:stop])
        rows = np.arange(len(edges)) - (total[edges] - count[edges] - before) + first[edges]
        (x0, y0), (x1, y1) = start[edges].T, end[edges].T
        yield rows, x0 + (rows + 0.5 - y0) * ((x1 - x0) / (y1 - y0))
        begin = stop


def _pil_region(rings: Sequence[NDArray[np.float64]], size: tuple[int, int]) -> Region:
    """Lets Pillow draw on a window; several outlines are combined by exclusive or."""
    whole = [np.trunc(ring).astype(np.int64) for ring in rings]  # as Pillow does, so that the window can be moved
    every = np.concatenate(whole)
    left, top = (int(value) for value in np.maximum(every.min(axis=0), 0))
    right = min(int(every[:, 0].max()) + 1, size[1])
    bottom = min(int(every[:, 1].max()) + 1, size[0])
    if right <= left or bottom <= top:
        return 0, 0, np.zeros((0, 0), dtype=bool)
    covered = np.zeros((bottom - top, right - left), dtype=bool)
    for ring in whole:
        picture = Image.new("L", (right - left, bottom - top))
        ImageDraw.Draw(picture).polygon([(int(x) - left, int(y) - top) for x, y in ring], fill=1)
        covered ^= np.asarray(picture).astype(bool)
    return top, left, covered
