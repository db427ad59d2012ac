"""NYU Depth v2: the HDF5 file with its two .mat lists, and folders of extracted masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io
from PIL import Image

from perpixel.data import SegmentationDataset, open_data
from perpixel.data.formats.nyuv2 import read_nyuv2
from perpixel.errors import DataError
from perpixel.labels import LabelSpace

IMAGES = np.arange(4 * 6 * 3 * 5, dtype=np.uint8).reshape(4, 6, 3, 5)  # H, W, 3, N as in MATLAB
LABELS = (np.arange(4 * 6 * 5) % 7).astype(np.uint16).reshape(4, 6, 5)
MAPPING = (np.arange(894) % 40 + 1).astype(np.uint8)
NAMES = LabelSpace.load("nyuv2_40").names


def cells(names: tuple[str, ...]) -> np.ndarray:
    found = np.empty((1, len(names)), object)
    found[0, :] = names
    return found


def nyu(root: Path, *, images: Any = IMAGES, labels: Any = LABELS) -> Path:
    with h5py.File(root / "nyu_depth_v2_labeled.mat", "w", userblock_size=512) as file:
        file["images"], file["labels"], file["depths"] = images.T, labels.T, labels.T.astype(np.float32)
    splits(root, train=[5, 1], test=[2, 3, 4])
    mapping(root)
    return root


def splits(root: Path, **numbers: list[Any]) -> None:
    scipy.io.savemat(root / "splits.mat", {f"{k}Ndxs": np.array([v], float).T for k, v in numbers.items()})


def mapping(root: Path, classes: Any = MAPPING, names: tuple[str, ...] = NAMES) -> None:
    scipy.io.savemat(root / "classMapping40.mat", {"mapClass": classes[None], "className": cells(names)})


def test_read_nyuv2_matrices_give_known_pixels_and_train_ids(tmp_path: Path) -> None:
    source = open_data(nyu(tmp_path))
    assert source.format == "nyuv2"
    assert source.labels is not None
    assert source.labels.names == NAMES
    assert {split: [item.name for item in items] for split, items in source.splits.items()} == {
        "train": ["0005", "0001"],
        "test": ["0002", "0003", "0004"],
    }
    sample = SegmentationDataset(source.splits["train"], source.labels)[0]
    np.testing.assert_array_equal(sample.image.permute(1, 2, 0).numpy(), IMAGES[..., 4])
    expected = np.where(LABELS[..., 4] == 0, 255, LABELS[..., 4] - 1)  # mapClass is 1, 2, 3… here
    assert sample.target is not None
    np.testing.assert_array_equal(sample.target.numpy(), expected)


def test_read_nyuv2_ids_beyond_the_894_are_an_error(tmp_path: Path) -> None:
    source = read_nyuv2(nyu(tmp_path, labels=LABELS + 890))
    assert source.labels is not None
    with pytest.raises(DataError, match=r"labels\[4\]: ids outside label space 'nyuv2_40_of_894'.*895 on"):
        SegmentationDataset(source.splits["train"], source.labels)[0]


def test_read_nyuv2_without_split_file_is_undivided_and_said(tmp_path: Path) -> None:
    (nyu(tmp_path) / "splits.mat").unlink()
    source = read_nyuv2(tmp_path)
    assert [item.name for item in source.splits["all"]] == ["0001", "0002", "0003", "0004", "0005"]
    assert "splits.mat is not here" in source.notes[1]


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"train": [1, 2], "test": [2]}, "1 images are in both splits: 2"),
        ({"train": [0, 1], "test": [2]}, "trainNdxs holds 2 numbers from 0 to 1; each of the 5 images"),
        ({"train": [1], "test": [6]}, "testNdxs holds 1 numbers from 6 to 6"),
        ({"train": [1, 1], "test": [2]}, "trainNdxs holds 2 numbers from 1 to 1"),
        ({"train": [1.5], "test": [2]}, "trainNdxs is no list of image numbers"),
        ({"train": [1]}, "no variable 'testNdxs'"),
    ],
)
def test_read_nyuv2_lists_that_contradict_are_refused(
    tmp_path: Path, numbers: dict[str, list[Any]], message: str
) -> None:
    splits(nyu(tmp_path), **numbers)
    with pytest.raises(DataError, match=rf"splits\.mat: .*{message}"):
        read_nyuv2(tmp_path)


@pytest.mark.parametrize(
    ("classes", "names", "message"),
    [
        (MAPPING[:893], NAMES, "mapClass holds 894 whole numbers from 1 to 40, this one has 893 values"),
        (MAPPING - 1, NAMES, "mapClass holds 894 whole numbers from 1 to 40"),
        (MAPPING, (NAMES[1], NAMES[0], *NAMES[2:]), r"className lists 40 classes, of which 2 .*\(floor, wall\)"),
        (MAPPING, NAMES[:13], "className lists 13 classes"),
    ],
)
def test_read_nyuv2_mapping_of_another_kind_is_refused(
    tmp_path: Path, classes: Any, names: tuple[str, ...], message: str
) -> None:
    mapping(nyu(tmp_path), classes, names)
    with pytest.raises(DataError, match=rf"classMapping40\.mat: {message}"):
        read_nyuv2(tmp_path)


def test_read_nyuv2_incomplete_or_odd_files_are_named(tmp_path: Path) -> None:
    (nyu(tmp_path) / "classMapping40.mat").unlink()
    with pytest.raises(DataError, match=r"classMapping40\.mat: the file that maps the 894 ids to 40 classes is not"):
        read_nyuv2(tmp_path)
    nyu(tmp_path, labels=LABELS[:3])
    with pytest.raises(DataError, match=r"images \(5, 3, 6, 4\) and labels \(5, 6, 3\) do not belong together"):
        read_nyuv2(tmp_path)
    with h5py.File(tmp_path / "nyu_depth_v2_labeled.mat", "w") as file:
        file["images"] = IMAGES.T
    with pytest.raises(DataError, match=r"there is no dataset 'labels' in it\. NYU Depth v2 has"):
        read_nyuv2(tmp_path)
    scipy.io.savemat(tmp_path / "nyu_depth_v2_labeled.mat", {"images": IMAGES})
    with pytest.raises(DataError, match=r"nyu_depth_v2_labeled\.mat: this is a \.mat file of an older version"):
        read_nyuv2(tmp_path)


def test_read_nyuv2_folders_give_known_train_ids(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for folder in ("rgb", "labels_40", "depth"):
            (tmp_path / split / folder).mkdir(parents=True)
            Image.fromarray(np.array([[0, 1, 40]], np.uint8)).save(tmp_path / split / folder / "0001.png")
    source = open_data(tmp_path)
    assert (source.format, list(source.splits)) == ("nyuv2", ["train", "test"])
    assert source.labels is not None
    dataset = SegmentationDataset(source.splits["test"], source.labels)
    np.testing.assert_array_equal(dataset.read_target(0).pixels, [[255, 0, 39]])


def test_read_nyuv2_folder_without_masks_is_said(tmp_path: Path) -> None:
    for folder in ("train/rgb", "train/labels_40", "test/rgb"):
        (tmp_path / folder).mkdir(parents=True)
        Image.fromarray(np.array([[0, 1, 40]], np.uint8)).save(tmp_path / folder / "0001.png")
    source = read_nyuv2(tmp_path)
    assert list(source.splits) == ["train"]
    assert source.notes == (f"{tmp_path / 'test'} does not have both rgb/ and labels_40/, so there is no split 'test'",)


def test_read_nyuv2_other_folder_shows_the_layout(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no NYU Depth v2 here\. NYU Depth v2 has nyu_depth_v2_labeled\.mat"):
        read_nyuv2(tmp_path)
