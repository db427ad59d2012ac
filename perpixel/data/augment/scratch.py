"""Memory for intermediate results that is used again and again."""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Scratch"]


class Scratch(threading.local):
    """Memory that is used again: fresh arrays of this size cost more in page faults than the arithmetic on them."""

    def __init__(self) -> None:
        self._flat: dict[str, NDArray[Any]] = {}

    def array(self, name: str, shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[Any]:
        """Returns an array of this shape that holds anything; it is overwritten when the name is used again."""
        size = math.prod(shape)
        flat = self._flat.get(name)
        if flat is None or len(flat) < size or flat.dtype != dtype:
            flat = self._flat[name] = np.empty(size, dtype=dtype)
        return flat[:size].reshape(shape)
