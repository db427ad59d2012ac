"""Folders with metadata as the Hub has them, and plain folders with splits around or inside images and masks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from perpixel.data.formats.folders import read_folder
from perpixel.data.formats.image_folder import is_image_folder, read_image_folder
from perpixel.data.source import DataSource, open_data
from perpixel.errors import DataError


def put(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((2, 2), np.uint8)).save(path)
    return folder


def jsonl(path: Path, *rows: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "\n")
    return path


def pairs(source: DataSource) -> dict[str, list[tuple[str, str, str | None]]]:
    return {
        split: [(item.name, item.image.name, None if item.mask is None else item.mask.name) for item in items]
        for split, items in source.splits.items()
    }


# Metadata


@pytest.mark.parametrize("column", ["mask", "mask_file_name", "label", "annotation"])
def test_read_image_folder_splits_with_csv(tmp_path: Path, column: str) -> None:
    put(tmp_path, "train/a.png", "train/masks/a.png", "validation/b.png", "validation/b_m.png", "test/c.png")
    (tmp_path / "train/metadata.csv").write_text(
        f"file_name,{column},text\na.png,masks/a.png,'x, y'\n".replace("'", '"')
    )
    (tmp_path / "validation/metadata.csv").write_text(f"{column},file_name\nb_m.png,b.png\n")
    (tmp_path / "test/metadata.csv").write_text("file_name\nc.png\n")
    source = read_image_folder(tmp_path)
    assert pairs(source) == {
        "train": [("a", "a.png", "a.png")],
        "val": [("b", "b.png", "b_m.png")],
        "test": [("c", "c.png", None)],
    }
    assert f"masks come from column {column!r} of metadata.csv" in source.notes
    assert "split 'test' has no masks" in source.notes[-1]
    opened = open_data(tmp_path)
    assert (opened.format, opened.splits) == ("image_folder", source.splits)


def test_read_image_folder_one_jsonl_at_the_top(tmp_path: Path) -> None:
    put(tmp_path, "x/a.png", "x/m.png")
    jsonl(tmp_path / "metadata.jsonl", {"file_name": "x/a.png", "mask": "x/m.png", "tags": [1, {"a": None}]})
    (tmp_path / "labels.yaml").write_text("names: [a, b]")
    source = open_data(f"image_folder:{tmp_path}")
    assert pairs(source) == {"all": [("a", "a.png", "m.png")]}
    assert source.labels is not None


def test_read_image_folder_paths_that_begin_with_splits_divide_it(tmp_path: Path) -> None:
    put(tmp_path, "train/a.png", "validation/a.png", "masks/a.png", "other/a.png")
    rows = [{"file_name": f"{split}/a.png", "mask": "masks/a.png"} for split in ("train", "validation")]
    jsonl(tmp_path / "metadata.jsonl", *rows)
    assert list(read_image_folder(tmp_path).splits) == ["train", "val"]
    jsonl(tmp_path / "metadata.jsonl", *rows, {"file_name": "other/a.png", "mask": "masks/a.png"})
    with pytest.raises(DataError, match=r"1 images lie in no folder of a split and the others do: .*other/a"):
        read_image_folder(tmp_path)


def test_read_image_folder_paths_stay_within_the_data(tmp_path: Path) -> None:
    put(tmp_path, "d/train/a.png", "d/masks/a.png", "secret.png")
    jsonl(tmp_path / "d/train/metadata.jsonl", {"file_name": "a.png", "mask": "../masks/a.png"})
    assert pairs(read_image_folder(tmp_path / "d"))["train"] == [("a", "a.png", "a.png")]
    for name in ("../../secret.png", str(tmp_path / "secret.png"), "../train/../../secret.png"):
        jsonl(tmp_path / "d/train/metadata.jsonl", {"file_name": "a.png", "mask": name})
        with pytest.raises(DataError, match=r"metadata\.jsonl, line 1: .*leads out of"):
            read_image_folder(tmp_path / "d")
    (tmp_path / "d/train/loop.png").symlink_to("loop.png")
    jsonl(tmp_path / "d/train/metadata.jsonl", {"file_name": "loop.png", "mask": "a.png"})
    with pytest.raises(DataError, match=r"line 1: 'loop\.png' is a symbolic link that leads nowhere or to itself"):
        read_image_folder(tmp_path / "d")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[1, 2]], "line 1: must be a mapping with file_name, got list"),
        (["a"], "line 1: must be a mapping with file_name, got str"),
        ([{"image": "a.png", "mask": "m.png"}], "line 1: no column file_name among image, mask"),
        ([{"file_name": 3, "mask": "m.png"}], "line 1: file_name must be the path of a file, got 3"),
        ([{"file_name": "", "mask": "m.png"}], "line 1: there is no file_name"),
        ([{"file_name": "a.png", "mask": 7}], "line 1: mask must be the path of a file, got 7"),
        ([{"file_name": "a.png", "mask": {"path": "m.png"}}], "mask must be the path of a file, got {'path'"),
        ([{"file_name": "a.png", "mask": "m.png", "label": 1}], "the columns mask, label may all be masks"),
        (
            [{"file_name": "a.png", "mask": "m.png"}, {"file_name": "b.png"}],
            "line 2: an image of split 'all' has no mask",
        ),
        ([{"file_name": "a.png"}], "line 1: an image of split 'all' has no mask; only test may have none"),
        ([{"file_name": "gone.png", "mask": "m.png"}], r"'gone\.png' is not there"),
        ([{"file_name": "a.png", "mask": "m.png"}] * 2, r"listed more than once: .*a\.png"),
        ([], "the metadata lists no image"),
    ],
)
def test_read_image_folder_json_of_another_shape_is_refused(tmp_path: Path, rows: list[Any], message: str) -> None:
    put(tmp_path, "a.png", "b.png", "m.png")
    jsonl(tmp_path / "metadata.jsonl", *rows)
    with pytest.raises(DataError, match=message):
        read_image_folder(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metadata.jsonl", b"{", "line 1: cannot be read as JSON"),
        ("metadata.jsonl", b"[" * 100_000, "line 1: cannot be read as JSON"),
        ("metadata.csv", b"\xff", "cannot be read as metadata"),
        ("metadata.csv", b"file_name,mask\na.png\n", "line 2: 1 fields below 2 headings"),
        ("metadata.csv", b'file_name,mask\n"' + b"x" * 200_000 + b'",a\n', "line 2: cannot be read as a table"),
    ],
)
def test_read_image_folder_damaged_metadata_is_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"{name}.*{message}"):
        read_image_folder(tmp_path)


def test_read_image_folder_enormous_metadata_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perpixel.data.formats.image_folder._LARGEST_FILE", 5)
    jsonl(tmp_path / "metadata.jsonl", {"file_name": "a"})
    with pytest.raises(DataError, match="bytes are more than any metadata"):
        read_image_folder(tmp_path)


def test_is_image_folder_only_with_a_mask_column(tmp_path: Path) -> None:
    assert not is_image_folder(tmp_path)
    with pytest.raises(DataError, match=r"no metadata\.csv or metadata\.jsonl here\. An image folder holds"):
        read_image_folder(tmp_path)
    jsonl(tmp_path / "metadata.jsonl", {"file_name": "a.png", "text": "a cat"})
    assert not is_image_folder(tmp_path)
    (tmp_path / "metadata.jsonl").write_text("{")
    assert not is_image_folder(tmp_path)


# Plain folders


@pytest.mark.parametrize(("images", "masks"), [("images", "masks"), ("img_dir", "ann_dir"), ("images", "annotations")])
def test_read_folder_splits_inside_images_and_masks(tmp_path: Path, images: str, masks: str) -> None:
    put(tmp_path, f"{images}/train/a.jpg", f"{masks}/train/a.png", f"{images}/validation/b.jpg", f"{images}/test/c.jpg")
    put(tmp_path, f"{masks}/val/b.png")
    source = open_data(tmp_path)
    assert (source.format, pairs(source)) == (
        "folder",
        {"train": [("a", "a.jpg", "a.png")], "val": [("b", "b.jpg", "b.png")], "test": [("c", "c.jpg", None)]},
    )
    assert "1 images can be predicted, not scored" in source.notes[-1]
    (tmp_path / masks / "val/b.png").unlink()
    (tmp_path / masks / "val").rmdir()
    with pytest.raises(DataError, match=rf"{masks}: there is no folder masks/ in it for split 'val'"):
        read_folder(tmp_path)


def test_read_folder_annotations_without_pictures_are_no_masks(tmp_path: Path) -> None:
    put(tmp_path, "images/a.jpg")
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations/instances.json").write_text("{}")
    with pytest.raises(DataError, match="no images/ and masks/ in this folder, it holds annotations, images"):
        read_folder(tmp_path)


def test_read_folder_links_that_lead_nowhere_are_refused(tmp_path: Path) -> None:
    put(tmp_path, "images/a.jpg", "masks/a.png")
    (tmp_path / "images/b.jpg").symlink_to("gone.jpg")
    (tmp_path / "images/c.jpg").symlink_to("c.jpg")
    with pytest.raises(DataError, match=r"images: 2 entries are no plain files, or links .*: b\.jpg, c\.jpg"):
        read_folder(tmp_path)
