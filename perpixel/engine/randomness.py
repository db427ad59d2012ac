"""The state of every generator that training draws from: torch's on CPU and CUDA, and Python's."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

__all__ = ["kept_random_state", "random_state", "seed_all", "set_random_state"]


def seed_all(seed: int) -> None:
    """Seeds torch on every device and Python's ``random``."""
    random.seed(seed)
    torch.manual_seed(seed)


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
