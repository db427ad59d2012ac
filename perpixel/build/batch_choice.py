"""How many images a step takes on this machine: what is wanted, unless the memory holds fewer."""

from __future__ import annotations

import torch

from perpixel.build.memory_estimate import StepProbe, estimate_training_memory
from perpixel.build.memory_plan import plan_memory
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
    wanted = config.data.batch_size
    precision = choose_precision(config.precision, device).name
    free = free_memory(torch.device(device))
    room = max(1, int(_ROOM * free))
    probe = StepProbe(config, num_classes, 0, precision)
    estimate = estimate_training_memory(config, num_classes, precision=precision, probe=probe)
    where = "memory of the GPU" if device == "cuda" else "memory"
    if estimate.total <= room:
        return wanted, f"{wanted_because}; a step takes {estimate.text()}, and {bytes_text(free)} of {where} are free"
    largest = plan_memory(config, num_classes, memory=room, device=device, probe=probe).largest_batch
    some = max(1, largest)
    beyond = "" if largest else "; even one may not fit: take smaller crops with data.crop_size=[…, …]"
    return some, (
        f"of {wanted}, {some} fit into {bytes_text(room)}, four fifths of the {where} that is free: a step takes "
        f"{estimate.text()}{beyond}"
    )
