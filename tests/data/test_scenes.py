"""Tests of the generated street scenes."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from perpixel.data.scenes import SCENE_CLASSES, SCENE_COLORS, SceneConfig, generate_scene, write_scenes
from perpixel.data.scenes_canvas import SceneCanvas
from perpixel.data.scenes_layout import lay_out_street
from perpixel.data.scenes_materials import mix_materials
from perpixel.errors import InvalidValue

SMALL = SceneConfig(height=96, width=128, seed=7)
ROAD, PAVEMENT, CAR = (SCENE_CLASSES.index(name) for name in ("road", "pavement", "car"))


def _mean_color(image: NDArray[np.uint8], mask: NDArray[np.uint8], label: int) -> NDArray[np.float64]:
    return np.asarray(image[mask == label].mean(axis=0), dtype=np.float64)


def _canvas(index: int) -> SceneCanvas:
    return lay_out_street(96, 128, np.random.default_rng(index))


def _base_colors(label: int, *, inconsistency: float, indistinction: float = 0.0) -> NDArray[np.float64]:
    """Colours (instances, 2 zones, 3) of one class in one scene, straight from the materials."""
    canvas = _canvas(3)
    materials = mix_materials(
        canvas, np.random.default_rng(0), inconsistency=inconsistency, indistinction=indistinction
    )
    chosen = [
        row
        for row, (instance, part) in enumerate(zip(canvas.prim_instance, canvas.prim_part, strict=True))
        if canvas.labels[instance] == label and part in (0, 1)
    ]
    return np.asarray(materials.colors[chosen], dtype=np.float64)


def test_scene_same_config_and_index_gives_same_bytes() -> None:
    first, second = generate_scene(SMALL, 4), generate_scene(SMALL, 4)
    assert first[0].tobytes() == second[0].tobytes()
    assert first[1].tobytes() == second[1].tobytes()


@pytest.mark.parametrize(("config", "index"), [(SMALL, 5), (replace(SMALL, seed=8), 4)])
def test_scene_other_index_or_seed_gives_other_scene(config: SceneConfig, index: int) -> None:
    image, mask = generate_scene(SMALL, 4)
    other_image, other_mask = generate_scene(config, index)
    assert (image != other_image).mean() > 0.5
    assert (mask != other_mask).mean() > 0.01


@settings(deadline=None, max_examples=8)
@given(inconsistency=st.floats(0, 1), indistinction=st.floats(0, 1), index=st.integers(0, 10_000))
def test_mask_any_knobs_stays_the_same(inconsistency: float, indistinction: float, index: int) -> None:
    _, expected = generate_scene(SMALL, index)
    _, mask = generate_scene(replace(SMALL, inconsistency=inconsistency, indistinction=indistinction), index)
    np.testing.assert_array_equal(mask, expected)


def test_scenes_twenty_hold_every_class_and_void() -> None:
    config = SceneConfig()
    seen = np.zeros(256, dtype=int)
    for index in range(20):
        seen += np.bincount(generate_scene(config, index)[1].ravel(), minlength=256) >= 12
    assert (seen[: len(SCENE_CLASSES)] >= 16).all(), dict(zip(SCENE_CLASSES, seen.tolist(), strict=False))
    assert seen[255] >= 16
    assert seen.sum() == seen[: len(SCENE_CLASSES)].sum() + seen[255]


@pytest.mark.parametrize("size", [(32, 32), (64, 96), (97, 61), (320, 640)])
def test_scene_any_size_has_that_size_and_many_classes(size: tuple[int, int]) -> None:
    image, mask = generate_scene(SceneConfig(height=size[0], width=size[1]), 0)
    assert image.shape == (*size, 3)
    assert image.dtype == np.uint8
    assert mask.shape == size
    assert mask.dtype == np.uint8
    assert len(np.unique(mask)) >= 6
    assert image.std() > 15


def test_scene_objects_grow_with_the_image() -> None:
    shares = []
    for height, width in ((96, 128), (384, 512)):
        masks = [generate_scene(SceneConfig(height=height, width=width), index)[1] for index in range(3)]
        shares.append(np.mean([np.bincount(m.ravel(), minlength=9)[:9] / m.size for m in masks], axis=0))
    np.testing.assert_allclose(shares[0], shares[1], atol=0.03)


def test_inconsistency_zero_gives_one_look_per_class() -> None:
    for label in range(len(SCENE_CLASSES)):
        assert np.ptp(_base_colors(label, inconsistency=0.0).reshape(-1, 3), axis=0).max() < 1e-3


def test_inconsistency_larger_spreads_looks_between_and_inside_instances() -> None:
    for label in (SCENE_CLASSES.index("building"), CAR, SCENE_CLASSES.index("person")):
        low, high = (_base_colors(label, inconsistency=value) for value in (0.3, 1.0))
        assert high.mean(axis=1).std(axis=0).sum() > 1.5 * low.mean(axis=1).std(axis=0).sum() > 0
        assert np.abs(high[:, 0] - high[:, 1]).mean() > 1.5 * np.abs(low[:, 0] - low[:, 1]).mean() > 0


def test_inconsistency_larger_raises_color_variance_in_the_image() -> None:
    spreads = []
    for value in (0.0, 1.0):
        config = SceneConfig(inconsistency=value, indistinction=0.0)
        scenes = [generate_scene(config, index) for index in range(6)]
        spreads.append(np.mean([image[mask == 1].std(axis=0).mean() for image, mask in scenes]))
    assert spreads[1] > 1.2 * spreads[0]


@pytest.mark.parametrize(("first", "second"), [("road", "pavement"), ("building", "sky"), ("tree", "building")])
def test_indistinction_larger_brings_neighbouring_classes_together(first: str, second: str) -> None:
    labels = SCENE_CLASSES.index(first), SCENE_CLASSES.index(second)
    distances = []
    for value in (0.0, 0.5, 1.0):
        config = SceneConfig(inconsistency=0.0, indistinction=value)
        scenes = [generate_scene(config, index) for index in range(6)]
        gaps = [
            np.linalg.norm(_mean_color(image, mask, labels[0]) - _mean_color(image, mask, labels[1]))
            for image, mask in scenes
            if np.isin(labels, mask).all()
        ]
        distances.append(np.mean(gaps))
    assert distances[0] > distances[1] > distances[2]
    assert distances[2] < 0.5 * distances[0]


def test_indistinction_one_makes_cars_and_persons_alike() -> None:
    person = SCENE_CLASSES.index("person")
    apart, alike = (
        np.linalg.norm(
            _base_colors(CAR, inconsistency=0.0, indistinction=value)[0, 0]
            - _base_colors(person, inconsistency=0.0, indistinction=value)[0, 0]
        )
        for value in (0.0, 1.0)
    )
    assert alike < 0.1 * apart


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"height": 31}, "height=31"),
        ({"width": 0}, "width=0"),
        ({"inconsistency": -0.1}, "inconsistency=-0.1"),
        ({"indistinction": 1.5}, "indistinction=1.5"),
        ({"indistinction": float("nan")}, "indistinction=nan"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_config_value_out_of_range_is_refused(values: dict[str, float], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        SceneConfig(**values)  # type: ignore[arg-type]


def test_scene_negative_index_is_refused() -> None:
    with pytest.raises(InvalidValue, match="index=-1"):
        generate_scene(SMALL, -1)


@pytest.mark.parametrize(("train", "workers", "message"), [(-2, None, "train=-2"), (1, -1, "workers=-1")])
def test_write_scenes_negative_count_is_refused(tmp_path: Path, train: int, workers: int | None, message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        write_scenes(tmp_path, SMALL, train=train, val=0, workers=workers)
    assert not any(tmp_path.iterdir())


def _digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_write_scenes_workers_write_the_same_distinct_files(tmp_path: Path) -> None:
    for workers in (0, 2):
        write_scenes(tmp_path / str(workers), SMALL, train=3, val=2, test=1, workers=workers)
    alone, together = _digests(tmp_path / "0"), _digests(tmp_path / "2")
    assert alone == together
    images = [digest for name, digest in alone.items() if "images" in name]
    assert len(alone) == 13
    assert len(images) == len(set(images)) == 6


def test_write_scenes_files_hold_the_generated_scenes(tmp_path: Path) -> None:
    write_scenes(tmp_path, SMALL, train=1, val=1, workers=0)
    assert not (tmp_path / "test").exists()
    image, mask = generate_scene(SMALL, 1)  # the first index after those of train
    with Image.open(tmp_path / "val" / "images" / "scene_00000.png") as file:
        assert file.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(file), image)
    with Image.open(tmp_path / "val" / "masks" / "scene_00000.png") as file:
        assert file.mode == "P"
        np.testing.assert_array_equal(np.asarray(file), mask)
        colors = np.asarray(file.convert("RGB"))
    np.testing.assert_array_equal(colors[mask == ROAD][0], SCENE_COLORS[ROAD])
    assert (colors[mask == 255] == 0).all()
    space = yaml.safe_load((tmp_path / "labels.yaml").read_text(encoding="utf-8"))
    assert space == {
        "name": "scenes",
        "names": list(SCENE_CLASSES),
        "colors": [list(color) for color in SCENE_COLORS],
        "ignore": [255],
    }
