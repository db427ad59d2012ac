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
from perpixel.losses.cross_entropy import cross_entropy, cross_entropy_from_nll
from perpixel.losses.focal import focal_loss, focal_loss_from_nll, sigmoid_focal_loss, torchseg_focal_loss
from perpixel.losses.ohem import ohem_cross_entropy, ohem_cross_entropy_from_nll
from perpixel.losses.pixel_nll import FullSizeNll, UpsampledNll
from perpixel.losses.presence import presence_loss
from perpixel.losses.region import dice_loss, lovasz_softmax_loss
from perpixel.losses.structured import STRUCTURED, logistic_loss, masks_or_pairs, pair_cross_entropy
from perpixel.losses.weighted import pixel_weighted_cross_entropy, pixel_weighted_cross_entropy_from_nll
from perpixel.ops import border_targets, distance_weights, presence_targets, resize, resize_labels
from perpixel.types import SegOutput, Term

__all__ = ["LOSSES", "LossEntry", "LossValue", "SegmentationLoss", "with_class_weights"]


@dataclass(frozen=True)
class LossEntry:
    """A loss function, and what made of the label map it compares with; ``distance_weights`` go beside the labels."""

    function: Callable[..., Tensor]
    target: Literal["labels", "borders", "presence", "dilated", "eroded", "pairs", "distance_weights"] = "labels"
    from_nll: Callable[..., Tensor] | None = None
    """The same loss, with the same options, made of a `PixelNll` instead of scores; None where it cannot be."""


LOSSES: dict[str, LossEntry] = {
    "cross_entropy": LossEntry(cross_entropy, from_nll=cross_entropy_from_nll),
    "focal": LossEntry(focal_loss, from_nll=focal_loss_from_nll),
    "ohem": LossEntry(ohem_cross_entropy, from_nll=ohem_cross_entropy_from_nll),
    "dice": LossEntry(dice_loss),
    "lovasz_softmax": LossEntry(lovasz_softmax_loss),
    "border_focal": LossEntry(sigmoid_focal_loss, target="borders"),
    "torchseg_focal": LossEntry(torchseg_focal_loss, target="borders"),
    "presence": LossEntry(presence_loss, target="presence"),
    "dilation_logistic": LossEntry(logistic_loss, target="dilated"),
    "erosion_logistic": LossEntry(logistic_loss, target="eroded"),
    "pair_cross_entropy": LossEntry(pair_cross_entropy, target="pairs"),
    "distance_weighted": LossEntry(
        pixel_weighted_cross_entropy, target="distance_weights", from_nll=pixel_weighted_cross_entropy_from_nll
    ),
}
_BORDER_OPTIONS = ("radius", "ignored_is_border")
_DISTANCE_OPTIONS = ("w0", "sigma", "background", "balance", "connectivity", "inside")
_GIVEN = ("logits", "scores", "target", "weights", "present", "masks", "pairs", "ignore_index", "reduction")
"""Parameters of loss functions that are never options."""


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
        fused: Whether losses that state how take scores smaller than the label map as they are (`upsampled_nll`), which
            gives the same numbers in less time and memory; False upsamples the scores for every loss.

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
        fused: bool = True,
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
        self.fused = fused

    def forward(self, output: SegOutput, target: Tensor) -> LossValue:
        """Compares a network's output with labels (B, H, W), uint8 or int64.

        Raises:
            InvalidValue: a term asks for an output that the network does not give.
        """
        derived: dict[Any, Tensor] = {"whole": target}  # borders, presence… are made once and shared by the terms
        target = self._covered(target)
        parts = {term.name: term.weight * self._value(term, output, target, derived) for term in self.terms}
        total = next(iter(parts.values()))
        for part in list(parts.values())[1:]:
            total = total + part
        return LossValue(total, parts)

    def _value(self, term: Term, output: SegOutput, target: Tensor, derived: dict[Any, Tensor]) -> Tensor:
        entry = LOSSES[term.loss]
        scores = _select(term, output)
        if entry.target == "presence":
            if "presence" not in derived:
                derived["presence"] = presence_targets(target, self.num_classes, ignore_index=self.ignore_index)
            return entry.function(_exact(scores), derived["presence"], reduction=term.reduction, **term.options)
        if entry.target in STRUCTURED:
            return self._structured(term, entry, output, _exact(scores), target)
        options = dict(term.options)
        if entry.target == "borders":
            target = self._borders(target, options, derived)
        targets = [target]
        if entry.target == "distance_weights":
            targets.append(self._distance_weights(options, derived))
        options.update(ignore_index=self.ignore_index, reduction=term.reduction)
        size = scores.shape[-2:]
        if term.at == "logits":
            targets = [resize_labels(t, size, align_corners=self.align_corners) for t in targets]
        elif self.fused and entry.from_nll is not None and size.numel() < target.shape[-2:].numel():
            nll = UpsampledNll(scores, target, align_corners=self.align_corners, ignore_index=self.ignore_index)
            return entry.from_nll(nll, *targets, **options)
        if term.at == "target" and size != target.shape[-2:]:
            scores = resize(_exact(scores), target.shape[-2:], align_corners=self.align_corners)
        if entry.from_nll is not None:
            own_size = FullSizeNll(scores, targets[0], ignore_index=self.ignore_index, fused=self.fused)
            return entry.from_nll(own_size, *targets, **options)
        scores = _exact(scores)
        return entry.function(scores, *targets, **options)

    def _structured(self, term: Term, entry: LossEntry, output: SegOutput, scores: Tensor, target: Tensor) -> Tensor:
        if entry.target == "pairs":
            size = output.logits.shape[-2:]  # the cells of the logits are the nodes
        elif term.at == "logits":
            size = scores.shape[-2:]
        else:
            size = target.shape[-2:]
            scores = resize(scores, size, align_corners=self.align_corners)
        made = masks_or_pairs(
            entry.target,
            target,
            (size[0], size[1]),
            self.num_classes,
            term.options,
            align_corners=self.align_corners,
            ignore_index=self.ignore_index,
        )
        return entry.function(scores, made, reduction=term.reduction)

    def _borders(self, target: Tensor, options: dict[str, Any], derived: dict[Any, Tensor]) -> Tensor:
        made_with = {name: options.pop(name) for name in _BORDER_OPTIONS if name in options}
        key = tuple(sorted(made_with.items()))
        if key not in derived:
            derived[key] = border_targets(target, ignore_index=self.ignore_index, **made_with)
        return derived[key]

    def _distance_weights(self, options: dict[str, Any], derived: dict[Any, Tensor]) -> Tensor:
        made_with = {name: options.pop(name) for name in _DISTANCE_OPTIONS if name in options}
        key = ("distance_weights", *sorted(made_with.items()))
        if key not in derived:  # of the whole label map: objects in the margin count for distances too
            whole = distance_weights(derived["whole"], ignore_index=self.ignore_index, **made_with)
            derived[key] = self._covered(whole)
        return derived[key]

    def _covered(self, target: Tensor) -> Tensor:
        """The part of a map (B, H, W) that the scores cover."""
        if not self.margin:
            return target
        return target[:, self.margin : -self.margin, self.margin : -self.margin]


def _check_term(term: Term) -> None:
    if term.loss not in LOSSES:
        near = nearest(term.loss, LOSSES, end=".")
        raise InvalidValue(f"term {term.name!r}: unknown loss {term.loss!r}{near} Known: {', '.join(LOSSES)}")
    entry = LOSSES[term.loss]
    known = [n for n in inspect.signature(entry.function).parameters if n not in _GIVEN]
    known += list(_BORDER_OPTIONS) if entry.target == "borders" else []
    known += list(_DISTANCE_OPTIONS) if entry.target == "distance_weights" else []
    known += STRUCTURED.get(entry.target, ())
    for option in term.options:
        if option not in known:
            raise InvalidValue(
                f"term {term.name!r}: loss {term.loss!r} has no option {option!r}{nearest(option, known, end='.')} "
                f"Known: {', '.join(known) or 'none'}"
            )
    if (term.output == "presence") != (entry.target == "presence"):
        raise InvalidValue(f"term {term.name!r}: loss {term.loss!r} does not fit output {term.output!r}")


def _exact(scores: Tensor) -> Tensor:
    """Scores as losses compute with them: half precision is for the network."""
    # A softmax over the channels of a channels_last map takes twice as long.
    return (scores.float() if scores.element_size() < 4 else scores).contiguous()


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
    """Returns the terms with ``class_weights`` given to every cross-entropy, on hard pixels or all, that states none.

    In a distance-weighted one they take the place of the balance within each label map, unless it is asked for too.
    """
    beside: dict[str, dict[str, Any]] = {"cross_entropy": {}, "ohem": {}, "distance_weighted": {"balance": "none"}}
    return tuple(
        replace(term, options={**beside[term.loss], **term.options, "class_weights": list(weights)})
        if term.loss in beside and "class_weights" not in term.options
        else term
        for term in terms
    )
