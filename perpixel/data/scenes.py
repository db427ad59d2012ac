"""Generated street scenes: labelled images at any size, with two knobs that make the classes harder to tell apart.

A scene is a street seen from a car: sky, buildings, road, pavements, trees, cars, persons, poles and signs, in
perspective, with light, shadows, haze, texture and sensor noise. The knobs follow the two failures that Yu et al.
2018 (DFN, arXiv:1804.09337, section 1) name: ``inconsistency`` within a class and ``indistinction`` between classes.
"""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_all_start_methods, get_context
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray
from PIL import Image

from perpixel.data.scenes_canvas import VOID
from perpixel.data.scenes_layout import label_map, lay_out_street
from perpixel.data.scenes_shading import shade
from perpixel.errors import InvalidValue

__all__ = ["SCENE_CLASSES", "SCENE_COLORS", "SceneConfig", "generate_scene", "write_scenes"]

SCENE_CLASSES: tuple[str, ...] = ("sky", "building", "road", "pavement", "tree", "car", "person", "pole", "sign")
SCENE_COLORS: tuple[tuple[int, int, int], ...] = (
    (70, 130, 180),
    (90, 80, 80),
    (128, 64, 128),
    (244, 35, 232),
    (107, 142, 35),
    (30, 60, 200),
    (220, 20, 60),
    (180, 180, 180),
    (240, 220, 0),
)
_LEAST_SIZE = 32


@dataclass(frozen=True, kw_only=True)
class SceneConfig:
    """What the scenes are like.

    Attributes:
        height: Rows of the image, pixels, at least 32.
        width: Columns of the image, pixels, at least 32.
        inconsistency: How differently one class looks within one scene, in [0, 1]; 0 is one look per class.
        indistinction: How alike neighbouring classes look, in [0, 1]; at 1 road and pavement, or sky, building, tree
            and pole, or car and person, have almost the same mean colour and texture.
        seed: Start of the random stream, >= 0; scene ``index`` uses ``(seed, index)``.

    Raises:
        InvalidValue: A value is out of its range.
    """

    height: int = 256
    width: int = 256
    inconsistency: float = 0.3
    indistinction: float = 0.3
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("height", "width"):
            if getattr(self, name) < _LEAST_SIZE:
                raise InvalidValue(
                    f"{name}={getattr(self, name)} is too small for a scene; give at least {_LEAST_SIZE} pixels"
                )
        for name in ("inconsistency", "indistinction"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise InvalidValue(f"{name}={getattr(self, name)} is outside [0, 1]; give a value between 0 and 1")
        if self.seed < 0:
            raise InvalidValue(f"seed={self.seed} is negative; give a seed of 0 or more")


def generate_scene(config: SceneConfig, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Makes scene number ``index``: an image and its labels.

    Geometry and looks come from two independent random streams, so the mask does not depend on the knobs.

    Args:
        config: Size, knobs and seed.
        index: Number of the scene, >= 0.

    Returns:
        image: (H, W, 3) RGB in [0, 255].
        mask: (H, W) indices into SCENE_CLASSES, 255 where no class is asked for.

    Raises:
        InvalidValue: ``index`` is negative.
    """
    if index < 0:
        raise InvalidValue(f"index={index} is negative; scenes are numbered from 0")
    geometry_rng, looks_rng = np.random.default_rng((config.seed, index)).spawn(2)
    canvas = lay_out_street(config.height, config.width, geometry_rng)
    mask = label_map(canvas, geometry_rng)
    image = shade(canvas, looks_rng, inconsistency=config.inconsistency, indistinction=config.indistinction)
    return image, mask


def write_scenes(
    folder: Path, config: SceneConfig, *, train: int, val: int, test: int = 0, workers: int | None = None
) -> None:
    """Writes a data set of scenes: ``folder/SPLIT/{images,masks}/scene_00000.png`` and ``folder/labels.yaml``.

    Scene indices run on through train, val and test, so no scene is in two splits. Masks are palette PNGs whose values
    are the train ids. The files are the same whatever the number of workers.

    Args:
        folder: Where to write; made if absent, files of the same names are replaced.
        config: Size, knobs and seed of the scenes.
        train: Number of training scenes, >= 0.
        val: Number of validation scenes, >= 0.
        test: Number of test scenes, >= 0.
        workers: Processes to use; None takes one per core where processes can be forked, else works in this one, since
            a spawned process would run a caller's unguarded script again. 0 or 1 works in this process.

    Raises:
        InvalidValue: A count or ``workers`` is negative.
    """
    counts = {"train": train, "val": val, "test": test}
    for name, value in {**counts, "workers": workers or 0}.items():
        if value < 0:
            raise InvalidValue(f"{name}={value} is negative; give 0 or more")
    jobs: list[tuple[Path, int, int]] = []
    for split, count in counts.items():
        if count:
            for kind in ("images", "masks"):
                (folder / split / kind).mkdir(parents=True, exist_ok=True)
        jobs += [(folder / split, number, len(jobs) + number) for number in range(count)]
    _write_labels(folder)
    write = partial(_write_scene, config)
    can_fork = "fork" in get_all_start_methods()
    if workers is None:
        workers = (os.cpu_count() or 1) if can_fork else 0
    num_workers = min(workers, len(jobs))
    if num_workers <= 1:
        for job in jobs:
            write(job)
        return
    with ProcessPoolExecutor(num_workers, mp_context=get_context("fork" if can_fork else "spawn")) as pool:
        for _ in pool.map(write, jobs, chunksize=max(1, min(16, len(jobs) // (4 * num_workers)))):
            pass


def _write_labels(folder: Path) -> None:
    """Writes the label space beside the splits."""
    folder.mkdir(parents=True, exist_ok=True)
    space = {
        "name": "scenes",
        "names": list(SCENE_CLASSES),
        "colors": [list(c) for c in SCENE_COLORS],
        "ignore": [VOID],
    }
    text = yaml.safe_dump(space, sort_keys=False, default_flow_style=None)
    (folder / "labels.yaml").write_text(text, encoding="utf-8")


def _write_scene(config: SceneConfig, job: tuple[Path, int, int]) -> None:
    """Writes one scene; ``job`` is (split folder, number within the split, scene index)."""
    split, number, index = job
    image, mask = generate_scene(config, index)
    name = f"scene_{number:05d}.png"
    Image.fromarray(image).save(split / "images" / name, compress_level=1)
    indexed = Image.fromarray(mask)
    indexed.putpalette([value for color in SCENE_COLORS for value in color] + [0] * (3 * (256 - len(SCENE_COLORS))))
    indexed.save(split / "masks" / name, compress_level=1)
