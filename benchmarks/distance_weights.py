"""U-Net's weight map on 512x512 label maps, against a limit of 0.2 s on two cores.

Two kinds of labels: the ISBI 2012 slices where they are there (PERPIXEL_DATA), and generated cells, which are discs cut
out of a Voronoi diagram's regions. Component labelling, class balance and the border term are all inside the time.

    python benchmarks/distance_weights.py --json benchmarks/results/distance_weights.json [--rounds 7]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy.spatial import cKDTree
from torch import Tensor

from perpixel.ops import distance_weights

HERE = Path(__file__).resolve().parent
DATA = Path(os.environ.get("PERPIXEL_DATA", HERE.parents[1] / "shared" / "data")) / "isbi2012" / "label"
LIMIT_S = 0.2
SIDE = 512


def generated(cells: int) -> Tensor:
    """Returns (1, 512, 512) labels with ``cells`` cells, four pixels of background between neighbours."""
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(np.arange(SIDE), np.arange(SIDE), indexing="ij"), axis=-1).reshape(-1, 2)
    distance, _ = cKDTree(rng.uniform(0, SIDE, (cells, 2))).query(grid, k=2)
    inside = (distance[:, 1] - distance[:, 0] > 4) & (distance[:, 0] < 0.8 * SIDE / cells**0.5)
    return torch.from_numpy(inside.reshape(1, SIDE, SIDE).astype(np.uint8))


def time_of(labels: Tensor, rounds: int) -> dict[str, Any]:
    """Returns fastest and median seconds per map; the first call is not counted."""
    distance_weights(labels)
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        distance_weights(labels)
        seconds.append(time.perf_counter() - start)
    return {"fastest_s": min(seconds), "median_s": statistics.median(seconds), "rounds": rounds}


def main() -> None:
    """Times every map and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    maps = {f"{cells} generated cells": generated(cells) for cells in (20, 150, 1000)}
    for path in sorted(DATA.glob("*.png"))[:2]:
        maps[f"ISBI 2012, slice {path.stem}"] = torch.from_numpy(np.asarray(Image.open(path)) // 255)[None]
    rows = {name: time_of(labels, arguments.rounds) for name, labels in maps.items()}
    for name, row in rows.items():
        print(f"{name:24s} {1000 * row['fastest_s']:7.1f} ms, median {1000 * row['median_s']:7.1f} ms")
    slowest = max(row["median_s"] for row in rows.values())
    print(f"slowest median {slowest:.3f} s, limit {LIMIT_S} s")
    if arguments.json:
        content = {
            "rows": rows,
            "limit_s": LIMIT_S,
            "within_limit": slowest <= LIMIT_S,
            "torch": str(torch.__version__),
            "threads": torch.get_num_threads(),
            "machine": platform.machine(),
        }
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
