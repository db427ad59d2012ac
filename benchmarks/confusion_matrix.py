"""Times perpixel's confusion matrix against torchmetrics on the host, in interleaved rounds on the same label maps.

Two kinds of maps. ``regions``: convex cells of a random layout, predicted with their borders displaced by up to four
pixels and one cell in ten given a wrong class, as networks err; a band around each true border is ignored. ``noise``:
square cells with 10 % of the pixels mispredicted and 5 % ignored, each pixel drawn on its own, as no network errs: the
worst case for counting runs. Both sides see the same tensors; torchmetrics runs without its own validation of
arguments, perpixel with its own, and the matrices must be equal.

    python benchmarks/confusion_matrix.py --json confusion.json
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchmetrics
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix

from perpixel.metrics import confusion_matrix

Array = NDArray[np.float32]


def region_maps(batch: int, side: int, num_classes: int) -> tuple[Tensor, Tensor]:
    """Returns prediction and target (B, side, side) uint8: cells of the nearest of 60 seeds, and the same displaced."""
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[:side, :side].astype(np.float32)
    predictions, targets = [], []
    for _ in range(batch):
        seeds = random.uniform(0, side, (60, 2)).astype(np.float32)
        truth = random.integers(0, num_classes, 60).astype(np.uint8)
        guess = np.where(random.random(60) < 0.1, random.integers(0, num_classes, 60), truth).astype(np.uint8)
        waves = [4 * np.sin(axis / 17 + phase) for axis, phase in ((columns, 0), (rows, 1))]
        targets.append(truth[nearest(rows, columns, seeds)])
        predictions.append(guess[nearest(rows + waves[0], columns + waves[1], seeds)])
        border = np.zeros((side, side), dtype=bool)
        border[:, 1:] |= targets[-1][:, 1:] != targets[-1][:, :-1]
        border[1:] |= targets[-1][1:] != targets[-1][:-1]
        targets[-1][border] = 255
    return torch.from_numpy(np.stack(predictions)), torch.from_numpy(np.stack(targets))


def nearest(rows: Array, columns: Array, seeds: Array) -> NDArray[np.intp]:
    """Index (H, W) of the seed (N, 2) nearest to each place."""
    distances = np.stack([(rows - row) ** 2 + (columns - column) ** 2 for row, column in seeds])
    index: NDArray[np.intp] = distances.argmin(axis=0)
    return index


def noise_maps(batch: int, side: int, num_classes: int) -> tuple[Tensor, Tensor]:
    """Returns prediction and target (B, side, side) uint8."""
    generator = torch.Generator().manual_seed(0)
    cells = torch.randint(0, num_classes, (batch, 16, 16), generator=generator, dtype=torch.uint8)
    target = cells.repeat_interleave(side // 16, 1).repeat_interleave(side // 16, 2)
    prediction = target.clone()
    wrong = torch.rand(target.shape, generator=generator) < 0.1
    noise = torch.randint(0, num_classes, target.shape, generator=generator, dtype=torch.uint8)
    prediction[wrong] = noise[wrong]
    target[torch.rand(target.shape, generator=generator) < 0.05] = 255
    return prediction, target


def interleaved(calls: dict[str, Callable[[], Tensor]], rounds: int) -> dict[str, dict[str, float]]:
    """Runs every call once per round, after one round of warm-up; median and quartiles in milliseconds."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for index in range(rounds + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if index:
                times[name].append((time.perf_counter() - start) * 1e3)
    result = {}
    for name, values in times.items():
        lower, median, upper = statistics.quantiles(values, n=4)
        result[name] = {"median_ms": median, "lower_quartile_ms": lower, "upper_quartile_ms": upper}
    return result


MAPS = {"regions": region_maps, "noise": noise_maps}


def measure(kind: str, dtype: torch.dtype, *, batch: int, side: int, num_classes: int, rounds: int) -> dict[str, Any]:
    """Times both on maps of one kind and dtype, after checking that they count the same."""
    prediction, target = (labels.to(dtype) for labels in MAPS[kind](batch, side, num_classes))
    peer = MulticlassConfusionMatrix(num_classes, ignore_index=255, validate_args=False)

    def torchmetrics_call() -> Tensor:
        peer.reset()
        peer.update(prediction, target)
        return peer.compute()

    calls: dict[str, Callable[[], Tensor]] = {
        "perpixel": lambda: confusion_matrix(prediction, target, num_classes),
        "torchmetrics": torchmetrics_call,
    }
    if not torch.equal(calls["perpixel"](), calls["torchmetrics"]()):
        raise SystemExit("the two matrices differ, so their times cannot be compared")
    times = interleaved(calls, rounds)
    speedup = times["torchmetrics"]["median_ms"] / times["perpixel"]["median_ms"]
    return {"maps": kind, "dtype": str(dtype).removeprefix("torch."), "times": times, "speedup": speedup}


def environment() -> dict[str, Any]:
    root = Path(__file__).resolve().parent
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=False)
    return {
        "commit": commit.stdout.strip() if commit.returncode == 0 else None,
        "device": "cpu",
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "versions": {"torch": torch.__version__, "numpy": np.__version__, "torchmetrics": torchmetrics.__version__},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--side", type=int, default=512, help="height and width, a multiple of 16")
    parser.add_argument("--classes", type=int, default=19)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json", type=Path, help="write the result here")
    options = parser.parse_args()
    settings = {"batch": options.batch, "side": options.side, "num_classes": options.classes, "rounds": options.rounds}
    results = [measure(kind, dtype, **settings) for kind in MAPS for dtype in (torch.uint8, torch.int64)]
    print(f"{options.batch} x {options.side} x {options.side} pixels, {options.classes} classes")
    for result in results:
        times = "  ".join(f"{name} {value['median_ms']:7.2f} ms" for name, value in result["times"].items())
        print(f"{result['maps']:>7} {result['dtype']:>5}: {times}  speed-up {result['speedup']:.1f}")
    if options.json:
        report = {
            "benchmark": "confusion_matrix",
            "settings": settings,
            "environment": environment(),
            "results": results,
        }
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
