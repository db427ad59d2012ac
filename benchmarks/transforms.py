"""Times training transforms against torchvision.transforms.v2: 480 x 360 images, random scale, crop 320, jitter.

Both sides get the same decoded images and one thread. The contenders take turns in every round, so that a slow moment
of the machine meets all of them; the table gives the fastest and the median round. "geometry" is scale, crop and flip
of image and labels; "batch" goes on to a jittered and normalised float batch.

    python benchmarks/transforms.py [--json FILE] [--rounds 12] [--batches 6]
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

import numpy as np
import torch
import torchvision
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from perpixel.data.transforms import Augmentation, apply, draw, draw_jitter, sample_rng
from perpixel.ops.normalize import normalize, padding_fractions
from perpixel.types import Preprocessing

HEIGHT, WIDTH, CROP, BATCH = 360, 480, 320, 8
PREPROCESSING = Preprocessing()
AUGMENTATION = Augmentation(
    crop_size=(CROP, CROP), scale_range=(0.5, 2.0), flip=0.5, brightness=0.4, contrast=0.4, saturation=0.4
)
Pairs = list[tuple[Tensor, Tensor]]


def images() -> Pairs:
    """Smooth pictures with noise and blocky labels: the sizes of CamVid, no file needed."""
    generator = torch.Generator().manual_seed(0)
    pairs = []
    for _ in range(BATCH):
        coarse = torch.rand(1, 3, 12, 16, generator=generator) * 255
        smooth = torch.nn.functional.interpolate(coarse, size=(HEIGHT, WIDTH), mode="bicubic")[0]
        noisy = smooth + 8 * torch.randn(3, HEIGHT, WIDTH, generator=generator)
        labels = torch.randint(0, 11, (1, 1, 18, 24), generator=generator, dtype=torch.uint8)
        labels = torch.nn.functional.interpolate(labels, size=(HEIGHT, WIDTH), mode="nearest")[0, 0]
        pairs.append((noisy.clamp(0, 255).to(torch.uint8), labels))
    return pairs


def interleaved(pairs: Pairs) -> Pairs:
    """The same pixels in (H, W, C) memory, as decoders give them."""
    return [(image.permute(1, 2, 0).contiguous().permute(2, 0, 1), target) for image, target in pairs]


class Perpixel:
    """Window first on integers, colours folded into the normalisation of the batch."""

    def __init__(self, pairs: Pairs) -> None:
        self.pairs = pairs
        self.position = 0

    def geometry(self) -> tuple[Tensor, Tensor, Tensor]:
        pads = padding_fractions(PREPROCESSING)
        pixels, labels, factors = [], [], []
        for image, target in self.pairs:
            rng = sample_rng(0, 0, self.position)
            self.position += 1
            window = draw(AUGMENTATION, (HEIGHT, WIDTH), rng, target)
            image, target = apply(window, image, target, pad_value=pads)
            pixels.append(image.permute(1, 2, 0))
            labels.append(target)
            factors.append(draw_jitter(AUGMENTATION, rng))
        return torch.stack(pixels).permute(0, 3, 1, 2), torch.stack(labels), torch.tensor(factors)

    def batch(self) -> tuple[Tensor, Tensor]:
        pixels, labels, jitter = self.geometry()
        return normalize(pixels, PREPROCESSING, jitter=jitter), labels


class Torchvision:
    """The pipeline of torchvision's documentation: uint8 tensors and tv_tensors.Mask."""

    def __init__(self, pairs: Pairs) -> None:
        self.pairs = [(tv_tensors.Image(image), tv_tensors.Mask(target)) for image, target in pairs]
        fill = {tv_tensors.Image: [round(255 * m) for m in PREPROCESSING.mean], tv_tensors.Mask: 255}
        geometry = [
            v2.ScaleJitter(target_size=(HEIGHT, WIDTH), scale_range=(0.5, 2.0), antialias=True),
            v2.RandomCrop(CROP, pad_if_needed=True, fill=fill),
            v2.RandomHorizontalFlip(0.5),
        ]
        colours = [
            v2.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4),
            v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True),
            v2.Normalize(PREPROCESSING.mean, PREPROCESSING.std),
        ]
        self.transforms = {"geometry": v2.Compose(geometry), "batch": v2.Compose(geometry + colours)}

    def geometry(self) -> tuple[Tensor, Tensor]:
        return self._run("geometry")

    def batch(self) -> tuple[Tensor, Tensor]:
        return self._run("batch")

    def _run(self, part: str) -> tuple[Tensor, Tensor]:
        done = [self.transforms[part](image, target) for image, target in self.pairs]
        return torch.stack([image for image, _ in done]), torch.stack([target for _, target in done])


def contenders() -> dict[str, dict[str, Callable[[], object]]]:
    planar = images()
    packed = interleaved(planar)
    sources = {
        "torchvision v2, (C, H, W) memory": Torchvision(planar),
        "torchvision v2, (H, W, C) memory": Torchvision(packed),
        "perpixel, (C, H, W) memory": Perpixel(planar),
        "perpixel, (H, W, C) memory": Perpixel(packed),
    }
    return {part: {name: getattr(source, part) for name, source in sources.items()} for part in ("geometry", "batch")}


def measure(functions: dict[str, Callable[[], object]], rounds: int, batches: int) -> dict[str, list[float]]:
    """Returns milliseconds per image of every round, per contender."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for function in functions.values():
        function()
    for _ in range(rounds):
        for name, function in functions.items():
            start = time.perf_counter()
            for _ in range(batches):
                function()
            seconds[name].append(1000 * (time.perf_counter() - start) / batches / BATCH)
    return seconds


def commit() -> str:
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description="Times training transforms against torchvision.transforms.v2.")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--batches", type=int, default=6, help="batches of 8 images per round and contender")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    results = {}
    for part, functions in contenders().items():
        rounds = measure(functions, arguments.rounds, arguments.batches)
        reference = [min(pair) for pair in zip(*list(rounds.values())[:2], strict=True)]  # v2 in its better layout
        print(f"{part:<36}{'ms/image min':>14}{'median':>9}{'images/s':>10}{'speed-up min':>14}{'median':>9}")
        results[part] = {}
        for name, values in rounds.items():
            best, middle = min(values), statistics.median(values)
            ratios = min(reference) / best, statistics.median(reference) / middle
            print(f"  {name:<34}{best:>14.3f}{middle:>9.3f}{1000 / middle:>10.0f}{ratios[0]:>13.2f}x{ratios[1]:>8.2f}x")
            results[part][name] = {
                "ms_per_image_min": best,
                "ms_per_image_median": middle,
                "speedup_min": ratios[0],
                "speedup_median": ratios[1],
                "rounds_ms_per_image": values,
            }
    if arguments.json:
        facts = {
            "benchmark": "transforms",
            "commit": commit(),
            "versions": {
                "python": platform.python_version(),
                "torch": torch.__version__,
                "torchvision": torchvision.__version__,
                "numpy": np.__version__,
            },
            "device": f"cpu: {torch.backends.cpu.get_cpu_capability()}, {platform.machine()}, 1 thread",
            "setting": {"image": [HEIGHT, WIDTH], "crop": CROP, "batch": BATCH, "scales": [0.5, 2.0], "warm_up": 1},
            "results": results,
        }
        arguments.json.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
