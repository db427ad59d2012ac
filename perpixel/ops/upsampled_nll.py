"""The negative log-likelihood of every pixel's label from scores at a network's own resolution, never upsampled whole.

Shapes: B batch, K classes, h w cells of the score map, H W pixels. The scores are interpolated bilinearly to the size
of the labels. The map (B, H, W) of -log p is all that cross-entropy, focal loss and mining of hard pixels need; scores,
softmax and gradient of all classes, (B, K, H, W), are made in bands (`banded_nll`) or, on CUDA, in a GPU's registers
(`triton_upsampled_nll`), forward and backward. Results are float32, float64 for float64 scores.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from perpixel.ops.banded_nll import banded_gradient, banded_maps, banded_total
from perpixel.ops.focus import focused
from perpixel.ops.nll_checks import check_labels, check_nll_inputs, check_weight, computed_in
from perpixel.ops.resize import resize

__all__ = ["plain_upsampled_nll", "upsampled_nll", "upsampled_nll_total"]


def upsampled_nll(
    logits: Tensor, target: Tensor, *, align_corners: bool, ignore_index: int = 255, class_mix: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """Returns the map of -log p of the labels, and that of sum_k v_k (-log p_k) where a class mix v is given.

    Both are differentiable once, with any upstream gradient per pixel. Kept for that are the logits, the labels and, on
    CUDA, one (B, H, W) map.

    Args:
        logits: Class scores (B, K, h, w), floating point.
        target: Labels (B, H, W), whole numbers in [0, K) or ``ignore_index``.
        align_corners: Whether the corner pixels lie on the corner cells.
        ignore_index: Label of pixels whose values and gradients are zero.
        class_mix: v (K,), not differentiated; for label smoothing.

    Returns:
        Maps (B, H, W) in nats; the second is None without ``class_mix``.

    Raises:
        InvalidValue: shapes or dtypes do not fit, or a label is no class (on a GPU its pixel becomes NaN instead, so
            that nothing waits for the device).
    """
    check_nll_inputs(logits, target, class_mix)
    nll, spread, _ = _maps(logits, target, class_mix, align_corners, ignore_index)
    return nll, None if class_mix is None else spread


def upsampled_nll_total(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    align_corners: bool,
    ignore_index: int = 255,
    own: float = 1.0,
    class_mix: Tensor | None = None,
    focus: float = 0.0,
) -> Tensor:
    """Returns own * sum(weight * (1 - exp(-nll))^focus * nll) + sum(spread) over the maps of `upsampled_nll`.

    What weighs a pixel is known before its score here, so that on the CPU one pass gives value and gradient, which is
    1.6 times as fast as two. Arguments and errors beyond these are those of `upsampled_nll`.

    Args:
        logits: (B, K, h, w).
        target: (B, H, W).
        weight: (B, H, W), not differentiated; None is 1.
        align_corners: As there.
        ignore_index: As there.
        own: Factor of the labels' own part.
        class_mix: As there.
        focus: Exponent >= 0 of focal loss.

    Returns:
        Scalar.
    """
    check_nll_inputs(logits, target, class_mix)
    check_weight(weight, target)
    if not logits.is_cuda:
        with_gradient = torch.is_grad_enabled() and logits.requires_grad
        total: Tensor = _total(
            logits, target, weight, own, class_mix, focus, align_corners, ignore_index, with_gradient
        )[0]
        return total
    nll, spread, _ = _maps(logits, target, class_mix, align_corners, ignore_index)
    nll = focused(nll, focus) if focus else nll
    total = (nll if weight is None else nll * weight.to(nll.dtype)).sum() * own
    if class_mix is not None:
        total = total + spread.sum()
    return total


def plain_upsampled_nll(
    logits: Tensor, target: Tensor, *, align_corners: bool, ignore_index: int = 255, class_mix: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """Does what `upsampled_nll` does by way of the upsampled scores (B, K, H, W); its plain twin."""
    scores = resize(logits.to(computed_in(logits.dtype)), target.shape[-2:], align_corners=align_corners)
    target = target.long()
    log_p = F.log_softmax(scores, 1)
    nll = F.nll_loss(log_p, target, ignore_index=ignore_index, reduction="none")
    if class_mix is None:
        return nll, None
    spread = -torch.einsum("bkhw,k->bhw", log_p, class_mix.to(log_p.dtype))
    return nll, spread.masked_fill(target == ignore_index, 0)


# Custom operations, so that torch.compile and fake tensors see one node with a shape instead of bands or kernels.


@torch.library.custom_op(
    "perpixel::upsampled_nll",
    mutates_args=(),
    schema="(Tensor logits, Tensor target, Tensor? class_mix, bool align_corners, int ignore_index)"
    " -> (Tensor, Tensor, Tensor)",
)
def _maps(
    logits: Tensor, target: Tensor, class_mix: Tensor | None, align_corners: bool, ignore_index: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns nll, spread (empty without a mix) and, on CUDA, the log of the sum of exponentials, else empty."""
    if (kernels := _kernels(logits)) is not None:
        maps: tuple[Tensor, Tensor, Tensor] = kernels.forward_maps(
            logits, target, align_corners, ignore_index, class_mix
        )
        return maps
    check_labels(target, logits.shape[1], ignore_index)
    with torch.autocast(logits.device.type, enabled=False):
        nll, spread = banded_maps(logits, target, align_corners, ignore_index, class_mix)
    return nll, nll.new_empty(0) if spread is None else spread, nll.new_empty(0)


@_maps.register_fake
def _(logits: Tensor, target: Tensor, class_mix: Tensor | None, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    nll, spread, log_sums = (
        logits.new_empty(target.shape if there else (0,), dtype=computed_in(logits.dtype))
        for there in (True, class_mix is not None, _kernels(logits) is not None)
    )
    return nll, spread, log_sums


@torch.library.custom_op(
    "perpixel::upsampled_nll_gradient",
    mutates_args=(),
    schema="(Tensor own, Tensor? mixed, Tensor logits, Tensor target, Tensor log_sums, Tensor? class_mix,"
    " bool align_corners, int ignore_index) -> Tensor",
)
def _gradient(
    own: Tensor,
    mixed: Tensor | None,
    logits: Tensor,
    target: Tensor,
    log_sums: Tensor,
    class_mix: Tensor | None,
    align_corners: bool,
    ignore_index: int,
) -> Tensor:
    if (kernels := _kernels(logits)) is not None:
        gradient: Tensor = kernels.backward_scores(
            own, mixed, logits, target, log_sums, align_corners, ignore_index, class_mix
        )
        return gradient
    with torch.autocast(logits.device.type, enabled=False):
        return banded_gradient(own, mixed, logits, target, align_corners, ignore_index, class_mix)


@_gradient.register_fake
def _(*inputs: Any) -> Tensor:
    logits = inputs[2]
    return torch.empty(logits.shape, dtype=logits.dtype, device=logits.device)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    logits, target, class_mix, ctx.align_corners, ctx.ignore_index = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(logits, target, output[2], class_mix)
    ctx.mark_non_differentiable(output[2])


def _maps_backward(ctx: Any, own: Tensor | None, mixed: Tensor | None, _: Any) -> tuple[Tensor | None, ...]:
    logits, target, log_sums, class_mix = ctx.saved_tensors
    if own is None and mixed is None:
        return None, None, None, None, None
    if own is None:
        own = torch.zeros((), dtype=computed_in(logits.dtype), device=logits.device).expand(target.shape)
    if class_mix is None:
        mixed = None
    places = (ctx.align_corners, ctx.ignore_index)
    return _gradient(own, mixed, logits, target, log_sums, class_mix, *places), None, None, None, None


_maps.register_autograd(_maps_backward, setup_context=_keep)


@torch.library.custom_op(
    "perpixel::upsampled_nll_total",
    mutates_args=(),
    schema="(Tensor logits, Tensor target, Tensor? weight, float own, Tensor? class_mix, float focus,"
    " bool align_corners, int ignore_index, bool with_gradient) -> (Tensor, Tensor)",
)
def _total(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    own: float,
    class_mix: Tensor | None,
    focus: float,
    align_corners: bool,
    ignore_index: int,
    with_gradient: bool,
) -> tuple[Tensor, Tensor]:
    """Returns the total and its gradient (B, K, h, w), empty if not asked for."""
    check_labels(target, logits.shape[1], ignore_index)
    with torch.autocast(logits.device.type, enabled=False):
        return banded_total(logits, target, weight, own, class_mix, focus, align_corners, ignore_index, with_gradient)


@_total.register_fake
def _(logits: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    dtype = computed_in(logits.dtype)
    shape = logits.shape if rest[-1] else (0,)
    return logits.new_empty((), dtype=dtype), torch.empty(shape, dtype=dtype, device=logits.device)


def _keep_gradient(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.dtype = inputs[0].dtype
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(output[1])
    ctx.mark_non_differentiable(output[1])


def _total_backward(ctx: Any, factor: Tensor | None, _: Any) -> tuple[Tensor | None, ...]:
    if factor is None:
        return (None,) * 9
    (gradient,) = ctx.saved_tensors
    return (gradient * factor).to(ctx.dtype), *(None,) * 8


_total.register_autograd(_total_backward, setup_context=_keep_gradient)


def _kernels(logits: Tensor) -> Any:
    """Returns the module of CUDA kernels where they can work on these scores, else None."""
    if not logits.is_cuda:
        return None
    able = not torch.cuda.is_available() or torch.cuda.get_device_capability(logits.device) >= (7, 5)
    return _triton_kernels() if able else None


@cache
def _triton_kernels() -> Any:
    try:
        return import_module("perpixel.ops.triton_upsampled_nll")
    except ImportError:  # a PyTorch without Triton, such as those for Windows
        return None
