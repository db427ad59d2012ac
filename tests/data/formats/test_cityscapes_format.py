"""Cityscapes as its archives unpack: fine, coarse and extra labels, in each of their three forms."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from perpixel.data.dataset import SegmentationDataset
from perpixel.data.formats.cityscapes import is_cityscapes, read_cityscapes
from perpixel.data.formats.polygon_masks import CityscapesPolygons
from perpixel.data.source import DataSource, open_data
from perpixel.errors import DataError

IDS = np.array([[7, 8, 11, 33], [0, 4, 29, 26]], np.uint8)
TRAIN_IDS = [[0, 1, 2, 18], [255, 255, 255, 13]]
STEM = "{city}_000000_000019"


def picture(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def add(root: Path, split: str, city: str, *kinds: str, annotations: str = "gtFine", ids: np.ndarray = IDS) -> None:
    """Writes one image with the annotation files that its archive has."""
    stem = STEM.format(city=city)
    picture(root / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png", np.zeros((*ids.shape, 3), np.uint8))
    folder = root / annotations / split / city
    folder.mkdir(parents=True, exist_ok=True)
    if "labelIds" in kinds:
        picture(folder / f"{stem}_{annotations}_labelIds.png", ids)
        picture(folder / f"{stem}_{annotations}_instanceIds.png", ids.astype(np.uint16) * 1000)
        picture(folder / f"{stem}_{annotations}_color.png", np.zeros((*ids.shape, 4), np.uint8))
    if "labelTrainIds" in kinds:
        picture(folder / f"{stem}_{annotations}_labelTrainIds.png", np.array(TRAIN_IDS, np.uint8))
    if "polygons" in kinds:
        square = {"label": "road", "polygon": [[0, 0], [1, 0], [1, 1], [0, 1]]}
        content = {"imgHeight": ids.shape[0], "imgWidth": ids.shape[1], "objects": [square]}
        (folder / f"{stem}_{annotations}_polygons.json").write_text(json.dumps(content))


def target(source: DataSource, split: str) -> list[list[int]]:
    assert source.labels is not None
    pixels = SegmentationDataset(source.splits[split], source.labels).read_target(0).pixels
    assert pixels is not None
    return pixels.tolist()


@pytest.fixture
def fine(tmp_path: Path) -> Path:
    add(tmp_path, "train", "aachen", "labelIds", "polygons")
    add(tmp_path, "val", "lindau", "labelIds", "polygons")
    add(tmp_path, "test", "berlin", "labelIds", ids=np.full((2, 4), 3, np.uint8))
    return tmp_path


def test_read_cityscapes_label_ids_become_train_ids_and_test_has_no_masks(fine: Path) -> None:
    source = read_cityscapes(fine)
    assert {split: [item.name for item in items] for split, items in source.splits.items()} == {
        "train": ["aachen_000000_000019"],
        "val": ["lindau_000000_000019"],
        "test": ["berlin_000000_000019"],
    }
    assert target(source, "train") == TRAIN_IDS
    assert source.splits["test"][0].mask is None
    assert source.notes == (
        "the published masks of split 'test' hold only void and were left away; its server scores it",
        "other numbers of images than in the published data set: train 1 (published: 2975), val 1 (published: 500), "
        "test 1 (published: 1525)",
    )
    assert open_data(fine).splits == source.splits
    assert open_data(f"cityscapes:{fine}") == source


def test_read_cityscapes_train_ids_are_used_when_only_they_are_there(tmp_path: Path) -> None:
    add(tmp_path, "train", "aachen", "labelTrainIds")
    add(tmp_path, "val", "lindau", "labelTrainIds", "labelIds")
    source = read_cityscapes(tmp_path)
    assert source.labels is not None
    assert source.labels.names[0] == "road"
    assert source.labels.ignored_ids == (255,)
    assert (target(source, "train"), target(source, "val")) == (TRAIN_IDS, TRAIN_IDS)
    assert "masks are read from labelTrainIds" in source.notes[-2]


def test_read_cityscapes_polygons_are_drawn_where_label_ids_are_missing(tmp_path: Path) -> None:
    add(tmp_path, "train", "aachen", "polygons")
    add(tmp_path, "val", "lindau", "polygons", "labelIds")
    source = read_cityscapes(tmp_path)
    assert isinstance(source.splits["train"][0].mask, CityscapesPolygons)
    assert target(source, "train") == [[0, 0, 255, 255]] * 2
    assert target(source, "val") == TRAIN_IDS
    assert "masks are read from labelIds and polygons" in source.notes[-2]


def test_read_cityscapes_coarse_labels_are_splits_of_their_own(fine: Path) -> None:
    add(fine, "train", "aachen", "labelIds", annotations="gtCoarse", ids=np.full((2, 4), 7, np.uint8))
    add(fine, "train_extra", "erlangen", "labelIds", annotations="gtCoarse")
    source = read_cityscapes(fine)
    assert list(source.splits) == ["train", "val", "train_extra", "train_coarse", "test"]
    assert target(source, "train_coarse") == [[0] * 4] * 2
    assert target(source, "train_extra") == TRAIN_IDS
    assert target(source, "train") == TRAIN_IDS


def test_read_cityscapes_extra_images_or_labels_alone_are_said(fine: Path) -> None:
    add(fine, "train_extra", "erlangen", annotations="gtFine")
    assert "the images of" in read_cityscapes(fine).notes[0]
    (fine / "gtCoarse/train_extra").mkdir(parents=True)
    (fine / "leftImg8bit/train_extra").rename(fine / "elsewhere")
    source = read_cityscapes(fine)
    assert "train_extra" not in source.splits
    assert "so there is no split 'train_extra'" in source.notes[0]


def test_read_cityscapes_inside_a_folder_and_spare_labels_are_said(fine: Path, tmp_path: Path) -> None:
    (fine / "leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png").rename(
        fine / "leftImg8bit/train/aachen/aachen_000001_000019_leftImg8bit.png"
    )
    picture(fine / "gtFine/train/aachen/aachen_000001_000019_gtFine_labelIds.png", IDS)
    source = read_cityscapes(fine)
    assert "split 'train': 1 annotations have no image and were left out: aachen_000000" in source.notes[0]
    outer = tmp_path / "outer" / "cityscapes"
    outer.mkdir(parents=True)
    (fine / "leftImg8bit").rename(outer / "leftImg8bit")
    (fine / "gtFine").rename(outer / "gtFine")
    assert is_cityscapes(tmp_path / "outer")
    inside = read_cityscapes(tmp_path / "outer")
    assert inside.root == outer
    assert "Cityscapes was found in" in inside.notes[0]


def test_read_cityscapes_missing_parts_say_what_and_where_from(fine: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no leftImg8bit/ here\. Cityscapes has .*gtFine_trainvaltest\.zip"):
        read_cityscapes(tmp_path / "gtFine")
    (fine / "gtFine/val/lindau/lindau_000000_000019_gtFine_labelIds.png").unlink()
    (fine / "gtFine/val/lindau/lindau_000000_000019_gtFine_polygons.json").unlink()
    with pytest.raises(
        DataError, match=r"split 'val': of 1 images 1 have no labelIds, 1 have no polygons, 1 have no labelTrainIds"
    ):
        read_cityscapes(fine)
    (fine / "gtFine/val").rename(fine / "gone")
    with pytest.raises(
        DataError, match=r"gtFine.val: there is no such folder, so split 'val' has no masks.*gtFine_train"
    ):
        read_cityscapes(fine)
    (fine / "leftImg8bit/val/lindau/lindau_000000_000019_leftImg8bit.png").unlink()
    (fine / "gone").rename(fine / "gtFine/val")
    with pytest.raises(DataError, match=r"leftImg8bit.val: no <city>/x_leftImg8bit\.png here"):
        read_cityscapes(fine)


def test_read_cityscapes_without_any_split_and_with_double_stems_raises(tmp_path: Path) -> None:
    (tmp_path / "leftImg8bit").mkdir()
    with pytest.raises(DataError, match="no split with images here"):
        read_cityscapes(tmp_path)
    add(tmp_path, "train", "aachen", "labelIds")
    picture(tmp_path / "leftImg8bit/train/other/aachen_000000_000019_leftImg8bit.png", np.zeros((2, 4, 3), np.uint8))
    with pytest.raises(DataError, match="are both image 'aachen_000000_000019'"):
        read_cityscapes(tmp_path)


def test_read_cityscapes_splits_and_cities_behind_lost_links_are_refused(fine: Path) -> None:
    (fine / "leftImg8bit/train/bochum").symlink_to("bochum")
    with pytest.raises(DataError, match=r"train.bochum: symbolic links that lead nowhere or to themselves"):
        read_cityscapes(fine)
    (fine / "leftImg8bit/train/bochum").unlink()
    (fine / "leftImg8bit/train_extra").symlink_to("gone")
    with pytest.raises(DataError, match=r"leftImg8bit.train_extra: symbolic links that lead nowhere"):
        read_cityscapes(fine)
