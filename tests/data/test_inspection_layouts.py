"""How the detective walks folders and lists whose readers refuse them, hostile ones among them."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from perpixel.data.inspection.inspect import Inspection, inspect_data
from perpixel.errors import ConfigError, DataError

QUIET = {"class_imbalance", "thin_objects", "encoding"}
MASK = np.arange(40 * 48, dtype=np.uint16).reshape(40, 48) // 500


def write(folder: Path, name: str, seed: int = 0) -> Path:
    """An image of noise under images/, or a mask of four classes under any other folder."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    if "images" in folder.parts or folder.name in ("train", "JPEGImages"):
        coarse = np.random.default_rng(seed).integers(0, 255, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((48, 40), 0).save(path)
    else:
        Image.fromarray(np.roll(MASK, seed, axis=1).astype(np.uint8)).save(path)
    return path


def write_pairs(root: Path, count: int = 4, split: str = "") -> Path:
    for index in range(count):
        write(root / split / "images", f"a{index}.png", index + len(split) * 50)
        write(root / split / "masks", f"a{index}.png", index + len(split) * 5)
    return root


def kinds(found: Inspection) -> dict[str, tuple[str, ...]]:
    return {one.kind: one.files for one in found.findings if one.kind not in QUIET}


def severity(found: Inspection, kind: str) -> str:
    return next(one.severity for one in found.findings if one.kind == kind)


def message(found: Inspection, kind: str) -> str:
    return next(one.message for one in found.findings if one.kind == kind)


def test_inspect_data_folders_and_two_folders_are_both_walked(tmp_path: Path) -> None:
    root = write_pairs(tmp_path / "d")
    assert inspect_data(root).splits == inspect_data(root / "images", root / "masks").splits == {"all": 4}
    assert kinds(inspect_data(f"folder:{root}")) == {}


def test_inspect_data_splits_around_and_inside_are_walked(tmp_path: Path) -> None:
    around = write_pairs(write_pairs(tmp_path / "a", split="train"), split="val")
    assert inspect_data(around).splits == {"train": 4, "val": 4}
    for split in ("train", "val"):
        for index in range(3):
            write(tmp_path / "b" / "images" / split, f"x{index}.jpg", index + len(split))
            write(tmp_path / "b" / "masks" / split, f"x{index}.png", index + len(split))
    found = inspect_data(tmp_path / "b", splits=["val"])
    assert found.splits == {"val": 3}


def test_inspect_data_unknown_split_format_and_path_refused(tmp_path: Path) -> None:
    root = write_pairs(tmp_path / "d")
    with pytest.raises(DataError, match=r"has no split 'vall'.*It has: all"):
        inspect_data(root, splits=["vall"])
    with pytest.raises(DataError, match=r"no data format 'camvit'.*did you mean 'camvid'"):
        inspect_data(f"camvit:{root}")
    with pytest.raises(DataError, match="there is no such data folder or list file"):
        inspect_data(tmp_path / "nowhere")
    with pytest.raises(DataError, match="there is no such folder of masks"):
        inspect_data(root / "images", tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="no label space 'nothing'"):
        inspect_data(root, labels="nothing")


def test_inspect_data_folder_without_layout_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "d" / "stuff").mkdir(parents=True)
    found = inspect_data(tmp_path / "d")
    assert [one.kind for one in found.findings] == ["layout"]
    assert "no images/ and masks/" in found.findings[0].message


def test_inspect_data_names_without_case_and_accents_are_paired_and_noted(tmp_path: Path) -> None:
    root = write_pairs(tmp_path / "d")
    (root / "masks" / "a1.png").rename(root / "masks" / "A1.png")
    for kind, form in (("images", "NFC"), ("masks", "NFD")):
        write(root / kind, unicodedata.normalize(form, "café.png"), 9)
    found = inspect_data(root)
    assert set(kinds(found)) == {"names_differ", "name_unicode"}
    assert severity(found, "names_differ") == "error"  # the reader takes them for missing


def test_inspect_data_missing_spare_and_doubled_files_are_told_apart(tmp_path: Path) -> None:
    root = write_pairs(tmp_path / "d", 6)
    (root / "masks" / "a0.png").unlink()
    (root / "images" / "a1.png").unlink()
    write(root / "images", "a2.jpg", 70)
    write(root / "images", "a3.gif", 71)
    (root / "images" / "notes.txt").write_text("x")
    (root / "images" / ".hidden.png").write_text("x")
    assert kinds(inspect_data(root)) == {
        "missing_mask": ("images/a0.png",),
        "spare_mask": ("masks/a1.png",),
        "duplicate_stem": ("images/a2.png", "images/a2.jpg", "images/a3.png", "images/a3.gif"),
        "unknown_format": ("images/a3.gif",),
        "other_file": ("images/notes.txt",),
    }


def test_inspect_data_one_file_per_class_is_no_missing_mask(tmp_path: Path) -> None:
    root = write_pairs(tmp_path / "d")
    for path in (root / "masks").iterdir():
        for name in ("road", "sky"):
            (root / "masks2" / name).mkdir(parents=True, exist_ok=True)
            (root / "masks2" / name / path.name).write_bytes(path.read_bytes())
    found = inspect_data(root / "images", root / "masks2")
    assert set(kinds(found)) == {"class_files"}
    assert "a folder for each class: road, sky" in message(found, "class_files")


def test_inspect_data_links_in_circles_and_upwards_are_errors_and_not_followed(tmp_path: Path) -> None:
    root = write_pairs(tmp_path / "d")
    (root / "images" / "up").symlink_to(root)
    (root / "circle").symlink_to(root / "circle")
    (root / "images" / "a9.png").symlink_to("gone.png")
    write(root / "masks", "a9.png", 9)
    assert kinds(inspect_data(root)) == {
        "link_loop": ("images/up", "circle"),
        "broken_link": ("images/a9.png",),
    }


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_inspect_data_file_without_permission_is_unreadable(tmp_path: Path) -> None:
    root = write_pairs(tmp_path / "d")
    (root / "masks" / "a0.png").chmod(0)
    assert set(kinds(inspect_data(root))) == {"unreadable"}


def listed(tmp_path: Path, text: str) -> Inspection:
    root = write_pairs(tmp_path / "d", 6)
    (tmp_path / "d" / "list.txt").write_text(text)
    return inspect_data(root / "list.txt")


def test_inspect_data_list_with_every_fault_names_each(tmp_path: Path) -> None:
    found = listed(
        tmp_path,
        "images/a0.png masks/a0.png\n"
        "images/a1.png masks/a2.png\n"
        "images/a3.png masks/a3.png extra.png\n"
        "images/gone.png masks/gone.png\n"
        "images/a4.png masks/gone.png\n"
        "images/a5.png\tmasks/a5.png\n"
        "images/a0.png masks/a0.png\n"
        "../../etc/passwd masks/a5.png\n",
    )
    assert kinds(found) == {
        "list_pairs_differ": ("images/a1.png",),
        "bad_line": ("list.txt",),
        "listed_missing": ("images/gone.png",),
        "missing_mask": ("images/a4.png",),
        "listed_twice": ("images/a0.png",),
        "outside_path": ("list.txt",),
    }
    assert "line 3" in message(found, "bad_line")
    assert "line 7 and all, line 1" in message(found, "listed_twice")


def test_inspect_data_list_in_other_letters_is_an_error_of_names(tmp_path: Path) -> None:
    found = listed(tmp_path, "images/A0.PNG masks/a0.png\nimages/a1.png masks/a1.png\n")
    assert set(kinds(found)) == {"names_differ"}
    assert severity(found, "names_differ") == "error"


def test_inspect_data_empty_list_is_an_error(tmp_path: Path) -> None:
    assert set(kinds(listed(tmp_path, "\n# nothing\n"))) == {"layout"}


def test_inspect_data_list_of_bytes_is_an_error(tmp_path: Path) -> None:
    root = write_pairs(tmp_path / "d")
    (root / "list.txt").write_bytes(b"\xff\xfe\0\1" * 50)
    assert inspect_data(root / "list.txt").count("error") > 0


def test_inspect_data_label_file_that_is_wrong_is_an_error(tmp_path: Path) -> None:
    root = write_pairs(tmp_path / "d")
    (root / "labels.yaml").write_text("names: 3\n")
    assert "'names' must list" in message(inspect_data(root), "layout")


def write_voc(root: Path) -> Path:
    base = root / "VOCdevkit" / "VOC2012"
    for index in range(6):
        write(base / "JPEGImages", f"2007_{index:06}.jpg", index)
        write(base / "SegmentationClass", f"2007_{index:06}.png", index)
    lists = base / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("".join(f"2007_{i:06}\n" for i in range(4)))
    (lists / "val.txt").write_text("".join(f"2007_{i:06}\n" for i in range(4, 6)))
    return base


def test_inspect_data_voc_with_faults_is_walked_by_its_lists(tmp_path: Path) -> None:
    base = write_voc(tmp_path)
    (base / "SegmentationClass" / "2007_000001.png").unlink()
    with (base / "ImageSets" / "Segmentation" / "val.txt").open("a") as file:
        file.write("2007_000000\n")
    found = inspect_data(tmp_path)
    assert found.format == "voc"
    got = kinds(found)
    assert got["missing_mask"] == ("JPEGImages/2007_000001.jpg",)
    assert got["listed_twice"] == ("JPEGImages/2007_000000.jpg",)
    assert set(got) == {"missing_mask", "listed_twice", "class_missing"}


def test_inspect_data_published_layout_that_its_reader_refuses_is_an_error(tmp_path: Path) -> None:
    root = tmp_path / "ADEChallengeData2016"
    for part, prefix in (("training", "ADE_train"), ("validation", "ADE_val")):
        for index in range(3):
            write(root / "images" / part, f"{prefix}_{index:08}.jpg", index + len(part))
            write(root / "annotations" / part, f"{prefix}_{index:08}.png", index + len(part))
    assert inspect_data(root).labels is not None
    (root / "annotations" / "training" / "ADE_train_00000001.png").unlink()
    got = kinds(inspect_data(root))
    assert got["missing_mask"] == ("images/training/ADE_train_00000001.jpg",)
    assert "layout" not in got
