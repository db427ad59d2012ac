"""Output stride and dilation convention: what every dilated residual trunk was trained with, and no weight shows.

A checkpoint loads without an error into a trunk of another dilation and computes something worse. So the importers of
dilated networks take both as options, and their load reports say what was assumed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from perpixel.backbones import BackboneConfig
from perpixel.weights.importers.importer import Option

__all__ = ["dilated_trunk", "dilation_note", "dilation_options"]

_CONVENTIONS = {
    "half": "the first block of a dilated stage keeps the previous dilation",
    "full": "the first block of a dilated stage is dilated like the rest",
}


def dilation_options(*, output_stride: int, dilation: str) -> dict[str, Option]:
    """Returns the options ``output_stride`` and ``dilation`` with a code base's own values as defaults."""
    return {
        "output_stride": Option(
            default=output_stride,
            allowed=(8, 16, 32),
            help="image pixels per cell of the trunk's last map; below 32 its last stages are dilated",
        ),
        "dilation": Option(
            default=dilation,
            allowed=tuple(_CONVENTIONS),
            help="; ".join(f"{name}: {meaning}" for name, meaning in _CONVENTIONS.items()),
        ),
    }


def dilated_trunk(trunk: BackboneConfig, options: Mapping[str, Any]) -> BackboneConfig:
    """Returns the trunk at the output stride and in the convention that the options say."""
    return replace(trunk, output_stride=options["output_stride"], dilation=options["dilation"])


def dilation_note(options: Mapping[str, Any]) -> str:
    """Returns the report's line: what was assumed, that weights cannot tell it, and how to choose."""
    stride, chosen = options["output_stride"], options["dilation"]
    if stride == 32:
        return "weights cannot tell the output stride: 32 was taken, without dilation; output_stride=8 or 16 dilates"
    (other,) = set(_CONVENTIONS) - {chosen}
    return (
        f"weights cannot tell the dilation: output stride {stride} was taken, and dilation={chosen} "
        f"({_CONVENTIONS[chosen]}); if the checkpoint was trained otherwise, give dilation={other} "
        f"({_CONVENTIONS[other]}) or another output_stride"
    )
