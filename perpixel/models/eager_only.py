"""Networks whose forward pass depends on the image's content, so that no graph holds it and they are not compiled."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from perpixel.models.network import Network

__all__ = ["EAGER_ONLY", "eager_reason"]

EAGER_ONLY: Mapping[str, str] = MappingProxyType(
    {
        "CRFRNN": "the permutohedral lattice has as many cells as the image's colours fill",
        "ZoomOut": "superpixels have as many borders as the image draws; regions = pixels has none",
    }
)
"""Class of the network -> what no graph can hold."""


def eager_reason(network: Network) -> str | None:
    """Returns why a network is not compiled; None where it can be."""
    if getattr(network.config, "regions", None) == "pixels":
        return None
    return EAGER_ONLY.get(type(network).__name__)
