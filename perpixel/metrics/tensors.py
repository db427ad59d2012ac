"""Label maps as arrays, and `Tensor` for ``isinstance`` without importing torch: a tensor needs torch loaded already.

Worker processes that count saved masks start in a tenth of the time without torch.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from perpixel.errors import InvalidValue

__all__ = ["Tensor", "host_labels", "refuse_mask"]

if TYPE_CHECKING:
    from torch import Tensor
else:

    class _IsTensor(type):
        def __instancecheck__(cls, value: object) -> bool:
            torch = sys.modules.get("torch")
            return torch is not None and isinstance(value, torch.Tensor)

    class Tensor(metaclass=_IsTensor):
        """Stands in for ``torch.Tensor``."""


def host_labels(labels: object, name: str) -> NDArray[Any]:
    """Returns a map of labels as an array of integers or bools, without a copy where it is one.

    Args:
        labels: Integers of any width, in an array or a tensor on any device.
        name: What to call it in a message.

    Raises:
        InvalidValue: it is neither, holds no integers, or has a mask of its own.
    """
    # Not every floating type of torch can become an array, so those stay tensors and are refused as such.
    if isinstance(labels, Tensor) and not (labels.is_floating_point() or labels.is_complex()):
        labels = labels.detach().cpu().numpy()
    if not isinstance(labels, Tensor | np.ndarray):
        raise InvalidValue(f"{name} must be a torch tensor or a NumPy array, got {type(labels).__name__}")
    if isinstance(labels, Tensor) or labels.dtype.kind not in "biu":
        raise InvalidValue(f"{name} must hold integer class ids, got {labels.dtype}; take the argmax of scores first")
    refuse_mask(labels, name)
    return labels


def refuse_mask(labels: object, name: str) -> None:
    """Raises InvalidValue for an array with a mask, since what it covers would be counted as if it were not there."""
    if isinstance(labels, np.ma.MaskedArray):
        raise InvalidValue(f"{name} is an array with a mask of its own; fill that in: labels.filled(ignore_index)")
