"""The same training transforms by perpixel, torchvision v2 and albumentations, on the same decoded images.

All scale (0.5 to 2), crop to 320 pixels and mirror, and go on to a jittered, normalised float batch. Albumentations
resizes without antialiasing, which saves it time; it turns what is cropped already, which is its fastest order, and so
shows filled corners, where perpixel turns within the image.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from perpixel.bench.packages import load_package
from perpixel.data.augment.affine import draw_affine, warp
from perpixel.data.augment.blur import blurred
from perpixel.data.augment.erasing import cover, draw_holes
from perpixel.data.augment.photometric import with_gamma, with_hue, with_noise, without_colour
from perpixel.data.augment.pipeline import SamplePipeline
from perpixel.data.augment.settings import Augment
from perpixel.data.elastic import deform, draw_displacement
from perpixel.data.transforms import Augmentation, Window
from perpixel.ops.normalize import normalize, padding_fractions
from perpixel.types import Preprocessing

__all__ = [
    "AUGMENTATION",
    "BATCH",
    "CROP",
    "FURTHER",
    "Albumentations",
    "Pairs",
    "Perpixel",
    "Torchvision",
    "alone",
    "alone_there",
    "interleaved",
    "pictures",
    "theirs",
]

HEIGHT, WIDTH, CROP, BATCH = 360, 480, 320, 8
PREPROCESSING = Preprocessing()
AUGMENTATION = Augmentation(
    crop_size=(CROP, CROP), scale_range=(0.5, 2.0), flip=0.5, brightness=0.4, contrast=0.4, saturation=0.4
)
FILL = tuple(round(255 * mean) for mean in PREPROCESSING.mean)
Pairs = list[tuple[Tensor, Tensor]]

FURTHER: dict[str, dict[str, Any]] = {
    "rotation": {"augment": Augment(affine=1, rotate=180)},
    "affine": {"augment": Augment(affine=1, rotate=30, shear=10, translate=0.1)},
    "elastic": {"elastic": 10.0},
    "blur": {"augment": Augment(blur=1)},
    "noise": {"augment": Augment(noise=1)},
    "gamma": {"augment": Augment(gamma=1)},
    "hue": {"augment": Augment(hue=1)},
    "grayscale": {"augment": Augment(grayscale=1)},
    "cutout": {"augment": Augment(cutout=1)},
    "mosaic": {"augment": Augment(mosaic=1)},
    "cutmix": {"augment": Augment(cutmix=1)},
    "classmix": {"augment": Augment(classmix=1)},
    "copy-paste": {"augment": Augment(copy_paste=1, copy_paste_classes=(1, 2))},
    "class share 0.75": {"augment": Augment(max_class_share=0.75)},
}
"""Further transforms, always applied: perpixel's settings; `theirs` has the counterparts."""


def pictures() -> Pairs:
    """Returns smooth pictures with noise and blocky labels: the sizes of CamVid, no file needed."""
    draw = torch.Generator().manual_seed(0)
    pairs = []
    for _ in range(BATCH):
        coarse = torch.rand(1, 3, 12, 16, generator=draw) * 255
        smooth = torch.nn.functional.interpolate(coarse, size=(HEIGHT, WIDTH), mode="bicubic")[0]
        noisy = smooth + 8 * torch.randn(3, HEIGHT, WIDTH, generator=draw)
        labels = torch.randint(0, 11, (1, 1, 18, 24), generator=draw, dtype=torch.uint8)
        labels = torch.nn.functional.interpolate(labels, size=(HEIGHT, WIDTH), mode="nearest")[0, 0]
        pairs.append((noisy.clamp(0, 255).to(torch.uint8), labels))
    return pairs


def interleaved(pairs: Pairs) -> Pairs:
    """Returns the same pixels in (H, W, C) memory, as decoders give them."""
    return [(image.permute(1, 2, 0).contiguous().permute(2, 0, 1), target) for image, target in pairs]


class Perpixel:
    """Window first on integers, colours folded into the normalisation of the batch."""

    def __init__(self, pairs: Pairs, changes: dict[str, Any] | None = None) -> None:
        samples: Any = [SimpleNamespace(image=image, target=target, name="") for image, target in pairs]
        augmentation = replace(AUGMENTATION, **(changes or {}))
        self.samples = SamplePipeline(samples, augmentation, 0, padding_fractions(PREPROCESSING))
        self.position = 0

    def geometry(self) -> tuple[Tensor, Tensor, Tensor]:
        """Returns integer windows, labels and jitter of one batch."""
        done = [self.samples(self.position, index) for index in range(BATCH)]
        self.position += 1
        pixels = torch.stack([sample.image.permute(1, 2, 0) for sample in done]).permute(0, 3, 1, 2)
        jitter = torch.tensor([sample.jitter for sample in done])
        return pixels, torch.stack([sample.target for sample in done]), jitter

    def batch(self) -> tuple[Tensor, Tensor]:
        """Returns normalised images and labels of one batch."""
        pixels, labels, jitter = self.geometry()
        return normalize(pixels, PREPROCESSING, jitter=jitter), labels


class Torchvision:
    """The pipeline of torchvision's documentation: uint8 tensors and tv_tensors.Mask."""

    def __init__(self, pairs: Pairs) -> None:
        v2, kinds = load_package("torchvision.transforms.v2"), load_package("torchvision.tv_tensors")
        self.kinds = kinds
        self.take(pairs)
        fill = {kinds.Image: [round(255 * m) for m in PREPROCESSING.mean], kinds.Mask: 255}
        geometry = [
            v2.ScaleJitter(target_size=(HEIGHT, WIDTH), scale_range=(0.5, 2.0), antialias=True),
            v2.RandomCrop(CROP, pad_if_needed=True, fill=fill),
            v2.RandomHorizontalFlip(0.5),
        ]
        colours = [
            v2.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4),
            v2.ToDtype({kinds.Image: torch.float32, "others": None}, scale=True),
            v2.Normalize(PREPROCESSING.mean, PREPROCESSING.std),
        ]
        self.transforms = {"geometry": v2.Compose(geometry), "batch": v2.Compose(geometry + colours)}

    def take(self, pairs: Pairs) -> None:
        """Goes on with other images and labels."""
        self.pairs = [(self.kinds.Image(image), self.kinds.Mask(target)) for image, target in pairs]

    def geometry(self) -> tuple[Tensor, Tensor]:
        """Returns integer windows and labels of one batch."""
        return self._run("geometry")

    def batch(self) -> tuple[Tensor, Tensor]:
        """Returns normalised images and labels of one batch."""
        return self._run("batch")

    def _run(self, part: str) -> tuple[Tensor, Tensor]:
        done = [self.transforms[part](image, target) for image, target in self.pairs]
        return torch.stack([image for image, _ in done]), torch.stack([target for _, target in done])


class Albumentations:
    """Its usual pipeline on arrays (H, W, C); further transforms come after the crop, where they cost least."""

    def __init__(self, pairs: Pairs, further: Sequence[Any] = (), others: Pairs | None = None) -> None:
        A, cv2 = albumentations(), load_package("cv2")
        self.take(pairs)
        self.extra = {} if others is None else {"mosaic_metadata": _metadata(others)}
        geometry = [
            A.RandomScale((-0.5, 1.0), p=1),
            A.PadIfNeeded(CROP, CROP, border_mode=cv2.BORDER_CONSTANT, fill=FILL, fill_mask=255),
            A.RandomCrop(CROP, CROP),
            A.HorizontalFlip(p=0.5),
        ]
        if others is not None:
            geometry, further = [*further, geometry[-1]], ()
        colours = [
            A.ColorJitter((0.6, 1.4), (0.6, 1.4), (0.6, 1.4), (0, 0), p=1),
            A.Normalize(PREPROCESSING.mean, PREPROCESSING.std),
            A.ToTensorV2(),
        ]
        self.transforms = {
            "geometry": A.Compose([*geometry, A.ToTensorV2()]),
            "batch": A.Compose([*geometry, *further, *colours]),
        }

    def take(self, pairs: Pairs) -> None:
        """Goes on with other images and labels."""
        self.pairs = [(image.permute(1, 2, 0).numpy(), target.numpy()) for image, target in pairs]

    def geometry(self) -> tuple[Tensor, Tensor]:
        """Returns integer windows and labels of one batch."""
        return self._run("geometry")

    def batch(self) -> tuple[Tensor, Tensor]:
        """Returns normalised images and labels of one batch."""
        return self._run("batch")

    def _run(self, part: str) -> tuple[Tensor, Tensor]:
        done = [self.transforms[part](image=image, mask=target, **self.extra) for image, target in self.pairs]
        return torch.stack([result["image"] for result in done]), torch.stack([result["mask"] for result in done])


def albumentations() -> Any:
    """Returns the package, told not to ask the network for its newest version, OpenCV on one thread."""
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    load_package("cv2").setNumThreads(1)
    return load_package("albumentations")


def theirs(name: str) -> list[Any]:
    """Returns albumentations' counterparts of a further transform, of which the faster counts; empty where none is."""
    A = albumentations()
    filled = {"fill": FILL, "fill_mask": 255}
    counterparts: dict[str, list[Any]] = {
        "rotation": [A.Rotate((-180, 180), p=1, **filled)],
        "affine": [A.Affine(rotate=(-30, 30), shear=(-10, 10), translate_percent=(-0.1, 0.1), p=1, **filled)],
        "elastic": [A.ElasticTransform(300, 30, p=1), A.ElasticTransform(300, 30, approximate=True, p=1)],
        "blur": [A.GaussianBlur(0, (0.1, 2.0), p=1)],
        "noise": [A.GaussNoise((0.01, 0.05), p=1)],
        "gamma": [A.RandomGamma((70, 150), p=1)],
        "hue": [A.HueSaturationValue(9, 0, 0, p=1)],
        "grayscale": [A.ToGray(p=1)],
        "cutout": [A.CoarseDropout((1, 1), (0.1, 0.5), (0.1, 0.5), p=1, **filled)],
        "mosaic": [A.Mosaic((2, 2), (CROP, CROP), (HEIGHT, WIDTH), p=1)],
    }
    return counterparts.get(name, [])


def alone(name: str, pairs: Pairs) -> Callable[[], object] | None:
    """Returns a further transform on uint8 windows and their labels, without anything around it; None where none is."""
    rng = np.random.default_rng(0)
    windows = [(image[:, :CROP, :CROP], target[:CROP, :CROP]) for image, target in pairs]
    copies = [
        (np.ascontiguousarray(image.permute(1, 2, 0).numpy()), target.numpy().copy()) for image, target in windows
    ]
    whole = Window((1, 1), (CROP, CROP), (CROP, CROP), (0, 0), False)
    settings = FURTHER[name].get("augment", Augment())
    bent = Augmentation(crop_size=(CROP, CROP), elastic=10.0)
    pads = padding_fractions(PREPROCESSING)

    def turned(image: Tensor, target: Tensor) -> object:
        affine = draw_affine(settings, (CROP, CROP), rng)
        return warp(whole, affine, None, image, target, border="fill", pad_value=pads)

    def covered(pixels: Any, labels: Any) -> None:
        cover(pixels.copy(), labels.copy(), draw_holes(1, (0.1, 0.5), (CROP, CROP), rng), levels=FILL, label=255)

    on_tensors: dict[str, Callable[[Tensor, Tensor], object]] = {
        "rotation": turned,
        "affine": turned,
        "elastic": lambda image, target: deform(whole, draw_displacement(bent, rng), image, target),
    }
    on_arrays: dict[str, Callable[[Any, Any], object]] = {
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
    """Returns albumentations' transform on the same windows."""
    composed = albumentations().Compose([transform])
    copies = [
        (np.ascontiguousarray(image.permute(1, 2, 0).numpy()[:CROP, :CROP]), target.numpy()[:CROP, :CROP].copy())
        for image, target in pairs
    ]
    return lambda: [composed(image=pixels, mask=labels) for pixels, labels in copies]


def _metadata(pairs: Pairs) -> list[dict[str, Any]]:
    return [{"image": image.permute(1, 2, 0).numpy(), "mask": target.numpy()} for image, target in pairs]
