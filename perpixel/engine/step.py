"""One update of the weights: the pure part of training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from perpixel.engine.precision import autocast
from perpixel.ops.normalize import normalize
from perpixel.types import Preprocessing, SegOutput

if TYPE_CHECKING:
    from collections.abc import Mapping

    from perpixel.data.batches import Batch
    from perpixel.engine.parallel import Parallel

__all__ = ["Criterion", "Forward", "LossParts", "StepStats", "forward_loss", "prepare_images", "train_step"]


class LossParts(Protocol):
    """What a criterion returns; ``losses.LossValue`` has these fields."""

    @property
    def total(self) -> Tensor:
        """Scalar to go down."""

    @property
    def parts(self) -> Mapping[str, Tensor]:
        """Weighted summands of the total, by name."""


Criterion = Callable[[SegOutput, Tensor], LossParts]
Forward = Callable[[Tensor], SegOutput]
"""A network, or what stands for it in a step: compiled, or wrapped for several processes."""


class StepStats(NamedTuple):
    """What a step reports; everything is still on the device."""

    values: dict[str, Tensor]
    """``total`` and each part, scalars, mean over the step's batches."""
    skipped: Tensor
    """Scalar float32: 1 when loss or gradient was not finite and the weights stayed, else 0."""


def train_step(
    network: Forward,
    criterion: Criterion,
    batches: Sequence[Batch],
    optimizer: Optimizer,
    *,
    preprocessing: Preprocessing,
    precision: str = "fp32",
    channels_last: bool = False,
    clip_norm: float | None = None,
    scaler: torch.amp.GradScaler | None = None,
    parallel: Parallel | None = None,
) -> StepStats:
    """Goes one step down the mean loss over the batches; nothing waits for the device.

    A step whose loss or gradient norm is not finite leaves weights and optimizer as they were. Under fp16 a gradient
    beyond its range is the scaler's to handle and not reported; a loss that is not finite is.

    Args:
        network: In training mode, on the batches' device; what is called.
        criterion: Takes the output in float32 and the target.
        batches: Their gradients are averaged (gradient accumulation); on the network's device.
        optimizer: A fused one skips on the device; others wait for the flag at every step.
        preprocessing: The network's.
        precision: Of the forward pass, a key of ``PRECISIONS``.
        channels_last: Memory order of the images.
        clip_norm: Greatest total gradient norm, > 0; None does not clip.
        scaler: For fp16.
        parallel: With several processes: how they share gradients; all skip what one of them must.
    """
    optimizer.zero_grad(set_to_none=True)
    values: dict[str, Tensor] = {}
    for number, batch in enumerate(batches, start=1):
        images = prepare_images(batch, preprocessing, channels_last=channels_last)
        with nullcontext() if parallel is None else parallel.part(last=number == len(batches)):
            loss = forward_loss(network, criterion, images, batch.target, precision)
            total = loss.total / len(batches)
            torch.autograd.backward(scaler.scale(total) if scaler is not None else total)
        for name, part in {**loss.parts, "total": loss.total}.items():
            share = part.detach() / len(batches)
            values[name] = values[name] + share if name in values else share
    if scaler is not None:
        scaler.unscale_(optimizer)
    norm = _gradient_norm(optimizer, clip_norm)
    finite = torch.isfinite(values["total"])
    skipped = (~(finite if scaler is not None else finite & torch.isfinite(norm))).float()
    if parallel is not None:
        skipped = parallel.world.largest(skipped)
    if scaler is not None:
        scaler.step(optimizer)
        scaler.update()
    else:
        _guarded_step(optimizer, skipped)
    return StepStats(values, skipped)


def prepare_images(batch: Batch, preprocessing: Preprocessing, *, channels_last: bool) -> Tensor:
    """Returns the batch's images (B, C, H, W) jittered and normalised, float32, on the batch's device."""
    images = normalize(batch.images, preprocessing, jitter=batch.jitter)
    return images.contiguous(memory_format=torch.channels_last) if channels_last else images


def forward_loss(network: Forward, criterion: Criterion, images: Tensor, target: Tensor, precision: str) -> LossParts:
    """Runs the network in ``precision`` and the criterion in float32."""
    with autocast(images.device, precision):
        output: SegOutput = network(images)
    full = SegOutput(
        logits=output.logits.float(),
        deep=tuple(scores.float() for scores in output.deep),
        border=tuple(scores.float() for scores in output.border),
        presence=tuple(scores.float() for scores in output.presence),
    )
    return criterion(full, target)


def _gradient_norm(optimizer: Optimizer, clip_norm: float | None) -> Tensor:
    """Returns the total gradient norm before the gradients are clipped to ``clip_norm``."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    norm = nn.utils.get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
    if clip_norm is not None:
        nn.utils.clip_grads_with_norm_(parameters, clip_norm, norm)
    return norm.full_tensor() if hasattr(norm, "full_tensor") else norm


def _guarded_step(optimizer: Optimizer, skipped: Tensor) -> None:
    """Updates the weights unless ``skipped`` is 1."""
    if optimizer.defaults.get("fused"):
        # The fused kernels read this attribute where the weights are: torch's protocol with its GradScaler.
        optimizer.found_inf = skipped  # type: ignore[attr-defined]
        try:
            optimizer.step()
        finally:
            del optimizer.found_inf  # type: ignore[attr-defined]
    elif not skipped:
        optimizer.step()
