"""Which inference procedure the words of a command line or a call stand for."""

from __future__ import annotations

from collections.abc import Sequence

from perpixel.inference.multi_scale import MultiScale
from perpixel.inference.procedures import Procedure, check_pair
from perpixel.inference.protocols import PROTOCOLS, named_protocol
from perpixel.inference.sliding import OverlapTile, SlidingWindow, Windows
from perpixel.labels import LabelSpace
from perpixel.models import Network

__all__ = ["choose_procedure"]


def choose_procedure(
    network: Network,
    labels: LabelSpace,
    *,
    protocol: str | None = None,
    scales: Sequence[float] | None = None,
    flip: bool | None = None,
    tile: int | tuple[int, int] | None = None,
) -> Procedure | None:
    """Returns the procedure to compute; None runs the whole image once.

    Args:
        network: One that loses a margin gets U-Net's overlap-tile for a tile, others windows that overlap by a third.
        labels: A protocol takes its settings for the data set of this name, if it has some.
        protocol: ``name`` or ``name:data`` of `PROTOCOLS`; the other arguments then change its settings.
        scales: Of the image, such as (0.5, 1.0, 2.0); softmaxes are averaged.
        flip: Mirrored views count too; None is as published, without a protocol no.
        tile: Side or (height, width) of windows in pixels.

    Raises:
        InvalidValue: the protocol, its data set or a setting is not usable.
    """
    if protocol is not None:
        name, colon, data = protocol.partition(":")
        known = PROTOCOLS[name].data if name in PROTOCOLS else {}
        published = labels.name if labels.name in known else None
        return named_protocol(name, data=data if colon else published, scales=scales, flip=flip, window=tile)
    if tile is not None:
        check_pair("the tile", tile)
    windows = None if tile is None else Windows(size=tile)
    if scales is not None:
        return MultiScale(scales=scales, flip=bool(flip), windows=windows)
    if tile is not None and network.margin and not flip:
        return OverlapTile(tile=tile)
    if windows is not None:
        return SlidingWindow(windows=windows, flip=bool(flip))
    return MultiScale(scales=(1.0,), flip=True) if flip else None
