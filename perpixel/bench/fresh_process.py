"""The peak memory of contenders, each in a process of its own.

``python -m perpixel.bench.fresh_process REQUEST`` imports the module of a benchmark and asks its ``contenders(spec)``
for those named. It then forks once per contender and run, before anything was computed, so that every one begins with
the same memory, and writes what they held. Where there is no fork, contenders run one after the other within it.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import torch

from perpixel.bench.contest import Contender
from perpixel.bench.process_memory import forget_peak, peak_megabytes
from perpixel.errors import RunError

__all__ = ["Above", "held_by", "peaks_in_fresh_processes"]

Above = Literal["run", "prepare"]
"""What a peak is counted from: what was held before the run, or before anything was built."""

_PLAIN_ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(2**20)}
"""glibc takes blocks of a MiB and more from the system and gives them back, in place of a threshold that rises. Else a
memory figure counts the holes of its heap, which depend on how the weights were read: the same 120 MiB of tensors at
the peak took 194 MiB in one process and 289 in another."""


def peaks_in_fresh_processes(
    module: str, spec: Mapping[str, Any], names: Sequence[str], *, above: Above, threads: int, runs: int = 1
) -> dict[str, dict[str, Any]]:
    """Returns per contender ``peak_mb``, the median over ``runs`` processes, and ``peak_mb_runs``.

    Args:
        module: Has ``contenders(spec)``.
        spec: Plain values.
        names: Of contenders.
        above: What is subtracted.
        threads: Of torch.
        runs: Processes per contender, >= 1.

    Raises:
        RunError: a process failed; holds the end of what it said.
    """
    request = {
        "module": module, "spec": dict(spec), "names": list(names), "above": above, "threads": threads, "runs": runs
    }  # fmt: skip
    command = [sys.executable, "-m", "perpixel.bench.fresh_process", json.dumps(request)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | _PLAIN_ALLOCATOR | _search_path()
    )
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1:] or ["nothing was said"]
        raise RunError(f"the process that measures memory ended with {done.returncode}: {said[0]}")
    found: dict[str, list[float]] = json.loads(done.stdout.splitlines()[-1])
    return {name: {"peak_mb": statistics.median(peaks), "peak_mb_runs": peaks} for name, peaks in found.items()}


def held_by(contender: Contender, above: Above) -> float:
    """Returns the most MiB that this process held while the contender ran, above what it held before."""
    if above == "prepare":
        forget_peak()
        before = peak_megabytes()
        state = contender.prepare()
        for _ in range(2):  # gradients and momentum are there from the second step on
            contender.run(state)
        return peak_megabytes() - before
    state = contender.prepare()
    (contender.warm or contender.run)(state)
    forget_peak()
    before = peak_megabytes()
    contender.run(state)
    return peak_megabytes() - before


def main(arguments: Sequence[str]) -> None:
    """Is the process that measures."""
    request = json.loads(arguments[0])
    torch.set_num_threads(request["threads"])
    offered = {found.name: found for found in import_module(request["module"]).contenders(request["spec"])}
    peaks = {
        name: [_forked(partial(held_by, offered[name], request["above"])) for _ in range(request["runs"])]
        for name in request["names"]
    }
    sys.stdout.write(json.dumps(peaks) + "\n")


def _forked(measure: Callable[[], float]) -> float:
    """Measures in a process that begins as this one is."""
    if not hasattr(os, "fork"):
        return measure()
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(writing, repr(measure()).encode())
        except BaseException as error:
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
            os._exit(1)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        said = answer.read()
    _, status = os.waitpid(child, 0)
    if status or not said:
        sys.exit(os.waitstatus_to_exitcode(status) or 1)
    return float(said)


def _search_path() -> dict[str, str]:
    """Lets the new process find what this one found."""
    return {"PYTHONPATH": os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)}


if __name__ == "__main__":
    main(sys.argv[1:])
