"""COCO-Stuff 164k and 10k, as published and with converted masks: stored values to train ids."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image

from perpixel.data import DataSource, SegmentationDataset, open_data
from perpixel.data.formats.cocostuff import is_cocostuff, read_cocostuff
from perpixel.errors import DataError


def save(path: Path, ids: list[int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array([ids], np.uint8)).save(path)


def names(source: DataSource, split: str) -> list[str]:
    assert source.labels is not None
    pixels = SegmentationDataset(source.splits[split], source.labels).read_target(0).pixels
    assert pixels is not None
    return ["-" if i == 255 else source.labels.names[i] for i in pixels[0]]


def large(root: Path, masks: str = "annotations", ending: str = "", ids: tuple[int, ...] = (0, 11, 181, 255)) -> Path:
    for year, name in (("train2017", "000000000009"), ("val2017", "000000000139")):
        save(root / f"images/{year}/{name}.jpg", [0] * len(ids))
        save(root / f"{masks}/{year}/{name}{ending}.png", list(ids))
    return root


@pytest.mark.parametrize("masks", ["annotations", "stuffthingmaps_trainval2017"])
def test_read_cocostuff_164k_gives_known_classes(tmp_path: Path, masks: str) -> None:
    source = open_data(large(tmp_path, masks))
    assert (source.format, list(source.splits)) == ("cocostuff", ["train", "val"])
    assert source.labels is not None
    assert source.labels.num_classes == 171
    assert names(source, "train") == ["person", "-", source.labels.names[-1], "-"]
    assert source.splits["val"][0].name == "000000000139"


def test_read_cocostuff_164k_published_masks_come_before_converted_ones(tmp_path: Path) -> None:
    large(large(tmp_path), ending="_labelTrainIds")
    assert names(read_cocostuff(tmp_path), "train")[2] != "-"
    assert read_cocostuff(tmp_path).splits["train"][0].mask == tmp_path / "annotations/train2017/000000000009.png"


def test_read_cocostuff_164k_converted_masks_count_without_gaps(tmp_path: Path) -> None:
    source = read_cocostuff(large(tmp_path, ending="_labelTrainIds", ids=(0, 11, 170, 255)))
    assert source.labels is not None
    assert names(source, "val") == ["person", source.labels.names[11], source.labels.names[170], "-"]
    assert "_labelTrainIds.png: 0 to 170" in source.notes[0]


def test_is_cocostuff_other_data_in_such_folders_is_not_taken_for_it(tmp_path: Path) -> None:
    save(tmp_path / "images/train2017/street_1.jpg", [0])
    save(tmp_path / "annotations/train2017/street_1.png", [0])
    assert not is_cocostuff(tmp_path)
    assert is_cocostuff(large(tmp_path / "b", ending="_labelTrainIds"))


def test_read_cocostuff_164k_one_split_alone_is_said(tmp_path: Path) -> None:
    save(tmp_path / "images/val2017/a.jpg", [0])
    save(tmp_path / "annotations/val2017/a.png", [0])
    save(tmp_path / "annotations/val2017/b.png", [0])
    source = read_cocostuff(tmp_path)
    assert list(source.splits) == ["val"]
    assert "train2017 is not complete here" in source.notes[0]
    assert "1 masks" in source.notes[1]


def test_read_cocostuff_164k_incomplete_data_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no COCO-Stuff here\. COCO-Stuff 164k has"):
        read_cocostuff(tmp_path)
    save(large(tmp_path) / "images/val2017/b.jpg", [0])
    with pytest.raises(DataError, match=r"1 of 2 images in .*val2017 have no mask in .*: b\. COCO-Stuff"):
        read_cocostuff(tmp_path)
    for path in (tmp_path / "images/val2017").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"val2017: no \.jpg images here"):
        read_cocostuff(tmp_path)


def test_read_cocostuff_164k_names_that_differ_in_case_are_refused(tmp_path: Path) -> None:
    save(large(tmp_path) / "images/val2017/000000000139.JPG", [0])
    with pytest.raises(
        DataError, match=r"000000000139\.JPG and 000000000139\.jpg are both image '000000000139'; remove one"
    ):
        read_cocostuff(tmp_path)
    (tmp_path / "images/val2017/000000000139.jpg").unlink()
    assert read_cocostuff(tmp_path).splits["val"][0].image.name == "000000000139.JPG"


def test_read_cocostuff_164k_two_kinds_of_masks_are_refused(tmp_path: Path) -> None:
    large(tmp_path)
    mask = tmp_path / "annotations/val2017/000000000139.png"
    mask.rename(mask.with_name("000000000139_labelTrainIds.png"))
    with pytest.raises(DataError, match=r"one split has masks as published and the other has _labelTrainIds"):
        read_cocostuff(tmp_path)


def small(root: Path) -> Path:
    (root / "imageLists").mkdir(parents=True)
    (root / "annotations").mkdir()
    for split, name in (("train", "COCO_train2014_000000000077"), ("test", "COCO_train2014_000000000349")):
        save(root / f"images/{name}.jpg", [0] * 4)
        s = np.array([[1, 0, 12, 182]], np.uint8)
        scipy.io.savemat(root / f"annotations/{name}.mat", {"S": s, "captions": "a", "regionMapStuff": s})
        (root / f"imageLists/{split}.txt").write_text(f"{name}\n")
    return root


def test_read_cocostuff_10k_matrices_give_known_classes(tmp_path: Path) -> None:
    source = open_data(small(tmp_path))
    assert (source.format, list(source.splits)) == ("cocostuff", ["train", "test"])
    assert source.labels is not None
    assert names(source, "test") == ["person", "-", "-", source.labels.names[-1]]


def test_read_cocostuff_10k_converted_masks_count_without_gaps(tmp_path: Path) -> None:
    for split in ("train", "test"):
        save(tmp_path / f"images/{split}2014/a{split}.jpg", [0] * 3)
        save(tmp_path / f"annotations/{split}2014/a{split}_labelTrainIds.png", [0, 1, 171])
        (tmp_path / "imageLists").mkdir(exist_ok=True)
        (tmp_path / f"imageLists/{split}.txt").write_text(f"a{split}\n")
    source = read_cocostuff(tmp_path)
    assert source.labels is not None
    assert names(source, "test") == ["-", "person", source.labels.names[-1]]
    np.testing.assert_array_equal(source.labels.decode(np.array([0, 170, 255])), [1, 171, 0])


def test_read_cocostuff_10k_incomplete_data_is_named(tmp_path: Path) -> None:
    small(tmp_path)
    (tmp_path / "annotations/COCO_train2014_000000000349.mat").unlink()
    with pytest.raises(DataError, match=r"split 'test' lists 1 files that are not there: .*349\.mat"):
        read_cocostuff(tmp_path)
    save(tmp_path / "annotations/test2014/COCO_train2014_000000000349_labelTrainIds.png", [0])
    with pytest.raises(DataError, match=r"some masks are \.mat files and some _labelTrainIds\.png"):
        read_cocostuff(tmp_path)
    for split in ("train", "test"):
        (tmp_path / f"imageLists/{split}.txt").unlink()
    with pytest.raises(DataError, match=r"imageLists: no train\.txt or test\.txt here"):
        read_cocostuff(tmp_path)


def test_read_cocostuff_hidden_files_are_left_out_and_pipes_refused(tmp_path: Path) -> None:
    folder = large(tmp_path) / "images/val2017"
    before = read_cocostuff(tmp_path)
    (folder / "._000000000139.jpg").write_bytes(b"from a Mac")
    assert read_cocostuff(tmp_path) == before
    os.mkfifo(folder / "000000000140.jpg")
    with pytest.raises(DataError, match=r"000000000140\.jpg is no plain file"):
        read_cocostuff(tmp_path)
