"""Checks losses, the poly schedule and presence targets against TorchSeg's and PyTorch-Encoding's.

Shapes: B batch, K classes, H W scores.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from perpixel.engine.schedules import ScheduleOptions, poly
from perpixel.losses import ohem_cross_entropy, sigmoid_focal_loss, torchseg_focal_loss
from perpixel.ops import presence_targets
from perpixel.weights.checkers.vector import Row, Vector, compare

__all__ = ["check_losses"]

# TorchSeg's DFN: alpha, gamma and the poly schedule of its VOC recipe; EncNet's labels ignore -1.
_ALPHA, _GAMMA = 0.25, 2.0
_BASE_LR, _POWER, _STEPS = 8e-4, 0.9, 39_600
_PRESENCE_IGNORED = -1


def check_losses(vector: Vector) -> list[Row]:
    """Compares values, gradients and kept pixels of every published array."""
    rows = [*_focal_rows(vector), *_curve_rows(vector)]
    cases = sorted(name.split("_")[1] for name in vector.expected if name.startswith("ohem_") and "loss" in name)
    for case in cases:
        rows += _ohem_rows(vector, f"ohem_{case}")
    options = ScheduleOptions(steps=_STEPS, power=_POWER)
    rates = [_BASE_LR * poly(int(step), options) for step in vector.expected["poly_lr_iters"]]
    rows.append(compare("poly_lr", rates, vector.expected["poly_lr"]))
    num_classes = vector.expected["se_target"].shape[1]
    present = presence_targets(vector.tensor("se_labels"), num_classes, ignore_index=_PRESENCE_IGNORED)
    rows.append(vector.compare_whole("se_target", present))
    return rows


def _focal_rows(vector: Vector) -> list[Row]:
    logits, target = vector.tensor("focal_logits"), vector.tensor("focal_target")
    coded, coded_grad = _value_and_gradient(partial(_coded, target=target), logits)
    standard, standard_grad = _value_and_gradient(partial(_standard, target=target), logits)
    pixels = [
        _standard(z.reshape(1, 1, 1, 1), t.reshape(1, 1, 1))
        for z, t in zip(logits.flatten(), target.flatten(), strict=True)
    ]
    return [
        vector.compare_whole("focal_as_coded", coded),
        vector.compare_whole("focal_as_coded_grad", coded_grad),
        vector.compare_whole("focal_standard_map", torch.stack(pixels).reshape(target.shape)),
        vector.compare_whole("focal_standard_mean_valid", standard),
        vector.compare_whole("focal_standard_grad", standard_grad),
    ]


def _curve_rows(vector: Vector) -> list[Row]:
    """The loss as coded of one pixel at a time, over a range of scores."""
    rows = []
    scores = vector.tensor("focal_curve_logits")
    for label in (0, 1):
        loss = partial(_coded, target=torch.full((1, 1, 1), label))
        points = [_value_and_gradient(loss, score.reshape(1, 1, 1, 1)) for score in scores]
        values, gradients = (torch.stack([p[i].reshape(()) for p in points]) for i in (0, 1))
        rows.append(vector.compare_whole(f"focal_curve_target{label}", values))
        rows.append(vector.compare_whole(f"focal_curve_grad_target{label}", gradients))
    return rows


def _ohem_rows(vector: Vector, case: str) -> list[Row]:
    """Kept pixels are those with a gradient."""
    threshold, min_kept = (float(value) for value in vector.expected[f"{case}_params"])
    target = vector.tensor(f"{case}_target")

    def loss(logits: Tensor) -> Tensor:
        return ohem_cross_entropy(logits, target, threshold=threshold, min_kept=int(min_kept))

    value, gradient = _value_and_gradient(loss, vector.tensor(f"{case}_logits"))
    kept = (gradient != 0).any(dim=1)
    return [vector.compare_whole(f"{case}_loss", value), vector.compare_whole(f"{case}_kept", kept)]


def _coded(logits: Tensor, target: Tensor) -> Tensor:
    return torchseg_focal_loss(logits, target, alpha=_ALPHA, gamma=_GAMMA, reduction="mean_all")


def _standard(logits: Tensor, target: Tensor) -> Tensor:
    return sigmoid_focal_loss(logits, target, alpha=_ALPHA, gamma=_GAMMA, reduction="mean_valid")


def _value_and_gradient(loss: Callable[[Tensor], Tensor], logits: Tensor) -> tuple[Tensor, Tensor]:
    logits = logits.clone().requires_grad_()
    value = loss(logits)
    (gradient,) = torch.autograd.grad(value, logits)
    return value.detach(), gradient
