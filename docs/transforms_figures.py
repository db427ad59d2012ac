"""Draws the pictures of docs/transforms.md: ``python docs/transforms_figures.py``.

Each shows a generated scene with its labels, then two samples that training would see, with theirs: the transform
alone, always applied, everything else off. Grey is ignored (255).
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from perpixel.data.augment.pipeline import SamplePipeline
from perpixel.data.augment.settings import Augment
from perpixel.data.scenes import SCENE_COLORS, SceneConfig, generate_scene
from perpixel.data.transforms import Augmentation

OUT = Path(__file__).parent / "images"
SIDE, GAP = 96, 4
PADDING = (0.485, 0.456, 0.406)
SCENES = SceneConfig(height=128, width=160, inconsistency=0.1)
IGNORED = (190, 190, 190)

EXAMPLES: dict[str, dict[str, Any]] = {
    "scale": {"scale_range": (0.5, 2.0)},
    "flip": {"flip": 1.0},
    "class_crop": {"class_crop": 1.0, "scale_range": (1.5, 2.0)},
    "elastic": {"elastic": 6.0},
    "rotation": {"rotation": 45.0},
    "affine": {"augment": Augment(affine=1, rotate=30, shear=15, stretch=1.3, translate=0.1)},
    "blur": {"augment": Augment(blur=1, blur_sigma=(1.0, 2.0))},
    "noise": {"augment": Augment(noise=1, noise_std=(0.04, 0.08))},
    "gamma": {"augment": Augment(gamma=1, gamma_range=(0.4, 2.5))},
    "hue": {"augment": Augment(hue=1, hue_degrees=90)},
    "grayscale": {"augment": Augment(grayscale=1)},
    "cutout": {"augment": Augment(cutout=1, cutout_holes=2)},
    "cutmix": {"augment": Augment(cutmix=1)},
    "classmix": {"augment": Augment(classmix=1)},
    "copy_paste": {"augment": Augment(copy_paste=1, copy_paste_classes=(6, 7, 8))},
    "mosaic": {"augment": Augment(mosaic=1)},
    "max_class_share": {"augment": Augment(max_class_share=0.3), "scale_range": (1.5, 2.0)},
}
"""Settings of `Augmentation` by the name of the picture."""


class Scenes:
    """Eight generated scenes as samples."""

    def __init__(self) -> None:
        self.pairs = [generate_scene(SCENES, index) for index in range(8)]

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Any:
        image, mask = self.pairs[index]
        target = torch.from_numpy(mask.astype(np.uint8))
        return SimpleNamespace(image=torch.from_numpy(image).permute(2, 0, 1), target=target, name=str(index))


def panels(name: str) -> list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """The plain window of one scene and two augmented ones, as image and labels."""
    plain = {"crop_size": (SIDE, SIDE), "flip": 0.0}
    scenes = Scenes()
    done = [SamplePipeline(scenes, Augmentation(**plain), 0, PADDING)(0, 1)]
    changed = SamplePipeline(scenes, Augmentation(**{**plain, **EXAMPLES[name]}), 0, PADDING)
    done += [changed(epoch, 1) for epoch in (0, 1)]
    return [(sample.image.permute(1, 2, 0).numpy(), sample.target.numpy()) for sample in done]


def draw(name: str) -> Image.Image:
    """One row: image and labels, three times."""
    table = np.full((256, 3), IGNORED, dtype=np.uint8)
    table[: len(SCENE_COLORS)] = SCENE_COLORS
    shown = [part for image, labels in panels(name) for part in (image, table[labels])]
    picture = Image.new("RGB", (6 * SIDE + 7 * GAP, SIDE + 2 * GAP), (255, 255, 255))
    for column, part in enumerate(shown):
        picture.paste(Image.fromarray(np.ascontiguousarray(part)), (GAP + column * (SIDE + GAP), GAP))
    return picture


def main() -> None:
    """Writes one picture per transform."""
    OUT.mkdir(exist_ok=True)
    for name in EXAMPLES:
        draw(name).save(OUT / f"transform_{name}.jpg", quality=65)


if __name__ == "__main__":
    main()
