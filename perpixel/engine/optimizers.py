"""Optimizers by name, with the fused kernels where they run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, AdamW, Optimizer, RMSprop

from perpixel.errors import InvalidValue, nearest

__all__ = ["OPTIMIZERS", "OptimizerOptions", "create_optimizer", "lay_out_state"]

Groups = Sequence[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class OptimizerOptions:
    """What the optimizers read; each takes the fields that it knows."""

    lr: float
    momentum: float = 0.9
    nesterov: bool = False
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    fused: bool = False


def _sgd(groups: Groups, options: OptimizerOptions) -> Optimizer:
    optimizer = SGD(
        groups, lr=options.lr, momentum=options.momentum, nesterov=options.nesterov, fused=options.fused or None
    )
    if options.fused and options.momentum:
        # The fused kernel leaves its first momentum unset when that update is skipped. Zeros give the same first step.
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def _adamw(groups: Groups, options: OptimizerOptions) -> Optimizer:
    return AdamW(groups, lr=options.lr, betas=options.betas, eps=options.eps, fused=options.fused or None)


def _rmsprop(groups: Groups, options: OptimizerOptions) -> Optimizer:
    return RMSprop(groups, lr=options.lr, momentum=options.momentum, eps=options.eps)


OPTIMIZERS: dict[str, Callable[[Groups, OptimizerOptions], Optimizer]] = {
    "sgd": _sgd,
    "adamw": _adamw,
    "rmsprop": _rmsprop,
}


def create_optimizer(
    name: str,
    groups: Groups,
    *,
    lr: float,
    momentum: float = 0.9,
    nesterov: bool = False,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    fused: bool | None = None,
) -> Optimizer:
    """Builds an optimizer over parameter groups.

    Args:
        name: A key of ``OPTIMIZERS``.
        groups: From ``parameter_groups``; a group's own ``lr`` and ``weight_decay`` count.
        lr: Learning rate of groups without their own, >= 0.
        momentum: In [0, 1); read by sgd and rmsprop.
        nesterov: Read by sgd.
        betas: Read by adamw, each in [0, 1).
        eps: Read by adamw and rmsprop, > 0.
        fused: One kernel per update, which skips a bad one without waiting for the device; None takes it for sgd and
            adamw where all parameters are whole tensors on CPU or CUDA. RMSprop has none: torch groups it on CUDA.

    Raises:
        InvalidValue: the name is unknown, the groups hold no parameter, or a value is out of range.
    """
    if name not in OPTIMIZERS:
        raise InvalidValue(f"unknown optimizer {name!r}; known: {', '.join(OPTIMIZERS)}{nearest(name, OPTIMIZERS)}")
    parameters: list[Tensor] = [parameter for group in groups for parameter in group["params"]]
    if not parameters:
        raise InvalidValue(f"optimizer {name!r} got no parameters; at least one must be trainable")
    if fused and name == "rmsprop":
        raise InvalidValue("optimizer 'rmsprop' has no fused kernel; leave fused=None")
    if fused is None:
        fused = name != "rmsprop" and all(_fusable(parameter) for parameter in parameters)
    options = OptimizerOptions(lr=lr, momentum=momentum, nesterov=nesterov, betas=betas, eps=eps, fused=fused)
    try:
        return OPTIMIZERS[name](list(groups), options)
    except ValueError as error:  # torch names the value, not the optimizer
        raise InvalidValue(f"optimizer {name!r}: {error}") from error


def _fusable(parameter: Tensor) -> bool:
    """Whether torch's fused kernels take it; slices of a tensor that several processes share are left to the others."""
    whole = not hasattr(parameter, "device_mesh")
    return whole and parameter.device.type in ("cpu", "cuda") and parameter.dtype in (torch.float32, torch.float64)


def lay_out_state(optimizer: Optimizer) -> None:
    """Brings what an optimizer keeps into the memory order of its parameters, values as they are.

    Fused kernels walk through parameter, gradient and state as they lie in memory. State of another order, such as that
    of parameters which became channels_last later or were saved by other processes, would meet the wrong weights.
    """
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if not isinstance(value, Tensor) or value.shape != parameter.shape or value.stride() == parameter.stride():
                continue
            if not hasattr(value, "device_mesh"):  # slices of FSDP2 are not updated by fused kernels
                state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
