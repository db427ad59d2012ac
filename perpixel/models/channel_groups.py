"""Which channels of a network belong together: what structured pruning must remove in one piece.

A pruned kernel takes its feature map with it, and the map every weight that reads it; maps that are added (residual
blocks, fusions) can only go together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

__all__ = ["ChannelGroup", "Narrowable"]


@dataclass(frozen=True, kw_only=True)
class ChannelGroup:
    """Feature maps that are made, added and read together; names are those of modules."""

    made_by: tuple[str, ...]
    """Modules whose tensors all have the channels as their first dimension: convolutions with their norms."""
    read_by: tuple[str, ...]
    """Convolutions that have the channels as the second dimension of their weight."""
    scored_by: tuple[str, ...]
    """The convolutions, of those in ``made_by``, whose kernels decide which channels stay."""


@runtime_checkable
class Narrowable(Protocol):
    """A network that can say what it would be with fewer channels everywhere."""

    def channel_groups(self) -> tuple[ChannelGroup, ...]:
        """Returns all groups whose size follows the network's width."""

    def narrowed(self, keep: float) -> Any:
        """Returns the network's configuration with a share of its channels.

        Raises:
            InvalidValue: that is no whole number of channels, or none.
        """
