"""ADE20K, BDD100K and Mapillary Vistas in their official layouts, and the pairing by name that they share."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from perpixel.data.dataset import SegmentationDataset
from perpixel.data.formats.ade20k import is_ade20k, read_ade20k
from perpixel.data.formats.bdd100k import is_bdd100k, read_bdd100k
from perpixel.data.formats.mapillary import is_mapillary, read_mapillary
from perpixel.data.formats.named_pairs import PairRule, files_ending, pair_named, unlabelled_items
from perpixel.data.source import DataSource, open_data
from perpixel.errors import DataError
from perpixel.labels import LabelSpace

RULE = PairRule(way_out="Fetch it.")


def put(path: Path, pixels: Any = None, *, palette: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(np.zeros((2, 3, 3), np.uint8) if pixels is None else np.asarray(pixels, np.uint8))
    if palette:
        picture.putpalette([255 - i // 3 for i in range(768)])
    picture.save(path)
    return path


def target(source: DataSource, split: str) -> list[list[int]]:
    assert source.labels is not None
    pixels = SegmentationDataset(source.splits[split], source.labels).read_target(0).pixels
    assert pixels is not None
    return pixels.tolist()


def names(source: DataSource) -> dict[str, list[str]]:
    return {split: [item.name for item in items] for split, items in source.splits.items()}


# Pairing


def test_files_ending_case_and_other_files(tmp_path: Path) -> None:
    for name in ("b.JPG", "a.jpg", "c.png", ".d.jpg", ".jpg"):
        put(tmp_path / "x.png").rename(tmp_path / name)
    (tmp_path / "e.jpg").mkdir()
    assert list(files_ending(tmp_path, (".jpg",), way_out="")) == ["a", "b"]
    put(tmp_path / "x.png").rename(tmp_path / "a.JPG")
    with pytest.raises(DataError, match=r"a\.JPG and a\.jpg are both image 'a'"):
        files_ending(tmp_path, (".jpg",), way_out="")
    with pytest.raises(DataError, match=r"gone: cannot be read.*Fetch it\."):
        files_ending(tmp_path / "gone", (".jpg",), way_out="Fetch it.")


def test_files_ending_links_that_lead_nowhere_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").symlink_to(tmp_path / "a.jpg")
    with pytest.raises(DataError, match=r"a\.jpg is a symbolic link that leads nowhere or to itself; restore"):
        files_ending(tmp_path, (".jpg",), way_out="")
    (tmp_path / "a.jpg").unlink()
    os.mkfifo(tmp_path / "a.jpg")
    with pytest.raises(DataError, match=r"a\.jpg is no plain file \(a device, pipe or socket\)"):
        files_ending(tmp_path, (".jpg",), way_out="")
    (tmp_path / "a.jpg").unlink()
    (tmp_path / "a.jpg").symlink_to(put(tmp_path / "real.png"))
    assert files_ending(tmp_path, (".jpg",), way_out="") == {"a": tmp_path / "a.jpg"}


def test_pair_named_missing_masks_and_folders_raise(tmp_path: Path) -> None:
    images, masks = tmp_path / "i", tmp_path / "m"
    put(images / "a.jpg")
    with pytest.raises(DataError, match=r"m: there is no such folder, so split 'train' has no masks\. Fetch it"):
        pair_named(images, masks, RULE, split="train")
    put(masks / "b.png", [[0]])
    with pytest.raises(DataError, match=r"m lacks the masks of 1 of 1 images of split 'train': a\.png\. Fetch it"):
        pair_named(images, masks, RULE, split="train")
    put(masks / "a.png", [[0]])
    items, notes = pair_named(images, masks, RULE, split="train")
    assert ([item.name for item in items], items[0].mask) == (["a"], masks / "a.png")
    assert "1 masks in" in notes[0]
    assert "b.png" in notes[0]
    with pytest.raises(DataError, match=r"m: no image x\.jpg here, so split 'test' is empty"):
        unlabelled_items(masks, RULE, split="test")


# ADE20K


@pytest.fixture
def ade(tmp_path: Path) -> Path:
    base = tmp_path / "ADEChallengeData2016"
    for split, part, ids in (("training", "train", [[0, 1, 150]]), ("validation", "val", [[3, 3, 0]])):
        put(base / f"images/{split}/ADE_{part}_00000001.jpg", np.zeros((1, 3, 3)))
        put(base / f"annotations/{split}/ADE_{part}_00000001.png", ids)
    (base / "objectInfo150.txt").write_text("Idx")
    return base


@pytest.mark.parametrize("inside", ["", "ADEChallengeData2016"])
def test_read_ade20k_ids_less_one_and_zero_is_ignored(ade: Path, inside: str) -> None:
    source = read_ade20k(ade.parent if inside else ade)
    assert names(source) == {"train": ["ADE_train_00000001"], "val": ["ADE_val_00000001"]}
    assert (target(source, "train"), target(source, "val")) == ([[255, 0, 149]], [[2, 2, 255]])
    assert len(source.notes) == 1 + bool(inside)
    assert open_data(ade).format == "ade20k"


@pytest.mark.parametrize("place", ["images/testing", "release_test/testing", "../release_test"])
def test_read_ade20k_test_images_are_found_beside(ade: Path, place: str) -> None:
    put(ade / place / "ADE_test_00000001.jpg")
    source = read_ade20k(ade)
    assert names(source)["test"] == ["ADE_test_00000001"]
    assert source.splits["test"][0].mask is None
    assert "the 1 test images come from" in source.notes[-2]


def test_read_ade20k_other_layouts_are_told_apart(ade: Path, tmp_path: Path) -> None:
    (ade / "objectInfo150.txt").unlink()
    assert is_ade20k(ade)
    (ade / "images/training/ADE_train_00000001.jpg").rename(ade / "images/training/x.jpg")
    assert not is_ade20k(ade)
    with pytest.raises(
        DataError, match=r"annotations.training lacks the masks of 1 of 1 .*x\.png.*ADEChallengeData2016"
    ):
        read_ade20k(ade)
    (tmp_path / "full/images/ADE").mkdir(parents=True)
    with pytest.raises(DataError, match=r"This is the full ADE20K, which is not read.*Scene Parsing Benchmark"):
        read_ade20k(tmp_path / "full")
    assert not is_ade20k(tmp_path / "full")


# BDD100K


def bdd_new(root: Path) -> Path:
    for split in ("train", "val", "test"):
        put(root / f"images/10k/{split}/0004a4c0-d4dff0ad.jpg")
        put(root / f"images/100k/{split}/other.jpg")
    for split in ("train", "val"):
        put(root / f"labels/sem_seg/masks/{split}/0004a4c0-d4dff0ad.png", [[0, 18, 255]] * 2)
        put(root / f"labels/sem_seg/colormaps/{split}/0004a4c0-d4dff0ad.png")
    return root


def bdd_old(root: Path) -> Path:
    for split in ("train", "val", "test"):
        put(root / f"seg/images/{split}/0004a4c0-d4dff0ad.jpg")
    for split in ("train", "val"):
        put(root / f"seg/labels/{split}/0004a4c0-d4dff0ad_train_id.png", [[0, 18, 255]] * 2)
        put(root / f"seg/color_labels/{split}/0004a4c0-d4dff0ad_train_color.png")
    return root


@pytest.mark.parametrize(
    ("build", "inside", "given"),
    [
        (bdd_new, "", ""),
        (bdd_new, "bdd100k", ""),
        (bdd_old, "", ""),
        (bdd_old, "", "seg"),
        (bdd_old, "bdd100k", ""),
    ],
)
def test_read_bdd100k_either_release_holds_train_ids(tmp_path: Path, build: Any, inside: str, given: str) -> None:
    build(tmp_path / inside)
    source = read_bdd100k(tmp_path / given)
    stem = "0004a4c0-d4dff0ad"
    assert names(source) == {"train": [stem], "val": [stem], "test": [stem]}
    assert target(source, "val") == [[0, 18, 255]] * 2
    assert source.splits["test"][0].mask is None
    assert source.labels is not None
    assert source.labels.names[13] == "car"
    assert open_data(tmp_path / given).splits == source.splits


def test_read_bdd100k_other_layouts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no images/10k/ with labels/sem_seg/masks/ here.*'10K Images'"):
        read_bdd100k(tmp_path)
    put(tmp_path / "images/train/a.jpg")
    put(tmp_path / "labels/train/a.png", [[0]])
    assert not is_bdd100k(tmp_path)
    assert open_data(tmp_path).format == "folder"
    bdd_new(tmp_path)
    (tmp_path / "labels/sem_seg/masks/val/0004a4c0-d4dff0ad.png").unlink()
    with pytest.raises(DataError, match=r"masks.val lacks the masks of 1 of 1 images of split 'val'"):
        read_bdd100k(tmp_path)


# Mapillary Vistas


def mapillary(root: Path, labels: str = "v1.2/labels") -> Path:
    for split in ("training", "validation"):
        put(root / split / "images/b_x.jpg")
        put(root / split / labels / "b_x.png", [[0, 64, 65]] * 2, palette=True)
        put(root / split / labels.replace("labels", "instances") / "b_x.png", [[0, 0, 0]] * 2)
    put(root / "testing/images/c.jpg")
    return root


@pytest.mark.parametrize("labels", ["v1.2/labels", "labels"])
def test_read_mapillary_palette_indices_are_ids_with_or_without_version(tmp_path: Path, labels: str) -> None:
    source = read_mapillary(mapillary(tmp_path, labels))
    assert names(source) == {"train": ["b_x"], "val": ["b_x"], "test": ["c"]}
    assert target(source, "train") == [[0, 64, 255]] * 2
    assert source.labels is not None
    assert source.labels.num_classes == 65
    opened = open_data(tmp_path)
    assert opened.format == "mapillary"
    assert f"folder:{tmp_path}" in opened.notes[1]


def test_read_mapillary_configuration_of_other_classes_is_refused(tmp_path: Path) -> None:
    mapillary(tmp_path)
    space = LabelSpace.load("mapillary_v1.2")
    entries = [{"color": list(color)} for color in (*space.colors, (0, 0, 0))]
    file = tmp_path / "config_v1.2.json"
    file.write_text(json.dumps({"labels": entries}))
    assert not any("colours" in note for note in read_mapillary(tmp_path).notes)
    file.write_text(json.dumps({"labels": [entries[1], entries[0], *entries[2:]]}))
    assert "other colours than known to the ids 0, 1" in read_mapillary(tmp_path).notes[0]
    file.write_text(json.dumps({"labels": entries * 2}))
    with pytest.raises(DataError, match=r"lists 132 classes, v1\.2 has 66"):
        read_mapillary(tmp_path)
    file.write_text("[]")
    with pytest.raises(DataError, match="must be a mapping whose 'labels' list"):
        read_mapillary(tmp_path)
    file.write_text("[" * 100_000)
    with pytest.raises(DataError, match="cannot be read as JSON"):
        read_mapillary(tmp_path)


def test_read_mapillary_missing_parts_are_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no training/images/ or validation/images/ here\. Mapillary Vistas has"):
        read_mapillary(tmp_path)
    mapillary(tmp_path)
    (tmp_path / "training/v1.2").rename(tmp_path / "training/v2.0")
    assert is_mapillary(tmp_path)
    with pytest.raises(DataError, match=r"no v1\.2/labels/.*Only v2\.0 with its 124 classes is here"):
        read_mapillary(tmp_path)
    put(tmp_path / "plain/training/images/a.jpg")
    put(tmp_path / "plain/training/labels/a.png", [[0]])
    assert not is_mapillary(tmp_path / "plain")
    assert open_data(tmp_path / "plain").format == "folder"
