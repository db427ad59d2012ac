"""Segments an image of 8192x8192 by the demo's DFN within a gigabyte above the model's own memory.

The image is made here, as TIFF (with rasterio, extra ``geo``) or .npy; the DFN has the demo's size and random weights.
A process of its own loads the model and sends a small image through it. What it holds then is the model's own memory;
the figure is the most that it holds afterwards, less that. Measuring what tiles cost, which begins the system's own
record anew, is watched by a thread that samples; the run itself is read from VmHWM. With ``--whole`` another process
does the same without tiles, for the memory and the classes of the whole image. CPU, float32. JSON by ``--json``.

    python benchmarks/large_image.py --json benchmarks/results/large_image.json [--side 8192] [--memory 800MB] [--whole]
"""

from __future__ import annotations

import argparse
import ctypes
import json
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from perpixel.build.networks import build_network
from perpixel.data.scenes import SCENE_CLASSES
from perpixel.inference import Segmenter
from perpixel.inference.geo import gdal, has_rasterio, rasterio_module
from perpixel.inference.large_images import plan_raster, segment_raster, tile_cost
from perpixel.inference.memory import parse_bytes
from perpixel.inference.raster_files import open_raster
from perpixel.labels import LabelSpace
from perpixel.recipes import get_recipe

HERE = Path(__file__).resolve()
LIMIT_BYTES = 10**9
BAND = 256


def demo_model() -> Segmenter:
    """Returns a DFN of the demo's size."""
    torch.manual_seed(0)
    network = build_network(get_recipe("dfn_demo").stages[0].model, len(SCENE_CLASSES))
    return Segmenter(network, LabelSpace.numbered(len(SCENE_CLASSES)), name="DFN of the demo, random weights")


def write_image(path: Path, side: int) -> None:
    """Writes waves and noise, a band of rows at a time."""
    if path.suffix == ".npy":
        array = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(side, side, 3))
        for top, band in bands(side):
            array[top : top + len(band)] = band
        array.flush()
        return
    profile = {"driver": "GTiff", "count": 3, "height": side, "width": side, "dtype": "uint8", "tiled": True}
    with gdal(), rasterio_module().open(path, "w", **profile) as dataset:
        for top, band in bands(side):
            window = ((top, top + len(band)), (0, side))
            dataset.write(band.transpose(2, 0, 1), window=window)


def bands(side: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yields the first row and the pixels (rows, side, 3) of each band."""
    generator = np.random.default_rng(0)
    x, c = np.meshgrid(np.arange(side), np.arange(3), indexing="ij")
    for top in range(0, side, BAND):
        y = np.arange(top, min(top + BAND, side))[:, None, None]
        waves = 128 + 60 * np.sin(y / 57 + c) + 60 * np.cos(x / 91 - 2 * c)
        yield top, (waves + generator.normal(0, 12, waves.shape)).clip(0, 255).astype(np.uint8)


def status_megabytes(name: str) -> float:
    """Reads VmHWM or VmRSS of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{name}:")).split()[1]) / 1024


def forget_peak() -> None:
    """Hands freed memory back and lets VmHWM begin anew."""
    if hasattr(ctypes.CDLL(None), "malloc_trim"):
        ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")


@contextmanager
def sampled_peak() -> Iterator[list[float]]:
    """Yields a list that holds the largest sample of VmRSS when the block ends."""
    largest, stop = [0.0], threading.Event()

    def watch() -> None:
        while not stop.wait(0.002):
            largest[0] = max(largest[0], status_megabytes("VmRSS"))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield largest
    finally:
        stop.set()
        thread.join()


def play_tiles(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measures, plans and runs, in this process."""
    segmenter = demo_model()
    segmenter.classes(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
    memory = parse_bytes(arguments.memory)
    forget_peak()
    model = status_megabytes("VmHWM")
    with sampled_peak() as largest:
        started = time.perf_counter()
        cost = tile_cost(segmenter, memory_bytes=memory)
        measuring = time.perf_counter() - started
    forget_peak()
    with open_raster(arguments.image) as raster:
        plan = plan_raster(segmenter, raster, memory_bytes=memory, cost=cost)
        planned = time.perf_counter()
        result = segment_raster(segmenter, raster, arguments.image.with_name("classes"), plan)
        tiles = time.perf_counter() - planned
    return {
        "plan": plan.text(),
        "tiles": plan.tiles,
        "tile_size": plan.tile_size,
        "margin": plan.margin,
        "disagreement": plan.disagreement,
        "bytes_per_pixel": cost.bytes_per_pixel,
        "estimated_mb": plan.estimated_bytes / 2**20,
        "model_mb": model,
        "measuring_peak_mb": largest[0] - model,
        "run_peak_mb": status_megabytes("VmHWM") - model,
        "measuring_s": measuring,
        "tiles_s": tiles,
        "megapixels_per_s": arguments.side**2 / tiles / 1e6,
        "mask": result.mask.name,
    }


def play_whole(arguments: argparse.Namespace) -> dict[str, Any]:
    """Segments the image in one piece, in this process, and counts the pixels that tiles give another class."""
    segmenter = demo_model()
    segmenter.classes(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
    forget_peak()
    model = status_megabytes("VmHWM")
    with open_raster(arguments.image) as raster:
        pixels = torch.from_numpy(raster.read((0, 0, *raster.size)))
    started = time.perf_counter()
    classes = segmenter.classes(pixels[None])[0].numpy()
    seconds = time.perf_counter() - started
    peak = status_megabytes("VmHWM") - model
    with open_raster(next(arguments.image.parent.glob("classes.*"))) as written:
        tiled = written.read((0, 0, *written.size))[0]
    return {"peak_mb": peak, "seconds": seconds, "other_class": float((classes != tiled).mean())}


def measured(arguments: argparse.Namespace, role: str, image: Path) -> dict[str, Any]:
    """Runs one measurement in a fresh process."""
    command = [sys.executable, str(HERE), "--role", role, "--image", str(image), "--side", str(arguments.side)]
    command += ["--memory", arguments.memory, "--threads", str(arguments.threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{role} failed:\n{done.stderr}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def environment(arguments: argparse.Namespace) -> dict[str, Any]:
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=HERE.parent, capture_output=True, text=True, check=False)
    return {
        "commit": commit.stdout.strip() if commit.returncode == 0 else None,
        "device": "cpu",
        "machine": platform.machine(),
        "threads": arguments.threads,
        "python": platform.python_version(),
        "versions": {"torch": str(torch.__version__)},
    }


def main() -> None:
    """Makes the image, measures, and says what was found; or is the process that does."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--side", type=int, default=8192)
    parser.add_argument("--memory", default="800MB", help="what is planned for; the limit is 1 GB")
    parser.add_argument("--format", choices=("tif", "npy"), default="tif" if has_rasterio() else "npy")
    parser.add_argument("--whole", action="store_true", help="also in one piece, where the memory allows")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--role", choices=("tiles", "whole"), help=argparse.SUPPRESS)
    parser.add_argument("--image", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.role:
        print(json.dumps(play_tiles(arguments) if arguments.role == "tiles" else play_whole(arguments)))
        return
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / f"image.{arguments.format}"
        write_image(image, arguments.side)
        tiles = measured(arguments, "tiles", image)
        whole = measured(arguments, "whole", image) if arguments.whole else None
    peak = max(tiles["measuring_peak_mb"], tiles["run_peak_mb"])
    report = {
        "benchmark": "large_image",
        "image": [arguments.side, arguments.side, 3],
        "format": arguments.format,
        "memory": arguments.memory,
        "limit_mb": LIMIT_BYTES / 2**20,
        "peak_mb": peak,
        "within_limit": peak * 2**20 <= LIMIT_BYTES,
        "tiles": tiles,
        "whole": whole,
        "environment": environment(arguments),
    }
    print(tiles["plan"])
    print(f"peak {peak:.0f} MiB above the model's own {tiles['model_mb']:.0f} MiB; limit {LIMIT_BYTES / 2**20:.0f} MiB")
    print(f"{tiles['tiles_s']:.1f} s for the tiles, {tiles['measuring_s']:.1f} s to measure what they cost")
    if whole is not None:
        print(f"in one piece {whole['peak_mb']:.0f} MiB, {whole['seconds']:.1f} s; {whole['other_class']:.3%} differ")
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
