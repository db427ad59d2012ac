"""How many images a step takes on this machine: what is wanted, unless the memory holds fewer."""

from __future__ import annotations

import torch

from perpixel.build.memory_estimate import estimate_training_memory
from perpixel.config import RunConfig
from perpixel.engine import choose_precision
from perpixel.inference.memory import bytes_text, free_memory

__all__ = ["fitting_batch"]

_ROOM = 0.8
"""Share of the free memory that is planned with: other programs, decoded images and fragments take the rest."""


def fitting_batch(config: RunConfig, num_classes: int, *, device: str, wanted_because: str) -> tuple[int, str]:
    """Returns the batch size of a plan's first stage, and why.

    Args:
        config: The plan with the batch size that is wanted.
        num_classes: K.
        device: ``cpu`` or ``cuda``.
        wanted_because: The reason for that batch size where the memory suffices.

    Raises:
        PerpixelError: the network or the loss cannot be built.
    """
    wanted, crop = config.data.batch_size, config.data.crop_size
    precision = choose_precision(config.precision, device).name
    free = free_memory(torch.device(device))
    room = int(_ROOM * free)
    estimate = estimate_training_memory(config, num_classes, precision=precision, growth=False)
    if estimate.total > room:  # how much less is worth another look
        estimate = estimate_training_memory(config, num_classes, precision=precision)
    largest = estimate.largest_batch(room)
    where = "memory of the GPU" if device == "cuda" else "memory"
    if largest >= wanted:
        return wanted, f"{wanted_because}; a step takes {estimate.text()}, and {bytes_text(free)} of {where} are free"
    some = max(1, largest)
    beyond = "" if largest else "; even one may not fit: take smaller crops with data.crop_size=[…, …]"
    return some, (
        f"of {wanted}, {some} fit into {bytes_text(room)}, four fifths of the {where} that is free: each image "
        f"of {crop[0]} x {crop[1]} takes about {bytes_text(estimate.image_bytes)}{beyond}"
    )
