"""What deterministic mode costs: the same training step with and without it, in turns."""

from __future__ import annotations

from collections.abc import Callable

import torch

from perpixel.bench.contest import Contender, Contest, contest
from perpixel.bench.roofline import synchronise
from perpixel.engine.determinism import deterministic_mode

__all__ = ["DETERMINISTIC", "USUAL", "deterministic_cost"]

USUAL, DETERMINISTIC = "usual", "deterministic"


def deterministic_cost(
    step: Callable[[], object], device: torch.device | str, *, rounds: int = 9, calls: int = 1
) -> Contest:
    """Times ``step`` in both modes; leaves the process in the one that it found.

    Args:
        step: One training step, such as ``lambda: train_step(...)``, on ``device``.
        device: Where it runs.
        rounds: How often both take their turn.
        calls: Steps of a turn.

    Returns:
        Seconds of `USUAL` and `DETERMINISTIC`; ``ratio(USUAL, DETERMINISTIC)`` says how many times as fast the usual
        one is, which is the mode's cost.
    """
    device = torch.device(device)
    before = torch.are_deterministic_algorithms_enabled()

    def run(enabled: bool) -> object:
        deterministic_mode(enabled, device)
        return step()

    modes = {USUAL: False, DETERMINISTIC: True}
    offered = [
        Contender(name=name, prepare=lambda enabled=enabled: enabled, run=run)  # type: ignore[misc]
        for name, enabled in modes.items()
    ]
    try:
        return contest(offered, rounds=rounds, warmup=2, calls=calls, sync=synchronise(device))
    finally:
        deterministic_mode(before, device)
