"""Times training transforms against torchvision.transforms.v2 and albumentations: 480 x 360 images, crop 320.

All get the same decoded images and one thread, whose processor time counts. The contenders take turns in every round,
so that a slow moment of the machine meets all of them; the tables give the fastest and the median round. "geometry" is
random scale, crop and flip of image and labels; "batch" goes on to a jittered and normalised float batch. Then each
further transform, always applied, against its counterpart in albumentations: within that batch, and alone on the uint8
window and its labels. Last, what decoding a JPEG and a PNG mask of this size costs, which bounds them all.

Albumentations resizes without antialiasing, which saves it time. In its elastic transform the faster of two settings
counts. It turns what is cropped already, which is its fastest order, and so shows filled corners; perpixel turns
within the image.

    python benchmarks/transforms.py [--json FILE] [--rounds 12] [--batches 6]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import torch
import torchvision
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from perpixel.data.augment.affine import draw_affine, warp
from perpixel.data.augment.blur import blurred
from perpixel.data.augment.erasing import cover, draw_holes
from perpixel.data.augment.photometric import with_gamma, with_hue, with_noise, without_colour
from perpixel.data.augment.pipeline import SamplePipeline
from perpixel.data.augment.settings import Augment
from perpixel.data.elastic import deform, draw_displacement
from perpixel.data.image_files import read_image, read_mask
from perpixel.data.transforms import Augmentation, Window
from perpixel.ops.normalize import normalize, padding_fractions
from perpixel.types import Preprocessing

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # it would ask the network for its newest version
import albumentations as A

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

    def __init__(self, pairs: Pairs, augmentation: Augmentation = AUGMENTATION) -> None:
        samples = [SimpleNamespace(image=image, target=target, name="") for image, target in pairs]
        self.samples = SamplePipeline(samples, augmentation, 0, padding_fractions(PREPROCESSING))
        self.position = 0

    def geometry(self) -> tuple[Tensor, Tensor, Tensor]:
        done = []
        for index in range(BATCH):
            done.append(self.samples(self.position, index))
        self.position += 1
        pixels = torch.stack([sample.image.permute(1, 2, 0) for sample in done]).permute(0, 3, 1, 2)
        jitter = torch.tensor([sample.jitter for sample in done])
        return pixels, torch.stack([sample.target for sample in done]), jitter

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


FILL = tuple(round(255 * mean) for mean in PREPROCESSING.mean)


class Albumentations:
    """Its usual pipeline on arrays (H, W, C); further transforms come after the crop, where they cost least."""

    def __init__(self, pairs: Pairs, further: tuple[Any, ...] = (), others: Pairs | None = None) -> None:
        self.pairs = [(image.permute(1, 2, 0).numpy(), target.numpy()) for image, target in pairs]
        self.extra = {} if others is None else {"mosaic_metadata": _metadata(others)}
        geometry = [
            A.RandomScale((-0.5, 1.0), p=1),
            A.PadIfNeeded(CROP, CROP, border_mode=cv2.BORDER_CONSTANT, fill=FILL, fill_mask=255),
            A.RandomCrop(CROP, CROP),
            A.HorizontalFlip(p=0.5),
        ]
        if others is not None:
            geometry = [*further, geometry[-1]]
            further = ()
        colours = [
            A.ColorJitter((0.6, 1.4), (0.6, 1.4), (0.6, 1.4), (0, 0), p=1),
            A.Normalize(PREPROCESSING.mean, PREPROCESSING.std),
            A.ToTensorV2(),
        ]
        self.transforms = {
            "geometry": A.Compose([*geometry, A.ToTensorV2()]),
            "batch": A.Compose([*geometry, *further, *colours]),
        }

    def geometry(self) -> tuple[Tensor, Tensor]:
        return self._run("geometry")

    def batch(self) -> tuple[Tensor, Tensor]:
        return self._run("batch")

    def _run(self, part: str) -> tuple[Tensor, Tensor]:
        done = [self.transforms[part](image=image, mask=target, **self.extra) for image, target in self.pairs]
        return torch.stack([result["image"] for result in done]), torch.stack([result["mask"] for result in done])


def _metadata(pairs: Pairs) -> list[dict[str, Any]]:
    return [{"image": image.permute(1, 2, 0).numpy(), "mask": target.numpy()} for image, target in pairs]


FURTHER: dict[str, tuple[dict[str, Any], tuple[Any, ...]]] = {
    "rotation": (
        {"augment": Augment(affine=1, rotate=180)},
        (A.Rotate((-180, 180), fill=FILL, fill_mask=255, p=1),),
    ),
    "affine": (
        {"augment": Augment(affine=1, rotate=30, shear=10, translate=0.1)},
        (A.Affine(rotate=(-30, 30), shear=(-10, 10), translate_percent=(-0.1, 0.1), fill=FILL, fill_mask=255, p=1),),
    ),
    "elastic": (
        {"elastic": 10.0},
        (A.ElasticTransform(300, 30, p=1), A.ElasticTransform(300, 30, approximate=True, p=1)),
    ),
    "blur": ({"augment": Augment(blur=1)}, (A.GaussianBlur(0, (0.1, 2.0), p=1),)),
    "noise": ({"augment": Augment(noise=1)}, (A.GaussNoise((0.01, 0.05), p=1),)),
    "gamma": ({"augment": Augment(gamma=1)}, (A.RandomGamma((70, 150), p=1),)),
    "hue": ({"augment": Augment(hue=1)}, (A.HueSaturationValue(9, 0, 0, p=1),)),
    "grayscale": ({"augment": Augment(grayscale=1)}, (A.ToGray(p=1),)),
    "cutout": (
        {"augment": Augment(cutout=1)},
        (A.CoarseDropout((1, 1), (0.1, 0.5), (0.1, 0.5), fill=FILL, fill_mask=255, p=1),),
    ),
    "mosaic": ({"augment": Augment(mosaic=1)}, (A.Mosaic((2, 2), (CROP, CROP), (HEIGHT, WIDTH), p=1),)),
    "cutmix": ({"augment": Augment(cutmix=1)}, ()),
    "classmix": ({"augment": Augment(classmix=1)}, ()),
    "copy-paste": ({"augment": Augment(copy_paste=1, copy_paste_classes=(1, 2))}, ()),
    "class share 0.75": ({"augment": Augment(max_class_share=0.75)}, ()),
}
"""Settings of perpixel, and counterparts of which the faster counts; none where albumentations has none."""


def alone(name: str, pairs: Pairs) -> Callable[[], object] | None:
    """A transform on uint8 windows and their labels, without anything around it."""
    rng = np.random.default_rng(0)
    windows = [(image[:, :CROP, :CROP], target[:CROP, :CROP]) for image, target in pairs]
    copies = [
        (np.ascontiguousarray(image.permute(1, 2, 0).numpy()), target.numpy().copy()) for image, target in windows
    ]
    whole = Window((1, 1), (CROP, CROP), (CROP, CROP), (0, 0), False)
    settings = FURTHER[name][0].get("augment", Augment())
    bent = Augmentation(crop_size=(CROP, CROP), elastic=10.0)
    pads = padding_fractions(PREPROCESSING)

    def turned(image: Tensor, target: Tensor) -> object:
        affine = draw_affine(settings, (CROP, CROP), rng)
        return warp(whole, affine, None, image, target, border="fill", pad_value=pads)

    def covered(pixels: Any, labels: Any) -> None:
        holes = draw_holes(1, (0.1, 0.5), (CROP, CROP), rng)
        cover(pixels.copy(), labels.copy(), holes, levels=FILL, label=255)

    on_tensors = {
        "rotation": turned,
        "affine": turned,
        "elastic": lambda image, target: deform(whole, draw_displacement(bent, rng), image, target),
    }
    on_arrays = {
        "blur": lambda pixels, _: blurred(pixels, rng.uniform(0.1, 2.0)),
        "noise": lambda pixels, _: with_noise(pixels, rng.uniform(0.01, 0.05), rng),
        "gamma": lambda pixels, _: with_gamma(pixels, rng.uniform(0.7, 1.5)),
        "hue": lambda pixels, _: with_hue(pixels, rng.uniform(-18, 18)),
        "grayscale": lambda pixels, _: without_colour(pixels),
        "cutout": covered,
    }
    if name in on_tensors:
        return lambda: [on_tensors[name](*pair) for pair in windows]
    return (lambda: [on_arrays[name](*pair) for pair in copies]) if name in on_arrays else None


def alone_there(transform: Any, pairs: Pairs) -> Callable[[], object]:
    composed = A.Compose([transform])
    copies = [
        (np.ascontiguousarray(image.permute(1, 2, 0).numpy()[:CROP, :CROP]), target.numpy()[:CROP, :CROP].copy())
        for image, target in pairs
    ]
    return lambda: [composed(image=pixels, mask=labels) for pixels, labels in copies]


def contenders() -> dict[str, dict[str, Callable[[], object]]]:
    planar = images()
    packed = interleaved(planar)
    sources = {
        "torchvision v2, (C, H, W) memory": Torchvision(planar),
        "torchvision v2, (H, W, C) memory": Torchvision(packed),
        "albumentations": Albumentations(packed),
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
            start = time.thread_time()
            for _ in range(batches):
                function()
            seconds[name].append(1000 * (time.thread_time() - start) / batches / BATCH)
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


def summary(values: list[float]) -> dict[str, Any]:
    return {"ms_per_image_min": min(values), "ms_per_image_median": statistics.median(values), "rounds": values}


def compare_pipelines(rounds: int, batches: int) -> dict[str, Any]:
    """Prints and returns the base pipelines: time, and how many times as fast as each toolkit's better layout."""
    results: dict[str, Any] = {}
    for part, functions in contenders().items():
        found = measure(functions, rounds, batches)
        names = list(found)
        peers = {
            "torchvision": [min(pair) for pair in zip(found[names[0]], found[names[1]], strict=True)],
            "albumentations": found["albumentations"],
        }
        print(f"{part:<36}{'ms/image min':>14}{'median':>9}{'images/s':>10}{'x torchvision':>15}", end="")
        print(f"{'x albumentations':>18}")
        results[part] = {}
        for name, values in found.items():
            middle = statistics.median(values)
            ratios = {peer: statistics.median(theirs) / middle for peer, theirs in peers.items()}
            print(
                f"  {name:<34}{min(values):>14.3f}{middle:>9.3f}{1000 / middle:>10.0f}"
                f"{ratios['torchvision']:>14.2f}x{ratios['albumentations']:>17.2f}x"
            )
            results[part][name] = {**summary(values), "speedup_median": ratios}
    return results


def compare_further(rounds: int, batches: int) -> dict[str, Any]:
    """Prints and returns each further transform: within the batch and alone, perpixel and albumentations."""
    pairs = interleaved(images())
    results: dict[str, Any] = {}
    print(f"{'further transform, ms/image median':<36}{'in batch':>10}{'theirs':>9}{'ratio':>8}{'of min':>8}", end="")
    print(f"{'alone':>10}{'theirs':>9}{'ratio':>8}{'of min':>8}")
    for name, (ours, theirs) in FURTHER.items():
        changed = {**{key: getattr(AUGMENTATION, key) for key in vars(AUGMENTATION)}, **ours}
        functions: dict[str, Callable[[], object]] = {"in batch": Perpixel(pairs, Augmentation(**changed)).batch}
        single = alone(name, pairs)
        if single is not None:
            functions["alone"] = single
        for number, transform in enumerate(theirs):
            others = pairs[:3] if name == "mosaic" else None
            functions[f"in batch {number}"] = Albumentations(pairs, (transform,), others).batch
            if single is not None:
                functions[f"alone {number}"] = alone_there(transform, pairs)
        found = measure(functions, rounds, batches)
        results[name] = {key: summary(values) for key, values in found.items()}
        line = f"  {name:<34}"
        for what in ("in batch", "alone"):
            peers = [values for key, values in found.items() if key.startswith(f"{what} ")]
            line += f"{statistics.median(found[what]):>10.3f}" if what in found else f"{'':>10}"
            if what not in found or not peers:
                line += f"{'-':>9}{'':>16}"
                continue
            theirs_middle, theirs_best = (min(map(pick, peers)) for pick in (statistics.median, min))
            ratios = theirs_middle / statistics.median(found[what]), theirs_best / min(found[what])
            results[name][f"{what}, speedup"] = {"median": ratios[0], "min": ratios[1]}
            line += f"{theirs_middle:>9.3f}{ratios[0]:>7.2f}x{ratios[1]:>7.2f}x"
        print(line)
    return results


def decoding(rounds: int, batches: int) -> dict[str, Any]:
    """Prints and returns what it costs to read a JPEG (quality 90) and a PNG mask of this size."""
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for number, (image, target) in enumerate(interleaved(images())):
            paths.append((Path(folder) / f"{number}.jpg", Path(folder) / f"{number}.png"))
            Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).numpy())).save(paths[-1][0], quality=90)
            Image.fromarray(target.numpy()).save(paths[-1][1])
        read = {"decode": lambda: [(read_image(image), read_mask(mask)) for image, mask in paths]}
        values = measure(read, rounds, batches)["decode"]
    middle = statistics.median(values)
    print(f"decoding JPEG and PNG: {middle:.3f} ms/image, at most {1000 / middle:.0f} images/s per core")
    return summary(values)


def main() -> None:
    parser = argparse.ArgumentParser(description="Times training transforms against torchvision v2, albumentations.")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--batches", type=int, default=6, help="batches of 8 images per round and contender")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    torch.manual_seed(0)
    results = compare_pipelines(arguments.rounds, arguments.batches)
    results["further"] = compare_further(arguments.rounds, max(1, arguments.batches // 3))
    results["decoding"] = decoding(arguments.rounds, max(1, arguments.batches // 3))
    if arguments.json:
        facts = {
            "benchmark": "transforms",
            "commit": commit(),
            "versions": {
                "python": platform.python_version(),
                "torch": torch.__version__,
                "torchvision": torchvision.__version__,
                "albumentations": A.__version__,
                "opencv": cv2.__version__,
                "numpy": np.__version__,
            },
            "device": f"cpu: {torch.backends.cpu.get_cpu_capability()}, {platform.machine()}, 1 thread",
            "setting": {"image": [HEIGHT, WIDTH], "crop": CROP, "batch": BATCH, "scales": [0.5, 2.0], "warm_up": 1},
            "results": results,
        }
        arguments.json.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
