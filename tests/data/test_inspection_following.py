"""Whether masks lie on their images, and faults that were found by breaking data in ways that nobody had told."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from broken_data import CAMVID_COLORS, ids_of, save, write_camvid
from PIL import Image

from perpixel.cli.output import write_json
from perpixel.data.inspection.following import SIDE, following, small_luminance
from perpixel.data.inspection.inspect import Inspection, inspect_data


def blocks(seed: int, side: int = 96) -> np.ndarray:
    fields = np.random.default_rng(seed).normal(size=(4, 8, 8)).astype(np.float32)
    smooth = [np.asarray(Image.fromarray(field).resize((side, side), Image.Resampling.BICUBIC)) for field in fields]
    return np.argmax(smooth, axis=0).astype(np.uint8)


def lit(mask: np.ndarray, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 30, mask.shape)
    return (60 * mask.astype(np.int64) + noise).astype(np.uint8)


def write_pairs(root: Path, count: int = 24) -> Path:
    for index in range(count):
        for kind, values in (("images", lit(blocks(index), index)), ("masks", blocks(index))):
            (root / kind).mkdir(parents=True, exist_ok=True)
            save(values, root / kind / f"a{index:02}.png")
    return root


def files(found: Inspection) -> dict[str, set[str]]:
    quiet = {"class_imbalance", "thin_objects", "encoding"}
    return {one.kind: set(one.files) for one in found.findings if one.kind not in quiet}


@pytest.mark.parametrize("move", [lambda m: m[:, ::-1], lambda m: np.roll(m, 30, 1), lambda m: blocks(99)])
def test_following_mask_elsewhere_is_far_below_the_true_one(move) -> None:
    mask = blocks(1)
    small = small_luminance(lit(mask, 1))
    true, other = following(small, mask), following(small, move(mask))
    assert true is not None and other is not None
    assert true > 1.5
    assert other < 1.25


def test_following_without_borders_or_change_is_unknown() -> None:
    assert following(np.zeros((90, 90), np.float32), blocks(0)) is None
    assert following(small_luminance(lit(blocks(0), 0)), np.zeros((96, 96), np.uint8)) is None
    assert following(np.zeros((1, 90), np.float32), blocks(0)) is None


def test_small_luminance_is_about_the_stated_side() -> None:
    assert small_luminance(np.zeros((360, 480), np.uint8)).shape == (90, 120)
    assert max(small_luminance(np.zeros((50, 30), np.uint8)).shape) <= SIDE


def test_inspect_data_exchanged_masks_are_found(tmp_path: Path) -> None:
    root = write_pairs(tmp_path / "data")
    assert files(inspect_data(root, workers=1)) == {}
    first, second = root / "masks" / "a03.png", root / "masks" / "a14.png"
    first.rename(root / "kept")
    second.rename(first)
    (root / "kept").rename(second)
    assert files(inspect_data(root, workers=1)) == {"stray_mask": {"masks/a03.png", "masks/a14.png"}}


def test_inspect_data_lower_part_of_one_color_is_found(tmp_path: Path) -> None:
    root = write_pairs(tmp_path / "data")
    image = ids_of(root / "images" / "a02.png").copy()
    image[70:] = 128
    save(image, root / "images" / "a02.png")
    assert files(inspect_data(root, workers=1)) == {"cut_image": {"images/a02.png"}}


def test_inspect_data_scattered_ids_are_found(tmp_path: Path) -> None:
    root = write_pairs(tmp_path / "data")
    rng = np.random.default_rng(0)
    mask = ids_of(root / "masks" / "a02.png").copy()
    mask[rng.random(mask.shape) < 0.4] = 2
    save(mask, root / "masks" / "a02.png")
    assert files(inspect_data(root, workers=1))["speckled_mask"] == {"masks/a02.png"}


def test_inspect_data_folders_and_pipes_in_place_of_files_are_named(tmp_path: Path) -> None:
    root = write_pairs(tmp_path / "data")
    for kind in ("images", "masks"):
        (root / kind / "more").mkdir()
        (root / kind / "a05.png").rename(root / kind / "more" / "a05.png")
    (root / "images" / "a06.png").unlink()
    os.mkfifo(root / "images" / "a06.png")
    (root / "masks" / "a07.png").unlink()
    (root / "masks" / "a07.png").mkdir()
    found = inspect_data(root, workers=1)
    assert files(found) == {
        "not_a_file": {"images/a06.png", "masks/a07.png"},
        "nested_folder": {"images/more", "masks/more"},
    }
    assert set(found.mending.exclude) == {"images/a06.png", "images/a07.png"}


@pytest.mark.parametrize("odd", [np.array([0, 1]), np.array([0, 37])])
def test_inspect_data_odd_masks_among_0_255_leave_two_classes(tmp_path: Path, odd: np.ndarray) -> None:
    root = write_pairs(tmp_path / "data")
    for index in range(24):
        values = np.array([0, 255]) if index != 4 else odd
        save(values[blocks(index) // 2].astype(np.uint8), root / "masks" / f"a{index:02}.png")
    found = inspect_data(root, workers=1)
    assert found.labels is not None
    assert (found.labels.num_classes, files(found)) == (2, {"unknown_ids": {"masks/a04.png"}})


def test_inspect_data_bytes_in_the_upper_half_of_16_bits_are_divided(tmp_path: Path) -> None:
    root = write_pairs(tmp_path / "data")
    for index in range(24):
        save((blocks(index) // 2 * 255).astype(np.uint8), root / "masks" / f"a{index:02}.png")
    save((blocks(4) // 2).astype(np.uint16) * 65280, root / "masks" / "a04.png")
    found = inspect_data(root, workers=1)
    assert files(found) == {"scaled_mask": {"masks/a04.png"}}
    assert found.mending.masks == {"masks/a04.png": {"ids": {0: 0, 65280: 255}}}


def test_inspect_data_wrapped_ids_are_mended_to_ids_that_exist(tmp_path: Path) -> None:
    root = write_camvid(tmp_path / "CamVid")
    file = root / "trainannot" / "train_003.png"
    save(ids_of(file) - np.uint8(1), file)
    mending = inspect_data(root, workers=1).mending
    ids = mending.masks["trainannot/train_003.png"]["ids"]
    assert ids == {(i - 1) % 256: i for i in range(12)}


@pytest.mark.parametrize(("void", "kind"), [(11003, "instance_mask"), (65535, "unknown_ids")])
def test_inspect_data_instance_numbers_of_void_too_are_known(tmp_path: Path, void: int, kind: str) -> None:
    root = write_camvid(tmp_path / "CamVid")
    file = root / "trainannot" / "train_003.png"
    ids = ids_of(file).astype(np.uint16)
    cars = np.where(ids == 8, 8003, ids) if kind == "instance_mask" else ids
    save(np.where(ids == 11, void, cars).astype(np.uint16), file)
    assert files(inspect_data(root, workers=1)) == {kind: {"trainannot/train_003.png"}}


@pytest.mark.parametrize("shuffled", [True, False])
def test_inspect_data_palette_with_other_ids_is_an_error(tmp_path: Path, shuffled: bool) -> None:
    root = write_camvid(tmp_path / "CamVid")
    file = root / "trainannot" / "train_003.png"
    order = np.roll(np.arange(12, dtype=np.uint8), 5)
    order[[2, 7]] = order[[7, 2]]
    mask = Image.fromarray(np.argsort(order).astype(np.uint8)[ids_of(file)] if shuffled else ids_of(file))
    mask.putpalette(np.array(CAMVID_COLORS, np.uint8)[order].ravel().tolist())
    mask.save(file)
    found = inspect_data(root, workers=1)
    name = "trainannot/train_003.png"
    assert files(found) == ({"palette_shuffled": {name}} if shuffled else {"mixed_modes": {name}})
    assert found.mending.masks == ({name: {"as": "colors"}} if shuffled else {})


def test_write_json_half_pairs_are_escaped(tmp_path: Path) -> None:
    write_json(str(tmp_path / "a.json"), {"files": ["a\udcff.png", "ü.png"]})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"files": ["a\udcff.png", "ü.png"]}
