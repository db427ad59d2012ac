"""SegmentationLoss: a network's output and a label map in, the sum and every named part out.

Shapes: B batch, K classes, H W label map, h w scores.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from torch import Tensor, nn

from perpixel.errors import InvalidValue, nearest
from perpixel.losses.cross_entropy import cross_entropy
from perpixel.losses.focal import focal_loss, sigmoid_focal_loss, torchseg_focal_loss
from perpixel.losses.ohem import ohem_cross_entropy
from perpixel.losses.presence import presence_loss
from perpixel.losses.region import dice_loss, lovasz_softmax_loss
from perpixel.ops import border_targets, presence_targets, resize, resize_labels
from perpixel.types import SegOutput, Term

__all__ = ["LOSSES", "LossEntry", "LossValue", "SegmentationLoss", "with_class_weights"]


@dataclass(frozen=True)
class LossEntry:
    """A loss function, and which target made from the label map it compares with."""

    function: Callable[..., Tensor]
    target: Literal["labels", "borders", "presence"] = "labels"


LOSSES: dict[str, LossEntry] = {
    "cross_entropy": LossEntry(cross_entropy),
    "focal": LossEntry(focal_loss),
    "ohem": LossEntry(ohem_cross_entropy),
    "dice": LossEntry(dice_loss),
    "lovasz_softmax": LossEntry(lovasz_softmax_loss),
    "border_focal": LossEntry(sigmoid_focal_loss, target="borders"),
    "torchseg_focal": LossEntry(torchseg_focal_loss, target="borders"),
    "presence": LossEntry(presence_loss, target="presence"),
}
_BORDER_OPTIONS = ("radius", "ignored_is_border")
_GIVEN = ("logits", "scores", "target", "present", "ignore_index", "reduction")  # never options


class LossValue(NamedTuple):
    """The loss and its weighted parts, which add up to it; all scalars on the device."""

    total: Tensor
    parts: dict[str, Tensor]


class SegmentationLoss(nn.Module):
    """Adds up weighted `Term`s.

    Args:
        terms: At least one; names must differ.
        num_classes: K.
        align_corners: The network's policy for bringing scores to the label map's size.
        ignore_index: Label that no term learns from.
        margin: Pixels of the label map on each side that the scores do not cover.

    Raises:
        InvalidValue: there is no term, a name repeats, a loss or an option is unknown; names the nearest known one.
    """

    def __init__(
        self,
        terms: Sequence[Term],
        *,
        num_classes: int,
        align_corners: bool,
        ignore_index: int = 255,
        margin: int = 0,
    ) -> None:
        super().__init__()
        if not terms:
            raise InvalidValue("a loss needs at least one term")
        names = [term.name for term in terms]
        if len(set(names)) != len(names):
            raise InvalidValue(f"the names of loss terms must differ, got {names}")
        for term in terms:
            _check_term(term)
        self.terms = tuple(terms)
        self.num_classes = num_classes
        self.align_corners = align_corners
        self.ignore_index = ignore_index
        self.margin = margin

    def forward(self, output: SegOutput, target: Tensor) -> LossValue:
        """Compares a network's output with labels (B, H, W), uint8 or int64.

        Raises:
            InvalidValue: a term asks for an output that the network does not give.
        """
        if self.margin:
            target = target[:, self.margin : -self.margin, self.margin : -self.margin]
        derived: dict[Any, Tensor] = {}  # borders and presence are made once and shared by the terms
        parts = {term.name: term.weight * self._value(term, output, target, derived) for term in self.terms}
        total = next(iter(parts.values()))
        for part in list(parts.values())[1:]:
            total = total + part
        return LossValue(total, parts)

    def _value(self, term: Term, output: SegOutput, target: Tensor, derived: dict[Any, Tensor]) -> Tensor:
        entry = LOSSES[term.loss]
        scores = _select(term, output)
        if scores.element_size() < 4:  # half precision is for the network; losses are computed in float32
            scores = scores.float()
        scores = scores.contiguous()  # a softmax over the channels of a channels_last map takes twice as long
        if entry.target == "presence":
            if "presence" not in derived:
                derived["presence"] = presence_targets(target, self.num_classes, ignore_index=self.ignore_index)
            return entry.function(scores, derived["presence"], reduction=term.reduction, **term.options)
        options = dict(term.options)
        if entry.target == "borders":
            target = self._borders(target, options, derived)
        if term.at == "target":
            scores = resize(scores, target.shape[-2:], align_corners=self.align_corners)
        else:
            target = resize_labels(target, scores.shape[-2:], align_corners=self.align_corners)
        return entry.function(scores, target, ignore_index=self.ignore_index, reduction=term.reduction, **options)

    def _borders(self, target: Tensor, options: dict[str, Any], derived: dict[Any, Tensor]) -> Tensor:
        made_with = {name: options.pop(name) for name in _BORDER_OPTIONS if name in options}
        key = tuple(sorted(made_with.items()))
        if key not in derived:
            derived[key] = border_targets(target, ignore_index=self.ignore_index, **made_with)
        return derived[key]


def _check_term(term: Term) -> None:
    if term.loss not in LOSSES:
        near = nearest(term.loss, LOSSES, end=".")
        raise InvalidValue(f"term {term.name!r}: unknown loss {term.loss!r}{near} Known: {', '.join(LOSSES)}")
    entry = LOSSES[term.loss]
    known = [n for n in inspect.signature(entry.function).parameters if n not in _GIVEN]
    known += list(_BORDER_OPTIONS) if entry.target == "borders" else []
    for option in term.options:
        if option not in known:
            raise InvalidValue(
                f"term {term.name!r}: loss {term.loss!r} has no option {option!r}{nearest(option, known, end='.')} "
                f"Known: {', '.join(known) or 'none'}"
            )
    if (term.output == "presence") != (entry.target == "presence"):
        raise InvalidValue(f"term {term.name!r}: loss {term.loss!r} does not fit output {term.output!r}")


def _select(term: Term, output: SegOutput) -> Tensor:
    if term.output == "logits":
        return output.logits
    available: tuple[Tensor, ...] = getattr(output, term.output)
    if term.index >= len(available):
        raise InvalidValue(
            f"term {term.name!r} wants {term.output}[{term.index}], but the network gives {len(available)} of them; "
            "correct the term, or switch that part of the network on."
        )
    return available[term.index]


def with_class_weights(terms: Sequence[Term], weights: Sequence[float]) -> tuple[Term, ...]:
    """Returns the terms with ``class_weights`` given to every cross-entropy that states none."""
    return tuple(
        replace(term, options={**term.options, "class_weights": list(weights)})
        if term.loss == "cross_entropy" and "class_weights" not in term.options
        else term
        for term in terms
    )
