"""SUN RGB-D: the toolbox's three .mat files, and both forms of extracted labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io
from PIL import Image

from perpixel.data import SegmentationDataset, open_data
from perpixel.data.formats.sunrgbd import read_sunrgbd
from perpixel.errors import DataError

PREFIX = "/n/fs/sun3d/data/SUNRGBD/"
FOLDERS = ("kv1/NYUdata/NYU0001", "kv2/kinect2data/000002_2014", "xtion/sun3ddata/a/b")
LABEL = np.array([[0, 1, 37], [2, 3, 4]], np.uint8)


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def cells(texts: list[str]) -> np.ndarray:
    found = np.empty((1, len(texts)), object)
    found[0, :] = texts
    return found


def split_file(root: Path, train: tuple[str, ...], test: tuple[str, ...]) -> None:
    content = {f"all{k}": cells([PREFIX + f for f in v]) for k, v in (("train", train), ("test", test))}
    scipy.io.savemat(root / "SUNRGBDtoolbox/traintestSUNRGBD/allsplit.mat", content)


def meta_file(root: Path, rows: list[tuple[str, str]], *, field: str = "rgbpath") -> None:
    kind: Any = [(field, "O"), ("rgbname", "O")]
    scipy.io.savemat(root / "SUNRGBDtoolbox/Metadata/SUNRGBDMeta.mat", {"SUNRGBDMeta": np.array([rows], dtype=kind)})


def sun(root: Path) -> Path:
    (root / "SUNRGBDtoolbox/Metadata").mkdir(parents=True)
    (root / "SUNRGBDtoolbox/traintestSUNRGBD").mkdir()
    rows = []
    with h5py.File(root / "SUNRGBDtoolbox/Metadata/SUNRGBD2Dseg.mat", "w", userblock_size=512) as file:
        column = file.create_dataset("SUNRGBD2Dseg/seglabel", (3, 1), dtype=h5py.special_dtype(ref=h5py.Reference))
        for i, folder in enumerate(FOLDERS):
            save(root / "SUNRGBD" / folder / f"image/{i}.jpg", np.zeros((2, 3), np.uint8))
            column[i, 0] = file.create_dataset(f"#refs#/{i}", data=np.roll(LABEL, i).T).ref
            rows.append((f"{PREFIX}{folder}/image/{i}.jpg", f"{i}.jpg"))
    meta_file(root, rows)
    split_file(root, FOLDERS[:1], FOLDERS[1:])
    return root


def test_read_sunrgbd_toolbox_gives_known_train_ids(tmp_path: Path) -> None:
    source = open_data(sun(tmp_path))
    assert source.format == "sunrgbd"
    assert source.labels is not None
    assert {split: [item.name for item in items] for split, items in source.splits.items()} == {
        "train": ["kv1__NYUdata__NYU0001"],
        "test": ["kv2__kinect2data__000002_2014", "xtion__sun3ddata__a__b"],
    }
    dataset = SegmentationDataset(source.splits["test"], source.labels)
    np.testing.assert_array_equal(dataset[0].target, np.roll(LABEL, 1).astype(int) - 1 & 255)
    assert dataset.items[0].image == tmp_path / "SUNRGBD/kv2/kinect2data/000002_2014/image/1.jpg"


def test_read_sunrgbd_images_of_no_split_are_named(tmp_path: Path) -> None:
    split_file(sun(tmp_path), FOLDERS[:1], FOLDERS[1:2])
    source = read_sunrgbd(tmp_path)
    assert source.notes == ("1 images are in neither split and were left out: xtion/sun3ddata/a/b",)
    split_file(tmp_path, ("kv1/x",), ("kv1/y",))
    with pytest.raises(DataError, match="none of the 3 images is in alltrain or alltest"):
        read_sunrgbd(tmp_path)


def test_read_sunrgbd_lists_that_contradict_are_refused(tmp_path: Path) -> None:
    split_file(sun(tmp_path), FOLDERS, FOLDERS[:1])
    with pytest.raises(DataError, match=r"allsplit\.mat: 1 images are in both alltrain and alltest: kv1"):
        read_sunrgbd(tmp_path)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ((f"{PREFIX}../../etc/x/image/0.jpg", "0.jpg"), r"expected a path with SUNRGBD/.*\.\./\.\./etc"),
        (("/other/kv1/a/image/0.jpg", "0.jpg"), r"expected a path with SUNRGBD/"),
        ((f"{PREFIX}kv1/a/image/0.jpg", "../0.jpg"), r"rgbname is a plain file name, got \.\./0\.jpg"),
    ],
)
def test_read_sunrgbd_paths_that_lead_elsewhere_are_refused(tmp_path: Path, row: tuple[str, str], message: str) -> None:
    meta_file(sun(tmp_path), [row] * 3)
    with pytest.raises(DataError, match=rf"SUNRGBDMeta\.mat: {message}"):
        read_sunrgbd(tmp_path)


def test_read_sunrgbd_incomplete_toolbox_is_named(tmp_path: Path) -> None:
    (sun(tmp_path) / "SUNRGBD/kv1/NYUdata/NYU0001/image/0.jpg").unlink()
    with pytest.raises(DataError, match=r"split 'train' lists 1 files that are not there: .*0\.jpg"):
        read_sunrgbd(tmp_path)
    meta_file(tmp_path, [(f"{PREFIX}{FOLDERS[0]}/image/0.jpg", "0.jpg")])
    with pytest.raises(DataError, match=r"seglabel has shape \(3, 1\) and Metadata/SUNRGBDMeta\.mat lists 1 images"):
        read_sunrgbd(tmp_path)
    meta_file(tmp_path, [("a", "b")], field="path")
    with pytest.raises(DataError, match=r"SUNRGBDMeta has no fields rgbpath and rgbname"):
        read_sunrgbd(tmp_path)
    (tmp_path / "SUNRGBDtoolbox/traintestSUNRGBD/allsplit.mat").unlink()
    with pytest.raises(DataError, match=r"allsplit\.mat: the file is not there\. SUN RGB-D has"):
        read_sunrgbd(tmp_path)


def test_read_sunrgbd_packed_labels_are_paired_by_their_offset(tmp_path: Path) -> None:
    save(tmp_path / "SUNRGBD-train_images/img-000002.jpg", LABEL)
    save(tmp_path / "SUNRGBD-test_images/img-000002.jpg", LABEL)
    save(tmp_path / "sunrgbd_train_test_labels/img-000002.png", LABEL)
    save(tmp_path / "sunrgbd_train_test_labels/img-005052.png", LABEL)
    source = open_data(tmp_path)
    masks = {split: items[0].mask.name for split, items in source.splits.items()}
    assert masks == {"train": "img-005052.png", "test": "img-000002.png"}
    assert "training image n has label n + 5050" in source.notes[-1]
    save(tmp_path / "SUNRGBD-train_images/img-000003.jpg", LABEL)
    with pytest.raises(DataError, match=r"1 images in .*train_images have no label in .*: img-000003\.jpg"):
        read_sunrgbd(tmp_path)


def test_read_sunrgbd_packed_images_that_go_on_counting_have_their_own_labels(tmp_path: Path) -> None:
    save(tmp_path / "SUNRGBD-train_images/img-005052.jpg", LABEL)
    save(tmp_path / "labels/img-005052.png", LABEL)
    source = read_sunrgbd(tmp_path)
    assert source.splits["train"][0].mask.name == "img-005052.png"
    assert source.notes[0] == f"{tmp_path / 'SUNRGBD-test_images'} is not here, so its split is not either"


def test_read_sunrgbd_folders_by_split_are_paired_by_number(tmp_path: Path) -> None:
    for split in ("train", "test"):
        save(tmp_path / f"image/{split}/img-000001.jpg", LABEL)
        save(tmp_path / f"label37/{split}/img37labels-000001.png", LABEL)
        save(tmp_path / f"label37/{split}/preview.png", LABEL)
    source = open_data(tmp_path)
    assert source.format == "sunrgbd"
    assert source.splits["train"][0].mask == tmp_path / "label37/train/img37labels-000001.png"
    save(tmp_path / "image/train/other-000001.jpg", LABEL)
    with pytest.raises(DataError, match=r"other-000001\.jpg and img-000001\.jpg have one number"):
        read_sunrgbd(tmp_path)


def test_read_sunrgbd_folders_without_partner_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no SUN RGB-D here\. SUN RGB-D has SUNRGBD/"):
        read_sunrgbd(tmp_path)
    (tmp_path / "SUNRGBD-train_images").mkdir()
    with pytest.raises(DataError, match=r"the folder of labels, sunrgbd_train_test_labels/, is not there"):
        read_sunrgbd(tmp_path)
    (tmp_path / "labels").mkdir()
    with pytest.raises(DataError, match=r"SUNRGBD-train_images: no \.jpg images with a number here"):
        read_sunrgbd(tmp_path)
    other = tmp_path / "other"
    (other / "label37/train").mkdir(parents=True)
    with pytest.raises(DataError, match=r"image.train: there is no such folder"):
        read_sunrgbd(other)
