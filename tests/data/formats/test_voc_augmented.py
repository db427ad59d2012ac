"""VOC's augmented training set both ways, and SBD by itself, with .mat files as the benchmark has them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.io
import scipy.sparse
from PIL import Image

from perpixel.data.dataset import SegmentationDataset
from perpixel.data.formats.sbd import find_sbd, read_sbd
from perpixel.data.formats.voc import read_voc
from perpixel.data.source import DataSource, open_data
from perpixel.errors import DataError
from perpixel.labels import LabelSpace

VOC_IDS = [[0, 15, 255]]
SBD_IDS = [[0, 15, 20]]


def picture(path: Path, ids: list[list[int]] | None = None, *, palette: bool = True) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.zeros((1, 3, 3), np.uint8) if ids is None else np.array(ids, np.uint8))
    if ids is not None and palette:
        image.putpalette(LabelSpace.load("voc").palette())
    image.save(path)


def write_list(path: Path, *names: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name}\n" for name in names))


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """VOC with train 2007_000032, val 2007_000033; the images of SBD lie in it too."""
    base = tmp_path / "VOCdevkit/VOC2012"
    for name in ("2007_000032", "2007_000033", "2008_000002"):
        picture(base / f"JPEGImages/{name}.jpg")
    for name in ("2007_000032", "2007_000033"):
        picture(base / f"SegmentationClass/{name}.png", VOC_IDS)
    write_list(base / "ImageSets/Segmentation/train.txt", "2007_000032")
    write_list(base / "ImageSets/Segmentation/val.txt", "2007_000033")
    return base


def put_sbd(dataset: Path, *, images: bool = True) -> Path:
    names = {"train": ("2007_000032", "2008_000002"), "val": ("2007_000033", "2008_000005")}
    for split, inside in names.items():
        write_list(dataset / f"{split}.txt", *inside)
        for name in inside:
            (dataset / "cls").mkdir(exist_ok=True)
            boundaries = np.empty((20, 1), object)
            boundaries[:, 0] = [scipy.sparse.csc_matrix(np.array(SBD_IDS) == k) for k in range(20)]
            truth = {"Boundaries": boundaries, "Segmentation": np.array(SBD_IDS, np.uint8), "CategoriesPresent": [15]}
            scipy.io.savemat(dataset / "cls" / f"{name}.mat", {"GTcls": truth})
            if images:
                picture(dataset / "img" / f"{name}.jpg")
    return dataset


def targets(source: DataSource, split: str) -> dict[str, list[list[int]]]:
    assert source.labels is not None
    data = SegmentationDataset(source.splits[split], source.labels)
    pixels = [data.read_target(index).pixels for index in range(len(data))]
    return {item.name: p.tolist() for item, p in zip(data.items, pixels, strict=True) if p is not None}


@pytest.mark.parametrize("place", ["benchmark_RELEASE/dataset", "VOCaug/dataset"])
@pytest.mark.parametrize("above", [".", "..", "../.."])
def test_read_voc_with_sbd_beside_keeps_vocs_own_masks(voc: Path, place: str, above: str) -> None:
    put_sbd(voc / above / place)
    source = read_voc(voc)
    assert targets(source, "train_aug_sbd") == {
        "2007_000032": VOC_IDS,
        "2008_000002": SBD_IDS,
        "2008_000005": SBD_IDS,
    }
    assert source.splits["train_aug"] == source.splits["train_aug_sbd"]
    assert source.splits["train_aug"][1].image == voc / "JPEGImages/2008_000002.jpg"
    said = " ".join(source.notes)
    assert "1 images with VOC's own masks and 2 with the masks of SBD" in said
    assert "train_aug_sbd 3 (published: 10582)" in said
    assert "no SegmentationClassAug/, so 'train_aug' is 'train_aug_sbd'" in said


def test_read_voc_with_both_sources_offers_both_splits(voc: Path) -> None:
    put_sbd(voc / "benchmark_RELEASE/dataset")
    for name in ("2007_000032", "2008_000002"):
        picture(voc / f"SegmentationClassAug/{name}.png", SBD_IDS, palette=False)
    write_list(voc / "ImageSets/Segmentation/train_aug.txt", "2007_000032", "2008_000002")
    source = read_voc(voc)
    assert targets(source, "train_aug") == {"2007_000032": SBD_IDS, "2008_000002": SBD_IDS}
    assert targets(source, "train_aug_sbd")["2007_000032"] == VOC_IDS
    assert "those of SegmentationClassAug, without void borders" in source.notes[0]
    assert f"sbd:{voc}" in open_data(voc).notes[1]


def test_read_voc_published_count_is_not_remarked(voc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perpixel.data.formats.voc._COUNTS", {"train_aug": 3, "val": 1, "test": 5})
    put_sbd(voc / "benchmark_RELEASE/dataset")
    assert "published data set" not in " ".join(read_voc(voc).notes)


def test_read_voc_half_of_the_augmented_set_is_said(voc: Path) -> None:
    write_list(voc / "ImageSets/Segmentation/train_aug.txt", "2007_000032")
    assert "SegmentationClassAug/ is not there" in read_voc(voc).notes[0]
    (voc / "ImageSets/Segmentation/train_aug.txt").unlink()
    (voc / "SegmentationClassAug").mkdir()
    assert "no train_aug.txt is there" in read_voc(voc).notes[0]
    put_sbd(voc / "benchmark_RELEASE/dataset")
    (voc / "ImageSets/Segmentation/val.txt").unlink()
    source = read_voc(voc)
    assert list(source.splits) == ["train"]
    assert "cannot be joined" in source.notes[1]


def test_read_voc_repeated_ids_raise(voc: Path) -> None:
    write_list(voc / "ImageSets/Segmentation/val.txt", "2007_000033", "2007_000033")
    with pytest.raises(DataError, match=r"val\.txt: 1 ids are given more than once: 2007_000033"):
        read_voc(voc)
    (voc / "ImageSets/Segmentation/val.txt").write_bytes(b"\xff")
    with pytest.raises(DataError, match=r"val\.txt: cannot be read as a list of names"):
        read_voc(voc)


@pytest.mark.parametrize("inside", ["", "dataset", "benchmark_RELEASE/dataset"])
def test_read_sbd_reads_its_own_splits_from_mat_files(tmp_path: Path, inside: str) -> None:
    put_sbd(tmp_path / inside)
    source = open_data(f"sbd:{tmp_path}")
    assert targets(source, "val") == {"2007_000033": SBD_IDS, "2008_000005": SBD_IDS}
    assert [len(items) for items in source.splits.values()] == [2, 2]
    assert "are not VOC's" in source.notes[-1]
    assert open_data(tmp_path).splits == source.splits


def test_read_sbd_missing_parts_are_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no cls/ with train\.txt beside it here\. SBD has .*benchmark\.tgz"):
        read_sbd(tmp_path)
    put_sbd(tmp_path, images=False)
    with pytest.raises(DataError, match=r"split 'train' lists 2 files that are not there: .*2007_000032\.jpg"):
        read_sbd(tmp_path)
    write_list(tmp_path / "train.txt", "2007_000032", "2007_000032")
    with pytest.raises(DataError, match=r"train\.txt: 2 ids, repeated: 2007_000032"):
        read_sbd(tmp_path)
    write_list(tmp_path / "train.txt")
    with pytest.raises(DataError, match=r"train\.txt: 0 ids, repeated: none"):
        read_sbd(tmp_path)
    (tmp_path / "train.txt").unlink()
    assert find_sbd(tmp_path) is None


def test_read_sbd_without_val_has_one_split(tmp_path: Path) -> None:
    put_sbd(tmp_path)
    (tmp_path / "val.txt").unlink()
    assert list(read_sbd(tmp_path).splits) == ["train"]
