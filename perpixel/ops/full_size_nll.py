"""The negative log-likelihood of every pixel's label from scores that are at the size of the labels already.

Shapes: B batch, K classes, H W scores and labels, n pixels of a piece. On the CPU scores of enough classes are
worked out in pieces of an image that stay in the cache, as they lie in memory: neither a copy of all scores in float32
nor their softmax is made. Elsewhere, and for fewer classes, the plain form is as fast or faster and is taken. Results
are float32, float64 for float64 scores.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from perpixel.errors import InvalidValue
from perpixel.ops.focus import focused
from perpixel.ops.nll_checks import check_labels, check_nll_inputs, check_weight, computed_in
from perpixel.ops.nll_pieces import gradient_in_pieces, laid_out_as, maps_in_pieces, total_in_pieces

__all__ = ["full_size_nll", "full_size_nll_total", "plain_full_size_nll", "plain_full_size_nll_total"]

# Measured on one core, bfloat16 and float32, both memory formats.
_LEAST_CLASSES_OF_A_TOTAL = 4  # below, what is done once per pixel costs more than what the pieces save
_LEAST_CLASSES_OF_MAPS = 16  # their gradient works the probabilities out again


def full_size_nll(
    logits: Tensor, target: Tensor, *, ignore_index: int = 255, class_mix: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """Returns the map of -log p of the labels, and that of sum_k v_k (-log p_k) where a class mix v is given.

    Both are differentiable, in pieces once, with any upstream gradient per pixel; kept for that are logits and labels.

    Args:
        logits: Class scores (B, K, H, W), floating point, in any memory format; other numbers of axes go the plain way.
        target: Labels (B, H, W), whole numbers in [0, K) or ``ignore_index``.
        ignore_index: Label of pixels whose values and gradients are zero.
        class_mix: v (K,), not differentiated; for label smoothing.

    Returns:
        Maps (B, H, W) in nats; the second is None without ``class_mix``.

    Raises:
        InvalidValue: shapes or dtypes do not fit, or, on the CPU, a label is no class.
    """
    if not _in_pieces(logits, target, None, class_mix, _LEAST_CLASSES_OF_MAPS):
        return plain_full_size_nll(
            logits, _plain_labels(logits, target, ignore_index), ignore_index=ignore_index, class_mix=class_mix
        )
    nll, spread = _maps(logits, target, class_mix, ignore_index)
    return nll, None if class_mix is None else spread


def full_size_nll_total(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    ignore_index: int = 255,
    own: float = 1.0,
    class_mix: Tensor | None = None,
    focus: float = 0.0,
) -> Tensor:
    """Returns own * sum(weight * (1 - exp(-nll))^focus * nll) + sum(spread) over the maps of `full_size_nll`.

    What weighs a pixel is known before its score here, so that one pass over a piece gives value and gradient. The
    gradient is kept in the logits' dtype, for float16, whose range is too small, in float32. Arguments and errors
    beyond these are those of `full_size_nll`.

    Args:
        logits: (B, K, H, W).
        target: (B, H, W).
        weight: (B, H, W), not differentiated; None is 1.
        ignore_index: As there.
        own: Factor of the labels' own part.
        class_mix: As there.
        focus: Exponent >= 0 of focal loss.

    Returns:
        Scalar.
    """
    if not _in_pieces(logits, target, weight, class_mix, _LEAST_CLASSES_OF_A_TOTAL):
        labels = _plain_labels(logits, target, ignore_index)
        return plain_full_size_nll_total(
            logits, labels, weight, ignore_index=ignore_index, own=own, class_mix=class_mix, focus=focus
        )
    with_gradient = torch.is_grad_enabled() and logits.requires_grad
    total: Tensor = _total(logits, target, weight, own, class_mix, focus, ignore_index, with_gradient)[0]
    return total


def plain_full_size_nll(
    logits: Tensor, target: Tensor, *, ignore_index: int = 255, class_mix: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """Does what `full_size_nll` does with PyTorch's losses, by way of float32 scores and their softmax; its twin."""
    # A softmax over the channels of a channels_last map takes twice as long.
    log_p = F.log_softmax(logits.to(computed_in(logits.dtype)).contiguous(), 1)
    target = target.long()
    nll = F.nll_loss(log_p, target, ignore_index=ignore_index, reduction="none")
    if class_mix is None:
        return nll, None
    spread = -torch.einsum("bk...,k->b...", log_p, class_mix.to(log_p.dtype))
    return nll, spread.masked_fill(target == ignore_index, 0)


def plain_full_size_nll_total(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    ignore_index: int = 255,
    own: float = 1.0,
    class_mix: Tensor | None = None,
    focus: float = 0.0,
) -> Tensor:
    """Does what `full_size_nll_total` does with the maps of `plain_full_size_nll`; its plain twin."""
    nll, spread = plain_full_size_nll(logits, target, ignore_index=ignore_index, class_mix=class_mix)
    nll = focused(nll, focus) if focus else nll
    total = (nll if weight is None else nll * weight).sum() * own
    return total if spread is None else total + spread.sum()


# Custom operations, so that torch.compile and fake tensors see one node with a shape instead of pieces.


@torch.library.custom_op(
    "perpixel::full_size_nll",
    mutates_args=(),
    schema="(Tensor logits, Tensor target, Tensor? class_mix, int ignore_index) -> (Tensor, Tensor)",
)
def _maps(logits: Tensor, target: Tensor, class_mix: Tensor | None, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Returns nll and spread, empty without a mix."""
    with torch.autocast(logits.device.type, enabled=False):
        nll, spread = maps_in_pieces(logits, target, ignore_index, class_mix)
    return nll, nll.new_empty(0) if spread is None else spread


@_maps.register_fake
def _(logits: Tensor, target: Tensor, class_mix: Tensor | None, _: int) -> tuple[Tensor, Tensor]:
    nll = logits.new_empty(target.shape, dtype=computed_in(logits.dtype))
    return nll, nll.new_empty(target.shape if class_mix is not None else (0,))


@torch.library.custom_op(
    "perpixel::full_size_nll_gradient",
    mutates_args=(),
    schema="(Tensor own, Tensor? mixed, Tensor logits, Tensor target, Tensor? class_mix, int ignore_index) -> Tensor",
)
def _gradient(
    own: Tensor, mixed: Tensor | None, logits: Tensor, target: Tensor, class_mix: Tensor | None, ignore_index: int
) -> Tensor:
    """Returns the gradient (B, K, H, W) of sum(own * nll) + sum(mixed * spread)."""
    with torch.autocast(logits.device.type, enabled=False):
        return gradient_in_pieces(own, mixed, logits, target, ignore_index, class_mix)


@_gradient.register_fake
def _(*inputs: Any) -> Tensor:
    return torch.empty_like(inputs[2], memory_format=laid_out_as(inputs[2]))


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:  # noqa: ARG001 - PyTorch's signature
    logits, target, class_mix, ctx.ignore_index = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(logits, target, class_mix)


def _maps_backward(ctx: Any, own: Tensor | None, mixed: Tensor | None) -> tuple[Tensor | None, ...]:
    logits, target, class_mix = ctx.saved_tensors
    if class_mix is None:
        mixed = None
    if own is None and mixed is None:
        return None, None, None, None
    if own is None:
        own = torch.zeros((), dtype=computed_in(logits.dtype), device=logits.device).expand(target.shape)
    return _gradient(own, mixed, logits, target, class_mix, ctx.ignore_index), None, None, None


_maps.register_autograd(_maps_backward, setup_context=_keep)


@torch.library.custom_op(
    "perpixel::full_size_nll_total",
    mutates_args=(),
    schema="(Tensor logits, Tensor target, Tensor? weight, float own, Tensor? class_mix, float focus,"
    " int ignore_index, bool with_gradient) -> (Tensor, Tensor)",
)
def _total(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    own: float,
    class_mix: Tensor | None,
    focus: float,
    ignore_index: int,
    with_gradient: bool,
) -> tuple[Tensor, Tensor]:
    """Returns the total and its gradient (B, K, H, W), empty if not asked for."""
    gradient = _new_gradient(logits, with_gradient)
    filled = gradient if with_gradient else None
    with torch.autocast(logits.device.type, enabled=False):
        return total_in_pieces(logits, target, weight, own, ignore_index, class_mix, focus, filled), gradient


@_total.register_fake
def _(logits: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return logits.new_empty((), dtype=computed_in(logits.dtype)), _new_gradient(logits, rest[-1])


def _keep_gradient(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    logits, target, weight, ctx.own, class_mix, ctx.focus, ctx.ignore_index, _ = inputs
    ctx.set_materialize_grads(False)  # it would fill a map with zeros for the second output
    ctx.save_for_backward(logits, target, weight, class_mix)
    ctx.mark_non_differentiable(output[1])
    ctx.gradient = output[1]  # not among the saved, which must not be changed in place


def _total_backward(ctx: Any, factor: Tensor | None, _: Any) -> tuple[Tensor | None, ...]:
    if factor is None:
        return (None,) * 8
    logits, target, weight, class_mix = ctx.saved_tensors
    gradient, ctx.gradient = ctx.gradient, None
    if gradient is None:  # asked a second time: the first multiplied and gave away what was kept
        gradient = _total(logits, target, weight, ctx.own, class_mix, ctx.focus, ctx.ignore_index, True)[1]
    return gradient.mul_(factor).to(logits.dtype), *(None,) * 7


_total.register_autograd(_total_backward, setup_context=_keep_gradient)


@torch.library.custom_op(
    "perpixel::checked_labels", mutates_args=(), schema="(Tensor target, int classes, int ignore_index) -> Tensor"
)
def _checked_labels(target: Tensor, classes: int, ignore_index: int) -> Tensor:
    check_labels(target, classes, ignore_index)
    return target.to(torch.int64, copy=True)


@_checked_labels.register_fake
def _(target: Tensor, *_: int) -> Tensor:
    return torch.empty_like(target, dtype=torch.int64)


def _in_pieces(
    logits: Tensor, target: Tensor, weight: Tensor | None, class_mix: Tensor | None, least_classes: int
) -> bool:
    """Checks the shapes of maps, and tells whether they are worked out in pieces."""
    if logits.ndim != 4 or 0 in logits.shape:
        return False
    check_nll_inputs(logits, target, class_mix)
    if target.shape[1:] != logits.shape[2:]:
        raise InvalidValue(f"labels {tuple(target.shape)} are not at the size of the scores {tuple(logits.shape)}")
    check_weight(weight, target)
    return logits.device.type == "cpu" and logits.shape[1] >= least_classes


def _plain_labels(logits: Tensor, target: Tensor, ignore_index: int) -> Tensor:
    """Returns the labels as PyTorch's losses take them, checked where that waits for no device."""
    if logits.device.type != "cpu" or logits.ndim != 4 or 0 in logits.shape:
        return target.long()
    labels: Tensor = _checked_labels(target, logits.shape[1], ignore_index)
    return labels


def _new_gradient(logits: Tensor, wanted: bool) -> Tensor:
    dtype = computed_in(logits.dtype) if logits.dtype == torch.float16 else logits.dtype
    if not wanted:
        return logits.new_empty(0, dtype=dtype)
    return torch.empty_like(logits, dtype=dtype, memory_format=laid_out_as(logits))
