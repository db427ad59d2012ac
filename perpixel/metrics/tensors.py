"""`Tensor` for ``isinstance``, without importing torch: a tensor exists only where torch is loaded already.

Worker processes that count saved masks start in a tenth of the time without torch.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

__all__ = ["Tensor"]

if TYPE_CHECKING:
    from torch import Tensor
else:

    class _IsTensor(type):
        def __instancecheck__(cls, value: object) -> bool:
            torch = sys.modules.get("torch")
            return torch is not None and isinstance(value, torch.Tensor)

    class Tensor(metaclass=_IsTensor):
        """Stands in for ``torch.Tensor``."""
