"""Named protocols: the published test-time procedures, each with the settings that it was published with.

What they compute is in `perpixel.inference.published_protocols`, and side by side in docs/inference.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from perpixel.errors import InvalidValue, nearest
from perpixel.inference.multi_scale import MultiScale
from perpixel.inference.procedures import Procedure
from perpixel.inference.published_protocols import DeepLab, Encoding, HRNet, Semseg, TorchSeg

__all__ = ["PROTOCOLS", "Protocol", "named_protocol"]


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """A named protocol and what it was published with."""

    build: Callable[..., Procedure]
    data: Mapping[str, Mapping[str, Any]]
    """Settings per data set, the first one where none is named."""
    window: str | None = None
    """The argument that a tile size goes to; None takes none."""


PROTOCOLS: dict[str, Protocol] = {
    "torchseg": Protocol(
        build=TorchSeg,
        data={
            "voc": {"crop": 512},
            "cityscapes": {"crop": 800},
            "ade20k150": {"crop": 480, "scales": (0.5, 0.75, 1.0, 1.5, 1.75, 2.0)},
        },
        window="crop",
    ),
    "semseg": Protocol(
        build=Semseg,
        data={
            "voc": {"base_size": 512, "crop": 473},
            "ade20k150": {"base_size": 512, "crop": 473},
            "cityscapes": {"base_size": 2048, "crop": 713},
        },
        window="crop",
    ),
    "encoding": Protocol(build=Encoding, data={"ade20k150": {"base_size": 520, "crop": 480}}, window="crop"),
    "deeplab": Protocol(
        build=DeepLab,
        data={"voc": {"crop": 513}, "cityscapes": {"crop": (1025, 2049), "scales": (0.75, 1.0, 1.25)}},
        window="crop",
    ),
    "hrnet": Protocol(
        build=HRNet,
        data={
            "cityscapes": {"base_size": 2048, "crop": (512, 1024), "stride_rate": 1.0, "whole_up_to": 1.0},
            "ade20k150": {"scales": (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0)},
            "pascal_context59": {"scales": (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0)},
        },
        window="crop",
    ),
    "cityscapes-whole": Protocol(build=MultiScale, data={"cityscapes": {"scales": (1.0,), "flip": False}}),
}
"""``cityscapes-whole`` runs each view whole, at one scale unless told otherwise, and averages softmaxes."""


def named_protocol(
    name: str,
    *,
    data: str | None = None,
    scales: Sequence[float] | None = None,
    flip: bool | None = None,
    window: int | tuple[int, int] | None = None,
) -> Procedure:
    """Returns a protocol with its published settings for a data set, changed where something else is asked for.

    Args:
        name: One of `PROTOCOLS`.
        data: Whose settings; None takes the first.
        scales: Instead of the published ones.
        flip: Whether mirrored views count, instead of as published.
        window: Crop in pixels instead of the published one.

    Raises:
        InvalidValue: protocol, data set or a setting do not exist or are not usable.
    """
    if name not in PROTOCOLS:
        raise InvalidValue(
            f"no protocol {name!r}{nearest(name, PROTOCOLS, end='.')} Protocols: {', '.join(PROTOCOLS)}; "
            "scales and flip alone need none"
        )
    entry = PROTOCOLS[name]
    data = next(iter(entry.data)) if data is None else data
    if data not in entry.data:
        raise InvalidValue(
            f"protocol {name!r} has no published settings for {data!r}{nearest(data, entry.data, end=';')} "
            f"there are some for {', '.join(entry.data)}"
        )
    settings = dict(entry.data[data])
    if scales is not None:
        settings["scales"] = tuple(scales)
    if flip is not None:
        settings["flip"] = flip
    if window is not None:
        if entry.window is None:
            raise InvalidValue(f"protocol {name!r} runs images whole, so a tile of {window} does not go with it")
        settings[entry.window] = window
    return entry.build(**settings)
