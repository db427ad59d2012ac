"""Where classes lie in the masks of a data set: road below, sky above. Masks that disagree with all others stand out.

Shapes: N masks, P points of the grid, V values.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from perpixel.data.inspection.records import GRID

__all__ = ["Places", "grid_ids"]

_LEAST_MASKS = 20
_PRIOR = 0.5
_BLOCK = 256


class Places:
    """How often each id lies at each point of a coarse grid.

    Args:
        grids: Of the masks that are beyond doubt, ids (P,) in two bytes each; they are counted and not kept.
        values: The ids that may occur.
    """

    def __init__(self, grids: Iterable[bytes], values: Sequence[int]) -> None:
        self.values = np.array(sorted(values), dtype=np.int64)
        self.masks = 0
        self.void = False
        """Whether several of the masks hold 255."""
        self.counts = np.zeros((GRID * GRID, len(self.values)), dtype=np.int64)  # (P, V)
        remaining = iter(grids)
        while some := list(islice(remaining, _BLOCK)):
            block = np.frombuffer(b"".join(some), dtype="<u2").reshape(len(some), -1)
            self.counts += np.stack([(block == value).sum(0) for value in self.values], axis=1)
            self.masks += len(some)

    @property
    def tell(self) -> bool:
        """Whether there are enough masks to say anything."""
        return self.masks >= _LEAST_MASKS

    def fit(self, grid: NDArray[np.int64], *, own: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
        """Returns the log-likelihood (P,), in nats, of the id at each point given all other masks.

        Args:
            grid: The ids; those that may not occur count as never seen.
            own: The ids with which this mask is itself among those counted.
        """
        place = np.clip(np.searchsorted(self.values, grid), 0, len(self.values) - 1)
        known = self.values[place] == grid
        seen = np.where(known, self.counts[np.arange(len(grid)), place], 0)
        masks = self.masks
        if own is not None:
            seen = seen - (known & (own == grid))
            masks -= 1
        fit: NDArray[np.float64] = np.log((seen + _PRIOR) / (masks + _PRIOR * len(self.values)))
        return fit


def grid_ids(grid: bytes) -> NDArray[np.int64]:
    """Returns the ids (P,) at the points of a mask's grid."""
    return np.frombuffer(grid, dtype="<u2").astype(np.int64)


def upside_down(grid: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns the grid (P,) of the mask with its rows in reverse order."""
    return grid.reshape(GRID, GRID)[::-1].reshape(-1)
