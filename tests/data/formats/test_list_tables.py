"""Lists with headings and splits, and what a listed path may lead to."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from perpixel.data.formats.list_file import file_fault, is_list_folder, read_list, split_line, split_name
from perpixel.data.source import DataSource, open_data
from perpixel.errors import DataError


def put(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((2, 2), np.uint8)).save(path, "PNG")
    return folder


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8", newline="")
    return path


def pairs(source: DataSource) -> dict[str, list[tuple[str, str | None]]]:
    return {
        split: [(item.image.name, None if item.mask is None else item.mask.name) for item in items]
        for split, items in source.splits.items()
    }


@pytest.mark.parametrize("comma", [",", "\t", " "])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_read_list_headings_name_columns_in_any_order(tmp_path: Path, comma: str, end: str) -> None:
    put(tmp_path, "a.jpg", "b.jpg", "c.jpg", "ma.png", "mb.png")
    lines = ["split,mask,image,weather", "training,ma.png,a.jpg,rain", "Validation,mb.png,b.jpg,sun"]
    source = read_list(write(tmp_path / "l.csv", end.join(line.replace(",", comma) for line in lines)))
    assert pairs(source) == {"train": [("a.jpg", "ma.png")], "val": [("b.jpg", "mb.png")]}
    assert source.notes == ("l.csv: the columns weather were left out",)
    assert open_data(tmp_path / "l.csv").splits == source.splits


def test_read_list_splits_of_any_name_and_test_without_masks(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg", "b.jpg", "m.png")
    source = read_list(write(tmp_path / "l.csv", "image,mask,split\nb.jpg,,test\na.jpg,m.png,Night\n"))
    assert pairs(source) == {"test": [("b.jpg", None)], "Night": [("a.jpg", "m.png")]}


def test_read_list_quoted_names_may_hold_commas_and_line_ends(tmp_path: Path) -> None:
    odd = ["a, b.jpg", "c\nd.jpg", "ü\u2028\x85.jpg", ' "e".jpg']
    put(tmp_path, *odd, "m.png")
    table = "image,mask\n" + "".join('"' + name.replace('"', '""') + '",m.png\n' for name in odd[:3])
    assert [image for image, _ in pairs(read_list(write(tmp_path / "l.csv", table)))["all"]] == odd[:3]
    plain = f"{odd[2]}\tm.png\n"
    assert [image for image, _ in pairs(read_list(write(tmp_path / "l.tsv", plain)))["all"]] == [odd[2]]


def test_read_list_comments_above_and_below_headings_are_skipped(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg", "m.png")
    source = read_list(write(tmp_path / "l.csv", "# made by hand\n\nimage,mask\n#b.jpg,x\na.jpg,m.png\n"))
    assert pairs(source) == {"all": [("a.jpg", "m.png")]}


def test_read_list_file_named_as_a_heading_is_a_file(tmp_path: Path) -> None:
    put(tmp_path, "image", "mask")
    assert pairs(read_list(write(tmp_path / "l.txt", "image mask\n"))) == {"all": [("image", "mask")]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,mask\na.jpg\n", r"line 2: 1 fields below 2 headings"),
        ("image,mask\n,m.png\n", "line 2: the image is empty"),
        ("image,mask,split\na.jpg,m.png,\n", "line 2: the split is empty"),
        ("image,mask\na.jpg,m.png\nb.jpg,\n", "line 3: some lines have a mask and some have none"),
        ("image,mask,label\na.jpg,m.png,m.png\n", "the headings mask, label all name the mask; keep one"),
        ("image,depth\na.jpg,m.png\n", "no heading names the masks among image, depth; call the column 'mask'"),
        ("image,mask\n", "the list is empty"),
        ('image,mask\na.jpg,"' + "x" * 200_000 + '"\n', "line 2: cannot be read as a table"),
    ],
)
def test_read_list_faulty_tables_raise_with_their_line(tmp_path: Path, text: str, message: str) -> None:
    put(tmp_path, "a.jpg", "b.jpg", "m.png")
    with pytest.raises(DataError, match=rf"l\.csv.*{message}"):
        read_list(write(tmp_path / "l.csv", text))


def test_split_line_endless_field_is_refused() -> None:
    with pytest.raises(DataError, match="cannot be read as a line of paths"):
        split_line("a," + '"' + "x" * 200_000)


def test_split_name_usual_words() -> None:
    assert [split_name(name) for name in ("Training", "valid", " test ", "night")] == ["train", "val", "test", "night"]


def test_read_list_enormous_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perpixel.data.formats.list_file._LARGEST_LIST", 5)
    with pytest.raises(DataError, match="12 bytes are more than any list"):
        read_list(write(tmp_path / "l.txt", "a.jpg b.png\n"))


def test_read_list_paths_outside_are_taken_and_said(tmp_path: Path) -> None:
    put(tmp_path, "data/a.jpg", "elsewhere/b.jpg", "elsewhere/m.png")
    text = f"a.jpg,../elsewhere/m.png\n../elsewhere/b.jpg,{tmp_path}/elsewhere/m.png\n"
    source = read_list(write(tmp_path / "data/l.csv", text))
    assert pairs(source)["all"] == [("a.jpg", "m.png"), ("b.jpg", "m.png")]
    assert "1 of 2 images lie outside of" in source.notes[0]


def test_read_list_names_never_hold_a_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "x/0.jpg", "0.jpg", "m.png")
    monkeypatch.chdir(tmp_path)
    write(Path("l.csv"), f"0.jpg,m.png\n{tmp_path}/x/0.jpg,m.png\n")
    names = [item.name for item in read_list(Path("l.csv")).splits["all"]]
    assert names == ["0", "x__0"]
    assert not any("/" in name or ".." in name for name in names)


def test_read_list_what_is_no_plain_file_is_refused(tmp_path: Path) -> None:
    put(tmp_path, "m.png", "folder/a.jpg")
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "lost.jpg").symlink_to("gone.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    entries = ["loop.jpg", "lost.jpg", "pipe.jpg", "folder", "/dev/zero", "m.png/a.jpg", "x" * 5000, "nul\0.jpg"]
    with pytest.raises(DataError) as caught:
        read_list(write(tmp_path / "l.csv", "".join(f"{entry},m.png\n" for entry in entries)))
    message = str(caught.value)
    assert "lists 8 files" in message
    for words in (
        "loop.jpg (line 1) is a symbolic link that leads nowhere or to itself",
        "lost.jpg (line 2) is a symbolic link",
        "pipe.jpg (line 3) is no plain file",
        "folder (line 4) is a folder",
        "/dev/zero (line 5) is no plain file",
        "m.png/a.jpg (line 6),",
        "(line 7) is no path",
        "(line 8) is no path",
    ):
        assert words in message
    assert file_fault(tmp_path / "m.png") is None
    (tmp_path / "good.jpg").symlink_to("m.png")
    assert file_fault(tmp_path / "good.jpg") is None


def test_read_list_folder_of_lists_with_split_columns(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg", "m.png")
    write(tmp_path / "train.csv", "image,mask,split\na.jpg,m.png,training\n")
    assert pairs(open_data(tmp_path)) == {"train": [("a.jpg", "m.png")]}
    assert is_list_folder(tmp_path)
    write(tmp_path / "train.csv", "image,mask,split\na.jpg,m.png,val\n")
    with pytest.raises(DataError, match=r"train\.csv: its column of splits names val, and the file is 'train''s"):
        read_list(tmp_path)
