"""Times `perpixel data check` on many masks, and looks at how its memory grows with their number.

Makes a folder of JPEG images and PNG masks of 500 x 375, every one different: street-like regions of 19 classes with an
ignored strip, and pictures with noise. Two checks, each in a fresh interpreter: of a tenth of the pairs and of all.
Limits for 20,000 masks: 5 minutes on two cores, and memory that does not grow with the number of files but for the
small record of each (stated per file).

    python benchmarks/data_check.py --masks 1000 --json data_check.json
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from saved_masks import environment, regions

from perpixel.data.worker_pool import available_cores

HEIGHT, WIDTH, CLASSES = 375, 500, 19
MOST_SECONDS = 300.0
FULL = 20_000
_CHECK = """
import json, resource, sys, time
from perpixel.data.inspection.inspect import inspect_data
started = time.perf_counter()
found = inspect_data(sys.argv[1], workers=int(sys.argv[2]))
workers = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))  # of this program alone
own = int(peak.split()[1]) / 1024
print(json.dumps({"seconds": time.perf_counter() - started, "pairs": sum(found.splits.values()), "own_mib": own,
    "cpu_seconds": sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)),
    "largest_worker_mib": workers, "findings": {one.kind: one.count for one in found.findings}}))
"""


def picture(mask: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Colours by class, a light of its own for each image, and noise."""
    light = Image.fromarray(rng.integers(0, 160, (6, 8, 3), dtype=np.uint8)).resize((WIDTH, HEIGHT), 2)
    tint = rng.integers(0, 60, (256, 3), dtype=np.uint8)
    noise = rng.integers(0, 32, (HEIGHT, WIDTH, 1), dtype=np.uint8)
    return np.asarray(light) + tint[mask] + noise


def write_pair(index: int, folder: Path) -> None:
    """Writes one image and its mask into the split that its number says."""
    rng = np.random.default_rng(index)
    mask = regions(rng, HEIGHT, WIDTH)
    mask[-HEIGHT // 10 :] = 255
    place = folder / ("val" if index % 10 == 0 else "train")
    Image.fromarray(picture(mask, rng)).save(place / "images" / f"{index:06}.jpg", quality=90)
    Image.fromarray(mask).save(place / "masks" / f"{index:06}.png")


def write_data(folder: Path, pairs: int, workers: int) -> None:
    for split in ("train", "val"):
        for kind in ("images", "masks"):
            (folder / split / kind).mkdir(parents=True)
    with ProcessPoolExecutor(workers) as pool:
        list(pool.map(partial(write_pair, folder=folder), range(pairs), chunksize=16))


def check(folder: Path, workers: int) -> dict[str, Any]:
    """Checks a folder in an interpreter of its own, so that the memory of one check is not that of another."""
    command = [sys.executable, "-c", _CHECK, str(folder), str(workers)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--masks", type=int, default=FULL)
    parser.add_argument("--workers", type=int, default=min(2, available_cores()))
    parser.add_argument("--json", type=Path, help="write the result here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        parts = {"tenth": max(20, options.masks // 10), "all": options.masks}
        results = {}
        for name, pairs in parts.items():
            write_data(Path(folder) / name, pairs, options.workers)
            results[name] = check(Path(folder) / name, options.workers)
    small, large = results["tenth"], results["all"]
    added = large["pairs"] - small["pairs"]
    per_pair = large["seconds"] / large["pairs"]
    cpu = large["cpu_seconds"] / large["pairs"]
    record = 1024 * (large["own_mib"] - small["own_mib"]) / max(1, added)
    print(f"{large['pairs']} masks of {WIDTH} x {HEIGHT} on {options.workers} cores: {large['seconds']:.1f} s,")
    print(f"{1000 * per_pair:.1f} ms each, so {FULL * per_pair:.0f} s for {FULL} (limit {MOST_SECONDS:.0f} s);")
    print(f"{1000 * cpu:.1f} ms of a core each, so {FULL * cpu / 2:.0f} s on two cores that do nothing else")
    print(f"memory of a worker {small['largest_worker_mib']:.0f} MiB for {small['pairs']} pairs, ", end="")
    print(f"{large['largest_worker_mib']:.0f} MiB for {large['pairs']}; of the process that gathers ", end="")
    print(f"{small['own_mib']:.0f} and {large['own_mib']:.0f} MiB: {record:.1f} KiB per file more")
    print(f"found: {large['findings']}")
    if options.json:
        report = {
            "benchmark": "data_check",
            "settings": {"masks": options.masks, "height": HEIGHT, "width": WIDTH, "workers": options.workers},
            "environment": environment(options.workers),
            "results": [
                results | {"seconds_for_20000": FULL * per_pair, "limit": MOST_SECONDS, "kib_per_file": record}
            ],
        }
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
