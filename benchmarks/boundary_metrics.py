"""Times the boundary metrics of Cityscapes-sized mask pairs against what scoring by IoU alone costs, in one run.

A pair is 2048x1024 pixels of 19 classes: irregular regions, a prediction whose edges are a few pixels off and that has
some wrong regions, and void strips. IoU alone is the decoding of both PNGs and their confusion matrix. With boundary
metrics it is that and the BF score, Boundary IoU and trimap confusions at four widths; the limit is 6 times IoU alone.
Contenders take turns in every round, one process, one thread.

    python benchmarks/boundary_metrics.py --json benchmarks/results/boundary_metrics.json
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import scipy
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import zoom
from scipy.spatial import cKDTree

from perpixel.metrics import bf_score, boundary_iou_counts, confusion_matrix, trimap_confusions

HEIGHT, WIDTH, CLASSES = 1024, 2048, 19
WIDTHS_PX = (1, 3, 5, 10)
LIMIT = 6.0

Labels = NDArray[np.uint8]


def smooth_noise(generator: np.random.Generator, cell: int, amplitude: float) -> NDArray[np.float64]:
    """Returns displacements (HEIGHT, WIDTH) in pixels that vary over ``cell`` pixels."""
    coarse = generator.normal(size=(HEIGHT // cell + 2, WIDTH // cell + 2))
    fine: NDArray[np.float64] = amplitude * zoom(coarse, cell, order=1)[:HEIGHT, :WIDTH]
    return fine


def mask_pair(
    seed: int, *, regions: int = 150, wrong_regions: int = 30, edge_error_px: float = 3.0
) -> tuple[Labels, Labels]:
    """Returns prediction and target (HEIGHT, WIDTH), 255 void."""
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    seeds = generator.uniform(0, 1, (regions, 2)) * (HEIGHT, WIDTH)
    classes = generator.integers(0, CLASSES, regions).astype(np.uint8)
    places = np.stack([grid + smooth_noise(generator, 32, 6.0) for grid in (rows, columns)], axis=-1)
    target = classes[cKDTree(seeds).query(places.reshape(-1, 2))[1]].reshape(HEIGHT, WIDTH)
    moved = [
        np.rint(grid + smooth_noise(generator, 64, edge_error_px)).astype(int).clip(0, side - 1)
        for grid, side in ((rows, HEIGHT), (columns, WIDTH))
    ]
    prediction = target[moved[0], moved[1]]
    for _ in range(wrong_regions):
        top, left, side = (int(generator.integers(*span)) for span in ((0, HEIGHT - 120), (0, WIDTH - 120), (20, 120)))
        prediction[top : top + side, left : left + side] = generator.integers(0, CLASSES)
    target[-60:] = 255
    target[300:420, 500:700] = 255
    return prediction, target


def as_png(labels: Labels) -> bytes:
    file = io.BytesIO()
    Image.fromarray(labels).save(file, "png")
    return file.getvalue()


def decoded(png: bytes) -> Labels:
    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image)


def measure(pairs: list[tuple[Labels, Labels]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds per pair of every step in every round, after one round of warm-up."""
    files = [(as_png(prediction), as_png(target)) for prediction, target in pairs]
    steps: dict[str, Callable[[Labels, Labels], object]] = {
        "confusion_matrix": lambda p, t: confusion_matrix(p, t, CLASSES),
        "bf_score": lambda p, t: bf_score(p, t, CLASSES),
        "boundary_iou": lambda p, t: boundary_iou_counts(p, t, CLASSES),
        "trimaps": lambda p, t: trimap_confusions(p, t, CLASSES, widths_px=WIDTHS_PX),
    }
    times: dict[str, list[float]] = {name: [] for name in ("decode", *steps)}
    for number in range(rounds + 1):
        for index, (prediction, target) in enumerate(files):
            start = time.perf_counter()
            pair = decoded(prediction), decoded(target)
            spent = {"decode": time.perf_counter() - start}
            for name, step in steps.items():
                start = time.perf_counter()
                step(*pair)
                spent[name] = time.perf_counter() - start
            if number:
                for name, seconds in spent.items():
                    times[name].append(seconds * 1e3)
            elif not all(np.array_equal(*both) for both in zip(pair, pairs[index], strict=True)):
                raise SystemExit("a decoded mask differs from what was written")
    return times


def environment() -> dict[str, Any]:
    root = Path(__file__).resolve().parent
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=False)
    return {
        "commit": commit.stdout.strip() if commit.returncode == 0 else None,
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {"numpy": np.__version__, "scipy": scipy.__version__, "pillow": PIL.__version__},
    }


def main() -> None:
    """Prints the milliseconds per pair of every step, and both sums as a ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--json", type=Path, help="write the result here")
    options = parser.parse_args()
    times = measure([mask_pair(seed) for seed in range(options.pairs)], options.rounds)
    results: dict[str, dict[str, float]] = {}
    for statistic, of in (("fastest", min), ("median", statistics.median)):
        values = {name: of(spent) for name, spent in times.items()}
        iou_only = values["decode"] + values["confusion_matrix"]
        with_boundary = iou_only + values["bf_score"] + values["boundary_iou"] + values["trimaps"]
        results[statistic] = {f"{name}_ms": value for name, value in values.items()} | {
            "iou_only_ms": iou_only,
            "with_boundary_ms": with_boundary,
            "ratio": with_boundary / iou_only,
        }
        steps = "  ".join(f"{name} {value:.1f}" for name, value in values.items())
        print(f"{statistic:>7}, ms per pair: {steps}")
        ratio = f"x {with_boundary / iou_only:.2f} (limit {LIMIT:g})"
        print(f"{'':>7}  IoU alone {iou_only:.1f}, with boundary metrics {with_boundary:.1f}: {ratio}")
    if options.json:
        settings = {
            "size": [HEIGHT, WIDTH],
            "num_classes": CLASSES,
            "trimap_px": WIDTHS_PX,
            "pairs": options.pairs,
            "rounds": options.rounds,
        }
        report = {
            "benchmark": "boundary_metrics",
            "limit": LIMIT,
            "settings": settings,
            "environment": environment(),
            "results": results,
        }
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
