"""PASCAL-Context in both forms: 459 ids and their two name files, PNG masks in alphabetical order, the splits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image

from perpixel.data import SegmentationDataset, open_data
from perpixel.data.formats.pascal_context import read_pascal_context, read_pascal_context60
from perpixel.errors import DataError
from perpixel.labels import LabelSpace

OFFICIAL = LabelSpace.load("pascal_context59_official").names
ALPHABETICAL = LabelSpace.load("pascal_context59").names
# 0, aeroplane, bag, table, tvmonitor, wood, and two of the 400 that are no class of the 59
STORED = np.array([[0, 2, 9, 397], [427, 458, 1, 459]], np.uint16)


def voc2010(root: Path, *, lists: str) -> Path:
    base = root / "VOCdevkit/VOC2010"
    (base / "JPEGImages").mkdir(parents=True)
    (base / lists).mkdir(parents=True)
    for name, split in (("2008_000002", "train"), ("2008_000003", "val")):
        Image.fromarray(np.zeros((2, 4), np.uint8)).save(base / f"JPEGImages/{name}.jpg")
        (base / lists / f"{split}.txt").write_text(f"{name}\n")
    return base


def mats(root: Path) -> Path:
    base = voc2010(root, lists="ImageSets/Main")
    (root / "trainval").mkdir()
    for name in ("2008_000002", "2008_000003"):
        scipy.io.savemat(root / f"trainval/{name}.mat", {"LabelMap": STORED}, do_compression=True)
    return base


def names_459() -> list[str]:
    """A list of 459 in which the 59 stand at their published places."""
    names = [f"thing {i}" for i in range(1, 460)]
    space = LabelSpace.load("pascal_context59")
    for name, number in zip(space.names, IDS, strict=True):
        names[number - 1] = name
    return names


IDS = [
    *[2, 9, 18, 19, 22, 23, 25, 31, 33, 34, 44, 45, 46, 59, 65, 68, 72, 80, 85, 98, 104, 105, 113, 115, 144, 158, 159],
    *[162, 187, 189, 207, 220, 232, 258, 259, 260, 284, 295, 296, 308, 324, 326, 347, 349, 354, 355, 360, 366, 368],
    *[397, 415, 416, 420, 424, 427, 440, 445, 454, 458],
]


def numbered(names: list[str]) -> str:
    return "\n".join(f"{i}: {name}" for i, name in enumerate(names, start=1)) + "\n"


def train_names(root: Path, spec: str) -> tuple[list[list[str]], tuple[str, ...]]:
    source = open_data(f"{spec}:{root}")
    assert source.labels is not None
    pixels = SegmentationDataset(source.splits["train"], source.labels).read_target(0).pixels
    assert pixels is not None
    return [["-" if i == 255 else source.labels.names[i] for i in row] for row in pixels], source.notes


def test_read_pascal_context_mats_become_59_classes_in_official_order(tmp_path: Path) -> None:
    mats(tmp_path)
    source = open_data(tmp_path)
    assert source.format == "pascal_context"
    assert list(source.splits) == ["train", "val"]
    assert source.labels is not None
    assert source.labels.names == OFFICIAL
    assert train_names(tmp_path, "pascal_context")[0] == [
        ["-", "aeroplane", "bag", "table"],
        ["tvmonitor", "wood", "-", "-"],
    ]


def test_read_pascal_context60_counts_the_rest_as_background(tmp_path: Path) -> None:
    mats(tmp_path)
    found, notes = train_names(tmp_path, "pascal_context60")
    assert found == [["background", "aeroplane", "bag", "table"], ["tvmonitor", "wood", "background", "background"]]
    assert "the masks hold 459 ids, of which 400 and 0 are background" in notes
    labels = read_pascal_context60(tmp_path).labels
    assert labels is not None
    train = np.arange(60)
    np.testing.assert_array_equal(labels.encode(labels.decode(train)), train)


def test_read_pascal_context_name_files_are_used(tmp_path: Path) -> None:
    mats(tmp_path)
    names = names_459()
    names[0], names[1] = names[1], names[0]  # aeroplane is 1 here
    (tmp_path / "labels.txt").write_text(numbered(names))
    official = [{"table": "diningtable", "bedclothes": "bedcloth", "cloth": "clothes"}.get(n, n) for n in OFFICIAL]
    (tmp_path / "59_labels.txt").write_text(numbered(official[::-1]))
    found, notes = train_names(tmp_path, "pascal_context")
    assert found == [["-", "-", "bag", "table"], ["tvmonitor", "wood", "aeroplane", "-"]]
    labels = read_pascal_context(tmp_path).labels
    assert labels is not None
    assert labels.names == OFFICIAL[::-1]
    assert "has other ids than expected for aeroplane" in " ".join(notes)
    assert "order of the 59 classes comes from" in " ".join(notes)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("labels.txt", "1: a\n2: b\n", r"expected the numbers 1 to 459 with a name each, got 2 lines"),
        ("labels.txt", "aeroplane\n", r"labels\.txt, line 1: expected a number of its own and a name.*'aeroplane'"),
        ("labels.txt", "1: a\n\n1: b\n", r"labels\.txt, line 3: expected a number of its own"),
        ("labels.txt", numbered([f"x{i}" for i in range(459)]), r"class 'aeroplane' of the 59 is not among its names"),
        ("59_labels.txt", numbered([*ALPHABETICAL[:58], "woods"]), r"'woods' .* not among .*did you mean 'wood'"),
    ],
)
def test_read_pascal_context_name_file_with_a_mistake_is_refused(
    tmp_path: Path, file: str, text: str, message: str
) -> None:
    mats(tmp_path)
    (tmp_path / file).write_text(text)
    with pytest.raises(DataError, match=message):
        read_pascal_context(tmp_path)


def png(root: Path) -> Path:
    base = voc2010(root, lists="ImageSets/SegmentationContext")
    (base / "SegmentationClassContext").mkdir()
    (base / "SegmentationClass").mkdir()  # VOC 2010's own masks
    ids = np.array([[0, 1, 2, 3], [49 + 1, 55, 58, 59]], np.uint8)
    for name in ("2008_000002", "2008_000003"):
        Image.fromarray(ids).save(base / f"SegmentationClassContext/{name}.png")
    return base


def test_read_pascal_context_png_masks_are_alphabetical_and_the_trap_is_told(tmp_path: Path) -> None:
    png(tmp_path)
    source = open_data(tmp_path)
    assert source.format == "pascal_context"
    found, notes = train_names(tmp_path, "pascal_context")
    assert found == [["-", "aeroplane", "bag", "bed"], ["table", "tvmonitor", "window", "wood"]]
    assert "alphabetical" in notes[0]
    assert "--labels pascal_context59_official" in notes[0]
    assert "names are not" in notes[0]
    assert train_names(tmp_path, "pascal_context60")[0][0] == ["background", "aeroplane", "bag", "bed"]


def test_read_pascal_context_incomplete_data_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no PASCAL-Context here\. PASCAL-Context has JPEGImages.*trainval_merged"):
        read_pascal_context(tmp_path)
    base = mats(tmp_path)
    (tmp_path / "trainval/2008_000003.mat").unlink()
    with pytest.raises(DataError, match=r"split 'val' lists 1 files that are not there: .*2008_000003\.mat"):
        read_pascal_context(tmp_path)
    (base / "ImageSets/Main/val.txt").write_text("../../etc/passwd\n")
    with pytest.raises(DataError, match=r"val\.txt: ids are plain names such as 2008_000002, got \.\./\.\./etc"):
        read_pascal_context(tmp_path)
    (base / "ImageSets/Main/val.txt").write_text("\n")
    with pytest.raises(DataError, match=r"val\.txt: the list is empty"):
        read_pascal_context(tmp_path)
    (base / "ImageSets/Main/val.txt").write_text("2008_000003\n2008_000003\n")
    with pytest.raises(DataError, match=r"val\.txt: 1 ids are listed more than once: 2008_000003"):
        read_pascal_context(tmp_path)
    for split in ("train", "val"):
        (base / f"ImageSets/Main/{split}.txt").unlink()
    with pytest.raises(DataError, match=r"no train\.txt or val\.txt here"):
        read_pascal_context(tmp_path)
