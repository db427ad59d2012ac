"""Which of a backbone's maps a network reads, and refusals of backbones that do not give it."""

from __future__ import annotations

from typing import Any

from perpixel.errors import InvalidValue

__all__ = ["refuse_missing_auxiliary_map", "stage_of_stride"]


def stage_of_stride(backbone: Any, stride: int, *, reader: str) -> int:
    """Returns the number of the map of a stride, finest first, which is not the last.

    Raises:
        InvalidValue: the backbone gives no such map; ``reader`` is who needs it.
    """
    if stride not in backbone.strides[:-1]:
        raise InvalidValue(
            f"{reader} needs a map of stride {stride} beside the last, backbone {backbone.config.name!r} gives maps of "
            f"strides {backbone.strides}; raise backbone.num_stages"
        )
    return int(backbone.strides.index(stride))


def refuse_missing_auxiliary_map(backbone: Any, *, auxiliary: bool, reader: str) -> None:
    """Refuses a backbone of one map for an auxiliary head, which reads the one before the last.

    Raises:
        InvalidValue: as said.
    """
    if auxiliary and len(backbone.channels) < 2:
        raise InvalidValue(
            f"{reader}'s auxiliary head reads the stage before the last, and the backbone gives one stage: take "
            "num_stages=2 or more, or auxiliary=False"
        )
