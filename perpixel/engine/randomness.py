"""The state of every generator that training draws from: torch's on CPU and CUDA, and Python's."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

__all__ = ["kept_random_state", "random_state", "rank_seed", "seed_all", "set_random_state"]

_FAR = 0x9E3779B97F4A7C15  # odd and far from 0, so that seeds of neighbouring processes and runs do not meet


def seed_all(seed: int) -> None:
    """Seeds torch on every device and Python's ``random``."""
    random.seed(seed)
    torch.manual_seed(seed)


def rank_seed(seed: int, rank: int) -> int:
    """Returns the seed of one of several processes, in [0, 2**63); that of the first is the run's own."""
    return (seed + rank * _FAR) % 2**63


def random_state() -> dict[str, Any]:
    """Returns the state of all generators as tensors and plain values."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    return {"torch": torch.get_rng_state(), "cuda": cuda, "python": random.getstate()}


def set_random_state(state: dict[str, Any]) -> None:
    """Puts the generators where ``random_state`` found them; on CUDA as many devices as both have."""
    torch.set_rng_state(state["torch"].cpu())
    for index, cuda_state in enumerate(state["cuda"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(cuda_state.cpu(), index)
    random.setstate(state["python"])


@contextmanager
def kept_random_state() -> Iterator[None]:
    """Hides from training what the ``with`` block draws: loaders and evaluations leave the generators as they were."""
    state = random_state()
    try:
        yield
    finally:
        set_random_state(state)
