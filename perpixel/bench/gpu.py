"""A named subset of the benchmarks on one GPU, within eight minutes, with nothing but torch, timm, numpy and scipy.

Every part runs in a process of its own with a budget of seconds: one that fails, hangs or spoils the device becomes a
row that says why, and the others go on. The file of results is written after each part.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from perpixel.bench.environment import describe_environment, file_name_of
from perpixel.bench.gpu_parts import PARTS, Place
from perpixel.bench.request import line_of
from perpixel.bench.results import Report, row_of
from perpixel.bench.subjects import RESULTS
from perpixel.errors import PerpixelError, nearest

__all__ = ["main", "measure_parts"]

BUDGET_S = 480.0
START_S = 40.0
"""For starting a process and importing torch, beyond a part's own seconds."""
_MARK = "row: "


def main(arguments: Sequence[str]) -> int:
    """Runs the parts; the exit code is 1 when a row could not be measured, 2 for a mistake in what was asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=list(PARTS), metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--json", type=Path, help="file of the results; benchmarks/results/DEVICE.json without it")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=BUDGET_S, help="for all parts together")
    parser.add_argument("--tiny", action="store_true", help="sizes that only prove that everything runs")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.part:
        return _be_part(options)
    problem = _problem(options)
    if problem:
        sys.stderr.write(f"error: {problem}\n")
        return 2
    path = options.json or RESULTS / f"{'tiny_' if options.tiny else ''}{file_name_of(options.device)}.json"
    try:
        report = measure_parts(
            options.only, device=options.device, path=path, seconds=options.seconds, tiny=options.tiny
        )
    except PerpixelError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    sys.stdout.write(f"\nresults: {path}\n")
    return 1 if report.failed else 0


def measure_parts(names: Sequence[str], *, device: str, path: Path | None, seconds: float, tiny: bool) -> Report:
    """Runs parts one after the other and returns their rows.

    Args:
        names: Keys of ``PARTS``.
        device: ``cuda`` or ``cpu``.
        path: Written after each part; None keeps the report in memory.
        seconds: For all together; parts for which none are left become rows that say so.
        tiny: See `Place`.
    """
    report = Report(
        path,
        "gpu",
        environment=describe_environment(device=device, packages=("scipy", "triton")),
        settings={"tiny": tiny},
        rounds=1 if tiny else 20,
    )
    end = time.perf_counter() + seconds
    longer = max(1.0, seconds / sum(PARTS[name].seconds + START_S for name in names))
    for name in names:
        part = PARTS[name]
        sys.stdout.write(f"\n== {name}: {part.summary} ({part.seconds:g} s)\n")
        sys.stdout.flush()
        patience = min(longer * (part.seconds + START_S), end - time.perf_counter())
        for row in _rows_of_part(name, device, patience, tiny):
            sys.stdout.write("\n".join(line_of(report.put(row))) + "\n")
        sys.stdout.flush()
    return report


def _rows_of_part(name: str, device: str, seconds: float, tiny: bool) -> list[dict[str, Any]]:
    """Runs a part in a process of its own; what it measured before it failed is kept."""
    if seconds < 5:
        return [_failed(name, "no time was left; run it alone with --only")]
    command = [sys.executable, "-m", "perpixel.bench.gpu", "--part", name, "--device", device]
    command += ["--seconds", str(PARTS[name].seconds), *(["--tiny"] if tiny else [])]
    root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    started = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": path}, start_new_session=True
    )
    try:
        said, _ = started.communicate(timeout=seconds)
        why = "" if not started.returncode else f"its process ended with {started.returncode}; the error stands above"
    except subprocess.TimeoutExpired:
        os.killpg(started.pid, signal.SIGKILL)  # with the processes that compile for it
        said, _ = started.communicate()
        why = f"it took more than {seconds:.0f} s; run it alone with --only and more --seconds"
    rows = [json.loads(line.removeprefix(_MARK)) for line in said.splitlines() if line.startswith(_MARK)]
    return [*rows, *([_failed(name, why)] if why else [])]


def _be_part(options: argparse.Namespace) -> int:
    """Is the process of one part."""
    torch.backends.cudnn.benchmark = True
    place = Place(torch.device(options.device), options.seconds, options.tiny)
    for row in PARTS[options.part].run(place):
        sys.stdout.write(f"{_MARK}{json.dumps(row)}\n")
        sys.stdout.flush()
    return 0


def _failed(part: str, why: str) -> dict[str, Any]:
    return {**row_of(f"{part}: the rest", {}), "failed": why}


def _problem(options: argparse.Namespace) -> str | None:
    for name in options.only:
        if name not in PARTS:
            return f"no part {name!r}{nearest(name, PARTS, end='.')} Known: {', '.join(PARTS)}"
    if torch.device(options.device).type == "cuda" and not torch.cuda.is_available():
        return "torch sees no CUDA device here; --device cpu --tiny only proves that everything runs"
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
