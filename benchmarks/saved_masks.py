"""Times the scoring of saved masks against decoding them alone, with the same processes in the same rounds.

Makes pairs of Cityscapes' size as PNG: street-like regions of 19 classes with an ignored strip, predictions with
shifted borders and single wrong pixels. Three jobs take turns in every round: decoding both files of each pair with
Pillow, all scores of the IoU family, and these with BF score and Boundary IoU. Limits: scoring at 60 % of the speed of
decoding or more, boundary metrics in 6 times the time of the IoU scores or less. The start of the processes is part of
every job.

    python benchmarks/saved_masks.py --json saved_masks.json
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from mask_decoding import decode
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates, zoom

from perpixel.evaluation.mask_folders import match_masks
from perpixel.evaluation.measures import Measures
from perpixel.evaluation.saved_masks import evaluate_masks
from perpixel.evaluation.workers import available_cores, map_in_processes
from perpixel.labels import LabelSpace

CLASSES = 19
LEAST_SPEED = 0.6
MOST_BOUNDARY_TIME = 6.0


def regions(rng: np.random.Generator, height: int, width: int) -> NDArray[np.uint8]:
    """Horizontal layers with wavy borders, and things in front of them."""
    rows = np.linspace(0, 4, height)[:, None] + gaussian_filter(rng.normal(size=(1, width)), (0, width / 40)) * 8
    labels = np.array([10, 2, 8, 1, 0, 0], np.uint8)[
        np.clip(rows + 0.8 * np.sin(np.arange(width) / 200), 0, 5).astype(int)
    ]
    yy, xx = np.mgrid[:height, :width]
    for _ in range(60):
        centre, size = rng.random(2) * (height, width), 2 + rng.gamma(1.5, 0.02, 2) * (height, height)
        top, left = np.maximum(0, centre - size).astype(int)
        part = slice(top, int(centre[0] + size[0]) + 1), slice(left, int(centre[1] + size[1]) + 1)
        inside = ((yy[part] - centre[0]) / size[0]) ** 2 + ((xx[part] - centre[1]) / size[1]) ** 2 < 1
        labels[part][inside] = rng.integers(0, CLASSES)
    return labels


def make_pair(seed: int, height: int, width: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Returns a prediction and its target (H, W)."""
    rng = np.random.default_rng(seed)
    target = regions(rng, height, width)
    shift = [zoom(rng.normal(size=(height // 32, width // 32)), 32, order=1)[:height, :width] * 2 for _ in range(2)]
    yy, xx = np.mgrid[:height, :width]
    prediction = map_coordinates(target, [yy + shift[0], xx + shift[1]], order=0, mode="nearest").astype(np.uint8)
    wrong = rng.random((height, width)) < 0.002
    prediction[wrong] = rng.integers(0, CLASSES, int(wrong.sum()))
    target[-height // 10 :] = 255
    return prediction, target


def write_pairs(folder: Path, different: int, pairs: int, height: int, width: int) -> None:
    """Writes ``pairs`` pairs, of which ``different`` differ; the others are copies under other names."""
    for kind in ("predictions", "targets"):
        (folder / kind).mkdir(parents=True)
    for index in range(pairs):
        if index < different:
            maps = make_pair(index, height, width)
            for kind, labels in zip(("predictions", "targets"), maps, strict=True):
                Image.fromarray(labels).save(folder / kind / f"{index:04}.png")
            continue
        for kind in ("predictions", "targets"):
            source = folder / kind / f"{index % different:04}.png"
            (folder / kind / f"{index:04}.png").write_bytes(source.read_bytes())


def timed(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Runs every call once per round, in turns; seconds."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def measure(folder: Path, workers: int, rounds: int) -> dict[str, Any]:
    """Times all three jobs."""
    labels, sides = LabelSpace.numbered(CLASSES), (folder / "predictions", folder / "targets")
    images = match_masks(*sides).images
    calls: dict[str, Callable[[], Any]] = {
        "decode": lambda: list(map_in_processes(decode, images, workers=workers)),
        "iou": lambda: evaluate_masks(*sides, labels, workers=workers),
        "boundary": lambda: evaluate_masks(*sides, labels, workers=workers, measures=Measures(boundary=True)),
    }
    seconds = timed(calls, rounds)
    best = {name: min(values) for name, values in seconds.items()}
    speed = statistics.median(a / b for a, b in zip(seconds["decode"], seconds["iou"], strict=True))
    boundary = statistics.median(a / b for a, b in zip(seconds["boundary"], seconds["iou"], strict=True))
    return {
        "pairs": len(images),
        "seconds": seconds,
        "milliseconds_per_pair": {name: 1000 * value / len(images) for name, value in best.items()},
        "speed_of_decoding": speed,
        "speed_limit": LEAST_SPEED,
        "boundary_over_iou": boundary,
        "boundary_limit": MOST_BOUNDARY_TIME,
    }


def environment(workers: int) -> dict[str, Any]:
    root = Path(__file__).resolve().parent
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=False)
    return {
        "commit": commit.stdout.strip() if commit.returncode == 0 else None,
        "machine": platform.machine(),
        "workers": workers,
        "python": platform.python_version(),
        "versions": {"numpy": np.__version__, "pillow": PIL.__version__},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=500)
    parser.add_argument("--different", type=int, default=25, help="pairs that are drawn; the others are copies")
    parser.add_argument("--height", type=int, default=1024)
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--workers", type=int, default=available_cores())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the result here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_pairs(root, options.different, options.pairs, options.height, options.width)
        size = sum(path.stat().st_size for path in root.rglob("*.png")) / options.pairs
        result = measure(root, options.workers, options.rounds)
    times = "  ".join(f"{name} {value:.1f} ms" for name, value in result["milliseconds_per_pair"].items())
    print(f"{options.pairs} pairs of {options.height} x {options.width}, {size / 1e3:.0f} kB each: {times} per pair")
    print(f"scoring at {100 * result['speed_of_decoding']:.0f} % of the speed of decoding (limit 60 % or more)")
    print(f"with boundary metrics {result['boundary_over_iou']:.2f} times the IoU time (limit 6 or less)")
    if options.json:
        settings = {name: value for name, value in vars(options).items() if name != "json"}
        report = {
            "benchmark": "saved_masks",
            "settings": settings | {"bytes_per_pair": size},
            "environment": environment(options.workers),
            "results": [result],
        }
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
