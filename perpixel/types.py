"""Types that every room of the house shares: what a network returns and what it wants to be fed.

Shapes: B batch, C channels, H W image, h w feature map, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from perpixel.errors import InvalidValue

if TYPE_CHECKING:
    from torch import Tensor


__all__ = ["Preprocessing", "SegOutput", "Term"]


class SegOutput(NamedTuple):
    """The only thing a network returns: class scores, and what its losses need beside them.

    ``deep``, ``border`` and ``presence`` are filled in training, or when ``network.supervise`` is true.
    """

    logits: Tensor
    """(B, K, h, w) class scores before softmax at the network's own ``logit_stride``."""
    deep: tuple[Tensor, ...] = ()
    """Further class scores (B, K, h_i, w_i), in the order that the network's docstring states."""
    border: tuple[Tensor, ...] = ()
    """Class-agnostic border scores (B, 1, h_i, w_i), finest backbone stage first."""
    presence: tuple[Tensor, ...] = ()
    """Scores (B, K) of the classes that the image holds."""


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How raw pixels become a network's input: ``(pixel / full_scale * value_range - mean) / std`` per channel.

    ``full_scale`` is 255 for 8-bit and 65535 for 16-bit images.

    Raises:
        InvalidValue: lengths differ, a standard deviation is not positive, or the channel order is unknown.
    """

    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    channel_order: Literal["rgb", "bgr"] = "rgb"
    value_range: float = 1.0
    pad_value: tuple[float, ...] | None = None
    """Raw value in [0, value_range] that fills padding; None means ``mean``, which is zero for the network."""

    def __post_init__(self) -> None:
        if not self.mean or len(self.mean) != len(self.std):
            raise InvalidValue(f"mean has {len(self.mean)} and std {len(self.std)} values; both need one per channel")
        if min(self.std) <= 0:
            raise InvalidValue(f"std must be positive in every channel, got {self.std}")
        if self.channel_order not in ("rgb", "bgr"):
            raise InvalidValue(f"channel_order must be 'rgb' or 'bgr', got {self.channel_order!r}")
        if self.pad_value is not None and len(self.pad_value) != len(self.mean):
            raise InvalidValue(f"pad_value has {len(self.pad_value)} values, the images have {len(self.mean)} channels")

    @property
    def num_channels(self) -> int:
        """Image channels that the network takes."""
        return len(self.mean)

    @property
    def padding(self) -> tuple[float, ...]:
        """Raw fill value of padding per channel, in [0, value_range]."""
        return self.mean if self.pad_value is None else self.pad_value

    def to_dict(self) -> dict[str, Any]:
        """Returns plain Python values that ``from_dict`` reads back."""
        return {
            "mean": list(self.mean),
            "std": list(self.std),
            "channel_order": self.channel_order,
            "value_range": self.value_range,
            "pad_value": None if self.pad_value is None else list(self.pad_value),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Preprocessing:
        """Rebuilds what ``to_dict`` wrote."""
        pad = values.get("pad_value")
        return cls(
            mean=tuple(values["mean"]),
            std=tuple(values["std"]),
            channel_order=values["channel_order"],
            value_range=values["value_range"],
            pad_value=None if pad is None else tuple(pad),
        )


@dataclass(frozen=True, kw_only=True)
class Term:
    """One summand of a loss, as data: which output, which loss function, at which resolution, how much of it.

    ``at="target"`` brings the scores to the target's size before the loss, ``"logits"`` the target to the scores'.
    ``mean_valid`` averages over the pixels that are not ignored, ``mean_all`` over all, ``sum`` does not divide.

    Raises:
        InvalidValue: a field is outside its choices, the index negative or the weight not positive.
    """

    name: str
    output: Literal["logits", "deep", "border", "presence"] = "logits"
    index: int = 0
    loss: str = "cross_entropy"
    weight: float = 1.0
    at: Literal["target", "logits"] = "target"
    reduction: Literal["mean_valid", "mean_all", "sum"] = "mean_valid"
    options: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments of the loss function."""

    def __post_init__(self) -> None:
        choices = {
            "output": ("logits", "deep", "border", "presence"),
            "at": ("target", "logits"),
            "reduction": ("mean_valid", "mean_all", "sum"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise InvalidValue(f"term {self.name!r}: {name} is one of {allowed}, got {getattr(self, name)!r}")
        if self.index < 0 or (self.output == "logits" and self.index):
            raise InvalidValue(f"term {self.name!r}: there is no {self.output}[{self.index}]")
        if not self.weight > 0:
            raise InvalidValue(f"term {self.name!r}: weight must be positive, got {self.weight}; leave the term out")
