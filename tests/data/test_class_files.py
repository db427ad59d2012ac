"""One mask file per class: what overlaps, what no file marks, and files that are no mask of one class."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from perpixel.data import SegmentationDataset, open_data
from perpixel.data.decoding import image_size, read_mask
from perpixel.data.formats.class_files import ClassFiles, Overlap, read_class_folders
from perpixel.errors import DataError

ROAD = np.array([[1, 1, 1], [0, 0, 0]], bool)
SKY = np.array([[0, 1, 0], [1, 0, 0]], bool)


def save(path: Path, marked: np.ndarray, value: int = 255) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(marked.astype(np.uint8) * value).save(path)
    return path


def data(root: Path, *, by_class: bool = True) -> Path:
    for name in ("a", "b"):
        save(root / f"images/{name}.jpg", ROAD)
    for stem, name, marked in (("a", "road", ROAD), ("a", "sky", SKY), ("b", "sky", SKY)):
        save(root / "masks" / (f"{name}/{stem}.png" if by_class else f"{stem}/{name}.png"), marked)
    return root


def targets(root: Path, **options) -> dict[str, list[list[int]]]:
    source = read_class_folders(root, **options)
    assert source.labels is not None
    dataset = SegmentationDataset(source.splits["all"], source.labels)
    return {item.name: dataset.read_target(i).pixels.tolist() for i, item in enumerate(dataset.items)}


@pytest.mark.parametrize("by_class", [True, False])
def test_read_class_folders_both_layouts_give_known_train_ids(tmp_path: Path, by_class: bool) -> None:
    source = open_data(data(tmp_path, by_class=by_class))
    assert source.format == "class_folders"
    assert source.labels is not None
    assert source.labels.names == ("background", "road", "sky")
    assert targets(tmp_path) == {"a": [[1, 2, 1], [2, 0, 0]], "b": [[0, 2, 0], [2, 0, 0]]}
    said = " ".join(source.notes)
    assert "the later class wins: road < sky" in said
    assert "1 such pixels in 2 of 2 masks" in said
    assert "pixels that no file marks are background" in said


@pytest.mark.parametrize(("overlap", "row"), [("last", [1, 2, 1]), ("first", [1, 1, 1]), ("ignore", [1, 255, 1])])
def test_read_class_folders_rule_decides_overlaps(tmp_path: Path, overlap: Overlap, row: list[int]) -> None:
    data(tmp_path)
    assert targets(tmp_path, overlap=overlap)["a"][0] == row
    (tmp_path / "class_folders.yaml").write_text(f"overlap: {overlap}")
    assert targets(tmp_path)["a"][0] == row


def test_read_class_folders_order_decides_who_is_on_top(tmp_path: Path) -> None:
    data(tmp_path)
    assert targets(tmp_path, order=["sky", "road"])["a"][0] == [1, 1, 1]
    (tmp_path / "class_folders.yaml").write_text("order: [sky, road]")
    assert targets(tmp_path)["a"][0] == [1, 1, 1]
    assert "road" in read_class_folders(tmp_path).notes[1].split("<")[1]


def test_read_class_folders_refused_overlap_names_the_pixel(tmp_path: Path) -> None:
    data(tmp_path)
    with pytest.raises(
        DataError,
        match=r"road: a\.png, a\.png for image a\.jpg: 1 pixels belong to several classes, .* row 0, column 1",
    ):
        targets(tmp_path, overlap="refuse")


def test_read_class_folders_background_with_files_leaves_the_rest_ignored(tmp_path: Path) -> None:
    save(data(tmp_path) / "masks/background/b.png", ~SKY)
    source = read_class_folders(tmp_path)
    assert source.labels is not None
    assert source.labels.names == ("background", "road", "sky")
    assert targets(tmp_path) == {"a": [[1, 2, 1], [2, 255, 255]], "b": [[0, 2, 0], [2, 0, 0]]}
    assert "pixels that no file marks are ignored" in " ".join(source.notes)


def test_read_class_folders_label_file_gives_order_and_colours(tmp_path: Path) -> None:
    data(tmp_path)
    (tmp_path / "labels.yaml").write_text("names: [sky, road]\ncolors: [[1, 2, 3], [4, 5, 6]]")
    source = read_class_folders(tmp_path)
    assert source.labels is not None
    assert source.labels.colors == ((1, 2, 3), (4, 5, 6))
    assert targets(tmp_path)["a"] == [[1, 1, 1], [0, 255, 255]]
    (tmp_path / "labels.yaml").write_text("names: [sky, rood]")
    with pytest.raises(DataError, match=r"masks of class road are not in labels\.yaml; did you mean 'rood'"):
        read_class_folders(tmp_path)


def test_read_class_folders_label_file_may_name_the_unmarked(tmp_path: Path) -> None:
    data(tmp_path)
    (tmp_path / "labels.yaml").write_text("names: [sky, road, background, tree]")
    assert targets(tmp_path)["b"] == [[2, 0, 2], [0, 2, 2]]


def test_read_class_folders_splits_share_their_classes(tmp_path: Path) -> None:
    data(tmp_path / "train")
    save(tmp_path / "validation/images/c.jpg", ROAD)
    save(tmp_path / "validation/masks/tree/c.png", SKY)
    source = open_data(tmp_path)
    assert source.format == "class_folders"
    assert {split: [item.name for item in items] for split, items in source.splits.items()} == {
        "train": ["a", "b"],
        "val": ["c"],
    }
    assert source.labels is not None
    assert source.labels.names == ("background", "road", "sky", "tree")
    dataset = SegmentationDataset(source.splits["val"], source.labels)
    np.testing.assert_array_equal(dataset.read_target(0).pixels, SKY * 3)
    (tmp_path / "test/images").mkdir(parents=True)
    assert f"{tmp_path / 'test'} has no images/ and masks/, so there is no split 'test'" in open_data(tmp_path).notes
    (tmp_path / "training").mkdir()
    with pytest.raises(DataError, match="train, training are both split 'train'; join or rename"):
        read_class_folders(tmp_path)


def test_read_class_folders_image_without_files_is_unmarked_and_said(tmp_path: Path) -> None:
    save(data(tmp_path) / "images/c.jpg", ROAD)
    assert targets(tmp_path)["c"] == [[0, 0, 0], [0, 0, 0]]
    assert "1 images have no class file, so all their pixels are unmarked: c" in read_class_folders(tmp_path).notes


@pytest.mark.parametrize("value", [1, 7, 255])
def test_class_files_any_one_value_marks(tmp_path: Path, value: int) -> None:
    mask = ClassFiles(files=((save(tmp_path / "m.png", ROAD, value), 3),), image=tmp_path / "a.jpg")
    assert image_size(mask) == (2, 3)
    np.testing.assert_array_equal(read_mask(pickle.loads(pickle.dumps(mask))), ROAD * 3)


@given(
    marks=st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=1, max_size=4),
    rule=st.sampled_from(["last", "first", "ignore"]),
)
def test_class_files_create_no_id_that_was_not_there(tmp_path_factory, marks: list[list[bool]], rule: Overlap) -> None:
    folder = tmp_path_factory.mktemp("m")
    stacked = np.array(marks).reshape(-1, 2, 3)
    files = tuple((save(folder / f"{i}.png", marked), 10 + i) for i, marked in enumerate(stacked))
    ids = read_mask(ClassFiles(files=files, image=folder / "x", overlap=rule))
    for row, column in np.ndindex(2, 3):
        there = [10 + i for i in range(len(files)) if stacked[i, row, column]]
        plain = {"last": there[-1:], "first": there[:1], "ignore": there if len(there) == 1 else [255][: len(there)]}
        assert [int(ids[row, column])] == (plain[rule] or [0])


def test_class_files_that_are_no_mask_of_one_class_are_refused(tmp_path: Path) -> None:
    grey = np.array([[0, 128, 255]], np.uint8)
    Image.fromarray(grey).save(tmp_path / "m.png")
    with pytest.raises(DataError, match=r"m\.png: a mask of one class holds 0 outside .* 0, 128, 255.*smoothed"):
        read_mask(ClassFiles(files=((tmp_path / "m.png", 1),), image=tmp_path / "a.jpg"))
    Image.fromarray(grey[:, 1:]).save(tmp_path / "m.png")
    with pytest.raises(DataError, match=r"this one holds 128, 255"):
        read_mask(ClassFiles(files=((tmp_path / "m.png", 1),), image=tmp_path / "a.jpg"))


def test_class_files_of_two_sizes_are_refused(tmp_path: Path) -> None:
    files = ((save(tmp_path / "m.png", ROAD), 1), (save(tmp_path / "n.png", ROAD.T), 2))
    with pytest.raises(DataError, match=r"n\.png: the mask is 3 x 2 and .*m\.png is 2 x 3"):
        read_mask(ClassFiles(files=files, image=tmp_path / "a.jpg"))


def test_read_class_folders_wrong_layouts_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no images/ and masks/ in this folder\. A data set with a mask per class"):
        read_class_folders(tmp_path)
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    with pytest.raises(DataError, match="images: no image files here"):
        read_class_folders(tmp_path)
    save(tmp_path / "images/a.jpg", ROAD)
    with pytest.raises(DataError, match="masks: there are no folders in it"):
        read_class_folders(tmp_path)
    (tmp_path / "masks/road").mkdir()
    with pytest.raises(DataError, match="its folders hold no mask files"):
        read_class_folders(tmp_path)
    save(tmp_path / "masks/road/z.png", ROAD)
    with pytest.raises(DataError, match=r"masks: 1 masks belong to no image: road.z\.png"):
        read_class_folders(tmp_path)
    save(tmp_path / "masks/road/a.png", ROAD)
    (tmp_path / "masks/road/z.png").unlink()
    save(tmp_path / "masks/road/a.bmp", ROAD)
    with pytest.raises(DataError, match=r"a\.bmp and a\.png are two masks of class 'road' for image 'a'"):
        read_class_folders(tmp_path)
    save(tmp_path / "masks/a/road.png", ROAD)
    with pytest.raises(DataError, match="open whether folders are classes or images"):
        read_class_folders(tmp_path)
    save(tmp_path / "images/a.png", ROAD)
    with pytest.raises(DataError, match=r"a\.jpg and a\.png share a name; rename or remove one"):
        read_class_folders(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("overlap: top", "overlap is one of last, first, ignore, refuse, got 'top'"),
        ("order: [road]", r"order lists every class once \(road, sky\), got \['road'\]"),
        ("rule: last", "holds 'overlap' and 'order' and nothing else"),
        ("- last", "holds 'overlap' and 'order' and nothing else"),
        ("overlap: [", "cannot be read as YAML"),
    ],
)
def test_read_class_folders_rules_that_are_not_understood_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (data(tmp_path) / "class_folders.yaml").write_text(text)
    with pytest.raises(DataError, match=rf"class_folders\.yaml: {message}"):
        read_class_folders(tmp_path)


def test_read_class_folders_more_classes_than_ids_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "images/a.jpg", ROAD)
    for number in range(255):
        save(tmp_path / f"masks/c{number:03d}/a.png", ROAD)
    with pytest.raises(DataError, match="255 classes have masks; at most 254"):
        read_class_folders(tmp_path)


def test_read_class_folders_classes_that_are_numbers_keep_their_order(tmp_path: Path) -> None:
    save(tmp_path / "images/a.jpg", ROAD)
    save(tmp_path / "masks/1/a.png", ROAD)
    save(tmp_path / "masks/2/a.png", SKY)
    (tmp_path / "class_folders.yaml").write_text("order: [2, 1]\n")
    assert targets(tmp_path) == {"a": [[1, 1, 1], [2, 0, 0]]}


@pytest.mark.parametrize("order", ["5", "", "road", "{road: 1, sky: 2}"])
def test_read_class_folders_order_that_is_no_list_is_refused(tmp_path: Path, order: str) -> None:
    (data(tmp_path) / "class_folders.yaml").write_text(f"order: {order}\n")
    with pytest.raises(DataError, match=r"class_folders\.yaml: order lists every class once \(road, sky\), got"):
        read_class_folders(tmp_path)


@pytest.mark.parametrize("place", ["images/a.jpg", "masks/road/a.png"])
def test_read_class_folders_pipe_is_refused_unread(tmp_path: Path, place: str) -> None:
    (data(tmp_path) / place).unlink()
    os.mkfifo(tmp_path / place)
    with pytest.raises(DataError, match=r"a\.(jpg|png) is no plain file"):
        read_class_folders(tmp_path)
