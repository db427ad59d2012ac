"""Checks border targets against OpenCV's Canny edges, as TorchSeg's DFN makes them, within a stated bound.

Ours look for changes of class instead of gradients, which is the same on straight edges and differs at corners and on
thin structures. Measured on the published maps, nearly half of which is border: 3.6 % and 2.8 % of the pixels differ,
none of them farther than 2 pixels from the other's band.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_cdt

from perpixel.ops import border_targets
from perpixel.weights.checkers.vector import Row, Vector

__all__ = ["MAX_DIFFERING_SHARE", "MAX_DISTANCE", "check_border_targets"]

MAX_DIFFERING_SHARE = 0.04
"""Of all pixels of a map."""
MAX_DISTANCE = 2.0
"""Pixels, by the larger of the two coordinates."""


def check_border_targets(vector: Vector) -> list[Row]:
    """Compares our targets of each label map ``gtN`` with ``edgeN``; ignored pixels count, as in TorchSeg."""
    radius = int(str(vector.manifest["parameters"]["dilate_kernel"]).split("x")[-1]) // 2
    rows = []
    for name in sorted(n for n in vector.expected if n.startswith("gt")):
        number = name.removeprefix("gt")
        labels = vector.tensor(name)[None]
        ours = border_targets(labels, radius=radius, ignored_is_border=True)[0].numpy() == 1
        theirs = vector.expected[f"edge{number}"] == 1
        share = float((ours != theirs).mean())
        distance = max(_farthest(ours, theirs), _farthest(theirs, ours))
        edge = f"edge{number}"
        rows.append(Row(name=edge, error=share, tolerance=MAX_DIFFERING_SHARE, note="share of differing pixels"))
        rows.append(Row(name=f"{edge} distance", error=distance, tolerance=MAX_DISTANCE, note="pixels between bands"))
    return rows


def _farthest(points: NDArray[np.bool_], band: NDArray[np.bool_]) -> float:
    """The largest distance in pixels from any of ``points`` to the band; infinite where there is no band."""
    if not points.any():
        return 0.0
    if not band.any():
        return float("inf")
    distances = distance_transform_cdt(~band, metric="chessboard")
    return float(distances[points].max())
