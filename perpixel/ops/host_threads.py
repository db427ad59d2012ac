"""Work on the CPU shared out to threads piece by piece, instead of every operation by itself."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch

__all__ = ["share_out"]

_THREADS_WITHIN = 4  # from which on several threads for one piece gain more than they wait


def share_out(number: int, device: torch.device, work: Callable[[range], None]) -> None:
    """Calls ``work`` with the indices of pieces, on the CPU in as many threads as PyTorch has, each with its share.

    Operations on a piece are so short that threads within them wait for each other longer than they work as soon as
    another process, such as a loader's, takes one of the cores.
    """
    threads = torch.get_num_threads()
    workers = min(number, threads)
    if threads == 1 or device.type != "cpu":
        work(range(number))
        return
    within = threads // workers
    within = within if within >= _THREADS_WITHIN else 1
    mode = torch.inference_mode if torch.is_inference_mode_enabled() else torch.no_grad

    def part(first: int) -> None:
        torch.set_num_threads(within)  # of this thread
        with mode():
            work(range(first, number, workers))

    try:
        with ThreadPoolExecutor(workers) as pool:
            for _ in pool.map(part, range(workers)):
                pass
    finally:
        torch.set_num_threads(threads)  # what threads to come start with
