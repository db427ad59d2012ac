"""Loss or gradients that are not finite: noticed without waiting for the device, and explained once noticed."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from perpixel.engine.step import Criterion, forward_loss, prepare_images
from perpixel.types import Preprocessing

if TYPE_CHECKING:
    from perpixel.data.batches import Batch

__all__ = ["SkipRecord", "blamed", "explain_nonfinite", "first_bad_module"]

_INNOCENT = "run again with the weights of now, the batch is finite everywhere"


class SkipRecord:
    """Remembers, for the last ``size`` steps, the batch names and a flag on the device that says if it was skipped."""

    def __init__(self, size: int) -> None:
        self._steps: deque[tuple[int, tuple[str, ...], Tensor]] = deque(maxlen=size)

    def add(self, step: int, names: tuple[str, ...], skipped: Tensor) -> None:
        """Takes one step in; does not wait for the device."""
        self._steps.append((step, names, skipped))

    def read(self) -> list[int]:
        """Waits for the device and returns the skipped ones among the remembered steps, oldest first."""
        if not self._steps:
            return []
        flags = torch.stack([skipped for _, _, skipped in self._steps]).tolist()
        return [step for (step, _, _), flag in zip(self._steps, flags, strict=True) if flag]

    def names(self) -> dict[int, tuple[str, ...]]:
        """Returns the batch names of the remembered steps."""
        return {step: names for step, names, _ in self._steps}


def explain_nonfinite(
    network: nn.Module,
    criterion: Criterion,
    batch: Batch,
    *,
    preprocessing: Preprocessing,
    precision: str,
    channels_last: bool = False,
) -> str:
    """Runs one batch again, forward and backward, and says in a sentence where the first bad number arises.

    Gradients are overwritten and batch norms see the batch once more: only for a run that stops.
    """
    bad_weights = [name for name, weight in network.named_parameters() if not _finite(weight)]
    if bad_weights:
        return f"the weights themselves are not finite, first {bad_weights[0]!r} of {len(bad_weights)}"
    images = prepare_images(batch, preprocessing, channels_last=channels_last)
    if not _finite(images):
        return "the normalised images are not finite; check the preprocessing's mean, std and value range"
    network.zero_grad(set_to_none=True)
    module, loss = first_bad_module(network, criterion, images, batch.target, precision)
    if module is not None:
        return f"the first module whose output is not finite is {module}"
    if not _finite(loss.total):
        parts = [name for name, part in loss.parts.items() if not _finite(part)]
        return f"every module's output is finite, the loss is not: {', '.join(parts) or 'its total'}"
    torch.autograd.backward(loss.total)
    bad = [name for name, weight in network.named_parameters() if weight.grad is not None and not _finite(weight.grad)]
    if bad:
        return f"outputs and loss are finite, the gradient is not: first of {bad[-1]!r}, in {len(bad)} parameters"
    return _INNOCENT


def blamed(told: list[tuple[dict[int, tuple[str, ...]], str]]) -> tuple[dict[int, tuple[str, ...]], str]:
    """Returns the batch names, by step, and the reason of the processes at fault; of all when none of them is.

    Args:
        told: Names and reason of each process, in the order of the ranks.
    """
    if len(told) == 1:
        return told[0]
    ranks = [rank for rank, (_, reason) in enumerate(told) if reason != _INNOCENT] or list(range(len(told)))
    names = {step: tuple(name for rank in ranks for name in told[rank][0].get(step, ())) for step in told[0][0]}
    return names, "; ".join(f"rank {rank} of {len(told)}: {told[rank][1]}" for rank in ranks)


def first_bad_module(
    network: nn.Module, criterion: Criterion, images: Tensor, target: Tensor, precision: str
) -> tuple[str | None, Any]:
    """Returns name and class of the module whose output is the first not to be finite (None: all are), and the loss."""
    found: list[str] = []

    def hook_for(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:  # noqa: ARG001 - the signature of a hook
            if not found and not all(_finite(tensor) for tensor in _tensors(output)):
                found.append(f"{name or 'the network'!r} ({type(module).__name__})")

        return hook

    handles = [module.register_forward_hook(hook_for(name)) for name, module in network.named_modules()]
    try:
        loss = forward_loss(network, criterion, images, target, precision)
    finally:
        for handle in handles:
            handle.remove()
    return (found[0] if found else None), loss


def _finite(tensor: Tensor) -> bool:
    return bool(torch.isfinite(tensor.detach()).all())


def _tensors(output: Any) -> list[Tensor]:
    """Returns the tensors in a module's output, however nested."""
    if isinstance(output, Tensor):
        return [output]
    if isinstance(output, (tuple, list)):
        return [tensor for item in output for tensor in _tensors(item)]
    if isinstance(output, dict):
        return [tensor for item in output.values() for tensor in _tensors(item)]
    return []
