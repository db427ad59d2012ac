"""YOLO's text files: what is read, what is counted, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from drawn_fakes import expected, put_image

from perpixel.data.annotations.collected import drawn_source
from perpixel.data.annotations.yolo import read_yolo
from perpixel.errors import DataError

CAR = "0 0.1 0.125 0.6 0.125 0.6 0.625 0.1 0.625"
TREE = "1 0.4 0.375 0.8 0.375 0.8 0.875 0.4 0.875\n"


def put(root: Path, text: str | None = f"{CAR}\n{TREE}", *, images: str = "images", labels: str = "labels") -> Path:
    put_image(root / images / "a.png")
    (root / labels).mkdir(parents=True, exist_ok=True)
    if text is not None:
        (root / labels / "a.txt").write_text(text)
    if not (root / "data.yaml").exists():
        (root / "data.yaml").write_text("path: .\ntrain: images\nnames:\n  0: car\n  1: tree\n")
    return root


def test_read_yolo_fractions_become_pixels_and_indices_names(tmp_path: Path) -> None:
    source = drawn_source(read_yolo(put(tmp_path)))
    assert source.labels.names == ("background", "car", "tree")
    assert source.notes == ()
    (item,) = source.splits["all"]
    np.testing.assert_array_equal(item.mask.read(), expected((1, 1, 1, 6, 5), (2, 4, 3, 8, 7)))


@pytest.mark.parametrize(
    "folders",
    [
        {"train": ("images/train", "labels/train"), "val": ("images/val", "labels/val")},
        {
            "train": ("train/images", "train/labels"),
            "val": ("valid/images", "valid/labels"),
            "test": ("test/images", "test/labels"),
        },
    ],
)
def test_read_yolo_layouts_with_splits(tmp_path: Path, folders: dict[str, tuple[str, str]]) -> None:
    for images, labels in folders.values():
        put(tmp_path, images=images, labels=labels)
    assert set(read_yolo(tmp_path / "data.yaml").splits) == set(folders)


@pytest.mark.parametrize("names", ["names: [car, tree]", "names: {'0': car, '1': tree}", "names: {1: tree, 0: car}"])
def test_read_yolo_names_in_every_form(tmp_path: Path, names: str) -> None:
    (tmp_path / "data.yaml").write_text(names)
    assert list(read_yolo(put(tmp_path)).classes) == ["car", "tree"]


@pytest.mark.parametrize("file", ["classes.txt", "labels/classes.txt"])
def test_read_yolo_classes_txt_and_images_that_lie_apart(tmp_path: Path, file: str) -> None:
    put(tmp_path, images="pictures")
    (tmp_path / "data.yaml").unlink()
    (tmp_path / file).write_text("car\ntree\n")
    annotations = read_yolo(tmp_path, images=tmp_path / "pictures")
    assert annotations.splits["all"][0].image == tmp_path / "pictures" / "a.png"
    assert list(annotations.classes) == ["car", "tree"]


def test_read_yolo_what_is_left_out_is_counted(tmp_path: Path) -> None:
    put(tmp_path, f"{CAR}\n\n0 0.5 0.5 0.2 0.2\n1 0.1 0.1\n0 -0.2 0.1 0.5 0.1 0.5 0.5\n")
    put_image(tmp_path / "images" / "b.png")
    annotations = read_yolo(tmp_path)
    notes = " | ".join(annotations.notes)
    assert "1 boxes, which have no outline, were left out" in notes and "a.txt, line 3" in notes
    assert "1 polygons with fewer than 3 points" in notes and "a.txt, line 4" in notes
    assert "1 shapes reach over the edge" in notes and "a.txt, line 5" in notes
    assert "1 images have no text file, so no object is on them: b.png" in notes
    source = drawn_source(annotations)
    assert "1 images have no shapes, so all their pixels are background: b.png" in source.notes
    empty = source.splits["all"][1].mask
    assert (empty.path, empty.read().max()) == (tmp_path / "images" / "b.png", 0)


@pytest.mark.parametrize(
    "text, message",
    [
        ("2 0 0 1 0 1 1", r"a.txt, line 1: a line begins with a class index from 0 to 1, got '2'"),
        ("car 0 0 1 0 1 1", "got 'car'"),
        ("-1 0 0 1 0 1 1", "got '-1'"),
        ("² 0 0 1 0 1 1", "class index"),
        (f"{'9' * 5000} 0 0 1 0 1 1", "class index"),
        ("0 0 0_1 1 0 1 1", "got '0_1'"),
        ("0 0 0 1 0 1 1 1", "an x and a y for each point, got 7 numbers"),
        ("0 0 0 1 zero 1 1", "must be a number, got 'zero'"),
        ("0 0 0 1 nan 1 1", r"a fraction of the image's size in \[0, 1\], got 'nan'"),
        ("0 0 0 100 0 100 80", "pixels must be divided by width and height"),
        ("0 0.5 0.5 0.2 0.2", "no text file draws a polygon. 1 boxes"),
        (None, "no text file draws a polygon. 1 images have no text file"),
    ],
)
def test_read_yolo_wrong_lines_are_refused_with_their_place(tmp_path: Path, text: str | None, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_yolo(put(tmp_path, text))


@pytest.mark.parametrize(
    "content, message",
    [
        ("names: [a", "not a YAML file"),
        ("- 1", "'names' must list the classes, got NoneType"),
        ("names: {1: a, 2: b}", "must number the classes 0, 1, 2"),
        ("names: []", "must name at least one class"),
        ("names: [[a]]", "must name at least one class, each by a text"),
        ("names: [a, a]", "class names must differ"),
        ("a: &a {x: 1}\nb: &b {<<: [*a, *a]}\nnames: [car]", "alias .a is not read here"),
        ("names: [a]\n#" + "x" * (1 << 20), "more than 1024 KiB are no list of polygons or names"),
    ],
)
def test_read_yolo_wrong_names_are_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "data.yaml").write_text(content)
    with pytest.raises(DataError, match=message):
        read_yolo(put(tmp_path))


def test_read_yolo_other_layouts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such folder"):
        read_yolo(put(tmp_path / "a").parent / "a" / "labels" / "none")
    with pytest.raises(DataError, match=r"neither data.yaml nor data.yml nor dataset.yaml nor classes.txt is here"):
        read_yolo(tmp_path)
    (tmp_path / "classes.txt").write_text("car\n")
    with pytest.raises(DataError, match=r"has another layout. YOLO's data has images/train"):
        read_yolo(tmp_path)
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    with pytest.raises(DataError, match="there are no images here"):
        read_yolo(tmp_path)


def test_read_yolo_text_that_is_none_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path)
    (tmp_path / "labels" / "a.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(DataError, match=r"a.txt: cannot be read as text"):
        read_yolo(tmp_path)
    monkeypatch.setattr("perpixel.data.annotations.yolo._LARGEST_TEXT", 2)
    with pytest.raises(DataError, match="more than 0 KiB are no list of polygons"):
        read_yolo(tmp_path)
